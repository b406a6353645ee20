//! `.patched/russh`: the published crate with `patches/russh-*.patch` applied.
//!
//! The repository holds the patch and never the crate's source. Cargo fetches the crate
//! and its checksum is compared with `patches/checksums`, so that what is patched is what
//! was reviewed.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::Path,
    time::SystemTime,
};

use anyhow::{Context as _, Result, bail, ensure};
use diffy::patch_set::{FileOperation, ParseOptions, PatchSet};

use crate::{
    files::{self, Tree},
    sh,
};

const CRATE: &str = "russh";
const STAMP: &str = ".stamp";
/// Stands in the stamp while files are being replaced.
const UNFINISHED: &str = "unfinished";
/// Ends the stamp of a folder in which somebody has edited something.
const EDITED: &str = "edited";
/// Goes to the end of the crate's manifest, which has no such table.
const QUIET: &str = "\n[lints.rust]\nwarnings = \"allow\"\n";

/// Makes the folder, or leaves it alone where it is up to date.
pub(crate) fn patched_crates(root: &Path) -> Result<()> {
    let version = pinned_version(root)?;
    let patches = patches(root)?;
    let dir = root.join(".patched").join(CRATE);
    let wanted = inputs_digest(&version, &patches);
    let stamp = fs::read_to_string(dir.join(STAMP)).unwrap_or_default();
    if stamp.lines().next() == Some(&wanted) {
        return look(&dir, &stamp);
    }
    let mut tree = pristine(root, &version)?;
    for (name, patch) in &patches {
        apply(&mut tree, patch).with_context(|| format!("patches/{name} on {CRATE} {version}"))?;
    }
    quiet(&mut tree)?;
    replace(&dir, &tree, &stamp)?;
    let stamp = format!("{wanted}\n{}\n", digest(&tree));
    fs::write(dir.join(STAMP), stamp)?;
    eprintln!("made .patched/{CRATE} from {CRATE} {version} and {} patch(es)", patches.len());
    Ok(())
}

/// Looks whether a folder is as it was made. Edits are left alone; once they are gone, cargo
/// must not take what it has built with them for what is there.
fn look(dir: &Path, stamp: &str) -> Result<()> {
    let mut present = files::read_tree(dir)?;
    present.remove(STAMP);
    let lines: Vec<&str> = stamp.lines().collect();
    let (made, was_edited) = (lines.get(1).copied(), lines.contains(&EDITED));
    let edited = made != Some(&digest(&present));
    if edited {
        eprintln!("{} was edited by hand: what is built has the edits", dir.display());
    } else if was_edited {
        touch(dir, &present)?;
    }
    if edited != was_edited {
        let mark = if edited { format!("{EDITED}\n") } else { String::new() };
        let lines = lines.iter().filter(|line| **line != EDITED);
        let kept: String = lines.map(|line| format!("{line}\n")).collect();
        fs::write(dir.join(STAMP), kept + &mark)?;
    }
    Ok(())
}

/// Makes files new to cargo, which goes by their times: they can be older than what it built
/// of other contents.
fn touch(dir: &Path, tree: &Tree) -> Result<()> {
    let now = SystemTime::now();
    for path in tree.keys() {
        File::options().append(true).open(dir.join(path))?.set_modified(now)?;
    }
    Ok(())
}

fn pinned_version(root: &Path) -> Result<String> {
    let manifest = files::toml(&root.join("Cargo.toml"))?;
    let version = manifest
        .get("workspace")
        .and_then(|table| table.get("dependencies"))
        .and_then(|table| table.get(CRATE))
        .and_then(|table| table.get("version"))
        .and_then(toml::Value::as_str);
    version.map(str::to_owned).with_context(|| format!("Cargo.toml pins no version of {CRATE}"))
}

/// The patches of the crate by file name, in order.
fn patches(root: &Path) -> Result<BTreeMap<String, String>> {
    let dir = root.join("patches");
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("no folder {}", dir.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(&format!("{CRATE}-")) && name.ends_with(".patch") {
            found.insert(name, fs::read_to_string(&path)?);
        }
    }
    ensure!(!found.is_empty(), "no patches/{CRATE}-*.patch");
    Ok(found)
}

fn inputs_digest(version: &str, patches: &BTreeMap<String, String>) -> String {
    let parts = patches.iter().flat_map(|(name, patch)| [name.as_bytes(), patch.as_bytes()]);
    files::digest([version.as_bytes(), QUIET.as_bytes()].into_iter().chain(parts))
}

