//! Appending to the log: one process at a time, and what was left half-written is marked.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use alknet_core::AuditEvent;
use serde_json::Value;
use time::OffsetDateTime;

use super::{
    Limits,
    entry::{CONTINUED, Hash, Head, MAX_LINE, RECOVERED, STARTED, encode},
    files::{self, ACTIVE, LOCK, Last, Part},
};
use crate::home::{Home, HomeError};

/// Where a log goes that has no chain.
const UNCHAINED: &str = "audit.log.unchained";
/// How long written entries may wait for the disk.
const SYNC_AFTER: Duration = Duration::from_secs(1);

/// An event and when it happened.
pub(super) type Event = (OffsetDateTime, Box<AuditEvent>);

/// The log as one process writes it.
#[derive(Debug)]
pub(super) struct Log {
    home: Home,
    limits: Limits,
    active: Option<Active>,
    /// The end of the chain, as far as this process has seen it.
    head: Head,
    /// Since when there is something that may not be on the disk.
    unsynced: Option<Instant>,
}

/// The file that is written to.
#[derive(Debug)]
struct Active {
    file: Arc<File>,
    len: u64,
    /// The number of its first entry.
    first: u64,
}

/// The file as it was found.
struct Found {
    file: Arc<File>,
    len: u64,
    last: Option<Last>,
    first: Option<u64>,
    /// Where an older log without a chain went.
    set_aside: Option<String>,
}

impl Log {
    /// A log that is not open yet.
    pub(super) fn new(home: &Home, limits: Limits) -> Self {
        let (home, head) = (home.clone(), Head::NONE);
        Self { home, limits, active: None, head, unsynced: None }
    }

    /// Writes events and takes those from `events` that are written. An event that is not
    /// leaves no trace in the log.
    pub(super) fn append(&mut self, events: &mut Vec<Event>) -> Result<(), HomeError> {
        let _lock = self.home.lock(LOCK)?;
        let mut written = 0;
        let outcome = self.write(events, &mut written);
        events.drain(..written);
        outcome.map_err(|source| {
            // It may be the other process's doing: the next attempt looks anew.
            self.active = None;
            HomeError::File { path: self.home.path(ACTIVE), source }
        })
    }

