//! How much a folder may hold.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError},
    time::{Duration, Instant},
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, openat, statat},
    io::Errno,
};

use crate::{
    export::Export,
    fault::{Fault, Outcome},
};

/// How long a count is good for. What others do to the folder is seen then.
const FRESH: Duration = Duration::from_secs(60);
/// How long it stands where there is no room: files may have gone.
const SOON: Duration = Duration::from_secs(5);
/// How deep folders are counted. No client makes a deeper one in a folder with a quota.
pub(crate) const DEEPEST: usize = 128;
/// How many times as long as counting takes the count stands at least.
const REST: u32 = 10;
/// Folders that are looked at before one is moved deeper.
const LOOKED_AT: usize = 10_000;

/// A bound on the sum of the sizes of all files in a folder.
///
/// It is counted when it is first needed and from time to time, and kept up to date by what
/// passes through here in between. A file that is open counts even when it has no name: its
/// room comes back when nobody has it open any more.
#[derive(Debug)]
pub(crate) struct Quota {
    limit: u64,
    books: Mutex<Books>,
    /// Who counts.
    counting: Mutex<()>,
    /// Who makes folders or moves them.
    shaping: Mutex<()>,
}

#[derive(Debug, Default)]
struct Books {
    count: Option<Count>,
    /// Room taken since the count that is under way was begun.
    meanwhile: u64,
    open: HashMap<Id, (Arc<OwnedFd>, usize)>,
}

/// A file, by its device and number.
type Id = (u64, u64);

#[derive(Debug)]
struct Count {
    bytes: u64,
    taken: Instant,
    /// How long it took.
    cost: Duration,
}

impl Count {
    fn is_good(&self, age: Duration) -> bool {
        self.taken.elapsed() <= age.max(self.cost * REST)
    }
}

/// A file of an export that is open. What has no name when nobody holds it any more gives its
/// room back.
#[derive(Debug)]
pub(crate) struct Held {
    export: Export,
    id: Id,
    file: Arc<OwnedFd>,
}

