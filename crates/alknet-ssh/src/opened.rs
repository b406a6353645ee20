//! The channels that carry connections, for when the client closes one.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use russh::ChannelId;
use tokio_util::sync::CancellationToken;

/// Which channel is whose: the session loop hears of the end of a channel, and the task that
/// serves it may be busy with a socket that takes nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Opened(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    channels: HashMap<ChannelId, CancellationToken>,
    /// Channels of ours that the client has been asked to open: their numbers come to light
    /// in the session loop first.
    opening: usize,
    /// What was closed while some were opening, and may be one of them.
    closed: HashSet<ChannelId>,
}

/// A channel that the client is asked to open.
pub(crate) struct Opening(Opened);

/// An open channel. It is forgotten on drop.
pub(crate) struct Place {
    opened: Opened,
    id: ChannelId,
    /// Cancelled when the client closes the channel.
    pub(crate) closed: CancellationToken,
}

impl Opened {
    /// Says that a channel is open.
    pub(crate) fn insert(&self, id: ChannelId) -> Place {
        let closed = CancellationToken::new();
        self.state().channels.insert(id, closed.clone());
        Place { opened: self.clone(), id, closed }
    }

    /// Says that the client is asked to open a channel.
    pub(crate) fn opening(&self) -> Opening {
        self.state().opening += 1;
        Opening(self.clone())
    }

    /// Whether it is open.
    pub(crate) fn contains(&self, id: ChannelId) -> bool {
        self.state().channels.contains_key(&id)
    }

    /// The client has closed a channel.
    pub(crate) fn close(&self, id: ChannelId) {
        let mut state = self.state();
        if let Some(closed) = state.channels.remove(&id) {
            closed.cancel();
        } else if state.opening > 0 {
            state.closed.insert(id);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Opening {
    /// The client has opened it.
    pub(crate) fn done(self, id: ChannelId) -> Place {
        let place = self.0.insert(id);
        if self.0.state().closed.remove(&id) {
            place.closed.cancel();
        }
        place
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.opening -= 1;
        if state.opening == 0 {
            state.closed.clear();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.opened.state().channels.remove(&self.id);
    }
}
