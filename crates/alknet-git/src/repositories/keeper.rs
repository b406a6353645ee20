//! What a node does with its repositories while nobody asks: garbage collection after pushes
//! and each week, and mirrors that look for news.

mod looks;

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use alknet_core::{Audit, AuditChange, AuditEvent};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    task,
    time::{MissedTickBehavior, interval},
};

use self::looks::Looks;
use super::{
    Collected, Repositories, Repository, RepositoryError, RunError,
    collect::{self, Depth},
    files::Lock,
};
use crate::{
    bundle,
    engine::InstalledGit,
    events::{Event, EventKind, Events},
    mirror::{self, MirrorError, MirrorPolicy, MirrorStatus, Nodes},
    name::RepositoryName,
    push::RefChange,
};

/// Held, in a repository, by whoever looks for news of a mirror.
const MIRROR_LOCK: &str = "alknet-mirror.lock";
/// How often it is looked which mirrors are due: another process may have made one.
const TICK: Duration = Duration::from_secs(15);
/// How often what killed processes of git left is removed, and all repositories are looked
/// after.
const TIDY: Duration = Duration::from_secs(60 * 60);
/// The most repositories that wait to be looked after; a push to one more is looked after at
/// its next push.
const MOST_WAITING: usize = 10_000;

/// The most changes of refs that an entry of the audit log names.
const MAX_CHANGES: usize = 100;
/// The longest name of a ref in it, in characters.
const MAX_NAME: usize = 256;

/// What a [`Keeper`] is made from.
#[derive(Clone)]
#[non_exhaustive]
pub struct KeeperConfig {
    /// The repositories.
    pub repositories: Repositories,
    /// What does the work.
    pub git: InstalledGit,
    /// What mirrors may do.
    pub mirrors: MirrorPolicy,
    /// Who reaches other nodes for them.
    pub nodes: Option<Arc<dyn Nodes>>,
    /// Whether garbage is collected after pushes, when there is enough, and all of it a week
    /// after the last time.
    pub automatic: bool,
    /// Whether a whole collection writes a bundle for clones. Where not, there are none.
    pub bundles: bool,
    /// How long each step of a collection may take.
    pub deadline: Duration,
    /// What happens to the repositories: pushes are heard of here, and what mirrors have
    /// brought is told.
    pub events: Events,
    /// Where it is recorded what mirrors have brought.
    pub audit: Audit,
}

impl KeeperConfig {
    /// With a collection after pushes, no bundles, and mirrors of the public Internet.
    pub fn new(
        repositories: Repositories,
        git: InstalledGit,
        events: Events,
        audit: Audit,
    ) -> Self {
        Self {
            repositories,
            git,
            mirrors: MirrorPolicy::default(),
            nodes: None,
            automatic: true,
            bundles: false,
            deadline: Duration::from_secs(60 * 60),
            events,
            audit,
        }
    }
}

/// Looks after repositories. Cheap to clone; clones share their work.
#[derive(Clone)]
pub struct Keeper(Arc<Shared>);

struct Shared {
    config: KeeperConfig,
    /// Repositories that were pushed to.
    waiting: Mutex<BTreeSet<RepositoryName>>,
    wake: Notify,
    /// One collection at a time.
    turn: Semaphore,
    /// As many looks of mirrors as may be at a time.
    looks: Arc<Semaphore>,
}

/// A repository could not be looked after.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeeperError {
    /// Somebody else is doing the same.
    #[error("{0} is being looked after already")]
    Busy(RepositoryName),
    /// It is no copy of another one.
    #[error("{0} is no mirror")]
    NoMirror(RepositoryName),
    /// The repository cannot be used.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// Git could not collect its garbage.
    #[error(transparent)]
    Git(#[from] RunError),
    /// It could not get its content.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// The node is ending.
    #[error("interrupted")]
    Interrupted,
}

impl Keeper {
    /// One that does nothing yet.
    pub fn new(config: KeeperConfig) -> Self {
        let (waiting, wake, turn) = (Mutex::default(), Notify::new(), Semaphore::new(1));
        let looks = Arc::new(Semaphore::new(config.mirrors.at_once.max(1)));
        Self(Arc::new(Shared { config, waiting, wake, turn, looks }))
    }

