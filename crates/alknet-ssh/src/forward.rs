//! Forwarding: connections of the node's machine on channels (RFC 4254, section 7; OpenSSH's
//! PROTOCOL, section 2.4). What a client may have of the network is the policy's to say.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    sync::Arc,
};

use alknet_core::Identity;
use alknet_host::network::{Connected, Listener, NetworkError, Peer, Target};
use russh::{
    Channel, ChannelOpenFailure,
    server::{ChannelOpenHandle, Handle, Msg},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    carry::carry,
    certificate::{PERMIT_PORT_FORWARDING, cut},
    opened::Opened,
    transport::Link,
};

/// What the transport's forwarded connections share.
#[derive(Clone)]
pub(crate) struct Forwards {
    pub(crate) opened: Opened,
    room: Arc<Semaphore>,
}

impl Forwards {
    pub(crate) fn new(connections: usize) -> Self {
        Self { opened: Opened::default(), room: Arc::new(Semaphore::new(connections)) }
    }

    /// Room for one more connection, for as long as it lasts.
    pub(crate) fn room(&self) -> Option<OwnedSemaphorePermit> {
        self.room.clone().try_acquire_owned().ok()
    }
}

/// What forwarding is asked for.
#[derive(Debug, Clone, Copy)]
enum Verb {
    Connect,
    Listen,
}

/// A refusal, for the audit log.
#[derive(Debug, thiserror::Error)]
#[error("forwarding: {} {target}: {why}", .verb.name())]
pub(crate) struct ForwardRefusal {
    verb: Verb,
    target: String,
    why: String,
}

impl Verb {
    fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect to",
            Self::Listen => "listen on",
        }
    }
}

impl Link {
    /// Whoever has logged in, if the login is one for forwarding.
    async fn forwarder(&self) -> Option<Arc<Identity>> {
        let permitted = self.authentication.may_forward()
            && self.authentication.permits(PERMIT_PORT_FORWARDING);
        if permitted { self.authentication.caller().await } else { None }
    }

    /// What the client is told of a failure. The reason of a refusal is for the audit log
    /// alone.
    fn failed(&self, verb: Verb, target: &Target, error: &NetworkError) -> ChannelOpenFailure {
        if error.is_refusal() {
            let (target, why) = (cut(&target.to_string()), error.to_string());
            self.authentication.denied(&ForwardRefusal { verb, target, why }.into());
            return match error {
                NetworkError::Limit => ChannelOpenFailure::ResourceShortage,
                _ => ChannelOpenFailure::AdministrativelyProhibited,
            };
        }
        tracing::debug!(%error, "forwarding failed");
        ChannelOpenFailure::ConnectFailed
    }

    /// Connects to what the client asks for and answers it then. Nothing waits for that.
    pub(crate) async fn connect(
        &self,
        channel: Channel<Msg>,
        target: Target,
        reply: ChannelOpenHandle,
    ) {
        let Some(room) = self.forwards.room() else {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return;
        };
        let link = self.clone();
        self.tasks.spawn(async move {
            let _room = room;
            let served = async {
                match link.dial(&target).await {
                    Ok(socket) => link.carry_direct(channel, socket, reply).await,
                    Err(reason) => reply.reject(reason).await,
                }
            };
            link.gone.run_until_cancelled(served).await;
        });
    }

    async fn dial(&self, target: &Target) -> Result<Connected, ChannelOpenFailure> {
        let caller = self.forwarder().await;
        let caller = caller.ok_or(ChannelOpenFailure::AdministrativelyProhibited)?;
        let connected = self.settings.network.connect(&caller, target).await;
        connected.map_err(|error| self.failed(Verb::Connect, target, &error))
    }

    async fn carry_direct(
        &self,
        channel: Channel<Msg>,
        socket: Connected,
        reply: ChannelOpenHandle,
    ) {
        // Before the client can close it.
        let place = self.forwards.opened.insert(channel.id());
        reply.accept().await;
        self.carry_socket(channel, socket, &place.closed).await;
    }

    async fn carry_socket(
        &self,
        channel: Channel<Msg>,
        socket: Connected,
        closed: &CancellationToken,
    ) {
        let mut socket = ResetOnDrop { socket, ended: false };
        socket.ended = carry(channel, &mut socket.socket, &self.backlog, closed).await;
    }

    /// Takes connections for the client until `stop`.
    async fn accept(
        self,
        listener: Listener,
        bound: Bound,
        handle: Handle,
        stop: CancellationToken,
    ) {
        loop {
            let socket = tokio::select! {
                socket = listener.accept() => socket,
                () = stop.cancelled() => return,
                // Those that are open go on until the node closes.
                () = self.settings.draining.cancelled() => return,
            };
            let Some(room) = self.forwards.room() else {
                drop(ResetOnDrop { socket, ended: false });
                continue;
            };
            let (link, bound, handle) = (self.clone(), bound.clone(), handle.clone());
            self.tasks.spawn(async move {
                let _room = room;
                let served = link.offer(socket, &bound, &handle);
                link.gone.run_until_cancelled(served).await;
            });
        }
    }

