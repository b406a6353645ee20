//! Room for handshakes in progress.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

/// A bounded set of handshakes. A newcomer to a full set ends the oldest one: half-open
/// handshakes are what is old in a flood, and a client that is served finishes in time.
#[derive(Clone)]
pub(super) struct Gate(Arc<Inner>);

struct Inner {
    room: usize,
    entered: Mutex<Entered>,
}

#[derive(Default)]
struct Entered {
    next: u64,
    /// In order of arrival.
    tokens: BTreeMap<u64, CancellationToken>,
}

/// One handshake's place; it is free again when this is dropped.
pub(super) struct Pass {
    gate: Gate,
    id: u64,
    evicted: CancellationToken,
}

impl Gate {
    pub(super) fn new(room: usize) -> Self {
        Self(Arc::new(Inner { room: room.max(1), entered: Mutex::default() }))
    }

    /// Takes a place, from the oldest holder if need be.
    pub(super) fn enter(&self) -> Pass {
        let mut entered = self.lock();
        if entered.tokens.len() >= self.0.room
            && let Some((_, oldest)) = entered.tokens.pop_first()
        {
            oldest.cancel();
        }
        let id = entered.next;
        entered.next += 1;
        let evicted = CancellationToken::new();
        entered.tokens.insert(id, evicted.clone());
        Pass { gate: self.clone(), id, evicted }
    }

    #[cfg(test)]
    fn taken(&self) -> usize {
        self.lock().tokens.len()
    }

    fn lock(&self) -> MutexGuard<'_, Entered> {
        self.0.entered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass {
    /// Runs `handshake` while the place is held; `None` if a newcomer took it.
    pub(super) async fn hold<T>(self, handshake: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = handshake => Some(done),
            () = self.evicted.cancelled() => None,
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.gate.lock().tokens.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn a_newcomer_ends_the_oldest_and_only_that() {
        let gate = Gate::new(2);
        let (first, second) = (gate.enter(), gate.enter());
        let third = gate.enter();
        assert_eq!(first.hold(pending::<()>()).await, None);
        assert_eq!(second.hold(async { 2 }).await, Some(2));
        assert_eq!(third.hold(async { 3 }).await, Some(3));
        assert_eq!(gate.taken(), 0);
    }
}
