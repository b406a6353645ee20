//! Recording what terminals show.
//!
//! A [`Recorder`] says of each session whether it is recorded and makes a [`Recording`], to
//! which the session gives what the terminal shows before anybody sees it. A thread of the
//! recording's own writes that to a [`Sink`]. What is to be recorded does not go on
//! unrecorded: where the sink fails, or takes nothing for a while, each call on the
//! recording fails, and the session has to end.

use std::{
    fmt, io,
    net::SocketAddr,
    process::ExitStatus,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use alknet_core::{BoxFuture, Identity};
use tokio::{
    sync::{SetOnce, mpsc},
    time::timeout,
};

use crate::Size;

/// How many pieces of output wait for the sink.
const QUEUE: usize = 64;
/// How long a session waits for the sink before it ends.
const PATIENCE: Duration = Duration::from_secs(10);
/// The writer needs little of it.
const STACK: usize = 256 * 1024;

/// Says which sessions are recorded, and begins.
pub trait Recorder: fmt::Debug + Send + Sync + 'static {
    /// A recording of this session, `None` if it is not to be recorded. Where it fails the
    /// session must not begin. Cancel safe.
    fn begin(&self, session: Session) -> BoxFuture<'_, Result<Option<Recording>, RecordError>>;
}

/// What a session with a terminal is at its start.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Session {
    /// Who has it.
    pub identity: Arc<Identity>,
    /// As which account.
    pub account: String,
    /// By which protocol.
    pub alpn: String,
    /// From where.
    pub peer: Option<SocketAddr>,
    /// What the client calls its terminal.
    pub term: Option<String>,
    /// How large that is.
    pub size: Size,
}

impl Session {
    /// Of an identity, as an account, by a protocol.
    pub fn new(identity: Arc<Identity>, account: &str, alpn: &str, size: Size) -> Self {
        let (account, alpn) = (account.to_owned(), alpn.to_owned());
        Self { identity, account, alpn, peer: None, term: None, size }
    }
}

/// Where a recording goes. Its methods block, on a thread of the recording's own.
pub trait Sink: Send + 'static {
    /// Takes what happened, so long after the start.
    fn event(&mut self, at: Duration, event: Event<'_>) -> io::Result<()>;

    /// Nothing waits: what was taken should be safe from an end of the process.
    fn flush(&mut self) -> io::Result<()>;

    /// The end, however it came. Called once, also after an error.
    fn finish(self: Box<Self>, end: End);
}

