//! How many exchanges are served at once.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// How many callers are remembered before those are forgotten that have nothing in progress.
const MANY: usize = 256;
/// One part of so many is kept for those who have proven who they are.
const KEPT: usize = 4;

/// For whom exchanges are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Who {
    /// Somebody who has proven who they are.
    Identity(String),
    /// Strangers of one network, where it is known.
    Network(Option<IpAddr>),
}

impl Who {
    /// Strangers at an address: one of IPv4, or all of a /64 of IPv6, which one customer has
    /// as a rule (RFC 6177).
    pub(crate) fn stranger(address: Option<IpAddr>) -> Self {
        const HOST: u128 = u64::MAX as u128;
        let network = |address: IpAddr| match address.to_canonical() {
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !HOST).into(),
            v4 @ IpAddr::V4(_) => v4,
        };
        Self::Network(address.map(network))
    }
}

/// Room for exchanges, over the whole node and for each caller. Who finds none waits for a while,
/// each behind those who came before. Strangers never have all of it.
#[derive(Debug)]
pub(crate) struct Slots {
    all: Room,
    /// The part of all that strangers may have.
    strangers: Room,
    each: usize,
    callers: Mutex<HashMap<Who, Weak<Room>>>,
}

/// Places for exchanges, and for those who wait for one.
#[derive(Debug)]
struct Room {
    places: Arc<Semaphore>,
    queue: Semaphore,
}

/// Room for one exchange, until it is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    /// What its caller's places are counted by is there as long as one of them is taken.
    _own: Arc<Room>,
    _places: Vec<OwnedSemaphorePermit>,
}

/// There was no room in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Busy;

impl Room {
    fn new(places: usize, waiting: usize) -> Self {
        let bounded = |permits: usize| Semaphore::new(permits.clamp(1, Semaphore::MAX_PERMITS));
        Self { places: Arc::new(bounded(places)), queue: bounded(waiting) }
    }
}

impl Slots {
    pub(crate) fn new(all: usize, each: usize, waiting: usize) -> Self {
        Self {
            all: Room::new(all, waiting),
            strangers: Room::new(all - all / KEPT, waiting - waiting / KEPT),
            each,
            callers: Mutex::default(),
        }
    }

    /// How many wait.
    #[cfg(test)]
    pub(crate) fn waiting(&self, most: usize) -> usize {
        most - self.all.queue.available_permits()
    }

    /// Takes room for an exchange. Of one caller as many wait as are served. Cancel safe: who
    /// gives up has left the queue.
    pub(crate) async fn take(&self, who: Who, patience: Duration) -> Result<Slot, Busy> {
        let strangers = matches!(who, Who::Network(_)).then_some(&self.strangers);
        let own = self.of(who);
        // First one's own, so that who has many waiting keeps nobody else out.
        let rooms = || [Some(&*own), strangers, Some(&self.all)].into_iter().flatten();
        let at_once = rooms().map(|room| room.places.clone().try_acquire_owned());
        if let Ok(places) = at_once.collect() {
            return Ok(Slot { _own: own, _places: places });
        }
        let waiting: Result<Vec<_>, _> = rooms().map(|room| room.queue.try_acquire()).collect();
        let waiting = waiting.map_err(|_| Busy)?;
        let all = async {
            let mut places = Vec::new();
            for room in rooms() {
                places.push(room.places.clone().acquire_owned().await.map_err(|_| Busy)?);
            }
            Ok(places)
        };
        let places = timeout(patience, all).await.map_err(|_| Busy)??;
        drop(waiting);
        Ok(Slot { _own: own, _places: places })
    }

    fn of(&self, who: Who) -> Arc<Room> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = callers.get(&who).and_then(Weak::upgrade) {
            return own;
        }
        if callers.len() >= MANY {
            callers.retain(|_, own| own.strong_count() > 0);
        }
        let own = Arc::new(Room::new(self.each, self.each));
        callers.insert(who, Arc::downgrade(&own));
        own
    }
}

#[cfg(test)]
mod tests {
    use tokio::{task::JoinSet, time::Instant};

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn identity(id: &str) -> Who {
        Who::Identity(id.to_owned())
    }

    fn at(address: &str) -> Who {
        Who::stranger(Some(address.parse().unwrap()))
    }

    impl Slots {
        /// What is answered without any waiting.
        async fn at_once(&self, who: Who) -> Option<Slot> {
            let begun = Instant::now();
            let slot = self.take(who, LONG).await.ok();
            assert_eq!(begun.elapsed(), Duration::ZERO, "neither refusals nor places take time");
            slot
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_caller_leaves_room_for_others_and_waits_for_a_while() {
        let slots = Slots::new(3, 2, 10);
        let take = |id| slots.take(identity(id), LONG);
        let anna = [take("anna").await.unwrap(), take("anna").await.unwrap()];
        assert_eq!(take("anna").await.unwrap_err(), Busy);
        let bert = take("bert").await.unwrap();
        assert_eq!(take("bert").await.unwrap_err(), Busy, "the node is full");
        let ends = async move { drop(anna) };
        assert!(tokio::join!(take("anna"), ends).0.is_ok());
        drop(bert);
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_has_an_end() {
        let slots = Slots::new(1, 1, 2);
        let take = |id| slots.take(identity(id), LONG);
        let _held = take("anna").await.unwrap();
        let third = async {
            tokio::task::yield_now().await;
            assert!(slots.at_once(identity("carl")).await.is_none());
        };
        let (one, two, ()) = tokio::join!(take("anna"), take("bert"), third);
        assert!(one.is_err() && two.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_keeps_nobody_out_who_finds_room() {
        for crowd in [identity("anna"), at("192.0.2.1")] {
            let slots = Arc::new(Slots::new(64, 16, 256));
            let mut waiting = JoinSet::new();
            for _ in 0..1000 {
                let (slots, who) = (slots.clone(), crowd.clone());
                waiting.spawn(async move { slots.take(who, LONG).await });
            }
            let (mut held, mut refused) = (Vec::new(), 0);
            while held.len() + refused < 1000 - 16 {
                match waiting.join_next().await.unwrap().unwrap() {
                    Ok(slot) => held.push(slot),
                    Err(Busy) => refused += 1,
                }
            }
            assert_eq!((held.len(), waiting.len()), (16, 16), "and as many wait");
            assert!(slots.at_once(identity("bert")).await.is_some());
            assert!(slots.at_once(at("198.51.100.1")).await.is_some());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_never_have_all() {
        let slots = Slots::new(8, 2, 8);
        let mut held = Vec::new();
        for network in 0..8 {
            for host in 0..4 {
                let who = at(&format!("2001:db8:0:{network}::{host}"));
                held.extend(slots.take(who, Duration::ZERO).await.ok());
            }
        }
        assert_eq!(held.len(), 6);
        assert!(slots.at_once(identity("anna")).await.is_some());
    }

    #[test]
    fn a_network_is_one_caller() {
        let same = |one: &str, other: &str| at(one) == at(other);
        assert!(same("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert!(!same("2001:db8:1:2::1", "2001:db8:1:3::1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
        assert!(same("192.0.2.1", "::ffff:192.0.2.1") && !same("::ffff:192.0.2.1", "::"));
    }

    #[tokio::test]
    async fn who_has_nothing_in_progress_is_forgotten() {
        let slots = Slots::new(1, 1, 1);
        for caller in 0..10 * MANY {
            slots.take(identity(&caller.to_string()), LONG).await.unwrap();
        }
        assert!(slots.callers.lock().unwrap().len() <= MANY);
    }
}
