//! Archives.

mod attributes;
mod format;

use std::{
    fmt,
    io::{self, Write},
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use gix::{
    ObjectId,
    bstr::{BString, ByteSlice as _},
    objs::{
        Kind, TreeRefIter,
        tree::{EntryKind, EntryMode},
    },
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::{
    runtime::Handle,
    sync::mpsc::{self, error::SendTimeoutError},
    task::JoinHandle,
};

use super::{
    BrowseError, Revision, TreePath,
    bounds::{Brake, Stop},
    opened::Opened,
    path::MAX_DEPTH,
};
use attributes::Attributes;
use format::{Kept, Writer};

/// How large a piece of an archive is, in bytes, and how many wait to be taken.
const CHUNK: usize = 64 * 1024;
const CHUNKS: usize = 4;
/// The most entries of an archive, and how many bytes their paths have at most: each and all
/// together, as zip has them once more at its end.
const MAX_ENTRIES: usize = 200_000;
const MAX_PATH: usize = 4096;
const MAX_PATHS: usize = 32 * 1024 * 1024;
/// The longest prefix, in bytes.
const MAX_PREFIX: usize = 200;
/// How much of an id is in the name of an archive.
const DIGITS: usize = 10;

/// Which archive is asked for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ArchiveQuery {
    /// Of which revision.
    pub revision: Revision,
    /// Only what is in this folder, as if it were the root.
    pub path: TreePath,
    /// What all names begin with.
    pub prefix: Prefix,
    /// How it is packed.
    pub format: Format,
}

impl ArchiveQuery {
    /// The whole of a revision.
    pub fn new(revision: Revision, format: Format) -> Self {
        Self { revision, path: TreePath::default(), prefix: Prefix::default(), format }
    }
}

/// How an archive is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub enum Format {
    /// tar (POSIX ustar, with GNU's long names).
    #[serde(rename = "tar")]
    Tar,
    /// tar, packed by gzip.
    #[serde(rename = "tar.gz")]
    TarGz,
    /// zip.
    #[serde(rename = "zip")]
    Zip,
}

impl Format {
    /// What the name of such a file ends in, without the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Tar => "tar",
            Self::TarGz => "tar.gz",
            Self::Zip => "zip",
        }
    }

    /// The media type of such a file.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Tar => "application/x-tar",
            Self::TarGz => "application/gzip",
            Self::Zip => "application/zip",
        }
    }
}

/// What all names in an archive begin with: nothing, or folders with a slash at the end, such
/// as `notes-1.0/`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prefix(String);

/// The text is no prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a prefix is a relative path of {MAX_PREFIX} bytes at most, such as notes-1.0/")]
pub struct InvalidPrefix;

impl FromStr for Prefix {
    type Err = InvalidPrefix;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let folders = text.strip_suffix('/').unwrap_or(text);
        let odd = |c: char| c.is_control() || c == '\\' || c == ':';
        if text.len() > MAX_PREFIX || folders.contains(odd) || folders.starts_with('-') {
            return Err(InvalidPrefix);
        }
        let path = folders.parse::<TreePath>().map_err(|_| InvalidPrefix)?;
        match path.is_root() {
            true if text.is_empty() => Ok(Self::default()),
            true => Err(InvalidPrefix),
            false => Ok(Self(format!("{path}/"))),
        }
    }
}

/// An archive that is being made. Dropping it ends that.
#[derive(Debug)]
pub struct Archive {
    name: String,
    chunks: mpsc::Receiver<Bytes>,
    working: Option<JoinHandle<Result<(), BrowseError>>>,
    _stop: Stop,
}

impl Archive {
    pub(super) fn new(
        name: String,
        chunks: mpsc::Receiver<Bytes>,
        working: JoinHandle<Result<(), BrowseError>>,
        stop: Stop,
    ) -> Self {
        Self { name, chunks, working: Some(working), _stop: stop }
    }

    /// What the file may be called: `notes-0a1b2c3d4e.tar.gz`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The next piece; `None` behind the last. What ends in an error is not whole. Cancel
    /// safe.
    pub async fn next(&mut self) -> Result<Option<Bytes>, BrowseError> {
        if let Some(chunk) = self.chunks.recv().await {
            return Ok(Some(chunk));
        }
        let Some(working) = &mut self.working else { return Ok(None) };
        let done = working.await.map_err(BrowseError::Failed);
        self.working = None;
        done??;
        Ok(None)
    }
}

/// The pieces on their way.
pub(super) fn channel() -> (mpsc::Sender<Bytes>, mpsc::Receiver<Bytes>) {
    mpsc::channel(CHUNKS)
}

/// An archive to be made.
pub(super) struct Job {
    opened: Opened,
    name: String,
    prefix: Prefix,
    format: Format,
    commit: ObjectId,
    root: ObjectId,
    time: i64,
}