/// What happens in a session.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The program wrote this to the terminal.
    Output(&'a [u8]),
    /// The client typed this.
    Input(&'a [u8]),
    /// The terminal has another size.
    Resize(Size),
}

/// How a recording ended.
#[derive(Debug)]
pub struct End {
    /// After how long.
    pub after: Duration,
    /// How the program ended, if it did while it was recorded.
    pub status: Option<ExitStatus>,
    /// What the sink failed with.
    pub error: Option<io::Error>,
}

/// A session that is to be recorded cannot be, and has to end.
#[derive(Debug, Clone, thiserror::Error)]
#[error("this session is recorded, and the recording failed: {0}")]
pub struct RecordError(Arc<str>);

impl RecordError {
    /// Because of this.
    pub fn new(reason: impl fmt::Display) -> Self {
        Self(reason.to_string().into())
    }
}

/// A recording in progress. It is finished by [`finish`](Self::finish), or else when its
/// last clone is dropped.
#[derive(Debug, Clone)]
pub struct Recording(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: mpsc::Sender<Item>,
    state: Arc<State>,
    started: Instant,
    input: bool,
}

#[derive(Debug, Default)]
struct State {
    /// A size that the writer has not seen: only the last one counts.
    size: Mutex<Option<(Duration, Size)>>,
    failed: SetOnce<RecordError>,
    finished: SetOnce<()>,
}

#[derive(Debug)]
enum Item {
    Output(Duration, Vec<u8>),
    Input(Duration, Vec<u8>),
    /// There is a new size.
    Wake,
    Finish(Option<ExitStatus>),
}

impl Recording {
    /// Begins to write to a sink; `input`: also what the client types.
    pub fn start(sink: impl Sink, input: bool) -> io::Result<Self> {
        let (queue, items) = mpsc::channel(QUEUE);
        let (state, started) = (Arc::new(State::default()), Instant::now());
        let writer = Writer { sink: Box::new(sink), state: state.clone(), started };
        std::thread::Builder::new()
            .name("recording".into())
            .stack_size(STACK)
            .spawn(move || writer.run(items))?;
        Ok(Self(Arc::new(Shared { queue, state, started, input })))
    }

    /// Takes what the terminal is about to show. Waits where the sink is slow, and fails
    /// where it stays so. Not cancel safe: what was not taken is not recorded.
    pub async fn output(&self, bytes: &[u8]) -> Result<(), RecordError> {
        self.send(Item::Output(self.0.started.elapsed(), bytes.to_vec())).await
    }

    /// Takes what the client types; nothing, unless that is to be recorded. Like
    /// [`output`](Self::output).
    pub async fn input(&self, bytes: &[u8]) -> Result<(), RecordError> {
        if !self.0.input {
            return Ok(());
        }
        self.send(Item::Input(self.0.started.elapsed(), bytes.to_vec())).await
    }

    /// Takes a new size of the terminal. Waits for nothing.
    pub fn resize(&self, size: Size) {
        let new = Some((self.0.started.elapsed(), size));
        *self.0.state.size.lock().unwrap_or_else(PoisonError::into_inner) = new;
        // A full queue has the writer awake.
        let _ = self.0.queue.try_send(Item::Wake);
    }

    /// Waits until the recording has failed. Cancel safe.
    pub async fn failed(&self) -> RecordError {
        self.0.state.failed.wait().await.clone()
    }

    /// Ends the recording and waits until it is written, for a while. Cancel safe: it ends
    /// all the same.
    pub async fn finish(self, status: Option<ExitStatus>) {
        let ended = async {
            let _ = self.0.queue.send(Item::Finish(status)).await;
            self.0.state.finished.wait().await;
        };
        if timeout(PATIENCE, ended).await.is_err() {
            tracing::warn!("a recording could not be finished in time");
        }
    }

    async fn send(&self, item: Item) -> Result<(), RecordError> {
        match timeout(PATIENCE, self.0.queue.send(item)).await {
            Ok(Ok(())) => match self.0.state.failed.get() {
                Some(error) => Err(error.clone()),
                None => Ok(()),
            },
            Ok(Err(_)) => Err(self.error("it has ended")),
            Err(_) => {
                let error = self.error("the disk takes nothing");
                // Whoever else has a clone hears of it too.
                let _ = self.0.state.failed.set(error.clone());
                Err(error)
            }
        }
    }

    fn error(&self, otherwise: &str) -> RecordError {
        self.0.state.failed.get().cloned().unwrap_or_else(|| RecordError::new(otherwise))
    }
}

/// What the thread has.
struct Writer {
    sink: Box<dyn Sink>,
    state: Arc<State>,
    started: Instant,
}

impl Writer {
    fn run(mut self, mut items: mpsc::Receiver<Item>) {
        let ended = self.write_all(&mut items);
        let (status, error) = match ended {
            Ok(status) => (status, None),
            Err(error) => {
                let _ = self.state.failed.set(RecordError::new(&error));
                (None, Some(error))
            }
        };
        // Nobody waits for room in a queue that nobody reads.
        drop(items);
        self.sink.finish(End { after: self.started.elapsed(), status, error });
        let _ = self.state.finished.set(());
    }

    fn write_all(&mut self, items: &mut mpsc::Receiver<Item>) -> io::Result<Option<ExitStatus>> {
        self.sink.flush()?;
        while let Some(first) = items.blocking_recv() {
            let mut next = Some(first);
            while let Some(item) = next {
                if let Item::Finish(status) = item {
                    self.sizes()?;
                    self.sink.flush()?;
                    return Ok(status);
                }
                self.write(&item)?;
                next = items.try_recv().ok();
            }
            self.sink.flush()?;
        }
        Ok(None)
    }

    fn write(&mut self, item: &Item) -> io::Result<()> {
        self.sizes()?;
        match item {
            Item::Output(at, bytes) => self.sink.event(*at, Event::Output(bytes)),
            Item::Input(at, bytes) => self.sink.event(*at, Event::Input(bytes)),
            Item::Wake | Item::Finish(_) => Ok(()),
        }
    }

    fn sizes(&mut self) -> io::Result<()> {
        let new = self.state.size.lock().unwrap_or_else(PoisonError::into_inner).take();
        match new {
            Some((at, size)) => self.sink.event(at, Event::Resize(size)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
