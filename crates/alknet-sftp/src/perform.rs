//! Doing what is asked for. Everything here blocks for the disk.

use std::{
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    sync::Arc,
};

use nix::unistd::User;
use russh_sftp::{
    extensions::{LimitsExtension, Statvfs},
    protocol::{FileAttributes, OpenFlags},
};
use rustix::{
    fs::{
        AtFlags, FileType, Mode, OFlags, RenameFlags, StatVfs, fstat, fstatvfs, linkat, mkdirat,
        readlinkat, renameat, renameat_with, statat, symlinkat, unlinkat,
    },
    io::Errno,
};

use crate::{
    attributes::attributes,
    change::{self, Change},
    export::Export,
    fault::{Fault, Outcome},
    file::{self, File, Made},
    flags::{opens_for_writing, reads_file, system_flags},
    folder::{self, Folder},
    handles::{Open, Places, Thing},
    path,
    quota::{self, Held, Quota},
    session::Context,
    trail::Deed,
    upload::Upload,
    view::Spot,
    wire::{CopyData, MAX_DATA, MAX_PACKET, Name, Reply, Request, strings},
};

/// How far a copy from file to file has come.
#[derive(Debug, Default)]
pub(crate) struct Copied {
    bytes: u64,
    /// It is not done: the same request is to be done again.
    pub(crate) more: bool,
}

/// Does what a request asks for; `open` is what it names by a handle. A copy is done piece by
/// piece, as `copied` tells.
pub(crate) fn perform(
    context: &Context,
    id: u32,
    request: &Request,
    open: Option<&Open>,
    copied: &mut Copied,
) -> Outcome<Reply> {
    let open = open.ok_or_else(Fault::no_handle);
    match request {
        Request::Open { path, flags, attributes } => context.open(path, *flags, attributes),
        Request::Close { .. } => context.close(open?).map(|()| Reply::Done),
        Request::Read { offset, length, .. } => open?.file()?.read(id, *offset, *length),
        Request::Write { offset, data, .. } => {
            open?.file()?.write(*offset, data).map(|()| Reply::Done)
        }
        Request::Stat { path, follow } => context.stat(path, *follow),
        Request::FStat { .. } => Ok(Reply::Attributes(attributes(&open?.file()?.stat()?))),
        Request::SetStat { path, attributes, follow } => {
            context.set_stat(path, attributes, *follow)
        }
        Request::FSetStat { attributes, .. } => context.set_open(open?, attributes),
        Request::OpenDir { path } => context.open_folder(path),
        Request::ReadDir { .. } => open?.folder()?.next(&context.names).map(Reply::Names),
        Request::Remove { path } => context.remove(path),
        Request::MkDir { path, attributes } => context.make_folder(path, attributes),
        Request::RmDir { path } => context.remove_folder(path),
        Request::RealPath { path } => context.real_path(path),
        Request::Rename { from, to, replace } => context.rename(from, to, *replace),
        Request::ReadLink { path } => context.read_link(path),
        Request::Symlink { target, link } => context.symlink(target, link),
        Request::HardLink { from, to } => context.hard_link(from, to),
        Request::StatVfs { path } => context.usage(path),
        Request::FStatVfs { .. } => {
            let file = open?.file()?;
            usage(&fstatvfs(file.as_fd())?, file.export())
        }
        Request::FSync { .. } => open?.file()?.sync().map(|()| Reply::Done),
        Request::Limits => Ok(Reply::Limits(context.limits())),
        Request::ExpandPath { path } => context.expand(path),
        Request::CopyData(copy) => context.copy(copy, copied).map(|()| Reply::Done),
        Request::HomeDirectory { account } => context.home(account),
        Request::Names { users, groups } => context.names_of(users, groups),
        Request::Unknown => Err(Fault::unsupported()),
        Request::Malformed => Err(Fault::bad("Bad message")),
    }
}

/// The mode of what is created.
fn mode_of(attributes: &FileAttributes, usual: u32, spot: &Spot<'_>) -> Mode {
    let mask = if spot.export().is_some() { 0o777 } else { 0o7777 };
    Mode::from_raw_mode(attributes.permissions.unwrap_or(usual) & mask)
}

