//! Reaching a node: which addresses and transports are tried, and what is remembered.

mod race;
mod winner;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use alknet_core::{
    Alpn, Code, Connection, Dial, DialError, NodeId, NodeIdentity, Pin, WrongIdentity,
};
use alknet_http::{ProofError, TunnelError, tunnel};
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use race::{Lost, Verdict, in_turn, race};

use crate::{
    credentials::{self, CredentialsError},
    home::Home,
    keys::{KeyError, Keys, token_identity},
    known_nodes::{self, KnownNodesError, Pinned, Target},
};

/// How long all attempts together may take.
const ATTEMPTS: Duration = Duration::from_secs(10);
/// How long a node may be slow in the open before it is tried inside HTTPS too.
const PATIENCE: Duration = Duration::from_secs(3);
/// How many addresses are tried where somebody else may have named the host.
const FEW: usize = 8;
/// How long what was given up gets to go out ahead of the end.
const GIVING_UP: Duration = Duration::from_millis(50);
/// How long the word of a connection's end may take to go out.
const ENDING: Duration = Duration::from_secs(2);

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

impl Via {
    /// Whether it is a tunnel inside HTTPS.
    fn is_inside(self) -> bool {
        matches!(self, Self::Webtransport | Self::Websocket)
    }
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

impl Connected {
    /// Closes it, and waits until the node has been told: a process that ends at once takes
    /// the word with it, and the node would keep the session until its idle timeout.
    pub(crate) async fn end(&self, code: Code) {
        end(&self.connection, code).await;
    }

    /// The same in the midst of a transfer, once its streams are dropped. Where data waits for
    /// its turn QUIC may lose the word of the end, so the streams' resets go first.
    pub(crate) async fn abandon(&self, code: Code) {
        sleep(GIVING_UP).await;
        self.end(code).await;
    }
}

async fn end(connection: &Connection, code: Code) {
    connection.close(code, "");
    // A node that is gone hears nothing.
    let _ = timeout(ENDING, connection.drained()).await;
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
    /// The node shows no such service, and inside HTTPS it did not come about either.
    #[error("the node does not offer {alpn} by itself")]
    Hidden {
        alpn: Alpn,
        #[source]
        inside: Box<Self>,
    },
    /// The handshake showed no identity.
    #[error("the node proved no identity")]
    NoIdentity,
    /// There was nothing to try.
    #[error("the host name has no address")]
    NoAddress,
    /// None of its addresses is one that may be tried.
    #[error("nothing is fetched from its network")]
    Forbidden,
}

impl ConnectError {
    /// Whether another way may lead there. A wrong identity ends everything: it is either
    /// an attack or a mistake that the user must see.
    fn is_final(&self) -> bool {
        matches!(self, Self::WrongIdentity(_))
    }

    /// What it says of other ways to the same addresses. Where the system's TCP is refused,
    /// it is so inside HTTPS too.
    fn verdict(&self) -> Verdict {
        use std::io::ErrorKind as K;
        match self {
            error if error.is_final() => Verdict::Final,
            Self::Dial { via: Via::Tls | Via::Websocket, source: DialError::Connect(error) } => {
                match error.kind() {
                    K::ConnectionRefused | K::HostUnreachable | K::NetworkUnreachable => {
                        Verdict::Nobody
                    }
                    _ => Verdict::Unsure,
                }
            }
            _ => Verdict::Unsure,
        }
    }

    /// The failure of every way, of which the direct one says more unless the node hides
    /// its services.
    fn of_both(direct: Self, inside: Self) -> Self {
        match direct {
            Self::Dial { source: DialError::NoSuchProtocol(alpn), .. } => {
                Self::Hidden { alpn, inside: Box::new(inside) }
            }
            direct => direct,
        }
    }

    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::WrongIdentity(_) => Some(
                "somebody may be listening in; if the node was set up anew, remove its lines \
                 from known_nodes in the state folder",
            ),
            Self::Dial { source: DialError::NoSuchProtocol(_), .. } => Some(
                "a node under cover has its services inside HTTPS: --via webtransport, or \
                 --via auto",
            ),
            Self::Tunnel { source: TunnelError::Refused(_), .. } => Some(
                "inside HTTPS the node has to know this machine: add what `alknet id` prints \
                 here to the peer there, or save a token of the node with `alknet login`",
            ),
            Self::Hidden { inside, .. } => inside.hint(),
            Self::Resolve { .. }
            | Self::Dial { .. }
            | Self::Tunnel { .. }
            | Self::NoIdentity
            | Self::NoAddress
            | Self::Forbidden => None,
        }
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
    /// Nothing but `--pin` says who the node should be.
    #[error("{address} is not the node of --pin")]
    NotPinned {
        address: String,
        #[source]
        source: WrongIdentity,
    },
    #[error("cannot reach {address}")]
    Connect {
        address: String,
        #[source]
        source: ConnectError,
    },
}

