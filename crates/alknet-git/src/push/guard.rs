//! The node's own decision about a push.

mod head;
mod now;
#[cfg(test)]
mod tests;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use alknet_core::{BoxFuture, IdentityProvider};
use gix::ObjectId;
use tokio::task::spawn_blocking;

use self::now::Now;
use super::{
    Gate, OwnerHooks, Push, RefChange, Refused, Say,
    objects::Objects,
    owner::{View, When},
};
use crate::{
    record::Record,
    repositories::{RefPattern, Repositories, Repository, Settings},
    request::Service,
    server::Caller,
};

/// The refs that are the node's own.
const RESERVED: &str = "refs/alknet/";
/// What the pusher is told where the details are not theirs to know.
const DECLINED: &str = "a hook of the node's owner declined";
const BROKEN: &str = "a hook of the node's owner cannot be run";
/// Why a change is refused that nobody was asked about before.
const UNCHECKED: &str = "it was not checked";
/// What is not known is not allowed.
const UNSURE: &str = "the push could not be checked";
/// The reason where the engine gave none.
const NOT_DONE: &str = "not done";
/// The reason where git has refused a push and not said why.
const REFUSED_BY_GIT: &str = "git has refused it";
/// What has no place among refs.
const NO_REF: &str = "no ref is called this";
/// What moves another ref than it names.
const SYMBOLIC: &str = "a symbolic ref is not pushed to";

/// Decides about one push: by the grants of the caller, the settings of the repository, and the
/// owner's hooks. Records what came of it.
///
/// Objects may take hours to come, and hooks their time, so grants and settings are those of
/// the moment when it is asked, and not of the push's beginning.
#[derive(Debug)]
pub(crate) struct Guard {
    pub(crate) repositories: Repositories,
    pub(crate) repository: Repository,
    /// The file that its folder is: another repository may take its name.
    pub(crate) folder: (u64, u64),
    pub(crate) identities: Option<Arc<dyn IdentityProvider>>,
    pub(crate) caller: Caller,
    /// Whether it is news that a push has made the repository.
    pub(crate) news: Option<Arc<AtomicBool>>,
    pub(crate) hooks: Option<OwnerHooks>,
    /// The most bytes of an object.
    pub(crate) largest: u64,
    pub(crate) record: Arc<Record>,
    pub(crate) progress: Mutex<Progress>,
}

/// How far a push has come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    push: Push,
    refused: Refused,
    /// What was protected when it was checked.
    protected: Vec<RefPattern>,
    told: bool,
    /// Whether any ref has changed.
    changed: bool,
    /// The file of what was signed, where there was no such object before.
    signed: Option<PathBuf>,
    /// What was wanted, where nobody was asked, and why nothing came of it, if that is known.
    unasked: (Vec<RefChange>, Option<String>),
}

impl Guard {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The end of the push, however it came. If it has not been recorded, it is now. Waits for
    /// the disk.
    pub(crate) fn finish(&self) {
        let changes = {
            let mut progress = self.progress();
            if progress.told {
                return;
            }
            if progress.push.changes.is_empty() {
                let (wanted, why) = std::mem::take(&mut progress.unasked);
                drop(progress);
                return self.expose(wanted, why);
            }
            progress.push.without(&progress.refused).changes
        };
        // A git that was killed may have changed refs and not said so.
        let changed = changes.into_iter().filter(|change| self.has_happened(change));
        let changed: Vec<_> = changed.collect();
        self.begin_with(&changed);
        self.tell(&changed);
    }

    /// Whether any ref has changed, and the file of what was signed, where there was no such
    /// object before: at the end of the push.
    pub(crate) fn outcome(&self) -> (bool, Option<PathBuf>) {
        let mut progress = self.progress();
        (progress.changed, progress.signed.take())
    }

    /// Tells what has come of changes about which nobody was asked: nothing should have.
    fn expose(&self, wanted: Vec<RefChange>, why: Option<String>) {
        let (caller, repository) = (&self.caller, &self.repository.name);
        if wanted.is_empty() {
            if let Some(why) = why {
                self.record.refused(caller, repository, Service::ReceivePack, &why);
            }
            return;
        }
        // Those of the node git refuses before it asks; they may be as somebody says they want.
        let happened = |it: &&RefChange| {
            why.is_none() && !it.reference.starts_with(RESERVED) && self.has_happened(it)
        };
        let changed: Vec<_> = wanted.iter().filter(happened).cloned().collect();
        if !changed.is_empty() {
            let refs = changed.len();
            tracing::error!(%repository, refs, "git has not asked about a push that it has done");
        }
        {
            let mut progress = self.progress();
            progress.push = Push::new(wanted);
            let why = why.as_deref().unwrap_or(REFUSED_BY_GIT);
            progress.refused = all(&progress.push, why);
            for change in &changed {
                progress.refused.remove(&change.reference);
            }
        }
        self.tell(&changed);
    }

    /// The refs that it may have changed.
    pub(crate) fn refs(&self) -> Vec<String> {
        let progress = self.progress();
        let passed = progress.push.without(&progress.refused).changes;
        let refs = passed.into_iter().filter(RefChange::is_of_a_ref);
        refs.map(|change| change.reference).collect()
    }

