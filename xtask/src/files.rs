//! Files and folders as values.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use crate::sh;

/// A folder's files by path with `/`.
pub(crate) type Tree = BTreeMap<String, Vec<u8>>;

/// Every file below a folder.
pub(crate) fn read_tree(dir: &Path) -> Result<Tree> {
    let mut tree = Tree::new();
    collect(dir, "", &mut tree).with_context(|| format!("cannot read {}", dir.display()))?;
    Ok(tree)
}

fn collect(dir: &Path, prefix: &str, tree: &mut Tree) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &format!("{path}/"), tree)?;
        } else {
            tree.insert(path, fs::read(entry.path())?);
        }
    }
    Ok(())
}

/// Writes a file, and the folders above it.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}

/// Writes a file, unless it has this content already.
pub(crate) fn write_if_changed(path: &Path, content: &[u8]) -> Result<()> {
    match fs::read(path) {
        Ok(present) if present == content => Ok(()),
        _ => write(path, content),
    }
}

/// A parsed TOML file.
pub(crate) fn toml(path: &Path) -> Result<toml::Table> {
    let text = fs::read_to_string(path).with_context(|| format!("no {}", path.display()))?;
    text.parse().with_context(|| format!("bad TOML in {}", path.display()))
}

/// SHA-256 in hexadecimal over parts, each with its length, so that no two lists of parts
/// hash alike.
pub(crate) fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The repository's own files below `under` (`.` for all of them): what git tracks or
/// would track, so never a build product.
pub(crate) fn own(root: &Path, under: &str) -> Result<Vec<String>> {
    let list = ["ls-files", "--cached", "--others", "--exclude-standard", "--", under];
    let text = sh::Cmd::new(root, "git").args(list).read()?;
    let mut paths: Vec<_> =
        text.lines().filter(|path| root.join(path).is_file()).map(str::to_owned).collect();
    paths.sort();
    paths.dedup();
    Ok(paths)
}

/// A digest of the repository's own files below some folders.
pub(crate) fn own_digest(root: &Path, under: &[&str]) -> Result<String> {
    let mut tree = Tree::new();
    for dir in under {
        for path in own(root, dir)? {
            let content = fs::read(root.join(&path))?;
            tree.insert(path, content);
        }
    }
    Ok(digest(tree.iter().flat_map(|(path, content)| [path.as_bytes(), content.as_slice()])))
}

/// Says so where a file system has less room left than `needed`, in GiB: a compiler that
/// runs out of it fails in ways that do not name the cause.
pub(crate) fn warn_of_little_room(dir: &Path, needed: u64) -> Result<()> {
    let free = nix::sys::statvfs::statvfs(dir)?;
    let free = (free.blocks_available() * free.fragment_size()) >> 30;
    if free < needed {
        eprintln!("warning: {free} GiB of disk are free, and up to {needed} are needed");
    }
    Ok(())
}
