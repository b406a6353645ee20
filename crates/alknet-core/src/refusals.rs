//! How many refusals of a caller are in the audit log.

use std::{
    collections::HashMap,
    fmt::{self, Write as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{Audit, AuditEvent};

/// Refusals of an identity that are recorded one after the other.
const BURST: u32 = 64;
/// And one more after each such time.
const EVERY: Duration = Duration::from_secs(1);
/// Identities from which those are forgotten that were refused nothing lately.
const MANY: usize = 256;

/// The refusals of a service, in the audit log at a bounded rate: a refusal costs whoever asks
/// nothing, and the log is everybody's. Each identity has 64 entries and then one a second, over
/// all of its sessions; all callers without an identity have one such share together. What is
/// left out is counted, and the next entry says how much it was.
///
/// A service has one for all of its connections, and calls [`settle`](Self::settle) at the end of
/// each. Cheap to clone; clones share the counts.
///
/// ```
/// # use alknet_core::{Audit, AuditEvent, Refusals};
/// # #[tokio::main] async fn main() {
/// let refusals = Refusals::new(Audit::to_log());
/// let identity = Some(String::from("anna"));
/// let event = AuditEvent { event: AuditEvent::REFUSED, identity, ..AuditEvent::default() };
/// for attempt in 0..1000 {
///     refusals.record(event.clone().because(format!("attempt {attempt}")));
/// }
/// refusals.settle(event); // "936 more that are not recorded"
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Refusals {
    audit: Audit,
    buckets: Arc<Mutex<HashMap<Option<String>, Bucket>>>,
}

#[derive(Debug)]
struct Bucket {
    /// When it is as full as it gets again.
    full: Instant,
    /// How many were left out since the last that was recorded.
    left_out: u64,
}

impl Refusals {
    /// Refusals for `audit`.
    pub fn new(audit: Audit) -> Self {
        Self { audit, buckets: Arc::default() }
    }

    /// Records a refusal of the event's identity, unless it has had too many; whether it is
    /// recorded. The reason tells how many were left out before it.
    pub fn record(&self, mut event: AuditEvent) -> bool {
        let Some(left_out) = self.take(event.identity.as_deref()) else { return false };
        if left_out > 0 {
            let reason = event.reason.get_or_insert_default();
            let before = if reason.is_empty() { "" } else { "; before it " };
            let _ = write!(reason, "{before}{}", Unrecorded(left_out));
        }
        self.audit.record(event);
        true
    }

    /// Records how many refusals of the event's identity were left out and not told of yet, if
    /// any were, as the event's reason: for the end of a session.
    pub fn settle(&self, about: AuditEvent) {
        let left_out = self.buckets().get_mut(&about.identity).map_or(0, Bucket::settle);
        self.tell(left_out, about);
    }

    /// Takes the room for one entry. What was left out before it counts as told of.
    fn take(&self, identity: Option<&str>) -> Option<u64> {
        let now = Instant::now();
        let identity = identity.map(str::to_owned);
        let mut buckets = self.buckets();
        if buckets.len() >= MANY && !buckets.contains_key(&identity) {
            self.forget(&mut buckets, now);
        }
        let bucket = buckets.entry(identity).or_insert(Bucket { full: now, left_out: 0 });
        let full = bucket.full.max(now) + EVERY;
        if full > now + EVERY * BURST {
            bucket.left_out += 1;
            return None;
        }
        bucket.full = full;
        Some(bucket.settle())
    }

    /// Forgets those for whom it makes no difference to begin anew.
    fn forget(&self, buckets: &mut HashMap<Option<String>, Bucket>, now: Instant) {
        for (identity, bucket) in buckets.extract_if(|_, bucket| bucket.full <= now) {
            self.tell(bucket.left_out, AuditEvent { identity, ..AuditEvent::default() });
        }
    }

    fn tell(&self, left_out: u64, about: AuditEvent) {
        if left_out > 0 {
            let event = AuditEvent { event: AuditEvent::REFUSED, ..about };
            self.audit.record(event.because(Unrecorded(left_out)));
        }
    }

    fn buckets(&self) -> MutexGuard<'_, HashMap<Option<String>, Bucket>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bucket {
    fn settle(&mut self) -> u64 {
        std::mem::take(&mut self.left_out)
    }
}

/// How many refusals were left out.
struct Unrecorded(u64);

impl fmt::Display for Unrecorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} more that are not recorded", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AuditSink;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<AuditEvent>>>);

    impl AuditSink for Log {
        fn record(&self, event: AuditEvent) {
            self.0.lock().unwrap().push(event);
        }
    }

    impl Log {
        fn reasons(&self) -> Vec<String> {
            let events = std::mem::take(&mut *self.0.lock().unwrap());
            assert!(events.iter().all(|event| event.event == AuditEvent::REFUSED));
            events.into_iter().filter_map(|event| event.reason).collect()
        }
    }

    fn refusals() -> (Refusals, Log) {
        let log = Log::default();
        (Refusals::new(Audit::new(log.clone())), log)
    }

    fn refusal(identity: Option<&str>) -> AuditEvent {
        let identity = identity.map(str::to_owned);
        AuditEvent { event: AuditEvent::REFUSED, identity, ..AuditEvent::default() }.because("no")
    }

    #[tokio::test(start_paused = true)]
    async fn each_identity_has_so_many_and_then_one_a_second() {
        let (refusals, log) = refusals();
        let recorded = |id| (0..1000).filter(|_| refusals.clone().record(refusal(id))).count();
        assert_eq!(recorded(Some("anna")), 64);
        assert_eq!(recorded(Some("bert")), 64, "another's refusals are on anna's account");
        assert_eq!(recorded(None), 64);
        assert_eq!(log.reasons(), vec!["no"; 192]);
        tokio::time::advance(EVERY).await;
        assert!(refusals.record(refusal(Some("anna"))));
        assert!(!refusals.record(refusal(Some("anna"))));
        refusals.settle(refusal(Some("anna")));
        refusals.settle(refusal(Some("anna")));
        let told = ["no; before it 936 more that are not recorded", "1 more that are not recorded"];
        assert_eq!(log.reasons(), told);
        tokio::time::advance(EVERY * 1000).await;
        assert_eq!(recorded(Some("anna")), 64);
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_no_more_is_forgotten_and_what_was_left_out_is_told() {
        let (refusals, log) = refusals();
        for _ in 0..100 {
            refusals.record(refusal(Some("anna")));
        }
        for id in 0..10_000 {
            refusals.record(refusal(Some(&id.to_string())));
            tokio::time::advance(EVERY).await;
        }
        assert!(refusals.buckets().len() <= MANY);
        let told = log.reasons().into_iter().filter(|reason| reason != "no").collect::<Vec<_>>();
        assert_eq!(told, ["36 more that are not recorded"]);
    }
}
