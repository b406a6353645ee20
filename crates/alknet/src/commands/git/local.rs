//! The repositories of the state folder, also while a node serves them: it is told what was done,
//! for whoever listens there.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use alknet_core::{Audit, AuditEvent, AuditSink};
use alknet_git::{
    Event, Events, InstalledGit, Keeper, KeeperConfig, KeeperError, MirrorError, Repositories,
    RepositoryError, RepositoryName, Setup, hook,
};
use tempfile::TempDir;
use tokio::time::timeout;

use super::{Change, show::Collected};
use crate::{
    audit,
    commands::audit::unrecorded,
    config::Config,
    connect::ReachError,
    control::{self, ControlError, Request},
    failure::Failure,
    git::{
        self, OtherNodes,
        admin::{self, AdminError, Bound, Done, Named, Shown},
    },
    home::Home,
    output,
};

/// How long a node may take to hear what was done.
const TOLD: Duration = Duration::from_secs(5);
/// How much of a request the changes of refs may take, in bytes.
const CHANGES: usize = 32 * 1024;

/// What a keeper records, for the audit log.
#[derive(Debug, Clone, Default)]
struct Noted(Arc<Mutex<Vec<AuditEvent>>>);

impl AuditSink for Noted {
    fn record(&self, event: AuditEvent) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }
}

/// What is in the state folder, and what looks after it.
struct Here {
    home: Home,
    config: Config,
    repositories: Repositories,
}

impl Here {
    async fn open(home: &Home) -> Result<Self, Failure> {
        let config = Config::load(home)?;
        let repositories = git::repositories(home, &config.git).await?;
        Ok(Self { home: home.clone(), config, repositories })
    }

    /// The caller waits for what it does, and passes on what it says. Git goes by the same
    /// settings as on the node, which are in a folder of this command alone: the node's own is
    /// in use.
    fn keeper(&self, events: Events, audit: Audit) -> Result<(Keeper, TempDir), Failure> {
        let git = InstalledGit::find().map_err(|error| {
            Failure::from(error).hint("install git, or start this with its folder in PATH")
        })?;
        let folder = tempfile::tempdir()?;
        let git = git.set_up(&Setup::new(folder.path(), hook::program()?))?;
        let mut parts = KeeperConfig::new(self.repositories.clone(), git, events, audit);
        parts.nodes = Some(Arc::new(OtherNodes::new(&self.home, None)?));
        Ok((git::keeper(&self.config.git, parts), folder))
    }

    /// Does something, and says so to the audit log and the node.
    async fn make(
        &self,
        change: impl FnOnce(&Repositories) -> Result<Done, AdminError>,
    ) -> Result<Done, Failure> {
        let done = change(&self.repositories).map_err(failed)?;
        let recorded = self.record(done.entry.clone());
        let (kind, name) = &done.event;
        self.tell(Event::new(*kind, name, None)).await?;
        recorded?;
        Ok(done)
    }

    /// Lets a mirror look for news, and says so as the node does.
    async fn look(&self, name: &RepositoryName) -> Result<(), Failure> {
        let (events, noted) = (Events::default(), Noted::default());
        let mut heard = events.subscribe();
        let (keeper, _folder) = self.keeper(events, Audit::new(noted.clone()))?;
        let updated = keeper.update(name).await;
        // No more is said then.
        drop(keeper);
        let entries = noted.0.lock().unwrap_or_else(PoisonError::into_inner).split_off(0);
        let recorded = entries.into_iter().try_for_each(|entry| self.record(entry));
        while let Some(Ok(event)) = heard.next().await {
            self.tell(Event::clone(&event)).await?;
        }
        updated.map_err(|error| neglected(name, error))?;
        recorded
    }

    /// Has the node, if one runs, tell who listens. What was done is done where it cannot.
    async fn tell(&self, event: Event) -> io::Result<()> {
        let asked = control::ask(&self.home, Request::Tell { event: short(event) });
        let untold = match timeout(TOLD, asked).await {
            Ok(Ok(())) | Ok(Err(ControlError::NotServed)) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it does not answer".into(),
        };
        output::note(format!("those who listen to the node were not told of it: {untold}"))
    }

    fn record(&self, entry: AuditEvent) -> Result<(), Failure> {
        audit::append_once(&self.home, entry).map_err(unrecorded)
    }

    fn shown(&self, name: &str) -> Result<Shown, Failure> {
        let name = parsed(name)?;
        let found = self.repositories.find(&name).map_err(unusable)?;
        admin::shown(&self.repositories, &found).map_err(unusable)
    }
}

