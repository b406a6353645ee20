//! TLS over TCP as a single-stream transport.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    task::{Context, Poll},
};

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

/// Takes a TCP connection for TLS.
pub(crate) fn tcp(stream: TcpStream) -> io::Result<Tcp> {
    // Interactive sessions send small pieces; waiting to fill a segment delays each key press.
    stream.set_nodelay(true)?;
    Ok(ReadAhead::new(stream))
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
