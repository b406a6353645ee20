//! One SFTP session over one stream.

use std::{
    collections::BTreeSet,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};

use crate::{
    attributes::Names,
    fault::{Fault, Outcome},
    handles::{Handles, Opened},
    schedule::{Job, Schedule},
    share::{Share, Shares},
    trail::Trail,
    view::View,
    wire::{self, MAX_DATA, Packet, PacketError, Request},
};

/// How much is asked of the stream at once, in bytes.
const READ: usize = 256 << 10;
/// Small answers are gathered up to so many bytes before they are sent.
const GATHER: usize = 64 << 10;
/// How many packets wait between the stream and the schedule.
const AHEAD: usize = 64;

/// Bounds of SFTP sessions.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SftpLimits {
    /// Sessions in progress on one connection: one per stream.
    pub sessions: usize,
    /// Files and folders that one session may have open.
    pub handles: usize,
    /// Files and folders that all sessions of one identity may have open.
    pub identity_handles: usize,
    /// Files and folders that all sessions may have open.
    pub all_handles: usize,
    /// What one session may have in memory, requests and answers together, in bytes. It is
    /// what lets requests be pipelined.
    pub memory: usize,
    /// How long a client may take to begin.
    pub start: Duration,
}

impl Default for SftpLimits {
    /// A quarter of the descriptors that the process may have open now is for files of
    /// clients, and at most half of that for one identity's.
    fn default() -> Self {
        let descriptors = alknet_host::descriptors::limit();
        let all_handles = usize::try_from(descriptors / 4).unwrap_or(usize::MAX).min(8192);
        Self {
            sessions: 64,
            handles: 512,
            identity_handles: (all_handles / 2).min(1024),
            all_handles,
            memory: 8 << 20,
            start: Duration::from_secs(30),
        }
    }
}

/// What the sessions of a node share: the bounds. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shared {
    pub(crate) limits: Arc<SftpLimits>,
    handles: Arc<Semaphore>,
    opened: Opened,
    shares: Arc<Shares>,
    /// Threads that may wait for the disk.
    pub(crate) workers: Arc<Semaphore>,
}

/// Threads that may wait for the disk, of all sessions.
const WORKERS: usize = 128;

impl Shared {
    /// With these bounds.
    pub fn new(limits: SftpLimits) -> Self {
        let handles = Arc::new(Semaphore::new(limits.all_handles.min(Semaphore::MAX_PERMITS)));
        let workers = Arc::new(Semaphore::new(WORKERS));
        let (opened, shares) = Default::default();
        Self { limits: Arc::new(limits), handles, opened, shares, workers }
    }

    /// What an identity may have of it.
    pub(crate) fn share(&self, identity: &str) -> Arc<Share> {
        self.shares.of(identity, self.limits.identity_handles)
    }
}

impl Default for Shared {
    fn default() -> Self {
        Self::new(SftpLimits::default())
    }
}

/// Which requests are refused, by the names in [`REQUESTS`](crate::REQUESTS).
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Refuse whatever changes anything.
    pub read_only: bool,
    /// Refuse all others, if it is there.
    pub allowed: Option<BTreeSet<String>>,
    /// Refuse these.
    pub denied: BTreeSet<String>,
}

impl Rules {
    /// Whether a request of this name is served.
    fn permit(&self, name: &str) -> bool {
        !self.denied.contains(name) && self.allowed.as_ref().is_none_or(|list| list.contains(name))
    }
}

