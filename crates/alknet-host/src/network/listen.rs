//! Listening for a caller.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{net::TcpListener, time::sleep};

use super::{
    Target,
    error::NetworkError,
    host::Host,
    places::{Counter, Place},
    resolve::{self, Shares, SystemResolver},
    stream::{Connected, Peer},
    unix::{self, UnixListening},
};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;
/// How long accepting rests when the node is out of descriptors.
const REST: Duration = Duration::from_millis(100);

/// Listens on what a caller may listen on, until it is dropped; the path of a Unix socket is
/// then removed.
pub struct Listener {
    sockets: Sockets,
    /// For a caller: what counts its connections, and its place as a listener.
    counted: Option<(Counter, Place)>,
}

enum Sockets {
    /// At least one: `localhost` has two addresses.
    Tcp(Vec<TcpListener>),
    Unix(UnixListening),
}

impl Listener {
    /// Listens on one port of all addresses; those that the machine does not have are left
    /// out as long as there is one.
    pub(super) fn tcp(addresses: &[IpAddr], port: u16) -> io::Result<Self> {
        let mut sockets: Vec<TcpListener> = Vec::new();
        let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in addresses {
            // A free port is found once, and is then the port of all.
            let port = match sockets.first() {
                Some(first) => first.local_addr()?.port(),
                None => port,
            };
            match bind(SocketAddr::new(*address, port)) {
                Ok(socket) => sockets.push(socket),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
                Err(error) => failed = error,
            }
        }
        match sockets.is_empty() {
            true => Err(failed),
            false => Ok(Self { sockets: Sockets::Tcp(sockets), counted: None }),
        }
    }

    pub(super) fn unix(listening: UnixListening) -> Self {
        Self { sockets: Sockets::Unix(listening), counted: None }
    }

    /// For a caller, whose connections are counted.
    pub(super) fn counted(self, counter: Counter, place: Place) -> Self {
        Self { counted: Some((counter, place)), ..self }
    }

    /// Listens under no policy: for what a program's own user asked for.
    pub async fn unchecked(target: &Target) -> Result<Self, NetworkError> {
        match target {
            Target::Tcp { host, port } => {
                let host = Host::parse_bind(host).map_err(NetworkError::Host)?;
                let share = Shares::of_nobody();
                let found = resolve::addresses(&SystemResolver::default(), &host, share).await;
                Ok(Self::tcp(&found.map_err(NetworkError::Resolve)?, *port)?)
            }
            Target::Unix(path) => Ok(Self::unix(unix::listen_unchecked(path)?)),
        }
    }

    /// Where it listens.
    pub fn local(&self) -> io::Result<Peer> {
        match &self.sockets {
            Sockets::Tcp(sockets) => {
                let first = sockets.first().ok_or_else(super::closed)?;
                first.local_addr().map(Peer::Tcp)
            }
            Sockets::Unix(listening) => Ok(Peer::Unix(listening.path().to_owned())),
        }
    }

    /// The port it listens on, if it is a TCP port.
    pub fn port(&self) -> Option<u16> {
        match self.local() {
            Ok(Peer::Tcp(address)) => Some(address.port()),
            Ok(Peer::Unix(_)) | Err(_) => None,
        }
    }

    /// The path it listens on, if it is a Unix socket.
    pub fn path(&self) -> Option<&Path> {
        match &self.sockets {
            Sockets::Unix(listening) => Some(listening.path()),
            Sockets::Tcp(_) => None,
        }
    }

    /// Waits for a connection; one that is gone before it could be looked at is none. Cancel
    /// safe.
    pub async fn accept(&self) -> Connected {
        loop {
            let accepted = match &self.sockets {
                Sockets::Tcp(sockets) => accept_any(sockets).await,
                Sockets::Unix(listening) => listening.accept().await,
            };
            match accepted {
                Ok(connected) => match self.place(connected) {
                    Some(connected) => return connected,
                    None => tracing::debug!("a forwarded connection too many"),
                },
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a forwarded connection");
                    sleep(REST).await;
                }
            }
        }
    }
}

impl Listener {
    /// Counts a connection; one too many is reset.
    fn place(&self, connected: Connected) -> Option<Connected> {
        let Some((counter, _)) = &self.counted else { return Some(connected) };
        match counter.take() {
            Some(place) => Some(connected.counted(place)),
            None => {
                connected.reset_on_drop().ok()?;
                None
            }
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Listener").field(&self.local()).finish()
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::NotConnected
            | io::ErrorKind::InvalidInput
    )
}

async fn accept_any(sockets: &[TcpListener]) -> io::Result<Connected> {
    let accepted = std::future::poll_fn(|cx| {
        for socket in sockets {
            if let std::task::Poll::Ready(accepted) = socket.poll_accept(cx) {
                return std::task::Poll::Ready(accepted);
            }
        }
        std::task::Poll::Pending
    });
    Connected::of_tcp(accepted.await?.0)
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    match listening(address) {
        // All addresses are those of IPv4 where there is no IPv6.
        Err(error) if address.ip().is_unspecified() && address.is_ipv6() => {
            let v4 = SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), address.port());
            match error.kind() {
                io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => Err(error),
                _ => listening(v4),
            }
        }
        bound => bound,
    }
}

fn listening(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // Connections of before that linger must not keep the port; a live listener does.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
