//! Reaching a node: which addresses and transports are tried, and what is remembered.

mod race;
mod winner;

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use alknet_core::{Alpn, Connection, Dial, DialError, NodeId, NodeIdentity, Pin, WrongIdentity};
use alknet_http::{ProofError, TunnelError, tunnel};
use futures_util::future::BoxFuture;

use race::race;

use crate::{
    credentials::{self, CredentialsError},
    home::Home,
    keys::{KeyError, Keys, token_identity},
    known_nodes::{self, KnownNodesError, Pinned, Target},
};

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(10);

/// What carries a connection to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Via {
    /// QUIC and TLS at once, whichever stands first; inside HTTPS where the node hides its services
    Auto,
    /// QUIC with the service's own ALPN
    Quic,
    /// TLS over TCP with the service's own ALPN
    Tls,
    /// A WebTransport session inside HTTP/3
    Webtransport,
    /// A WebSocket inside HTTPS
    Websocket,
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Quic => "quic",
            Self::Tls => "tls",
            Self::Webtransport => "webtransport",
            Self::Websocket => "websocket",
        })
    }
}

/// A connection that stands, with the identity that the node proved.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) connection: Connection,
    pub(crate) node: NodeId,
    pub(crate) via: Via,
}

/// No way led to the node.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// The host name has no address.
    #[error("cannot find the address of {address}")]
    Resolve {
        address: String,
        #[source]
        source: std::io::Error,
    },
    /// It has proven another identity than the pinned one.
    #[error(transparent)]
    WrongIdentity(#[from] WrongIdentity),
    /// A direct connection failed.
    #[error("over {via}")]
    Dial {
        via: Via,
        #[source]
        source: DialError,
    },
    /// A connection inside HTTPS failed.
    #[error("over {via}")]
    Tunnel {
        via: Via,
        #[source]
        source: TunnelError,
    },
    /// The handshake showed no identity.
    #[error("the node proved no identity")]
    NoIdentity,
    /// There was nothing to try.
    #[error("the host name has no address")]
    NoAddress,
}

impl ConnectError {
    /// Whether another way may lead there. A wrong identity ends everything: it is either
    /// an attack or a mistake that the user must see.
    fn is_final(&self) -> bool {
        matches!(self, Self::WrongIdentity(_))
    }
}

