//! Files that are whole or not there, readable by their owner alone.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

/// The content of a file of at most `max` bytes; `None` if there is no such file.
pub(super) fn read(path: &Path, max: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut content = Vec::new();
    file.take(max + 1).read_to_end(&mut content)?;
    if content.len() as u64 > max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is too large"));
    }
    Ok(Some(content))
}

/// Puts a new content in the place of the old one in one step that survives a crash.
pub(super) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = Temporary::beside(path, content)?;
    std::fs::rename(&temporary.0, path)?;
    sync_folder(path)
}

/// Replaces a file that is there by one with the same owner, group and mode.
pub(super) fn replace_alike(path: &Path, content: &[u8]) -> io::Result<()> {
    let old = std::fs::metadata(path)?;
    let temporary = Temporary::beside(path, content)?;
    let file = File::open(&temporary.0)?;
    let new = file.metadata()?;
    if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
        fchown(&file, Some(old.uid()), Some(old.gid()))?;
    }
    // After the owner: a change of that takes bits away.
    file.set_permissions(std::fs::Permissions::from_mode(old.mode() & 0o7777))?;
    file.sync_all()?;
    std::fs::rename(&temporary.0, path)?;
    sync_folder(path)
}

/// Makes the file with its content unless it is there; tells whether it did. A hard link
/// appears whole or fails, also when two processes try.
pub(super) fn create(path: &Path, content: &[u8]) -> io::Result<bool> {
    let temporary = Temporary::beside(path, content)?;
    match std::fs::hard_link(&temporary.0, path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => return Err(error),
    }
    drop(temporary);
    sync_folder(path)?;
    Ok(true)
}

/// Removes the [`Temporary`] files of processes that were killed.
pub(super) fn sweep(path: &Path) -> io::Result<()> {
    for entry in path.parent().unwrap_or(path).read_dir()? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let random = name.rsplit('.').nth(1).unwrap_or_default();
        if random.len() == 16 && name == Temporary::name(path, random) {
            std::fs::remove_file(path.with_file_name(name))?;
        }
    }
    Ok(())
}

/// A file of mode 0600 that is on the disk, with a name of its own, gone on drop unless
/// renamed.
struct Temporary(PathBuf);

impl Temporary {
    fn name(path: &Path, random: &str) -> String {
        format!(".{}.{random}.new", path.file_name().unwrap_or_default().to_string_lossy())
    }

    fn beside(path: &Path, content: &[u8]) -> io::Result<Self> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let temporary = Self(path.with_file_name(Self::name(path, &hex::encode(random))));
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary.0)?;
        file.write_all(content)?;
        file.sync_all()?;
        Ok(temporary)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename there is nothing to remove.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Makes a new name in a folder survive a loss of power.
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}