impl Context {
    /// Records what was done, or that it was not allowed, and passes the outcome on.
    fn audit<T>(&self, outcome: Outcome<T>, deed: impl FnOnce() -> Deed) -> Outcome<T> {
        match &outcome {
            Ok(_) => self.trail.record(deed()),
            Err(fault) if fault.is_denied() => {
                let reason = Some(fault.message.to_string());
                self.trail.record(Deed { reason, refused: true, ..deed() });
            }
            Err(_) => {}
        }
        outcome
    }

    /// The same, of something that is done to one path and has nothing to tell.
    fn did(&self, event: &'static str, path: &[u8], outcome: Outcome<()>) -> Outcome<Reply> {
        let deed = || Deed { event, path: self.view.shown(path), ..Deed::default() };
        self.audit(outcome, deed).map(|()| Reply::Done)
    }

    /// The same with two paths.
    fn did_two(
        &self,
        event: &'static str,
        path: &[u8],
        other: String,
        outcome: Outcome<()>,
    ) -> Outcome<Reply> {
        let path = self.view.shown(path);
        let deed = || Deed { event, path, other: Some(other), ..Deed::default() };
        self.audit(outcome, deed).map(|()| Reply::Done)
    }

    fn open(&self, path: &[u8], flags: OpenFlags, attributes: &FileAttributes) -> Outcome<Reply> {
        let (reads, writes) = (reads_file(flags), opens_for_writing(flags));
        self.note_opened(path, flags, self.try_open(path, flags, attributes, reads, writes))
    }

    /// Records that something was opened, or that it was not allowed, and answers.
    pub(crate) fn note_opened(
        &self,
        path: &[u8],
        flags: OpenFlags,
        opened: Outcome<u64>,
    ) -> Outcome<Reply> {
        let (reads, writes) = (reads_file(flags), opens_for_writing(flags));
        let reason = match (reads, writes) {
            (true, true) => "read and write",
            (false, true) => "write",
            _ => "read",
        };
        let (event, path) = ("sftp-open", self.view.shown(path));
        let reason = Some(reason.into());
        self.audit(opened, || Deed { event, path, reason, ..Deed::default() }).map(Reply::Handle)
    }

    fn try_open(
        &self,
        path: &[u8],
        flags: OpenFlags,
        attributes: &FileAttributes,
        reads: bool,
        writes: bool,
    ) -> Outcome<u64> {
        let place = self.handles.place()?;
        let spot = self.view.locate(path)?;
        if reads {
            spot.readable()?;
        }
        if writes {
            spot.writable()?;
            self.changeable()?;
        }
        let (system, mode) = (system_flags(flags), mode_of(attributes, 0o666, &spot));
        let found = self.descriptor(path, &spot, flags, system, mode)?;
        self.opened(place, path, &spot, flags, found)
    }

    /// Adds what was opened; its handle.
    pub(crate) fn opened(
        &self,
        place: Places,
        path: &[u8],
        spot: &Spot<'_>,
        flags: OpenFlags,
        (descriptor, made): (OwnedFd, Made),
    ) -> Outcome<u64> {
        if spot.grant().is_some() {
            let kind = FileType::from_raw_mode(fstat(&descriptor)?.st_mode);
            // A folder opens for reading, as it does with OpenSSH, and then cannot be read.
            if !matches!(kind, FileType::RegularFile | FileType::Directory) {
                return Err(Fault::denied("only files and folders are exported"));
            }
        }
        let append = flags.contains(OpenFlags::APPEND);
        let how = file::Mode { writes: opens_for_writing(flags), append };
        let file = File::new(descriptor, how, spot.grant().cloned(), made)?;
        self.handles.add_file(place, file, self.view.shown(path))
    }

