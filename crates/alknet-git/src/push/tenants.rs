//! Who is pushing to which repository.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
};

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::leftovers;
use crate::{lfs, name::RepositoryName, repositories::Repositories};

/// What the owner may have set, in the folder of a repository.
const SETTINGS: &str = "alknet.toml";

/// Counts the pushes to each repository. The last one to end takes away what a killed git has
/// left, and the repository itself if pushes have made it and put nothing into it.
#[derive(Debug)]
pub(crate) struct Tenants {
    repositories: Repositories,
    tenancies: Mutex<HashMap<RepositoryName, Tenancy>>,
}

#[derive(Debug, Default)]
struct Tenancy {
    pushes: usize,
    /// The repository that a push has made, and whether nobody was told yet.
    made: Option<(Made, Arc<AtomicBool>)>,
    /// Files of what was signed and refused, and whether any push has changed a ref, which may
    /// lead to them.
    signed: Vec<PathBuf>,
    changed: bool,
    /// A git has been killed.
    disturbed: Option<PathBuf>,
    /// The last push is over, and what it has left is being taken away until this is cancelled.
    ending: Option<CancellationToken>,
}

/// A repository as a push has made it: the file that its folder is, and its settings.
#[derive(Debug, PartialEq, Eq)]
struct Made {
    file: (u64, u64),
    settings: Vec<u8>,
}

/// Ends a tenancy when it is dropped, also if the work that it belongs to is never done.
struct Ending {
    tenants: Arc<Tenants>,
    name: RepositoryName,
    done: CancellationToken,
}

/// A push to a repository, or the attempt. Whoever drops it does not wait for the disk, if
/// there is a runtime.
#[derive(Debug)]
pub(crate) struct Lease {
    tenants: Arc<Tenants>,
    name: RepositoryName,
}

impl Tenants {
    /// Those of these repositories.
    pub(crate) fn new(repositories: Repositories) -> Arc<Self> {
        Arc::new(Self { repositories, tenancies: Mutex::default() })
    }

    /// Begins a push, before anybody looks whether the repository is there. Waits until what
    /// the pushes before it have left is gone. Cancel safe.
    pub(crate) async fn enter(self: &Arc<Self>, name: &RepositoryName) -> Lease {
        loop {
            let ending = {
                let mut tenancies = self.lock();
                let tenancy = tenancies.entry(name.clone()).or_default();
                let Some(ending) = &tenancy.ending else {
                    tenancy.pushes += 1;
                    return Lease { tenants: self.clone(), name: name.clone() };
                };
                ending.clone()
            };
            ending.cancelled().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RepositoryName, Tenancy>> {
        self.tenancies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// The push has made the repository. Waits for the disk.
    pub(crate) fn made(&self, folder: &Path) {
        match Made::read(folder) {
            Ok(made) => {
                let news = Arc::new(AtomicBool::new(true));
                self.note(|tenancy| tenancy.made = Some((made, news)));
            }
            // It stays, whatever becomes of the push.
            Err(error) => tracing::warn!(name = %self.name, %error, "a new repository is gone"),
        }
    }

    /// Whether it is news that the repository was made, by this push or another one that is
    /// not over; whoever tells it takes the news away.
    pub(crate) fn news(&self) -> Option<Arc<AtomicBool>> {
        let tenants = self.tenants.lock();
        tenants.get(&self.name)?.made.as_ref().map(|(_, news)| news.clone())
    }

    /// Whether nobody else is pushing there.
    pub(crate) fn is_alone(&self) -> bool {
        self.tenants.lock().get(&self.name).is_some_and(|tenancy| tenancy.pushes == 1)
    }

    /// What has come of a push: whether it has changed a ref, and the file of what was signed.
    /// Such a file goes when the last push is over, unless any of them has changed something.
    pub(crate) fn came_to(&self, changed: bool, signed: Option<PathBuf>) {
        self.note(|tenancy| {
            tenancy.changed |= changed;
            tenancy.signed.extend(signed);
        });
    }

    /// The push was cut off: it may have left something behind.
    pub(crate) fn disturbed(&self, folder: &Path) {
        self.note(|tenancy| tenancy.disturbed = Some(folder.to_owned()));
    }

    fn note(&self, note: impl FnOnce(&mut Tenancy)) {
        note(self.tenants.lock().entry(self.name.clone()).or_default());
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (ending, over) = {
            let mut tenancies = self.tenants.lock();
            let Some(tenancy) = tenancies.get_mut(&self.name) else { return };
            tenancy.pushes = tenancy.pushes.saturating_sub(1);
            if tenancy.pushes > 0 {
                return;
            }
            let over = Tenancy {
                made: tenancy.made.take(),
                signed: std::mem::take(&mut tenancy.signed),
                changed: tenancy.changed,
                disturbed: tenancy.disturbed.take(),
                ..Tenancy::default()
            };
            if over.leaves_nothing() {
                tenancies.remove(&self.name);
                return;
            }
            // Whoever comes next waits until it is decided whether there is a repository, and
            // nobody else does.
            let done = CancellationToken::new();
            tenancy.ending = Some(done.clone());
            (Ending { tenants: self.tenants.clone(), name: self.name.clone(), done }, over)
        };
        let work = move || ending.work(over);
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(work)),
            Err(_) => work(),
        }
    }
}

impl Tenancy {
    fn leaves_nothing(&self) -> bool {
        let signed = self.changed || self.signed.is_empty();
        self.made.is_none() && self.disturbed.is_none() && signed
    }
}

impl Ending {
    fn work(self, over: Tenancy) {
        let Tenancy { made, signed, changed, disturbed, .. } = over;
        if !changed {
            signed.iter().for_each(|file| leftovers::remove_object(file));
        }
        if let Some(folder) = disturbed {
            leftovers::clean_quarantine(&folder);
        }
        let Some((made, _)) = made else { return };
        // Somebody may have set something by now, or have made another one.
        let as_made =
            |folder: &Path| Made::read(folder).is_ok_and(|it| it == made) && is_empty(folder);
        if let Err(error) = self.tenants.repositories.delete_if(&self.name, as_made) {
            tracing::warn!(name = %self.name, %error, "an empty repository stays");
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.tenants.lock().remove(&self.name);
        self.done.cancel();
    }
}

impl Made {
    fn read(folder: &Path) -> io::Result<Self> {
        Ok(Self { file: file_of(folder)?, settings: fs::read(folder.join(SETTINGS))? })
    }
}

/// Which file a folder is. Waits for the disk.
pub(crate) fn file_of(folder: &Path) -> io::Result<(u64, u64)> {
    let it = fs::metadata(folder)?;
    Ok((it.dev(), it.ino()))
}

/// Whether a repository has no ref and no large file. One that cannot be read has one for all
/// that is known.
fn is_empty(folder: &Path) -> bool {
    if lfs::has_any(folder) {
        return false;
    }
    let Ok(repository) = gix::open(folder) else { return false };
    let Ok(references) = repository.references() else { return false };
    references.all().is_ok_and(|mut all| all.next().is_none())
}

#[cfg(test)]
mod tests {
    use rustix::fs::{FlockOperation, flock};