impl ReachError {
    /// Whether no further try mends it: the node has proven another identity.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::Pin(_) | Self::NotPinned { .. } => true,
            Self::Connect { source, .. } => source.is_final(),
            Self::KnownNodes(_) | Self::Keys(_) | Self::Credentials(_) => false,
        }
    }
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
    Route::find(home, node, pin, alpn).await?.connect(via).await
}

/// The way to a node, to be gone any number of times.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    home: Home,
    connector: Connector,
    /// Who the user says that it is.
    pin: Option<NodeId>,
    /// Who it is known as.
    id: Option<NodeId>,
}

impl Route {
    /// Finds out where a node is, who it has to be, and what key is proven to it.
    pub(crate) async fn find(
        home: &Home,
        node: &str,
        pin: Option<NodeId>,
        alpn: Alpn,
    ) -> Result<Self, ReachError> {
        let Target { address, id } = known_nodes::resolve(home, node)?;
        if let (Some(expected), Some(actual)) = (pin, id) {
            Pin::Expect(expected).check(actual)?;
        }
        let known = pin.or(id);
        let token = known.map(|id| credentials::token(home, id)).transpose()?.flatten();
        let key = match token {
            Some(token) => token_identity(&token)?,
            None => Keys::open(home).await?.identity()?,
        };
        let connector = Connector {
            address,
            alpn,
            pin: known.map_or(Pin::Learn, Pin::Expect),
            key: Arc::new(key),
        };
        Ok(Self { home: home.clone(), connector, pin, id })
    }

    /// The way for the node that this is, whose key it proves whatever token is saved here: that
    /// one is a person's.
    pub(crate) fn of_node(
        home: &Home,
        node: &str,
        alpn: Alpn,
        key: Arc<NodeIdentity>,
    ) -> Result<Self, KnownNodesError> {
        let Target { address, id } = known_nodes::resolve(home, node)?;
        let connector = Connector { address, alpn, pin: id.map_or(Pin::Learn, Pin::Expect), key };
        Ok(Self { home: home.clone(), connector, pin: None, id })
    }

    /// The same, to a node that has proven who it is.
    pub(crate) fn to(mut self, node: NodeId) -> Self {
        self.connector.pin = Pin::Expect(node);
        Self { pin: Some(node), ..self }
    }

    /// Goes it.
    pub(crate) async fn connect(&self, via: Via) -> Result<Connected, ReachError> {
        let resolved = self.connector.resolve().await;
        self.connect_to(resolved, via).await
    }

    /// Goes it to those addresses alone that may be tried, and to the first few of them.
    pub(crate) async fn connect_where(
        &self,
        allowed: impl Fn(IpAddr) -> bool,
        via: Via,
    ) -> Result<Connected, ReachError> {
        let resolved = self.connector.resolve().await.and_then(|all| {
            let allowed = all.into_iter().filter(|addr| allowed(addr.ip().to_canonical()));
            let few = Vec::from_iter(allowed.take(FEW));
            if few.is_empty() { Err(ConnectError::Forbidden) } else { Ok(few) }
        });
        self.connect_to(resolved, via).await
    }

    async fn connect_to(
        &self,
        resolved: Result<Vec<SocketAddr>, ConnectError>,
        via: Via,
    ) -> Result<Connected, ReachError> {
        let (home, address) = (&self.home, &self.connector.address);
        let first = winner::recall(home, address);
        let connecting = async { self.connector.connect(&resolved?, via, first).await };
        let connected = connecting.await.map_err(|source| match source {
            ConnectError::WrongIdentity(source) if self.id.is_none() && self.pin.is_some() => {
                ReachError::NotPinned { address: address.clone(), source }
            }
            source => ReachError::Connect { address: address.clone(), source },
        })?;
        if self.pin.is_none()
            && let Err(error) = trust(home, address, connected.node)
        {
            connected.end(Code::CANCELLED).await;
            return Err(error.into());
        }
        if via == Via::Auto && first != Some(connected.via) {
            winner::remember(home, address, connected.via);
        }
        Ok(connected)
    }
}

