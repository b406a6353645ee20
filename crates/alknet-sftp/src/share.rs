//! What each identity may have of what all share.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Semaphore;

use crate::trail::Pace;

/// Identities from which those are forgotten that have no session.
const MANY: usize = 256;

/// The share of one identity, over all of their sessions.
#[derive(Debug)]
pub(crate) struct Share {
    pub(crate) handles: Arc<Semaphore>,
    pub(crate) pace: Arc<Pace>,
}

impl Share {
    pub(crate) fn new(handles: usize) -> Arc<Self> {
        let handles = Arc::new(Semaphore::new(handles.min(Semaphore::MAX_PERMITS)));
        Arc::new(Self { handles, pace: Arc::default() })
    }
}

/// The shares of those that have or had sessions.
#[derive(Debug, Default)]
pub(crate) struct Shares(Mutex<HashMap<String, Arc<Share>>>);

impl Shares {
    pub(crate) fn of(&self, identity: &str, handles: usize) -> Arc<Share> {
        let mut shares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if shares.len() >= MANY {
            shares.retain(|_, share| Arc::strong_count(share) > 1 || !share.pace.is_rested());
        }
        shares.entry(identity.to_owned()).or_insert_with(|| Share::new(handles)).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_no_session_is_forgotten_and_who_has_one_keeps_their_share() {
        let shares = Shares::default();
        let kept = shares.of("kept", 1);
        for id in 0..1000 {
            shares.of(&id.to_string(), 1);
        }
        assert!(shares.0.lock().unwrap().len() <= MANY);
        assert!(Arc::ptr_eq(&kept, &shares.of("kept", 1)));
    }
}
