//! The folder of repositories.
//!
//! A repository is the folder `NAME.git`, with the words of its name as folders on the way. No
//! word of a name ends in `.git`, so one repository is never inside another and no two names
//! have one folder; and names are lower case, so that holds where case does not count.
//!
//! What is made, moved or removed changes its name in one step (`renameat2`), and everything
//! before and after happens in the folder `.work`, which no name leads to. What a process that
//! was killed left there is swept when the folder is opened again. Several processes may work
//! in one folder: their locks end with them.

mod collect;
pub(crate) mod files;
mod keeper;
mod overview;
mod run;
mod settings;
#[cfg(test)]
mod tests;
mod work;

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

pub use collect::Collected;
pub use keeper::{Keeper, KeeperConfig, KeeperError};
pub use overview::Overview;
pub use run::RunError;
pub(crate) use run::{Allowance, THREADS, run, run_with};
pub use settings::{InvalidRefPattern, InvalidSettings, RefPattern, Settings};

use self::{
    files::{Folder, Lock},
    overview::Sizes,
};
use crate::name::{RepositoryName, SUFFIX};

/// Where repositories are before they have their names and after they have lost them.
const WORK: &str = ".work";
/// Held by whoever changes names.
const NAMES: &str = "names";
/// Held, in a repository, by whoever changes its settings.
const SETTING: &str = "alknet.lock";
/// How long one waits for others who change names or settings.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most folders that are looked into for a list.
const MOST: usize = 200_000;

/// Bare repositories in one folder, each as `NAME.git`. Cheap to clone.
///
/// Everything here waits for the disk.
#[derive(Debug, Clone)]
pub struct Repositories(Arc<Store>);

#[derive(Debug)]
struct Store {
    root: PathBuf,
    folder: Folder,
    work: Folder,
    defaults: Defaults,
    sizes: Sizes,
    /// Numbers for what is in `.work`.
    next: AtomicU64,
}

/// What holds for all repositories of a folder.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Defaults {
    /// The branch that `HEAD` of a new repository points to.
    pub branch: String,
    /// How large a repository may grow that has no quota of its own, in bytes.
    pub quota: Option<u64>,
    /// Whether any may be public.
    pub public: bool,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { branch: "main".into(), quota: None, public: true }
    }
}

impl Defaults {
    /// Whether they can be used.
    pub fn check(&self) -> Result<(), InvalidSettings> {
        settings::branch(&self.branch).map(drop)
    }
}

/// A repository that is there.
#[derive(Debug, Clone)]
pub struct Repository {
    /// What it is called.
    pub name: RepositoryName,
    /// Its folder.
    pub path: PathBuf,
    /// What its owner has set, with the node's quota where that has none, and not public where
    /// none may be.
    pub settings: Settings,
}

