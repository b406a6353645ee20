//! Objects, named by what is in them.

use std::{fmt, fs::File, str::FromStr};

use bytes::BytesMut;
use sha2::{Digest as _, Sha256};

use super::{
    LfsError, blocking,
    root::{Part, Root, path_of},
};
use crate::repositories::files;

/// The folder of objects in a repository.
pub(super) const FOLDER: &str = "lfs/objects";
/// Where objects are while they are received.
pub(super) const INCOMING: &str = "lfs/incoming";
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

    /// The folder in a repository that it is in.
    fn folder(&self) -> String {
        let (first, rest) = self.0.split_at(2);
        let (second, _) = rest.split_at(2);
        format!("{FOLDER}/{first}/{second}")
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

/// The objects of one repository. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Objects(Root);

impl Objects {
    /// Those of a repository.
    pub(crate) fn new(root: Root) -> Self {
        Self(root)
    }

    /// The folder of their repository.
    pub(super) fn root(&self) -> &Root {
        &self.0
    }

    /// How many bytes an object has; `None` if it is not there. Waits for the disk.
    pub(crate) fn size_of(&self, oid: &Oid) -> Result<Option<u64>, LfsError> {
        Ok(self.find(oid)?.map(|(_, size)| size))
    }

    /// The same without waiting in this task.
    pub(crate) async fn size(&self, oid: &Oid) -> Result<Option<u64>, LfsError> {
        let (objects, oid) = (self.clone(), oid.clone());
        blocking(move || objects.size_of(&oid)).await
    }

    /// An object's content and size; `None` if it is not there.
    pub(crate) async fn open(&self, oid: &Oid) -> Result<Option<(File, u64)>, LfsError> {
        let (objects, oid) = (self.clone(), oid.clone());
        blocking(move || objects.find(&oid)).await
    }

    fn find(&self, oid: &Oid) -> Result<Option<(File, u64)>, LfsError> {
        let Some(folder) = self.0.find(&oid.folder())? else { return Ok(None) };
        let Some(file) = folder.file(oid.as_str())? else { return Ok(None) };
        let size = file.metadata()?.len();
        Ok(Some((file, size)))
    }

    /// Begins to receive an object of exactly `size` bytes.
    pub(crate) async fn receive(&self, oid: &Oid, size: u64) -> Result<Incoming, LfsError> {
        let (objects, oid) = (self.clone(), oid.clone());
        let making = self.clone();
        let writing = blocking(move || {
            let file = Part::make(making.0.make(INCOMING)?)?;
            Ok(Writing { file, hash: Sha256::new() })
        });
        let writing = Some(writing.await?);
        Ok(Incoming { objects, oid, size, received: 0, buffer: BytesMut::new(), writing })
    }

    /// How many bytes are in what is being received. Waits for the disk.
    pub(crate) fn incoming(&self) -> Result<u64, LfsError> {
        let Some(folder) = self.0.find(INCOMING)? else { return Ok(0) };
        Ok(files::size(&path_of(&folder))?)
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
    file: Part,
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
            writing.file.write(&bytes)?;
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
            file.sync()?;
            let (root, path) = (objects.root(), oid.folder());
            let folder = root.make(&path)?;
            file.publish(&folder, oid.as_str())?;
            if let Err(error) = root.check() {
                // Removed in this moment, and not to be in the way of that.
                folder.remove_file(oid.as_str())?;
                return Err(error);
            }
            // The names of the folders as well: each may be new.
            root.sync(&path)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::{Path, PathBuf},
    };

    use super::*;
    use crate::lfs::tests::root;

    fn objects() -> (tempfile::TempDir, PathBuf, Objects) {
        let (folder, root) = root();
        let lfs = folder.path().join("notes.git/lfs");
        (folder, lfs, Objects::new(root))
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
        let (_folder, lfs, objects) = objects();
        for content in [&b""[..], b"large", &[7; 3 * CHUNK + 1]] {
            let oid = oid_of(content);
            assert!(objects.open(&oid).await.unwrap().is_none());
            let size = content.len() as u64;
            let mut incoming = objects.receive(&oid, size).await.unwrap();
            for piece in content.chunks(100_000) {
                incoming.write(piece).await.unwrap();
            }
            incoming.finish().await.unwrap();
            let (file, there) = objects.open(&oid).await.unwrap().unwrap();
            assert_eq!((fs::read(path_of(&file)).unwrap().as_slice(), there), (content, size));
        }
        assert_eq!((files(&lfs).len(), objects.incoming().unwrap()), (3, 0));
    }

    #[tokio::test]
    async fn what_is_wrong_leaves_nothing() {
        let (_folder, lfs, objects) = objects();
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

        assert_eq!(files(&lfs), Vec::<PathBuf>::new());
        assert_eq!(objects.size(&oid).await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_a_crash_has_left_is_swept() {
        let (_folder, lfs, objects) = objects();
        let repository = lfs.parent().unwrap();
        crate::lfs::sweep(repository);
        let mut incoming = objects.receive(&oid_of(b"large"), 5).await.unwrap();
        incoming.write(b"large").await.unwrap();
        assert_eq!(files(&lfs).len(), 1);
        drop(incoming);
        assert_eq!(files(&lfs), Vec::<PathBuf>::new());
        fs::write(lfs.join("incoming/left"), "lar").unwrap();
        assert_eq!(objects.incoming().unwrap(), 3);
        crate::lfs::sweep(repository);
        assert_eq!(files(&lfs), Vec::<PathBuf>::new());
    }
}
