//! How far a client may send ahead on each channel (RFC 4254, section 5.2).

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
};

use russh::ChannelId;

use crate::handler::SshLimits;

/// What every channel begins with, in bytes.
pub(crate) const INITIAL: u32 = 64 * 1024;
/// What a channel gets whose consumer takes what comes, while there is room.
const GROWN: u32 = 2 * 1024 * 1024;
/// What all channels of a transport may have together. russh ends a transport that has
/// 32 MiB queued, which counts more than the contents of messages.
const TOTAL: usize = 24 * 1024 * 1024;

/// How often a channel's consumer takes a part of the first window, a quarter, before the
/// channel counts as one that carries much. What only talks needs no more, and a place that
/// was given cannot be taken back while the channel is open.
const PROVEN: u32 = 16;
/// How many channels that carry little are remembered before those that are gone are removed.
const REMEMBERED: usize = 1024;

/// The windows of a transport's channels.
#[derive(Debug)]
pub(crate) struct Windows<Id = ChannelId> {
    grown: HashSet<Id>,
    room: usize,
    /// How often something was taken from the others.
    taken: HashMap<Id, u32>,
}

impl<Id: Copy + Eq + Hash> Windows<Id> {
    pub(crate) fn new(limits: &SshLimits) -> Self {
        let channels = limits.channels.saturating_add(limits.forwards);
        let rest = TOTAL.saturating_sub(channels.saturating_mul(INITIAL as usize));
        let room = rest / (GROWN - INITIAL) as usize;
        Self { grown: HashSet::new(), room, taken: HashMap::new() }
    }

    /// The window for a channel whose consumer has taken something. `is_open` tells of
    /// others whether they still need theirs.
    pub(crate) fn of(&mut self, id: Id, is_open: impl Fn(Id) -> bool) -> u32 {
        if self.grown.contains(&id) {
            return GROWN;
        }
        let times = self.taken.entry(id).or_default();
        *times = times.saturating_add(1);
        if *times < PROVEN {
            if self.taken.len() > REMEMBERED {
                self.taken.retain(|id, _| is_open(*id));
            }
            return INITIAL;
        }
        if self.grown.len() >= self.room {
            self.grown.retain(|id| is_open(*id));
        }
        if self.grown.len() >= self.room {
            return INITIAL;
        }
        self.taken.remove(&id);
        self.grown.insert(id);
        GROWN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_is_for_those_that_carry_much() {
        let mut windows = Windows::<u32>::new(&SshLimits::default());
        let all = |_| true;
        for number in 0..100 {
            for _ in 1..PROVEN {
                assert_eq!(windows.of(number, all), INITIAL);
            }
        }
        let granted = |windows: &mut Windows<u32>, number| {
            (0..PROVEN).map(|_| windows.of(number, all)).max().unwrap()
        };
        let room = u32::try_from(windows.room).unwrap();
        for number in 100..100 + room {
            assert_eq!(granted(&mut windows, number), GROWN, "{number}");
        }
        // There is no more of it, until one of them is gone.
        assert_eq!(granted(&mut windows, 500), INITIAL);
        assert_eq!(windows.of(500, |id| id != 100), GROWN);
        assert_eq!(windows.of(101, all), GROWN);
    }

    #[test]
    fn channels_that_are_gone_are_forgotten() {
        let mut windows = Windows::<u32>::new(&SshLimits::default());
        for number in 0..100_000 {
            windows.of(number, |id| id == number);
        }
        assert!(windows.taken.len() <= REMEMBERED + 1);
    }
}