    fn has_happened(&self, change: &RefChange) -> bool {
        // A part of a name would find the ref that it is a part of.
        if !change.is_of_a_ref() {
            return false;
        }
        let Ok(repository) = gix::open(&self.repository.path) else { return false };
        match repository.try_find_reference(change.reference.as_str()) {
            Ok(Some(reference)) => {
                reference.try_id().is_some_and(|id| id.detach() == change.new)
                    && change.old != change.new
            }
            Ok(None) => change.deletes(),
            Err(_) => false,
        }
    }

    fn tell(&self, changed: &[RefChange]) {
        let (push, mut refused) = {
            let mut progress = self.progress();
            progress.told = true;
            progress.changed |= !changed.is_empty();
            (progress.push.clone(), progress.refused.clone())
        };
        let done: HashSet<_> = changed.iter().collect();
        for change in push.changes.iter().filter(|change| !done.contains(change)) {
            refused.entry(change.reference.clone()).or_insert_with(|| NOT_DONE.into());
        }
        let news = self.news.as_ref().filter(|_| !changed.is_empty());
        if news.is_some_and(|news| news.swap(false, Ordering::Relaxed)) {
            self.record.created(&self.caller, &self.repository.name);
        }
        self.record.pushed(&self.caller, &self.repository.name, &push, changed, &refused);
    }

    /// What grants and settings have against the changes now.
    async fn against(&self, push: &Push) -> Refused {
        let now = match self.now().await {
            Ok(now) => now,
            Err(why) => return all(push, &why),
        };
        let mut refused = self.forbidden(push, &now);
        self.progress().protected.clone_from(&now.settings.protected);
        refused
            .extend(self.inspect(push.without(&refused), now.settings, Some(self.largest)).await);
        refused
    }

    /// What they have now against changes that have been checked. The size of what came counts
    /// no more: it is the repository's.
    async fn against_still(&self, push: &Push) -> Refused {
        let now = match self.now().await {
            Ok(now) => now,
            Err(why) => return all(push, &why),
        };
        let mut refused = self.forbidden(push, &now);
        if self.progress().protected != now.settings.protected {
            refused.extend(self.inspect(push.without(&refused), now.settings, None).await);
        }
        refused
    }

    async fn inspect(&self, push: Push, settings: Settings, largest: Option<u64>) -> Refused {
        let objects = Objects::new(self.repository.path.clone(), push.quarantine.clone());
        let check = Check { objects, changes: push.changes.clone(), settings, largest };
        let found = spawn_blocking(move || check.run()).await;
        found.unwrap_or_else(|_| all(&push, UNSURE))
    }

    fn forbidden(&self, push: &Push, now: &Now) -> Refused {
        let forbidden =
            |change: &RefChange| Some((change.reference.clone(), self.forbids(change, now)?));
        push.changes.iter().filter_map(forbidden).collect()
    }

    /// What grants and reserved names have against a change.
    fn forbids(&self, change: &RefChange, now: &Now) -> Option<String> {
        let reference = change.reference.as_str();
        if !change.is_of_a_ref() {
            return Some(NO_REF.into());
        }
        if reference.starts_with(RESERVED) {
            return Some(format!("{RESERVED} is the node's own"));
        }
        match now.rights().write(&self.repository.name, reference) {
            true => None,
            false => Some("you may not push to this ref".into()),
        }
    }

    async fn hooks(&self, when: When) -> Result<Vec<PathBuf>, ()> {
        let Some(hooks) = self.hooks.clone() else { return Ok(Vec::new()) };
        let name = self.repository.name.clone();
        let found = spawn_blocking(move || hooks.find(when, &name)).await;
        match found.map_err(drop)? {
            Ok(paths) => Ok(paths),
            Err(error) => {
                let source = std::error::Error::source(&error);
                tracing::error!(%error, source, "a hook is not run, and pushes are refused");
                Err(())
            }
        }
    }

    /// Runs hooks one after the other; whether all agree.
    async fn run(
        &self,
        paths: &[PathBuf],
        change: Option<&RefChange>,
        push: &Push,
        say: &Say,
    ) -> bool {
        let Some(hooks) = &self.hooks else { return true };
        let Repository { name, path: repository, .. } = &self.repository;
        let view = View { name, repository, caller: &self.caller, push };
        let arguments = change.map_or_else(Vec::new, |RefChange { reference, old, new }| {
            vec![reference.clone(), old.to_string(), new.to_string()]
        });
        let input = if change.is_some() { &[] } else { push.changes.as_slice() };
        for path in paths {
            if !hooks.run(path, &arguments, input, &view, say).await {
                return false;
            }
        }
        true
    }
}

/// What is checked where the disk may take its time.
struct Check {
    objects: Objects,
    changes: Vec<RefChange>,
    settings: Settings,
    /// The most bytes of an object, if the size of what came counts.
    largest: Option<u64>,
}

