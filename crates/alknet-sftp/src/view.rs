//! What a client sees as the file system, and how its paths are resolved.

use std::{
    collections::BTreeMap,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    sync::Arc,
};

use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2},
    io::Errno,
};

use crate::{
    export::{Export, Grant},
    fault::{Fault, Outcome},
    path,
};

/// What a client sees. Cheap to clone.
#[derive(Debug, Clone)]
pub struct View(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Account(Arc<Base>),
    Exports(Arc<BTreeMap<Vec<u8>, Grant>>),
    Root(Arc<Grant>),
}

/// Where relative paths start.
#[derive(Debug)]
pub(crate) struct Base {
    folder: OwnedFd,
    path: Vec<u8>,
}

impl View {
    /// All files that the account of this process can reach; relative paths start at `base`.
    pub fn account(base: &Path) -> io::Result<Self> {
        let path = std::path::absolute(base)?.as_os_str().as_bytes().to_vec();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(CWD, base, flags, Mode::empty())?;
        Ok(Self(Kind::Account(Arc::new(Base { folder, path }))))
    }

    /// A folder for each grant, and nothing else.
    pub fn exports(grants: impl IntoIterator<Item = Grant>) -> Self {
        let named = grants.into_iter().map(|grant| (grant.export.name().into(), grant));
        Self(Kind::Exports(Arc::new(named.collect())))
    }

    /// What one grant is for, as all that there is: its folder is `/`.
    pub fn root(grant: Grant) -> Self {
        Self(Kind::Root(Arc::new(grant)))
    }

    /// What a path names.
    pub(crate) fn locate<'a>(&'a self, path: &'a [u8]) -> Outcome<Spot<'a>> {
        if path.len() > path::LONGEST {
            return Err(Errno::NAMETOOLONG.into());
        }
        if path.contains(&0) {
            return Err(Errno::INVAL.into());
        }
        match &self.0 {
            Kind::Account(base) => Ok(Spot::Account { base, path }),
            Kind::Root(grant) => Ok(Spot::Inside { grant, parts: path::normal(path) }),
            Kind::Exports(grants) => match path::normal(path).split_first() {
                None => Ok(Spot::Root),
                Some((name, rest)) => {
                    let grant = grants.get(*name).ok_or_else(Fault::missing)?;
                    Ok(Spot::Inside { grant, parts: rest.to_vec() })
                }
            },
        }
    }

    /// The base of an account's view.
    pub(crate) fn base(&self) -> Option<&Base> {
        match &self.0 {
            Kind::Account(base) => Some(base),
            Kind::Exports(_) | Kind::Root(_) => None,
        }
    }

    /// The exports, by name.
    pub(crate) fn grants(&self) -> impl Iterator<Item = &Grant> {
        match &self.0 {
            Kind::Account(_) | Kind::Root(_) => None,
            Kind::Exports(grants) => Some(grants.values()),
        }
        .into_iter()
        .flatten()
    }

    /// The path as the audit log has it: absolute, with nothing looked up.
    pub(crate) fn shown(&self, path: &[u8]) -> String {
        let whole = match self.base() {
            Some(base) => path::join(&base.path, path),
            None => path.to_vec(),
        };
        String::from_utf8_lossy(&path::absolute(&path::normal(&whole))).into_owned()
    }

    /// The path with neither links nor dots, as REALPATH answers it.
    pub(crate) fn real_path(&self, path: &[u8]) -> Outcome<Vec<u8>> {
        // It may be no path of this view yet, but has to be one that could be.
        self.locate(path).map(drop).or_else(|fault| match self.base() {
            None if fault == Fault::missing() => Ok(()),
            _ => Err(fault),
        })?;
        match self.base() {
            Some(base) => Ok(path::real(base.folder(), &path::join(&base.path, path))?),
            None => Ok(path::absolute(&path::normal(path))),
        }
    }
}

impl Base {
    pub(crate) fn folder(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    pub(crate) fn path(&self) -> &[u8] {
        &self.path
    }
}

/// What a path names.
#[derive(Debug)]
pub(crate) enum Spot<'a> {
    /// The folder that has the exports in it.
    Root,
    /// Something that the account can reach.
    Account { base: &'a Base, path: &'a [u8] },
    /// Something in an export, by components without `.` and `..`; none is the export itself.
    Inside { grant: &'a Grant, parts: Vec<&'a [u8]> },
}

