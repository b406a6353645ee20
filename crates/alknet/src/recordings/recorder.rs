//! Records the sessions that the configuration names.

use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    io::{self, Write as _},
    sync::{Arc, Condvar, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use alknet_core::{Audit, AuditEvent, BoxFuture};
use alknet_host::{End, Event, RecordError, Recorder, Recording, Session, Sink};
use time::OffsetDateTime;
use tokio::time::timeout;

use super::{
    RECORDED,
    cast::{Encoder, Header},
    folder::{Folder, Holdings, Limits},
};
use crate::home::{Home, HomeError};

/// How long the beginning of a recording may wait for the disk.
const PATIENCE: Duration = Duration::from_secs(10);
/// Why a session is refused that would be one too many.
const FULL: &str = "the recordings of this identity fill what there is for them";
/// Why a session ends that shows too much.
const LONG: &str = "it is as long as one may be";
/// How much is gathered before it is written.
const GATHERED: usize = 256 * 1024;

/// Who is recorded, and what is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Everybody.
    pub(crate) all: bool,
    /// Identities, by name or id.
    pub(crate) who: BTreeSet<String>,
    /// Accounts of the machine, whoever uses them.
    pub(crate) accounts: BTreeSet<String>,
    /// Also what they type, passwords included.
    pub(crate) input: bool,
    pub(crate) limits: Limits,
}

impl Rules {
    fn apply(&self, session: &Session) -> bool {
        let (id, name) = (&session.identity.id, &session.identity.name);
        self.all
            || self.who.contains(id)
            || self.who.contains(name)
            || self.accounts.contains(&session.account)
    }
}

/// The recordings of a node. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Recordings(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    home: Home,
    audit: Audit,
    rules: RwLock<Rules>,
    /// Whose each recording is, by its id. One removes at a time.
    owners: Mutex<HashMap<String, String>>,
    live: Mutex<usize>,
    ended: Condvar,
}

impl Recordings {
    /// Ends what the last node has left, and then goes by these rules. No other node may
    /// serve the folder. Blocks for the disk.
    pub(crate) fn open(home: &Home, audit: Audit, rules: Rules) -> Result<Self, HomeError> {
        let folder = Folder::of(home);
        let failed = |source| HomeError::File { path: home.path("recordings"), source };
        folder.recover().map_err(failed)?.into_iter().for_each(|event| audit.record(event));
        let inner = Inner {
            home: home.clone(),
            audit,
            rules: RwLock::new(rules),
            owners: Mutex::default(),
            live: Mutex::new(0),
            ended: Condvar::new(),
        };
        let recordings = Self(Arc::new(inner));
        recordings.prune(&folder);
        Ok(recordings)
    }