    fn descriptor(
        &self,
        path: &[u8],
        spot: &Spot<'_>,
        flags: OpenFlags,
        system: OFlags,
        mode: Mode,
    ) -> Outcome<(OwnedFd, Made)> {
        let export = spot.export();
        let creates = export.is_some() && flags.contains(OpenFlags::WRITE | OpenFlags::CREATE);
        // To go on with a file (no truncation) is to change it where it is.
        let replaces = flags.intersects(OpenFlags::TRUNCATE | OpenFlags::EXCLUDE);
        if creates && export.is_some_and(Export::atomic) {
            let fresh =
                replaces || matches!(spot.hold(false), Err(fault) if fault == Fault::missing());
            if fresh {
                let (folder, name) = spot.entry()?.into_owned()?;
                let (upload, file) = Upload::open(folder, name, system, mode)?;
                return Ok((file, Made::Upload(upload)));
            }
        }
        // Only what was not there before goes again if there is no room for it.
        if creates && let Ok(file) = spot.open(system | OFlags::EXCL, mode) {
            return Ok((file, Made::File(path.to_vec())));
        }
        let Some(quota) = export.and_then(Export::quota) else {
            return Ok((spot.open(system, mode)?, Made::Nothing));
        };
        let descriptor = spot.open(system.difference(OFlags::TRUNC), mode)?;
        if system.contains(OFlags::TRUNC) {
            // What truncation frees is only known before.
            let freed = crate::upload::size(&descriptor)?;
            rustix::fs::ftruncate(&descriptor, 0)?;
            quota.give(freed);
        }
        Ok((descriptor, Made::Nothing))
    }

    /// Closes what is open, and records it.
    pub(crate) fn close(&self, open: &Open) -> Outcome<()> {
        match &open.thing {
            Thing::Folder(_) => Ok(()),
            Thing::File(file) => {
                let closed = file.close();
                let outcome = self.sweep(open).map_or(closed, Err);
                self.closed(open, outcome.as_ref().err().map(|fault| fault.message.to_string()));
                outcome
            }
        }
    }

    /// The same at the end of the session, where nobody waits for what it has to say.
    pub(crate) fn abandon(&self, open: &Open) {
        let ended =
            self.sweep(open).map_or_else(|| "the session ended".into(), |fault| fault.message);
        self.closed(open, Some(ended.into()));
    }

    /// Records the end of what is open; nothing of folders.
    fn closed(&self, open: &Open, reason: Option<String>) {
        if let Thing::File(file) = &open.thing {
            let (event, path) = ("sftp-close", open.shown.clone());
            let moved = Some(file.moved());
            self.trail.record(Deed { event, path, reason, moved, ..Deed::default() });
        }
    }

    fn stat(&self, path: &[u8], follow: bool) -> Outcome<Reply> {
        let spot = self.view.locate(path)?;
        if matches!(spot, Spot::Root) {
            return Ok(Reply::Attributes(folder::root()));
        }
        let stat = match &spot {
            Spot::Account { base, path } => {
                let flags = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
                statat(base.folder(), *path, flags)?
            }
            _ => fstat(spot.hold(follow)?)?,
        };
        Ok(Reply::Attributes(attributes(&stat)))
    }

    fn set_stat(&self, path: &[u8], wanted: &FileAttributes, follow: bool) -> Outcome<Reply> {
        let change = || {
            let spot = self.view.locate(path)?;
            spot.writable()?;
            let held = spot.hold(follow)?;
            change::apply(&Change::Path { spot: &spot, held, follow }, wanted, spot.export())
        };
        self.did("sftp-setstat", path, change())
    }

    /// The same to what is open. How it was opened does not matter: a descriptor that only
    /// reads changes modes and times all the same.
    fn set_open(&self, open: &Open, wanted: &FileAttributes) -> Outcome<Reply> {
        let outcome = open.file().and_then(|file| {
            file.writable()?;
            file.change(wanted)
        });
        let deed = || Deed { event: "sftp-setstat", path: open.shown.clone(), ..Deed::default() };
        self.audit(outcome, deed).map(|()| Reply::Done)
    }

