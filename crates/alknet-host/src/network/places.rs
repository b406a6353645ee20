//! How much of the network each caller has, and all of them together.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Connection,
    /// Counts among the connections, as two: it has a socket for each version of IP.
    Association,
    Listener,
}

impl Kind {
    fn is_listener(self) -> bool {
        self == Self::Listener
    }

    /// How many of the caller's places it takes.
    fn places(self) -> usize {
        match self {
            Self::Connection | Self::Listener => 1,
            Self::Association => 2,
        }
    }

    /// How many descriptors it may take: `localhost` is listened on twice.
    fn descriptors(self) -> usize {
        match self {
            Self::Connection => 1,
            Self::Association | Self::Listener => 2,
        }
    }
}

/// How many places there are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// For one caller, of this kind.
    pub(super) own: usize,
    /// For all callers and kinds together, in descriptors.
    pub(super) descriptors: usize,
}

/// The counts of all callers.
#[derive(Debug, Clone, Default)]
pub(super) struct Places(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    /// By the id of the identity, listeners apart from the rest.
    callers: HashMap<(String, bool), usize>,
    descriptors: usize,
}

/// One of what is counted; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    caller: String,
    kind: Kind,
}

/// Counts one thing of one caller.
#[derive(Debug, Clone)]
pub(super) struct Counter {
    places: Places,
    caller: String,
    kind: Kind,
    room: Room,
}

impl Counter {
    /// See [`Places::take`].
    pub(super) fn take(&self) -> Option<Place> {
        self.places.take(&self.caller, self.kind, self.room)
    }
}

impl Places {
    /// What counts one thing of one caller, as far as there is room.
    pub(super) fn counter(&self, caller: &str, kind: Kind, room: Room) -> Counter {
        Counter { places: self.clone(), caller: caller.to_owned(), kind, room }
    }

    /// One more, unless there are as many as there is room for.
    pub(super) fn take(&self, caller: &str, kind: Kind, room: Room) -> Option<Place> {
        let key = (caller.to_owned(), kind.is_listener());
        let mut counts = self.counts();
        let used = counts.callers.get(&key).copied().unwrap_or(0) + kind.places();
        let descriptors = counts.descriptors + kind.descriptors();
        if used > room.own || descriptors > room.descriptors {
            return None;
        }
        counts.callers.insert(key, used);
        counts.descriptors = descriptors;
        Some(Place { places: self.clone(), caller: caller.to_owned(), kind })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.places.counts();
        counts.descriptors -= self.kind.descriptors();
        let key = (std::mem::take(&mut self.caller), self.kind.is_listener());
        if let Some(used) = counts.callers.get_mut(&key) {
            *used -= self.kind.places();
            if *used == 0 {
                counts.callers.remove(&key);
            }
        }
    }
}
