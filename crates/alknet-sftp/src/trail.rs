//! What a session does to files, for the audit log.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use alknet_core::{Audit, AuditEvent, AuthContext, Identity, Refusals};
use tokio::time::Instant;

/// How much somebody may have recorded at once before they are slowed down, in entries.
const BURST: f64 = 2000.0;
/// And how much in a second then: what the log takes in from one identity without others'
/// entries being lost.
const RATE: f64 = 4000.0;
/// What an entry costs, for so many bytes of names each as much again.
const WEIGHT: f64 = 128.0;
/// The longest name in an entry, in bytes.
const LONGEST: usize = 1024;
/// The same where it was not allowed: nothing need be there of that name.
const LONGEST_REFUSED: usize = 256;

/// Records what a session does. Who would fill the log faster than it is written is slowed
/// down, and nothing that was done is left out. What was not allowed costs whoever asks
/// nothing: of that, only so much is recorded, and how much was left out. Cheap to clone.
#[derive(Clone, Default)]
pub struct Trail(Option<Arc<Inner>>);

struct Inner {
    audit: Audit,
    refusals: Refusals,
    about: AuditEvent,
    pace: Arc<Pace>,
}

/// How much somebody may bring into the log, over all of their sessions.
#[derive(Debug)]
pub(crate) struct Pace(Mutex<Bucket>);

#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Default for Pace {
    fn default() -> Self {
        Self(Mutex::new(Bucket { left: BURST, at: Instant::now() }))
    }
}

impl Pace {
    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it makes no difference to begin anew.
    pub(crate) fn is_rested(&self) -> bool {
        self.bucket().filled(Instant::now()) >= BURST
    }

    fn pay(&self, bytes: usize) {
        #[expect(clippy::cast_precision_loss, reason = "names are short")]
        let cost = 1.0 + bytes as f64 / WEIGHT;
        self.bucket().left -= cost;
    }

    fn pause(&self) -> Option<Duration> {
        let mut bucket = self.bucket();
        let now = Instant::now();
        *bucket = Bucket { left: bucket.filled(now).min(BURST), at: now };
        (bucket.left < 0.0).then(|| Duration::from_secs_f64(-bucket.left / RATE))
    }
}

impl Bucket {
    fn filled(&self, now: Instant) -> f64 {
        self.left + now.duration_since(self.at).as_secs_f64() * RATE
    }
}

/// What is recorded.
pub(crate) const EVENTS: [&str; 9] = [
    "sftp-open",
    "sftp-close",
    "sftp-setstat",
    "sftp-remove",
    "sftp-rmdir",
    "sftp-mkdir",
    "sftp-rename",
    "sftp-symlink",
    "sftp-link",
];

/// One thing that was done.
#[derive(Debug, Default)]
pub(crate) struct Deed {
    pub(crate) event: &'static str,
    pub(crate) path: String,
    /// The other path, of what has two.
    pub(crate) other: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) moved: Option<(u64, u64)>,
    /// It was not allowed: nothing was done.
    pub(crate) refused: bool,
}

impl Trail {
    /// Records in `audit` what `caller` does; `auth` tells where they come from.
    pub fn new(audit: Audit, auth: &AuthContext, caller: &Identity) -> Self {
        let about = AuditEvent::about("", auth);
        Self::with(
            audit,
            AuditEvent { session: auth.session.id(), identity: Some(caller.id.clone()), ..about },
        )
    }

    /// Records in `audit` entries like `about`, each with what was done.
    pub fn with(audit: Audit, about: AuditEvent) -> Self {
        let refusals = Refusals::new(audit.clone());
        Self(Some(Arc::new(Inner { audit, refusals, about, pace: Arc::default() })))
    }

    /// With bounds that others keep to as well.
    pub(crate) fn at(self, pace: &Arc<Pace>, refusals: &Refusals) -> Self {
        let paced = |inner: Arc<Inner>| Inner {
            audit: inner.audit.clone(),
            refusals: refusals.clone(),
            about: inner.about.clone(),
            pace: pace.clone(),
        };
        Self(self.0.map(paced).map(Arc::new))
    }

