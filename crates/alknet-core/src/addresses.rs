//! What one address may ask of the node.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use ipnet::IpNet;

use crate::Limits;

/// Over which time handshakes are counted.
const HANDSHAKE_WINDOW: Duration = Duration::from_secs(60);
/// Over which time failures to authenticate are counted.
const FAILURE_WINDOW: Duration = Duration::from_secs(600);
/// How many addresses are remembered. Beyond it, those at rest are forgotten, and if there
/// are none, a new one goes uncounted: the bounds of the whole node hold for it all the same.
const MAX_ADDRESSES: u32 = 1 << 16;
/// How often room is looked for while there is none.
const SWEEP: Duration = Duration::from_secs(1);

/// Handshakes and failures by address: an IPv4 address, or an IPv6 network of 64 bits, which
/// is what one customer has.
pub(crate) struct Addresses {
    handshakes: Rate,
    failures: Rate,
    ban: Duration,
    exempt: Vec<IpNet>,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    records: HashMap<IpAddr, Record>,
    swept: Option<Instant>,
}

#[derive(Default)]
struct Record {
    handshakes: Level,
    failures: Level,
    banned_until: Option<Instant>,
}

/// So many in so long a time: a bucket that leaks evenly.
#[derive(Clone, Copy)]
struct Rate {
    room: f64,
    window: Duration,
}

/// What is in a bucket, and when that was measured.
#[derive(Default, Clone, Copy)]
struct Level {
    amount: f64,
    at: Option<Instant>,
}

impl Rate {
    fn new(room: u32, window: Duration) -> Self {
        Self { room: f64::from(room), window }
    }

    fn level(self, level: Level, now: Instant) -> f64 {
        let Some(at) = level.at else { return 0.0 };
        let leaked =
            now.saturating_duration_since(at).as_secs_f64() * self.room / self.window.as_secs_f64();
        (level.amount - leaked).max(0.0)
    }

    /// Adds one unless it would go beyond `share` of the room.
    fn take(self, level: &mut Level, share: f64, now: Instant) -> bool {
        let amount = self.level(*level, now) + 1.0;
        let fits = amount <= self.room * share;
        if fits {
            *level = Level { amount, at: Some(now) };
        }
        fits
    }
}

/// What becomes of a newcomer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may begin a handshake.
    Welcome,
    /// The address may be forged: it has to be proven first.
    Prove,
    /// Too many handshakes.
    TooMany,
    /// Too many failures to authenticate.
    Banned,
}

impl Addresses {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            handshakes: Rate::new(limits.handshakes_per_address, HANDSHAKE_WINDOW),
            failures: Rate::new(limits.failures_per_address, FAILURE_WINDOW),
            ban: limits.ban,
            exempt: limits.exempt.clone(),
            table: Mutex::default(),
        }
    }

    /// Decides about a newcomer, and counts it if it is welcome. Whoever has not proven
    /// its address gets half the room, so that forged packets lock nobody out. Bans count
    /// only if `bans`.
    pub(crate) fn handshake(&self, address: IpAddr, proven: bool, bans: bool) -> Verdict {
        let Some(key) = self.key(address) else { return Verdict::Welcome };
        let now = Instant::now();
        let mut table = self.table();
        let Some(record) = table.record(key, self, now) else { return Verdict::Welcome };
        if bans && record.banned_until.is_some_and(|until| now < until) {
            return if proven { Verdict::Banned } else { Verdict::Prove };
        }
        let share = if proven { 1.0 } else { 0.5 };
        match self.handshakes.take(&mut record.handshakes, share, now) {
            true => Verdict::Welcome,
            false if proven => Verdict::TooMany,
            false => Verdict::Prove,
        }
    }

    /// Counts a failure to authenticate.
    pub(crate) fn failed(&self, address: IpAddr) {
        let Some(key) = self.key(address) else { return };
        let now = Instant::now();
        let mut table = self.table();
        let Some(record) = table.record(key, self, now) else { return };
        if self.failures.take(&mut record.failures, 1.0, now) {
            return;
        }
        let news = record.banned_until.is_none_or(|until| until <= now);
        record.banned_until = Some(now + self.ban);
        record.failures = Level::default();
        drop(table);
        if news {
            metrics::counter!("alknet_bans_total").increment(1);
            tracing::warn!(target: "alknet::auth", seconds = self.ban.as_secs(), "turning away {key}: too many failures to authenticate");
        }
    }

    pub(crate) fn is_banned(&self, address: IpAddr) -> bool {
        let Some(key) = self.key(address) else { return false };
        let until = self.table().records.get(&key).and_then(|record| record.banned_until);
        until.is_some_and(|until| Instant::now() < until)
    }

    /// What is counted together with this address; `None` if it is exempt.
    pub(crate) fn key(&self, address: IpAddr) -> Option<IpAddr> {
        let address = address.to_canonical();
        if self.exempt.iter().any(|net| net.contains(&address)) {
            return None;
        }
        Some(match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (!0 << 64)).into(),
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at_rest(&self, record: &Record, now: Instant) -> bool {
        record.banned_until.is_none_or(|until| until <= now)
            && self.handshakes.level(record.handshakes, now) <= 0.0
            && self.failures.level(record.failures, now) <= 0.0
    }
}

