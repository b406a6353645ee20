//! Datagrams for a caller.

use std::{
    collections::HashMap,
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use alknet_core::Identity;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{net::UdpSocket, time::Instant};

use super::{
    Policy, Settings,
    error::NetworkError,
    host::Host,
    places::Place,
    rules::{Asked, Verb},
};

/// Destinations that one association remembers. The one unused for longest goes first.
const MAX_DESTINATIONS: usize = 1024;

/// Sends datagrams for a caller, and takes answers from where they were sent alone.
///
/// Each destination is checked; a name is resolved once for the life of the association, or
/// until the rules change.
pub struct Association {
    policy: Policy,
    caller: Arc<Identity>,
    v4: UdpSocket,
    /// Missing where the machine has no IPv6.
    v6: Option<UdpSocket>,
    known: Mutex<Known>,
    _place: Place,
}

/// What was allowed under some settings.
struct Known {
    settings: Arc<Settings>,
    destinations: HashMap<(Host, u16), SocketAddr>,
    /// When each was last sent to.
    sent: HashMap<SocketAddr, Instant>,
}

impl Association {
    pub(super) fn bind(policy: Policy, caller: Arc<Identity>, place: Place) -> io::Result<Self> {
        let v4 = bind(Ipv4Addr::UNSPECIFIED.into())?;
        let v6 = bind(Ipv6Addr::UNSPECIFIED.into()).ok();
        let settings = policy.settings();
        let known = Known { settings, destinations: HashMap::new(), sent: HashMap::new() };
        Ok(Self { policy, caller, v4, v6, known: Mutex::new(known), _place: place })
    }

    /// The address that datagrams to a destination go to, if the caller may send there. At
    /// once where it is known already.
    pub async fn resolve(&self, host: &str, port: u16) -> Result<SocketAddr, NetworkError> {
        let host = Host::parse(host).map_err(NetworkError::Host)?;
        let settings = self.policy.settings();
        if let Some(address) = self.known(&settings).destinations.get(&(host.clone(), port)) {
            return Ok(*address);
        }
        let asked = Asked { verb: Verb::Udp, host: &host, port };
        asked.precheck(&settings.rules, &self.caller)?;
        let deadline = Instant::now() + settings.timeout;
        let found = self.policy.allowed(&settings, &self.caller, asked, deadline).await?;
        let usable = |address: &&IpAddr| address.is_ipv4() || self.v6.is_some();
        let address = found.iter().find(usable).ok_or_else(unreachable)?;
        let address = SocketAddr::new(*address, port);
        self.known(&settings).remember(host, address);
        Ok(address)
    }

    /// Whether a destination's address is known without looking anything up.
    pub fn is_known(&self, host: &str, port: u16) -> bool {
        match Host::parse(host) {
            Ok(Host::Name(name)) if name != "localhost" => {
                let settings = self.policy.settings();
                self.known(&settings).destinations.contains_key(&(Host::Name(name), port))
            }
            // Decided without waiting, whatever the answer is.
            Ok(_) | Err(_) => true,
        }
    }

    /// Sends one datagram. Waits while the socket's buffer is full. Cancel safe: it is sent
    /// as a whole or not at all.
    pub async fn send(&self, host: &str, port: u16, data: &[u8]) -> Result<(), NetworkError> {
        let address = self.resolve(host, port).await?;
        let socket = match address {
            SocketAddr::V4(_) => &self.v4,
            SocketAddr::V6(_) => self.v6.as_ref().ok_or_else(unreachable)?,
        };
        self.known(&self.policy.settings()).note(address);
        socket.send_to(data, address).await?;
        Ok(())
    }

    /// Waits for an answer from an address that was sent to; what does not fit is cut off.
    /// Cancel safe.
    pub async fn recv(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        loop {
            let socket = self.readable().await?;
            let (len, from) = match socket.try_recv_from(buf) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                // An earlier datagram found nobody: that ends nothing.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(error),
            };
            if self.known(&self.policy.settings()).sent.contains_key(&from) {
                return Ok((len, from));
            }
        }
    }

    async fn readable(&self) -> io::Result<&UdpSocket> {
        let Some(v6) = &self.v6 else {
            self.v4.readable().await?;
            return Ok(&self.v4);
        };
        tokio::select! {
            ready = self.v4.readable() => ready.map(|()| &self.v4),
            ready = v6.readable() => ready.map(|()| v6),
        }
    }

    /// What is known under these settings; all else is forgotten.
    fn known(&self, settings: &Arc<Settings>) -> MutexGuard<'_, Known> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&known.settings, settings) {
            *known = Known {
                settings: settings.clone(),
                destinations: HashMap::new(),
                sent: HashMap::new(),
            };
        }
        known
    }
}

impl Known {
    fn remember(&mut self, host: Host, address: SocketAddr) {
        if self.destinations.len() >= MAX_DESTINATIONS {
            self.destinations.clear();
        }
        self.destinations.insert((host, address.port()), address);
    }

    fn note(&mut self, address: SocketAddr) {
        if self.sent.len() >= MAX_DESTINATIONS && !self.sent.contains_key(&address) {
            let oldest = self.sent.iter().min_by_key(|(_, at)| **at).map(|(address, _)| *address);
            oldest.map(|oldest| self.sent.remove(&oldest));
        }
        self.sent.insert(address, Instant::now());
    }
}

impl fmt::Debug for Association {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Association").field("caller", &self.caller.id).finish_non_exhaustive()
    }
}

fn unreachable() -> io::Error {
    io::ErrorKind::NetworkUnreachable.into()
}

fn bind(address: IpAddr) -> io::Result<UdpSocket> {
    let address = SocketAddr::new(address, 0);
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}
