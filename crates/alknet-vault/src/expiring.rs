//! A secret with an end.

use std::{
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime},
};

/// A secret that is dropped, and so zeroised, when its time has passed, when it is locked,
/// or with this value, whichever comes first.
///
/// Both the monotonic clock, which nobody sets back, and the wall clock, which goes on while
/// the machine sleeps, can end it. After a sleep the first use or the timer's next look
/// drops it; no use after its time succeeds.
pub struct Expiring<T> {
    shared: Arc<Shared<T>>,
}

/// The time has passed, or somebody locked it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is locked")]
pub struct Locked;

struct Shared<T> {
    secret: Mutex<Option<T>>,
    changed: Condvar,
    end: Instant,
    wall_end: Option<SystemTime>,
}

/// How long the timer sleeps at most before it looks at the clocks.
const LOOK: Duration = Duration::from_secs(10);

impl<T: Send + 'static> Expiring<T> {
    /// Keeps `secret` for `lifetime`. A thread of its own watches the time.
    pub fn new(secret: T, lifetime: Duration) -> std::io::Result<Self> {
        let now = Instant::now();
        let shared = Arc::new(Shared {
            secret: Mutex::new(Some(secret)),
            changed: Condvar::new(),
            // A time that no clock reaches is an hour from now at the least.
            end: now.checked_add(lifetime).unwrap_or(now + Duration::from_secs(3600)),
            wall_end: SystemTime::now().checked_add(lifetime),
        });
        let watched = shared.clone();
        thread::Builder::new().name("vault-expiry".into()).spawn(move || watched.watch())?;
        Ok(Self { shared })
    }
}

impl<T> Expiring<T> {
    /// Uses the secret. What `use_it` returns must not hold it.
    pub fn with<R>(&self, use_it: impl FnOnce(&T) -> R) -> Result<R, Locked> {
        let mut secret = self.shared.lock();
        self.shared.drop_if_over(&mut secret);
        secret.as_ref().map(use_it).ok_or(Locked)
    }

    /// Drops the secret now.
    pub fn lock(&self) {
        *self.shared.lock() = None;
        self.shared.changed.notify_all();
    }

    /// Waits until it is locked; blocks the thread.
    pub fn wait(&self) {
        self.shared.watch();
    }

    /// How long it will last; nothing if it is locked.
    pub fn remaining(&self) -> Option<Duration> {
        let mut secret = self.shared.lock();
        self.shared.drop_if_over(&mut secret);
        secret.as_ref().map(|_| self.shared.left())
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Option<T>> {
        self.secret.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn left(&self) -> Duration {
        let wall = self
            .wall_end
            .map_or(Duration::MAX, |end| end.duration_since(SystemTime::now()).unwrap_or_default());
        self.end.saturating_duration_since(Instant::now()).min(wall)
    }

    fn drop_if_over(&self, secret: &mut Option<T>) {
        if secret.is_some() && self.left().is_zero() {
            *secret = None;
            self.changed.notify_all();
        }
    }

    fn watch(&self) {
        let mut secret = self.lock();
        loop {
            self.drop_if_over(&mut secret);
            if secret.is_none() {
                return;
            }
            let patience = self.left().min(LOOK);
            secret = self
                .changed
                .wait_timeout(secret, patience)
                .map_or_else(|poisoned| poisoned.into_inner().0, |(secret, _)| secret);
        }
    }
}

impl<T> Drop for Expiring<T> {
    fn drop(&mut self) {
        self.lock();
    }
}

impl<T> fmt::Debug for Expiring<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expiring({:?})", self.remaining())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// Tells when it is dropped.
    struct Told(Sender<()>);

    impl Drop for Told {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn it_drops_the_secret_at_its_end_without_being_asked() {
        let (tell, told) = channel();
        let secret = Expiring::new(Told(tell), Duration::from_millis(30)).unwrap();
        told.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(secret.with(|_| ()), Err(Locked));
        assert_eq!(secret.remaining(), None);
        secret.wait();
    }

    #[test]
    fn it_drops_the_secret_when_it_is_locked_or_goes() {
        let (tell, told) = channel();
        let secret = Expiring::new(Told(tell.clone()), LONG).unwrap();
        assert_eq!(secret.with(|_| 7), Ok(7));
        assert!(secret.remaining().is_some_and(|left| left > LONG / 2));
        secret.lock();
        told.try_recv().unwrap();
        assert_eq!(secret.with(|_| 7), Err(Locked));
        drop(Expiring::new(Told(tell), LONG).unwrap());
        told.try_recv().unwrap();
    }

    #[test]
    fn no_time_at_all_is_locked_and_all_the_time_is_not() {
        let none = Expiring::new((), Duration::ZERO).unwrap();
        assert_eq!(none.with(|()| ()), Err(Locked));
        let all = Expiring::new((), Duration::MAX).unwrap();
        assert_eq!(all.with(|()| ()), Ok(()));
    }
}
