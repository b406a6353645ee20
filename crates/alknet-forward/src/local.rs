//! What a client machine listens with, or has a node listen with: the `-L`, `-R` and UDP of
//! `alknet forward`.

use std::{collections::HashMap, io, net::SocketAddr, sync::Arc, time::Duration};

use alknet_core::Stream;
use alknet_host::network::{Connected, Listener, NetworkError, Peer, Target};
use bytes::Bytes;
use tokio::{
    net::{TcpStream, UdpSocket, UnixStream, lookup_host},
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{
    Address, Client, Datagram, ErrorCode, Id, Incoming, OpenError, OpenStream, Place, Request,
    backoff::Backoff,
    join::{ResetOnDrop, join},
};

/// Connections of one forward at a time; more wait in the listener's backlog.
const MAX_CONNECTIONS: usize = 1024;
/// Senders of datagrams at a time; those of more are lost.
const MAX_SENDERS: usize = 256;
/// Datagrams of one sender that wait; more are lost.
const MAX_QUEUED: usize = 64;
/// How long a sender of datagrams may be silent, both ways, before it is forgotten.
const SILENCE: Duration = Duration::from_secs(120);
/// How long connecting to a target on this side may take.
const CONNECT: Duration = Duration::from_secs(10);
/// The longest datagram, in bytes.
const MAX_DATAGRAM: usize = 65535;

/// Listens here and connects from the node (`-L`).
#[derive(Debug)]
pub struct LocalForward {
    listener: Listener,
    target: Place,
    client: Client,
}

impl LocalForward {
    /// Listens on a place of this machine.
    pub async fn bind(here: Place, target: Place, client: Client) -> Result<Self, NetworkError> {
        let listener = Listener::unchecked(&here.into()).await?;
        Ok(Self { listener, target, client })
    }

    /// Where it listens.
    pub fn bound(&self) -> io::Result<Peer> {
        self.listener.local()
    }

    /// Serves for ever; what it serves ends when the future is dropped.
    pub async fn serve(self) -> io::Result<()> {
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let accept = async {
                let permit = room.clone().acquire_owned().await;
                (permit, self.listener.accept().await)
            };
            tokio::select! {
                (permit, accepted) = accept => {
                    let (client, target) = (self.client.clone(), self.target.clone());
                    // Whatever comes between, its end must not look like that of an answer.
                    let accepted = ResetOnDrop::new(accepted);
                    connections.spawn(async move {
                        let _permit = permit;
                        carry(&client, target, accepted).await;
                    });
                }
                Some(ended) = connections.join_next() => ended.map_err(io::Error::other)?,
            }
        }
    }
}

async fn carry(client: &Client, target: Place, accepted: ResetOnDrop<Connected>) {
    match client.open(&Request::Connect(target.clone())).await {
        Ok(OpenStream { stream, .. }) => join(stream, accepted).await,
        Err(error) => tracing::warn!(%target, %error, "not connected"),
    }
}

/// Why a node listens no more.
#[derive(Debug, thiserror::Error)]
#[error("the node does not listen again")]
pub struct ListenError(#[source] pub OpenError);

/// Has the node listen and connects from here (`-R`).
#[derive(Debug)]
pub struct RemoteForward {
    place: Place,
    target: Target,
    client: Client,
    incoming: Incoming,
}

impl RemoteForward {
    /// Has the node listen on a place of its own.
    pub async fn listen(there: Place, target: Place, client: Client) -> Result<Self, OpenError> {
        let incoming = client.listen(there.clone()).await?;
        let place = settled(there, incoming.opened.bound.as_deref());
        Ok(Self { place, target: target.into(), client, incoming })
    }

    /// Where the node listens, as it says.
    pub fn bound(&self) -> &str {
        self.incoming.opened.bound.as_deref().unwrap_or("?")
    }

    /// Serves until the node does not let it listen any more; what it serves ends then, or
    /// when the future is dropped. When the connection to the node is lost it listens again
    /// on the new one.
    pub async fn serve(self) -> ListenError {
        let Self { place, target, client, mut incoming } = self;
        let mut connections = JoinSet::new();
        loop {
            let lost = loop {
                // Reading is not cancel safe, so nothing else is awaited meanwhile.
                match incoming.next().await {
                    Ok((id, _)) if connections.len() < MAX_CONNECTIONS => {
                        connections.spawn(take(client.clone(), id, target.clone()));
                    }
                    Ok(_) => tracing::warn!("too many connections at once"),
                    Err(error) => break error,
                }
                while connections.try_join_next().is_some() {}
            };
            tracing::debug!(error = %lost, "the node listens no more");
            drop(incoming);
            incoming = match listen_again(&client, &place).await {
                Ok(incoming) => incoming,
                Err(error) => return ListenError(error),
            };
        }
    }
}

async fn listen_again(client: &Client, place: &Place) -> Result<Incoming, OpenError> {
    let mut backoff = Backoff::default();
    loop {
        match client.listen(place.clone()).await {
            Ok(incoming) => return Ok(incoming),
            Err(error) if error.is_final() || is_no(error.code()) => return Err(error),
            // A node that has not noticed yet that the former connection is gone has the
            // port in use.
            Err(error) => tracing::warn!(%place, %error, "the node does not listen again yet"),
        }
        sleep(backoff.next()).await;
    }
}

/// Whether asking again gets the same answer.
fn is_no(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::NotAllowed | ErrorCode::Invalid | ErrorCode::Unsupported)
}