    /// Brings the log to the disk. Blocks for it.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.unsynced = None;
        self.active.as_ref().map_or(Ok(()), |active| active.file.sync_data())
    }

    /// Like [`sync`](Self::sync), if something has waited for a while.
    pub(super) fn sync_in_time(&mut self) -> io::Result<()> {
        match self.unsynced {
            Some(since) if since.elapsed() >= SYNC_AFTER => self.sync(),
            _ => Ok(()),
        }
    }

    /// Something may not be on the disk yet.
    pub(super) fn is_unsynced(&self) -> bool {
        self.unsynced.is_some()
    }

    fn write(&mut self, events: &[Event], written: &mut usize) -> io::Result<()> {
        let mut active = self.opened()?;
        let (mut buffer, mut head) = (Vec::new(), self.head);
        for (i, (time, event)) in events.iter().enumerate() {
            let (mut line, mut next) = encode(head, *time, None, event)?;
            let len = active.len + (buffer.len() + line.len()) as u64;
            if len > self.limits.file_size && head.seq > active.first {
                self.put(&mut active, &buffer, head)?;
                *written = i;
                buffer.clear();
                active = self.rotate(active)?;
                (line, next) = encode(self.head, *time, None, event)?;
            }
            buffer.extend_from_slice(&line);
            head = next;
        }
        self.put(&mut active, &buffer, head)?;
        *written = events.len();
        self.active = Some(active);
        Ok(())
    }

    /// Appends whole lines, all of them or none; `head` is the last one's.
    fn put(&mut self, active: &mut Active, lines: &[u8], head: Head) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        if let Err(error) = (&*active.file).write_all(lines) {
            // A full disk takes a part. If that cannot be undone, it will be found and marked.
            let _ = active.file.set_len(active.len);
            return Err(error);
        }
        active.len += lines.len() as u64;
        self.head = head;
        self.unsynced.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// The file as this process left it, or as others did.
    fn opened(&mut self) -> io::Result<Active> {
        let path = self.home.path(ACTIVE);
        match self.active.take() {
            Some(active) if active.is_at(&path)? => Ok(active),
            _ => self.open(&path),
        }
    }

    /// Opens the file, marks what is not whole at its end, and begins it if it is new.
    fn open(&mut self, path: &Path) -> io::Result<Active> {
        let found = self.find(path)?;
        let last = match found.last {
            Some(last) => Some(last.head),
            None => self.last_of_full_files()?,
        };
        match last {
            Some(last) if last.seq > self.head.seq => self.head = last,
            _ if last.unwrap_or(Head::NONE) == self.head => {}
            // Entries that this process has seen are gone or changed. The chain goes on
            // from what they were, so that the gap shows.
            _ => tracing::error!("the audit log was changed by somebody else"),
        }
        self.begin(found)
    }

    /// Writes what has to stand before further entries.
    fn begin(&mut self, found: Found) -> io::Result<Active> {
        let whole = found.last.map_or(0, |last| last.end);
        let ends_line = found.last.is_none_or(|last| last.terminated);
        let torn = (found.len > whole).then(|| Torn::find(&found, whole)).transpose()?;
        let terminated = torn.as_ref().map_or(ends_line, |torn| torn.terminated);

        let mut lines = if terminated { Vec::new() } else { vec![b'\n'] };
        let mut head = self.head;
        if found.last.is_none() || torn.is_some() {
            let event = match (found.last, head.seq) {
                (Some(_), _) => RECOVERED,
                (None, 0) => STARTED,
                (None, _) => CONTINUED,
            };
            let mut event = AuditEvent { event, ..AuditEvent::default() };
            if let Some(reason) = found.set_aside.or_else(|| torn.as_ref().map(Torn::reason)) {
                event = event.because(reason);
            }
            let hash = torn.map(|torn| torn.hash);
            let (line, next) = encode(head, OffsetDateTime::now_utc(), hash, &event)?;
            lines.extend_from_slice(&line);
            head = next;
        }
        let first = found.first.unwrap_or(head.seq);
        let mut active = Active { file: found.file, len: found.len, first };
        self.put(&mut active, &lines, head)?;
        Ok(active)
    }

    fn find(&self, path: &Path) -> io::Result<Found> {
        let file = Arc::new(open_to_append(path)?);
        let len = file.metadata()?.len();
        let part = Part { name: ACTIVE.into(), file: file.clone(), len };
        let (first, last) = (files::first_entry(&part)?, files::last_entry(&part)?);
        if last.is_none() && is_unchained(&part)? {
            let set_aside = Some(self.set_aside(path, &part)?);
            let file = Arc::new(open_to_append(path)?);
            return Ok(Found { file, len: 0, last: None, first: None, set_aside });
        }
        Ok(Found { file, len, last, first, set_aside: None })
    }

    /// The log of a version that kept no chain makes room; the new one names its hash.
    fn set_aside(&self, path: &Path, part: &Part) -> io::Result<String> {
        let hash = hex::encode(files::hash_of(&part.file, 0, part.len)?);
        let free = |name: &String| !self.home.path(name).exists();
        let numbered = (1_u32..).map(|i| format!("{UNCHAINED}.{i}"));
        let name = std::iter::once(UNCHAINED.to_owned()).chain(numbered).find(free);
        let name = name.unwrap_or_default();
        fs::rename(path, self.home.path(&name))?;
        Ok(format!("older entries, which have no chain, are in {name} (SHA-256 {hash})"))
    }

    fn last_of_full_files(&self) -> io::Result<Option<Head>> {
        for first in files::full_files(self.home.root())?.into_iter().rev() {
            let name = files::full_name(first);
            let file = Arc::new(File::open(self.home.path(&name))?);
            let len = file.metadata()?.len();
            if let Some(last) = files::last_entry(&Part { name, file, len })? {
                return Ok(Some(last.head));
            }
        }
        Ok(None)
    }

    /// Gives the full file its name, begins the next one and drops the oldest.
    fn rotate(&mut self, full: Active) -> io::Result<Active> {
        full.file.sync_data()?;
        let path = self.home.path(ACTIVE);
        let to = self.home.path(&files::full_name(full.first));
        if to.exists() {
            // Somebody put it there. Rather one long file than an entry less.
            tracing::error!(file = %to.display(), "in the way of the audit log's rotation");
            self.limits.file_size = u64::MAX;
            return Ok(full);
        }
        fs::rename(&path, to)?;
        let active = self.open(&path)?;
        File::open(self.home.root())?.sync_all()?;
        let names = files::full_files(self.home.root())?;
        let surplus = names.len().saturating_sub(self.limits.keep.get());
        for first in names.into_iter().take(surplus) {
            fs::remove_file(self.home.path(&files::full_name(first)))?;
        }
        Ok(active)
    }
}

impl Active {
    /// Whether the file still has this name and nobody else has written to it.
    fn is_at(&self, path: &Path) -> io::Result<bool> {
        let id = |file: &Metadata| (file.dev(), file.ino());
        match fs::metadata(path) {
            Ok(now) => Ok(id(&now) == id(&self.file.metadata()?) && now.len() == self.len),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Bytes after the last entry that are no entry: a process died while it wrote.
struct Torn {
    hash: Hash,
    len: u64,
    terminated: bool,
}

impl Torn {
    fn find(found: &Found, start: u64) -> io::Result<Self> {
        let mut last = [0];
        let mut tail = files::Stretch::new(found.file.clone(), found.len - 1, found.len);
        tail.read_exact(&mut last)?;
        let terminated = last == *b"\n";
        let end = found.len - u64::from(terminated);
        Ok(Self { hash: files::hash_of(&found.file, start, end)?, len: end - start, terminated })
    }

    fn reason(&self) -> String {
        format!("{} bytes before this line are of an entry that was not written whole", self.len)
    }
}

fn open_to_append(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)
}

/// Whether the file is a log of events without a chain.
fn is_unchained(part: &Part) -> io::Result<bool> {
    let mut lines = part.lines(0);
    let Some(piece) = lines.read()? else { return Ok(false) };
    if !piece.terminated || lines.text().len() > MAX_LINE {
        return Ok(false);
    }
    let Ok(Value::Object(line)) = serde_json::from_slice(lines.text()) else { return Ok(false) };
    Ok(line.contains_key("time") && line.contains_key("event") && !line.contains_key("prev"))
}
