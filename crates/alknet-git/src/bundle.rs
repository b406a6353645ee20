//! Bundles: a file with the whole of a repository, for clones to begin with (git's
//! `bundle-uri`).
//!
//! They are written beside the objects at a whole garbage collection, where the configuration
//! wants them, and advertised by protocol v2. The address is relative to that of the
//! repository, so it is `…/alknet/git/NAME/bundles/FILE` for who clones over HTTPS. A bundle
//! that has something to which no ref leads any more is taken away.

use std::{
    collections::HashMap,
    fs,
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _},
    path::Path,
};

use gix::ObjectId;

use crate::{
    engine::InstalledGit,
    repositories::{Allowance, Repository, RepositoryError, RunError, files::Folder, run},
};

/// The folder of bundles in a repository.
pub(crate) const FOLDER: &str = "bundles";
/// What the file of a bundle ends in.
const ENDING: &str = ".bundle";
/// A bundle that is being written, of the one who holds the lock of the garbage collection.
const PART: &str = "bundles/part";
/// The keys by which git advertises them: which one, and what is the same for all.
const ADDRESS: &str = "bundle.whole.uri";
const FIXED: [(&str, &str); 3] =
    [("uploadpack.advertiseBundleURIs", "true"), ("bundle.version", "1"), ("bundle.mode", "all")];
/// What git answers where a key that is to go is not there.
const NO_KEY: i32 = 5;
/// The longest list of refs that a bundle may begin with, in bytes.
const MAX_HEADER: u64 = 64 << 20;
/// With more branches than this that are not where a bundle has them, it is out of date.
const MAX_MOVED: usize = 1000;

/// A bundle of a repository, by the last word of its address, and how long it is; `None` if
/// there is none of this name. Waits for the disk.
pub(crate) fn open(repository: &Repository, name: &str) -> io::Result<Option<(File, u64)>> {
    if !is_name(name) {
        return Ok(None);
    }
    let Some(folder) = Folder::open(&repository.path)?.beneath(FOLDER)? else { return Ok(None) };
    let Some(file) = folder.file(name)? else { return Ok(None) };
    let length = file.metadata()?.len();
    Ok(Some((file, length)))
}