    fn open_folder(&self, path: &[u8]) -> Outcome<Reply> {
        let place = self.handles.place()?;
        let spot = self.view.locate(path)?;
        spot.readable()?;
        let folder = match spot {
            Spot::Root => Folder::of_exports(self.view.grants(), &self.names),
            spot => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK;
                Folder::real(spot.open(flags, Mode::empty())?)?
            }
        };
        Ok(Reply::Handle(self.handles.add_folder(place, folder, self.view.shown(path))))
    }

    fn remove(&self, path: &[u8]) -> Outcome<Reply> {
        self.did("sftp-remove", path, self.unlink(path, AtFlags::empty()))
    }

    fn remove_folder(&self, path: &[u8]) -> Outcome<Reply> {
        self.did("sftp-rmdir", path, self.unlink(path, AtFlags::REMOVEDIR))
    }

    fn unlink(&self, path: &[u8], flags: AtFlags) -> Outcome<()> {
        let spot = self.view.locate(path)?;
        spot.writable()?;
        let entry = spot.entry()?;
        // Its room comes back with the last who has it open.
        let _held = Held::named(spot.export(), &entry, &entry.name)?;
        Ok(unlinkat(&entry, entry.name.as_slice(), flags)?)
    }

    fn make_folder(&self, path: &[u8], attributes: &FileAttributes) -> Outcome<Reply> {
        let make = || {
            let spot = self.view.locate(path)?;
            spot.writable()?;
            let (entry, mode) = (spot.entry()?, mode_of(attributes, 0o777, &spot));
            let make = |mode| Ok(mkdirat(&entry, entry.name.as_slice(), mode)?);
            match limited(spot.export()) {
                // What cannot be looked into cannot be counted.
                Some((export, quota)) => {
                    quota.shape(export.root(), entry.as_fd(), None, || make(mode | Mode::RWXU))
                }
                None => make(mode),
            }
        };
        self.did("sftp-mkdir", path, make())
    }

    fn real_path(&self, path: &[u8]) -> Outcome<Reply> {
        let path = if path.is_empty() { b"." } else { path };
        Ok(Reply::Names(vec![Name::path(self.view.real_path(path)?)]))
    }

    fn rename(&self, from: &[u8], to: &[u8], replace: bool) -> Outcome<Reply> {
        let outcome = self.try_rename(from, to, replace);
        self.did_two("sftp-rename", from, self.view.shown(to), outcome)
    }

    fn try_rename(&self, from: &[u8], to: &[u8], replace: bool) -> Outcome<()> {
        let (source, target) = (self.view.locate(from)?, self.view.locate(to)?);
        source.writable()?;
        target.writable()?;
        let across = source.export().map(Export::name) != target.export().map(Export::name);
        if across {
            // There it could be read.
            source.readable()?;
        }
        let (old, new) = (source.entry()?, target.entry()?);
        let (old_name, new_name) = (old.name.as_slice(), new.name.as_slice());
        let act = || match replace {
            true => Ok(renameat(&old, old_name, &new, new_name)?),
            false => Ok(rename_to_new(&old, old_name, &new, new_name)?),
        };
        let stat = statat(&old, old_name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let size = match kind {
            FileType::RegularFile => u64::try_from(stat.st_size).unwrap_or(0),
            _ => 0,
        };
        if across && kind == FileType::RegularFile && stat.st_nlink > 1 {
            countable(&source, &target)?;
        }
        let _replaced = Held::named(target.export().filter(|_| replace), &new, &new.name)?;
        if let Some((export, quota)) = limited(target.export()) {
            match (kind, across) {
                // What is in it is not known: clients copy it then.
                (FileType::Directory, true) => return Err(Errno::XDEV.into()),
                (FileType::Directory, false) => {
                    let moved = quota::folder(&old, old_name)?;
                    quota.shape(export.root(), new.as_fd(), Some((old.as_fd(), moved)), act)?;
                }
                (_, true) => {
                    quota.take(export.root(), size)?;
                    act().inspect_err(|_| quota.give(size))?;
                }
                (_, false) => act()?,
            }
        } else {
            act()?;
        }
        if let Some((_, quota)) = limited(source.export()).filter(|_| across) {
            quota.give(size);
        }
        Ok(())
    }

    fn read_link(&self, path: &[u8]) -> Outcome<Reply> {
        let spot = self.view.locate(path)?;
        spot.readable()?;
        let entry = spot.entry()?;
        let target = readlinkat(&entry, entry.name.as_slice(), Vec::new())?;
        Ok(Reply::Names(vec![Name::path(target.into_bytes())]))
    }

    fn symlink(&self, target: &[u8], link: &[u8]) -> Outcome<Reply> {
        let make = || {
            let spot = self.view.locate(link)?;
            spot.writable()?;
            if spot.export().is_some() && !path::leads_down(target) {
                return Err(Fault::denied("a link in an export leads down from where it is"));
            }
            let entry = spot.entry()?;
            Ok(symlinkat(target, &entry, entry.name.as_slice())?)
        };
        let shown = String::from_utf8_lossy(target).into_owned();
        self.did_two("sftp-symlink", link, shown, make())
    }

    fn hard_link(&self, from: &[u8], to: &[u8]) -> Outcome<Reply> {
        let link = || {
            let (source, target) = (self.view.locate(from)?, self.view.locate(to)?);
            // A second name is a second way to write to the file.
            source.writable()?;
            source.readable()?;
            target.writable()?;
            if source.export().map(Export::name) != target.export().map(Export::name) {
                countable(&source, &target)?;
            }
            let (old, new) = (source.entry()?, target.entry()?);
            let flags = AtFlags::empty();
            Ok(linkat(&old, old.name.as_slice(), &new, new.name.as_slice(), flags)?)
        };
        self.did_two("sftp-link", to, self.view.shown(from), link())
    }

    fn usage(&self, path: &[u8]) -> Outcome<Reply> {
        let spot = self.view.locate(path)?;
        usage(&fstatvfs(spot.hold(true)?)?, spot.export())
    }

    fn limits(&self) -> LimitsExtension {
        LimitsExtension {
            max_packet_len: MAX_PACKET as u64,
            max_read_len: MAX_DATA as u64,
            max_write_len: MAX_DATA as u64,
            max_open_handles: self.limits.handles as u64,
        }
    }

    /// `~` is where the session started; `~NAME` is somebody's home.
    fn expand(&self, path: &[u8]) -> Outcome<Reply> {
        let Some(tilde) = path.strip_prefix(b"~") else { return self.real_path(path) };
        let end = tilde.iter().position(|byte| *byte == b'/').unwrap_or(tilde.len());
        let (name, rest) = tilde.split_at(end);
        let home = match (self.view.base(), name) {
            (None, b"") => b"/".to_vec(),
            (None, _) => return Err(Fault::missing()),
            (Some(base), b"") => base.path().to_vec(),
            (Some(_), name) => home_of(name).ok_or_else(Fault::missing)?,
        };
        self.real_path(&[&home, rest].concat())
    }

    fn home(&self, account: &[u8]) -> Outcome<Reply> {
        let home = match (self.view.base(), account) {
            (None, b"") => b"/".to_vec(),
            (None, _) => return Err(Fault::missing()),
            (Some(_), b"") => own_home().ok_or_else(|| Fault::failure("no home directory"))?,
            (Some(_), name) => home_of(name).ok_or_else(|| Fault::failure("no such account"))?,
        };
        Ok(Reply::Names(vec![Name::path(home)]))
    }

    /// The names of accounts and groups by numbers, an empty one where there is none.
    fn names_of(&self, users: &[u8], groups: &[u8]) -> Outcome<Reply> {
        if self.view.base().is_none() {
            return Err(Fault::unsupported());
        }
        let list = |ids: &[u8], name: &dyn Fn(u32) -> Option<String>| {
            let ids = ids.as_chunks::<4>().0.iter().map(|id| u32::from_be_bytes(*id));
            let names: Vec<String> = ids.map(|id| name(id).unwrap_or_default()).collect();
            strings(names.iter().map(String::as_str))
        };
        let users = list(users, &|id| self.names.user(id));
        let groups = list(groups, &|id| self.names.group(id));
        if users.len() + groups.len() > MAX_DATA {
            return Err(Fault::failure("too many names at once"));
        }
        Ok(Reply::Accounts(users, groups))
    }

    /// Copies the next piece of what is asked for.
    fn copy(&self, copy: &CopyData, copied: &mut Copied) -> Outcome<()> {
        let (from, to): (Arc<Open>, _) =
            (self.handles.find(&copy.from)?, self.handles.find(&copy.to)?);
        if from.lane == to.lane {
            return Err(Fault::failure("the two handles are of the same file"));
        }
        let left = match copy.length {
            0 => u64::MAX,
            length => length.saturating_sub(copied.bytes),
        };
        let offset = |start: u64| start.checked_add(copied.bytes).ok_or(Errno::FBIG);
        let (source, target) = (from.file()?, to.file()?);
        let count =
            source.copy(offset(copy.from_offset)?, left, target, offset(copy.to_offset)?)?;
        *copied = Copied { bytes: copied.bytes + count, more: count > 0 && count < left };
        Ok(())
    }
}

