//! The network as callers of a node may use it: connections, listeners and datagrams under
//! one policy.
//!
//! ```
//! # use alknet_core::{Credential, Identity, KeyFingerprint};
//! # use alknet_host::network::{Policy, Rule, Settings, Target};
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let rule = Rule { connect: vec!["db.internal:5432".parse()?], ..Rule::default() };
//! let policy = Policy::new(Settings { rules: vec![rule], ..Settings::default() });
//!
//! let key = Credential::Key(KeyFingerprint::of_openssh_blob(b"key"));
//! let caller = Identity::new("id", "anna", "forward:connect:db.internal".parse()?, key);
//! let target = Target::Tcp { host: "10.0.0.1".into(), port: 22 };
//! let refused = policy.connect(&caller, &target).await.unwrap_err();
//! assert!(refused.is_refusal());
//! # Ok(())
//! # }
//! ```
//!
//! # The model
//!
//! A [`Policy`] holds [`Rule`]s in order. The first rule with a destination that matches
//! decides; where none does, the answer is no. The caller then needs a grant that covers the
//! rule's [`scope`](Rule::scope), or, where the rule names none, of
//! `forward:connect:HOST:PORT` itself (`forward:listen:…`, `forward:udp:…`; for a Unix socket
//! `forward:connect:PATH`), with the host as it was asked for, in lower case.
//!
//! # Invariants
//!
//! - A name is resolved once, each of its addresses is checked, and what is dialled is an
//!   address that passed, never the name.
//! - Special addresses (loopback, unspecified, link-local, cloud metadata, multicast,
//!   reserved ones, and the IPv6 addresses that stand for one of these) are reached only by a
//!   rule with a network that lies within the special one, or, for 127.0.0.1 and ::1, with
//!   `localhost` by whoever asks for just these. A name, `*` or `public` never leads there, so
//!   nothing is gained by making a name resolve to one.
//! - A name that no rule could allow is not looked up, and nobody's look-ups take the place of
//!   all others'.
//! - What a name is compared as, and what is resolved, is the same text; an address in an odd
//!   spelling is no name.
//! - A Unix socket is pinned before it is checked, and the pinned one is connected to.
//!
//! # Security limits
//!
//! A rule that covers an address which the machine itself has on its network reaches what
//! listens there. Connections live on when the rules change; new ones follow the new rules.
//! Sockets are made and connected to by the account that the node runs as: whoever runs
//! sessions as another one must refuse Unix sockets to them ([`Policy::unix_for`]).

mod error;
mod host;
mod listen;
mod places;
mod resolve;
mod rules;
mod special;
mod stream;
#[cfg(test)]
mod tests;
mod udp;
mod unix;

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use alknet_core::Identity;
use arc_swap::ArcSwap;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

pub use error::{InvalidHost, NetworkError, Refusal};
pub use listen::Listener;
pub use resolve::{Resolve, Share, SystemResolver};
pub use rules::{Destination, InvalidDestination, Rule};
pub use stream::{Accepted, Connected, Peer};
pub use udp::Association;

use self::{
    host::Host,
    places::{Kind, Place, Places, Room},
    resolve::Shares,
    rules::{Asked, Verb},
};

/// What a client asks to connect to or to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A TCP port.
    Tcp {
        /// A name or an address. To listen on, nothing or `*` stands for all addresses.
        host: String,
        /// The port. To listen on, 0 stands for any that is free, which takes a rule with
        /// all ports.
        port: u16,
    },
    /// A Unix socket, by its absolute path.
    Unix(PathBuf),
}

