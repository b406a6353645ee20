//! Files that take their name when they are whole.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::{
    fs::{
        Access, AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, Stat, accessat, fchmod, fstat,
        fsync, linkat, openat, renameat, renameat_with, statat, unlinkat,
    },
    io::Errno,
};

use crate::{
    export::Export,
    fault::{Fault, Outcome},
    quota::Held,
};

/// How many temporary names are tried.
const TRIES: usize = 16;

/// A file on its way. Dropped before it is [finished](Self::finish), it is gone.
#[derive(Debug)]
pub(crate) struct Upload {
    folder: OwnedFd,
    name: Vec<u8>,
    /// Its name until then, where the file system has no files without one.
    temporary: Option<Vec<u8>>,
    exclusive: bool,
}

impl Upload {
    /// Opens a new file that is to become `name` in `folder`. What has that name now stays
    /// until then, and lends the new file its mode.
    pub(crate) fn open(
        folder: OwnedFd,
        name: Vec<u8>,
        flags: OFlags,
        mode: Mode,
    ) -> Outcome<(Self, OwnedFd)> {
        let exclusive = flags.contains(OFlags::EXCL);
        let before = replaced(folder.as_fd(), &name, exclusive)?;
        let access = flags & (OFlags::RWMODE | OFlags::APPEND) | OFlags::CLOEXEC;
        let (temporary, file) = match openat(&folder, ".", access | OFlags::TMPFILE, mode) {
            Ok(file) => (None, file),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                let create = access | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
                let (name, file) = fresh(|name| {
                    openat(&folder, name, create, mode).map(|file| (name.to_vec(), file))
                })?;
                (Some(name), file)
            }
            Err(errno) => return Err(errno.into()),
        };
        let upload = Self { folder, name, temporary, exclusive };
        if let Some(before) = before {
            fchmod(&file, Mode::from_raw_mode(before.st_mode & 0o777))?;
        }
        Ok((upload, file))
    }

    /// Gives the file its name. With `durable` the name is on the disk before this returns.
    pub(crate) fn finish(
        mut self,
        file: BorrowedFd<'_>,
        export: Option<&Export>,
        durable: bool,
    ) -> Outcome<()> {
        let _replaced = Held::named(export, &self.folder, &self.name)?;
        let temporary = match self.temporary.clone() {
            Some(name) => name,
            None => {
                let link = format!("/proc/self/fd/{}", file.as_raw_fd());
                let name = fresh(|name| {
                    linkat(CWD, link.as_str(), &self.folder, name, AtFlags::SYMLINK_FOLLOW)
                        .map(|()| name.to_vec())
                })?;
                self.temporary.insert(name).clone()
            }
        };
        let (from, to) = (temporary.as_slice(), self.name.as_slice());
        if self.exclusive {
            renameat_with(&self.folder, from, &self.folder, to, RenameFlags::NOREPLACE)?;
        } else {
            renameat(&self.folder, from, &self.folder, to)?;
        }
        self.temporary = None;
        if durable {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            fsync(openat(&self.folder, ".", flags, Mode::empty())?)?;
        }
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(name) = &self.temporary
            && let Err(errno) = unlinkat(&self.folder, name.as_slice(), AtFlags::empty())
        {
            tracing::warn!(%errno, "an unfinished upload could not be removed");
        }
    }
}

/// What would be replaced, if that is something that may be.
fn replaced(folder: BorrowedFd<'_>, name: &[u8], exclusive: bool) -> Outcome<Option<Stat>> {
    let stat = match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(None),
        stat => stat?,
    };
    if exclusive {
        return Err(Errno::EXIST.into());
    }
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            accessat(folder, name, Access::WRITE_OK, AtFlags::EACCESS)?;
            Ok(Some(stat))
        }
        FileType::Directory => Err(Errno::ISDIR.into()),
        _ => Err(Fault::failure("uploads here replace files, and this is none")),
    }
}

/// Tries names that nobody has until one is free.
fn fresh<T>(mut create: impl FnMut(&[u8]) -> Result<T, Errno>) -> Result<T, Errno> {
    for _ in 0..TRIES {
        // Whoever may write here could take all names that can be told beforehand.
        let number = getrandom::u64().map_err(|_| Errno::IO)?;
        match create(format!(".alknet-upload-{number:016x}").as_bytes()) {
            Err(Errno::EXIST) => {}
            outcome => return outcome,
        }
    }
    Err(Errno::EXIST)
}

/// The size of a file.
pub(crate) fn size(file: impl AsFd) -> Result<u64, Errno> {
    Ok(u64::try_from(fstat(file)?.st_size).unwrap_or(0))
}
