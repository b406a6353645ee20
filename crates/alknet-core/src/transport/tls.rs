//! TLS over TCP as a single-stream transport.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    task::{Context, Poll},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{client, server};

use crate::{
    Code, RecvHalf, RecvStream, SendHalf, SendStream, SingleStream, Stream, TransportKind,
    transport::ahead::ReadAhead,
};

/// What TLS runs over.
pub(crate) type Tcp = ReadAhead<TcpStream>;

/// When the system asks a peer that says nothing for a sign of life. One that is gone is
/// noticed after 70 seconds, about as soon as on QUIC.
const KEEP_ALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(30))
    .with_interval(Duration::from_secs(10))
    .with_retries(4);

/// Takes a TCP connection for TLS.
pub(crate) fn tcp(stream: TcpStream) -> io::Result<Tcp> {
    kept_alive(stream, &KEEP_ALIVE)
}

fn kept_alive(stream: TcpStream, keep_alive: &TcpKeepalive) -> io::Result<Tcp> {
    // Who only listens would never learn that nobody is there.
    SockRef::from(&stream).set_tcp_keepalive(keep_alive)?;
    #[cfg(target_os = "linux")]
    retry::often(&stream);
    // Interactive sessions send small pieces; waiting to fill a segment delays each key press.
    stream.set_nodelay(true)?;
    Ok(ReadAhead::new(stream))
}

/// How soon what is not acknowledged is given up; nobody asks for signs of life meanwhile.
#[cfg(target_os = "linux")]
mod retry {
    use nix::{
        libc, setsockopt_impl,
        sys::socket::{SetSockOpt as _, sockopt::SetUsize},
    };
    use tokio::net::TcpStream;

    /// The longest time between two tries.
    #[derive(Debug, Clone, Copy)]
    pub(super) struct Longest;

    /// `TCP_RTO_MAX_MS` of linux/tcp.h.
    pub(super) const OPTION: libc::c_int = 44;
    pub(super) const MILLISECONDS: usize = 5000;

    setsockopt_impl!(Longest, libc::IPPROTO_TCP, OPTION, usize, SetUsize);

    /// Has a peer be given up after a minute, and not after a quarter of an hour: Linux tries
    /// 15 times (`tcp_retries2`), each time after twice as long, up to this.
    ///
    /// `TCP_USER_TIMEOUT` bounds that as well, but also ends who does not read for as long,
    /// although it is there and says so.
    pub(super) fn often(stream: &TcpStream) {
        if let Err(error) = Longest.set(stream, &MILLISECONDS) {
            tracing::debug!(%error, "Linux knows no such bound before 6.15");
        }
    }
}

/// The side that accepted.
pub(crate) fn accepted(stream: server::TlsStream<Tcp>, remote: SocketAddr) -> SingleStream {
    let (stream, exports) = shared(stream);
    SingleStream::accepted(TransportKind::Tls, stream)
        .with_exporter(Box::new(move |out, label, context| {
            let export = |s: &server::TlsStream<Tcp>| {
                s.get_ref().1.export_keying_material(out, label, Some(context)).is_ok()
            };
            with(&exports, export)
        }))
        .with_remote_addr(Some(remote))
}

/// The side that dialled.
pub(crate) fn dialled(stream: client::TlsStream<Tcp>, remote: SocketAddr) -> SingleStream {
    let (stream, exports) = shared(stream);
    SingleStream::dialled(TransportKind::Tls, stream)
        .with_exporter(Box::new(move |out, label, context| {
            let export = |s: &client::TlsStream<Tcp>| {
                s.get_ref().1.export_keying_material(out, label, Some(context)).is_ok()
            };
            with(&exports, export)
        }))
        .with_remote_addr(Some(remote))
}

/// Splits a TLS stream into halves, and a third handle that does not keep it open: rustls
/// exports keying material only from the live session.
fn shared<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: S,
) -> (Stream, Weak<Mutex<S>>) {
    let stream = Arc::new(Mutex::new(stream));
    let exports = Arc::downgrade(&stream);
    let send = SendStream::new(Half(Some(stream.clone())), None);
    let recv = RecvStream::new(Half(Some(stream)), None);
    (Stream::new(send, recv), exports)
}

fn with<S>(stream: &Weak<Mutex<S>>, f: impl FnOnce(&S) -> bool) -> bool {
    stream.upgrade().is_some_and(|stream| f(&stream.lock().unwrap_or_else(PoisonError::into_inner)))
}

