//! Connections that have come in for a caller and wait to be taken.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use alknet_core::Identity;
use alknet_host::network::Connected;
use tokio::sync::OwnedSemaphorePermit;

use crate::{join::ResetOnDrop, wire::Id};

/// All of a node: a client takes them on whatever connection it has.
#[derive(Debug, Clone, Default)]
pub(crate) struct Waiting(Arc<Mutex<HashMap<Id, Entry>>>);

#[derive(Debug)]
struct Entry {
    /// The id of the identity for whom it came in.
    owner: String,
    connected: ResetOnDrop<Connected>,
    /// Its place among those of its listener that wait.
    _place: OwnedSemaphorePermit,
}

impl Waiting {
    /// Keeps a connection under an id of its own.
    pub(crate) fn keep(
        &self,
        id: Id,
        owner: &Identity,
        connected: ResetOnDrop<Connected>,
        place: OwnedSemaphorePermit,
    ) {
        let entry = Entry { owner: owner.id.clone(), connected, _place: place };
        self.entries().insert(id, entry);
    }

    /// Gives a connection out, once, to whom it belongs.
    pub(crate) fn take(&self, id: Id, caller: &Identity) -> Option<ResetOnDrop<Connected>> {
        let mut entries = self.entries();
        entries.get(&id).filter(|entry| entry.owner == caller.id)?;
        entries.remove(&id).map(|entry| entry.connected)
    }

    /// Breaks one off that nobody took.
    pub(crate) fn forget(&self, id: Id) {
        let forgotten = self.entries().remove(&id);
        drop(forgotten);
    }

    /// Leaves what waits no more out.
    pub(crate) fn retain<T>(&self, told: &mut VecDeque<(T, Id)>) {
        let entries = self.entries();
        told.retain(|(_, id)| entries.contains_key(id));
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Id, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
