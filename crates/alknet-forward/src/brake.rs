//! How many refusals of a caller are in the audit log.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Refusals of an identity that are recorded one after the other.
const BURST: u32 = 64;
/// And one more after each such time.
const EVERY: Duration = Duration::from_secs(1);
/// Identities from which those are left out that have asked for nothing lately.
const MANY: usize = 256;

/// Bounds what each identity brings into the audit log by what it is refused, over all of its
/// connections: a refusal costs whoever asks nothing, and the log is everybody's.
#[derive(Debug, Clone, Default)]
pub(crate) struct Brake(Arc<Mutex<HashMap<String, Bucket>>>);

#[derive(Debug)]
struct Bucket {
    /// When it is as full as it gets again.
    full: Instant,
    /// How many were left out since the last that was recorded.
    left_out: u64,
}

impl Brake {
    /// Whether one more may be recorded; if so, how many were left out before it.
    pub(crate) fn take(&self, identity: &str) -> Option<u64> {
        let now = Instant::now();
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MANY {
            buckets.retain(|_, bucket| bucket.full > now || bucket.left_out > 0);
        }
        let new = Bucket { full: now, left_out: 0 };
        let bucket = buckets.entry(identity.to_owned()).or_insert(new);
        let full = bucket.full.max(now) + EVERY;
        if full > now + EVERY * BURST {
            bucket.left_out += 1;
            return None;
        }
        bucket.full = full;
        Some(std::mem::take(&mut bucket.left_out))
    }

    /// How many were left out since the last that was recorded; they count as told of.
    pub(crate) fn settle(&self, identity: &str) -> u64 {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.get_mut(identity).map_or(0, |bucket| std::mem::take(&mut bucket.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_identity_has_so_many_and_then_one_a_second() {
        let brake = Brake::default();
        let taken = |id| std::iter::repeat_with(|| brake.take(id)).take(1000).flatten().count();
        assert_eq!(taken("anna"), 64);
        assert_eq!(taken("bert"), 64, "another's refusals are on anna's account");
        tokio::time::advance(EVERY).await;
        assert_eq!(brake.take("anna"), Some(936));
        assert_eq!(brake.take("anna"), None);
        assert_eq!(brake.settle("anna"), 1);
        assert_eq!(brake.settle("anna"), 0);
        tokio::time::advance(EVERY * 1000).await;
        assert_eq!(taken("anna"), 64);
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_no_more_is_forgotten() {
        let brake = Brake::default();
        for id in 0..10_000 {
            brake.take(&id.to_string());
            tokio::time::advance(EVERY).await;
        }
        assert!(brake.0.lock().unwrap().len() <= MANY);
    }
}