/// The export, and its quota.
fn limited(export: Option<&Export>) -> Option<(&Export, &Quota)> {
    export.and_then(|export| Some((export, export.quota()?)))
}

/// Fails unless a file may have names in both: a quota counts it once, however many it has, and
/// could not tell which name in its export is the last.
fn countable(one: &Spot<'_>, other: &Spot<'_>) -> Outcome<()> {
    match limited(one.export()).or_else(|| limited(other.export())) {
        None => Ok(()),
        Some((export, _)) => Err(Fault::failure(format!(
            "{} has a quota: a file with several names is in one export alone",
            export.name()
        ))),
    }
}

/// Renames to a name that nobody has.
fn rename_to_new(
    old: &crate::view::Entry<'_>,
    old_name: &[u8],
    new: &crate::view::Entry<'_>,
    new_name: &[u8],
) -> Result<(), Errno> {
    match renameat_with(old, old_name, new, new_name, RenameFlags::NOREPLACE) {
        // A file system that cannot: look first, as OpenSSH does.
        Err(Errno::INVAL | Errno::NOSYS) => {
            match statat(new, new_name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => renameat(old, old_name, new, new_name),
                Ok(_) => Err(Errno::EXIST),
                Err(errno) => Err(errno),
            }
        }
        outcome => outcome,
    }
}