    /// Says that refs of a repository have changed. Neither waits nor blocks.
    fn pushed(&self, name: &RepositoryName) {
        let mut waiting = self.waiting();
        if waiting.len() < MOST_WAITING {
            waiting.insert(name.clone());
            self.0.wake.notify_one();
        }
    }

    /// Works until it is dropped, which ends what is in progress.
    pub async fn run(&self) {
        tokio::join!(
            self.hear_of_pushes(),
            self.collect_what_waits(),
            self.follow_mirrors(),
            self.tidy(),
        );
    }

    /// Collects all garbage of a repository, after what is in progress. Cancel safe: it then
    /// is as good as before.
    pub async fn collect(&self, name: &RepositoryName) -> Result<Collected, KeeperError> {
        let _turn = self.0.turn.acquire().await.map_err(|_| KeeperError::Interrupted)?;
        let (repository, _lock) = self.locked(name, collect::LOCK).await?;
        let before = measure(&repository).await?;
        self.collect_to(&repository, Depth::Whole).await?;
        let after = measure(&repository).await?;
        Ok(Collected { before, after })
    }

    /// Lets a mirror look for news as soon as there is a place for it; gives what has changed.
    /// Cancel safe.
    pub async fn update(&self, name: &RepositoryName) -> Result<Vec<RefChange>, KeeperError> {
        self.look(name, None).await
    }

    async fn look(
        &self,
        name: &RepositoryName,
        place: Option<OwnedSemaphorePermit>,
    ) -> Result<Vec<RefChange>, KeeperError> {
        let (repository, _lock) = self.locked(name, MIRROR_LOCK).await?;
        let Some(mirror) = repository.settings.mirror.clone() else {
            return Err(KeeperError::NoMirror(name.clone()));
        };
        let _place = match place {
            Some(place) => place,
            None => {
                let place = self.0.looks.clone().acquire_owned().await;
                place.map_err(|_| KeeperError::Interrupted)?
            }
        };
        let KeeperConfig { repositories, git, mirrors, nodes, .. } = &self.0.config;
        let nodes = nodes.as_deref();
        let fetched = mirror::fetch(git, repositories, &repository, &mirror, mirrors, nodes).await;
        let failure = fetched.as_ref().err().map(told);
        let (store, noted, every) =
            (repositories.clone(), repository.clone(), mirrors.every(&mirror));
        let changed = fetched.as_ref().is_ok_and(|changes| !changes.is_empty());
        blocking(move || {
            if changed {
                store.touched(&noted);
            }
            note(&store, &noted, failure, every)
        })
        .await?;
        let changes = fetched?;
        if changed {
            self.tell(&repository, &changes);
        }
        Ok(changes)
    }

    async fn hear_of_pushes(&self) {
        let mut events = self.0.config.events.subscribe();
        while let Some(event) = events.next().await {
            let Ok(event) = event else { continue };
            let Ok(name) = event.repository.parse::<RepositoryName>() else { continue };
            if event.event != EventKind::Push {
                // Another process may have put another repository in its place.
                self.0.config.repositories.resized(&name);
                continue;
            }
            let (repositories, pushed) = (self.0.config.repositories.clone(), name.clone());
            let noted = blocking(move || {
                if let Some(repository) = repositories.get(&pushed)? {
                    repositories.touched(&repository);
                }
                Ok(())
            });
            match noted.await {
                Ok(()) => self.pushed(&name),
                Err(error) => tracing::debug!(%name, error = chain(&error), "not looked after"),
            }
        }
    }

    /// Tells of what a mirror has brought.
    fn tell(&self, repository: &Repository, changes: &[RefChange]) {
        let KeeperConfig { events, audit, .. } = &self.0.config;
        let told = |change: &RefChange| AuditChange {
            name: change.reference.chars().take(MAX_NAME).collect(),
            old: change.old.to_string(),
            new: change.new.to_string(),
            refused: None,
        };
        audit.record(AuditEvent {
            event: "git-mirror",
            repository: Some(repository.name.to_string()),
            changes: changes.iter().take(MAX_CHANGES).map(told).collect(),
            more_changes: changes.len().checked_sub(MAX_CHANGES).filter(|more| *more > 0),
            ..AuditEvent::default()
        });
        let event = Event::new(EventKind::Push, &repository.name, None);
        events.send(event.with_changes(changes));
    }