/// A name in an open folder: what is there is not followed if it is a link.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    folder: Folder<'a>,
    pub(crate) name: Vec<u8>,
}

#[derive(Debug)]
enum Folder<'a> {
    Borrowed(BorrowedFd<'a>),
    Owned(OwnedFd),
}

impl AsFd for Entry<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.folder {
            Folder::Borrowed(folder) => *folder,
            Folder::Owned(folder) => folder.as_fd(),
        }
    }
}

impl Entry<'_> {
    /// The entry, with a folder of its own.
    pub(crate) fn into_owned(self) -> Outcome<(OwnedFd, Vec<u8>)> {
        let folder = match self.folder {
            Folder::Borrowed(folder) => folder.try_clone_to_owned().map_err(|_| Errno::MFILE)?,
            Folder::Owned(folder) => folder,
        };
        Ok((folder, self.name))
    }
}

impl<'a> Spot<'a> {
    /// Opens what is there; a link is followed unless `flags` say otherwise.
    pub(crate) fn open(&self, flags: OFlags, mode: Mode) -> Outcome<OwnedFd> {
        match self {
            Self::Root => Err(Fault::denied("this folder holds the exports alone")),
            Self::Account { base, path } => {
                Ok(openat(base.folder(), *path, flags | OFlags::CLOEXEC, mode)?)
            }
            Self::Inside { grant, parts } => {
                let path = parts.join(&b'/');
                grant.export.open(&path, flags, mode).map_err(|errno| grant.explain(errno))
            }
        }
    }

    /// The same, to read, if the kernel finds it in its caches.
    pub(crate) fn open_cached(&self, flags: OFlags) -> Option<OwnedFd> {
        match self {
            Self::Root => None,
            Self::Account { base, path } => {
                let flags = flags | OFlags::CLOEXEC;
                openat2(base.folder(), *path, flags, Mode::empty(), ResolveFlags::CACHED).ok()
            }
            Self::Inside { grant, parts } => {
                grant.export.open_cached(&parts.join(&b'/'), flags).ok()
            }
        }
    }

    /// A descriptor of what is there that gives neither reading nor writing.
    pub(crate) fn hold(&self, follow: bool) -> Outcome<OwnedFd> {
        let flags = if follow { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
        self.open(flags, Mode::empty())
    }

    /// The folder it is in, and its name there.
    pub(crate) fn entry(&self) -> Outcome<Entry<'a>> {
        match self {
            Self::Account { base, path } => {
                Ok(Entry { folder: Folder::Borrowed(base.folder()), name: path.to_vec() })
            }
            Self::Inside { grant, parts } => {
                let Some((name, parent)) = parts.split_last() else {
                    return Err(Fault::denied("an export is not changed from inside"));
                };
                let flags = OFlags::PATH | OFlags::DIRECTORY;
                let folder = grant.export.open(&parent.join(&b'/'), flags, Mode::empty());
                let folder = folder.map_err(|errno| grant.explain(errno))?;
                Ok(Entry { folder: Folder::Owned(folder), name: name.to_vec() })
            }
            Self::Root => Err(Fault::denied("this folder holds the exports alone")),
        }
    }

    /// The same, with the folder itself open: what its path leads to may change meanwhile.
    pub(crate) fn parent(&self) -> Outcome<(OwnedFd, Vec<u8>)> {
        let (folder, path) = self.entry()?.into_owned()?;
        let Some(slash) = path.iter().rposition(|byte| *byte == b'/') else {
            return Ok((folder, path));
        };
        let (parent, name) = path.split_at(slash + 1);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok((openat(&folder, parent, flags, Mode::empty())?, name.to_vec()))
    }

    /// Fails unless what is there may be read.
    pub(crate) fn readable(&self) -> Outcome<()> {
        self.grant().map_or(Ok(()), Grant::readable)
    }

    /// Fails unless what is there may be changed.
    pub(crate) fn writable(&self) -> Outcome<()> {
        self.grant().map_or(Ok(()), Grant::writable)
    }

    pub(crate) fn grant(&self) -> Option<&'a Grant> {
        match self {
            Self::Inside { grant, .. } => Some(grant),
            Self::Root | Self::Account { .. } => None,
        }
    }

    pub(crate) fn export(&self) -> Option<&'a Export> {
        self.grant().map(|grant| &grant.export)
    }
}