/// The folder of repositories, or a repository, cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepositoryError {
    /// There already is one of this name.
    #[error("there already is a repository {0}")]
    Exists(RepositoryName),
    /// There is none of this name.
    #[error("there is no repository {0}")]
    Missing(RepositoryName),
    /// A file could not be read or written.
    #[error("{path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The settings are none.
    #[error("{path} holds no settings of a repository")]
    Settings {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: toml::de::Error,
    },
    /// The settings cannot be written as text.
    #[error("the settings of a repository cannot be written")]
    Unwritable(#[source] toml::ser::Error),
    /// It has content of its own, and a copy of another has none.
    #[error("{0} has content of its own, which a mirror would remove")]
    NotEmpty(RepositoryName),
    /// A setting has a value that it cannot have.
    #[error(transparent)]
    Invalid(#[from] InvalidSettings),
    /// It could not be made.
    #[error("a repository could not be made")]
    Init(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Its refs cannot be read.
    #[error("the refs of {0} cannot be read")]
    Refs(RepositoryName, #[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Repositories {
    /// Those in a folder, which is made if it is not there. What processes that were killed
    /// left is removed.
    pub fn open(folder: &Path) -> Result<Self, RepositoryError> {
        Self::open_with(folder, Defaults::default())
    }

    /// The same, with what holds for all of them.
    pub fn open_with(folder: &Path, defaults: Defaults) -> Result<Self, RepositoryError> {
        defaults.check()?;
        let mut private = fs::DirBuilder::new();
        private.recursive(true).mode(0o700);
        private.create(folder).map_err(|source| file(folder, source))?;
        let root = fs::canonicalize(folder).map_err(|source| file(folder, source))?;
        let open = || -> io::Result<_> {
            let folder = Folder::open(&root)?;
            let work = folder.make([WORK].into_iter())?;
            Ok((folder, work))
        };
        let (folder, work) = open().map_err(|source| file(&root, source))?;
        let (sizes, next) = (Sizes::default(), AtomicU64::new(0));
        let store = Self(Arc::new(Store { root, folder, work, defaults, sizes, next }));
        store.sweep().map_err(|source| file(&store.0.root.join(WORK), source))?;
        Ok(store)
    }

    /// What holds for all of them.
    pub fn defaults(&self) -> &Defaults {
        &self.0.defaults
    }

    /// A repository; `None` if there is none of this name.
    pub fn get(&self, name: &RepositoryName) -> Result<Option<Repository>, RepositoryError> {
        Ok(self.get_open(name)?.map(|(repository, _)| repository))
    }

    /// The same, and its open folder, which stays the same when another takes the name.
    pub(crate) fn get_open(
        &self,
        name: &RepositoryName,
    ) -> Result<Option<(Repository, Folder)>, RepositoryError> {
        let path = self.path(name);
        let Some(folder) = self.folder(name)? else { return Ok(None) };
        let settings = self.effective(Settings::read(&folder, &path)?);
        Ok(Some((Repository { name: name.clone(), path, settings }, folder)))
    }

    /// A repository that has to be there.
    pub fn find(&self, name: &RepositoryName) -> Result<Repository, RepositoryError> {
        self.get(name)?.ok_or_else(|| RepositoryError::Missing(name.clone()))
    }

    /// The names of all repositories, sorted. Folders that are none are passed over.
    pub fn names(&self) -> Result<Vec<RepositoryName>, RepositoryError> {
        let mut names = Vec::new();
        let mut prefixes = vec![String::new()];
        let mut looked_into = 0;
        while let Some(prefix) = prefixes.pop().filter(|_| looked_into < MOST) {
            looked_into += 1;
            let path = self.0.root.join(&prefix);
            let entries = match path.read_dir() {
                Ok(entries) => entries,
                // Removed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(file(&path, source)),
            };
            for entry in entries.filter_map(Result::ok) {
                let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
                let Some(word) = entry
                    .file_name()
                    .to_str()
                    .filter(|_| is_folder)
                    .map(|word| format!("{prefix}{word}"))
                else {
                    continue;
                };
                match word.strip_suffix(SUFFIX) {
                    Some(name) => names.extend(name.parse::<RepositoryName>().ok()),
                    // What is no name has no repositories in it either.
                    None if word.parse::<RepositoryName>().is_ok() => {
                        prefixes.push(format!("{word}/"));
                    }
                    None => {}
                }
            }
        }
        names.sort();
        Ok(names)
    }

    /// Repositories in the order of their names, `most` at most: those that `may` says yes to,
    /// and those that are public where `with_public` says so. One that cannot be read is
    /// passed over, with a line in the log.
    pub fn list(
        &self,
        may: impl Fn(&RepositoryName) -> bool,
        with_public: bool,
        most: usize,
    ) -> Result<Vec<Repository>, RepositoryError> {
        let visible = |name: RepositoryName| {
            let granted = may(&name);
            if !granted && !with_public {
                return None;
            }
            let found = self.get(&name).unwrap_or_else(|error| {
                tracing::warn!(%name, %error, "a repository cannot be read");
                None
            })?;
            (granted || found.settings.public).then_some(found)
        };
        Ok(self.names()?.into_iter().filter_map(visible).take(most).collect())
    }

    /// Makes an empty repository. It is there whole or not at all, also after a crash.
    pub fn create(
        &self,
        name: &RepositoryName,
        settings: &Settings,
    ) -> Result<Repository, RepositoryError> {
        self.create_with_branch(name, settings, &self.0.defaults.branch)
    }

    /// The same, where `HEAD` points to another branch than the default.
    pub fn create_with_branch(
        &self,
        name: &RepositoryName,
        settings: &Settings,
        branch: &str,
    ) -> Result<Repository, RepositoryError> {
        self.check(settings)?;
        let head = settings::branch(branch)?;
        let path = self.path(name);
        if self.folder(name)?.is_some() {
            return Err(RepositoryError::Exists(name.clone()));
        }
        let failed = |source| file(&path, source);
        let _working = self.working().map_err(failed)?;
        let temporary = self.temporary().map_err(failed)?;
        let made = self
            .init(&temporary, settings, &head)
            .and_then(|()| self.publish(&temporary, name).map_err(failed));
        if !matches!(made, Ok(true)) {
            self.remove_temporary(&temporary);
        }
        match made? {
            true => Ok(Repository {
                name: name.clone(),
                path,
                settings: self.effective(settings.clone()),
            }),
            false => Err(RepositoryError::Exists(name.clone())),
        }
    }

    /// Gives a repository another name, in one step. An exchange in progress goes on in the
    /// folder that it has, or ends with a failure; it never touches one that takes the old
    /// name.
    pub fn rename(
        &self,
        name: &RepositoryName,
        to: &RepositoryName,
    ) -> Result<Repository, RepositoryError> {
        let failed = |source| file(&self.path(name), source);
        let _names = self.0.work.lock(NAMES, PATIENCE).map_err(failed)?;
        if self.folder(name)?.is_none() {
            return Err(RepositoryError::Missing(name.clone()));
        }
        let moved = (|| {
            let (from, to) = (self.parent(name)?, self.parent(to)?);
            from.0.move_to(&from.1, &to.0, &to.1)
        })();
        let moved = moved.map_err(failed);
        // Of the old name after a success, of the new one else.
        self.prune(if matches!(moved, Ok(true)) { name } else { to });
        self.0.sizes.forget(name);
        match moved? {
            true => self.find(to),
            false => Err(RepositoryError::Exists(to.clone())),
        }
    }

    /// Removes a repository. It is gone at once; its files go before this returns, or when the
    /// folder is opened again.
    pub fn delete(&self, name: &RepositoryName) -> Result<(), RepositoryError> {
        self.delete_if(name, |_| true)
    }

    /// The same, if whoever asks agrees when nobody else changes its name or its settings.
    pub(crate) fn delete_if(
        &self,
        name: &RepositoryName,
        agrees: impl FnOnce(&Path) -> bool,
    ) -> Result<(), RepositoryError> {
        let failed = |source| file(&self.path(name), source);
        let _working = self.working().map_err(failed)?;
        let gone = self.number();
        {
            let _names = self.0.work.lock(NAMES, PATIENCE).map_err(failed)?;
            let folder = self.folder(name)?;
            let folder = folder.ok_or_else(|| RepositoryError::Missing(name.clone()))?;
            // One that cannot be locked cannot be configured either.
            let _setting = folder.lock(SETTING, PATIENCE);
            if !agrees(&self.path(name)) {
                return Ok(());
            }
            let aside = self
                .parent(name)
                .and_then(|(parent, last)| parent.move_to(&last, &self.0.work, &gone));
            if !aside.map_err(failed)? {
                return Err(failed(io::ErrorKind::AlreadyExists.into()));
            }
            self.prune(name);
        }
        self.0.sizes.forget(name);
        self.remove_temporary(&gone);
        Ok(())
    }

    /// Changes settings, while no other process does. After a crash all of them are as they
    /// were, or as they are to be.
    pub fn configure(
        &self,
        name: &RepositoryName,
        change: impl FnOnce(&mut Settings),
    ) -> Result<Repository, RepositoryError> {
        self.configure_with_branch(name, None, change)
    }

    /// The same, and lets `HEAD` point to another branch, which need not be there yet. Nothing
    /// changes where anything cannot be so.
    pub fn configure_with_branch(
        &self,
        name: &RepositoryName,
        branch: Option<&str>,
        change: impl FnOnce(&mut Settings),
    ) -> Result<Repository, RepositoryError> {
        self.configure_if(name, branch, |settings| {
            change(settings);
            Ok(())
        })
    }

    /// The same, where the change may refuse to be made, by the settings as they are while
    /// nobody else changes them. The quota among them is the repository's own.
    pub fn configure_if(
        &self,
        name: &RepositoryName,
        branch: Option<&str>,
        change: impl FnOnce(&mut Settings) -> Result<(), InvalidSettings>,
    ) -> Result<Repository, RepositoryError> {
        let head = branch.map(settings::branch).transpose()?;
        let path = self.path(name);
        let missing = || RepositoryError::Missing(name.clone());
        let folder = self.folder(name)?.ok_or_else(missing)?;
        let _setting = folder.lock(SETTING, PATIENCE).map_err(|source| file(&path, source))?;
        let before = Settings::read(&folder, &path)?;
        let mut settings = before.clone();
        change(&mut settings)?;
        if settings != before {
            self.check(&settings)?;
            let text = settings.to_file()?;
            let written = folder.replace(settings::FILE, text.as_bytes());
            written.map_err(|source| file(&path.join(settings::FILE), source))?;
        }
        if let Some(head) = head {
            let written = folder.replace("HEAD", symbolic(&head).as_bytes());
            written.map_err(|source| file(&path.join("HEAD"), source))?;
        }
        Ok(Repository { name: name.clone(), path, settings: self.effective(settings) })
    }

    /// Lets `HEAD` point to another branch, which need not be there yet.
    pub fn set_default_branch(
        &self,
        name: &RepositoryName,
        branch: &str,
    ) -> Result<(), RepositoryError> {
        self.configure_with_branch(name, Some(branch), |_| ()).map(drop)
    }

    /// The open folder of a repository, if there is one of this name.
    pub(crate) fn folder(&self, name: &RepositoryName) -> Result<Option<Folder>, RepositoryError> {
        let found = self.0.folder.beneath(&format!("{name}{SUFFIX}"));
        let folder = found.map_err(|source| file(&self.path(name), source))?;
        Ok(folder.filter(|folder| folder.has_file("HEAD")))
    }

    /// Keeps garbage from being collected in a repository while what it gives is there; `None`
    /// if somebody does it now.
    pub(crate) fn hold_off_collection(&self, name: &RepositoryName) -> Option<Lock> {
        self.folder(name).ok()??.try_lock(collect::LOCK).ok()?
    }

    fn check(&self, settings: &Settings) -> Result<(), InvalidSettings> {
        if settings.public && !self.0.defaults.public {
            return Err(InvalidSettings::Public);
        }
        settings.check()
    }

    /// With what holds for all of them.
    fn effective(&self, mut settings: Settings) -> Settings {
        settings.quota = settings.quota.or(self.0.defaults.quota);
        settings.public &= self.0.defaults.public;
        settings
    }

    fn path(&self, name: &RepositoryName) -> PathBuf {
        self.0.root.join(format!("{name}{SUFFIX}"))
    }
}

impl Repository {
    /// Its folder failed.
    pub(crate) fn failed(&self, source: io::Error) -> RepositoryError {
        file(&self.path, source)
    }
}

/// The content of a `HEAD` that points to a ref.
fn symbolic(reference: &str) -> String {
    format!("ref: {reference}\n")
}

fn file(path: &Path, source: io::Error) -> RepositoryError {
    RepositoryError::File { path: path.into(), source }
}