/// As people write it.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// What a [`Policy`] goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The rules in order: none, and nothing is allowed.
    pub rules: Vec<Rule>,
    /// Connections that one identity may have open at a time, made or accepted; a UDP
    /// association counts as two. Never more than half of `descriptors`.
    pub connections: usize,
    /// Listeners that one identity may have at a time.
    pub listeners: usize,
    /// Descriptors that all of that may take, of all identities together.
    pub descriptors: usize,
    /// How long resolving and connecting may take in all.
    pub timeout: Duration,
    /// Whether what is allowed is to be in the audit log too. The policy writes no log:
    /// this is for those who do.
    pub audit_destinations: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            connections: 512,
            listeners: 32,
            descriptors: half_of_all(),
            timeout: Duration::from_secs(10),
            audit_destinations: false,
        }
    }
}

impl Settings {
    /// How much of a kind one caller may have.
    fn room(&self, kind: Kind) -> Room {
        let own = match kind {
            // Nobody takes what all others have together.
            Kind::Connection | Kind::Association => self.connections.min(self.descriptors / 2),
            Kind::Listener => self.listeners,
        };
        Room { own, descriptors: self.descriptors }
    }
}

/// Whether an address belongs to the public Internet: not to a private network, this machine,
/// the link, or what else is special; nor stands for one that does.
pub fn is_public(address: IpAddr) -> bool {
    special::public(address.to_canonical())
}

/// What this process may open, less what it needs for everything else.
fn half_of_all() -> usize {
    usize::try_from(crate::descriptors::limit() / 2).unwrap_or(usize::MAX)
}

/// Decides what callers may do with the network, and does it. Cheap to clone; clones share
/// the settings and the counts.
#[derive(Debug, Clone)]
pub struct Policy(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    settings: ArcSwap<Settings>,
    resolver: Box<dyn Resolve>,
    unix: UnixFor,
    places: Places,
    shares: Shares,
}

/// Who may have Unix sockets.
struct UnixFor(Box<dyn Fn(&Identity) -> bool + Send + Sync>);

impl fmt::Debug for UnixFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnixFor")
    }
}

impl Policy {
    /// A policy that resolves names as the system does.
    pub fn new(settings: Settings) -> Self {
        Self::with_resolver(settings, SystemResolver::default())
    }

    /// A policy with a resolver of its own.
    pub fn with_resolver(settings: Settings, resolver: impl Resolve) -> Self {
        Self::of(settings, resolver, |_| true)
    }

    /// A policy that gives Unix sockets to those alone for whom this is true, whatever the
    /// rules say: those whose sessions run as the node's own account.
    pub fn unix_for(
        settings: Settings,
        may: impl Fn(&Identity) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self::of(settings, SystemResolver::default(), may)
    }