impl Held {
    /// Holds a file, if it is in an export with a quota.
    pub(crate) fn new(export: Option<&Export>, file: &Arc<OwnedFd>) -> Outcome<Option<Self>> {
        let Some((export, quota)) = export.and_then(|export| Some((export, export.quota()?)))
        else {
            return Ok(None);
        };
        let stat = fstat(file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        let id = (stat.st_dev, stat.st_ino);
        let mut books = quota.books();
        books.open.entry(id).or_insert_with(|| (file.clone(), 0)).1 += 1;
        Ok(Some(Self { export: export.clone(), id, file: file.clone() }))
    }

    /// Holds what has this name, if anything has: it is about to lose it.
    pub(crate) fn named(
        export: Option<&Export>,
        folder: impl AsFd,
        name: &[u8],
    ) -> Outcome<Option<Self>> {
        if export.and_then(Export::quota).is_none() {
            return Ok(None);
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(folder, name, flags, Mode::empty()) {
            Ok(file) => Self::new(export, &Arc::new(file)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(quota) = self.export.quota() else { return };
        let mut books = quota.books();
        let Entry::Occupied(mut open) = books.open.entry(self.id) else { return };
        open.get_mut().1 -= 1;
        if open.get().1 > 0 {
            return;
        }
        open.remove();
        if let (Some(size), Some(count)) = (nameless(&self.file), books.count.as_mut()) {
            count.bytes = count.bytes.saturating_sub(size);
        }
    }
}

/// The size of a file that has no name.
fn nameless(file: &OwnedFd) -> Option<u64> {
    let stat = fstat(file).ok()?;
    (stat.st_nlink == 0).then(|| u64::try_from(stat.st_size).unwrap_or(0))
}

impl Quota {
    pub(crate) fn new(limit: u64) -> Self {
        let (books, counting, shaping) = Default::default();
        Self { limit, books, counting, shaping }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes room for so many bytes more. Blocks for the disk where they have to be counted.
    pub(crate) fn take(&self, root: BorrowedFd<'_>, bytes: u64) -> Outcome<()> {
        if bytes == 0 {
            return Ok(());
        }
        self.count(root, FRESH)?;
        if !self.try_take(bytes) {
            self.count(root, SOON)?;
            if !self.try_take(bytes) {
                return Err(Fault::full(format!("quota of {} bytes exceeded", self.limit)));
            }
        }
        Ok(())
    }

    fn try_take(&self, more: u64) -> bool {
        let mut books = self.books();
        let Some(count) = books.count.as_mut() else { return false };
        let sum = count.bytes.checked_add(more).filter(|sum| *sum <= self.limit);
        let Some(sum) = sum else { return false };
        count.bytes = sum;
        books.meanwhile = books.meanwhile.saturating_add(more);
        true
    }

    /// Sees to a count of this age. One thread counts, and others go by what was counted
    /// before; they wait where there is nothing yet.
    fn count(&self, root: BorrowedFd<'_>, age: Duration) -> Outcome<()> {
        let good = || self.books().count.as_ref().map(|count| count.is_good(age));
        let _turn = match good() {
            Some(true) => return Ok(()),
            None => self.counting.lock().unwrap_or_else(PoisonError::into_inner),
            Some(false) => match self.counting.try_lock() {
                Ok(turn) => turn,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return Ok(()),
            },
        };
        if good() == Some(true) {
            return Ok(());
        }
        self.books().meanwhile = 0;
        let begun = Instant::now();
        let before = self.nameless();
        let named = measure(root).map_err(|errno| {
            tracing::warn!(%errno, "an export could not be counted for its quota");
            Fault::failure("the quota cannot be told: the folder could not be counted")
        })?;
        let after = self.nameless();
        let mut books = self.books();
        // What got or lost its name meanwhile may be counted twice, and is never left out.
        let unnamed: u64 =
            before.into_iter().chain(after).collect::<HashMap<_, _>>().values().sum();
        let bytes = named.saturating_add(unnamed).saturating_add(books.meanwhile);
        books.count = Some(Count { bytes, taken: Instant::now(), cost: begun.elapsed() });
        Ok(())
    }

    /// The open files without a name, and how large they are.
    fn nameless(&self) -> HashMap<Id, u64> {
        let open: Vec<_> =
            self.books().open.iter().map(|(id, (file, _))| (*id, file.clone())).collect();
        open.into_iter().filter_map(|(id, file)| Some((id, nameless(&file)?))).collect()
    }

    /// Gives room back.
    pub(crate) fn give(&self, bytes: u64) {
        if let Some(count) = self.books().count.as_mut() {
            count.bytes = count.bytes.saturating_sub(bytes);
        }
    }

    /// The limit, and how much of it is free. Blocks for the disk as [`take`](Self::take).
    pub(crate) fn room(&self, root: BorrowedFd<'_>) -> Outcome<(u64, u64)> {
        self.count(root, FRESH)?;
        let used = self.books().count.as_ref().map_or(self.limit, |count| count.bytes);
        Ok((self.limit, self.limit.saturating_sub(used)))
    }

    /// Makes or moves a folder with `shape`, if what comes to be in `parent` will not be too
    /// deep to be counted; `moved` is the folder and where it is now. One at a time, so that
    /// no two together make what neither may.
    pub(crate) fn shape<T>(
        &self,
        root: BorrowedFd<'_>,
        parent: BorrowedFd<'_>,
        moved: Option<(BorrowedFd<'_>, Dir)>,
        shape: impl FnOnce() -> Outcome<T>,
    ) -> Outcome<T> {
        let _turn = self.shaping.lock().unwrap_or_else(PoisonError::into_inner);
        let depth_there = depth(root, parent)?;
        let room = DEEPEST.saturating_sub(depth_there + 1);
        let too_deep = match moved {
            // Where it is no deeper than before, it need not be looked through.
            Some((from, moved)) => depth(root, from)? < depth_there && !fits(moved, room),
            None => room == 0,
        };
        if too_deep {
            return Err(Fault::failure("folders here do not go that deep"));
        }
        shape()
    }
}

/// How many folders a folder is beneath another; [`DEEPEST`] if that is more.
fn depth(root: BorrowedFd<'_>, folder: BorrowedFd<'_>) -> Outcome<usize> {
    let id = |folder: BorrowedFd<'_>| fstat(folder).map(|stat| (stat.st_dev, stat.st_ino));
    let root = id(root)?;
    let mut at = folder.try_clone_to_owned().map_err(|_| Errno::MFILE)?;
    for depth in 0..DEEPEST {
        if id(at.as_fd())? == root {
            return Ok(depth);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        at = openat(&at, "..", flags, Mode::empty())?;
    }
    Ok(DEEPEST)
}

/// Whether a folder with all that is in it is at most `room` deep, and can be looked through.
fn fits(moved: Dir, room: usize) -> bool {
    let (mut open, mut seen) = (vec![moved], 0);
    while let Some(dir) = open.last_mut() {
        let Some(entry) = dir.read() else {
            open.pop();
            continue;
        };
        let (Ok(entry), Ok(at)) = (entry, dir.fd()) else { return false };
        let name = entry.file_name();
        let unsure = matches!(entry.file_type(), FileType::Directory | FileType::Unknown);
        if matches!(name.to_bytes(), b"." | b"..") || !unsure {
            continue;
        }
        match folder(at, name) {
            Ok(inner) => open.push(inner),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            Err(_) => return false,
        }
        seen += 1;
        if open.len() > room || seen > LOOKED_AT {
            return false;
        }
    }
    true
}

/// The sizes of all files beneath a folder. A file with several names counts once: another
/// name takes no room, and to lose one of several gives none back.
fn measure(root: BorrowedFd<'_>) -> Result<u64, Errno> {
    let (mut sum, mut seen) = (0u64, HashSet::new());
    let mut open = vec![folder(root, ".")?];
    while let Some(dir) = open.last_mut() {
        let Some(entry) = dir.read() else {
            open.pop();
            continue;
        };
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = match statat(dir.fd()?, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // Gone since it was listed.
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(errno),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                if stat.st_nlink > 1 && !seen.insert((stat.st_dev, stat.st_ino)) {
                    continue;
                }
                sum = sum.saturating_add(u64::try_from(stat.st_size).unwrap_or(0));
            }
            FileType::Directory => match folder(dir.fd()?, name) {
                Ok(_) if open.len() >= DEEPEST => return Err(Errno::LOOP),
                Ok(inner) => open.push(inner),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(errno),
            },
            _ => {}
        }
    }
    Ok(sum)
}

/// Opens a folder, following no link.
pub(crate) fn folder(at: impl AsFd, name: impl rustix::path::Arg) -> Result<Dir, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd: OwnedFd = openat(at, name, flags, Mode::empty())?;
    Dir::new(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_counted_links_are_not_followed_and_room_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), [0; 100]).unwrap();
        std::fs::create_dir_all(dir.path().join("x/y")).unwrap();
        std::fs::write(dir.path().join("x/y/b"), [0; 50]).unwrap();
        std::os::unix::fs::symlink("/usr", dir.path().join("x/link")).unwrap();
        std::fs::hard_link(dir.path().join("a"), dir.path().join("x/a")).unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        assert_eq!(measure(root.as_fd()), Ok(150));
        let quota = Quota::new(200);
        quota.take(root.as_fd(), 50).unwrap();
        let full = quota.take(root.as_fd(), 1).unwrap_err();
        assert_eq!(full.message, "quota of 200 bytes exceeded");
        assert!(quota.take(root.as_fd(), u64::MAX).is_err());
        quota.give(10);
        quota.take(root.as_fd(), 10).unwrap();
        assert_eq!(quota.room(root.as_fd()).unwrap(), (200, 0));
    }

    #[test]
    fn what_is_too_deep_to_count_lets_nothing_be_written() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("d/".repeat(DEEPEST + 1))).unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        assert!(Quota::new(1 << 30).take(root.as_fd(), 1).is_err());
    }
}