/// The published source, as cargo downloads and verifies it.
fn pristine(root: &Path, version: &str) -> Result<Tree> {
    let dir = root.join("target/xtask").join(CRATE);
    fs::create_dir_all(dir.join("src"))?;
    let manifest = format!(
        "[package]\nname = \"pristine\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
         [workspace]\n\n[dependencies.{CRATE}]\nversion = \"={version}\"\n\
         default-features = false\n"
    );
    files::write_if_changed(&dir.join("Cargo.toml"), manifest.as_bytes())?;
    files::write_if_changed(&dir.join("src/lib.rs"), b"")?;
    // The main workspace's lock keeps the rest of the resolution to crates that it needs
    // as well.
    let lock = dir.join("Cargo.lock");
    if !lock.exists() {
        fs::copy(root.join("Cargo.lock"), &lock)?;
    }
    let metadata = sh::cargo(&dir, ["metadata", "--format-version=1"]).read()?;
    verify_checksum(root, &lock, version)?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let manifest = metadata
        .get("packages")
        .and_then(serde_json::Value::as_array)
        .into_iter()
        .flatten()
        .find(|package| package.get("name").is_some_and(|name| name == CRATE))
        .and_then(|package| package.get("manifest_path")?.as_str())
        .with_context(|| format!("cargo metadata lists no {CRATE}"))?;
    let source = Path::new(manifest).parent().context("a manifest lies in a folder")?;
    let mut tree = files::read_tree(source)?;
    // Cargo's own mark that it unpacked the crate.
    tree.remove(".cargo-ok");
    Ok(tree)
}

/// Compares the checksum that cargo verified with the one in `patches/checksums`.
fn verify_checksum(root: &Path, lock: &Path, version: &str) -> Result<()> {
    let lock = files::toml(lock)?;
    let field = |package: &toml::Value, name| package.get(name)?.as_str().map(str::to_owned);
    let actual = lock
        .get("package")
        .and_then(toml::Value::as_array)
        .into_iter()
        .flatten()
        .filter(|package| field(package, "name").as_deref() == Some(CRATE))
        .find(|package| field(package, "version").as_deref() == Some(version))
        .and_then(|package| field(package, "checksum"))
        .with_context(|| format!("cargo locked no {CRATE} {version} with a checksum"))?;
    let expected = format!("{actual}  {CRATE}-{version}.crate");
    let known = fs::read_to_string(root.join("patches/checksums")).unwrap_or_default();
    if !known.lines().any(|line| line == expected) {
        bail!(
            "{CRATE} {version} is not the crate that was reviewed: no line {expected:?} in \
             patches/checksums"
        );
    }
    Ok(())
}

/// Applies a multi-file unified diff with paths that begin `a/` and `b/`.
fn apply(tree: &mut Tree, patch: &str) -> Result<()> {
    for part in PatchSet::parse(patch, ParseOptions::unidiff()) {
        let part = part?;
        let operation = part.operation().strip_prefix(1);
        let patch = part.patch().as_text().context("a binary patch")?;
        match operation {
            FileOperation::Modify { original, modified } if original == modified => {
                let file = tree.get_mut(&*original).with_context(|| format!("no {original}"))?;
                let text = std::str::from_utf8(file)?;
                let patched = diffy::apply(text, patch).with_context(|| original.to_string())?;
                *file = patched.into_bytes();
            }
            FileOperation::Create(path) => {
                tree.insert(path.to_string(), diffy::apply("", patch)?.into_bytes());
            }
            FileOperation::Delete(path) => {
                tree.remove(&*path).with_context(|| format!("no {path}"))?;
            }
            FileOperation::Modify { .. }
            | FileOperation::Rename { .. }
            | FileOperation::Copy { .. } => bail!("a patch that renames: {operation:?}"),
        }
    }
    Ok(())
}

/// Cargo shows the warnings of a crate that lies in a folder, and these are not ours.
fn quiet(tree: &mut Tree) -> Result<()> {
    let manifest = tree.get_mut("Cargo.toml").context("no Cargo.toml")?;
    let lints = b"\n[lints";
    ensure!(!manifest.windows(lints.len()).any(|at| at == lints), "Cargo.toml has lints by now");
    manifest.extend_from_slice(QUIET.as_bytes());
    Ok(())
}

