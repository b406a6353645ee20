//! A SOCKS5 server (RFC 1928, RFC 1929) in front of a node: what is connected to through it
//! is connected to from there.
//!
//! CONNECT and UDP ASSOCIATE; names go to the node as they are.

mod protocol;
#[cfg(test)]
mod tests;
mod udp;

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use zeroize::Zeroizing;

use crate::{
    Address, Client, ErrorCode, OpenError, Place, Request,
    join::{ResetOnDrop, join},
};
use protocol::{Command, ProtocolError, Reply};

/// How long a client may take to say what it wants.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections at a time; more wait in the listener's backlog.
const MAX_CONNECTIONS: usize = 1024;
/// How long accepting rests when the process is out of descriptors.
const REST: Duration = Duration::from_millis(100);

/// What clients have to present (RFC 1929). Never shown by `Debug`.
#[derive(Clone)]
pub struct Credentials {
    user: String,
    password: Zeroizing<String>,
}

/// The user's name or the password has no byte, or more than 255.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a name and a password for SOCKS5 have 1 to 255 bytes each")]
pub struct InvalidCredentials;

impl Credentials {
    /// A name and its password.
    pub fn new(
        user: impl Into<String>,
        password: Zeroizing<String>,
    ) -> Result<Self, InvalidCredentials> {
        let user = user.into();
        let fits = |text: &str| (1..=255).contains(&text.len());
        match fits(&user) && fits(&password) {
            true => Ok(Self { user, password }),
            false => Err(InvalidCredentials),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// The SOCKS5 server.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    credentials: Option<Credentials>,
}

/// Why a SOCKS5 server does not listen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Others could use the node through it.
    #[error("{0} is not a loopback address")]
    NotLoopback(SocketAddr),
    /// The system's answer.
    #[error("cannot listen on {address}")]
    Io {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl Server {
    /// Listens on a loopback address.
    pub async fn bind(
        address: SocketAddr,
        client: Client,
        credentials: Option<Credentials>,
    ) -> Result<Self, BindError> {
        if !address.ip().to_canonical().is_loopback() {
            return Err(BindError::NotLoopback(address));
        }
        let failed = |source| BindError::Io { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        Ok(Self { listener, shared: Arc::new(Shared { client, credentials }) })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves for ever; what it serves ends when the future is dropped.
    pub async fn serve(self) -> io::Result<()> {
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                (permit, accepted) = async {
                    let permit = room.clone().acquire_owned().await;
                    (permit, self.listener.accept().await)
                } => match accepted {
                    Ok((stream, _)) => {
                        let shared = self.shared.clone();
                        connections.spawn(async move {
                            let _permit = permit;
                            if let Err(error) = shared.serve(stream).await {
                                tracing::debug!(%error, "a SOCKS5 connection ended");
                            }
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept");
                        sleep(REST).await;
                    }
                },
                Some(ended) = connections.join_next() => ended.map_err(io::Error::other)?,
            }
        }
    }
}

impl Shared {
    async fn serve(&self, mut stream: TcpStream) -> Result<(), ProtocolError> {
        stream.set_nodelay(true)?;
        let asked = timeout(HANDSHAKE, self.handshake(&mut stream));
        let (command, address) = match asked.await.map_err(|_| ProtocolError::TimedOut)? {
            Ok(asked) => asked,
            Err(error) => {
                if let Some(reply) = error.reply() {
                    protocol::reply(&mut stream, reply, None).await?;
                    stream.shutdown().await?;
                }
                return Err(error);
            }
        };
        match command {
            Command::Connect => self.connect(stream, &address).await,
            Command::UdpAssociate => udp::serve(&self.client, stream, &address).await,
        }
    }

    async fn handshake(&self, stream: &mut TcpStream) -> Result<(Command, Address), ProtocolError> {
        protocol::authenticate(stream, self.credentials.as_ref()).await?;
        protocol::request(stream).await
    }

    async fn connect(&self, mut stream: TcpStream, address: &Address) -> Result<(), ProtocolError> {
        let request = Request::Connect(Place::tcp(address.host(), address.port()));
        let opened = tokio::select! {
            opened = self.client.open(&request) => opened,
            // Whoever gives up is not connected for.
            gone = gone(&stream) => return Err(gone.into()),
        };
        match opened {
            Ok(open) => {
                let bound = open.opened.bound.as_deref().and_then(|text| text.parse().ok());
                let mut stream = ResetOnDrop::new(stream);
                protocol::reply(&mut stream.socket, Reply::Succeeded, bound).await?;
                join(open.stream, stream).await;
                Ok(())
            }
            Err(error) => {
                report(address, &error);
                protocol::reply(&mut stream, reply_of(error.code()), None).await?;
                Ok(stream.shutdown().await?)
            }
        }
    }
}

fn report(address: &Address, error: &OpenError) {
    tracing::debug!(%address, error = %error, "not connected");
}

/// Waits until the client has closed or broken its connection. Bytes that it has sent
/// already wait in the socket.
async fn gone(stream: &TcpStream) -> io::Error {
    let mut byte = [0];
    loop {
        match stream.peek(&mut byte).await {
            Ok(0) => return io::ErrorKind::UnexpectedEof.into(),
            // It does not wait for the reply, which is its right.
            Ok(_) => std::future::pending().await,
            Err(error) => return error,
        }
    }
}

/// The reply that says what the node's answer says.
fn reply_of(code: ErrorCode) -> Reply {
    match code {
        ErrorCode::NotAllowed => Reply::NotAllowed,
        ErrorCode::NetworkUnreachable => Reply::NetworkUnreachable,
        ErrorCode::HostUnreachable | ErrorCode::Invalid => Reply::HostUnreachable,
        ErrorCode::Refused => Reply::Refused,
        ErrorCode::TimedOut => Reply::Expired,
        ErrorCode::Unsupported => Reply::CommandNotSupported,
        ErrorCode::Limit | ErrorCode::InUse | ErrorCode::Gone | ErrorCode::Failed => Reply::Failed,
    }
}
