//! The audit log: one line of JSON for each event, in `audit.log` of the state folder.
//!
//! Each line names the SHA-256 of the line before it, so that a change to one shows in the
//! next. A full file is renamed and the chain goes on in a new one. A serving node and the
//! commands beside it write to the same chain, one at a time, under a lock.

mod entry;
mod files;
mod log;
mod tail;
mod verify;

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use alknet_core::{AuditEvent, AuditSink};
use time::OffsetDateTime;

pub(crate) use self::{
    entry::Head,
    tail::Tail,
    verify::{Report, verify},
};
use self::{
    entry::LOST,
    log::{Event, Log},
};
use crate::home::{Home, HomeError};

/// How many events wait for the disk; more are counted and lost.
const QUEUE: usize = 4096;
/// How many wait before refusals find no more room: anybody can bring those about, and what
/// else happens is not lost behind them.
const REFUSALS: usize = QUEUE / 4 * 3;
/// How long the writer sleeps when there is nothing to do.
const IDLE: Duration = Duration::from_secs(60);
/// How long it waits before it tries again, or sees to the disk.
const SOON: Duration = Duration::from_secs(1);
/// How long it waits for others to come after an event: to write takes the lock of the files,
/// whether it is one line or a hundred.
const GATHER: Duration = Duration::from_millis(5);

/// How much of the log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// How long a file grows, in bytes.
    pub(crate) file_size: u64,
    /// How many full files stay beside the one that is written to.
    pub(crate) keep: NonZeroUsize,
}

impl Limits {
    /// For a process that leaves rotation to the node.
    const UNLIMITED: Self = Self { file_size: u64::MAX, keep: NonZeroUsize::MAX };
}

impl Default for Limits {
    fn default() -> Self {
        Self { file_size: 64 << 20, keep: NonZeroUsize::MIN.saturating_add(7) }
    }
}

/// Appends one event to the log of a state folder, also while a node serves it, and waits
/// for the disk.
pub(crate) fn append_once(home: &Home, event: AuditEvent) -> Result<(), HomeError> {
    append_all(home, [event])
}

/// Like [`append_once`], for events that belong together.
pub(crate) fn append_all(
    home: &Home,
    events: impl IntoIterator<Item = AuditEvent>,
) -> Result<(), HomeError> {
    let now = OffsetDateTime::now_utc();
    let mut events: Vec<Event> = events.into_iter().map(|event| (now, Box::new(event))).collect();
    if events.is_empty() {
        return Ok(());
    }
    let mut log = Log::new(home, Limits::UNLIMITED);
    log.append(&mut events)?;
    log.sync().map_err(|source| HomeError::File { path: home.path(files::ACTIVE), source })
}

/// Takes events and never waits for the disk. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct AuditFile {
    queue: SyncSender<Message>,
    lost: Arc<AtomicU64>,
    /// How many events are in the queue.
    queued: Arc<AtomicUsize>,
}

/// The thread that writes. [`finish`](Self::finish) it before the process ends.
#[derive(Debug)]
pub(crate) struct AuditWriter {
    queue: SyncSender<Message>,
    thread: JoinHandle<()>,
}

#[derive(Debug)]
enum Message {
    Event(Event),
    Finish,
}

impl AuditFile {
    /// Opens the log of a state folder and starts its writer.
    pub(crate) fn open(home: &Home, limits: Limits) -> Result<(Self, AuditWriter), HomeError> {
        let mut log = Log::new(home, limits);
        // What the last process left half-written is marked now, not with the next event.
        log.append(&mut Vec::new())?;
        let (queue, events) = sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let queued = Arc::new(AtomicUsize::new(0));
        let writer = Writer {
            log,
            events,
            lost: lost.clone(),
            queued: queued.clone(),
            waiting: Vec::new(),
            failing: false,
        };
        let thread = thread::Builder::new()
            .name("audit".into())
            .spawn(move || writer.run())
            .map_err(|source| HomeError::File { path: home.path(files::ACTIVE), source })?;
        Ok((Self { queue: queue.clone(), lost, queued }, AuditWriter { queue, thread }))
    }
}

/// How many events may wait before this one.
fn room(event: &AuditEvent) -> usize {
    if event.event == AuditEvent::REFUSED { REFUSALS } else { QUEUE }
}

impl AuditSink for AuditFile {
    fn record(&self, event: AuditEvent) {
        let room = room(&event);
        let message = Message::Event((OffsetDateTime::now_utc(), Box::new(event)));
        // Counted first: the writer may take it before this goes on.
        let before = self.queued.fetch_add(1, Ordering::Relaxed);
        if before >= room || self.queue.try_send(message).is_err() {
            self.queued.fetch_sub(1, Ordering::Relaxed);
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl AuditWriter {
    /// Writes what has been recorded so far and ends the thread. Blocks for the disk.
    pub(crate) fn finish(self) {
        // If the thread is gone there is nothing to wait for.
        let _ = self.queue.send(Message::Finish);
        if self.thread.join().is_err() {
            tracing::error!("the audit log's writer failed");
        }
    }
}

/// What the thread has.
struct Writer {
    log: Log,
    events: Receiver<Message>,
    lost: Arc<AtomicU64>,
    queued: Arc<AtomicUsize>,
    /// Taken from the queue and not written yet: at most [`QUEUE`].
    waiting: Vec<Event>,
    /// The last attempt to write failed.
    failing: bool,
}

impl Writer {
    fn run(mut self) {
        while self.gather() {
            self.settle();
        }
        self.settle();
        let outcome = self.log.sync();
        self.report(outcome.err());
    }

    /// Waits for events and takes what there is; `false` at the end.
    fn gather(&mut self) -> bool {
        let wait = if self.failing || self.log.is_unsynced() { SOON } else { IDLE };
        let first = match self.events.recv_timeout(wait) {
            Ok(message) => {
                if matches!(message, Message::Event(_)) {
                    thread::sleep(GATHER);
                }
                Some(message)
            }
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return false,
        };
        for message in first.into_iter().chain(self.events.try_iter()).take(QUEUE) {
            let Message::Event(event) = message else { return false };
            self.queued.fetch_sub(1, Ordering::Relaxed);
            if self.waiting.len() < room(&event.1) {
                self.waiting.push(event);
            } else {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
        true
    }

    /// Writes what waits, in one piece, and tells how many events were lost. What cannot be
    /// written waits for the next time.
    fn settle(&mut self) {
        let lost = self.lost.load(Ordering::Relaxed);
        if lost > 0 {
            let event = AuditEvent { event: LOST, ..AuditEvent::default() }.because(lost);
            self.waiting.push((OffsetDateTime::now_utc(), Box::new(event)));
        }
        let outcome =
            if self.waiting.is_empty() { Ok(()) } else { self.log.append(&mut self.waiting) };
        match &outcome {
            Ok(()) => {
                self.lost.fetch_sub(lost, Ordering::Relaxed);
            }
            Err(_) if lost > 0 => drop(self.waiting.pop()),
            Err(_) => {}
        }
        self.report(outcome.err());
        if !self.failing {
            let outcome = self.log.sync_in_time();
            self.report(outcome.err());
        }
    }

    /// Says once that writing fails, and once that it works again.
    fn report<E: std::error::Error + 'static>(&mut self, error: Option<E>) {
        let failed = error.is_some();
        if let Some(error) = error.filter(|_| !self.failing) {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, "the audit log could not be written");
        } else if self.failing && !failed {
            tracing::warn!("the audit log is written again");
        }
        self.failing = failed;
    }
}

#[cfg(test)]
mod tests;