pub(super) async fn change(home: &Home, change: Change) -> Result<Shown, Failure> {
    let here = Here::open(home).await?;
    let done = match change {
        Change::Show(Named { name }) => return here.shown(&name),
        Change::Create(wanted) => here.make(|all| admin::create(all, &wanted)).await?,
        Change::Rename(wanted) => here.make(|all| admin::rename(all, &wanted)).await?,
        Change::Configure(wanted) => {
            here.make(|all| admin::configure(all, &wanted, Bound::None)).await?
        }
        Change::Mirror(wanted, _) if wanted.url.is_none() && !wanted.stop => {
            let name = parsed(&wanted.name)?;
            here.look(&name).await?;
            return here.shown(&wanted.name);
        }
        Change::Mirror(wanted, credentials) => {
            here.make(|all| admin::mirror(all, &wanted, credentials, true)).await?
        }
    };
    let name = done.repository.map(|repository| repository.name.to_string());
    here.shown(&name.unwrap_or_default())
}

pub(super) async fn delete(home: &Home, wanted: Named) -> Result<(), Failure> {
    let here = Here::open(home).await?;
    here.make(|all| admin::delete(all, &wanted)).await.map(drop)
}

pub(super) async fn list(home: &Home) -> Result<Vec<Shown>, Failure> {
    let here = Here::open(home).await?;
    let all = here.repositories.list(|_| true, true, usize::MAX).map_err(unusable)?;
    all.iter().map(|one| admin::shown(&here.repositories, one).map_err(unusable)).collect()
}

pub(super) async fn names(home: &Home) -> Result<Vec<String>, Failure> {
    let here = Here::open(home).await?;
    let all = here.repositories.list(|_| true, true, usize::MAX).map_err(unusable)?;
    Ok(all.into_iter().map(|one| one.name.to_string()).collect())
}

pub(super) async fn collect(home: &Home, names: &[String]) -> Result<Vec<Collected>, Failure> {
    let here = Here::open(home).await?;
    let (keeper, _folder) = here.keeper(Events::default(), Audit::to_log())?;
    let mut all = Vec::new();
    for text in names {
        let name = parsed(text)?;
        let done = keeper.collect(&name).await.map_err(|error| neglected(&name, error))?;
        let repository = Some(text.clone());
        here.record(AuditEvent { event: "git-gc", repository, ..AuditEvent::default() })?;
        all.push(Collected { name: text.clone(), before: done.before, after: done.after });
    }
    Ok(all)
}

/// An event with as many changes as a request has room for.
fn short(mut event: Event) -> Event {
    let mut room = CHANGES;
    let fits = event.changes.iter().take_while(|change| {
        // A quote is two bytes in JSON, and the ids and the keys are always as long.
        let bytes = 2 * change.reference.len() + 200;
        let left = room.checked_sub(bytes);
        room = left.unwrap_or_default();
        left.is_some()
    });
    let fit = fits.count();
    event.more += event.changes.len() - fit;
    event.changes.truncate(fit);
    event
}

fn parsed(name: &str) -> Result<RepositoryName, Failure> {
    name.parse().map_err(|error| failed(AdminError::Name(error)))
}

/// With what can be done about it.
fn failed(error: AdminError) -> Failure {
    match error {
        AdminError::Repository(error) => unusable(error),
        AdminError::Name(_) | AdminError::Pattern(_) | AdminError::Url(_) => {
            Failure::usage(error.to_string())
        }
    }
}

fn unusable(error: RepositoryError) -> Failure {
    let hint = match &error {
        RepositoryError::Missing(_) => "`alknet git list` shows those that there are",
        RepositoryError::Exists(_) => "`alknet git rename` gives one of them another name",
        RepositoryError::NotEmpty(_) => "give the mirror a name of its own",
        RepositoryError::Settings { .. } => "mend the file, or remove it: settings are lost then",
        RepositoryError::Invalid(_) => return Failure::usage(error.to_string()),
        _ => return error.into(),
    };
    Failure::from(error).hint(hint)
}

/// Where nobody can say more, it may be that the other node does not know this one.
fn unreached(error: MirrorError) -> Failure {
    let told = error.to_string();
    let failure = match error {
        MirrorError::Node { node, source } => match source.downcast::<ReachError>() {
            Ok(error) => Failure::from(*error).context(told),
            Err(source) => MirrorError::Node { node, source }.into(),
        },
        error => error.into(),
    };
    match failure.hints() {
        [] => failure.hint(
            "it has to know this node: what `alknet id` prints here is a --key of a peer there, \
             with the scope git:read:NAME",
        ),
        _ => failure,
    }
}

fn neglected(name: &RepositoryName, error: KeeperError) -> Failure {
    match error {
        KeeperError::Repository(error) => unusable(error),
        KeeperError::NoMirror(_) => Failure::from(error)
            .hint(format!("`alknet git mirror {name} URL` makes one that is empty a mirror")),
        KeeperError::Busy(_) => Failure::from(error).hint("wait for it, and try again"),
        KeeperError::Mirror(MirrorError::Forbidden(_)) => Failure::from(error).hint(
            "git.mirror_networks in the configuration names networks beside the public Internet",
        ),
        KeeperError::Mirror(error @ MirrorError::Node { .. }) => unreached(error),
        error => error.into(),
    }
}
