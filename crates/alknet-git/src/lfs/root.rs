//! The folder of a repository, as it was when somebody was let in: they stay in it when it gets
//! another name, and come into no other that takes the name.

use std::{
    fmt::Display,
    fs::File,
    io::{self, Write as _},
    os::fd::{AsFd, AsRawFd as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::{Mode, OFlags, openat, renameat};

use super::LfsError;
use crate::repositories::{
    Repositories,
    files::{self, Folder},
};

/// The open folder of a repository. Cheap to clone. Everything here waits for the disk.
#[derive(Debug, Clone)]
pub(crate) struct Root {
    repositories: Repositories,
    folder: Arc<Folder>,
}

impl Root {
    /// That of a repository that is among these.
    pub(crate) fn new(repositories: Repositories, folder: Arc<Folder>) -> Self {
        Self { repositories, folder }
    }

    /// Which file it is; no other is it as long as this is open.
    pub(super) fn id(&self) -> io::Result<(u64, u64)> {
        self.folder.id()
    }

    /// The bytes of all files in it that count towards its quota.
    pub(super) fn size(&self) -> io::Result<u64> {
        files::counted(&path_of(&self.folder))
    }

    /// A folder in it; `None` if there is none.
    pub(super) fn find(&self, path: &str) -> Result<Option<Folder>, LfsError> {
        Ok(self.folder.beneath(path).map_err(at(path))?)
    }

    /// A folder in it, where each on the way is made that is not there, unless the repository
    /// is gone.
    pub(super) fn make(&self, path: &str) -> Result<Folder, LfsError> {
        self.check()?;
        self.folder.make(path.split('/')).map_err(|error| gone(at(path)(error)))
    }

    /// Fails if the repository is gone.
    pub(super) fn check(&self) -> Result<(), LfsError> {
        match self.repositories.is_named(&self.folder).map_err(gone)? {
            true => Ok(()),
            false => Err(LfsError::Gone),
        }
    }

    /// Writes a folder in it to the disk, and all on the way there.
    pub(super) fn sync(&self, path: &str) -> Result<(), LfsError> {
        let words: Vec<&str> = path.split('/').collect();
        for count in (1..=words.len()).rev() {
            let path = words.get(..count).unwrap_or_default().join("/");
            let folder = self.find(&path)?.ok_or(LfsError::Gone)?;
            folder.sync().map_err(at(path))?;
        }
        Ok(self.folder.sync()?)
    }
}

/// A file that has no name of its own yet. Dropped without one, it is gone.
#[derive(Debug)]
pub(super) struct Part {
    folder: Folder,
    name: String,
    file: File,
}

impl Part {
    /// A new one in a folder.
    pub(super) fn make(folder: Folder) -> Result<Self, LfsError> {
        let mut name = [0; 16];
        getrandom::fill(&mut name).map_err(io::Error::other)?;
        let name = hex::encode(name);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = openat(&folder, &name, flags, Mode::RUSR | Mode::WUSR);
        let file = File::from(file.map_err(|errno| gone(errno.into()))?);
        Ok(Self { folder, name, file })
    }

    /// Takes the next bytes, unless its repository is being removed.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), LfsError> {
        if rustix::fs::fstat(&self.file).map_err(io::Error::from)?.st_nlink == 0 {
            return Err(LfsError::Gone);
        }
        Ok(self.file.write_all(bytes)?)
    }

    /// Writes what it has to the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Gives it a name in another folder, instead of what has it there.
    pub(super) fn publish(self, to: &Folder, name: &str) -> Result<(), LfsError> {
        let named = renameat(&self.folder, &self.name, to, name);
        named.map_err(|errno| gone(at(name)(errno.into())))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Nothing has this name after it was published.
        let _ = self.folder.remove_file(&self.name);
    }
}

/// A way to an open file or folder for who knows paths alone. It leads there as long as that is
/// open, whatever it is called and even if it is removed.
pub(crate) fn path_of(open: impl AsFd) -> PathBuf {
    Path::new("/proc/self/fd").join(open.as_fd().as_raw_fd().to_string())
}

/// What a failure to make something in an open folder is.
pub(super) fn gone(error: io::Error) -> LfsError {
    match error.kind() {
        io::ErrorKind::NotFound => LfsError::Gone,
        _ => error.into(),
    }
}

/// What failed, for [`io::Error`]s that say so.
pub(super) fn at(what: impl Display) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{what}: {error}"))
}
