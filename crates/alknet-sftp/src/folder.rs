//! Folders that a client reads.

use std::{collections::VecDeque, os::fd::OwnedFd, sync::Mutex};

use russh_sftp::protocol::FileAttributes;
use rustix::fs::{AtFlags, Dir, fstat, statat};
use serde_bytes::ByteBuf;

use crate::{
    attributes::{Names, attributes},
    export::Grant,
    fault::{Fault, Outcome},
    wire::Name,
};

/// How many entries an answer has at most.
const ENTRIES: usize = 100;
/// When it is full, in bytes. Some clients take no more than 34000 (draft, section 3).
const FULL: usize = 24 << 10;

/// A folder that is read bit by bit.
#[derive(Debug)]
pub(crate) struct Folder(Mutex<Source>);

#[derive(Debug)]
enum Source {
    Real(Dir),
    Made(VecDeque<Name>),
}

impl Folder {
    /// A folder of the system.
    pub(crate) fn real(descriptor: OwnedFd) -> Outcome<Self> {
        Ok(Self(Mutex::new(Source::Real(Dir::new(descriptor)?))))
    }

    /// The folder that has the exports in it.
    pub(crate) fn of_exports<'a>(grants: impl Iterator<Item = &'a Grant>, names: &Names) -> Self {
        let dots = [".", ".."].into_iter().map(|dot| Name {
            name: ByteBuf::from(dot),
            long: ByteBuf::from(format!(
                "dr-xr-xr-x    1 0        0               0 Jan  1  1970 {dot}"
            )),
            attributes: root(),
        });
        let exports = grants.filter_map(|grant| {
            let stat = fstat(grant.export.root()).ok()?;
            let name = grant.export.name().as_bytes();
            let long = ByteBuf::from(names.long(name, &stat));
            Some(Name { name: ByteBuf::from(name), long, attributes: attributes(&stat) })
        });
        Self(Mutex::new(Source::Made(dots.chain(exports).collect())))
    }

    /// The next entries; [`Fault::end`] after the last.
    pub(crate) fn next(&self, names: &Names) -> Outcome<Vec<Name>> {
        let mut source = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (mut entries, mut bytes) = (Vec::new(), 0);
        while entries.len() < ENTRIES && bytes < FULL {
            let Some(entry) = source.next(names)? else { break };
            bytes += entry.name.len() + entry.long.len() + 40;
            entries.push(entry);
        }
        if entries.is_empty() { Err(Fault::end()) } else { Ok(entries) }
    }
}

impl Source {
    fn next(&mut self, names: &Names) -> Outcome<Option<Name>> {
        let dir = match self {
            Self::Made(entries) => return Ok(entries.pop_front()),
            Self::Real(dir) => dir,
        };
        while let Some(entry) = dir.read() {
            let entry = entry?;
            let name = entry.file_name();
            // What has gone since is not there.
            let Ok(stat) = statat(dir.fd()?, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let long = ByteBuf::from(names.long(name.to_bytes(), &stat));
            let name = ByteBuf::from(name.to_bytes());
            return Ok(Some(Name { name, long, attributes: attributes(&stat) }));
        }
        Ok(None)
    }
}

/// The attributes of the folder that has the exports in it.
pub(crate) fn root() -> FileAttributes {
    FileAttributes {
        size: Some(0),
        uid: Some(0),
        gid: Some(0),
        permissions: Some(0o040_555),
        atime: Some(0),
        mtime: Some(0),
        ..FileAttributes::empty()
    }
}