    /// Goes by other rules from now on. Sessions that run go on as they began.
    pub(crate) fn set(&self, rules: Rules) {
        *self.0.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    fn rules(&self) -> Rules {
        self.0.rules.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until no recording is being written, but not for ever. Blocks.
    pub(crate) fn settle(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut live = self.0.live.lock().unwrap_or_else(PoisonError::into_inner);
        while *live > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                tracing::warn!("{live} recordings are left for the next start to end");
                return;
            }
            live = self.0.ended.wait_timeout(live, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What there is then. Where it fails that is nobody's fault who begins a session.
    fn prune(&self, folder: &Folder) -> Holdings {
        let mut owners = self.0.owners.lock().unwrap_or_else(PoisonError::into_inner);
        match folder.prune(self.rules().limits, &mut owners) {
            Ok((removed, holdings)) => {
                removed.into_iter().for_each(|event| self.0.audit.record(event));
                holdings
            }
            Err(error) => {
                tracing::warn!(%error, "old recordings could not be removed");
                Holdings::default()
            }
        }
    }

    /// Blocks for the disk.
    fn create(&self, session: &Session, input: bool) -> Result<Recording, RecordError> {
        let folder = Folder::make(&self.0.home).map_err(RecordError::new)?;
        let (limits, identity) = (self.rules().limits, &session.identity.id);
        if self.prune(&folder).is_filled_by(identity, limits) {
            return Err(RecordError::new(FULL));
        }
        let now = OffsetDateTime::now_utc();
        let (id, file) = folder.create(now).map_err(RecordError::new)?;
        let place = Place { folder: folder.clone(), id: id.clone(), file, most: limits.of_one() };
        let cast = Cast::new(self.clone(), place, session, now);
        let recording = cast.and_then(|cast| Recording::start(cast, input));
        recording.map_err(|error| {
            folder.discard(&id);
            RecordError::new(error)
        })
    }
}

impl Recorder for Recordings {
    fn begin(&self, session: Session) -> BoxFuture<'_, Result<Option<Recording>, RecordError>> {
        Box::pin(async move {
            let rules = self.rules();
            if !rules.apply(&session) {
                return Ok(None);
            }
            let recordings = self.clone();
            let create = move || recordings.create(&session, rules.input);
            match timeout(PATIENCE, tokio::task::spawn_blocking(create)).await {
                Ok(Ok(created)) => created.map(Some),
                Ok(Err(error)) => Err(RecordError::new(error)),
                Err(_) => Err(RecordError::new("the disk does not answer")),
            }
        })
    }
}

/// Counts a recording as live for as long as it is there.
#[derive(Debug)]
struct Live(Recordings);

impl Live {
    fn new(recordings: Recordings) -> Self {
        *recordings.0.live.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Self(recordings)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        *self.0.0.live.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.0.ended.notify_all();
    }
}

/// Where a recording goes.
struct Place {
    folder: Folder,
    id: String,
    file: File,
    /// How long it may become, in bytes.
    most: u64,
}

/// A file that is being written.
struct Cast {
    live: Live,
    place: Place,
    encoder: Encoder,
    hasher: blake3::Hasher,
    /// What of the file is whole lines.
    bytes: u64,
    /// What the audit log says of it.
    event: AuditEvent,
}

impl Cast {
    fn new(
        recordings: Recordings,
        place: Place,
        session: &Session,
        now: OffsetDateTime,
    ) -> io::Result<Self> {
        let event = AuditEvent {
            event: RECORDED,
            identity: Some(session.identity.id.clone()),
            name: Some(session.identity.name.clone()),
            account: Some(session.account.clone()),
            alpn: Some(session.alpn.clone()),
            peer: session.peer,
            file: Some(place.id.clone()),
            ..AuditEvent::default()
        };
        let mut cast = Self {
            live: Live::new(recordings),
            place,
            encoder: Encoder::new(&Header::new(session, now.unix_timestamp()))?,
            hasher: blake3::Hasher::new(),
            bytes: 0,
            event,
        };
        // A disk that is full already is noticed before the program starts.
        cast.flush()?;
        Ok(cast)
    }

    /// What the end adds to the file.
    fn close(&mut self, end: &End) -> io::Result<()> {
        let written = self.encoder.end(end.after).and_then(|()| self.flush());
        // Part of a line is nothing.
        self.place.file.set_len(self.bytes)?;
        self.place.file.sync_all()?;
        written
    }
}

impl Sink for Cast {
    fn event(&mut self, at: Duration, event: Event<'_>) -> io::Result<()> {
        if self.bytes + self.encoder.waiting() as u64 >= self.place.most {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, LONG));
        }
        self.encoder.event(at, event)?;
        if self.encoder.waiting() >= GATHERED { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        let lines = self.encoder.take();
        self.place.file.write_all(&lines)?;
        self.hasher.update(&lines);
        self.bytes += lines.len() as u64;
        Ok(())
    }

    fn finish(mut self: Box<Self>, end: End) {
        let closed = self.close(&end);
        let mut event = std::mem::take(&mut self.event);
        event.bytes = Some(self.bytes);
        event.blake3 = Some(self.hasher.finalize().to_hex().to_string());
        event.duration_ms = u64::try_from(end.after.as_millis()).ok();
        let errors = [end.error, closed.err()];
        event.reason = errors.into_iter().flatten().next().map(|error| error.to_string());
        if let Some(reason) = &event.reason {
            tracing::error!(reason, id = self.place.id, "a recording is not whole");
        }
        let recordings = &self.live.0;
        // First: what has its name and no entry would stay unknown, and what has an entry
        // and not its name gets that at the next start.
        recordings.0.audit.record(event);
        if let Err(error) = self.place.folder.finish(&self.place.id) {
            tracing::error!(%error, id = self.place.id, "a recording has not got its name");
        }
        recordings.prune(&self.place.folder);
    }
}