impl Job {
    pub(super) fn new(opened: Opened, query: &ArchiveQuery) -> Result<Self, BrowseError> {
        let commit = opened.resolve(&query.revision)?;
        let root = opened.folder(commit, &query.path)?;
        let time = opened.node(commit)?.time;
        let last = opened.repository.name.as_str().rsplit('/').next().unwrap_or_default();
        let digits = commit.to_hex_with_len(DIGITS);
        let name = format!("{last}-{digits}.{}", query.format.extension());
        let (prefix, format) = (query.prefix.clone(), query.format);
        Ok(Self { opened, name, prefix, format, commit, root, time })
    }

    /// What the file may be called.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Writes all of it. Blocks for the disk and for whoever takes it.
    pub(super) fn write(self, chunks: mpsc::Sender<Bytes>) -> Result<(), BrowseError> {
        let brake = self.opened.brake.clone();
        let stall = self.opened.shared.limits.stall;
        let buffer = Vec::with_capacity(CHUNK);
        let output = Output { chunks, brake, stall, buffer, cut: Cut::default() };
        let mut writer = Writer::new(self.format, output, self.time, self.commit);
        match self.all(&mut writer) {
            Ok(()) => writer.finish().map_err(|error| self.written(error)),
            Err(error) => {
                writer.cut();
                Err(error)
            }
        }
    }

    fn all(&self, writer: &mut Writer) -> Result<(), BrowseError> {
        let attributes = Attributes::new();
        let mut files = Files { job: self, writer, attributes, entries: 0, paths: 0 };
        if !self.prefix.0.is_empty() {
            let put = files.writer.put(self.prefix.0.as_bytes(), &Kept::Folder);
            put.map_err(|error| self.written(error))?;
        }
        files.folders()
    }

    /// Why something could not be written: mostly as nobody takes it any more.
    fn written(&self, error: io::Error) -> BrowseError {
        match self.opened.brake.check() {
            Err(braked) => braked,
            Ok(()) => match error.kind() {
                io::ErrorKind::BrokenPipe => BrowseError::Interrupted,
                io::ErrorKind::TimedOut => BrowseError::Late,
                _ => BrowseError::Archive(error),
            },
        }
    }
}

/// A folder whose entries are being written.
struct Folder {
    entries: std::vec::IntoIter<(BString, EntryMode, ObjectId)>,
    /// How long the path of the folder is, with its slash.
    path: usize,
    /// Whether it has attributes of its own.
    has_attributes: bool,
}

/// The files of an archive, on their way into it.
struct Files<'a> {
    job: &'a Job,
    writer: &'a mut Writer,
    attributes: Attributes,
    /// How many entries were found so far, and how many bytes their paths have.
    entries: usize,
    paths: usize,
}

