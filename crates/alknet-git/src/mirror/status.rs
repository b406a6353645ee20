//! How a mirror is.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher as _, Hasher as _},
    io,
    time::{Duration, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::Mirror;
use crate::{
    name::RepositoryName,
    repositories::{Repositories, Repository, RepositoryError, files::Folder},
};

/// The file in a repository.
const FILE: &str = "alknet-mirror.toml";
/// The longest such file that is read, in bytes.
const MAX_FILE: u64 = 64 << 10;
/// How long after the first failure the next look is; each further one doubles it.
const FIRST_RETRY: Duration = Duration::from_secs(60);
/// The most characters of an error that are kept.
const MAX_ERROR: usize = 1000;

/// When a mirror has looked for news and what came of it. Times are seconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct MirrorStatus {
    /// When it looked for the last time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_attempt: Option<i64>,
    /// When it did so with success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_success: Option<i64>,
    /// Why the last look failed, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// How many looks have failed since the last success.
    pub failures: u32,
    /// When it looks again.
    pub next: i64,
}

impl MirrorStatus {
    /// Of an open repository. What cannot be understood is forgotten: the next look says more.
    pub(crate) fn read(folder: &Folder) -> io::Result<Self> {
        let content = folder.read(FILE, MAX_FILE)?.unwrap_or_default();
        Ok(toml::from_str(&String::from_utf8_lossy(&content)).unwrap_or_default())
    }

    /// Replaces the file. The caller holds the lock of mirrors.
    pub(crate) fn write(&self, folder: &Folder) -> io::Result<()> {
        let text = toml::to_string(self).map_err(io::Error::other)?;
        folder.replace(FILE, text.as_bytes())
    }

    /// Forgets everything: the repository has another source, or none.
    pub(crate) fn remove(folder: &Folder) -> io::Result<()> {
        folder.remove_file(FILE)
    }

    /// After a look that has just ended. After a failure the next one comes sooner, at first.
    pub(crate) fn after(&self, failure: Option<String>, every: Duration) -> Self {
        let now = now();
        let failures = if failure.is_some() { self.failures.saturating_add(1) } else { 0 };
        let wait = match failures {
            0 => every,
            some => every.min(FIRST_RETRY * 2_u32.saturating_pow(some.min(12) - 1)),
        };
        let last_error = failure.map(|text| text.chars().take(MAX_ERROR).collect());
        let last_success = if failures == 0 { Some(now) } else { self.last_success };
        let next = now.saturating_add(seconds(scattered(wait)));
        Self { last_attempt: Some(now), last_success, last_error, failures, next }
    }
}

/// Between nine and eleven tenths of a time, so that many mirrors do not look in one moment.
fn scattered(time: Duration) -> Duration {
    // The one source of chance in the standard library; nothing secret depends on it.
    let chance = RandomState::new().build_hasher().finish() % 1000;
    time.mul_f64(0.9 + 0.0002 * f64::from(u32::try_from(chance).unwrap_or_default()))
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    seconds(UNIX_EPOCH.elapsed().unwrap_or_default())
}

impl Repositories {
    /// Makes a repository the copy of another one, or a common one again. One that has content
    /// of its own does not become a copy: the first look would remove it.
    pub fn set_mirror(
        &self,
        name: &RepositoryName,
        mirror: Option<Mirror>,
    ) -> Result<Repository, RepositoryError> {
        let repository = self.find(name)?;
        let is_new = mirror.is_some() && repository.settings.mirror.is_none();
        if is_new && !self.overview(&repository)?.empty {
            return Err(RepositoryError::NotEmpty(name.clone()));
        }
        let repository = self.configure(name, |settings| settings.mirror = mirror)?;
        if let Some(folder) = self.folder(name)? {
            let removed = MirrorStatus::remove(&folder);
            removed.map_err(|source| repository.failed(source))?;
        }
        Ok(repository)
    }

    /// How a mirror is.
    pub fn mirror_status(&self, repository: &Repository) -> Result<MirrorStatus, RepositoryError> {
        match self.folder(&repository.name)? {
            None => Ok(MirrorStatus::default()),
            Some(folder) => MirrorStatus::read(&folder).map_err(|source| repository.failed(source)),
        }
    }
}