/// The way to a node could not even be tried.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReachError {
    #[error(transparent)]
    KnownNodes(#[from] KnownNodesError),
    #[error(transparent)]
    Keys(#[from] KeyError),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error(transparent)]
    Pin(#[from] WrongIdentity),
    #[error("cannot reach {address}")]
    Connect {
        address: String,
        #[source]
        source: ConnectError,
    },
}

/// Connects to what the user calls a node, for one service. Proves the key of a saved token
/// or else this machine's own. A node met for the first time is pinned, with a line on
/// stderr, unless `pin` says who it has to be.
pub(crate) async fn reach(
    home: &Home,
    node: &str,
    pin: Option<NodeId>,
    alpn: Alpn,
    via: Via,
) -> Result<Connected, ReachError> {
    let Target { address, id } = known_nodes::resolve(home, node)?;
    if let (Some(expected), Some(actual)) = (pin, id) {
        Pin::Expect(expected).check(actual)?;
    }
    let known = pin.or(id);
    let token = known.map(|id| credentials::token(home, id)).transpose()?.flatten();
    let key = match token {
        Some(token) => token_identity(&token)?,
        None => Keys::open(home)?.identity()?,
    };
    let connector = Connector {
        address: address.clone(),
        alpn,
        pin: known.map_or(Pin::Learn, Pin::Expect),
        key: Arc::new(key),
    };
    let first = winner::recall(home, &address);
    let failed = |source| ReachError::Connect { address: address.clone(), source };
    let connected = connector.connect(via, first).await.map_err(failed)?;
    if pin.is_none() && known_nodes::pin(home, &address, connected.node)? == Pinned::New {
        // Whoever has no stderr does not miss it.
        let _ =
            crate::output::note(format!("{address} is {}, trusted from now on", connected.node));
    }
    if via == Via::Auto && first != Some(connected.via) {
        winner::remember(home, &address, connected.via);
    }
    Ok(connected)
}

/// Whom to reach, as whom.
#[derive(Debug, Clone)]
struct Connector {
    /// `host:port`, an IPv6 address in brackets.
    address: String,
    alpn: Alpn,
    pin: Pin,
    key: Arc<NodeIdentity>,
}

impl Connector {
    /// Connects over `via`. With [`Via::Auto`] QUIC and TLS race, `first` having a head
    /// start; a node that offers the service over neither is tried inside HTTPS.
    async fn connect(&self, via: Via, first: Option<Via>) -> Result<Connected, ConnectError> {
        let addrs = self.resolve().await?;
        if via != Via::Auto {
            return self.race(&addrs, &[via]).await;
        }
        let direct =
            if first == Some(Via::Tls) { [Via::Tls, Via::Quic] } else { [Via::Quic, Via::Tls] };
        match self.race(&addrs, &direct).await {
            Err(error) if !error.is_final() => {
                let inside = self.race(&addrs, &[Via::Webtransport, Via::Websocket]).await;
                // The direct failure says more than that the detour failed too.
                inside.map_err(|inside| if inside.is_final() { inside } else { error })
            }
            result => result,
        }
    }

    /// Every address, IPv6 and IPv4 in turn (RFC 8305, section 4).
    async fn resolve(&self) -> Result<Vec<SocketAddr>, ConnectError> {
        let failed = |source| ConnectError::Resolve { address: self.address.clone(), source };
        let found = tokio::net::lookup_host(&self.address).await.map_err(failed)?;
        let (six, four): (Vec<_>, Vec<_>) = found.partition(SocketAddr::is_ipv6);
        let (mut six, mut four) = (six.into_iter(), four.into_iter());
        let mut addrs = Vec::new();
        loop {
            let before = addrs.len();
            addrs.extend(six.next().into_iter().chain(four.next()));
            if addrs.len() == before {
                return Ok(addrs);
            }
        }
    }

    async fn race(&self, addrs: &[SocketAddr], ways: &[Via]) -> Result<Connected, ConnectError> {
        let attempts =
            addrs.iter().flat_map(|addr| ways.iter().map(|via| self.attempt(*addr, *via)));
        race(attempts.collect(), ConnectError::is_final)
            .await
            .unwrap_or(Err(ConnectError::NoAddress))
    }

    fn attempt(
        &self,
        addr: SocketAddr,
        via: Via,
    ) -> BoxFuture<'_, Result<Connected, ConnectError>> {
        Box::pin(async move {
            let (connection, node) = match via {
                Via::Auto | Via::Quic | Via::Tls => self.direct(addr, via).await?,
                Via::Webtransport | Via::Websocket => self.inside(addr, via).await?,
            };
            Ok(Connected { connection, node, via })
        })
    }

    async fn direct(
        &self,
        addr: SocketAddr,
        via: Via,
    ) -> Result<(Connection, NodeId), ConnectError> {
        let dialled = self.dial(self.alpn.clone(), addr, via).await?;
        Ok((dialled.connection, dialled.node.ok_or(ConnectError::NoIdentity)?))
    }

    async fn inside(
        &self,
        addr: SocketAddr,
        via: Via,
    ) -> Result<(Connection, NodeId), ConnectError> {
        let outer = if via == Via::Webtransport { "h3" } else { "http/1.1" };
        let outer = Alpn::new(outer).map_err(|_| ConnectError::NoIdentity)?;
        let dialled = self.dial(outer, addr, via).await?;
        match tunnel(dialled.connection, &self.address, &self.alpn, &self.key, self.pin).await {
            Ok(tunnel) => Ok((tunnel.connection, tunnel.node)),
            Err(TunnelError::Proof(ProofError::OtherNode(wrong))) => Err(wrong.into()),
            Err(source) => Err(ConnectError::Tunnel { via, source }),
        }
    }

    async fn dial(
        &self,
        alpn: Alpn,
        addr: SocketAddr,
        via: Via,
    ) -> Result<alknet_core::Dialled, ConnectError> {
        let dial = Dial {
            server_name: self.address.rsplit_once(':').map_or("", |(host, _)| host).to_owned(),
            alpn,
            pin: self.pin,
            key: Some(self.key.clone()),
            timeout: ATTEMPT,
        };
        let dialled = match via {
            Via::Quic | Via::Webtransport | Via::Auto => dial.quic(addr).await,
            Via::Tls | Via::Websocket => dial.tls(addr).await,
        };
        dialled.map_err(|error| match error {
            DialError::WrongIdentity(wrong) => wrong.into(),
            source => ConnectError::Dial { via, source },
        })
    }
}
