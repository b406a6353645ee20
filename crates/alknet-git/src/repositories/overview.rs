//! What a list of repositories tells about each.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::{Repositories, Repository, RepositoryError, file, files};
use crate::name::RepositoryName;

/// The file in a repository whose time is that of the last change to its refs.
pub(super) const UPDATED: &str = "alknet.updated";
/// How long a size is good for that nobody has said to have changed.
const FRESH: Duration = Duration::from_secs(60);
/// How many times as long as measuring takes a size stands at least.
const REST: u32 = 20;
/// The most sizes that are remembered.
const MOST: usize = 10_000;

/// What a list tells about a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Overview {
    /// The branch that `HEAD` points to, without `refs/heads/`, whether it is there or not.
    pub default_branch: Option<String>,
    /// Whether it has no refs.
    pub empty: bool,
    /// How many bytes its files have, as of a minute ago at most, or longer where it is large.
    pub size: u64,
    /// When a ref was changed for the last time, or when it was made: seconds since 1970.
    pub updated: i64,
}

/// Sizes that have been measured.
#[derive(Debug, Default)]
pub(super) struct Sizes(Mutex<HashMap<RepositoryName, Measured>>);

#[derive(Debug, Clone, Copy)]
struct Measured {
    bytes: u64,
    at: Instant,
    /// How long it took.
    cost: Duration,
}

impl Sizes {
    pub(super) fn forget(&self, name: &RepositoryName) {
        self.all().remove(name);
    }

    fn of(&self, name: &RepositoryName) -> Option<u64> {
        let found = self.all().get(name).copied()?;
        (found.at.elapsed() <= FRESH.max(found.cost * REST)).then_some(found.bytes)
    }

    fn keep(&self, name: &RepositoryName, measured: Measured) {
        let mut all = self.all();
        if all.len() >= MOST {
            all.clear();
        }
        all.insert(name.clone(), measured);
    }

    fn all(&self) -> MutexGuard<'_, HashMap<RepositoryName, Measured>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Repositories {
    /// What a list tells about a repository. Waits for the disk.
    pub fn overview(&self, repository: &Repository) -> Result<Overview, RepositoryError> {
        let opened = repository.open()?;
        let refs = |error: gix::Error| RepositoryError::Refs(repository.name.clone(), error.into());
        let head = opened.head_name().map_err(refs)?;
        let short = |name: gix::refs::FullName| name.shorten().to_string();
        let empty = opened.references().map_err(refs)?.all().map_err(refs)?.next().is_none();
        Ok(Overview {
            default_branch: head.map(short),
            empty,
            size: self.size(repository)?,
            updated: repository.updated(),
        })
    }

    /// How many bytes its files have, as of a minute ago at most, or longer where it is large.
    pub fn size(&self, repository: &Repository) -> Result<u64, RepositoryError> {
        if let Some(bytes) = self.0.sizes.of(&repository.name) {
            return Ok(bytes);
        }
        let begun = Instant::now();
        let bytes = repository.measure()?;
        let measured = Measured { bytes, at: Instant::now(), cost: begun.elapsed() };
        self.0.sizes.keep(&repository.name, measured);
        Ok(bytes)
    }

    /// Says that its size is another.
    pub(crate) fn resized(&self, name: &RepositoryName) {
        self.0.sizes.forget(name);
    }

    /// To be called when refs of it have changed: notes the time, and that its size is another.
    pub fn touched(&self, repository: &Repository) {
        self.0.sizes.forget(&repository.name);
        if let Err(error) = repository.touch() {
            tracing::warn!(name = %repository.name, %error, "the time of a change is not noted");
        }
    }
}

impl Repository {
    /// How many bytes its files have now, without bundles, as its quota counts them.
    pub fn measure(&self) -> Result<u64, RepositoryError> {
        files::counted(&self.path).map_err(|source| file(&self.path, source))
    }

    /// The repository for gix, which reads no configuration but the one in it.
    pub fn open(&self) -> Result<gix::Repository, RepositoryError> {
        let opened = gix::open_opts(&self.path, gix::open::Options::isolated());
        opened.map_err(|error| RepositoryError::Refs(self.name.clone(), error.into()))
    }

    fn touch(&self) -> io::Result<()> {
        let path: PathBuf = self.path.join(UPDATED);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        options.open(path)?.set_modified(SystemTime::now())
    }

    fn updated(&self) -> i64 {
        let time_of = |name: &str| File::open(self.path.join(name))?.metadata()?.modified();
        let moment = time_of(UPDATED).or_else(|_| time_of("HEAD")).unwrap_or(UNIX_EPOCH);
        let seconds = moment.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        i64::try_from(seconds).unwrap_or(i64::MAX)
    }
}
