//! Folders that are exported by name.

use std::{
    fmt,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use alknet_core::{Action, Identity};
use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2},
    io::Errno,
};

use crate::{
    fault::{Fault, Outcome},
    quota::Quota,
};

/// How often a look-up is tried again that somebody's renaming made uncertain.
const TRIES: usize = 64;

/// How the kernel confines a look-up.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

/// A folder that is offered under a name. Cheap to clone; clones share the count of what it
/// holds.
#[derive(Clone)]
pub struct Export(Arc<Inner>);

struct Inner {
    name: String,
    root: OwnedFd,
    quota: Option<Quota>,
    atomic: bool,
}

/// A folder cannot be exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The name is not one component of a path.
    #[error("{0:?} is no name of an export: it stands in paths and grants")]
    Name(String),
    /// The folder cannot be opened.
    #[error("{path}")]
    Folder {
        /// Which it is.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The kernel cannot confine a look-up to a folder.
    #[error("this kernel cannot confine paths to a folder (openat2, Linux 5.6 or newer)")]
    Kernel(#[source] std::io::Error),
}

impl Export {
    /// Offers `folder` as `name`. The folder is opened now: what takes its place at that path
    /// later is not exported.
    pub fn new(name: impl Into<String>, folder: &Path) -> Result<Self, ExportError> {
        let name = name.into();
        let plain = |c: char| c.is_alphanumeric() || "-_.@+~".contains(c);
        if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.chars().all(plain) {
            return Err(ExportError::Name(name));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, folder, flags, Mode::empty())
            .map_err(|errno| ExportError::Folder { path: folder.into(), source: errno.into() })?;
        let export = Self(Arc::new(Inner { name, root, quota: None, atomic: false }));
        export.open(b".", flags, Mode::empty()).map_err(|errno| match errno {
            Errno::NOSYS | Errno::PERM | Errno::INVAL => ExportError::Kernel(errno.into()),
            _ => ExportError::Folder { path: folder.into(), source: errno.into() },
        })?;
        Ok(export)
    }

    /// With a bound on the sum of the sizes of all its files, in bytes.
    #[must_use]
    pub fn with_quota(self, bytes: u64) -> Self {
        self.changed(|inner| inner.quota = Some(Quota::new(bytes)))
    }

    /// With uploads that replace a file when they are whole, and else leave nothing.
    #[must_use]
    pub fn with_atomic_uploads(self) -> Self {
        self.changed(|inner| inner.atomic = true)
    }

    /// Before it has been cloned.
    fn changed(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            change(inner);
        }
        self
    }

    /// What it is offered as.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    pub(crate) fn atomic(&self) -> bool {
        self.0.atomic
    }

    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.0.root.as_fd()
    }

    pub(crate) fn quota(&self) -> Option<&Quota> {
        self.0.quota.as_ref()
    }

    /// Opens a path beneath the folder. The kernel sees to it that no step of the look-up
    /// leads out, whatever is renamed or replaced meanwhile.
    pub(crate) fn open(&self, path: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = flags | OFlags::CLOEXEC;
        // The kernel does not take a mode for what creates nothing.
        let creates = flags.contains(OFlags::CREATE) || flags.contains(OFlags::TMPFILE);
        let mode = if creates { mode } else { Mode::empty() };
        let mut tries = 0;
        loop {
            match openat2(self.root(), path, flags, mode, BENEATH) {
                Err(Errno::AGAIN) if tries < TRIES => tries += 1,
                result => return result,
            }
        }
    }

    /// The same to read a file, if the kernel finds it in its caches.
    pub(crate) fn open_cached(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        let cached = BENEATH.union(ResolveFlags::CACHED);
        openat2(self.root(), path, flags | OFlags::CLOEXEC, Mode::empty(), cached)
    }
}

impl fmt::Debug for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Export").field(&self.0.name).finish()
    }
}

/// An export, and what a caller may do in it.
#[derive(Debug, Clone)]
pub struct Grant {
    pub(crate) export: Export,
    pub(crate) read: bool,
    pub(crate) write: bool,
}

impl Grant {
    /// What somebody may do in an export by their scopes, `sftp:read:NAME` and
    /// `sftp:write:NAME`; `None` if that is nothing.
    pub fn of(identity: &Identity, export: &Export) -> Option<Self> {
        let may = |action: &'static str| {
            identity.scopes.allow(Action::from(action).word(export.name().to_owned()))
        };
        Self::new(export, may("sftp:read"), may("sftp:write"))
    }

    /// A grant of reading, writing or both.
    pub fn new(export: &Export, read: bool, write: bool) -> Option<Self> {
        (read || write).then(|| Self { export: export.clone(), read, write })
    }

    /// What the kernel says of a path of this export, in words.
    pub(crate) fn explain(&self, errno: Errno) -> Fault {
        match errno {
            Errno::XDEV => Fault::denied(format!("the path leads out of {}", self.export.name())),
            errno => errno.into(),
        }
    }

    /// Fails unless the caller may read.
    pub(crate) fn readable(&self) -> Outcome<()> {
        match self.read {
            true => Ok(()),
            false => Err(Fault::denied(format!("{} is for uploads only", self.export.name()))),
        }
    }

    /// Fails unless the caller may write.
    pub(crate) fn writable(&self) -> Outcome<()> {
        match self.write {
            true => Ok(()),
            false => Err(Fault::denied(format!("{} is read-only here", self.export.name()))),
        }
    }
}