    async fn collect_what_waits(&self) {
        loop {
            self.0.wake.notified().await;
            loop {
                let next = self.waiting().pop_first();
                let Some(name) = next else { break };
                self.look_after(&name).await;
            }
        }
    }

    async fn look_after(&self, name: &RepositoryName) {
        if let Err(error) = self.do_what_is_due(name).await {
            tracing::warn!(%name, error = chain(&error), "garbage is not collected");
        }
    }

    async fn do_what_is_due(&self, name: &RepositoryName) -> Result<(), KeeperError> {
        let KeeperConfig { repositories, git, automatic, bundles, deadline, .. } = &self.0.config;
        let (store, wanted, automatic) = (repositories.clone(), name.clone(), *automatic);
        let due = blocking(move || {
            let found = store.get(&wanted)?;
            found.map_or(Ok(Due::default()), |repository| Due::of(&repository, automatic))
        });
        let due = due.await?;
        if due.is_nothing() {
            return Ok(());
        }
        let _turn = self.0.turn.acquire().await.map_err(|_| KeeperError::Interrupted)?;
        let (repository, _lock) = match self.locked(name, collect::LOCK).await {
            Ok(locked) => locked,
            // Whoever does it does it for us, too.
            Err(KeeperError::Busy(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        if due.bundles {
            collect::review_bundles(git, &repository, *bundles, *deadline).await?;
        }
        match due.depth {
            Some(depth) => self.collect_to(&repository, depth).await,
            None => Ok(()),
        }
    }

    async fn collect_to(&self, repository: &Repository, depth: Depth) -> Result<(), KeeperError> {
        let KeeperConfig { git, bundles, deadline, repositories, .. } = &self.0.config;
        let note = async |tidy: bool| {
            let it = repository.clone();
            let noted = blocking(move || {
                let tidied = if tidy { collect::tidy(&it.path) } else { Ok(()) };
                let noted = match depth {
                    Depth::Quick => Ok(()),
                    Depth::Whole => collect::note_whole(&it.path),
                };
                tidied.and(noted).map_err(|source| it.failed(source))
            });
            noted.await
        };
        // Before as well: one that fails is not made again and again.
        note(true).await?;
        collect::collect(git, repository, depth, *bundles, *deadline).await?;
        note(false).await?;
        repositories.resized(&repository.name);
        Ok(())
    }

    async fn follow_mirrors(&self) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = Looks::default();
        loop {
            tokio::select! {
                () = looks.ended() => continue,
                _ = ticks.tick() => {}
            }
            for name in self.due_mirrors().await {
                if looks.has(&name) {
                    continue;
                }
                // The others are due at the next tick as well.
                let Ok(place) = self.0.looks.clone().try_acquire_owned() else { break };
                let (keeper, wanted) = (self.clone(), name.clone());
                looks.begin(name, async move {
                    match keeper.look(&wanted, Some(place)).await {
                        Ok(_) | Err(KeeperError::Busy(_) | KeeperError::NoMirror(_)) => {}
                        Err(error) => {
                            let (name, error) = (wanted, chain(&error));
                            tracing::warn!(%name, error, "a mirror has no news");
                        }
                    }
                });
            }
        }
    }

    /// Those whose time has come, who has waited longest first.
    async fn due_mirrors(&self) -> Vec<RepositoryName> {
        let repositories = self.0.config.repositories.clone();
        let found = blocking(move || {
            let now = mirror::now();
            let mut due = Vec::new();
            for repository in repositories.list(|_| true, false, usize::MAX)? {
                if repository.settings.mirror.is_none() {
                    continue;
                }
                let next = repositories.mirror_status(&repository).unwrap_or_default().next;
                if next <= now {
                    due.push((next, repository.name));
                }
            }
            due.sort();
            Ok(due.into_iter().map(|(_, name)| name).collect())
        });
        found.await.unwrap_or_else(|error: KeeperError| {
            tracing::warn!(error = chain(&error), "mirrors cannot be listed");
            Vec::new()
        })
    }

    async fn tidy(&self) {
        let mut ticks = interval(TIDY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.look_after_all().await;
        }
    }

    /// Removes what killed processes left, and does what is due without any push.
    pub(super) async fn look_after_all(&self) {
        let KeeperConfig { repositories, automatic, .. } = &self.0.config;
        let (repositories, automatic) = (repositories.clone(), *automatic);
        let tidied = blocking(move || {
            let mut all = repositories.list(|_| true, false, usize::MAX)?;
            all.retain(|repository| {
                let tidied = collect::tidy(&repository.path).map_err(|it| repository.failed(it));
                let due = tidied.and_then(|()| Due::of(repository, automatic));
                let due = due.inspect_err(|error| {
                    tracing::warn!(name = %repository.name, error = chain(error), "not tidied");
                });
                due.is_ok_and(|due| due.bundles || due.depth == Some(Depth::Whole))
            });
            Ok(all)
        });
        match tidied.await {
            Ok(due) => {
                for repository in due {
                    self.look_after(&repository.name).await;
                }
            }
            Err(error) => {
                tracing::warn!(error = chain(&error), "repositories are not tidied");
            }
        }
    }

    /// A repository that nobody else does the same work on.
    async fn locked(
        &self,
        name: &RepositoryName,
        lock: &'static str,
    ) -> Result<(Repository, Lock), KeeperError> {
        let (repositories, wanted) = (self.0.config.repositories.clone(), name.clone());
        let locked = blocking(move || {
            let repository = repositories.find(&wanted)?;
            let missing = || RepositoryError::Missing(wanted.clone());
            let folder = repositories.folder(&wanted)?.ok_or_else(missing)?;
            let lock = folder.try_lock(lock).map_err(|source| repository.failed(source))?;
            Ok(lock.map(|lock| (repository, lock)))
        });
        locked.await?.ok_or_else(|| KeeperError::Busy(name.clone()))
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeSet<RepositoryName>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("config", &self.0.config).finish_non_exhaustive()
    }
}

impl fmt::Debug for KeeperConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeeperConfig")
            .field("repositories", &self.repositories)
            .field("mirrors", &self.mirrors)
            .finish_non_exhaustive()
    }
}

