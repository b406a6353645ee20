//! The files of recordings: their names, what is in them, and which are kept.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Read, Seek as _, SeekFrom},
    num::NonZeroUsize,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use alknet_core::AuditEvent;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{
    RECORDED, REMOVED,
    cast::{About, Reader},
};
use crate::{
    audit::Tail,
    home::{Home, HomeError},
};

/// Where they are in the state folder.
const FOLDER: &str = "recordings";
/// What the name of a recording ends with.
const ENDING: &str = ".cast";
/// What the name of one ends with that is being written.
const PART: &str = ".cast.part";

/// How many of the largest recordings the limit of all is good for.
const PARTS: u64 = 16;
/// What one may have in any case, in bytes.
const LEAST: u64 = 1 << 20;
/// How long nothing but age removes a recording: nobody gets rid of what they have just done.
const YOUNG: Duration = Duration::from_secs(24 * 60 * 60);

/// The folder of the recordings. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    root: PathBuf,
}

/// Which recordings are kept. One that is being written always is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// How many.
    pub(crate) keep: NonZeroUsize,
    /// How long after their end; `None`: for ever.
    pub(crate) max_age: Option<Duration>,
    /// How many bytes together.
    pub(crate) max_size: u64,
}

impl Limits {
    /// How many bytes one may have.
    pub(super) fn of_one(&self) -> u64 {
        (self.max_size / PARTS).max(LEAST)
    }
}

/// A recording as the list shows it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Listed {
    /// What it is called in commands.
    pub(crate) id: String,
    /// When it began, in seconds since 1970.
    pub(crate) began: i64,
    #[serde(flatten)]
    pub(crate) about: About,
    /// How long it goes on, in seconds.
    pub(crate) seconds: f64,
    /// The length of the file, in bytes.
    pub(crate) bytes: u64,
    /// The BLAKE3 hash of the file, in hexadecimal.
    pub(crate) blake3: String,
    pub(crate) state: State,
}

/// Whether a recording is what the audit log says it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// It is.
    Verified,
    /// It has been changed.
    Changed,
    /// The log does not name it: it may be older than what the log keeps.
    Unknown,
    /// It is still being written.
    Live,
}

impl State {
    /// In a word.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Changed => "CHANGED",
            Self::Unknown => "unknown",
            Self::Live => "live",
        }
    }
}

/// What is in a file.
#[derive(Debug)]
struct Summary {
    began: i64,
    about: About,
    length: Duration,
    bytes: u64,
    blake3: String,
}

/// A recording and what the limits go by.
struct Kept {
    name: String,
    /// Whose it is.
    owner: String,
    bytes: u64,
    ended: SystemTime,
    /// It is being written.
    live: bool,
}

impl Folder {
    /// The one of a state folder. It need not be there.
    pub(crate) fn of(home: &Home) -> Self {
        Self { root: home.path(FOLDER) }
    }

    /// Makes the folder, for its owner alone.
    pub(super) fn make(home: &Home) -> Result<Self, HomeError> {
        Ok(Self { root: home.folder(FOLDER)? })
    }

    /// Where the recording with this id is, finished or not.
    pub(crate) fn path(&self, id: &str) -> Option<PathBuf> {
        // Ids are what this program makes: nothing in one leads elsewhere.
        let plain =
            !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let paths = [ENDING, PART].map(|ending| self.root.join(format!("{id}{ending}")));
        paths.into_iter().find(|path| plain && path.is_file())
    }

    /// A new file that nobody else can read, and its id.
    pub(super) fn create(&self, now: OffsetDateTime) -> io::Result<(String, File)> {
        let format =
            time::macros::format_description!("[year][month][day]T[hour][minute][second]Z");
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let id =
            format!("{}-{}", now.format(&format).map_err(io::Error::other)?, hex::encode(random));
        let path = self.root.join(format!("{id}{PART}"));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        Ok((id, file))
    }

    /// Gives a recording that is whole its name.
    pub(super) fn finish(&self, id: &str) -> io::Result<()> {
        let path = |ending| self.root.join(format!("{id}{ending}"));
        fs::rename(path(PART), path(ENDING))?;
        File::open(&self.root)?.sync_all()
    }

