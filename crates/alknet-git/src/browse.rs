//! Looking into repositories: refs, history, files, changes, archives.
//!
//! Everything is read by gix, in threads that may wait for the disk. What somebody has pushed
//! is hostile until proven otherwise, so each piece of work has a deadline and bounds on what it
//! reads and gives, stops when nobody waits for it any more, and takes a place among a few, of
//! which one caller never has all.
//!
//! # What can be seen
//!
//! What refs reach, but for refs that the repository hides from fetches (`transfer.hideRefs`,
//! `uploadpack.hideRefs`) and those of the node (`refs/alknet/`). A commit by its id alone is
//! shown only if a ref reaches it: what a forced push has removed is gone. Objects of a push
//! that is not done are not there at all. Replacements (`refs/replace/`) are not applied, as
//! nobody would see what they have fetched.

mod archive;
mod blob;
mod bounds;
mod diff;
mod error;
mod list;
mod log;
mod opened;
mod path;
mod reach;
mod refs;
mod revision;
mod tree;
mod walk;

use std::{fmt, sync::Arc, time::Duration};

use tokio::{
    sync::oneshot,
    task::spawn_blocking,
    time::{Instant, sleep_until},
};

pub use archive::{Archive, ArchiveQuery, Format, InvalidPrefix, Prefix};
pub use blob::{Blob, BlobQuery, FileKind};
pub use diff::{Diff, DiffQuery, FileDiff, Hunk, Status};
pub use error::BrowseError;
pub use list::{List, ListQuery, Listed, ListedRights};
pub use log::{Commit, Log, LogQuery, Person};
pub use path::{InvalidPath, TreePath};
pub use refs::{Branch, Head, Refs, RefsQuery, Tag};
pub use revision::{InvalidRevision, Revision};
pub use tree::{Entry, EntryKind, Tree, TreeQuery};

use crate::{
    admission::who,
    name::RepositoryName,
    repositories::{Repositories, Repository},
    server::Caller,
    slots::Who,
};
use bounds::{Brake, Places, Size, Stop};
use opened::Opened;
use reach::Reached;

/// The largest object that is read but for the content of a file, in bytes.
const MAX_OBJECT: usize = 16 * 1024 * 1024;

/// When a caller who may not know of a repository is told that there is none: later than any
/// disk takes to say whether there is.
const UNSEEN: Duration = Duration::from_millis(20);

/// How much is browsed at once, and for how long.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BrowseLimits {
    /// How many look at once; others wait.
    pub places: usize,
    /// How many archives are made at once; others wait.
    pub archives: usize,
    /// How many may wait for a place.
    pub waiting: usize,
    /// How many of these places one caller may have at once.
    pub places_each: usize,
    /// How many archives are made for one caller at once.
    pub archives_each: usize,
    /// How many more of one caller's requests may wait.
    pub waiting_each: usize,
    /// How long anybody waits for a place.
    pub patience: Duration,
    /// How long a look may take.
    pub time: Duration,
    /// How long an archive may take.
    pub archive_time: Duration,
    /// How long whoever takes an archive may leave a piece of it waiting.
    pub stall: Duration,
    /// The largest file that is shown, in bytes.
    pub max_blob: usize,
    /// The largest file in an archive, in bytes.
    pub max_archived: usize,
}

impl Default for BrowseLimits {
    fn default() -> Self {
        Self {
            places: 4,
            archives: 2,
            waiting: 64,
            places_each: 2,
            archives_each: 1,
            waiting_each: 16,
            patience: Duration::from_secs(15),
            time: Duration::from_secs(20),
            archive_time: Duration::from_secs(15 * 60),
            stall: Duration::from_secs(60),
            max_blob: 64 * 1024 * 1024,
            max_archived: 256 * 1024 * 1024,
        }
    }
}

/// Looks into repositories for callers. Cheap to clone; clones share their bounds.
#[derive(Clone)]
pub struct Browser(Arc<Shared>);

struct Shared {
    repositories: Repositories,
    limits: BrowseLimits,
    places: Places,
    archives: Places,
    reached: Reached,
}

impl Browser {
    /// One for these repositories.
    pub fn new(repositories: Repositories, limits: BrowseLimits) -> Self {
        let places = |working, each| {
            let all = Size { working, waiting: limits.waiting };
            let each = Size { working: each, waiting: limits.waiting_each };
            Places::new(all, each, limits.patience)
        };
        let archives = places(limits.archives, limits.archives_each);
        let places = places(limits.places, limits.places_each);
        let reached = Reached::default();
        Self(Arc::new(Shared { repositories, limits, places, archives, reached }))
    }

    /// The repositories that the caller may know of, in order of their names. Dropping the
    /// future stops the work.
    pub async fn list(&self, caller: &Caller, query: ListQuery) -> Result<List, BrowseError> {
        let (who, caller) = (who(caller), caller.clone());
        let list = move |shared: &Arc<Shared>, brake: Brake| {
            list::list(&shared.repositories, &caller, &query, &brake)
        };
        self.work(who, list).await
    }

    /// Whether the caller may look into a repository.
    pub async fn check(&self, caller: &Caller, name: &RepositoryName) -> Result<(), BrowseError> {
        self.look(caller, name, MAX_OBJECT, |_| Ok(())).await
    }

    /// The branches and tags of a repository. Dropping the future stops the work, as with
    /// all of the others.
    pub async fn refs(
        &self,
        caller: &Caller,
        name: &RepositoryName,
        query: RefsQuery,
    ) -> Result<Refs, BrowseError> {
        self.look(caller, name, MAX_OBJECT, move |opened| refs::refs(opened, &query)).await
    }

