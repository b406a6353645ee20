//! The client side: a connection to a node, over QUIC or TLS, for one ALPN.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, OnceLock},
    time::Duration,
};

use quinn::crypto::rustls::QuicClientConfig;
use rustls::{AlertDescription, pki_types::ServerName};
use tokio::{net::TcpStream, time::timeout};

use crate::{
    Alpn, Connection, IdentityError, Limits, NodeId, NodeIdentity, Pin, WrongIdentity, endpoint,
    tls::client_config,
    transport::{quic::Quic, tls},
};

/// Streams that a node may open towards a client.
const STREAMS: u32 = 256;
/// Received on a connection and not yet read, in bytes: 32 streams whose readers have stalled,
/// before the others have to wait for one of them.
const RECEIVE_WINDOW: quinn::VarInt = quinn::VarInt::from_u32(64 << 20);
/// How long the word of a failed verification may take to go out.
const FAREWELL: Duration = Duration::from_secs(1);

/// Whom to dial, and as whom.
#[derive(Debug, Clone)]
pub struct Dial {
    /// The node's name for SNI: a host name, or an address (then no SNI is sent).
    pub server_name: String,
    /// The protocol to ask for.
    pub alpn: Alpn,
    /// What is expected of the node's identity. It only counts for services: for any
    /// other ALPN the node shows its web certificate, which is not verified here, and the
    /// caller must prove both ends over the exporter before it trusts the connection.
    pub pin: Pin,
    /// The key to prove for a service, if any.
    pub key: Option<Arc<NodeIdentity>>,
    /// How long connecting may take.
    pub timeout: Duration,
}

/// A connection that stands.
#[derive(Debug)]
pub struct Dialled {
    /// The connection.
    pub connection: Connection,
    /// The identity the node proved: known for services only.
    pub node: Option<NodeId>,
}

/// No connection came about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The node proved another identity than the pinned one.
    #[error(transparent)]
    WrongIdentity(#[from] WrongIdentity),
    /// The node offers no such protocol.
    #[error("the node does not offer {0}")]
    NoSuchProtocol(Alpn),
    /// The node ended the connection before the handshake.
    #[error("the node turned the connection away: this address may be over one of its limits")]
    Refused,
    /// It took too long.
    #[error("no answer in time")]
    TimedOut,
    /// The system could not connect.
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    /// The TLS handshake failed.
    #[error("the TLS handshake failed")]
    Handshake(#[source] rustls::Error),
    /// The QUIC connection failed.
    #[error("the QUIC connection failed")]
    Quic(#[source] quinn::ConnectionError),
    /// The dial was not possible at all.
    #[error("the connection could not be set up")]
    Setup(#[source] quinn::ConnectError),
    /// The server name is not one.
    #[error("not a host name or an address: {0:?}")]
    ServerName(String),
    /// The own key or the TLS provider does not work.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl Dial {
    /// Connects over QUIC.
    pub async fn quic(&self, addr: SocketAddr) -> Result<Dialled, DialError> {
        timeout(self.timeout, self.quic_unlimited(addr)).await.map_err(|_| DialError::TimedOut)?
    }

    /// Connects over TLS on TCP.
    pub async fn tls(&self, addr: SocketAddr) -> Result<Dialled, DialError> {
        timeout(self.timeout, self.tls_unlimited(addr)).await.map_err(|_| DialError::TimedOut)?
    }

    async fn quic_unlimited(&self, addr: SocketAddr) -> Result<Dialled, DialError> {
        let (config, presented) = client_config(&self.alpn, self.pin, self.key.as_deref())?;
        let crypto = QuicClientConfig::try_from(config).map_err(|_| IdentityError::Encoding)?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        let mut transport = endpoint::transport(Limits::default().idle_timeout, STREAMS);
        transport.receive_window(RECEIVE_WINDOW);
        config.transport_config(Arc::new(transport));
        let unspecified: SocketAddr = match addr {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let endpoint = quinn::Endpoint::client(unspecified).map_err(DialError::Connect)?;
        let name = self.server_name.trim_matches(['[', ']']);
        let connecting = endpoint.connect_with(config, addr, name).map_err(DialError::Setup)?;
        let connected = connecting.await;
        if let Err(wrong) = self.check_pin(&presented) {
            // The process may end with this: the node has to be told first.
            endpoint.close(quinn::VarInt::from_u32(0), b"");
            let _ = timeout(FAREWELL, endpoint.wait_idle()).await;
            return Err(wrong.into());
        }
        let connection = connected.map_err(|error| self.quic_error(error))?;
        let connection = Connection::new(Quic::dialled(connection, endpoint));
        Ok(Dialled { connection, node: presented.get().copied() })
    }

    async fn tls_unlimited(&self, addr: SocketAddr) -> Result<Dialled, DialError> {
        let (config, presented) = client_config(&self.alpn, self.pin, self.key.as_deref())?;
        let bare = self.server_name.trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(bare)
            .map_err(|_| DialError::ServerName(self.server_name.clone()))?;
        let stream = TcpStream::connect(addr).await.map_err(DialError::Connect)?;
        let stream = tls::tcp(stream).map_err(DialError::Connect)?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let connected = connector.connect(name, stream).await;
        self.check_pin(&presented)?;
        let stream = connected.map_err(|error| self.tls_error(error))?;
        if stream.get_ref().1.alpn_protocol() != Some(self.alpn.as_bytes()) {
            return Err(DialError::NoSuchProtocol(self.alpn.clone()));
        }
        let connection = Connection::new(tls::dialled(stream, addr));
        Ok(Dialled { connection, node: presented.get().copied() })
    }

    /// The libraries pass a failed verification on as an alert's number: what the node
    /// presented tells a wrong identity from everything else.
    fn check_pin(&self, presented: &OnceLock<NodeId>) -> Result<(), WrongIdentity> {
        presented.get().map_or(Ok(()), |actual| self.pin.check(*actual).map(drop))
    }

    fn tls_error(&self, error: io::Error) -> DialError {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => {
                DialError::NoSuchProtocol(self.alpn.clone())
            }
            Some(tls) => DialError::Handshake(tls.clone()),
            None if is_cut_off(&error) => DialError::Refused,
            None => DialError::Connect(error),
        }
    }

    fn quic_error(&self, error: quinn::ConnectionError) -> DialError {
        let no_protocol =
            quinn::TransportErrorCode::crypto(AlertDescription::NoApplicationProtocol.into());
        match &error {
            quinn::ConnectionError::ConnectionClosed(close) if close.error_code == no_protocol => {
                DialError::NoSuchProtocol(self.alpn.clone())
            }
            quinn::ConnectionError::ConnectionClosed(close)
                if close.error_code == quinn::TransportErrorCode::CONNECTION_REFUSED =>
            {
                DialError::Refused
            }
            _ => DialError::Quic(error),
        }
    }
}

/// Whether TCP ended in the middle of a handshake.
fn is_cut_off(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::UnexpectedEof | K::ConnectionReset | K::BrokenPipe)
}