/// Pins a node that is met for the first time, with a line on stderr.
fn trust(home: &Home, address: &str, node: NodeId) -> Result<(), KnownNodesError> {
    if known_nodes::pin(home, address, node)? == Pinned::New {
        // Whoever has no stderr does not miss it.
        let _ = crate::output::note(format!("{address} is {node}, trusted from now on"));
    }
    Ok(())
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
    /// Connects over `via`. With [`Via::Auto`] QUIC and TLS race; a node that offers the
    /// service over neither, or is slow to, is tried inside HTTPS. What won the last time comes
    /// `first`: a node that was reached inside HTTPS is not asked for the service in the open
    /// again, unless that fails.
    async fn connect(
        &self,
        addrs: &[SocketAddr],
        via: Via,
        first: Option<Via>,
    ) -> Result<Connected, ConnectError> {
        let until = Instant::now() + ATTEMPTS;
        if via != Via::Auto {
            return self.race(addrs, &[via], until).await.map_err(|lost| lost.failure);
        }
        let hidden = first.is_some_and(Via::is_inside);
        let [mut direct, mut inside] = [[Via::Quic, Via::Tls], [Via::Webtransport, Via::Websocket]];
        for ways in [&mut direct, &mut inside] {
            ways.sort_by_key(|via| first != Some(*via));
        }
        let [former, latter] = if hidden { [inside, direct] } else { [direct, inside] };
        // Who watches would see that a hidden node is asked in the open.
        let head_start = if hidden { Duration::MAX } else { PATIENCE };
        let (former, latter) = (self.race(addrs, &former, until), self.race(addrs, &latter, until));
        in_turn(former, latter, head_start).await.map_err(|failures| match failures {
            (failure, None) => failure,
            (inside, Some(direct)) if hidden => ConnectError::of_both(direct, inside),
            (direct, Some(inside)) => ConnectError::of_both(direct, inside),
        })
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

    async fn race(
        &self,
        addrs: &[SocketAddr],
        ways: &[Via],
        until: Instant,
    ) -> Result<Connected, Lost<ConnectError>> {
        let attempts = addrs
            .iter()
            .flat_map(|addr| ways.iter().map(move |via| self.attempt(*addr, *via, until)));
        race(attempts.collect(), addrs.len(), ConnectError::verdict)
            .await
            .unwrap_or(Err(Lost { failure: ConnectError::NoAddress, is_final: true }))
    }

    fn attempt(
        &self,
        addr: SocketAddr,
        via: Via,
        until: Instant,
    ) -> BoxFuture<'_, Result<Connected, ConnectError>> {
        Box::pin(async move {
            let (connection, node) = match via {
                via if via.is_inside() => self.inside(addr, via, until).await?,
                via => self.direct(addr, via, until).await?,
            };
            Ok(Connected { connection, node, via })
        })
    }

    async fn direct(
        &self,
        addr: SocketAddr,
        via: Via,
        until: Instant,
    ) -> Result<(Connection, NodeId), ConnectError> {
        let dialled = self.dial(self.alpn.clone(), addr, via, until).await?;
        match dialled.node {
            Some(node) => Ok((dialled.connection, node)),
            None => {
                end(&dialled.connection, Code::CANCELLED).await;
                Err(ConnectError::NoIdentity)
            }
        }
    }

    async fn inside(
        &self,
        addr: SocketAddr,
        via: Via,
        until: Instant,
    ) -> Result<(Connection, NodeId), ConnectError> {
        let outer = if via == Via::Webtransport { "h3" } else { "http/1.1" };
        let outer = Alpn::new(outer).map_err(|_| ConnectError::NoIdentity)?;
        let outer = self.dial(outer, addr, via, until).await?.connection;
        let opening = tunnel(outer.clone(), &self.address, &self.alpn, &self.key, self.pin);
        let opened = timeout_at(until, opening).await.unwrap_or(Err(TunnelError::TimedOut));
        let failure = match opened {
            Ok(tunnel) => return Ok((tunnel.connection, tunnel.node)),
            Err(TunnelError::Proof(ProofError::OtherNode(wrong))) => wrong.into(),
            Err(source) => ConnectError::Tunnel { via, source },
        };
        end(&outer, Code::NORMAL).await;
        Err(failure)
    }

    async fn dial(
        &self,
        alpn: Alpn,
        addr: SocketAddr,
        via: Via,
        until: Instant,
    ) -> Result<alknet_core::Dialled, ConnectError> {
        let dial = Dial {
            server_name: self.address.rsplit_once(':').map_or("", |(host, _)| host).to_owned(),
            alpn,
            pin: self.pin,
            key: Some(self.key.clone()),
            timeout: until.saturating_duration_since(Instant::now()),
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
