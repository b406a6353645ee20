//! What happens to repositories, for whoever listens.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use alknet_core::Identity;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::{self, error::RecvError};

use crate::{name::RepositoryName, push::RefChange};

/// How many events a listener may be behind.
const BEHIND: usize = 1024;
/// How many changes of refs an event names.
const CHANGES: usize = 1000;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum EventKind {
    /// Refs have changed.
    Push,
    /// A repository was made.
    Created,
    /// It has this name from now on.
    Renamed,
    /// It is gone.
    Deleted,
    /// Its settings have changed.
    Settings,
}

/// Something that happened to a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Event {
    /// What.
    pub event: EventKind,
    /// The name of the repository.
    pub repository: String,
    /// What the owner calls whoever did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// When, in seconds since 1970.
    pub at: u64,
    /// Which refs have changed; the first thousand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<RefChange>,
    /// How many more have.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: usize,
}

impl Event {
    /// Something that happens now.
    pub fn new(event: EventKind, repository: &RepositoryName, by: Option<&Identity>) -> Self {
        Self {
            event,
            repository: repository.to_string(),
            by: by.map(|identity| identity.name.clone()),
            at: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            changes: Vec::new(),
            more: 0,
        }
    }

    /// With changes of refs.
    #[must_use]
    pub fn with_changes(self, changes: &[RefChange]) -> Self {
        let more = changes.len().saturating_sub(CHANGES);
        Self { changes: changes.iter().take(CHANGES).cloned().collect(), more, ..self }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// The events of all repositories. Cheap to clone; clones are one source.
#[derive(Debug, Clone)]
pub struct Events(broadcast::Sender<Arc<Event>>);

/// Somebody who listens.
#[derive(Debug)]
pub struct Subscription(broadcast::Receiver<Arc<Event>>);

/// A listener was too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} events were missed")]
pub struct Missed(pub u64);

impl Default for Events {
    fn default() -> Self {
        Self(broadcast::channel(BEHIND).0)
    }
}

impl Events {
    /// Tells everybody who listens. Never waits: who is too slow is told that.
    pub fn send(&self, event: Event) {
        // Nobody need listen.
        let _ = self.0.send(Arc::new(event));
    }

    /// How many listen.
    pub fn listeners(&self) -> usize {
        self.0.receiver_count()
    }

    /// Listens to what happens from now on.
    pub fn subscribe(&self) -> Subscription {
        Subscription(self.0.subscribe())
    }
}

impl Subscription {
    /// The next event; `None` when there can be no more. What was missed is told once, and the
    /// next event is the oldest that is still there. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Arc<Event>, Missed>> {
        match self.0.recv().await {
            Ok(event) => Some(Ok(event)),
            Err(RecvError::Lagged(count)) => Some(Err(Missed(count))),
            Err(RecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_too_slow_is_told_what_was_missed() {
        let events = Events::default();
        let name = "a".parse().unwrap();
        events.send(Event::new(EventKind::Created, &name, None));
        let mut slow = events.subscribe();
        for _ in 0..BEHIND + 5 {
            events.send(Event::new(EventKind::Settings, &name, None));
        }
        assert_eq!(slow.next().await.unwrap(), Err(Missed(5)));
        for _ in 0..BEHIND {
            assert_eq!(slow.next().await.unwrap().unwrap().event, EventKind::Settings);
        }
        drop(events);
        assert!(slow.next().await.is_none());
    }

    #[test]
    fn an_event_is_small_and_says_how_much_it_leaves_out() {
        let id = "1".repeat(40);
        let change = RefChange::from_line(&format!("{id} {id} refs/heads/x")).unwrap();
        let event = Event::new(EventKind::Push, &"a/b".parse().unwrap(), None);
        let event = event.with_changes(&vec![change; CHANGES + 7]);
        let json = serde_json::to_value(&event).unwrap();
        assert_eq!((&json["event"], &json["more"]), (&"push".into(), &7.into()));
        assert_eq!(json["changes"].as_array().unwrap().len(), CHANGES);
        assert!(json.get("by").is_none());
        assert_eq!(serde_json::from_value::<Event>(json).unwrap(), event);
    }
}