impl Check {
    fn run(self) -> Refused {
        let Self { objects, changes, settings, largest } = self;
        let adds = objects.came() || changes.iter().any(|change| !change.deletes());
        let size = largest.filter(|_| adds).and_then(|largest| {
            let size = objects.inspect(settings.quota, largest);
            size.err().map(|why| why.to_string())
        });
        let symbolic = objects.symbolic(&changes);
        let against = |change: &RefChange| {
            if symbolic.contains(&change.reference) {
                return Some(SYMBOLIC.to_owned());
            }
            // What came stays in the repository if any ref changes, also if one goes.
            let size = size.as_ref().filter(|_| objects.came() || !change.deletes());
            size.cloned().or_else(|| protects(&settings, change, &objects).map(str::to_owned))
        };
        changes
            .into_iter()
            .filter_map(|change| against(&change).map(|why| (change.reference, why)))
            .collect()
    }
}

/// What the protection of a ref has against a change.
fn protects(settings: &Settings, change: &RefChange, objects: &Objects) -> Option<&'static str> {
    if !settings.protects(&change.reference) {
        return None;
    }
    // First of all: git deletes a ref also for who says that it named nothing.
    if change.deletes() {
        return Some("protected: it may not be deleted");
    }
    // Git makes a ref only if there is none.
    if change.creates() {
        return None;
    }
    if change.reference.starts_with("refs/tags/") {
        return Some("protected: a tag may not be moved");
    }
    let forward = objects.is_fast_forward(change);
    (!forward).then_some("protected: only descendants of what it names may be pushed")
}

/// The file of an object that is in no pack.
fn loose(repository: &Path, id: ObjectId) -> PathBuf {
    let id = id.to_string();
    let (folder, file) = id.split_at_checked(2).unwrap_or_default();
    repository.join("objects").join(folder).join(file)
}

fn all(push: &Push, why: &str) -> Refused {
    push.changes.iter().map(|change| (change.reference.clone(), why.to_owned())).collect()
}

impl Gate for Guard {
    fn signed(&self, certificate: ObjectId, bytes: u64) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            // Whoever may not push at all any more is told so later.
            let quota = self.settings_now().await.ok().and_then(|it| it.quota);
            let repository = self.repository.path.clone();
            let looked = spawn_blocking(move || {
                let most = quota.map(|quota| quota.saturating_sub(bytes));
                let has_room = Objects::new(repository.clone(), None).inspect(most, u64::MAX);
                let opened = gix::open_opts(&repository, gix::open::Options::isolated());
                let is_new = opened.is_ok_and(|it| !it.has_object(certificate));
                (has_room.is_ok(), is_new.then(|| loose(&repository, certificate)))
            });
            let Ok((has_room, file)) = looked.await else { return false };
            self.progress().signed = file.filter(|_| has_room);
            has_room
        })
    }

    fn check<'a>(&'a self, push: Push, say: &'a Say) -> BoxFuture<'a, Refused> {
        Box::pin(async move {
            self.progress().push = push.clone();
            let mut refused = self.against(&push).await;
            let passed = push.without(&refused);
            if !passed.changes.is_empty() {
                match self.hooks(When::PreReceive).await {
                    Err(()) => refused.extend(all(&passed, BROKEN)),
                    Ok(paths) => {
                        if !self.run(&paths, None, &passed, say).await {
                            refused.extend(all(&passed, DECLINED));
                        }
                    }
                }
            }
            self.progress().refused = refused.clone();
            if push.without(&refused).changes.is_empty() {
                self.tell(&[]);
            }
            refused
        })
    }

    fn update<'a>(&'a self, changes: Vec<RefChange>, say: &'a Say) -> BoxFuture<'a, Refused> {
        Box::pin(async move {
            let push = self.progress().push.clone();
            let checked: HashSet<_> = push.changes.iter().collect();
            let unchecked = changes.iter().filter(|change| !checked.contains(change));
            let mut refused: Refused =
                unchecked.map(|it| (it.reference.clone(), UNCHECKED.to_owned())).collect();
            let push = Push { changes, quarantine: None, ..push.clone() }.without(&refused);
            match self.hooks(When::Update).await {
                Err(()) => refused.extend(all(&push, BROKEN)),
                Ok(paths) if paths.is_empty() => {}
                Ok(paths) => {
                    for change in &push.changes {
                        if !self.run(&paths, Some(change), &push, say).await {
                            refused.insert(change.reference.clone(), DECLINED.into());
                        }
                    }
                }
            }
            refused.extend(self.against_still(&push.without(&refused)).await);
            self.progress().refused.extend(refused.clone());
            refused
        })
    }

    fn unasked(&self, wanted: Vec<RefChange>, why: Option<String>) {
        self.progress().unasked = (wanted, why);
    }

    fn done<'a>(&'a self, changes: Vec<RefChange>, say: &'a Say) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            self.begin(&changes).await;
            self.tell(&changes);
            let push = self.progress().push.clone();
            let push = Push { changes, quarantine: None, ..push };
            match self.hooks(When::PostReceive).await {
                Ok(paths) => {
                    self.run(&paths, None, &push, say).await;
                }
                Err(()) => say.line(BROKEN).await,
            }
        })
    }
}
