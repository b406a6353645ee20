//! Files and folders by descriptors: nothing here follows a link.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{
        AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, RenameFlags, ResolveFlags, flock,
        fstat, mkdirat, openat, openat2, renameat, renameat_with, statat, unlinkat,
    },
    io::Errno,
};

use crate::bundle;

/// How a folder is opened: to look into, to make names in, and to write out.
const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// No name on the way is a link, and none leads out.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);
/// Folders are the node's alone.
const PRIVATE: Mode = Mode::RWXU;
/// How often a lock is tried that somebody else has.
const POLL: Duration = Duration::from_millis(5);

/// An open folder.
#[derive(Debug)]
pub(crate) struct Folder(OwnedFd);

/// A lock that is held until the value is dropped or the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock {
    file: OwnedFd,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A process that is just being started has the descriptor too, for a moment.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

impl Folder {
    /// The folder at a path, which may have links in it: the owner's way to the root.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(openat(CWD, path, FOLDER.difference(OFlags::NOFOLLOW), Mode::empty())?))
    }

    /// A folder beneath this one; `None` if there is none, also where something else has the
    /// name or a link is on the way.
    pub(crate) fn beneath(&self, path: &str) -> io::Result<Option<Self>> {
        match openat2(&self.0, path, FOLDER, Mode::empty(), BENEATH) {
            Ok(folder) => Ok(Some(Self(folder))),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The same, where each folder on the way is made that is not there. What was made is on
    /// the disk.
    pub(crate) fn make<'a>(&self, words: impl Iterator<Item = &'a str>) -> io::Result<Self> {
        let mut folder = Self(self.0.try_clone()?);
        for word in words {
            match mkdirat(&folder.0, word, PRIVATE) {
                Ok(()) => folder.sync()?,
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
            folder = Self(openat(&folder.0, word, FOLDER, Mode::empty())?);
        }
        Ok(folder)
    }

    /// Makes a folder in this one; whether there was none of this name.
    pub(crate) fn add(&self, name: &str) -> io::Result<bool> {
        match mkdirat(&self.0, name, PRIVATE) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Which file it is: its device and its inode.
    pub(crate) fn id(&self) -> io::Result<(u64, u64)> {
        let it = fstat(&self.0)?;
        Ok((it.st_dev, it.st_ino))
    }

    /// Whether it is in another folder, or was when it was removed.
    pub(crate) fn is_in(&self, other: &Self) -> io::Result<bool> {
        let above = statat(&self.0, "..", AtFlags::SYMLINK_NOFOLLOW)?;
        Ok((above.st_dev, above.st_ino) == other.id()?)
    }

    /// Whether a regular file, and no link to one, has this name.
    pub(crate) fn has_file(&self, name: &str) -> bool {
        statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
    }

    /// A regular file in this folder; `None` if there is none.
    pub(crate) fn file(&self, name: &str) -> io::Result<Option<File>> {
        // A pipe of this name would keep who opens it waiting.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&self.0, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        match file.metadata()?.is_file() {
            true => Ok(Some(file)),
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
        }
    }

    /// The content of a file of at most `max` bytes; `None` if there is none.
    pub(crate) fn read(&self, name: &str, max: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = self.file(name)? else { return Ok(None) };
        let mut content = Vec::new();
        file.take(max + 1).read_to_end(&mut content)?;
        match content.len() as u64 > max {
            true => Err(io::Error::new(io::ErrorKind::FileTooLarge, "the file is too large")),
            false => Ok(Some(content)),
        }
    }

    /// Replaces a file in one step: after a crash it has the old content or the new one. The
    /// caller holds a [`Lock`] that everybody takes who writes this file.
    pub(crate) fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let temporary = format!("{name}.new");
        // Of a process that was killed.
        self.remove_file(&temporary)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let mut file = File::from(openat(&self.0, &temporary, flags, mode)?);
        file.write_all(content)?;
        file.sync_all()?;
        renameat(&self.0, &temporary, &self.0, name)?;
        self.sync()
    }

    /// Removes a file, if it is there.
    pub(crate) fn remove_file(&self, name: &str) -> io::Result<()> {
        match unlinkat(&self.0, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Removes a folder, if it is there and empty; whether it did.
    pub(crate) fn remove_empty(&self, name: &str) -> io::Result<bool> {
        match unlinkat(&self.0, name, AtFlags::REMOVEDIR) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Moves what has a name to another folder, where nothing may have the new name; whether
    /// nothing had. On the disk when this returns.
    pub(crate) fn move_to(&self, name: &str, to: &Self, as_name: &str) -> io::Result<bool> {
        match renameat_with(&self.0, name, &to.0, as_name, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(Errno::EXIST | Errno::NOTEMPTY) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        }
        to.sync()?;
        self.sync()?;
        Ok(true)
    }

    /// Writes the names in it to the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.0)?)
    }

    /// Waits for a lock that all processes take for the same work, for `patience` at most.
    pub(crate) fn lock(&self, name: &str, patience: Duration) -> io::Result<Lock> {
        let deadline = Instant::now() + patience;
        loop {
            match self.take(name, FlockOperation::NonBlockingLockExclusive)? {
                Some(lock) => return Ok(lock),
                None if Instant::now() >= deadline => {
                    let message = "another process keeps it locked";
                    return Err(io::Error::new(io::ErrorKind::TimedOut, message));
                }
                None => thread::sleep(POLL),
            }
        }
    }

    /// Takes a lock if nobody else has it.
    pub(crate) fn try_lock(&self, name: &str) -> io::Result<Option<Lock>> {
        self.take(name, FlockOperation::NonBlockingLockExclusive)
    }

    /// Takes a lock that others may have at the same time, unless one has it alone.
    pub(crate) fn try_share(&self, name: &str) -> io::Result<Option<Lock>> {
        self.take(name, FlockOperation::NonBlockingLockShared)
    }

    fn take(&self, name: &str, how: FlockOperation) -> io::Result<Option<Lock>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.0, name, flags, Mode::RUSR | Mode::WUSR)?;
        match flock(&file, how) {
            Ok(()) => Ok(Some(Lock { file })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Writes a folder and everything in it to the disk. No link is followed.
pub(crate) fn sync_all(path: &Path) -> io::Result<()> {
    for entry in path.read_dir()? {
        let entry = entry?;
        match entry.file_type()? {
            kind if kind.is_dir() => sync_all(&entry.path())?,
            kind if kind.is_file() => File::open(entry.path())?.sync_all()?,
            _ => {}
        }
    }
    File::open(path)?.sync_all()
}

/// The bytes of all files in a folder, of those that are there while it looks.
pub(crate) fn size(path: &Path) -> io::Result<u64> {
    size_without(path, None)
}

/// The same of a repository, as it counts towards its quota: without its bundles, which are
/// copies that the node makes by itself.
pub(crate) fn counted(repository: &Path) -> io::Result<u64> {
    size_without(repository, Some(bundle::FOLDER))
}

/// Leaves out what is called so in the folder itself.
fn size_without(path: &Path, left_out: Option<&str>) -> io::Result<u64> {
    let mut bytes = 0;
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match folder.read_dir() {
            Ok(entries) => entries,
            // Git moves and removes files meanwhile.
            Err(error) if folder != path && error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            if folder == path && left_out.is_some_and(|name| entry.file_name() == name) {
                continue;
            }
            match entry.metadata() {
                Ok(found) if found.is_dir() => folders.push(entry.path()),
                Ok(found) => bytes += found.len(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(bytes)
}
