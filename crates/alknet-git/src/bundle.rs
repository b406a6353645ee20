//! Bundles: a file with the whole of a repository, for clones to begin with (git's
//! `bundle-uri`).
//!
//! They are written beside the objects at a whole garbage collection, where the configuration
//! wants them, and advertised by protocol v2. The address is relative to that of the
//! repository, so it is `…/alknet/git/NAME/bundles/FILE` for who clones over HTTPS.

use std::{fs, fs::File, io, path::Path};

use crate::{
    engine::InstalledGit,
    repositories::{Allowance, Repository, RunError, files::Folder, run},
};

/// The folder of bundles in a repository.
pub(crate) const FOLDER: &str = "bundles";
/// What the file of a bundle ends in.
const ENDING: &str = ".bundle";
/// A bundle that is being written, of the one who holds the lock of the garbage collection.
const PART: &str = "bundles/part";
/// The keys by which git advertises them.
const FIXED: [(&str, &str); 3] =
    [("uploadpack.advertiseBundleURIs", "true"), ("bundle.version", "1"), ("bundle.mode", "all")];

/// A bundle of a repository, by the last word of its address, and how long it is; `None` if
/// there is none of this name. Waits for the disk.
pub(crate) fn open(repository: &Repository, name: &str) -> io::Result<Option<(File, u64)>> {
    let is_name = name.strip_suffix(ENDING).is_some_and(|number| {
        (1..=20).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit())
    });
    if !is_name {
        return Ok(None);
    }
    let Some(folder) = Folder::open(&repository.path)?.beneath(FOLDER)? else { return Ok(None) };
    let Some(file) = folder.file(name)? else { return Ok(None) };
    let length = file.metadata()?.len();
    Ok(Some((file, length)))
}

/// Writes a bundle of all branches and tags and advertises it instead of the one before, which
/// stays for whoever has just been told of it. The caller holds the lock of the garbage
/// collection.
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
    for (key, value) in FIXED.into_iter().chain([("bundle.whole.uri", uri.as_str())]) {
        run(command(&["config", "--file", "config", key, value]), allowance).await?;
    }
    remove_old(&repository.path).map_err(RunError::Start)
}

fn publish(repository: &Path, name: &str) -> io::Result<()> {
    let (part, whole) = (repository.join(PART), repository.join(FOLDER).join(name));
    File::open(&part)?.sync_all()?;
    fs::rename(part, whole)?;
    File::open(repository.join(FOLDER))?.sync_all()
}

/// Leaves the newest two.
fn remove_old(repository: &Path) -> io::Result<()> {
    let folder = repository.join(FOLDER);
    let entries = folder.read_dir()?.filter_map(Result::ok);
    let mut names: Vec<_> = entries
        .map(|entry| entry.file_name())
        .filter(|name| name.as_encoded_bytes().ends_with(ENDING.as_bytes()))
        .collect();
    names.sort();
    names.iter().rev().skip(2).try_for_each(|name| fs::remove_file(folder.join(name)))
}
