//! One viewer of a session.

use std::{collections::VecDeque, net::IpAddr, time::SystemTime};

use bytes::Bytes;
use tokio::time::Instant;

use super::{INPUT_WINDOW, OUTPUT_WINDOW};
use crate::{
    clock::unix,
    ring::Ring,
    screen::Screen,
    wire::{Frame, FromNode, ListedViewer, MAX_DATA, Refusal, RefusalCode, Size},
};

/// How much output goes into one frame: little enough that what is urgent finds a gap.
const PIECE: usize = 16 * 1024;
/// Notices that wait. Each makes the ones before it worthless.
const NOTICES: usize = 8;

/// What a session knows of a viewer.
#[derive(Debug)]
pub(super) struct Viewer {
    pub(super) attempt: u64,
    /// The live attachment.
    pub(super) place: Option<u64>,
    pub(super) read_only: bool,
    pub(super) size: Size,
    pub(super) history: u32,
    pub(super) address: Option<IpAddr>,
    pub(super) since: SystemTime,
    /// When anything came from it.
    pub(super) heard: Instant,
    /// When it last took output, or was given some after it had taken all.
    pub(super) progress: Instant,
    /// Known to nobody else, and unlike its id never used again.
    pub(super) serial: u64,
    /// Output that it has.
    pub(super) acked: u64,
    /// How far it was ever sent output.
    reached: u64,
    /// Where output went on after the last screen. Who is before that never saw it.
    painted: u64,
    /// Output that was sent on the live attachment.
    pub(super) sent: u64,
    /// Input that has arrived here.
    pub(super) received: u64,
    /// Input that the program's terminal has taken.
    pub(super) taken: u64,
    /// What of `taken` the viewer was told.
    told: u64,
    /// It has to be shown the screen before it can be given output.
    blank: bool,
    /// What is left of a screen.
    painting: VecDeque<Frame>,
    notices: VecDeque<FromNode>,
}

impl Viewer {
    /// A viewer that has yet to see anything; the output before `at` it will not miss.
    pub(super) fn new(serial: u64, now: Instant, at: u64) -> Self {
        Self {
            serial,
            reached: at,
            painted: 0,
            attempt: 0,
            place: None,
            read_only: false,
            size: Size { columns: 0, rows: 0, width: 0, height: 0 },
            history: 0,
            address: None,
            since: SystemTime::now(),
            heard: now,
            progress: now,
            acked: at,
            sent: at,
            received: 0,
            taken: 0,
            told: 0,
            blank: true,
            painting: VecDeque::new(),
            notices: VecDeque::new(),
        }
    }

    pub(super) fn alive(&mut self, now: Instant) {
        self.heard = now;
        self.progress = now;
    }

    /// Begins an attachment; whether output goes on from where the viewer is.
    pub(super) fn begin(&mut self, offered: Option<u64>, ring: &Ring) -> bool {
        self.painting.clear();
        self.notices.clear();
        // The node's ACK of earlier attachments may have been lost.
        self.told = 0;
        // A screen that it is before was lost on the way, and what it stood for with it. Short
        // of that, what was acknowledged on an earlier attachment it has, even if it asked
        // before.
        let whole = offered.filter(|offset| *offset >= self.painted);
        let from = whole.map(|offset| offset.max(self.acked));
        match from.filter(|from| *from >= ring.start()) {
            Some(from) => {
                (self.acked, self.sent) = (from, from);
                self.blank = false;
            }
            None => {
                self.acked = from.unwrap_or(self.acked);
                self.sent = offered.filter(|it| *it < self.painted).unwrap_or(self.acked);
                self.blank = true;
            }
        }
        self.reached = self.reached.max(self.sent);
        !self.blank
    }

    /// What to send next, if anything.
    pub(super) fn next(&mut self, ring: &Ring, screen: &Screen, now: Instant) -> Option<Frame> {
        if self.taken > self.told {
            self.told = self.taken;
            return Some(Frame::Ack(self.taken));
        }
        if let Some(notice) = self.notices.pop_front() {
            return Some(notice.frame());
        }
        if let Some(frame) = self.painting.pop_front() {
            return Some(frame);
        }
        if self.blank || self.sent < ring.start() {
            return Some(self.paint(ring, screen));
        }
        let room = OUTPUT_WINDOW.saturating_sub(self.sent.saturating_sub(self.acked));
        let most = PIECE.min(usize::try_from(room).unwrap_or(PIECE));
        let bytes = ring.slice(self.sent, most);
        if bytes.is_empty() {
            return None;
        }
        let offset = self.sent;
        if self.sent <= self.acked {
            self.progress = now;
        }
        self.sent += bytes.len() as u64;
        self.reached = self.reached.max(self.sent);
        Some(Frame::Output(offset, bytes))
    }

    /// Shows the viewer the terminal as it is, and what it missed is missed.
    fn paint(&mut self, ring: &Ring, screen: &Screen) -> Frame {
        let paint = Bytes::from(screen.paint(self.history));
        let output = ring.end();
        let missed = output - self.sent.min(output);
        let mut rest = paint.clone();
        while !rest.is_empty() {
            self.painting.push_back(Frame::Screen(rest.split_to(rest.len().min(MAX_DATA))));
        }
        (self.acked, self.sent, self.blank) = (output, output, false);
        (self.painted, self.reached) = (output, output);
        FromNode::Screen { bytes: paint.len() as u64, output, missed }.frame()
    }

    /// The viewer has everything before `offset`.
    pub(super) fn acknowledge(&mut self, offset: u64, now: Instant) -> Result<(), Refusal> {
        if offset > self.reached {
            let message = "an ACK of output that was not sent";
            return Err(Refusal::new(RefusalCode::Protocol, message));
        }
        if offset > self.acked {
            self.progress = now;
        }
        // It may be ahead of `sent`: an earlier attachment has brought it in its last moment.
        self.acked = self.acked.max(offset);
        Ok(())
    }

    /// What of this input is new.
    pub(super) fn input(&mut self, offset: u64, mut bytes: Bytes) -> Result<Bytes, Refusal> {
        let broken = |message| Err(Refusal::new(RefusalCode::Protocol, message));
        if self.read_only {
            return broken("a read-only viewer types nothing");
        }
        let Some(known) = self.received.checked_sub(offset) else {
            return broken("input is missing");
        };
        let known = usize::try_from(known).unwrap_or(usize::MAX).min(bytes.len());
        let new = bytes.split_off(known);
        if self.received.saturating_sub(self.taken) + new.len() as u64 > INPUT_WINDOW {
            return broken("more input than the window allows");
        }
        self.received += new.len() as u64;
        Ok(new)
    }

    /// Something to tell the viewer; the oldest makes room.
    pub(super) fn notice(&mut self, notice: FromNode) {
        if self.notices.len() >= NOTICES {
            self.notices.pop_front();
        }
        self.notices.push_back(notice);
    }

    pub(super) fn listed(&self) -> ListedViewer {
        ListedViewer {
            since: unix(self.since),
            address: self.address,
            read_only: self.read_only,
            away: self.place.is_none(),
        }
    }
}