    use super::*;
    use crate::repositories::Settings;

    #[tokio::test]
    async fn a_repository_that_nobody_has_pushed_to_goes_with_the_last_push() {
        let folder = tempfile::tempdir().unwrap();
        let repositories = Repositories::open(folder.path()).unwrap();
        let (tenants, name) = (Tenants::new(repositories.clone()), "a".parse().unwrap());
        let make = || repositories.create(&name, &Settings::default()).unwrap().path;
        let is_there = || repositories.get(&name).unwrap().is_some();
        let one = tenants.enter(&name).await;
        one.made(&make());
        let two = tenants.enter(&name).await;
        drop(one);
        drop(tenants.enter(&name).await);
        assert!(is_there(), "somebody else is at it");
        drop(two);
        drop(tenants.enter(&name).await);
        assert!(!is_there());
        assert!(tenants.lock().is_empty());

        let path = make();
        drop(tenants.enter(&name).await);
        assert!(is_there(), "no push has made it");
        fs::write(path.join("refs/heads/x"), format!("{}\n", "1".repeat(40))).unwrap();
        tenants.enter(&name).await.made(&path);
        drop(tenants.enter(&name).await);
        assert!(is_there(), "it has a ref");
    }

    #[tokio::test]
    async fn what_the_owner_has_set_or_made_meanwhile_stays() {
        let folder = tempfile::tempdir().unwrap();
        let repositories = Repositories::open(folder.path()).unwrap();
        let (tenants, name) = (Tenants::new(repositories.clone()), "a".parse().unwrap());
        let make = || repositories.create(&name, &Settings::default()).unwrap().path;
        let lease = tenants.enter(&name).await;
        lease.made(&make());
        repositories.configure(&name, |it| it.public = true).unwrap();
        drop(lease);
        let lease = tenants.enter(&name).await;
        assert!(repositories.get(&name).unwrap().unwrap().settings.public);

        lease.made(&folder.path().join("a.git"));
        // Still there, so that the new one is another file.
        fs::rename(folder.path().join("a.git"), folder.path().join("old")).unwrap();
        make();
        drop(lease);
        drop(tenants.enter(&name).await);
        assert!(repositories.get(&name).unwrap().is_some());
    }

    #[tokio::test]
    async fn who_pushes_elsewhere_does_not_wait_for_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let repositories = Repositories::open(folder.path()).unwrap();
        let (tenants, name) = (Tenants::new(repositories.clone()), "a".parse().unwrap());
        let lease = tenants.enter(&name).await;
        lease.made(&repositories.create(&name, &Settings::default()).unwrap().path);
        let names = fs::File::open(folder.path().join(".work/names")).unwrap();
        flock(&names, FlockOperation::LockExclusive).unwrap();
        drop(lease);
        drop(tenants.enter(&"b".parse().unwrap()).await);
        assert!(repositories.get(&name).unwrap().is_some());
        drop(names);
        drop(tenants.enter(&name).await);
        assert!(repositories.get(&name).unwrap().is_none());
    }
}
