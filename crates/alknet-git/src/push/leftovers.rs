//! What a git that was killed leaves behind.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use crate::{
    lfs,
    repositories::{Repositories, RepositoryError},
};

/// How the folders begin where git keeps the objects of a push until it is decided.
const QUARANTINE: [&str; 2] = ["tmp_objdir-", "incoming-"];
/// How files end that git holds while it changes another.
const LOCK: &str = "lock";
/// How a file begins that keeps a new pack until its refs are there.
const KEPT: &[u8] = b"receive-pack ";
/// How files end that do so.
const KEEP: &str = "keep";
/// A lock that stays the same for so long is nobody's any more.
const STALE: Duration = Duration::from_secs(2);
/// What git locks beside the refs.
const LOCKED: [&str; 4] = ["HEAD.lock", "packed-refs.lock", "packed-refs.new", "shallow.lock"];

/// Takes away what killed processes have left in all repositories, while none runs: at the
/// start of a node. Waits for the disk.
pub(crate) fn sweep(repositories: &Repositories) -> Result<(), RepositoryError> {
    for name in repositories.names()? {
        let Some(repository) = repositories.get(&name)? else { continue };
        // Somebody may collect garbage meanwhile, and does this at the end.
        let Some(_alone) = repositories.hold_off_collection(&name) else { continue };
        clean(&repository.path);
    }
    Ok(())
}

fn clean(repository: &Path) {
    clean_quarantine(repository);
    clean_locks(&repository.join("refs"));
    LOCKED.iter().for_each(|name| remove_file(&repository.join(name)));
    lfs::sweep(repository);
}

/// Takes away the objects of pushes that were cut off, while there is no push. Waits for the
/// disk.
pub(crate) fn clean_quarantine(repository: &Path) {
    for (name, path) in entries(&repository.join("objects")) {
        let left = name
            .to_str()
            .is_some_and(|name| QUARANTINE.iter().any(|begin| name.starts_with(begin)));
        if left && let Err(error) = fs::remove_dir_all(&path) {
            tracing::warn!(path = %path.display(), %error, "objects of a broken push stay behind");
        }
    }
    for (_, path) in entries(&repository.join("objects/pack")) {
        let keeps = path.extension() == Some(OsStr::new(KEEP));
        if keeps && fs::read(&path).is_ok_and(|text| text.starts_with(KEPT)) {
            remove_file(&path);
        }
    }
}

/// Takes away the locks of refs that a git which was killed held: those which nobody gives up
/// for a while. Waits for that while, if there are any, and for the disk. What is locked for
/// all refs at once is taken away only where the caller is `alone`: a collection holds it for
/// long. The names are those of refs.
pub(crate) fn clean_locks_of(repository: &Path, refs: &[String], alone: bool) {
    let locks = refs.iter().map(|name| format!("{name}.{LOCK}"));
    let shared = LOCKED.iter().filter(|_| alone).map(|name| (*name).to_owned());
    let locks = locks.chain(shared).map(|name| repository.join(name));
    let held: Vec<_> = locks.filter_map(|path| Some((which(&path)?, path))).collect();
    if held.is_empty() {
        return;
    }
    thread::sleep(STALE);
    for (before, path) in held {
        if which(&path) == Some(before) {
            remove_file(&path);
        }
    }
}

/// Which file this is, and since when.
fn which(path: &Path) -> Option<(u64, u64, i64, i64)> {
    let it = fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file)?;
    Some((it.dev(), it.ino(), it.ctime(), it.ctime_nsec()))
}

/// Folders of refs are no links, and no deeper than names are long.
fn clean_locks(refs: &Path) {
    for (_, path) in entries(refs) {
        if is_folder(&path) {
            clean_locks(&path);
        } else if path.extension() == Some(OsStr::new(LOCK)) {
            remove_file(&path);
        }
    }
}

/// Takes away an object that is in a file of its own. Waits for the disk.
pub(super) fn remove_object(file: &Path) {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %file.display(), %error, "what was signed stays behind");
        }
        _ => {}
    }
}

fn remove_file(path: &Path) {
    match fs::remove_file(path) {
        Ok(()) => tracing::info!(path = %path.display(), "a lock was left behind"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(path = %path.display(), %error, "a lock stays behind"),
    }
}

fn entries(folder: &Path) -> Vec<(OsString, PathBuf)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.flatten().map(|entry| (entry.file_name(), entry.path())).collect()
}

fn is_folder(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|it| it.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repositories::Settings;

    #[test]
    fn only_locks_that_nobody_touches_are_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("refs/heads")).unwrap();
        let [left, held, other, all] =
            ["refs/heads/left.lock", "refs/heads/held.lock", "refs/heads/other.lock"]
                .into_iter()
                .chain(["packed-refs.lock"])
                .map(|name| {
                    fs::write(at(name), "").unwrap();
                    at(name)
                })
                .collect::<Vec<_>>()
                .try_into()
                .unwrap();
        let refs = ["refs/heads/left", "refs/heads/held"].map(str::to_owned);
        let clean = |alone| {
            thread::scope(|scope| {
                let cleans = scope.spawn(|| clean_locks_of(folder.path(), &refs, alone));
                while !cleans.is_finished() {
                    fs::write(&held, "more").unwrap();
                    thread::sleep(Duration::from_millis(10));
                }
            });
        };
        clean(false);
        assert!(!left.exists() && held.exists() && other.exists() && all.exists());
        clean(true);
        assert!(held.exists() && other.exists() && !all.exists());
    }

    #[test]
    fn a_start_leaves_alone_what_somebody_collects_garbage_in() {
        let folder = tempfile::tempdir().unwrap();
        let repositories = Repositories::open(folder.path()).unwrap();
        let name = "a".parse().unwrap();
        let lock = repositories.create(&name, &Settings::default()).unwrap().path.join("HEAD.lock");
        fs::write(&lock, "").unwrap();
        let collects = repositories.hold_off_collection(&name).unwrap();
        sweep(&repositories).unwrap();
        assert!(lock.exists());
        drop(collects);
        sweep(&repositories).unwrap();
        assert!(!lock.exists());
    }

    #[test]
    fn a_start_finds_no_objects_of_broken_pushes_and_no_locks() {
        let folder = tempfile::tempdir().unwrap();
        let repository = folder.path().join("team/a.git");
        let kept = ["objects/pack/pack-2.keep", "refs/heads/main", "refs/heads/deep/x"];
        let left = [
            "objects/tmp_objdir-incoming-Ab12/pack/x",
            "objects/incoming-Ab12/x",
            "refs/heads/main.lock",
            "refs/heads/deep/x.lock",
            "HEAD.lock",
            "packed-refs.lock",
            "objects/pack/pack-1.keep",
        ];
        for file in kept.iter().chain(&left) {
            let path = repository.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "receive-pack 1 on x").unwrap();
        }
        fs::write(repository.join(kept[0]), "mine").unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("x.lock"), "").unwrap();
        std::os::unix::fs::symlink(outside.path(), repository.join("refs/heads/link")).unwrap();
        clean(&repository);
        assert!(kept.iter().all(|file| repository.join(file).exists()));
        assert!(left.iter().all(|file| !repository.join(file).exists()));
        assert!(!repository.join("objects/incoming-Ab12").exists());
        assert!(outside.path().join("x.lock").exists(), "links are not followed");
    }
}