    fn of(
        settings: Settings,
        resolver: impl Resolve,
        unix: impl Fn(&Identity) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Shared {
            settings: ArcSwap::from_pointee(settings),
            resolver: Box::new(resolver),
            unix: UnixFor(Box::new(unix)),
            places: Places::default(),
            shares: Shares::default(),
        }))
    }

    /// The settings as they are now.
    pub fn settings(&self) -> Arc<Settings> {
        self.0.settings.load_full()
    }

    /// Exchanges the settings. What is open stays open.
    pub fn replace(&self, settings: Settings) {
        self.0.settings.store(Arc::new(settings));
    }

    /// Connects to a target. Cancel safe: nothing is left open.
    pub async fn connect(
        &self,
        caller: &Identity,
        target: &Target,
    ) -> Result<Connected, NetworkError> {
        let settings = self.settings();
        match target {
            Target::Tcp { host, port } => {
                let host = Host::parse(host).map_err(NetworkError::Host)?;
                let asked = Asked { verb: Verb::Connect, host: &host, port: *port };
                asked.precheck(&settings.rules, caller)?;
                let place = self.place(caller, Kind::Connection, &settings)?;
                let deadline = Instant::now() + settings.timeout;
                let addresses = self.allowed(&settings, caller, asked, deadline).await?;
                let stream = dial(&addresses, *port, deadline).await?;
                Ok(Connected::of_tcp(stream)?.counted(place))
            }
            Target::Unix(path) => {
                self.unix(caller)?;
                let place = self.place(caller, Kind::Connection, &settings)?;
                let socket = unix::find(&settings, caller, path)?;
                let stream = timeout(settings.timeout, socket.connect());
                let stream = stream.await.map_err(|_| NetworkError::TimedOut)??;
                Ok(Connected::unix(stream, path.clone()).counted(place))
            }
        }
    }

    /// Listens on a target. Cancel safe.
    pub async fn listen(
        &self,
        caller: &Identity,
        target: &Target,
    ) -> Result<Listener, NetworkError> {
        let settings = self.settings();
        let place = || self.place(caller, Kind::Listener, &settings);
        let room = settings.room(Kind::Connection);
        let counter = self.0.places.counter(&caller.id, Kind::Connection, room);
        match target {
            Target::Tcp { host, port } => {
                let host = Host::parse_bind(host).map_err(NetworkError::Host)?;
                let asked = Asked { verb: Verb::Listen, host: &host, port: *port };
                asked.precheck(&settings.rules, caller)?;
                let place = place()?;
                let deadline = Instant::now() + settings.timeout;
                let addresses = self.allowed(&settings, caller, asked, deadline).await?;
                Ok(Listener::tcp(&addresses, *port)?.counted(counter, place))
            }
            Target::Unix(path) => {
                self.unix(caller)?;
                let place = place()?;
                let listening = unix::listen(&settings, caller, path)?;
                Ok(Listener::unix(listening).counted(counter, place))
            }
        }
    }

    /// Somewhere to send datagrams from; each destination is checked on its own.
    pub fn udp(&self, caller: Arc<Identity>) -> Result<Association, NetworkError> {
        let place = self.place(&caller, Kind::Association, &self.settings())?;
        Ok(Association::bind(self.clone(), caller, place)?)
    }

    fn unix(&self, caller: &Identity) -> Result<(), Refusal> {
        match (self.0.unix.0)(caller) {
            true => Ok(()),
            false => Err(Refusal::NoUnix),
        }
    }

    fn place(
        &self,
        caller: &Identity,
        kind: Kind,
        settings: &Settings,
    ) -> Result<Place, NetworkError> {
        self.0.places.take(&caller.id, kind, settings.room(kind)).ok_or(NetworkError::Limit)
    }

    /// The addresses of what is asked for that the caller may have.
    async fn allowed(
        &self,
        settings: &Settings,
        caller: &Identity,
        asked: Asked<'_>,
        deadline: Instant,
    ) -> Result<Vec<IpAddr>, NetworkError> {
        let share = self.0.shares.take(caller);
        let look = resolve::addresses(&*self.0.resolver, asked.host, share);
        let found = timeout_at(deadline, look).await.map_err(|_| NetworkError::TimedOut)?;
        let mut allowed = Vec::new();
        let mut refusal = None;
        for address in found.map_err(NetworkError::Resolve)? {
            match asked.check(&settings.rules, caller, address) {
                Ok(()) => allowed.push(address),
                Err(no) => drop(refusal.get_or_insert(no)),
            }
        }
        match refusal {
            Some(refusal) if allowed.is_empty() => Err(refusal.into()),
            _ => Ok(allowed),
        }
    }
}

/// Tries addresses in order; each gets its share of the time that is left.
async fn dial(
    addresses: &[IpAddr],
    port: u16,
    deadline: Instant,
) -> Result<TcpStream, NetworkError> {
    let mut failed = NetworkError::TimedOut;
    for (tried, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let others = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        let attempt = TcpStream::connect(SocketAddr::new(*address, port));
        failed = match timeout(left / others, attempt).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => error.into(),
            Err(_) => NetworkError::TimedOut,
        };
    }
    Err(failed)
}

/// What ends a socket's use: the peer is gone.
fn closed() -> io::Error {
    io::ErrorKind::NotConnected.into()
}
