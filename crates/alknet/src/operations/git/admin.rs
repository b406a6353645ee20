//! `git/create` and its kin: repositories are made, changed and removed.
//!
//! What the caller may not see answers like what does not exist. Whoever may make repositories
//! of some name learns by trying whether the name is taken.

use std::{error::Error as _, sync::Arc, time::Duration};

use alknet_call::{CallError, Context, Operation};
use alknet_core::AuditEvent;
use alknet_git::{
    Event, KeeperError, MirrorError, MirrorUrl, Repositories, RepositoryError, RepositoryName,
    Rights,
};
use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use super::super::{Made, Parts, attributed, on};
use crate::git::admin::{
    self, AdminError, Bound, Configure, Create, Done, MirrorOf, Named, Rename, Shown,
};

/// There is no such repository that the caller may know of.
const NO_SUCH_REPOSITORY: &str = "NO_SUCH_REPOSITORY";
/// The name is another's.
const TAKEN: &str = "TAKEN";
/// Somebody else does the same.
const BUSY: &str = "BUSY";
/// The other side cannot be fetched from.
const NOT_FETCHED: &str = "NOT_FETCHED";

/// How long git may take for a large repository; what is not done then is ended.
const LONG: Duration = Duration::from_secs(60 * 60);

/// When a caller who may not know of a repository is told that there is none: later than any
/// disk takes to say whether there is, and as on the other ways in.
const UNSEEN: Duration = Duration::from_millis(20);

/// The operations that change repositories.
pub(super) fn operations(parts: &Arc<Parts>) -> Made {
    let fails = |operation: Operation| {
        operation.error(
            NO_SUCH_REPOSITORY,
            "There is no such repository, or the caller may not know of it.",
        )
    };
    let taken = |operation: Operation| operation.error(TAKEN, "The name is taken.");
    let busy = |operation: Operation| operation.error(BUSY, "It is being done already.");
    Ok(vec![
        taken(Operation::mutation("git/create", on(parts, create))?)
            .describe("Makes an empty repository. Needs git:create:NAME."),
        fails(Operation::query("git/show", on(parts, show))?)
            .describe("A repository with its settings. Needs git:admin:NAME."),
        taken(fails(Operation::mutation("git/rename", on(parts, rename))?)).describe(
            "Gives a repository another name. Needs git:admin:NAME, and git:create and \
             git:admin for the new one.",
        ),
        fails(Operation::mutation("git/delete", on(parts, delete))?)
            .describe("Removes a repository, for good. Needs git:admin:NAME."),
        fails(Operation::mutation("git/configure", on(parts, configure))?).describe(
            "Changes settings of a repository. Needs git:admin:NAME. A quota is at most the \
                 one that holds now, and for who may administer all repositories the node's \
                 own: more is given by a command on the node.",
        ),
        busy(fails(Operation::mutation("git/gc", on(parts, gc))?).deadline(Some(LONG)))
            .describe("Collects the garbage of a repository. Needs git:admin:NAME."),
        busy(fails(Operation::mutation("git/mirror", on(parts, mirror))?).deadline(Some(LONG)))
            .error(NOT_FETCHED, "The other side cannot be fetched from.")
            .describe(
                "Makes a repository the copy of one elsewhere, or lets it look for news. Needs \
                 git:admin:NAME, and git:create:NAME where it is not there yet. A copy of \
                 another node's is made by a command on this one.",
            ),
    ])
}

/// What the caller may do.
fn rights(context: &Context) -> Rights<'_> {
    Rights::of(context.auth().identity.as_deref())
}

fn parsed(name: &str) -> Result<RepositoryName, CallError> {
    name.parse().map_err(|error| invalid(&error))
}

fn invalid(error: &dyn std::error::Error) -> CallError {
    CallError::invalid_input(error.to_string())
}

fn unknown() -> CallError {
    CallError::declared(
        NO_SUCH_REPOSITORY,
        "there is no such repository, or it is not yours to see",
    )
}