    /// Removes what was not even begun.
    pub(super) fn discard(&self, id: &str) {
        let path = self.root.join(format!("{id}{PART}"));
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(%error, path = %path.display(), "an empty recording stays");
        }
    }

    /// Every recording, the oldest first, checked against the audit log. Reads all of them.
    pub(crate) fn list(&self, home: &Home) -> Result<Vec<Listed>, HomeError> {
        let hashes = hashes(home)?;
        let mut all = Vec::new();
        for name in self.names().map_err(|source| self.failed(source))? {
            let (id, live) = match name.strip_suffix(PART) {
                Some(id) => (id, true),
                None => (name.trim_end_matches(ENDING), false),
            };
            // It may have come to its end, or been removed, in the meantime.
            let Some(path) = self.path(id) else { continue };
            let summary = match summary(&path) {
                Ok(summary) => summary,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(HomeError::File { path, source }),
            };
            let state = state(live, &summary, hashes.get(id).map(String::as_str));
            all.push(listed(id, summary, state));
        }
        Ok(all)
    }

    /// One recording.
    pub(crate) fn find(&self, home: &Home, id: &str) -> Result<Option<Listed>, HomeError> {
        let Some(path) = self.path(id) else { return Ok(None) };
        let live = path.as_os_str().as_encoded_bytes().ends_with(PART.as_bytes());
        let summary = summary(&path).map_err(|source| HomeError::File { path, source })?;
        let state = state(live, &summary, hashes(home)?.get(id).map(String::as_str));
        Ok(Some(listed(id, summary, state)))
    }

    /// Ends what a node that was killed has left, and says so: an entry may be there twice, and
    /// the first is the one that counts. No node may be writing.
    pub(super) fn recover(&self) -> io::Result<Vec<AuditEvent>> {
        let mut events = Vec::new();
        for name in self.names()? {
            let Some(id) = name.strip_suffix(PART) else { continue };
            let path = self.root.join(&name);
            drop_torn_line(&path)?;
            let summary = summary(&path)?;
            self.finish(id)?;
            events.push(recorded(id, &summary).because("the node ended before the session"));
        }
        Ok(events)
    }

    /// Removes what is more than the limits allow, of whoever has the most of it, the oldest
    /// first. What is young stays all the same; the rest is told. One at a time: `owners` is
    /// whose each file is, as far as that was looked at before.
    pub(super) fn prune(
        &self,
        limits: Limits,
        owners: &mut HashMap<String, String>,
    ) -> io::Result<(Vec<AuditEvent>, Holdings)> {
        let mut kept = Vec::new();
        for name in self.names()? {
            let path = self.root.join(&name);
            // One in progress gets another name at its end.
            let Ok(metadata) = fs::metadata(&path) else { continue };
            let id = name.trim_end_matches(PART).trim_end_matches(ENDING).to_owned();
            let owner = owners.entry(id).or_insert_with(|| owner(&path)).clone();
            let live = name.ends_with(PART);
            kept.push(Kept {
                name,
                owner,
                bytes: metadata.len(),
                ended: metadata.modified()?,
                live,
            });
        }
        let mut events = Vec::new();
        let (gone, holdings) = surplus(kept, limits, SystemTime::now());
        for name in gone {
            match fs::remove_file(self.root.join(&name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let id = name.trim_end_matches(ENDING).to_owned();
            owners.remove(&id);
            events.push(AuditEvent { event: REMOVED, file: Some(id), ..AuditEvent::default() });
        }
        Ok((events, holdings))
    }

    /// The files, in the order of their beginnings.
    fn names(&self) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry?.file_name().into_string().unwrap_or_default();
            if name.ends_with(ENDING) || name.ends_with(PART) {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn failed(&self, source: io::Error) -> HomeError {
        HomeError::File { path: self.root.clone(), source }
    }
}

fn listed(id: &str, summary: Summary, state: State) -> Listed {
    let Summary { began, about, length, bytes, blake3 } = summary;
    Listed { id: id.into(), began, about, seconds: length.as_secs_f64(), bytes, blake3, state }
}

fn state(live: bool, summary: &Summary, logged: Option<&str>) -> State {
    match logged {
        _ if live => State::Live,
        None => State::Unknown,
        Some(hash) if hash == summary.blake3 => State::Verified,
        Some(_) => State::Changed,
    }
}

/// The entry of the audit log about a finished recording.
fn recorded(id: &str, summary: &Summary) -> AuditEvent {
    AuditEvent {
        event: RECORDED,
        identity: Some(summary.about.identity.clone()),
        name: Some(summary.about.name.clone()),
        account: Some(summary.about.account.clone()),
        alpn: Some(summary.about.alpn.clone()),
        peer: summary.about.peer.as_ref().and_then(|peer| peer.parse().ok()),
        file: Some(id.into()),
        bytes: Some(summary.bytes),
        blake3: Some(summary.blake3.clone()),
        duration_ms: u64::try_from(summary.length.as_millis()).ok(),
        ..AuditEvent::default()
    }
}

/// Counts and hashes what is read from it.
struct Hashing<R> {
    from: R,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.hasher.update(buffer.get(..read).unwrap_or_default());
        self.bytes += read as u64;
        Ok(read)
    }
}

/// Reads a file to its end. What is no recording has a hash all the same.
fn summary(path: &Path) -> io::Result<Summary> {
    let from = File::open(path)?;
    let mut file = BufReader::new(Hashing { from, hasher: blake3::Hasher::new(), bytes: 0 });
    let (mut began, mut about, mut length) = (0, About::default(), Duration::ZERO);
    if let Ok(mut reader) = Reader::new(&mut file) {
        began = reader.header().timestamp;
        about = reader.header().alknet.clone();
        while let Ok(Some(moment)) = reader.next() {
            length = length.max(moment.at());
        }
    }
    io::copy(&mut file, &mut io::sink())?;
    let Hashing { hasher, bytes, .. } = file.into_inner();
    Ok(Summary { began, about, length, bytes, blake3: hasher.finalize().to_hex().to_string() })
}

/// The last line, if the end of the process or of the disk cut it off.
fn drop_torn_line(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut piece = [0; 4096];
    while end > 0 {
        let start = end.saturating_sub(piece.len() as u64);
        file.seek(SeekFrom::Start(start))?;
        let length = usize::try_from(end - start).unwrap_or_default();
        let read = piece.get_mut(..length).unwrap_or_default();
        file.read_exact(read)?;
        if let Some(newline) = read.iter().rposition(|byte| *byte == b'\n') {
            end = start + newline as u64 + 1;
            break;
        }
        end = start;
    }
    if end < file.metadata()?.len() {
        file.set_len(end)?;
    }
    file.sync_all()
}

/// The hash of each recording that the audit log names, by its id.
fn hashes(home: &Home) -> Result<HashMap<String, String>, HomeError> {
    #[derive(Deserialize)]
    struct Entry {
        event: String,
        file: Option<String>,
        blake3: Option<String>,
    }
    let mut log = Tail::open_behind(home, 0)?;
    let mut hashes = HashMap::new();
    while let Some(line) = log.next_line()? {
        let Ok(Entry { event, file, blake3 }) = serde_json::from_slice(&line) else { continue };
        if event == RECORDED
            && let (Some(file), Some(blake3)) = (file, blake3)
        {
            // The first entry is the one that was made at its end.
            hashes.entry(file).or_insert(blake3);
        }
    }
    Ok(hashes)
}

/// Whose a recording is, by the id of the identity.
fn owner(path: &Path) -> String {
    let header = File::open(path).and_then(|file| Reader::new(BufReader::new(file)));
    header.map(|reader| reader.header().alknet.identity.clone()).unwrap_or_default()
}

/// What there is of recordings, and how much of it is whose.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    all: Share,
    of: HashMap<String, Share>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Share {
    bytes: u64,
    count: usize,
}

impl Holdings {
    /// Whether an identity fills the folder: the limits are passed, and it has its part of
    /// them or more. Others have theirs.
    pub(super) fn is_filled_by(&self, identity: &str, limits: Limits) -> bool {
        let own = self.of.get(identity).copied().unwrap_or_default();
        let parts = self.of.len().max(1);
        let full = self.all.count > limits.keep.get() || self.all.bytes > limits.max_size;
        let much = own.count >= limits.keep.get().div_ceil(parts)
            || own.bytes >= limits.max_size / (parts as u64);
        full && much
    }

    fn add(&mut self, one: &Kept) {
        for share in [&mut self.all, self.of.entry(one.owner.clone()).or_default()] {
            share.bytes += one.bytes;
            share.count += 1;
        }
    }

    fn remove(&mut self, one: &Kept) {
        for share in [&mut self.all, self.of.entry(one.owner.clone()).or_default()] {
            share.bytes -= one.bytes;
            share.count -= 1;
        }
    }

    fn share(&self, owner: &str) -> Share {
        self.of.get(owner).copied().unwrap_or_default()
    }
}

/// The names of what goes, and what is left.
fn surplus(mut kept: Vec<Kept>, limits: Limits, now: SystemTime) -> (Vec<String>, Holdings) {
    kept.sort_by_key(|one| one.ended);
    let mut left = Holdings::default();
    kept.iter().for_each(|one| left.add(one));
    let age = |one: &Kept| now.duration_since(one.ended).unwrap_or_default();
    let mut gone = Vec::new();
    let (old, mut rest): (Vec<Kept>, Vec<Kept>) = kept
        .into_iter()
        .partition(|one| !one.live && limits.max_age.is_some_and(|most| age(one) > most));
    for one in old {
        left.remove(&one);
        gone.push(one.name);
    }
    rest.retain(|one| !one.live && age(one) >= YOUNG);
    loop {
        let many = left.all.count > limits.keep.get();
        if !many && left.all.bytes <= limits.max_size {
            return (gone, left);
        }
        let much = |one: &Kept| {
            let Share { bytes, count } = left.share(&one.owner);
            if many { count as u64 } else { bytes }
        };
        // The oldest of several that are as much.
        let Some(at) = (0..rest.len()).rev().max_by_key(|at| rest.get(*at).map(much)) else {
            return (gone, left);
        };
        let one = rest.remove(at);
        left.remove(&one);
        gone.push(one.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAYS: u64 = 24 * 60 * 60;

    fn kept(entries: &[(&str, u64, u64)], now: SystemTime) -> Vec<Kept> {
        let one = |&(name, bytes, age): &(&str, u64, u64)| Kept {
            name: name.into(),
            owner: name.split('-').next().unwrap().into(),
            bytes,
            ended: now - Duration::from_secs(age * DAYS),
            live: name.ends_with(PART),
        };
        entries.iter().map(one).collect()
    }

    fn limits(keep: usize, max_size: u64) -> Limits {
        Limits { keep: NonZeroUsize::new(keep).unwrap(), max_age: None, max_size }
    }

    #[test]
    fn the_oldest_go_first() {
        let now = SystemTime::now();
        let all = [("a-c", 10, 10), ("a-a", 10, 30), ("a-b", 10, 20)];
        for (limits, gone) in [
            (limits(9, 100), &[][..]),
            (limits(1, 100), &["a-a", "a-b"]),
            (Limits { max_age: Some(Duration::from_secs(25 * DAYS)), ..limits(9, 100) }, &["a-a"]),
            (limits(9, 25), &["a-a"]),
            (limits(9, 0), &["a-a", "a-b", "a-c"]),
        ] {
            assert_eq!(surplus(kept(&all, now), limits, now).0, gone, "{limits:?}");
        }
    }

    /// Nobody makes room for what they do by what they or others have done.
    #[test]
    fn whoever_fills_the_folder_removes_neither_what_is_young_nor_what_is_anothers() {
        let now = SystemTime::now();
        let all = [("b-1", 10, 30), ("a-1", 10, 20), ("a-2", 90, 0), ("a-3.cast.part", 90, 40)];
        for limits in [limits(9, 50), limits(1, 1000)] {
            let (gone, left) = surplus(kept(&all, now), limits, now);
            assert_eq!(gone[0], "a-1", "{limits:?}");
            assert!(!gone.iter().any(|name| name == "a-2" || name == "a-3.cast.part"));
            assert!(left.is_filled_by("a", limits));
            assert!(!left.is_filled_by("b", limits) && !left.is_filled_by("c", limits));
        }
        // What was kept against the limits goes when it is no longer young.
        let all = [("b-1", 10, 30), ("a-2", 90, 8)];
        assert_eq!(surplus(kept(&all, now), limits(9, 50), now).0, ["a-2"]);
    }

    #[test]
    fn an_id_leads_nowhere_else() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder { root: root.path().join("recordings") };
        fs::create_dir(&folder.root).unwrap();
        fs::write(root.path().join("secret.cast"), "").unwrap();
        fs::write(folder.root.join("1-a.cast"), "").unwrap();
        assert!(folder.path("1-a").is_some());
        for id in ["../secret", "", ".", "1-a.cast", "1-b", "/etc/passwd", "1-a\0"] {
            assert_eq!(folder.path(id), None, "{id:?}");
        }
    }

    #[test]
    fn a_torn_line_is_dropped_and_no_other() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        let long = "x".repeat(10_000);
        for (text, left) in [
            (String::new(), String::new()),
            ("no line".into(), String::new()),
            ("one\ntwo\n".into(), "one\ntwo\n".into()),
            ("one\ntw".into(), "one\n".into()),
            (format!("{long}\n{long}"), format!("{long}\n")),
            (long, String::new()),
        ] {
            fs::write(&path, &text).unwrap();
            drop_torn_line(&path).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), left);
        }
    }
}
