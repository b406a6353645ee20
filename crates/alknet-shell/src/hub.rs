//! A session and its viewers, without a byte of input or output of its own: what arrives is
//! put in, what is to be sent is taken out, and time is an argument.

mod viewer;

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tokio::time::Instant;

use crate::{
    name::Id,
    ring::Ring,
    screen::Screen,
    wire::{Attach, Exit, Frame, FromNode, ListedViewer, Refusal, RefusalCode, Size},
};
use viewer::Viewer;

/// How much input of a viewer may be under way, in bytes.
pub(crate) const INPUT_WINDOW: u64 = 64 * 1024;
/// How much output to a viewer may be under way, in bytes.
pub(crate) const OUTPUT_WINDOW: u64 = 256 * 1024;
/// How far behind a viewer may fall whose transport is gone, in bytes.
const AWAY: u64 = 4 * 1024 * 1024;
/// What a program may have written beyond that before it was held back, in bytes.
const SLACK: usize = 64 * 1024;
/// How long a viewer that does not get on holds the program back.
const GRACE: Duration = Duration::from_secs(60);
/// The same where others look on.
const GRACE_SHARED: Duration = Duration::from_secs(5);
/// Input that waits for the program, of viewers that have come and gone, in bytes.
const MAX_TYPED: usize = 1024 * 1024;

/// What one attachment is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    viewer: Id,
    number: u64,
}

/// What to send next on an attachment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// This.
    Frame(Frame),
    /// Nothing yet.
    Wait,
    /// This, and then no more.
    Last(Frame),
    /// Nothing ever again.
    Over,
}

/// Whether the program is held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// It runs on.
    No,
    /// Until a viewer gets on, at most until then.
    Until(Instant),
    /// Until a viewer gets on.
    UntilRead,
}

/// Where a viewer begins.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Beginning {
    pub(crate) resumed: bool,
    pub(crate) input: u64,
    pub(crate) output: u64,
}

/// A session and its viewers.
#[derive(Debug)]
pub(crate) struct Hub {
    ring: Ring,
    screen: Screen,
    size: Size,
    /// Whether the program's terminal has yet to be told of `size`.
    resized: bool,
    viewers: BTreeMap<Id, Viewer>,
    /// By the serials of viewers.
    typed: VecDeque<(u64, Bytes)>,
    typed_len: usize,
    end: Option<FromNode>,
    places: u64,
    most_viewers: usize,
    /// How much output is kept for those who are behind, in bytes.
    most_kept: usize,
}

impl Hub {
    pub(crate) fn new(size: Size, most_viewers: usize) -> Self {
        Self {
            ring: Ring::default(),
            screen: Screen::new(size),
            size,
            resized: false,
            viewers: BTreeMap::new(),
            typed: VecDeque::new(),
            typed_len: 0,
            end: None,
            places: 0,
            most_viewers,
            most_kept: usize::try_from(AWAY).unwrap_or(usize::MAX).saturating_add(SLACK),
        }
    }

    /// The program has written something.
    pub(crate) fn output(&mut self, bytes: &[u8]) {
        self.screen.feed(bytes);
        self.ring.push(bytes);
        self.trim();
    }

    /// The program has ended: no output follows.
    pub(crate) fn exited(&mut self, exit: Exit) {
        self.end.get_or_insert(FromNode::Exited(exit));
        self.forget_input();
    }

    /// The session is over, whatever the program does.
    pub(crate) fn ended(&mut self, refusal: Refusal) {
        self.end.get_or_insert(FromNode::Error(refusal));
        self.forget_input();
    }

    fn forget_input(&mut self) {
        while self.take_input().is_some_and(|(viewer, bytes)| {
            self.taken(viewer, bytes.len());
            true
        }) {}
    }

