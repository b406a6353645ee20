//! `git/events`: what happens to repositories, while it happens.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use alknet_call::{CallError, Context, Items, Operation};
use alknet_git::{Event, EventKind, RefChange, RepositoryName, Rights};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    super::{Made, Parts, blocking, on_items},
    browse::{Looking, NO_SUCH_REPOSITORY, parsed},
};

/// What the subscription works on.
#[derive(Debug)]
struct Listening {
    parts: Arc<Parts>,
    looking: Arc<Looking>,
}

/// The subscription to what happens.
pub(super) fn operations(parts: &Arc<Parts>, looking: &Arc<Looking>) -> Made {
    let listening = Arc::new(Listening { parts: parts.clone(), looking: looking.clone() });
    Ok(vec![
        Operation::subscription("git/events", on_items(&listening, events))?
            .error(
                NO_SUCH_REPOSITORY,
                "There is no such repository, or the caller may not know of it.",
            )
            .describe(
                "Pushes and other changes to the repositories that the caller may read, from \
                 now on.",
            ),
    ])
}

/// Of what.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Which {
    /// Only of this repository. One that is renamed is another from then on.
    repository: Option<String>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum What {
    /// Branches or tags have changed.
    Push,
    /// A repository was made.
    Created,
    /// It has this name from now on.
    Renamed,
    /// It is gone.
    Deleted,
    /// Its settings have changed.
    Settings,
    /// The subscriber was too slow: something has happened that it is not told of.
    Missed,
}

/// Something that has happened.
#[derive(Debug, Serialize, JsonSchema)]
struct Happened {
    /// What.
    event: What,
    /// The name of the repository; none where events were missed.
    #[serde(skip_serializing_if = "Option::is_none")]
    repository: Option<String>,
    /// What the owner calls whoever did it. Not for whom the repository is only public.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    /// When, in seconds since 1970.
    at: u64,
    /// Which branches and tags have changed; the first thousand.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changes: Vec<Changed>,
    /// How many more have.
    #[serde(skip_serializing_if = "Option::is_none")]
    more: Option<usize>,
}

/// A ref that has changed.
#[derive(Debug, Serialize, JsonSchema)]
struct Changed {
    /// Its whole name, such as refs/heads/main.
    reference: String,
    /// The id that it had; null if it was not there. Not for whom the repository is only
    /// public: nothing may lead there any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    old: Option<Option<String>>,
    /// The id that it has; null if it is gone.
    new: Option<String>,
}

impl Changed {
    fn of(change: &RefChange, is_granted: bool) -> Self {
        let (old, new) = (&change.old, &change.new);
        Self {
            reference: change.reference.clone(),
            old: is_granted.then(|| (!old.is_null()).then(|| old.to_string())),
            new: (!new.is_null()).then(|| new.to_string()),
        }
    }
}

impl Happened {
    fn of(event: &Event, what: What, is_granted: bool) -> Self {
        Self {
            event: what,
            repository: Some(event.repository.clone()),
            by: event.by.clone().filter(|_| is_granted),
            at: event.at,
            changes: event.changes.iter().map(|it| Changed::of(it, is_granted)).collect(),
            more: (event.more > 0).then_some(event.more),
        }
    }

    fn missed() -> Self {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let (repository, by, changes, more) = (None, None, Vec::new(), None);
        Self { event: What::Missed, repository, by, at, changes, more }
    }
}

async fn events(
    listening: Arc<Listening>,
    context: Context,
    which: Which,
    items: Items<Happened>,
) -> Result<(), CallError> {
    let mut source = listening.parts.git.events().subscribe();
    let only: Option<RepositoryName> = which.repository.as_deref().map(parsed).transpose()?;
    if let Some(only) = &only {
        listening.looking.check(&context, only).await?;
    }
    loop {
        let next = tokio::select! {
            next = source.next() => next,
            () = items.gone() => return Ok(()),
        };
        let happened = match next {
            Some(Ok(event)) => told(&listening.parts, &context, only.as_ref(), &event).await?,
            Some(Err(_)) => Some(Happened::missed()),
            None => return Ok(()),
        };
        if let Some(happened) = happened {
            items.send(happened).await?;
        }
    }
}

/// An event as the caller is told of it, if they may read the repository at this moment. Of
/// one that is gone nobody knows any more whether it was public.
async fn told(
    parts: &Parts,
    context: &Context,
    only: Option<&RepositoryName>,
    event: &Event,
) -> Result<Option<Happened>, CallError> {
    let Ok(name) = event.repository.parse::<RepositoryName>() else { return Ok(None) };
    let what = match event.event {
        EventKind::Push => What::Push,
        EventKind::Created => What::Created,
        EventKind::Renamed => What::Renamed,
        EventKind::Deleted => What::Deleted,
        EventKind::Settings => What::Settings,
        _ => return Ok(None),
    };
    if only.is_some_and(|only| *only != name) {
        return Ok(None);
    }
    if Rights::of(context.auth().identity.as_deref()).read(&name) {
        return Ok(Some(Happened::of(event, what, true)));
    }
    let repositories = parts.git.repositories().clone();
    let found = blocking(move || repositories.get(&name)).await?;
    let is_public = found.is_some_and(|found| found.settings.public);
    Ok(is_public.then(|| Happened::of(event, what, false)))
}
