//! The audit log: one line of JSON for each event, in `audit.log` of the state folder.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use alknet_core::{AuditEvent, AuditSink};
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::home::{Home, HomeError};

/// The name of the log in the state folder.
const FILE: &str = "audit.log";
/// Where the log goes when it is full: the file before that one is lost.
const OLD_FILE: &str = "audit.log.1";
/// How long the log grows, in bytes.
const MAX_FILE: u64 = 64 << 20;
/// How many events wait for the disk; more are counted and lost.
const QUEUE: usize = 4096;

/// Takes events and never waits for the disk. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct AuditFile {
    queue: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

/// The thread that writes. [`finish`](Self::finish) it before the process ends.
#[derive(Debug)]
pub(crate) struct AuditWriter {
    queue: SyncSender<Message>,
    thread: JoinHandle<()>,
}

#[derive(Debug)]
enum Message {
    Event(OffsetDateTime, Box<AuditEvent>),
    Finish,
}

/// One line of the log.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    #[serde(flatten)]
    event: &'a AuditEvent,
}

impl AuditFile {
    /// Opens the log of a state folder and starts its writer.
    pub(crate) fn open(home: &Home) -> Result<(Self, AuditWriter), HomeError> {
        Self::start(home, MAX_FILE)
    }

    fn start(home: &Home, max: u64) -> Result<(Self, AuditWriter), HomeError> {
        let path = home.path(FILE);
        let at = |source| HomeError::File { path: path.clone(), source };
        let log = Log::open(path.clone(), home.path(OLD_FILE), max).map_err(at)?;
        let (queue, events) = sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let counter = lost.clone();
        let thread = std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || write_all(log, &events, &counter))
            .map_err(at)?;
        Ok((Self { queue: queue.clone(), lost }, AuditWriter { queue, thread }))
    }
}

impl AuditSink for AuditFile {
    fn record(&self, event: AuditEvent) {
        let message = Message::Event(OffsetDateTime::now_utc(), Box::new(event));
        match self.queue.try_send(message) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
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

/// Takes what there is, writes it together, and waits for more.
fn write_all(mut log: Log, events: &Receiver<Message>, lost: &AtomicU64) {
    loop {
        let first = match events.recv_timeout(Duration::from_secs(60)) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        let mut finish = false;
        let mut failed = None;
        for message in first.into_iter().chain(events.try_iter()).take(QUEUE) {
            match message {
                Message::Event(time, event) => failed = log.line(time, &event).err().or(failed),
                Message::Finish => finish = true,
            }
        }
        if let Some(error) = log.settle(lost).err().or(failed) {
            tracing::error!(%error, "the audit log could not be written");
        }
        if finish {
            break;
        }
    }
    if let Err(error) = log.file.get_ref().sync_all() {
        tracing::error!(%error, "the audit log could not be saved");
    }
}

/// The open log file.
struct Log {
    file: BufWriter<File>,
    path: PathBuf,
    old: PathBuf,
    size: u64,
    max: u64,
}

impl Log {
    fn open(path: PathBuf, old: PathBuf, max: u64) -> io::Result<Self> {
        let (file, size) = append_to(&path)?;
        Ok(Self { file, path, old, size, max })
    }

    fn line(&mut self, time: OffsetDateTime, event: &AuditEvent) -> io::Result<()> {
        let time = time.format(&Rfc3339).map_err(io::Error::other)?;
        let mut line = serde_json::to_vec(&Line { time, event })?;
        line.push(b'\n');
        self.size = self.size.saturating_add(line.len() as u64);
        self.file.write_all(&line)
    }

    /// Reports what was lost, hands everything to the system, begins a new file in time.
    fn settle(&mut self, lost: &AtomicU64) -> io::Result<()> {
        let count = lost.swap(0, Ordering::Relaxed);
        if count > 0 {
            let event = AuditEvent { event: "events-lost", ..AuditEvent::default() };
            self.line(OffsetDateTime::now_utc(), &event.because(count))?;
        }
        self.file.flush()?;
        if self.size >= self.max {
            std::fs::rename(&self.path, &self.old)?;
            (self.file, self.size) = append_to(&self.path)?;
        }
        Ok(())
    }
}

fn append_to(path: &Path) -> io::Result<(BufWriter<File>, u64)> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let size = file.metadata()?.len();
    Ok((BufWriter::new(file), size))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn home() -> (tempfile::TempDir, Home) {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(Some(folder.path().join("state"))).unwrap();
        (folder, home)
    }

    fn lines(home: &Home, name: &str) -> Vec<serde_json::Value> {
        let text = String::from_utf8(home.read(name).unwrap().unwrap_or_default()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn event() -> AuditEvent {
        AuditEvent { event: AuditEvent::REFUSED, ..AuditEvent::default() }
    }

    #[test]
    fn events_are_lines_of_json() {
        let (_folder, home) = home();
        for reason in ["first", "second"] {
            let (audit, writer) = AuditFile::open(&home).unwrap();
            audit.record(event().because(reason));
            writer.finish();
        }
        let lines = lines(&home, FILE);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["event"], "refused");
        assert_eq!(lines[1]["reason"], "second");
        let time = lines[0]["time"].as_str().unwrap();
        assert!(OffsetDateTime::parse(time, &Rfc3339).is_ok(), "{time}");
        assert_eq!(std::fs::metadata(home.path(FILE)).unwrap().mode() & 0o777, 0o600);
    }

    /// Nobody takes from the queue: what does not fit is counted, and `record` returns.
    #[test]
    fn a_full_queue_loses_events_and_says_so() {
        let (_folder, home) = home();
        let (queue, events) = sync_channel(QUEUE);
        let audit = AuditFile { queue, lost: Arc::default() };
        for _ in 0..QUEUE + 7 {
            audit.record(event());
        }
        let lost = audit.lost.clone();
        drop(audit);
        let log = Log::open(home.path(FILE), home.path(OLD_FILE), MAX_FILE).unwrap();
        write_all(log, &events, &lost);
        let lines = lines(&home, FILE);
        assert_eq!(lines.len(), QUEUE + 1);
        assert_eq!(lines[QUEUE]["event"], "events-lost");
        assert_eq!(lines[QUEUE]["reason"], "7");
    }

    #[test]
    fn a_full_file_makes_room_for_a_new_one() {
        let (_folder, home) = home();
        let (audit, writer) = AuditFile::start(&home, 1).unwrap();
        audit.record(event().because("old"));
        writer.finish();
        let (audit, writer) = AuditFile::start(&home, 1 << 20).unwrap();
        audit.record(event().because("new"));
        writer.finish();
        assert_eq!(lines(&home, OLD_FILE)[0]["reason"], "old");
        assert_eq!(lines(&home, FILE)[0]["reason"], "new");
    }
}