impl Files<'_> {
    /// Writes folder after folder, depth first.
    fn folders(&mut self) -> Result<(), BrowseError> {
        let mut path = BString::default();
        let mut within = vec![self.folder(self.job.root, &path)?];
        while let Some(folder) = within.last_mut() {
            path.truncate(folder.path);
            let Some((name, mode, id)) = folder.entries.next() else {
                if folder.has_attributes {
                    self.attributes.leave();
                }
                within.pop();
                continue;
            };
            path.extend_from_slice(&name);
            let brake = &self.job.opened.brake;
            brake.check()?;
            if self.attributes.is_ignored(brake, path.as_ref(), mode.is_tree())? {
                continue;
            }
            if mode.is_tree() {
                path.push(b'/');
                self.put(&path, &Kept::Folder)?;
                if within.len() >= MAX_DEPTH {
                    return Err(BrowseError::Deep(MAX_DEPTH));
                }
                within.push(self.folder(id, &path)?);
            } else {
                self.file(&mut path, mode, id)?;
            }
        }
        Ok(())
    }

    /// Counts an entry whose path is so long, before it takes memory.
    fn count(&mut self, path: usize) -> Result<(), BrowseError> {
        self.entries += 1;
        self.paths += self.job.prefix.0.len() + path;
        if self.entries > MAX_ENTRIES || self.paths > MAX_PATHS {
            return Err(BrowseError::ManyEntries(MAX_ENTRIES));
        }
        match path > MAX_PATH {
            true => Err(BrowseError::Deep(MAX_DEPTH)),
            false => Ok(()),
        }
    }

    /// Looks into a folder, whose attributes hold until it is left.
    fn folder(&mut self, id: ObjectId, path: &BString) -> Result<Folder, BrowseError> {
        let job = self.job;
        let opened = &job.opened;
        let mut buffer = Vec::new();
        let data = opened.find(id, Kind::Tree, &mut buffer)?;
        let mut entries = Vec::new();
        let mut attributes = None;
        for entry in TreeRefIter::from_bytes(data, opened.hash()) {
            let entry = entry.map_err(|error| opened.failed(error))?;
            if !is_name(entry.filename) {
                return Err(BrowseError::OddName(entry.filename.to_str_lossy().into_owned()));
            }
            self.count(path.len() + entry.filename.len())?;
            if entry.filename == ".gitattributes" && entry.mode.is_blob() {
                attributes = Some(entry.oid.to_owned());
            }
            entries.push((entry.filename.to_owned(), entry.mode, entry.oid.to_owned()));
        }
        if let Some(id) = attributes {
            self.attributes.enter(opened, path.as_ref(), id)?;
        }
        let has_attributes = attributes.is_some();
        Ok(Folder { entries: entries.into_iter(), path: path.len(), has_attributes })
    }

    fn file(
        &mut self,
        path: &mut BString,
        mode: EntryMode,
        id: ObjectId,
    ) -> Result<(), BrowseError> {
        let opened = &self.job.opened;
        let mut buffer = Vec::new();
        match mode.kind() {
            // A submodule is elsewhere: its place is an empty folder.
            EntryKind::Commit | EntryKind::Tree => {
                path.push(b'/');
                return self.put(path, &Kept::Folder);
            }
            EntryKind::Blob | EntryKind::BlobExecutable | EntryKind::Link => {}
        }
        let (size, limit) = (opened.header(id)?.size(), opened.largest() as u64);
        if size > limit {
            return Err(BrowseError::TooLarge { size, limit });
        }
        let data = opened.find(id, Kind::Blob, &mut buffer)?;
        let kept = match mode.kind() {
            EntryKind::Link => Kept::Link(data),
            kind => Kept::File { data, executable: kind == EntryKind::BlobExecutable },
        };
        self.put(path, &kept)
    }

    fn put(&mut self, path: &BString, kept: &Kept<'_>) -> Result<(), BrowseError> {
        let mut full = self.job.prefix.0.clone().into_bytes();
        full.extend_from_slice(path);
        self.writer.put(&full, kept).map_err(|error| self.job.written(error))
    }
}

/// Whether something can be called so in a folder: what git refuses to check out leads out of
/// the folder that somebody unpacks to, or into their own repository.
fn is_name(name: &[u8]) -> bool {
    let special = matches!(name, b"" | b"." | b"..") || name.eq_ignore_ascii_case(b".git");
    !special && !name.contains(&b'/') && !name.contains(&0)
}

/// Where the bytes of an archive go.
pub(super) struct Output {
    chunks: mpsc::Sender<Bytes>,
    brake: Brake,
    /// How long a piece may wait until it is taken.
    stall: Duration,
    buffer: Vec<u8>,
    cut: Cut,
}

/// Set when an archive is given up: what is written from then on is not to be taken for its
/// end.
type Cut = Arc<AtomicBool>;

impl Output {
    fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    fn send(&mut self) -> io::Result<()> {
        self.brake.check().map_err(io::Error::other)?;
        let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        let sent = self.chunks.send_timeout(chunk.into(), self.stall);
        Handle::current().block_on(sent).map_err(|error| match error {
            SendTimeoutError::Timeout(_) => io::ErrorKind::TimedOut.into(),
            SendTimeoutError::Closed(_) => io::ErrorKind::BrokenPipe.into(),
        })
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_cut() {
            return Ok(bytes.len());
        }
        let room = CHUNK.saturating_sub(self.buffer.len());
        let part = bytes.get(..room).unwrap_or(bytes);
        self.buffer.extend_from_slice(part);
        if self.buffer.len() >= CHUNK {
            self.send()?;
        }
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.is_cut() || self.buffer.is_empty() {
            true => Ok(()),
            false => self.send(),
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_leads_nowhere_else() {
        for (text, prefix) in [("", ""), ("a", "a/"), ("a/", "a/"), ("a-1.0/b/", "a-1.0/b/")] {
            assert_eq!(text.parse::<Prefix>().unwrap().to_string(), prefix, "{text:?}");
        }
        for bad in [
            "/", "/a", "../", "a/../b", ".", "./a", "a//b", "a//", "-a", "a\\b", "c:", "a\n",
            "\u{1b}[m", "a\0",
        ] {
            assert_eq!(bad.parse::<Prefix>(), Err(InvalidPrefix), "{bad:?}");
        }
        assert!("a".repeat(201).parse::<Prefix>().is_err());
    }

    #[test]
    fn names_stay_in_their_folder() {
        for good in ["a", "...", ".gitignore", "git", "-x", "a\\b"] {
            assert!(is_name(good.as_bytes()), "{good}");
        }
        for bad in ["", ".", "..", ".git", ".GIT", "a/b", "/", "a\0"] {
            assert!(!is_name(bad.as_bytes()), "{bad:?}");
        }
    }
}
