//! Objects, named by what is in them.

use std::{
    fmt, fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use bytes::BytesMut;
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::{LfsError, at, blocking};

/// The folder of objects among the large files.
pub(super) const FOLDER: &str = "objects";
/// Where objects are while they are received.
const INCOMING: &str = "incoming";
/// How much is hashed and written at once, in bytes.
const CHUNK: usize = 256 * 1024;

/// The name of an object: the SHA-256 of its content, as 64 hexadecimal digits in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Oid(String);

/// The text names no object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an object is named by 64 hexadecimal digits in lower case")]
pub(crate) struct InvalidOid;

impl Oid {
    /// As it is written.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Oid {
    type Err = InvalidOid;

    fn from_str(text: &str) -> Result<Self, InvalidOid> {
        let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        let named = text.len() == 64 && text.bytes().all(digit);
        named.then(|| Self(text.to_owned())).ok_or(InvalidOid)
    }
}

impl fmt::Display for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The objects in one folder. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Objects(Arc<Path>);

impl Objects {
    /// Those in the folder of large files of a repository.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self(folder.into())
    }

    /// Where an object is, if it is there.
    pub(crate) fn path(&self, oid: &Oid) -> PathBuf {
        let (first, rest) = oid.0.split_at(2);
        let (second, _) = rest.split_at(2);
        self.0.join(FOLDER).join(first).join(second).join(&oid.0)
    }

    /// How many bytes an object has; `None` if it is not there. Waits for the disk.
    pub(crate) fn size_of(&self, oid: &Oid) -> Result<Option<u64>, LfsError> {
        let path = self.path(oid);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_file() => Ok(Some(found.len())),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at(&path)(error).into()),
        }
    }

    /// The same without waiting in this task.
    pub(crate) async fn size(&self, oid: &Oid) -> Result<Option<u64>, LfsError> {
        let (objects, oid) = (self.clone(), oid.clone());
        blocking(move || objects.size_of(&oid)).await
    }

    /// An object's content and size; `None` if it is not there.
    pub(crate) async fn open(&self, oid: &Oid) -> Result<Option<(fs::File, u64)>, LfsError> {
        let (objects, oid) = (self.clone(), oid.clone());
        blocking(move || {
            let Some(size) = objects.size_of(&oid)? else { return Ok(None) };
            let path = objects.path(&oid);
            Ok(Some((fs::File::open(&path).map_err(at(&path))?, size)))
        })
        .await
    }

    /// Begins to receive an object of exactly `size` bytes.
    pub(crate) async fn receive(&self, oid: &Oid, size: u64) -> Result<Incoming, LfsError> {
        let (folder, objects, oid) = (self.0.join(INCOMING), self.clone(), oid.clone());
        let writing = blocking(move || {
            fs::create_dir_all(&folder).map_err(at(&folder))?;
            let file = NamedTempFile::new_in(&folder).map_err(at(&folder))?;
            Ok(Writing { file, hash: Sha256::new() })
        });
        let writing = Some(writing.await?);
        Ok(Incoming { objects, oid, size, received: 0, buffer: BytesMut::new(), writing })
    }

    /// Removes what uploads have left behind that were cut off by a crash, while there are
    /// none. Waits for the disk.
    pub(crate) fn sweep(&self) -> io::Result<()> {
        match fs::remove_dir_all(self.0.join(INCOMING)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// How many bytes are in what is being received. Waits for the disk.
    pub(crate) fn incoming(&self) -> Result<u64, LfsError> {
        let folder = self.0.join(INCOMING);
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            entries => entries.map_err(at(&folder))?,
        };
        // One that is gone by now has its place, or none.
        let sizes = entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()));
        Ok(sizes.fold(0, u64::saturating_add))
    }
}

/// An object that is on its way here. Dropped before [`finish`](Self::finish), it leaves
/// nothing.
#[derive(Debug)]
pub(crate) struct Incoming {
    objects: Objects,
    oid: Oid,
    size: u64,
    received: u64,
    buffer: BytesMut,
    /// `None` while it is in another thread, and after a failure there.
    writing: Option<Writing>,
}

#[derive(Debug)]
struct Writing {
    file: NamedTempFile,
    hash: Sha256,
}