    /// Takes a viewer in. `fresh` if the session was started for it.
    pub(crate) fn attach(
        &mut self,
        attach: &Attach,
        fresh: bool,
        address: Option<IpAddr>,
        now: Instant,
    ) -> Result<(Place, Beginning), Refusal> {
        let offered = if fresh { Some(0) } else { attach.output };
        if offered.is_some_and(|offset| offset > self.ring.end()) {
            let message = "the output that the viewer has was never written";
            return Err(Refusal::new(RefusalCode::Protocol, message));
        }
        let mut viewer = match self.viewers.remove(&attach.viewer) {
            Some(viewer) if attach.attempt <= viewer.attempt => {
                self.viewers.insert(attach.viewer, viewer);
                let message = "a later attachment of this viewer was there first";
                return Err(Refusal::new(RefusalCode::Stale, message));
            }
            Some(viewer) => viewer,
            None => {
                self.make_room(attach, fresh)?;
                Viewer::new(self.places + 1, now, if fresh { 0 } else { self.ring.end() })
            }
        };
        self.places += 1;
        let was_here = viewer.place.is_some();
        viewer.attempt = attach.attempt;
        viewer.place = Some(self.places);
        viewer.read_only = attach.read_only;
        viewer.size = attach.terminal.size();
        viewer.history = attach.history;
        viewer.address = address;
        viewer.since = SystemTime::now();
        viewer.alive(now);
        let resumed = viewer.begin(offered, &self.ring);
        let beginning =
            Beginning { resumed, input: viewer.received, output: viewer.acked.max(viewer.sent) };
        self.viewers.insert(attach.viewer, viewer);
        if !was_here {
            self.notify(Some(attach.viewer), "joined");
        }
        self.fit();
        Ok((Place { viewer: attach.viewer, number: self.places }, beginning))
    }

    /// Room for one more, for which the one that is away the longest is forgotten.
    fn make_room(&mut self, attach: &Attach, fresh: bool) -> Result<(), Refusal> {
        if attach.output.is_some() && !fresh {
            let message = "the node has forgotten this viewer";
            return Err(Refusal::new(RefusalCode::Gone, message));
        }
        if self.end.is_some() {
            return Err(Refusal::new(RefusalCode::Gone, "the session is over"));
        }
        if self.typed_len > MAX_TYPED {
            let message = "the program does not take what was typed";
            return Err(Refusal::new(RefusalCode::Busy, message));
        }
        if self.viewers.len() < self.most_viewers {
            return Ok(());
        }
        let away = self.viewers.iter().filter(|(_, viewer)| viewer.place.is_none());
        let oldest = away.min_by_key(|(_, viewer)| viewer.heard).map(|(id, _)| *id);
        match oldest.and_then(|id| self.viewers.remove(&id)) {
            Some(_) => Ok(()),
            None => Err(Refusal::new(RefusalCode::Limit, "the session has too many viewers")),
        }
    }

    /// The viewer of a live attachment.
    fn viewer(&mut self, place: Place) -> Option<&mut Viewer> {
        self.viewers.get_mut(&place.viewer).filter(|viewer| viewer.place == Some(place.number))
    }

    /// Whether this is still the viewer's attachment.
    pub(crate) fn is_at(&self, place: Place) -> bool {
        self.viewers.get(&place.viewer).is_some_and(|viewer| viewer.place == Some(place.number))
    }

    /// Something has arrived on an attachment. What comes on one that was taken over is not
    /// looked at.
    pub(crate) fn arrived(
        &mut self,
        place: Place,
        frame: Frame,
        now: Instant,
    ) -> Result<(), Refusal> {
        let over = self.end.is_some();
        let Some(viewer) = self.viewer(place) else { return Ok(()) };
        viewer.heard = now;
        match frame {
            Frame::Ack(offset) => {
                viewer.acknowledge(offset, now)?;
                self.trim();
            }
            Frame::Input(offset, bytes) => {
                let (serial, new) = (viewer.serial, viewer.input(offset, bytes)?);
                if over {
                    viewer.taken = viewer.received;
                } else if !new.is_empty() {
                    self.typed_len += new.len();
                    self.typed.push_back((serial, new));
                }
            }
            Frame::Resize(size) => {
                viewer.size = size;
                self.fit();
            }
            Frame::Detach => self.detach(place),
            Frame::Control(_) => {
                let message = "an attachment takes no second request";
                return Err(Refusal::new(RefusalCode::Protocol, message));
            }
            _ => {}
        }
        Ok(())
    }

    /// What to send next on an attachment.
    pub(crate) fn next(&mut self, place: Place, now: Instant) -> Next {
        let Self { ring, screen, end, .. } = self;
        let Some(known) = self.viewers.get_mut(&place.viewer) else { return Next::Over };
        if known.place != Some(place.number) {
            let refusal = Refusal::new(
                RefusalCode::Replaced,
                "another attachment of this viewer has taken over",
            );
            return Next::Last(FromNode::Error(refusal).frame());
        }
        if let Some(frame) = known.next(ring, screen, now) {
            self.trim();
            return Next::Frame(frame);
        }
        match end {
            Some(end @ FromNode::Exited(_)) if known.sent == ring.end() => Next::Last(end.frame()),
            Some(end @ FromNode::Error(_)) => Next::Last(end.frame()),
            _ => Next::Wait,
        }
    }

    /// The viewer is gone for good.
    pub(crate) fn detach(&mut self, place: Place) {
        if self.viewer(place).is_some() {
            self.viewers.remove(&place.viewer);
            self.left();
        }
    }

