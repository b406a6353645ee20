//! Showing a session on this process's terminal, or on a pipe.

use std::{io, time::Duration};

use alknet_shell::{Screen, client::Event, wire::Size};
use tokio::{
    io::{AsyncWriteExt as _, Stdout},
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::tty::Raw;
use crate::{failure::Failure, output};

/// How often the line about an outage changes, and how long an outage has none.
const TICK: Duration = Duration::from_secs(1);
/// Takes a terminal back to where a reset would, but for what has scrolled off.
const RESET: &str = "\x1b[?1049l\x1b[!p\x1b[?9;1000;1002;1003;1004;1005;1006;1015;1016;2004l\
                     \x1b[?7h\x1b>\x1b[0 q\x1b[m";

/// Shows a session.
pub(super) struct Painter {
    out: Stdout,
    /// What the terminal shows, to restore it after a line of our own.
    screen: Option<Screen>,
    size: Size,
    /// Cancelled once the session is there.
    there: CancellationToken,
    /// From then on the terminal is the session's.
    raw: Option<Raw>,
    away: Option<Instant>,
    /// Whether a line of our own is on the terminal.
    marked: bool,
}

impl Painter {
    /// On a terminal of this size, or on no terminal.
    pub(super) fn new(terminal: Option<Size>, there: CancellationToken) -> Self {
        let size = terminal.unwrap_or(super::NO_TERMINAL);
        let screen = terminal.map(Screen::new);
        let out = tokio::io::stdout();
        Self { out, screen, size, there, raw: None, away: None, marked: false }
    }

    /// Shows what comes, and reports up to where it is shown.
    pub(super) async fn show(
        mut self,
        mut events: mpsc::Receiver<Event>,
        report: watch::Sender<u64>,
    ) -> Result<(), Failure> {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.event(event, &report).await?,
                    None => break,
                },
                _ = ticks.tick(), if self.away.is_some() => self.mark().await?,
            }
        }
        Ok(self.leave().await?)
    }

    async fn event(&mut self, event: Event, report: &watch::Sender<u64>) -> Result<(), Failure> {
        match event {
            Event::Output(bytes, offset) => {
                self.write(&bytes).await?;
                report.send_replace(offset);
            }
            Event::Screen(bytes) => self.write(&bytes).await?,
            Event::Shown(offset) => drop(report.send_replace(offset)),
            Event::Reset => {
                self.marked = false;
                if let Some(screen) = &mut self.screen {
                    *screen = Screen::new(self.size);
                    self.out.write_all(RESET.as_bytes()).await?;
                }
            }
            Event::Away => {
                self.away.get_or_insert_with(Instant::now);
                if self.screen.is_none() {
                    output::note("no contact with the node, trying on")?;
                }
            }
            Event::Attached(_) | Event::Back => {
                if !self.there.is_cancelled() {
                    self.raw = Raw::enter(self.screen.is_some())?;
                    self.there.cancel();
                }
                if self.away.take().is_some() && self.screen.is_none() {
                    output::note("in contact with the node again")?;
                }
                self.unmark().await?;
            }
            Event::Notice { .. } => {}
        }
        Ok(())
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.unmark().await?;
        self.out.write_all(bytes).await?;
        self.out.flush().await?;
        if let Some(screen) = &mut self.screen {
            if let Some(size) = super::tty::size().filter(|size| *size != self.size) {
                self.size = size;
                screen.resize(size);
            }
            screen.feed(bytes);
        }
        Ok(())
    }

    /// Says in the last line that the node is out of reach.
    async fn mark(&mut self) -> io::Result<()> {
        let Some(since) = self.away.filter(|since| since.elapsed() >= TICK) else { return Ok(()) };
        if self.screen.is_none() {
            return Ok(());
        }
        let text =
            format!(" no contact for {} s, trying on. ~. leaves ", since.elapsed().as_secs());
        let text: String = text.chars().take(self.size.columns.into()).collect();
        let row = self.size.rows;
        let line = format!("\x1b7\x1b[{row};1H\x1b[0;7m{text}\x1b[m\x1b[K\x1b8");
        self.marked = true;
        self.out.write_all(line.as_bytes()).await?;
        self.out.flush().await
    }

    /// Restores what the line covered.
    async fn unmark(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.marked) {
            return Ok(());
        }
        if let Some(screen) = &self.screen {
            let paint = screen.paint(0);
            self.out.write_all(RESET.as_bytes()).await?;
            self.out.write_all(&paint).await?;
            self.out.flush().await?;
        }
        Ok(())
    }

    /// Leaves the terminal as a program should.
    async fn leave(&mut self) -> io::Result<()> {
        self.unmark().await?;
        // Before the session was there the terminal is as it was.
        if let (Some(screen), Some(_)) = (&self.screen, &self.raw) {
            let end =
                if screen.is_alternate() { RESET } else { RESET.trim_start_matches("\x1b[?1049l") };
            self.out.write_all(end.as_bytes()).await?;
            self.out.write_all(b"\r\n").await?;
        }
        self.out.flush().await
    }
}