    /// Offers a connection to the client and carries it if it is taken.
    async fn offer(&self, socket: Connected, bound: &Bound, handle: &Handle) {
        let opening = self.forwards.opened.opening();
        let opened = match bound {
            Bound::Tcp(address, port) => {
                let (from, from_port) = origin(socket.remote());
                handle.channel_open_forwarded_tcpip(address, *port, from, from_port).await
            }
            Bound::Unix(path) => handle.channel_open_forwarded_streamlocal(path).await,
        };
        match opened {
            Ok(channel) => {
                let place = opening.done(channel.id());
                self.carry_socket(channel, socket, &place.closed).await;
            }
            Err(error) => {
                tracing::debug!(%error, "the client takes no forwarded connection");
                drop(ResetOnDrop { socket, ended: false });
            }
        }
    }
}

fn origin(peer: &Peer) -> (String, u32) {
    match peer {
        Peer::Tcp(address) => (address.ip().to_canonical().to_string(), address.port().into()),
        Peer::Unix(path) => (path.display().to_string(), 0),
    }
}

/// A socket whose other end is not to take a part for the whole.
struct ResetOnDrop {
    socket: Connected,
    ended: bool,
}

impl Drop for ResetOnDrop {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.socket.reset_on_drop();
        }
    }
}

/// What a client has asked the node to listen on, as it will name it again: the port is the
/// one it was given.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Bound {
    Tcp(String, u32),
    Unix(String),
}

/// The listeners of a transport. They end when this is dropped.
#[derive(Default)]
pub(crate) struct Listening(HashMap<Bound, Active>);

/// A listener at work.
struct Active {
    stop: DropGuard,
    /// Cancelled once its socket is closed.
    ended: CancellationToken,
}

impl Listening {
    /// Listens on a TCP port; the port, if it does.
    pub(crate) async fn tcp(
        &mut self,
        link: &Link,
        address: &str,
        port: u32,
        handle: Handle,
    ) -> Option<u32> {
        let target = Target::Tcp { host: address.into(), port: u16::try_from(port).ok()? };
        if !is_address(address) {
            // The session loop waits for no resolver.
            let why = String::from("not an address");
            let target = cut(&target.to_string());
            let refusal = ForwardRefusal { verb: Verb::Listen, target, why };
            link.authentication.denied(&refusal.into());
            return None;
        }
        let listener = self.listener(link, &target).await?;
        let port = u32::from(listener.port()?);
        self.start(link, listener, Bound::Tcp(address.into(), port), handle).then_some(port)
    }

    /// Listens on a Unix socket; whether it does.
    pub(crate) async fn unix(&mut self, link: &Link, path: &str, handle: Handle) -> bool {
        let listener = self.listener(link, &Target::Unix(path.into())).await;
        let bound = Bound::Unix(path.into());
        listener.is_some_and(|listener| self.start(link, listener, bound, handle))
    }

    /// Ends a listener; whether there was one. Nobody can connect to it any more then.
    pub(crate) async fn end(&mut self, bound: &Bound) -> bool {
        let Some(Active { stop, ended }) = self.0.remove(bound) else { return false };
        drop(stop);
        ended.cancelled().await;
        true
    }

    async fn listener(&self, link: &Link, target: &Target) -> Option<Listener> {
        let draining = link.settings.draining.is_cancelled();
        let caller = if draining { None } else { link.forwarder().await }?;
        let listening = if self.0.len() >= link.settings.limits.listeners {
            Err(NetworkError::Limit)
        } else {
            link.settings.network.listen(&caller, target).await
        };
        listening.map_err(|error| link.failed(Verb::Listen, target, &error)).ok()
    }

    fn start(&mut self, link: &Link, listener: Listener, bound: Bound, handle: Handle) -> bool {
        let Entry::Vacant(entry) = self.0.entry(bound) else { return false };
        let stop = link.gone.child_token();
        let (bound, ended) = (entry.key().clone(), CancellationToken::new());
        let (accepting, told) = (link.clone(), stop.clone());
        let guard = ended.clone().drop_guard();
        link.tasks.spawn(async move {
            accepting.accept(listener, bound, handle, told).await;
            drop(guard);
        });
        entry.insert(Active { stop: stop.drop_guard(), ended });
        true
    }
}

/// Whether nothing has to be looked up for it.
fn is_address(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    matches!(host, "" | "*" | "localhost") || bare.parse::<IpAddr>().is_ok()
}