/// The port that the node picked is asked for again, so that it stays the same.
fn settled(place: Place, bound: Option<&str>) -> Place {
    let port = bound.and_then(|bound| bound.parse::<SocketAddr>().ok()).map(|addr| addr.port());
    match (place, port) {
        (Place::Tcp(tcp), Some(port)) if tcp.port == 0 => Place::tcp(tcp.host, port),
        (place, _) => place,
    }
}

async fn take(client: Client, id: Id, target: Target) {
    let stream = match client.accept(id).await {
        Ok(OpenStream { stream, .. }) => stream,
        Err(error) => return tracing::debug!(%error, "a connection could not be taken"),
    };
    // Dropped, the stream is reset, and so is the connection at the node.
    if let Err(error) = deliver(stream, &target).await {
        tracing::warn!(%target, %error, "not connected");
    }
}

async fn deliver(stream: Stream, target: &Target) -> io::Result<()> {
    match target {
        Target::Tcp { host, port } => {
            let socket = connect(TcpStream::connect((&**host, *port))).await?;
            join(stream, ResetOnDrop::new(Connected::of_tcp(socket)?)).await;
        }
        Target::Unix(path) => {
            let socket = connect(UnixStream::connect(path)).await?;
            join(stream, ResetOnDrop::new(socket)).await;
        }
    }
    Ok(())
}

async fn connect<T>(connecting: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(CONNECT, connecting).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Takes datagrams here and sends them from the node (`-U`).
#[derive(Debug)]
pub struct UdpForward {
    socket: Arc<UdpSocket>,
    target: Address,
    client: Client,
}

impl UdpForward {
    /// Takes datagrams on an address of this machine.
    pub async fn bind(
        (host, port): (&str, u16),
        target: Address,
        client: Client,
    ) -> io::Result<Self> {
        let mut addresses = lookup_host((host, port)).await?;
        // Programs try IPv4 first where they are told nothing else.
        let first = addresses.next().ok_or(io::ErrorKind::NotFound)?;
        let address = addresses.find(SocketAddr::is_ipv4).filter(|_| !first.is_ipv4());
        let socket = UdpSocket::bind(address.unwrap_or(first)).await?;
        Ok(Self { socket: Arc::new(socket), target, client })
    }

    /// Where it takes them.
    pub fn bound(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves for ever. Each sender has an association of its own at the node.
    pub async fn serve(self) -> io::Result<()> {
        let mut senders: HashMap<SocketAddr, mpsc::Sender<Bytes>> = HashMap::new();
        let mut tasks = JoinSet::new();
        let mut buffer = vec![0; MAX_DATAGRAM];
        loop {
            let (length, from) = tokio::select! {
                received = self.socket.recv_from(&mut buffer) => match received {
                    Ok(received) => received,
                    // An answer found nobody there: that ends nothing.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                    Err(error) => return Err(error),
                },
                Some(ended) = tasks.join_next() => {
                    senders.remove(&ended.map_err(io::Error::other)?);
                    continue;
                }
            };
            if !senders.contains_key(&from) && senders.len() < MAX_SENDERS {
                let (sender, queue) = mpsc::channel(MAX_QUEUED);
                senders.insert(from, sender);
                let task = Sender {
                    socket: self.socket.clone(),
                    from,
                    target: self.target.clone(),
                    queue,
                };
                tasks.spawn(task.serve(self.client.clone()));
            }
            let datagram = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
            // A full queue loses it, as a full network does.
            let _ = senders.get(&from).map(|sender| sender.try_send(datagram));
        }
    }
}

/// One sender of datagrams on this side.
struct Sender {
    socket: Arc<UdpSocket>,
    from: SocketAddr,
    target: Address,
    queue: mpsc::Receiver<Bytes>,
}

impl Sender {
    async fn serve(mut self, client: Client) -> SocketAddr {
        match client.udp().await {
            Ok((send, recv)) => {
                if let Err(error) = self.pass(send, recv).await {
                    tracing::debug!(%error, "an association broke off");
                }
            }
            Err(error) => tracing::warn!(target = %self.target, %error, "no datagrams"),
        }
        self.from
    }

    async fn pass(
        &mut self,
        mut send: crate::DatagramSender,
        mut recv: crate::DatagramReceiver,
    ) -> io::Result<()> {
        loop {
            let silent = Instant::now() + SILENCE;
            tokio::select! {
                payload = self.queue.recv() => {
                    let Some(payload) = payload else { return Ok(()) };
                    send.send(&Datagram { address: self.target.clone(), payload }).await?;
                }
                answer = recv.recv() => {
                    let Some(Datagram { payload, .. }) = answer? else { return Ok(()) };
                    if let Err(error) = self.socket.send_to(&payload, self.from).await {
                        tracing::debug!(%error, "a datagram is lost");
                    }
                }
                () = sleep_until(silent) => return Ok(()),
            }
        }
    }
}
