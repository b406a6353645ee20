//! What carries the packets.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use super::{Conditions, MTU};

/// Packets on their way in one direction: more than any queue and delay asks for.
const ON_THE_WAY: usize = 200_000;
const MILLION: u32 = 1_000_000;

/// A direction.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way {
    Up,
    Down,
}

/// The conditions, as they are now.
pub(super) struct Link {
    conditions: Conditions,
    loss: AtomicU32,
}

impl Link {
    pub(super) fn new(conditions: Conditions) -> Self {
        Self { conditions, loss: AtomicU32::new(conditions.loss) }
    }

    pub(super) fn lose(&self, loss: u32) {
        self.loss.store(loss, Ordering::Relaxed);
    }
}

/// When a packet arrives at the other end, or that it does not.
struct Schedule {
    link: Arc<Link>,
    random: fastrand::Rng,
    /// When the packets before this one have left.
    free: Instant,
}

impl Schedule {
    fn new(link: Arc<Link>, way: Way, now: Instant) -> Self {
        // Losses of the two directions have nothing to do with each other.
        let salt = match way {
            Way::Up => 0,
            Way::Down => u64::MAX,
        };
        let random = fastrand::Rng::with_seed(link.conditions.seed ^ salt);
        Self { link, random, free: now }
    }

    fn arrival(&mut self, now: Instant, len: usize) -> Option<Instant> {
        let conditions = &self.link.conditions;
        if self.random.u32(..MILLION) < self.link.loss.load(Ordering::Relaxed) {
            return None;
        }
        let start = self.free.max(now);
        if start - now > conditions.queue {
            return None;
        }
        self.free = start + conditions.rate.map_or(Duration::ZERO, |rate| sending(len, rate));
        Some(self.free + conditions.rtt / 2)
    }
}

/// How long `len` bytes take at `rate` bytes a second.
fn sending(len: usize, rate: u64) -> Duration {
    let nanos = u64::try_from(len).unwrap_or(u64::MAX).saturating_mul(1_000_000_000);
    Duration::from_nanos(nanos.checked_div(rate).unwrap_or(0))
}

type Packet = (Instant, Box<[u8]>);

/// Carries packets one way until one of the devices ends.
pub(super) fn carry(
    link: &Arc<Link>,
    way: Way,
    from: Arc<File>,
    to: Arc<File>,
) -> [thread::JoinHandle<()>; 2] {
    let (queue, packets) = mpsc::sync_channel(ON_THE_WAY);
    let schedule = Schedule::new(link.clone(), way, Instant::now());
    [
        thread::spawn(move || take(&from, schedule, &queue)),
        thread::spawn(move || deliver(&packets, &to)),
    ]
}

fn take(mut from: &File, mut schedule: Schedule, queue: &mpsc::SyncSender<Packet>) {
    let mut packet = [0; MTU as usize];
    while let Ok(len) = from.read(&mut packet) {
        let packet = packet.get(..len).unwrap_or_default();
        if let Some(arrival) = schedule.arrival(Instant::now(), len)
            && queue.send((arrival, packet.into())).is_err()
        {
            return;
        }
    }
}

fn deliver(packets: &mpsc::Receiver<Packet>, mut to: &File) {
    for (arrival, packet) in packets {
        let early = arrival.saturating_duration_since(Instant::now());
        if !early.is_zero() {
            thread::sleep(early);
        }
        // The kernel refuses what it has no use for.
        let _ = to.write(&packet);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(conditions: Conditions) -> (Schedule, Instant) {
        let now = Instant::now();
        (Schedule::new(Arc::new(Link::new(conditions)), Way::Up, now), now)
    }

    #[test]
    fn packets_take_half_the_round_trip() {
        let (mut schedule, now) = schedule(Conditions::default());
        assert_eq!(schedule.arrival(now, 1500), Some(now + Duration::from_millis(25)));
        assert_eq!(schedule.arrival(now, 1500), Some(now + Duration::from_millis(25)));
    }

    #[test]
    fn a_rate_spaces_them_and_its_queue_is_bounded() {
        let millisecond = Duration::from_millis(1);
        let queue = millisecond * 2;
        let conditions =
            Conditions { rate: Some(1_500_000), queue, rtt: Duration::ZERO, ..Default::default() };
        let (mut schedule, now) = schedule(conditions);
        for sent in 1..=3 {
            assert_eq!(schedule.arrival(now, 1500), Some(now + millisecond * sent));
        }
        assert_eq!(schedule.arrival(now, 1500), None);
        let later = now + millisecond;
        assert_eq!(schedule.arrival(later, 1500), Some(now + millisecond * 4));
    }

    #[test]
    fn as_many_are_lost_as_was_asked_for_and_the_same_ones_again() {
        let conditions = Conditions { loss: 10_000, ..Default::default() };
        let lost = || {
            let (mut schedule, now) = schedule(conditions);
            Vec::from_iter((0..100_000).filter(|_| schedule.arrival(now, 1500).is_none()))
        };
        let first = lost();
        assert!((900..1100).contains(&first.len()), "{}", first.len());
        assert_eq!(first, lost());
    }
}
