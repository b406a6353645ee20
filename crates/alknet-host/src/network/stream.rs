//! Connections that were made or accepted.

use std::{
    fmt, io,
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};

use super::places::Place;

/// When the system asks an end that says nothing for a sign of life. One that is gone is
/// noticed after two minutes, and gives its place back.
const KEEP_ALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(15))
    .with_retries(4);

/// One end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// Of a TCP connection.
    Tcp(SocketAddr),
    /// Of a Unix socket; empty where it has no path.
    Unix(PathBuf),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection to a target that the caller may have. Bytes both ways;
/// `poll_shutdown` ends the sending direction alone.
#[derive(Debug)]
pub struct Connected {
    socket: Socket,
    local: Peer,
    remote: Peer,
    /// Of a connection for a caller.
    #[expect(dead_code, reason = "held for its drop")]
    place: Option<Place>,
}

/// A connection that a [`Listener`](super::Listener) accepted.
pub type Accepted = Connected;

impl Connected {
    /// A connection that the caller made or accepted, outside any policy. Fails if it is gone
    /// already.
    pub fn of_tcp(stream: TcpStream) -> io::Result<Self> {
        // What is carried was coalesced by whoever sent it.
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_keepalive(&KEEP_ALIVE)?;
        let local = Peer::Tcp(stream.local_addr()?);
        let remote = Peer::Tcp(stream.peer_addr()?);
        Ok(Self { socket: Socket::Tcp(stream), local, remote, place: None })
    }

    pub(super) fn unix(stream: UnixStream, path: PathBuf) -> Self {
        let (local, remote) = (Peer::Unix(PathBuf::new()), Peer::Unix(path));
        Self { socket: Socket::Unix(stream), local, remote, place: None }
    }

    /// For a caller: gives the place back when it is dropped.
    pub(super) fn counted(self, place: Place) -> Self {
        Self { place: Some(place), ..self }
    }

    pub(super) fn accepted_unix(stream: UnixStream, path: PathBuf) -> Self {
        let (local, remote) = (Peer::Unix(path), Peer::Unix(PathBuf::new()));
        Self { socket: Socket::Unix(stream), local, remote, place: None }
    }

    /// This machine's end.
    pub fn local(&self) -> &Peer {
        &self.local
    }

    /// The other end: the address that was dialled, or that a connection came from.
    pub fn remote(&self) -> &Peer {
        &self.remote
    }

    /// Has the connection end with a reset when it is dropped, so that the other end does
    /// not take a part for the whole. A Unix socket has no such thing.
    pub fn reset_on_drop(&self) -> io::Result<()> {
        match &self.socket {
            Socket::Tcp(stream) => stream.set_zero_linger(),
            Socket::Unix(_) => Ok(()),
        }
    }
}

impl AsyncRead for Connected {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Socket::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connected {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.socket {
            Socket::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Socket::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Socket::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn an_end_that_says_nothing_is_asked_for_a_sign_of_life() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        for stream in [dialled, accepted] {
            let connected = Connected::of_tcp(stream).unwrap();
            let Socket::Tcp(stream) = &connected.socket else { panic!("{connected:?}") };
            let socket = SockRef::from(stream);
            assert!(socket.keepalive().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap().as_secs(), 60);
            assert_eq!(socket.tcp_keepalive_interval().unwrap().as_secs(), 15);
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), 4);
        }
    }
}