/// The session cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The stream failed.
    #[error("the stream failed")]
    Stream(#[source] io::Error),
    /// The stream ended within a packet.
    #[error("the stream ended within a packet")]
    CutOff,
    /// The client does not speak the protocol.
    #[error("not SFTP")]
    Packet(#[from] PacketError),
    /// The client said nothing.
    #[error("the client did not begin in time")]
    Silent,
    /// Something here went wrong.
    #[error("a request ended in a panic")]
    Panic(#[source] tokio::task::JoinError),
}

/// A session before it is served.
#[derive(Debug, Clone)]
pub struct Session {
    view: View,
    trail: Trail,
    share: Arc<Share>,
    shared: Shared,
    rules: Rules,
}

impl Session {
    /// A session with this view of the files.
    pub fn new(view: View, shared: Shared) -> Self {
        let share = Share::new(shared.limits.identity_handles);
        Self { view, trail: Trail::default(), share, shared, rules: Rules::default() }
    }

    /// With the share of an identity, and not one of its own.
    pub(crate) fn with_share(self, share: Arc<Share>) -> Self {
        Self { share, ..self }
    }

    /// With a record of what it does.
    #[must_use]
    pub fn with_trail(self, trail: Trail) -> Self {
        Self { trail, ..self }
    }

    /// With requests that are refused.
    #[must_use]
    pub fn with_rules(self, rules: Rules) -> Self {
        Self { rules, ..self }
    }

    /// Serves the session to its end: until the client has ended its side and has had all
    /// answers. Dropped before that, it leaves nothing open, and what was being uploaded
    /// under no name yet is gone.
    ///
    /// # Errors
    ///
    /// If the stream fails or the client does not speak the protocol. What is wrong with a
    /// request is told to the client and is no error here.
    pub async fn serve(
        self,
        input: impl AsyncRead + Unpin,
        output: impl AsyncWrite + Unpin,
    ) -> Result<(), SessionError> {
        let room = Arc::new(Semaphore::new(self.shared.limits.memory.max(2 * wire::MAX_PACKET)));
        let start = self.shared.limits.start;
        let context = Arc::new(Context::new(self));
        let _end = End(context.clone());
        let (replies, to_send) = mpsc::unbounded_channel();
        let (jobs, arrived) = mpsc::channel(AHEAD);
        let mut input = Input { stream: input, buffer: BytesMut::new() };
        let first = timeout(start, input.next()).await.map_err(|_| SessionError::Silent)??;
        let Some(first) = first else { return Ok(()) };
        wire::init(first)?;
        let hello = wire::version(|name| context.offers(name));
        let schedule = Schedule::new(context, replies);
        let work = async {
            tokio::try_join!(read(input, room, jobs), schedule.run(arrived))?;
            Ok(())
        };
        let send = send(output, hello, to_send);
        tokio::try_join!(work, async { send.await.map_err(SessionError::Stream) })?;
        Ok(())
    }
}

/// What the requests of a session work on.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) view: View,
    pub(crate) names: Names,
    pub(crate) trail: Trail,
    pub(crate) handles: Handles,
    pub(crate) limits: Arc<SftpLimits>,
    pub(crate) workers: Arc<Semaphore>,
    rules: Rules,
    _share: Arc<Share>,
    over: AtomicBool,
}

impl Context {
    fn new(session: Session) -> Self {
        let limits = session.shared.limits;
        Self {
            view: session.view,
            names: Names::default(),
            trail: session.trail,
            handles: Handles::new(
                limits.handles,
                session.share.handles.clone(),
                session.shared.handles,
                session.shared.opened,
            ),
            limits,
            workers: session.shared.workers,
            rules: session.rules,
            _share: session.share,
            over: AtomicBool::new(false),
        }
    }

    /// Whether an extension is announced.
    fn offers(&self, name: &str) -> bool {
        let of_accounts = name == "users-groups-by-id";
        self.rules.permit(name) && (self.view.base().is_some() || !of_accounts)
    }

    /// Fails for requests that are refused whatever they are about.
    pub(crate) fn permit(&self, request: &Request) -> Outcome<()> {
        let Some(name) = request.name() else { return Ok(()) };
        if !self.rules.permit(name) {
            return Err(Fault::denied(format!("{name} is not permitted here")));
        }
        if request.changes() { self.changeable() } else { Ok(()) }
    }

    /// Fails where nothing may be changed.
    pub(crate) fn changeable(&self) -> Outcome<()> {
        match self.rules.read_only {
            true => Err(Fault::denied("the session is read-only")),
            false => Ok(()),
        }
    }

    /// Whether nobody waits for answers any more.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

/// The end of a session, however it comes.
struct End(Arc<Context>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
        for open in self.0.handles.clear() {
            self.0.abandon(&open);
        }
        self.0.trail.settle();
    }
}

/// An answer, and the room that it and its request take until it is sent.
pub(crate) type Answer = (Bytes, OwnedSemaphorePermit);

struct Input<R> {
    stream: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> Input<R> {
    /// The next packet, `None` at the end. Cancel safe.
    async fn next(&mut self) -> Result<Option<Bytes>, SessionError> {
        loop {
            if let Some(packet) = wire::split(&mut self.buffer)? {
                return Ok(Some(packet));
            }
            self.buffer.reserve(wire::missing(&self.buffer).max(READ));
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) if self.buffer.is_empty() => return Ok(None),
                Ok(0) => return Err(SessionError::CutOff),
                Ok(_) => {}
                Err(error) => return Err(SessionError::Stream(error)),
            }
        }
    }
}

/// Reads requests while there is room for them and for their answers.
async fn read(
    mut input: Input<impl AsyncRead + Unpin>,
    room: Arc<Semaphore>,
    jobs: mpsc::Sender<Job>,
) -> Result<(), SessionError> {
    while let Some(packet) = input.next().await? {
        let length = packet.len();
        let Packet { id, request } = Packet::parse(packet)?;
        let cost = u32::try_from(length + answer_size(&request)).unwrap_or(u32::MAX);
        let Ok(room) = room.clone().acquire_many_owned(cost).await else { break };
        if jobs.send(Job::new(id, request, room)).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// How many bytes an answer may have, and what else it costs to keep a request.
fn answer_size(request: &Request) -> usize {
    const SMALL: usize = 4 << 10;
    match request {
        Request::Read { length, .. } => {
            SMALL + usize::try_from(*length).unwrap_or(MAX_DATA).min(MAX_DATA)
        }
        Request::ReadDir { .. } => 48 << 10,
        Request::Names { .. } => MAX_DATA,
        _ => SMALL,
    }
}

/// Sends answers until there will be no more.
async fn send(
    mut output: impl AsyncWrite + Unpin,
    hello: Bytes,
    mut answers: mpsc::UnboundedReceiver<Answer>,
) -> io::Result<()> {
    output.write_all(&hello).await?;
    output.flush().await?;
    let (mut next, mut small) = (Vec::with_capacity(AHEAD), BytesMut::new());
    while answers.recv_many(&mut next, AHEAD).await > 0 {
        let mut rooms = Vec::with_capacity(next.len());
        for (answer, room) in next.drain(..) {
            if answer.len() < GATHER / 8 && small.len() < GATHER {
                small.extend_from_slice(&answer);
            } else {
                output.write_all(&small).await?;
                small.clear();
                output.write_all(&answer).await?;
            }
            rooms.push(room);
        }
        output.write_all(&small).await?;
        small.clear();
        if answers.is_empty() {
            output.flush().await?;
        }
    }
    output.shutdown().await
}