    pub(crate) fn record(&self, deed: Deed) {
        let Some(inner) = &self.0 else { return };
        let (mut event, mut reason) = (deed.event, deed.reason);
        let longest = if deed.refused { LONGEST_REFUSED } else { LONGEST };
        if deed.refused && event != AuditEvent::REFUSED {
            reason = Some(format!("{event}: {}", reason.unwrap_or_default()));
            event = AuditEvent::REFUSED;
        }
        let (subject, name) = (cut(deed.path, longest), deed.other.map(|name| cut(name, longest)));
        let bytes = subject.len() + name.as_ref().map_or(0, String::len);
        let entry = AuditEvent {
            event,
            subject: Some(subject),
            name,
            reason: reason.map(|reason| cut(reason, LONGEST)),
            bytes_read: deed.moved.map(|(read, _)| read),
            bytes_written: deed.moved.map(|(_, written)| written),
            ..inner.about.clone()
        };
        if !deed.refused {
            inner.audit.record(entry);
        } else if !inner.refusals.record(entry) {
            return;
        }
        inner.pace.pay(bytes);
    }

    /// Records how many refusals were left out, at the end of a session.
    pub(crate) fn settle(&self) {
        if let Some(inner) = &self.0 {
            inner.refusals.settle(inner.about.clone());
        }
    }

    /// How long the session has to wait before it does more, if it has to.
    pub(crate) fn pause(&self) -> Option<Duration> {
        self.0.as_ref()?.pace.pause()
    }
}

/// A text of at most so many bytes; what is longer says how long it was.
fn cut(mut text: String, longest: usize) -> String {
    if text.len() > longest {
        let whole = text.len();
        text.truncate(text.floor_char_boundary(longest));
        text.push_str(&format!("\u{2026} ({whole} bytes)"));
    }
    text
}

impl fmt::Debug for Trail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trail")
    }
}

#[cfg(test)]
mod tests {
    use alknet_core::AuditSink;

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<AuditEvent>>>);

    impl AuditSink for Log {
        fn record(&self, event: AuditEvent) {
            self.0.lock().unwrap().push(event);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_of_all_sessions_together_are_few_and_short() {
        let log = Log::default();
        let audit = Audit::new(log.clone());
        let (pace, refusals) = (Arc::default(), Refusals::new(audit.clone()));
        let trail = || Trail::with(audit.clone(), AuditEvent::default()).at(&pace, &refusals);
        let refuse = |trail: &Trail| {
            let (event, path) = ("sftp-rename", "\u{1}".repeat(4096));
            let other = Some(path.clone());
            trail.record(Deed { event, path, other, refused: true, ..Deed::default() });
        };
        for _ in 0..100 {
            let session = trail();
            (0..100).for_each(|_| refuse(&session));
        }
        assert_eq!(log.0.lock().unwrap().len(), 64);
        tokio::time::advance(Duration::from_secs(1)).await;
        let session = trail();
        refuse(&session);
        refuse(&session);
        session.settle();
        let events = log.0.lock().unwrap();
        assert_eq!(events.len(), 66);
        assert!(events.iter().all(|event| event.event == AuditEvent::REFUSED));
        let reason = |at: usize| events[at].reason.clone().unwrap();
        assert_eq!(reason(64), "sftp-rename: ; before it 9936 more that are not recorded");
        assert_eq!(reason(65), "1 more that are not recorded");
        assert!(serde_json::to_vec(&events[64]).unwrap().len() < 4096);
    }

    #[tokio::test(start_paused = true)]
    async fn long_names_slow_down_sooner_and_all_sessions_together() {
        let log = Log::default();
        let audit = Audit::new(log.clone());
        let (pace, refusals) = (Arc::default(), Refusals::new(audit.clone()));
        let trail = || Trail::with(audit.clone(), AuditEvent::default()).at(&pace, &refusals);
        let (one, two) = (trail(), trail());
        for _ in 0..300 {
            one.record(Deed { path: "x".repeat(4000), ..Deed::default() });
        }
        assert!(two.pause().is_some());
        assert!(
            log.0.lock().unwrap()[0].subject.as_ref().unwrap().ends_with("\u{2026} (4000 bytes)")
        );
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(two.pause(), None);
    }
}