/// The peer ended TCP without the end of TLS (RFC 8446, section 6.1): what it sent may be
/// a part.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the peer closed the connection in the middle of the stream")]
struct CutOff;

/// The same error, in our words where rustls would send the reader to its manual.
fn in_words(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => io::Error::new(io::ErrorKind::UnexpectedEof, CutOff),
        _ => error,
    }
}

/// One direction of a TLS stream; `None` once it is given up. The connection is cut, without
/// TLS's own end, when both are.
struct Half<S>(Option<Arc<Mutex<S>>>);

impl<S: Unpin> Half<S> {
    fn poll<T>(
        &self,
        poll: impl FnOnce(Pin<&mut S>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match &self.0 {
            Some(stream) => {
                poll(Pin::new(&mut stream.lock().unwrap_or_else(PoisonError::into_inner)))
            }
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }
}

impl<S: AsyncRead + Send + Unpin> RecvHalf for Half<S> {
    fn stop(&mut self, _code: Code) {
        self.0 = None;
    }
}

impl<S: AsyncWrite + Send + Unpin> SendHalf for Half<S> {
    fn reset(&mut self, _code: Code) {
        self.0 = None;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Half<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_read(cx, buf)).map_err(in_words)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Half<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll(|stream| stream.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.0.is_none() {
            return Poll::Ready(Ok(()));
        }
        self.poll(|stream| stream.poll_shutdown(cx))
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use nix::{
        getsockopt_impl, libc,
        sys::socket::{GetSockOpt as _, sockopt::GetUsize},
    };
    use socket2::SockFilter;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        time::timeout,
    };

    use super::{retry::Longest, *};

    getsockopt_impl!(Longest, libc::IPPROTO_TCP, retry::OPTION, usize, GetUsize);

    const SOON: TcpKeepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(1))
        .with_interval(Duration::from_secs(1))
        .with_retries(1);
    /// Long enough for a busy machine, short enough that a hang is a failure.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// The ends of a connection: the one that dialled, and the one that accepted.
    async fn pair(take: impl Fn(TcpStream) -> io::Result<Tcp>) -> [Tcp; 2] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        [take(dialled).unwrap(), take(accepted).unwrap()]
    }

    /// Has the system drop whatever arrives at this end before it looks at it.
    fn cut(end: &Tcp) {
        const RETURN: u16 = 0x06;
        let nothing = SockFilter::new(RETURN, 0, 0, 0);
        SockRef::from(&end.stream).attach_filter(&[nothing]).unwrap();
    }

    #[tokio::test]
    async fn either_end_asks_for_signs_of_life() {
        for end in pair(tcp).await {
            let socket = SockRef::from(&end.stream);
            assert!(socket.keepalive().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap().as_secs(), 30);
            assert_eq!(socket.tcp_keepalive_interval().unwrap().as_secs(), 10);
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), 4);
            assert_eq!(socket.tcp_user_timeout().unwrap(), None, "it ends who does not read");
            assert!(socket.tcp_nodelay().unwrap());
            match Longest.get(&end.stream) {
                Ok(milliseconds) => assert_eq!(milliseconds, retry::MILLISECONDS),
                // Before Linux 6.15.
                Err(error) => assert_eq!(error, nix::errno::Errno::ENOPROTOOPT),
            }
        }
    }

    #[tokio::test]
    async fn a_path_that_is_cut_is_noticed_at_both_ends_and_a_stalled_reader_is_not_ended() {
        let take = |stream| kept_alive(stream, &SOON);
        let [mut writer, mut reader] = pair(take).await;
        // More than the system takes for a reader that takes nothing.
        let sent = vec![7; 32 << 20];
        let mut received = vec![0; sent.len()];
        let write = async { writer.write_all(&sent).await.unwrap() };
        let read = async {
            for _ in 0..2 {
                let lost = pair(take).await;
                lost.iter().for_each(cut);
                for mut end in lost {
                    let error = end.read_u8().await.unwrap_err();
                    assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
                }
            }
            // All that time nothing was read here.
            reader.read_exact(&mut received).await.unwrap();
        };
        timeout(PATIENCE, async { tokio::join!(write, read) }).await.expect("nobody notices");
        assert!(received == sent);
    }
}
