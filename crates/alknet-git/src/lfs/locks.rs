//! Locks: who says that a file is theirs to change.
//!
//! Clients ask before they push; a push itself is not held against them.

use std::{collections::BTreeMap, io, ops::Bound, time::Duration};

use alknet_core::Identity;
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    FOLDER, LfsError, blocking,
    root::{Root, gone},
};
use crate::repositories::files::Folder;

/// Where the locks are.
pub(super) const FILE: &str = "locks.json";
/// What is held while they change, by whichever process changes them.
const GUARD: &str = "locks.guard";
/// How long that is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest file of locks that is read, in bytes.
const MAX_FILE: u64 = 64 << 20;
/// The most locks of a repository.
const MAX_LOCKS: usize = 10_000;
/// The longest path of a locked file, in bytes.
const MAX_PATH: usize = 4096;
/// The most locks that are listed at once.
pub(crate) const MAX_PAGE: usize = 1000;

/// One lock, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lock {
    /// The locked file, from the root of the working tree.
    pub(crate) path: String,
    /// Since when, by RFC 3339.
    pub(crate) locked_at: String,
    /// Whose it is, by name.
    pub(crate) owner: String,
    /// The stable id of that identity.
    pub(crate) owner_id: String,
}

impl Lock {
    /// Whether it is this caller's.
    pub(crate) fn is_of(&self, caller: Option<&Identity>) -> bool {
        caller.is_some_and(|caller| caller.id == self.owner_id)
    }
}

/// A lock and its id.
pub(crate) type Named = (String, Lock);

/// Which locks are asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    /// Of this file alone.
    pub(crate) path: Option<String>,
    /// This one alone.
    pub(crate) id: Option<String>,
    /// Behind this one.
    pub(crate) cursor: Option<String>,
    /// So many at most.
    pub(crate) limit: Option<usize>,
}

/// What became of a wish to unlock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unlocked {
    /// It is gone; this was it.
    Done(Named),
    /// It is somebody else's.
    Theirs(Named),
    /// There is none of this id.
    Missing,
}

/// The locks of one repository. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Locks(Root);

type All = BTreeMap<String, Lock>;

impl Locks {
    /// Those of a repository.
    pub(crate) fn new(root: Root) -> Self {
        Self(root)
    }

    /// Locks a file for somebody; `Err` in `Ok` is the lock that it has already.
    pub(crate) async fn lock(
        &self,
        path: String,
        by: &Identity,
    ) -> Result<Result<Named, Named>, LfsError> {
        if path.is_empty() || path.len() > MAX_PATH || path.chars().any(char::is_control) {
            return Err(LfsError::Path);
        }
        let lock = Lock {
            path,
            locked_at: now()?,
            owner: by.name.replace(char::is_control, " "),
            owner_id: by.id.clone(),
        };
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(io::Error::other)?;
        self.change(move |all| {
            if let Some((id, there)) = all.iter().find(|(_, there)| there.path == lock.path) {
                return Ok(Err((id.clone(), there.clone())));
            }
            if all.len() >= MAX_LOCKS {
                return Err(LfsError::Locks);
            }
            let id = hex::encode(id);
            all.insert(id.clone(), lock.clone());
            Ok(Ok((id, lock)))
        })
        .await
    }

    /// Takes a lock away: the caller's own, or with `force` anybody's.
    pub(crate) async fn unlock(
        &self,
        id: String,
        by: &Identity,
        force: bool,
    ) -> Result<Unlocked, LfsError> {
        let by = by.clone();
        self.change(move |all| {
            let Some(there) = all.get(&id).cloned() else { return Ok(Unlocked::Missing) };
            if !force && !there.is_of(Some(&by)) {
                return Ok(Unlocked::Theirs((id, there)));
            }
            all.remove(&id);
            Ok(Unlocked::Done((id, there)))
        })
        .await
    }

    /// The locks that fit, in the order of their ids, and where the list goes on.
    pub(crate) async fn list(
        &self,
        filter: Filter,
    ) -> Result<(Vec<Named>, Option<String>), LfsError> {
        let locks = self.clone();
        let all = blocking(move || locks.read()).await?;
        let from = filter.cursor.map_or(Bound::Unbounded, Bound::Excluded);
        let fits = |(id, lock): &(&String, &Lock)| {
            filter.path.as_ref().is_none_or(|path| *path == lock.path)
                && filter.id.as_ref().is_none_or(|wanted| wanted == *id)
        };
        let mut found = all.range((from, Bound::Unbounded)).filter(fits);
        let limit = filter.limit.unwrap_or(MAX_PAGE).clamp(1, MAX_PAGE);
        let page: Vec<Named> =
            found.by_ref().take(limit).map(|(id, lock)| (id.clone(), lock.clone())).collect();
        let next = found.next().and_then(|_| page.last()).map(|(id, _)| id.clone());
        Ok((page, next))
    }

