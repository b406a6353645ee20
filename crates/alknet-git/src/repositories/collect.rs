//! Garbage collection: what makes clones fast and repositories small.
//!
//! Packs are combined by git itself (`git repack`), with bitmaps for clones and a commit-graph
//! for what walks history. Pushes may go on meanwhile: their objects are in a quarantine of
//! their own or young, and nothing young is dropped.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::{Duration, SystemTime},
};

use super::{
    Repository, RunError,
    overview::UPDATED,
    run::{Allowance, THREADS, run},
};
use crate::{bundle, engine::InstalledGit};

/// Held, in a repository, by whoever collects its garbage.
pub(super) const LOCK: &str = "alknet-gc.lock";
/// The file in a repository whose time is that of the last whole collection, or of the first
/// look where there was none.
const COLLECTED: &str = "alknet.collected";
/// How long after a whole collection the next one is due, if there is anything for it.
const WHOLE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// What nothing has led to for so long goes.
const EXPIRED: &str = "2.weeks.ago";
/// Where packs are.
const PACKS: &str = "objects/pack";
/// More packs than this are combined.
const MANY_PACKS: usize = 12;
/// A folder of loose objects is one of 256, and with more than this there are about a thousand.
const MANY_LOOSE: usize = 4;
/// A pack of this size is worth a bitmap.
const LARGE: u64 = 2 << 20;
/// Room for what a pack is longer than what it is made from: bitmaps, or deltas that are lost.
const BESIDE: u64 = 1 << 30;
/// A lock of git that nobody holds any more: no transaction of refs takes that long.
const STALE_LOCK: Duration = Duration::from_secs(60 * 60);
/// What is left of a push or a collection that was cut off; no push takes that long.
const STALE_PART: Duration = Duration::from_secs(24 * 60 * 60);

/// How much is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Small packs are combined, and large ones stay as they are.
    Quick,
    /// One pack of everything that is reachable; what has been unreachable for two weeks goes.
    Whole,
}

/// What garbage collection has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Collected {
    /// How many bytes the repository had before.
    pub before: u64,
    /// How many it has now.
    pub after: u64,
}

/// Collects garbage. The caller holds the lock. Dropped before its end, it leaves a repository
/// that is as good as before.
pub(super) async fn collect(
    git: &InstalledGit,
    repository: &Repository,
    depth: Depth,
    bundles: bool,
    deadline: Duration,
) -> Result<(), RunError> {
    let allowance = Allowance { time: deadline, file: longest(repository).await?, idle: None };
    let expiration = format!("--cruft-expiration={EXPIRED}");
    let packs: &[&str] = match depth {
        Depth::Quick => &["--geometric=2", "--write-midx"],
        Depth::Whole => &["--cruft", &expiration],
    };
    let graph = match depth {
        Depth::Quick => "--split",
        Depth::Whole => "--split=replace",
    };
    let refs = ["pack-refs", "--all"];
    let lookup = "pack.writeBitmapLookupTable=true";
    let repack = ["-c", lookup, "-c", THREADS, "repack", "-d", "-l", "-q"];
    let graph = ["commit-graph", "write", "--reachable", "--changed-paths", graph];
    for arguments in
        [refs.to_vec(), [&repack[..], packs, &["--write-bitmap-index"]].concat(), graph.to_vec()]
    {
        let mut command = git.command(&repository.path);
        command.args(arguments);
        run(command, allowance).await?;
    }
    if depth == Depth::Quick {
        return Ok(());
    }
    if has_loose(&repository.path) {
        let mut command = git.command(&repository.path);
        command.args(["prune", &format!("--expire={EXPIRED}")]);
        run(command, allowance).await?;
    }
    match bundles {
        true => bundle::write(git, repository, allowance).await,
        false => bundle::withdraw(git, repository, allowance).await,
    }
}

/// Puts the bundles in order without any collection: where they are `wanted`, those go that
/// have something to which no ref leads any more, else all. The caller holds the lock.
pub(super) async fn review_bundles(
    git: &InstalledGit,
    repository: &Repository,
    wanted: bool,
    deadline: Duration,
) -> Result<(), RunError> {
    let allowance = Allowance { time: deadline, file: BESIDE, idle: None };
    match wanted {
        true => bundle::drop_outdated(git, repository, allowance).await,
        false => bundle::withdraw(git, repository, allowance).await,
    }
}

