//! The default branch of a repository that a push has made.

use std::{path::Path, sync::atomic::Ordering};

use tokio::task::spawn_blocking;

use super::Guard;
use crate::{
    name::RepositoryName,
    push::{RefChange, file_of},
    repositories::Repositories,
};

const BRANCHES: &str = "refs/heads/";
/// Which of several branches is the default one, before all others.
const LIKELY: [&str; 2] = ["main", "master"];

impl Guard {
    /// Where a push has made the repository, and this is the first that has changed something:
    /// `HEAD` points to one of the branches that came, if it leads nowhere. Who clones it gets
    /// no files otherwise. Waits for the disk.
    pub(super) fn begin_with(&self, changed: &[RefChange]) {
        if let Some(branch) = self.beginning(changed) {
            begin(&self.repositories, &self.repository.name, self.folder, branch);
        }
    }

    /// The same, and does not hold up others.
    pub(super) async fn begin(&self, changed: &[RefChange]) {
        let Some(branch) = self.beginning(changed).map(str::to_owned) else { return };
        let (repositories, name) = (self.repositories.clone(), self.repository.name.clone());
        let folder = self.folder;
        let _ = spawn_blocking(move || begin(&repositories, &name, folder, &branch)).await;
    }

    fn beginning<'a>(&self, changed: &'a [RefChange]) -> Option<&'a str> {
        let is_new = self.news.as_ref().is_some_and(|news| news.load(Ordering::Relaxed));
        let made = changed.iter().filter(|change| is_new && !change.deletes());
        let branches = made.filter_map(|change| change.reference.strip_prefix(BRANCHES));
        let rank = |name: &&str| LIKELY.iter().position(|it| it == name).unwrap_or(LIKELY.len());
        branches.min_by_key(|name| (rank(name), *name))
    }
}

fn begin(repositories: &Repositories, name: &RepositoryName, folder: (u64, u64), branch: &str) {
    let Ok(Some(repository)) = repositories.get(name) else { return };
    // Another one may have its name by now.
    let is_it = file_of(&repository.path).is_ok_and(|file| file == folder);
    if !is_it || leads_somewhere(&repository.path) {
        return;
    }
    if let Err(error) = repositories.set_default_branch(name, branch) {
        tracing::warn!(%name, %error, "the default branch of a new repository stays as it is");
    }
}

/// Whether `HEAD` does, or it is not known.
fn leads_somewhere(repository: &Path) -> bool {
    let opened = gix::open_opts(repository, gix::open::Options::isolated());
    opened.map_or(true, |it| it.head().map_or(true, |head| !head.is_unborn()))
}
