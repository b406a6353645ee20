//! How long, how many at once, and how much.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::BrowseError;
use crate::slots::Who;

/// How many callers are remembered before those are forgotten that have nothing in progress.
const MANY: usize = 256;

/// Tells work when it has to end.
#[derive(Debug, Clone)]
pub(super) struct Brake {
    stop: Arc<AtomicBool>,
    until: Instant,
}

/// Whoever waits for the work. Dropping it ends the work.
#[derive(Debug)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Brake {
    /// For work that may take so long from now on.
    pub(super) fn new(time: Duration) -> (Self, Stop) {
        let stop = Arc::new(AtomicBool::new(false));
        let now = Instant::now();
        let until = now.checked_add(time).unwrap_or(now);
        (Self { stop: stop.clone(), until }, Stop(stop))
    }

    /// An error once the work has to end.
    pub(super) fn check(&self) -> Result<(), BrowseError> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(BrowseError::Interrupted);
        }
        if Instant::now() >= self.until {
            return Err(BrowseError::Late);
        }
        Ok(())
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Places for work, over the whole node and for each caller.
#[derive(Debug)]
pub(super) struct Places {
    all: Room,
    each: Size,
    callers: Mutex<HashMap<Who, Weak<Room>>>,
    patience: Duration,
}

/// How many work at once, and how many more wait for that.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) working: usize,
    pub(super) waiting: usize,
}

/// Places for work, and for whoever waits for one.
#[derive(Debug)]
struct Room {
    /// As many as work and wait.
    all: Arc<Semaphore>,
    working: Arc<Semaphore>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _permits: [[OwnedSemaphorePermit; 2]; 2],
    /// The caller's places are counted as long as one of them is taken.
    _own: Arc<Room>,
}

impl Room {
    fn new(size: Size) -> Self {
        let bounded =
            |permits: usize| Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        Self {
            all: bounded(size.working.saturating_add(size.waiting)),
            working: bounded(size.working),
        }
    }

    async fn enter(&self) -> Result<[OwnedSemaphorePermit; 2], BrowseError> {
        let all = self.all.clone().try_acquire_owned().map_err(|_| BrowseError::Busy)?;
        let working = self.working.clone().acquire_owned().await.map_err(|_| BrowseError::Busy)?;
        Ok([working, all])
    }
}

impl Places {
    pub(super) fn new(all: Size, each: Size, patience: Duration) -> Self {
        Self { all: Room::new(all), each, callers: Mutex::default(), patience }
    }

    /// A place, when there is one. Cancel safe.
    pub(super) async fn take(&self, who: Who) -> Result<Place, BrowseError> {
        let own = self.of(who);
        // First one's own, so that who has many waiting keeps nobody else out.
        let entered = async { Ok::<_, BrowseError>([own.enter().await?, self.all.enter().await?]) };
        let permits = timeout(self.patience, entered).await.map_err(|_| BrowseError::Busy)??;
        Ok(Place { _permits: permits, _own: own })
    }

    fn of(&self, who: Who) -> Arc<Room> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = callers.get(&who).and_then(Weak::upgrade) {
            return own;
        }
        if callers.len() >= MANY {
            callers.retain(|_, own| own.strong_count() > 0);
        }
        let own = Arc::new(Room::new(self.each));
        callers.insert(who, Arc::downgrade(&own));
        own
    }
}

/// How much text may still be given, as it is written in JSON.
#[derive(Debug)]
pub(super) struct Budget {
    left: usize,
    /// Whether somebody got less than they asked for.
    is_spent: bool,
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        Self { left: bytes, is_spent: false }
    }

    /// Takes room for a text and `more` bytes, if there is enough.
    pub(super) fn take(&mut self, text: &str, more: usize) -> bool {
        match self.left.checked_sub(json_len(text).saturating_add(more)) {
            Some(rest) => {
                self.left = rest;
                true
            }
            None => {
                self.is_spent = true;
                false
            }
        }
    }

    /// Whether there was not enough room for something.
    pub(super) fn is_spent(&self) -> bool {
        self.is_spent
    }
}

/// How long a text is as a string of JSON, without its quotes.
pub(super) fn json_len(text: &str) -> usize {
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 2,
        0..0x20 => 6,
        _ => 1,
    };
    text.bytes().map(escaped).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LONG: Duration = Duration::from_secs(5);

    fn size(working: usize, waiting: usize) -> Size {
        Size { working, waiting }
    }

    fn who(id: &str) -> Who {
        Who::Identity(id.to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn few_work_and_few_wait() {
        for [a, b, c] in [["ann", "bob", "cid"], ["ann", "ann", "ann"]] {
            let places = Places::new(size(1, 1), size(1, 1), LONG);
            let first = places.take(who(a)).await.unwrap();
            let (second, third) = tokio::join!(places.take(who(b)), places.take(who(c)));
            assert!(matches!(second, Err(BrowseError::Busy)), "it has waited in vain");
            assert!(matches!(third, Err(BrowseError::Busy)), "there is no room to wait");
            drop(first);
            places.take(who(a)).await.unwrap();
        }
    }

    /// Whoever has all of their own places in use, and as many more waiting as they may.
    #[tokio::test(start_paused = true)]
    async fn nobody_keeps_others_out() {
        let places = Places::new(size(2, 1), size(1, 8), LONG);
        let _working = places.take(who("ann")).await.unwrap();
        let waiting = async {
            let outcomes = tokio::join!(places.take(who("ann")), places.take(who("ann")));
            assert!(outcomes.0.is_err() && outcomes.1.is_err(), "one works at once");
        };
        let other = async {
            let begun = tokio::time::Instant::now();
            let _place = places.take(who("bob")).await.unwrap();
            assert_eq!(begun.elapsed(), Duration::ZERO);
        };
        tokio::join!(waiting, other);
        let stranger = Who::stranger(None);
        places.take(stranger).await.unwrap();
    }

    #[test]
    fn work_ends_when_it_is_late_or_nobody_waits() {
        let (brake, stop) = Brake::new(Duration::from_secs(600));
        brake.check().unwrap();
        drop(stop);
        assert!(matches!(brake.check(), Err(BrowseError::Interrupted)));
        let (brake, _stop) = Brake::new(Duration::ZERO);
        assert!(matches!(brake.check(), Err(BrowseError::Late)));
    }

    proptest! {
        #[test]
        fn the_length_of_json_is_foreseen(text in any::<String>()) {
            // Two controls have short names that are not counted on.
            let plain = text.replace(['\u{8}', '\u{c}'], "");
            let json = serde_json::to_string(&plain).unwrap();
            prop_assert_eq!(json.len(), json_len(&plain) + 2);
        }
    }
}