/// Refuses whoever may not administer a repository: as if there were none, at the same time,
/// where they may not see it either.
async fn administers(
    parts: &Parts,
    context: &Context,
    name: &RepositoryName,
) -> Result<(), CallError> {
    if rights(context).admin(name) {
        return Ok(());
    }
    let begun = Instant::now();
    let (all, wanted) = (parts.git.repositories().clone(), name.clone());
    let found = tokio::task::spawn_blocking(move || all.get(&wanted)).await;
    let reads = rights(context).read(name);
    let visible = match found.map_err(CallError::internal)? {
        Ok(found) => found.is_some_and(|found| found.settings.public || reads),
        // That it fails tells that it is there.
        Err(error) if !reads => {
            tracing::warn!(%name, error = &error as &dyn std::error::Error, "a repository cannot be used");
            false
        }
        Err(error) => return Err(unusable(error)),
    };
    match visible {
        true => Err(CallError::forbidden(format!("you may not administer {name}"))),
        false => {
            sleep_until(begun + UNSEEN).await;
            Err(unknown())
        }
    }
}

/// Disks may be slow, and other calls must not wait for them. What was begun goes on when the
/// future is dropped.
async fn work<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, AdminError> + Send + 'static,
) -> Result<T, CallError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(CallError::internal)?.map_err(refused)
}

fn refused(error: AdminError) -> CallError {
    match error {
        AdminError::Repository(error) => unusable(error),
        error => invalid(&error),
    }
}

/// What the machine has against it is for the node's log alone.
fn unusable(error: RepositoryError) -> CallError {
    match error {
        RepositoryError::Exists(name) => {
            CallError::declared(TAKEN, format!("there already is a repository {name}"))
        }
        RepositoryError::Missing(_) => unknown(),
        RepositoryError::Invalid(_) | RepositoryError::NotEmpty(_) => invalid(&error),
        error => CallError::internal(error),
    }
}

/// Changes something, and says so to the audit log and to who listens, also where the caller
/// does not wait for the answer.
async fn change(
    parts: &Arc<Parts>,
    context: &Context,
    make: impl FnOnce(&Repositories) -> Result<Done, AdminError> + Send + 'static,
) -> Result<Done, CallError> {
    let (parts, context) = (parts.clone(), context.clone());
    work(move || {
        let done = make(parts.git.repositories())?;
        record(&context, done.entry.clone());
        let (kind, name) = &done.event;
        let by = context.auth().identity.as_deref();
        parts.git.events().send(Event::new(*kind, name, by));
        Ok(done)
    })
    .await
}

fn record(context: &Context, entry: AuditEvent) {
    let entry = attributed(entry, context.auth());
    context.registry().audit().record(entry);
}

/// A repository as it is after a change.
async fn after(parts: &Parts, done: Done) -> Result<Shown, CallError> {
    let all = parts.git.repositories().clone();
    let repository = done.repository.ok_or_else(unknown)?;
    work(move || Ok(admin::shown(&all, &repository)?)).await
}

async fn create(parts: Arc<Parts>, context: Context, wanted: Create) -> Result<Shown, CallError> {
    let name = parsed(&wanted.name)?;
    if !rights(&context).create(&name) {
        return Err(CallError::forbidden(format!("you may not make {name}")));
    }
    if wanted.public && !rights(&context).admin(&name) {
        return Err(CallError::forbidden("who may not administer it makes no public repository"));
    }
    let done = change(&parts, &context, move |all| admin::create(all, &wanted)).await?;
    after(&parts, done).await
}

async fn show(parts: Arc<Parts>, context: Context, wanted: Named) -> Result<Shown, CallError> {
    let name = parsed(&wanted.name)?;
    administers(&parts, &context, &name).await?;
    let all = parts.git.repositories().clone();
    work(move || {
        let found = all.find(&name)?;
        Ok(admin::shown(&all, &found)?)
    })
    .await
}