/// How long a file becomes at most that is made from what is there, in bytes.
async fn longest(repository: &Repository) -> Result<u64, RunError> {
    let repository = repository.clone();
    let measured = tokio::task::spawn_blocking(move || repository.measure()).await;
    let failed = |error| RunError::Start(io::Error::other(error));
    let bytes = measured.map_err(io::Error::other).map_err(RunError::Start)?.map_err(failed)?;
    Ok(bytes.saturating_mul(2).saturating_add(BESIDE))
}

/// Whether there is enough for a quick collection, as git's own `gc --auto` asks. Waits for
/// the disk.
pub(super) fn is_due(repository: &Path) -> bool {
    let packs = count(repository, PACKS, ".pack");
    let unmapped = packs > 0 && count(repository, PACKS, ".bitmap") == 0;
    packs > MANY_PACKS
        || count(repository, "objects/17", "") > MANY_LOOSE
        || (unmapped && pack_bytes(repository) > LARGE)
}

/// Whether a whole collection is due: it is a week since the last one, and something has
/// changed since, or waits for its time to go. Waits for the disk.
pub(super) fn is_whole_due(repository: &Path) -> io::Result<bool> {
    let time_of = |name: &str| fs::metadata(repository.join(name))?.modified();
    let last = match time_of(COLLECTED) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            note_whole(repository)?;
            return Ok(false);
        }
        last => last?,
    };
    if SystemTime::now().duration_since(last).unwrap_or_default() < WHOLE {
        return Ok(false);
    }
    let changed = [PACKS, UPDATED].into_iter().any(|name| time_of(name).is_ok_and(|at| at > last));
    // Of packs of what nothing leads to.
    Ok(changed || has_loose(repository) || count(repository, PACKS, ".mtimes") > 0)
}

/// Notes that a whole collection was made, or tried. Waits for the disk.
pub(super) fn note_whole(repository: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    options.open(repository.join(COLLECTED))?.set_modified(SystemTime::now())
}

/// Whether there are objects outside of packs.
fn has_loose(repository: &Path) -> bool {
    let entries = repository.join("objects").read_dir().into_iter().flatten();
    let mut folders = entries.filter_map(Result::ok).filter(|entry| entry.file_name().len() == 2);
    folders.any(|folder| folder.path().read_dir().is_ok_and(|mut all| all.next().is_some()))
}

/// How many files in a folder of a repository end so.
fn count(repository: &Path, folder: &str, ending: &str) -> usize {
    let entries = repository.join(folder).read_dir().into_iter().flatten();
    let names = entries.filter_map(|entry| Some(entry.ok()?.file_name()));
    names.filter(|name| name.to_string_lossy().ends_with(ending)).count()
}

fn pack_bytes(repository: &Path) -> u64 {
    let entries = repository.join(PACKS).read_dir().into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum()
}

/// Removes what git's processes left that were killed: locks, which would keep others out for
/// ever, and parts of packs. By age alone, so that nothing in use is touched. Waits for the
/// disk.
pub(super) fn tidy(repository: &Path) -> io::Result<()> {
    let now = SystemTime::now();
    let older = |found: &fs::Metadata, age| {
        found.modified().is_ok_and(|at| now.duration_since(at).is_ok_and(|passed| passed > age))
    };
    let mut folders = vec![repository.join("refs")];
    for name in ["HEAD.lock", "packed-refs.lock", "packed-refs.new", "config.lock", "shallow.lock"]
    {
        let path = repository.join(name);
        if fs::symlink_metadata(&path).is_ok_and(|found| older(&found, STALE_LOCK)) {
            fs::remove_file(path)?;
        }
    }
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().into_iter().flatten().filter_map(Result::ok) {
            match entry.metadata() {
                Ok(found) if found.is_dir() => folders.push(entry.path()),
                // No ref has such a name.
                Ok(found)
                    if entry.file_name().as_encoded_bytes().ends_with(b".lock")
                        && older(&found, STALE_LOCK) =>
                {
                    fs::remove_file(entry.path())?;
                }
                _ => {}
            }
        }
    }
    for folder in ["objects", PACKS] {
        let entries = repository.join(folder).read_dir().into_iter().flatten();
        for entry in entries.filter_map(Result::ok) {
            let name = entry.file_name();
            let name = name.as_encoded_bytes();
            let is_part = name.starts_with(b"tmp_") || name.starts_with(b"incoming-");
            match entry.metadata() {
                Ok(found) if !is_part || !older(&found, STALE_PART) => {}
                Ok(found) if found.is_dir() => fs::remove_dir_all(entry.path())?,
                Ok(_) => fs::remove_file(entry.path())?,
                Err(_) => {}
            }
        }
    }
    Ok(())
}