impl Incoming {
    /// Takes the next bytes. Not cancel safe.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), LfsError> {
        self.received = self.received.saturating_add(bytes.len() as u64);
        if self.received > self.size {
            return Err(LfsError::Size);
        }
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() < CHUNK { Ok(()) } else { self.flush().await }
    }

    async fn flush(&mut self) -> Result<(), LfsError> {
        let Some(mut writing) = self.writing.take() else { return Err(LfsError::Size) };
        let mut bytes = std::mem::take(&mut self.buffer);
        let (writing, buffer) = blocking(move || {
            writing.hash.update(&bytes);
            writing.file.write_all(&bytes)?;
            bytes.clear();
            Ok((writing, bytes))
        })
        .await?;
        (self.writing, self.buffer) = (Some(writing), buffer);
        Ok(())
    }

    /// Puts the object in its place if it is what its name says; when this is
    /// done it outlives a crash.
    pub(crate) async fn finish(mut self) -> Result<(), LfsError> {
        if self.received != self.size {
            return Err(LfsError::Size);
        }
        self.flush().await?;
        let Self { objects, oid, writing, .. } = self;
        let Some(Writing { file, hash }) = writing else { return Err(LfsError::Size) };
        blocking(move || {
            if hex::encode(hash.finalize()) != oid.as_str() {
                return Err(LfsError::Content);
            }
            file.as_file().sync_all()?;
            let path = objects.path(&oid);
            let folder = path.parent().unwrap_or(&path);
            fs::create_dir_all(folder).map_err(at(folder))?;
            file.persist(&path).map_err(|failed| at(&path)(failed.error))?;
            // The names of the folders as well: each may be new.
            for folder in path.ancestors().skip(1).take(4) {
                fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(at(folder))?;
            }
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects() -> (tempfile::TempDir, Objects) {
        let folder = tempfile::tempdir().unwrap();
        let objects = Objects::new(folder.path().join("lfs"));
        (folder, objects)
    }

    fn oid_of(content: &[u8]) -> Oid {
        hex::encode(Sha256::digest(content)).parse().unwrap()
    }

    fn files(folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
    }

    #[test]
    fn names_are_hashes_in_lower_case() {
        let good = "a".repeat(64);
        assert_eq!(good.parse::<Oid>().unwrap().as_str(), good);
        for bad in ["", "a", &"A".repeat(64), &"g".repeat(64), &"a".repeat(65), &"../".repeat(21)] {
            assert!(bad.parse::<Oid>().is_err(), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn what_is_received_is_there_by_its_hash() {
        let (_folder, objects) = objects();
        for content in [&b""[..], b"large", &[7; 3 * CHUNK + 1]] {
            let oid = oid_of(content);
            assert!(objects.open(&oid).await.unwrap().is_none());
            let size = content.len() as u64;
            let mut incoming = objects.receive(&oid, size).await.unwrap();
            for piece in content.chunks(100_000) {
                incoming.write(piece).await.unwrap();
            }
            incoming.finish().await.unwrap();
            assert_eq!(fs::read(objects.path(&oid)).unwrap(), content);
            assert_eq!(objects.open(&oid).await.unwrap().unwrap().1, size);
        }
        assert_eq!((files(&objects.0).len(), objects.incoming().unwrap()), (3, 0));
    }

    #[tokio::test]
    async fn what_is_wrong_leaves_nothing() {
        let (folder, objects) = objects();
        let oid = oid_of(b"large");
        let begin = async |size| objects.receive(&oid, size).await.unwrap();

        let mut other = begin(5).await;
        other.write(b"other").await.unwrap();
        assert!(matches!(other.finish().await, Err(LfsError::Content)));
        let mut long = begin(4).await;
        assert!(matches!(long.write(b"large").await, Err(LfsError::Size)));
        drop(long);
        let mut short = begin(6).await;
        short.write(b"large").await.unwrap();
        assert!(matches!(short.finish().await, Err(LfsError::Size)));
        drop(begin(5).await);

        assert_eq!(files(folder.path()), Vec::<PathBuf>::new());
        assert_eq!(objects.size(&oid).await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_a_crash_has_left_is_swept() {
        let (_folder, objects) = objects();
        objects.sweep().unwrap();
        let mut incoming = objects.receive(&oid_of(b"large"), 5).await.unwrap();
        incoming.write(b"large").await.unwrap();
        assert_eq!(files(&objects.0).len(), 1);
        incoming.writing.take().unwrap().file.keep().unwrap();
        objects.sweep().unwrap();
        assert_eq!(files(&objects.0), Vec::<PathBuf>::new());
    }
}