fn is_name(name: &str) -> bool {
    name.strip_suffix(ENDING).is_some_and(|number| {
        (1..=20).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// Whether a repository has any, or a part of one. Waits for the disk.
pub(crate) fn has_any(repository: &Path) -> bool {
    repository.join(FOLDER).exists()
}

/// Writes a bundle of all branches and tags and advertises it instead of the one before, which
/// stays for whoever has just been told of it. The caller holds the lock of the garbage
/// collection, here and below.
pub(crate) async fn write(
    git: &InstalledGit,
    repository: &Repository,
    allowance: Allowance,
) -> Result<(), RunError> {
    let command = |arguments: &[&str]| {
        let mut command = git.command(&repository.path);
        command.args(arguments);
        command
    };
    let newest = ["for-each-ref", "--count=1", "refs/heads", "refs/tags"];
    if run(command(&newest), allowance).await?.is_empty() {
        // There is no bundle of nothing.
        return Ok(());
    }
    fs::create_dir_all(repository.path.join(FOLDER)).map_err(RunError::Start)?;
    let create = ["bundle", "create", "--quiet", PART, "--branches", "--tags"];
    run(command(&create), allowance).await?;
    let moment = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
    let name = format!("{moment}{ENDING}");
    publish(&repository.path, &name).map_err(RunError::Start)?;
    // Relative to the address of the repository.
    let uri = format!("./{FOLDER}/{name}");
    for (key, value) in FIXED.into_iter().chain([(ADDRESS, uri.as_str())]) {
        run(command(&["config", "--file", "config", key, value]), allowance).await?;
    }
    remove_old(&repository.path).map_err(RunError::Start)?;
    // Refs may have gone meanwhile.
    drop_outdated(git, repository, allowance).await
}

/// Takes away those that have something to which no ref leads any more.
pub(crate) async fn drop_outdated(
    git: &InstalledGit,
    repository: &Repository,
    allowance: Allowance,
) -> Result<(), RunError> {
    let names = names(&repository.path).map_err(RunError::Start)?;
    let mut gone = Vec::new();
    for name in &names {
        if !is_current(git, repository, name, allowance).await? {
            gone.push(name);
        }
    }
    if gone.last().is_some_and(|gone| Some(*gone) == names.last()) {
        unadvertise(git, repository, allowance).await?;
    }
    let folder = repository.path.join(FOLDER);
    let removed = gone.into_iter().try_for_each(|name| fs::remove_file(folder.join(name)));
    removed.map_err(RunError::Start)
}

/// Takes away all of them.
pub(crate) async fn withdraw(
    git: &InstalledGit,
    repository: &Repository,
    allowance: Allowance,
) -> Result<(), RunError> {
    if !has_any(&repository.path) {
        return Ok(());
    }
    unadvertise(git, repository, allowance).await?;
    match fs::remove_dir_all(repository.path.join(FOLDER)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(RunError::Start(error)),
        _ => Ok(()),
    }
}

async fn unadvertise(
    git: &InstalledGit,
    repository: &Repository,
    allowance: Allowance,
) -> Result<(), RunError> {
    for key in [ADDRESS].into_iter().chain(FIXED.map(|(key, _)| key)) {
        let mut command = git.command(&repository.path);
        command.args(["config", "--file", "config", "--unset-all", key]);
        match run(command, allowance).await {
            Err(RunError::Failed { status, .. }) if status.code() == Some(NO_KEY) => {}
            done => done.map(drop)?,
        }
    }
    Ok(())
}

/// Whether refs lead to all that a bundle has.
async fn is_current(
    git: &InstalledGit,
    repository: &Repository,
    name: &str,
    allowance: Allowance,
) -> Result<bool, RunError> {
    let (of, path) = (repository.clone(), repository.path.join(FOLDER).join(name));
    let moved = tokio::task::spawn_blocking(move || moved(&of, &path)).await;
    let moved = moved.map_err(io::Error::other).and_then(|moved| moved);
    let Some(moved) = moved.map_err(RunError::Start)? else { return Ok(false) };
    if moved.is_empty() {
        return Ok(true);
    }
    let mut command = git.command(&repository.path);
    command.args(["rev-list", "--max-count=1"]).args(moved.iter().map(ToString::to_string));
    command.args(["--not", "--branches", "--tags", "--"]);
    match run(command, allowance).await {
        Ok(lost) => Ok(lost.is_empty()),
        // Some of it is not even here.
        Err(RunError::Failed { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The commits of branches that are not where a bundle has them; `None` if it has a tag that is
/// not there, or cannot be read. Waits for the disk.
fn moved(repository: &Repository, bundle: &Path) -> io::Result<Option<Vec<ObjectId>>> {
    let refs = refs(repository).map_err(io::Error::other)?;
    let lines = BufReader::new(File::open(bundle)?.take(MAX_HEADER)).split(b'\n');
    let mut moved = Vec::new();
    for line in lines {
        let line = line?;
        match line.as_slice() {
            // The pack begins.
            [] => return Ok(Some(moved).filter(|moved| moved.len() <= MAX_MOVED)),
            // What it is, and what it needs.
            [b'#' | b'@' | b'-', ..] => continue,
            _ => {}
        }
        let Some((id, name)) = head(&line) else { return Ok(None) };
        if refs.get(name) == Some(&id) {
            continue;
        }
        if !name.starts_with(b"refs/heads/") {
            return Ok(None);
        }
        moved.push(id);
    }
    Ok(None)
}

fn head(line: &[u8]) -> Option<(ObjectId, &[u8])> {
    let end = line.iter().position(|byte| *byte == b' ')?;
    let (id, name) = (line.get(..end)?, line.get(end + 1..)?);
    Some((ObjectId::from_hex(id).ok()?, name))
}

fn refs(repository: &Repository) -> Result<HashMap<Vec<u8>, ObjectId>, RepositoryError> {
    let failed = |error: gix::Error| RepositoryError::Refs(repository.name.clone(), error.into());
    let opened = repository.open()?;
    let all = opened.references().map_err(failed)?;
    let all = all.all().map_err(failed)?.filter_map(Result::ok);
    let named = all.filter_map(|reference| {
        let id = reference.try_id()?.detach();
        Some((reference.name().as_bstr().to_vec(), id))
    });
    Ok(named.collect())
}

fn publish(repository: &Path, name: &str) -> io::Result<()> {
    let (part, whole) = (repository.join(PART), repository.join(FOLDER).join(name));
    File::open(&part)?.sync_all()?;
    fs::rename(part, whole)?;
    File::open(repository.join(FOLDER))?.sync_all()
}

/// The names of the bundles, from the oldest to the newest.
fn names(repository: &Path) -> io::Result<Vec<String>> {
    let entries = repository.join(FOLDER).read_dir()?.filter_map(Result::ok);
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<_> = names.filter(|name| is_name(name)).collect();
    // Numbers, of which a longer one is more.
    names.sort_by(|one, other| one.len().cmp(&other.len()).then_with(|| one.cmp(other)));
    Ok(names)
}

/// Leaves the newest two.
fn remove_old(repository: &Path) -> io::Result<()> {
    let folder = repository.join(FOLDER);
    let names = names(repository)?;
    names.iter().rev().skip(2).try_for_each(|name| fs::remove_file(folder.join(name)))
}