impl Table {
    fn record(&mut self, key: IpAddr, addresses: &Addresses, now: Instant) -> Option<&mut Record> {
        let full = self.records.len() >= MAX_ADDRESSES as usize && !self.records.contains_key(&key);
        if full {
            if self.swept.is_some_and(|at| now.saturating_duration_since(at) < SWEEP) {
                return None;
            }
            self.swept = Some(now);
            self.records.retain(|_, record| !addresses.at_rest(record, now));
            if self.records.len() >= MAX_ADDRESSES as usize {
                return None;
            }
        }
        Some(self.records.entry(key).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> Addresses {
        let limits = Limits {
            handshakes_per_address: 4,
            failures_per_address: 2,
            exempt: vec!["127.0.0.0/8".parse().unwrap()],
            ..Limits::default()
        };
        Addresses::new(&limits)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_so_many_handshakes() {
        let addresses = addresses();
        let verdicts: Vec<_> =
            (0..6).map(|_| addresses.handshake(ip("192.0.2.1"), true, true)).collect();
        assert_eq!(verdicts[..4], [Verdict::Welcome; 4]);
        assert_eq!(verdicts[4..], [Verdict::TooMany; 2]);
        assert_eq!(addresses.handshake(ip("192.0.2.2"), true, true), Verdict::Welcome);
        assert_eq!(addresses.handshake(ip("::ffff:192.0.2.1"), true, true), Verdict::TooMany);
    }

    #[test]
    fn a_bucket_leaks() {
        let rate = Rate::new(60, HANDSHAKE_WINDOW);
        let start = Instant::now();
        let mut level = Level::default();
        (0..60).for_each(|_| assert!(rate.take(&mut level, 1.0, start)));
        assert!(!rate.take(&mut level, 1.0, start));
        assert!(rate.take(&mut level, 1.0, start + Duration::from_secs(1)));
        assert!(!rate.take(&mut level, 1.0, start + Duration::from_secs(1)));
    }

    #[test]
    fn forged_packets_leave_room_for_those_who_prove_their_address() {
        let addresses = addresses();
        let peer = ip("192.0.2.1");
        let verdicts: Vec<_> = (0..3).map(|_| addresses.handshake(peer, false, true)).collect();
        assert_eq!(verdicts, [Verdict::Welcome, Verdict::Welcome, Verdict::Prove]);
        assert_eq!(addresses.handshake(peer, true, true), Verdict::Welcome);
    }

    #[test]
    fn failures_end_in_a_ban_of_the_whole_network() {
        let addresses = addresses();
        for host in 1..=3 {
            addresses.failed(ip(&format!("2001:db8::{host}")));
        }
        assert!(addresses.is_banned(ip("2001:db8::ffff")));
        assert_eq!(addresses.handshake(ip("2001:db8::9"), true, true), Verdict::Banned);
        assert!(!addresses.is_banned(ip("2001:db8:0:1::1")));
        assert_eq!(addresses.handshake(ip("2001:db8::9"), true, false), Verdict::Welcome);
    }

    #[test]
    fn an_exempt_address_is_never_turned_away() {
        let addresses = addresses();
        (0..100).for_each(|_| addresses.failed(ip("127.0.0.1")));
        assert!(!addresses.is_banned(ip("127.0.0.1")));
        assert!(addresses.table().records.is_empty());
    }

    #[test]
    fn the_table_is_bounded() {
        let addresses = addresses();
        for i in 0..(MAX_ADDRESSES + 10) {
            addresses.handshake(IpAddr::V4((0x0a00_0000 + i).into()), true, true);
        }
        assert_eq!(addresses.table().records.len(), MAX_ADDRESSES as usize);
        let beyond = IpAddr::V4((0x0a00_0000 + MAX_ADDRESSES + 11).into());
        assert_eq!(addresses.handshake(beyond, true, true), Verdict::Welcome);
    }
}
