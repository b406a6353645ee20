//! Changing attributes, as SETSTAT and its relatives do.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use russh_sftp::protocol::FileAttributes;
use rustix::{
    fs::{
        AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, chmodat, chownat,
        fchmod, fchown, fstat, ftruncate, futimens, utimensat,
    },
    io::Errno,
};

use crate::{
    export::Export,
    fault::{Fault, Outcome},
    file::File,
    upload::size,
    view::Spot,
};

/// What is changed.
pub(crate) enum Change<'a> {
    /// An open file.
    Open(&'a File),
    /// What a path names, or the link itself.
    Path { spot: &'a Spot<'a>, held: OwnedFd, follow: bool },
}

/// Changes what is wanted: the size, the mode, the times, the owner, in OpenSSH's order. All
/// of it is tried, and the last fault is the answer.
pub(crate) fn apply(
    change: &Change<'_>,
    wanted: &FileAttributes,
    export: Option<&Export>,
) -> Outcome<()> {
    let mut outcome = Ok(());
    let mut then = |result: Outcome<()>| {
        if result.is_err() {
            outcome = result;
        }
    };
    if let Some(size) = wanted.size {
        then(change.truncate(size, export));
    }
    if let Some(mode) = wanted.permissions {
        // Nobody lends others the rights of the node's account through an export.
        let mask = if export.is_some() { 0o777 } else { 0o7777 };
        then(change.mode(Mode::from_raw_mode(mode & mask), export));
    }
    if let (Some(accessed), Some(modified)) = (wanted.atime, wanted.mtime) {
        let time = |seconds: u32| Timespec { tv_sec: seconds.into(), tv_nsec: 0 };
        let (last_access, last_modification) = (time(accessed), time(modified));
        then(change.times(&Timestamps { last_access, last_modification }));
    }
    if let (Some(user), Some(group)) = (wanted.uid, wanted.gid) {
        then(change.owner(user, group, export.is_some()));
    }
    outcome
}

/// The name that the kernel has for an open descriptor.
fn link_of(descriptor: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", descriptor.as_raw_fd())
}

impl Change<'_> {
    fn truncate(&self, to: u64, export: Option<&Export>) -> Outcome<()> {
        match self {
            Self::Open(file) => resize(file.as_fd(), to, export),
            Self::Path { follow: false, .. } => Err(Fault::bad("a link has no size to set")),
            Self::Path { spot, .. } => {
                let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
                resize(spot.open(flags, Mode::empty())?.as_fd(), to, export)
            }
        }
    }

    fn mode(&self, mut mode: Mode, export: Option<&Export>) -> Outcome<()> {
        if export.and_then(Export::quota).is_some() && self.is_folder()? {
            // What cannot be looked into cannot be counted.
            mode |= Mode::RWXU;
        }
        Ok(match self {
            Self::Open(file) => fchmod(file.as_fd(), mode),
            Self::Path { held, .. } => chmodat(CWD, link_of(held), mode, AtFlags::empty()),
        }?)
    }

    fn is_folder(&self) -> Outcome<bool> {
        let now = match self {
            Self::Open(file) => fstat(file.as_fd()),
            Self::Path { held, .. } => fstat(held),
        }?;
        Ok(FileType::from_raw_mode(now.st_mode) == FileType::Directory)
    }

    fn times(&self, times: &Timestamps) -> Outcome<()> {
        Ok(match self {
            Self::Open(file) => futimens(file.as_fd(), times),
            Self::Path { held, .. } => utimensat(held, "", times, AtFlags::EMPTY_PATH),
        }?)
    }

    fn owner(&self, user: u32, group: u32, confined: bool) -> Outcome<()> {
        let now = match self {
            Self::Open(file) => fstat(file.as_fd()),
            Self::Path { held, .. } => fstat(held),
        }?;
        if confined {
            let same = (now.st_uid, now.st_gid) == (user, group);
            return if same { Ok(()) } else { Err(Errno::PERM.into()) };
        }
        // The system has a meaning of its own for the highest number: no change.
        let (user, group) = (
            (user != u32::MAX).then(|| Uid::from_raw(user)),
            (group != u32::MAX).then(|| Gid::from_raw(group)),
        );
        Ok(match self {
            Self::Open(file) => fchown(file.as_fd(), user, group),
            Self::Path { held, .. } => chownat(held, "", user, group, AtFlags::EMPTY_PATH),
        }?)
    }
}

/// Sets a size within the quota.
fn resize(file: std::os::fd::BorrowedFd<'_>, to: u64, export: Option<&Export>) -> Outcome<()> {
    let Some((export, quota)) = export.and_then(|export| Some((export, export.quota()?))) else {
        return Ok(ftruncate(file, to)?);
    };
    let from = size(file)?;
    quota.take(export.root(), to.saturating_sub(from))?;
    if let Err(errno) = ftruncate(file, to) {
        quota.give(to.saturating_sub(from));
        return Err(errno.into());
    }
    quota.give(from.saturating_sub(to));
    Ok(())
}