/// What is told of a file system. An export with a quota is as large as that.
fn usage(system: &StatVfs, export: Option<&Export>) -> Outcome<Reply> {
    let mut usage = Statvfs {
        block_size: system.f_bsize,
        fragment_size: system.f_frsize,
        blocks: system.f_blocks,
        blocks_free: system.f_bfree,
        blocks_avail: system.f_bavail,
        inodes: system.f_files,
        inodes_free: system.f_ffree,
        inodes_avail: system.f_favail,
        fs_id: system.f_fsid,
        // The protocol has two of the flags (PROTOCOL, section 4.4): read-only and nosuid.
        flags: system.f_flag.bits() & 3,
        name_max: system.f_namemax,
    };
    if let Some((export, quota)) = export.and_then(|export| Some((export, export.quota()?))) {
        let (limit, free) = quota.room(export.root())?;
        let blocks = |bytes: u64| bytes / usage.fragment_size.max(1);
        usage.blocks = blocks(limit);
        usage.blocks_free = blocks(free).min(usage.blocks_free);
        usage.blocks_avail = blocks(free).min(usage.blocks_avail);
    }
    Ok(Reply::Usage(usage))
}

fn home_of(name: &[u8]) -> Option<Vec<u8>> {
    let user = User::from_name(std::str::from_utf8(name).ok()?).ok()??;
    Some(user.dir.as_os_str().as_bytes().to_vec())
}

fn own_home() -> Option<Vec<u8>> {
    let user = User::from_uid(nix::unistd::geteuid()).ok()??;
    Some(user.dir.as_os_str().as_bytes().to_vec())
}
