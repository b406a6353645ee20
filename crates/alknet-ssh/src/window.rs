//! How far a client may send ahead on each channel (RFC 4254, section 5.2).

use std::collections::HashSet;

use russh::ChannelId;

use crate::handler::SshLimits;

/// What every channel begins with, in bytes.
pub(crate) const INITIAL: u32 = 64 * 1024;
/// What a channel gets whose consumer takes what comes, while there is room.
const GROWN: u32 = 2 * 1024 * 1024;
/// What all channels of a transport may have together. russh ends a transport that has
/// 32 MiB queued, which counts more than the contents of messages.
const TOTAL: usize = 24 * 1024 * 1024;

/// The windows of a transport's channels.
#[derive(Debug)]
pub(crate) struct Windows {
    grown: HashSet<ChannelId>,
    room: usize,
}

impl Windows {
    pub(crate) fn new(limits: &SshLimits) -> Self {
        let channels = limits.channels.saturating_add(limits.forwards);
        let rest = TOTAL.saturating_sub(channels.saturating_mul(INITIAL as usize));
        Self { grown: HashSet::new(), room: rest / (GROWN - INITIAL) as usize }
    }

    /// The window for a channel whose consumer has taken something. `is_open` tells of
    /// others whether they still need theirs.
    pub(crate) fn of(&mut self, id: ChannelId, is_open: impl Fn(ChannelId) -> bool) -> u32 {
        if self.grown.len() >= self.room {
            self.grown.retain(|id| is_open(*id));
        }
        let has = self.grown.contains(&id);
        if has || (self.grown.len() < self.room && self.grown.insert(id)) { GROWN } else { INITIAL }
    }
}