    /// The history of a revision, the latest commit first.
    pub async fn log(
        &self,
        caller: &Caller,
        name: &RepositoryName,
        query: LogQuery,
    ) -> Result<Log, BrowseError> {
        self.look(caller, name, MAX_OBJECT, move |opened| log::log(opened, &query)).await
    }

    /// What is in a folder.
    pub async fn tree(
        &self,
        caller: &Caller,
        name: &RepositoryName,
        query: TreeQuery,
    ) -> Result<Tree, BrowseError> {
        self.look(caller, name, MAX_OBJECT, move |opened| tree::tree(opened, &query)).await
    }

    /// The content of a file, or a range of it.
    pub async fn blob(
        &self,
        caller: &Caller,
        name: &RepositoryName,
        query: BlobQuery,
    ) -> Result<Blob, BrowseError> {
        let max = self.0.limits.max_blob;
        self.look(caller, name, max, move |opened| blob::blob(opened, &query)).await
    }

    /// What a commit has changed, or what has changed between two.
    pub async fn diff(
        &self,
        caller: &Caller,
        name: &RepositoryName,
        query: DiffQuery,
    ) -> Result<Diff, BrowseError> {
        self.look(caller, name, MAX_OBJECT, move |opened| diff::diff(opened, &query)).await
    }

    /// The files of a revision as an archive, made while it is taken.
    pub async fn archive(
        &self,
        caller: &Caller,
        name: &RepositoryName,
        query: ArchiveQuery,
    ) -> Result<Archive, BrowseError> {
        let begun = Instant::now();
        let made = self.make(caller, name, query).await;
        unseen(begun, made).await
    }

    async fn make(
        &self,
        caller: &Caller,
        name: &RepositoryName,
        query: ArchiveQuery,
    ) -> Result<Archive, BrowseError> {
        let place = self.0.archives.take(who(caller)).await?;
        let (brake, stop) = Brake::new(self.0.limits.archive_time);
        let (shared, caller, name) = (self.0.clone(), caller.clone(), name.clone());
        let (begun, beginning) = oneshot::channel();
        let (chunks, receiver) = archive::channel();
        let working = spawn_blocking(move || {
            let _place = place;
            let opened = shared.open(&caller, &name, shared.limits.max_archived, brake);
            let started = opened.and_then(|opened| archive::Job::new(opened, &query));
            match started {
                Ok(job) => match begun.send(Ok(job.name().to_owned())) {
                    Ok(()) => job.write(chunks),
                    Err(_) => Err(BrowseError::Interrupted),
                },
                Err(error) => {
                    // Who has gone needs no answer.
                    let _ = begun.send(Err(error));
                    Ok(())
                }
            }
        });
        let name = beginning.await.map_err(|_| BrowseError::Interrupted)??;
        Ok(Archive::new(name, receiver, working, stop))
    }

    /// Looks into a repository that the caller may read, with objects of `largest` bytes at
    /// most.
    async fn look<T: Send + 'static>(
        &self,
        caller: &Caller,
        name: &RepositoryName,
        largest: usize,
        work: impl FnOnce(&Opened) -> Result<T, BrowseError> + Send + 'static,
    ) -> Result<T, BrowseError> {
        let begun = Instant::now();
        let (who, caller, name) = (who(caller), caller.clone(), name.clone());
        let look = move |shared: &Arc<_>, brake| {
            work(&Shared::open(shared, &caller, &name, largest, brake)?)
        };
        unseen(begun, self.work(who, look).await).await
    }

    /// Does some work in a place of its own.
    async fn work<T: Send + 'static>(
        &self,
        who: Who,
        work: impl FnOnce(&Arc<Shared>, Brake) -> Result<T, BrowseError> + Send + 'static,
    ) -> Result<T, BrowseError> {
        let place = self.0.places.take(who).await?;
        let (brake, stop): (_, Stop) = Brake::new(self.0.limits.time);
        let shared = self.0.clone();
        let done = spawn_blocking(move || {
            // Until it is done, whoever still waits for it.
            let _place = place;
            work(&shared, brake)
        });
        let done = done.await.map_err(BrowseError::Failed)?;
        drop(stop);
        done
    }
}

/// Tells that there is no such repository at the same time whether there is one or not.
async fn unseen<T>(begun: Instant, outcome: Result<T, BrowseError>) -> Result<T, BrowseError> {
    if let Err(BrowseError::NoRepository(_)) = outcome {
        sleep_until(begun + UNSEEN).await;
    }
    outcome
}

impl Shared {
    /// Opens a repository if the caller may read it: what they may not see is not there.
    fn open(
        self: &Arc<Self>,
        caller: &Caller,
        name: &RepositoryName,
        largest: usize,
        brake: Brake,
    ) -> Result<Opened, BrowseError> {
        let may_read = caller.rights().read(name);
        let there = match self.repositories.get(name) {
            // Not even that there is something is for them to know.
            Err(error) if !may_read => {
                tracing::warn!(%name, %error, "a repository cannot be read");
                None
            }
            found => found?,
        };
        let visible = |there: &Repository| may_read || there.settings.public;
        let repository = there.filter(visible);
        let repository = repository.ok_or_else(|| BrowseError::NoRepository(name.clone()))?;
        Opened::open(self.clone(), repository, largest, brake)
    }
}

impl fmt::Debug for Browser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Browser").field("limits", &self.0.limits).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