/// What is to be done for a repository.
#[derive(Debug, Clone, Copy, Default)]
struct Due {
    /// Whether it has bundles, which may have to go.
    bundles: bool,
    depth: Option<Depth>,
}

impl Due {
    fn of(repository: &Repository, automatic: bool) -> Result<Self, RepositoryError> {
        let path = &repository.path;
        let whole = collect::is_whole_due(path).map_err(|source| repository.failed(source))?;
        let depth = match whole {
            true => Some(Depth::Whole),
            false => collect::is_due(path).then_some(Depth::Quick),
        };
        Ok(Self { bundles: bundle::has_any(path), depth: depth.filter(|_| automatic) })
    }

    fn is_nothing(&self) -> bool {
        !self.bundles && self.depth.is_none()
    }
}

/// Notes what came of a look.
fn note(
    repositories: &Repositories,
    repository: &Repository,
    failure: Option<String>,
    every: Duration,
) -> Result<(), RepositoryError> {
    // Renamed or removed meanwhile.
    let Some(folder) = repositories.folder(&repository.name)? else { return Ok(()) };
    let noted =
        MirrorStatus::read(&folder).and_then(|status| status.after(failure, every).write(&folder));
    noted.map_err(|source| repository.failed(source))
}

async fn measure(repository: &Repository) -> Result<u64, KeeperError> {
    let repository = repository.clone();
    blocking(move || repository.measure()).await
}

/// What of an error is shown to whoever administers the repository.
fn told(error: &MirrorError) -> String {
    match error {
        MirrorError::Repository(_) => "the repository cannot be used".into(),
        error => error.to_string(),
    }
}

/// An error with its causes.
fn chain(error: &impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Disks may be slow, and others must not wait for them.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RepositoryError> + Send + 'static,
) -> Result<T, KeeperError> {
    let done = task::spawn_blocking(work).await;
    Ok(done.map_err(|_| KeeperError::Interrupted)??)
}