/// Makes the folder hold exactly `tree`, all of it new to cargo. Edits by hand are an error,
/// not lost.
fn replace(dir: &Path, tree: &Tree, stamp: &str) -> Result<()> {
    let mut present = if dir.exists() { files::read_tree(dir)? } else { Tree::new() };
    present.remove(STAMP);
    let made_here =
        stamp.starts_with(UNFINISHED) || stamp.lines().nth(1) == Some(&digest(&present));
    if !present.is_empty() && !made_here && present != *tree {
        bail!(
            "{} was edited by hand: save the edits as a patch, then delete the folder",
            dir.display()
        );
    }
    fs::create_dir_all(dir)?;
    fs::write(dir.join(STAMP), UNFINISHED)?;
    for path in present.keys().filter(|path| !tree.contains_key(*path)) {
        fs::remove_file(dir.join(path))?;
    }
    for (path, content) in tree {
        if present.get(path) != Some(content) {
            files::write(&dir.join(path), content)?;
        }
    }
    touch(dir, tree)
}

fn digest(tree: &Tree) -> String {
    files::digest(tree.iter().flat_map(|(path, content)| [path.as_bytes(), content.as_slice()]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panic")]

    use std::time::Duration;

    use super::*;

    fn tree(files: &[(&str, &str)]) -> Tree {
        files.iter().map(|(path, text)| (path.to_string(), text.as_bytes().to_vec())).collect()
    }

    #[test]
    fn a_patch_changes_adds_and_removes_files() {
        let mut files = tree(&[("src/a.rs", "one\ntwo\n"), ("src/b.rs", "gone\n")]);
        let patch = "--- a/src/a.rs\n+++ b/src/a.rs\n@@ -1,2 +1,2 @@\n one\n-two\n+three\n\
                     --- a/src/b.rs\n+++ /dev/null\n@@ -1 +0,0 @@\n-gone\n\
                     --- /dev/null\n+++ b/src/c.rs\n@@ -0,0 +1 @@\n+new\n";
        apply(&mut files, patch).unwrap();
        assert_eq!(files, tree(&[("src/a.rs", "one\nthree\n"), ("src/c.rs", "new\n")]));
    }

    #[test]
    fn a_patch_that_does_not_fit_is_an_error() {
        let mut files = tree(&[("a", "one\n")]);
        let patch = "--- a/a\n+++ b/a\n@@ -1 +1 @@\n-two\n+three\n";
        assert!(apply(&mut files, patch).is_err());
        assert!(apply(&mut Tree::new(), patch).is_err());
    }

    #[test]
    fn edits_by_hand_are_not_lost() {
        let dir = std::env::temp_dir().join(format!("xtask-prepare-{}", std::process::id()));
        let (old, new) = (tree(&[("a", "old")]), tree(&[("a", "new")]));
        replace(&dir, &old, "").unwrap();
        let stamp = format!("inputs\n{}\n", digest(&old));
        files::write(&dir.join("a"), b"mine").unwrap();
        assert!(replace(&dir, &new, &stamp).is_err());
        files::write(&dir.join("a"), b"old").unwrap();
        replace(&dir, &new, &stamp).unwrap();
        assert_eq!(fs::read(dir.join("a")).unwrap(), b"new");
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn what_was_edited_and_restored_is_new_to_cargo() {
        let dir = std::env::temp_dir().join(format!("xtask-restored-{}", std::process::id()));
        let file = dir.join("a");
        let age = || fs::metadata(&file).unwrap().modified().unwrap().elapsed().unwrap();
        let backdate = || {
            let then = SystemTime::now() - Duration::from_secs(1000);
            File::options().append(true).open(&file).unwrap().set_modified(then).unwrap();
        };
        let stamp = || fs::read_to_string(dir.join(STAMP)).unwrap();
        let made = tree(&[("a", "made")]);
        files::write(&file, b"made").unwrap();
        backdate();
        replace(&dir, &made, "").unwrap();
        assert!(age() < Duration::from_secs(500), "what is right already is new as well");
        fs::write(dir.join(STAMP), format!("inputs\n{}\n", digest(&made))).unwrap();

        backdate();
        look(&dir, &stamp()).unwrap();
        assert!(age() > Duration::from_secs(500), "nobody has edited it");
        files::write(&file, b"mine").unwrap();
        look(&dir, &stamp()).unwrap();
        look(&dir, &stamp()).unwrap();
        assert_eq!(
            (stamp().lines().count(), fs::read(&file).unwrap().as_slice()),
            (3, &b"mine"[..])
        );
        files::write(&file, b"made").unwrap();
        backdate();
        look(&dir, &stamp()).unwrap();
        assert!(age() < Duration::from_secs(500), "cargo has built the edits");
        assert_eq!(stamp().lines().count(), 2);
        fs::remove_dir_all(&dir).unwrap();
    }
}