    /// Changes them all at once; nothing if that fails.
    async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut All) -> Result<T, LfsError> + Send + 'static,
    ) -> Result<T, LfsError> {
        let locks = self.clone();
        blocking(move || {
            let folder = locks.0.make(FOLDER)?;
            let _guard = folder.lock(GUARD, PATIENCE).map_err(gone)?;
            let mut all = read(&folder)?;
            let before = all.clone();
            let done = work(&mut all)?;
            if all != before {
                let text = serde_json::to_vec(&all).map_err(io::Error::other)?;
                folder.replace(FILE, &text).map_err(gone)?;
            }
            Ok(done)
        })
        .await
    }

    fn read(&self) -> Result<All, LfsError> {
        self.0.find(FOLDER)?.map_or_else(|| Ok(All::new()), |folder| read(&folder))
    }
}

fn read(folder: &Folder) -> Result<All, LfsError> {
    let Some(bytes) = folder.read(FILE, MAX_FILE)? else { return Ok(All::new()) };
    Ok(serde_json::from_slice(&bytes).map_err(io::Error::other)?)
}

/// Now, to the second.
fn now() -> Result<String, LfsError> {
    let now = OffsetDateTime::now_utc();
    let now = now.replace_nanosecond(0).unwrap_or(now);
    Ok(now.format(&Rfc3339).map_err(io::Error::other)?)
}

#[cfg(test)]
mod tests {
    use alknet_testing::identities::identity;

    use super::*;
    use crate::lfs::tests::root;

    fn locks() -> (tempfile::TempDir, Locks) {
        let (folder, root) = root();
        (folder, Locks::new(root))
    }

    #[tokio::test]
    async fn a_file_has_one_lock() {
        let (_folder, locks) = locks();
        let (ann, ben) = (identity("ann", &[]), identity("ben", &[]));
        let (id, lock) = locks.lock("a b/ä.bin".into(), &ann).await.unwrap().unwrap();
        assert_eq!((lock.owner.as_str(), lock.is_of(Some(&ann))), ("ann", true));
        assert!(!lock.is_of(Some(&ben)) && !lock.is_of(None));
        let there = locks.lock("a b/ä.bin".into(), &ben).await.unwrap().unwrap_err();
        assert_eq!(there, (id.clone(), lock.clone()));

        let theirs = Unlocked::Theirs((id.clone(), lock.clone()));
        assert_eq!(locks.unlock(id.clone(), &ben, false).await.unwrap(), theirs);
        let done = Unlocked::Done((id.clone(), lock));
        assert_eq!(locks.unlock(id.clone(), &ben, true).await.unwrap(), done);
        assert_eq!(locks.unlock(id, &ann, true).await.unwrap(), Unlocked::Missing);
        assert_eq!(locks.list(Filter::default()).await.unwrap(), (vec![], None));
    }

    #[tokio::test]
    async fn locks_are_listed_page_by_page() {
        let (_folder, locks) = locks();
        let ann = identity("ann", &[]);
        for number in 0..5 {
            locks.lock(format!("{number}"), &ann).await.unwrap().unwrap();
        }
        let (all, none) = locks.list(Filter::default()).await.unwrap();
        assert_eq!((all.len(), none), (5, None));
        let mut pages = Vec::new();
        let mut cursor = None;
        loop {
            let filter = Filter { cursor, limit: Some(2), ..Filter::default() };
            let (page, next) = locks.list(filter).await.unwrap();
            pages.extend(page);
            match next {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        assert_eq!(pages, all);
        let only = |filter| async { locks.list(filter).await.unwrap().0 };
        let by_path = only(Filter { path: Some("3".into()), ..Filter::default() }).await;
        assert_eq!(by_path.len(), 1);
        let id = by_path.first().map(|(id, _)| id.clone());
        assert_eq!(only(Filter { id, ..Filter::default() }).await, by_path);
    }

    #[tokio::test]
    async fn two_who_lock_at_once_do_not_both_win() {
        let (_folder, locks) = locks();
        let (ann, ben) = (identity("ann", &[]), identity("ben", &[]));
        let (one, other) =
            tokio::join!(locks.lock("file".into(), &ann), locks.lock("file".into(), &ben));
        assert_ne!(one.unwrap().is_ok(), other.unwrap().is_ok());
    }

    #[tokio::test]
    async fn odd_paths_are_refused() {
        let (_folder, locks) = locks();
        for path in ["", "a\nlock", "a\0", &"a".repeat(MAX_PATH + 1)] {
            let refused = locks.lock(path.into(), &identity("ann", &[])).await;
            assert!(matches!(refused, Err(LfsError::Path)), "{path:?}");
        }
    }
}