    /// The attachment's transport is gone; the viewer may come back.
    pub(crate) fn lost(&mut self, place: Place) {
        if let Some(viewer) = self.viewer(place) {
            viewer.place = None;
            self.left();
        }
    }

    fn left(&mut self) {
        self.notify(None, "left");
        self.fit();
        self.trim();
    }

    /// Input for the program, in the order in which it came, and the serial of who typed it.
    pub(crate) fn take_input(&mut self) -> Option<(u64, Bytes)> {
        let (viewer, bytes) = self.typed.pop_front()?;
        self.typed_len -= bytes.len();
        Some((viewer, bytes))
    }

    /// So much of a viewer's input the program's terminal has taken.
    pub(crate) fn taken(&mut self, serial: u64, count: usize) {
        if let Some(viewer) = self.viewers.values_mut().find(|it| it.serial == serial) {
            viewer.taken += count as u64;
        }
    }

    /// Whether the program has to wait for a viewer.
    pub(crate) fn hold(&self, now: Instant) -> Hold {
        let typing = |viewer: &&Viewer| viewer.place.is_some() && !viewer.read_only;
        let present = self.viewers.values().filter(typing).count();
        let mut hold = Hold::No;
        for viewer in self.viewers.values().filter(|viewer| !viewer.read_only) {
            let behind = self.ring.end() - viewer.acked.min(self.ring.end());
            let (most, since, others) = match viewer.place {
                Some(_) => (OUTPUT_WINDOW, viewer.progress, present > 1),
                None => (AWAY, viewer.heard, present > 0),
            };
            if behind < most || viewer.acked < self.ring.start() {
                continue;
            }
            if viewer.place.is_some() && !others {
                return Hold::UntilRead;
            }
            let until = since + if others { GRACE_SHARED } else { GRACE };
            if until > now {
                hold = match hold {
                    Hold::Until(other) => Hold::Until(other.max(until)),
                    _ => Hold::Until(until),
                };
            }
        }
        hold
    }

    /// Forgets output that nobody waits for.
    fn trim(&mut self) {
        // Whoever the session was started for has yet to come.
        let unseen = (self.places == 0).then_some(0);
        let needed = self.viewers.values().map(|viewer| viewer.acked.min(viewer.sent)).min();
        let needed = needed.or(unseen);
        self.ring.trim(needed.unwrap_or_else(|| self.ring.end()), self.most_kept);
    }

    /// Gives the terminal the size that all viewers that can type can show.
    fn fit(&mut self) {
        let present =
            self.viewers.values().filter(|viewer| viewer.place.is_some() && !viewer.read_only);
        let sizes = present.map(|viewer| viewer.size).filter(|it| it.columns > 0 && it.rows > 0);
        let Some(size) = sizes.reduce(|a, b| Size {
            columns: a.columns.min(b.columns),
            rows: a.rows.min(b.rows),
            width: a.width.min(b.width),
            height: a.height.min(b.height),
        }) else {
            return;
        };
        if size != self.size {
            self.size = size;
            self.resized = true;
            self.screen.resize(size);
            self.notify(None, "resized");
        }
    }

    /// Tells all viewers but one.
    fn notify(&mut self, but: Option<Id>, event: &str) {
        let viewers = self.attached();
        let Size { columns, rows, .. } = self.size;
        for (id, viewer) in &mut self.viewers {
            if Some(*id) != but && viewer.place.is_some() {
                let event = event.to_owned();
                viewer.notice(FromNode::Notice { event, viewers, columns, rows });
            }
        }
    }

    /// How many viewers are attached.
    pub(crate) fn attached(&self) -> u32 {
        let present = self.viewers.values().filter(|viewer| viewer.place.is_some()).count();
        u32::try_from(present).unwrap_or(u32::MAX)
    }

    /// Whether nobody is left who might want the rest.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.viewers.is_empty()
    }

    /// The size of the terminal.
    pub(crate) fn size(&self) -> Size {
        self.size
    }

    /// The size that the program's terminal has to be given, if it changed.
    pub(crate) fn take_resize(&mut self) -> Option<Size> {
        std::mem::take(&mut self.resized).then_some(self.size)
    }

    /// Whether the program has ended or was ended.
    pub(crate) fn is_over(&self) -> bool {
        self.end.is_some()
    }

    /// The viewers, as a list shows them.
    pub(crate) fn list(&self) -> Vec<ListedViewer> {
        self.viewers.values().map(Viewer::listed).collect()
    }
}

#[cfg(test)]
mod tests;
