//! What happens to repositories before they have their names and after they have lost them.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    process,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant, UNIX_EPOCH},
};

use super::{
    NAMES, PATIENCE, Repositories, RepositoryError, Settings, WORK, file,
    files::{self, Folder},
    settings, symbolic,
};
use crate::name::{RepositoryName, SUFFIX};

/// Held, shared, by whoever has something in `.work`.
const WORKING: &str = "lock";
/// How often a repository is removed whose files somebody still makes.
const REMOVALS: usize = 3;

impl Repositories {
    /// The folder that a repository of this name is in, made if it is not there, and what it
    /// is called in it.
    pub(super) fn parent(&self, name: &RepositoryName) -> io::Result<(Folder, String)> {
        let (folders, last) = name.as_str().rsplit_once('/').unwrap_or(("", name.as_str()));
        let words = folders.split('/').filter(|word| !word.is_empty());
        Ok((self.0.folder.make(words)?, format!("{last}{SUFFIX}")))
    }

    /// Removes folders on the way to a name that have become empty. The caller holds the lock
    /// of names. What cannot be removed stays and harms nobody.
    pub(super) fn prune(&self, name: &RepositoryName) {
        let mut rest = name.as_str();
        while let Some((folder, _)) = rest.rsplit_once('/') {
            let removed =
                match folder.rsplit_once('/') {
                    None => self.0.folder.remove_empty(folder),
                    Some((above, last)) => self.0.folder.beneath(above).and_then(|above| {
                        above.map_or(Ok(false), |above| above.remove_empty(last))
                    }),
                };
            if !removed.unwrap_or(false) {
                return;
            }
            rest = folder;
        }
    }

    /// An empty repository that is on the disk, without a name yet.
    pub(super) fn init(
        &self,
        temporary: &str,
        settings: &Settings,
        head: &str,
    ) -> Result<(), RepositoryError> {
        let path = self.0.root.join(WORK).join(temporary);
        gix::init_bare(&path).map_err(|error| RepositoryError::Init(Box::new(error)))?;
        let write = || -> io::Result<()> {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
            // Examples for people who work in a repository; nobody works in this one.
            fs::remove_dir_all(path.join("hooks"))?;
            fs::write(path.join("HEAD"), symbolic(head))
        };
        write().map_err(|source| file(&path, source))?;
        let (at, text) = (path.join(settings::FILE), settings.to_file()?);
        fs::write(&at, text).map_err(|source| file(&at, source))?;
        files::sync_all(&path).map_err(|source| file(&path, source))
    }

    /// Gives what is in `.work` its name; whether nothing had it.
    pub(super) fn publish(&self, temporary: &str, name: &RepositoryName) -> io::Result<bool> {
        let _names = self.0.work.lock(NAMES, PATIENCE)?;
        let (parent, last) = self.parent(name)?;
        let published = self.0.work.move_to(temporary, &parent, &last);
        if !matches!(published, Ok(true)) {
            self.prune(name);
        }
        published
    }

    /// Whether a repository has a name, be it another than when its folder was opened. One
    /// that is removed has none, also while its files are still there.
    pub(crate) fn is_named(&self, folder: &Folder) -> io::Result<bool> {
        Ok(!folder.is_in(&self.0.work)?)
    }

    /// Says that something is in `.work`, until it is dropped.
    pub(super) fn working(&self) -> io::Result<files::Lock> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Whoever sweeps has it for a moment.
            match self.0.work.try_share(WORKING)? {
                Some(lock) => return Ok(lock),
                None if Instant::now() >= deadline => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                None => thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// A folder of its own in `.work`.
    pub(super) fn temporary(&self) -> io::Result<String> {
        loop {
            let name = self.number();
            if self.0.work.add(&name)? {
                return Ok(name);
            }
        }
    }

    pub(super) fn number(&self) -> String {
        let moment = UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
        format!("{}-{moment}-{}", process::id(), self.0.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Removes what is in `.work`. What cannot be removed is left to the next sweep.
    pub(super) fn remove_temporary(&self, name: &str) {
        let path = self.0.root.join(WORK).join(name);
        for _ in 0..REMOVALS {
            match fs::remove_dir_all(&path) {
                Ok(()) => return,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return,
                // A push in progress makes files while others are removed.
                Err(error) => tracing::debug!(%error, "a removed repository is still there"),
            }
        }
    }

    /// Removes what killed processes left in `.work`, unless somebody works there.
    pub(super) fn sweep(&self) -> io::Result<()> {
        let Some(_alone) = self.0.work.try_lock(WORKING)? else { return Ok(()) };
        for entry in self.0.root.join(WORK).read_dir()? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                self.remove_temporary(&entry.file_name().to_string_lossy());
            }
        }
        Ok(())
    }
}