async fn rename(parts: Arc<Parts>, context: Context, wanted: Rename) -> Result<Shown, CallError> {
    let (name, to) = (parsed(&wanted.name)?, parsed(&wanted.to)?);
    administers(&parts, &context, &name).await?;
    if !(rights(&context).create(&to) && rights(&context).admin(&to)) {
        return Err(CallError::forbidden(format!("you may not make {to}")));
    }
    let done = change(&parts, &context, move |all| admin::rename(all, &wanted)).await?;
    after(&parts, done).await
}

/// What was removed.
#[derive(Debug, Serialize, JsonSchema)]
struct Removed {
    /// What it was called.
    name: String,
}

async fn delete(parts: Arc<Parts>, context: Context, wanted: Named) -> Result<Removed, CallError> {
    let name = parsed(&wanted.name)?;
    administers(&parts, &context, &name).await?;
    change(&parts, &context, move |all| admin::delete(all, &wanted)).await?;
    Ok(Removed { name: name.to_string() })
}

async fn configure(
    parts: Arc<Parts>,
    context: Context,
    wanted: Configure,
) -> Result<Shown, CallError> {
    administers(&parts, &context, &parsed(&wanted.name)?).await?;
    // The disk is the owner's, and who administers some repositories is somebody else.
    let bound = if rights(&context).admin_all() { Bound::Node } else { Bound::Present };
    let done = change(&parts, &context, move |all| admin::configure(all, &wanted, bound)).await?;
    after(&parts, done).await
}

/// What garbage collection has come to.
#[derive(Debug, Serialize, JsonSchema)]
struct Collected {
    /// How many bytes the repository had before.
    before: u64,
    /// How many it has now.
    after: u64,
}

async fn gc(parts: Arc<Parts>, context: Context, wanted: Named) -> Result<Collected, CallError> {
    let name = parsed(&wanted.name)?;
    administers(&parts, &context, &name).await?;
    let collected = parts.keeper.collect(&name).await.map_err(|error| neglected(&name, error))?;
    let repository = Some(name.to_string());
    record(&context, AuditEvent { event: "git-gc", repository, ..AuditEvent::default() });
    Ok(Collected { before: collected.before, after: collected.after })
}

fn neglected(name: &RepositoryName, error: KeeperError) -> CallError {
    match error {
        KeeperError::Repository(error) => unusable(error),
        KeeperError::Busy(_) => CallError::declared(BUSY, error.to_string()),
        KeeperError::NoMirror(_) => CallError::invalid_input(format!("{name} is no mirror")),
        KeeperError::Mirror(MirrorError::Repository(error)) => unusable(error),
        // Of the other side, not of this machine; what is behind it is for the log alone.
        KeeperError::Mirror(error) => {
            let cause = error.source();
            tracing::info!(%name, %error, cause, "a mirror has no news");
            CallError::declared(NOT_FETCHED, error.to_string())
        }
        error => CallError::internal(error),
    }
}

/// Whether this node would show another one who it is.
fn is_of_node(wanted: &MirrorOf) -> Result<bool, CallError> {
    let Some(url) = wanted.url.as_deref().filter(|_| !wanted.stop) else { return Ok(false) };
    let url: MirrorUrl = url.parse().map_err(|error| invalid(&error))?;
    Ok(url.is_of_node())
}

async fn mirror(parts: Arc<Parts>, context: Context, wanted: MirrorOf) -> Result<Shown, CallError> {
    let name = parsed(&wanted.name)?;
    administers(&parts, &context, &name).await?;
    if wanted.url.is_none() && !wanted.stop {
        let updated = parts.keeper.update(&name).await;
        updated.map_err(|error| neglected(&name, error))?;
        let all = parts.git.repositories().clone();
        return work(move || {
            let found = all.find(&name)?;
            Ok(admin::shown(&all, &found)?)
        })
        .await;
    }
    // Others may administer a repository, and what this node may read elsewhere is not theirs.
    if is_of_node(&wanted)? {
        return Err(CallError::forbidden(
            "a mirror of another node is set by a command on this one",
        ));
    }
    let may_make = rights(&context).create(&name);
    let set = move |all: &_| admin::mirror(all, &wanted, None, may_make);
    let done = change(&parts, &context, set).await?;
    after(&parts, done).await
}
