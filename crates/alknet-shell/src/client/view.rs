//! A viewer that outlives its connections.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use alknet_core::{Closed, ClosedBy, Code};
use bytes::Bytes;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use super::{
    Dial, DialFailure, Event, Outcome, Request, User, ViewError,
    line::{Failed, Incoming, Line},
    state::{Heard, State},
};
use crate::{
    name::Id,
    wire::{Exit, Frame, FromNode, MAX_CLIENT_CONTROL, RefusalCode, Size},
};

/// How often the connection is looked after.
const TICK: Duration = Duration::from_millis(100);
/// How long a connection may be silent before a sign of life is asked for.
const SILENCE: Duration = Duration::from_secs(1);
/// How long that may take before other connections are tried.
const PATIENCE: Duration = Duration::from_millis(1500);
/// How often one is begun.
const AGAIN: Duration = Duration::from_secs(1);
/// How soon after the last one where a connection was lost at once.
const SOON: Duration = Duration::from_millis(250);
/// How long one may take to be made, and then to attach at first: see [`Pace`].
const DIAL: Duration = Duration::from_secs(4);
const ATTACH: Duration = Duration::from_millis(1500);
/// How long the first, and at most any, may take for either.
const FIRST: Duration = Duration::from_secs(15);
/// How much longer than the last that was made one may take.
const SLOWER: u32 = 3;
/// How many are tried at once.
const DIALS: usize = 4;
/// Connections in a row that the node may end before the viewer is attached.
const TURNED_AWAY: u32 = 5;
/// How long the last word may take.
const FAREWELL: Duration = Duration::from_secs(1);
/// Room for events that one frame makes.
const ROOM: usize = 4;

/// Where the viewer is, as seen by attachments that are being made.
#[derive(Debug, Clone, Copy)]
struct Spot {
    session: Option<Id>,
    place: Option<u64>,
    size: Size,
}

/// Makes lines.
#[derive(Clone)]
struct Maker {
    dial: Arc<dyn Dial>,
    request: Arc<Request>,
    viewer: Id,
    attempts: Arc<AtomicU64>,
    spot: watch::Receiver<Spot>,
    /// One attaches at a time: of two, the one whose answer is lost might come second.
    turn: Arc<Semaphore>,
}

/// How long a connection may take. One that comes too late takes the viewer's seat all the
/// same, so that on a slow path the limit grows until one is in time.
#[derive(Debug, Clone, Copy)]
struct Pace {
    dial: Duration,
    attach: Duration,
}

impl Pace {
    /// After a connection that took so long to be made and to attach.
    fn after(took: Duration) -> Self {
        let slower = took * SLOWER;
        Self { dial: slower.clamp(DIAL, FIRST), attach: slower.clamp(ATTACH, FIRST) }
    }

    /// After one that did not attach in time.
    fn late(&mut self) {
        self.attach = (self.attach * 2).min(FIRST);
        self.dial = self.dial.max(self.attach);
    }
}

impl Maker {
    /// It is told by the other half where the viewer is.
    fn new(dial: Arc<dyn Dial>, request: Request, viewer: Id) -> (Self, watch::Sender<Spot>) {
        let size = request.terminal.size();
        let (spot, seen) = watch::channel(Spot { session: None, place: None, size });
        let maker = Self {
            dial,
            request: Arc::new(request),
            viewer,
            attempts: Arc::default(),
            spot: seen,
            turn: Arc::new(Semaphore::new(1)),
        };
        (maker, spot)
    }

    async fn make(self, Pace { dial, attach }: Pace) -> Result<Line, Failed> {
        let begun = Instant::now();
        let connection = timeout(dial, self.dial.dial()).await.map_err(|_| Failed::Slow)?;
        let connection = connection.map_err(Failed::Dial)?;
        let _turn = self.turn.acquire().await;
        let attempt = self.attempts.fetch_add(1, Ordering::Relaxed) + 1;
        let Spot { session, place, size } = *self.spot.borrow();
        let request = self.request.attach(self.viewer, attempt, session, place, size);
        let attached = timeout(attach, Line::attach(connection, attempt, &request));
        let mut line = attached.await.map_err(|_| Failed::Late)??;
        line.took = begun.elapsed();
        Ok(line)
    }
}

pub(super) async fn view(
    dial: Arc<dyn Dial>,
    request: Request,
    user: User,
) -> Result<Outcome, ViewError> {
    let viewer = Id::random().map_err(ViewError::Random)?;
    let size = request.terminal.size();
    let frame = request.attach(viewer, u64::MAX, None, None, size).frame();
    if !matches!(frame, Ok(Frame::Control(json)) if json.len() <= MAX_CLIENT_CONTROL) {
        return Err(ViewError::TooLong);
    }
    let (maker, spot) = Maker::new(dial, request, viewer);
    let pace = Pace { dial: FIRST, attach: FIRST };
    let made = user.leave.run_until_cancelled(maker.clone().make(pace)).await;
    let first = match made.ok_or(ViewError::Left)? {
        Ok(line) => line,
        Err(Failed::Slow | Failed::Late) => return Err(ViewError::OutOfReach),
        Err(failed) => return Err(failed.into_error().unwrap_or(ViewError::TurnedAway)),
    };
    let mut viewing = View::new(maker, spot, Pace::after(first.took));
    viewing.adopt(first, &user)?;
    viewing.run(user).await
}

impl Failed {
    /// Why it is of no use to try again, if it is not.
    fn into_error(self) -> Option<ViewError> {
        match self {
            Self::Dial(error) => Some(ViewError::Dial(error)),
            Self::Refused(refusal) => Some(ViewError::Refused(refusal)),
            Self::Ended(closed) => closed.filter(is_final).map(ViewError::Closed),
            Self::Protocol(error) => Some(ViewError::Protocol(error)),
            Self::Slow | Self::Late => None,
        }
    }

    fn is_final(&self) -> bool {
        match self {
            Self::Dial(error) => error.kind == DialFailure::Last,
            Self::Refused(refusal) => is_last(refusal.code),
            Self::Ended(closed) => closed.as_ref().is_some_and(is_final),
            Self::Protocol(_) => true,
            Self::Slow | Self::Late => false,
        }
    }
}

impl Failed {
    /// Whether the node was there, and did not have the viewer.
    fn is_refusal(&self) -> bool {
        match self {
            Self::Ended(_) => true,
            Self::Dial(error) => error.kind == DialFailure::Refused,
            Self::Refused(_) | Self::Protocol(_) | Self::Slow | Self::Late => false,
        }
    }
}

/// Whether the node will not have the viewer back after this.
fn is_final(closed: &Closed) -> bool {
    let last = [Code::REVOKED, Code::REFUSED, Code::SHUTTING_DOWN];
    closed.by == ClosedBy::Peer && last.contains(&closed.code)
}

/// Whether this refusal answers every further try. Nobody else has the viewer's id, so that
/// it was replaced means that an attempt of its own was late.
fn is_last(code: RefusalCode) -> bool {
    !matches!(code, RefusalCode::Busy | RefusalCode::Stale | RefusalCode::Replaced)
}

struct View {
    maker: Maker,
    spot: watch::Sender<Spot>,
    state: State,
    /// The size that the node has yet to be told.
    resized: Option<Size>,
    line: Option<Line>,
    dials: JoinSet<Result<Line, Failed>>,
    /// When the last was begun.
    dialled: Instant,
    pace: Pace,
    turned_away: u32,
    /// When anything came on the present line.
    heard: Instant,
    /// When a sign of life was asked for that has not come.
    asked: Option<Instant>,
    /// Since when the node is out of reach.
    away: Option<Instant>,
    patience: Option<Duration>,
    tokens: u64,
}

/// What the loop woke up for.
enum Woken {
    Left,
    Typed(Option<Bytes>),
    Resized,
    Incoming(Option<Incoming>),
    Dialled(Result<Line, Failed>),
    Written(bool),
    Tick,
}

impl View {
    /// One that has no line yet.
    fn new(maker: Maker, spot: watch::Sender<Spot>, pace: Pace) -> Self {
        let patience = maker.request.patience;
        Self {
            maker,
            spot,
            state: State::default(),
            resized: None,
            line: None,
            dials: JoinSet::new(),
            dialled: Instant::now(),
            pace,
            turned_away: 0,
            heard: Instant::now(),
            asked: None,
            away: None,
            patience,
            tokens: 0,
        }
    }

    async fn run(mut self, mut user: User) -> Result<Outcome, ViewError> {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.send();
            let ready = user.events.capacity() >= ROOM;
            if !ready {
                // Who does not look hears nothing either: that says nothing of the node.
                self.heard = Instant::now();
                self.asked = None;
            }
            let woken = tokio::select! {
                () = user.leave.cancelled() => Woken::Left,
                Ok(()) = user.size.changed() => Woken::Resized,
                typed = user.typed.recv(), if self.state.room() > 0 => Woken::Typed(typed),
                incoming = next(&mut self.line), if ready => Woken::Incoming(incoming),
                Some(dialled) = self.dials.join_next() => match dialled {
                    Ok(dialled) => Woken::Dialled(dialled),
                    // It was told to stop.
                    Err(_) => continue,
                },
                changed = user.written.changed() => Woken::Written(changed.is_ok()),
                _ = ticks.tick() => Woken::Tick,
            };
            match woken {
                Woken::Typed(Some(bytes)) => self.typed(&bytes),
                Woken::Resized => self.resize(*user.size.borrow_and_update()),
                Woken::Left | Woken::Typed(None) => return Ok(self.detach(user).await),
                Woken::Incoming(incoming) => {
                    if let Some(exit) = self.incoming(incoming, &user)? {
                        return Ok(self.exited(exit).await);
                    }
                }
                Woken::Dialled(result) => self.dialled(result, &user)?,
                Woken::Written(true) => self.state.written(*user.written.borrow_and_update()),
                Woken::Written(false) => return Err(ViewError::Unwatched),
                Woken::Tick => self.look_after(&user)?,
            }
        }
    }

    fn note(&self) {
        let (session, place) =
            (self.line.as_ref().map(|line| line.attached.session), self.state.place());
        self.spot.send_modify(|spot| {
            spot.session = session.or(spot.session);
            spot.place = place;
        });
    }

    fn typed(&mut self, bytes: &[u8]) {
        let read_only = self.line.as_ref().is_some_and(|line| line.attached.read_only);
        if !read_only && !self.maker.request.read_only {
            self.state.typed(bytes);
        }
    }

    fn resize(&mut self, size: Size) {
        self.spot.send_modify(|spot| spot.size = size);
        self.resized = Some(size);
    }

    /// Sends what there is to send and room for.
    fn send(&mut self) {
        let Some(line) = &self.line else { return };
        while let Ok(permit) = line.outgoing.try_reserve() {
            match self.resized.take().map(Frame::Resize).or_else(|| self.state.next()) {
                Some(frame) => permit.send(frame),
                None => return,
            }
        }
    }

    /// Goes on over this line.
    fn adopt(&mut self, line: Line, user: &User) -> Result<(), ViewError> {
        if self.line.as_ref().is_some_and(|present| present.attempt > line.attempt) {
            return Ok(());
        }
        self.state.attached(&line.attached).map_err(|error| ViewError::Protocol(error.into()))?;
        let attached = Box::new(line.attached.clone());
        // The terminal may have changed while the line was made.
        self.resized = Some(self.spot.borrow().size);
        self.pace = Pace::after(line.took);
        self.line = Some(line);
        self.dials.abort_all();
        (self.heard, self.asked, self.away) = (Instant::now(), None, None);
        self.turned_away = 0;
        self.note();
        let _ = user.events.try_send(Event::Attached(attached));
        Ok(())
    }

    fn incoming(
        &mut self,
        incoming: Option<Incoming>,
        user: &User,
    ) -> Result<Option<Exit>, ViewError> {
        match incoming {
            Some(Incoming::Frame(frame)) => return self.frame(frame, user),
            Some(Incoming::Broken(error)) => return Err(ViewError::Protocol(error.into())),
            Some(Incoming::End(Some(closed))) if is_final(&closed) => {
                return Err(ViewError::Closed(closed));
            }
            Some(Incoming::End(_)) | None => self.lost(user),
        }
        Ok(None)
    }

    /// The line is gone.
    fn lost(&mut self, user: &User) {
        self.line = None;
        self.missing(user);
        if self.dialled.elapsed() >= SOON {
            self.dial();
        }
    }

    fn missing(&mut self, user: &User) {
        if self.away.is_none() {
            self.away = Some(Instant::now());
            let _ = user.events.try_send(Event::Away);
        }
    }

    fn dial(&mut self) {
        if self.dials.len() < DIALS {
            self.dialled = Instant::now();
            self.dials.spawn(self.maker.clone().make(self.pace));
        }
    }

    fn dialled(&mut self, result: Result<Line, Failed>, user: &User) -> Result<(), ViewError> {
        match result {
            // The line before has come back to life meanwhile, and its node knows of this one.
            Ok(line) => self.adopt(line, user),
            Err(failed) if failed.is_final() => {
                Err(failed.into_error().unwrap_or(ViewError::TurnedAway))
            }
            Err(failed) => {
                tracing::debug!(?failed, "no way back yet");
                if matches!(failed, Failed::Late) {
                    self.pace.late();
                }
                if failed.is_refusal() {
                    self.turned_away += 1;
                }
                if self.turned_away >= TURNED_AWAY {
                    return Err(ViewError::TurnedAway);
                }
                Ok(())
            }
        }
    }

    fn frame(&mut self, frame: Frame, user: &User) -> Result<Option<Exit>, ViewError> {
        (self.heard, self.asked) = (Instant::now(), None);
        if self.away.take().is_some() {
            self.dials.abort_all();
            let _ = user.events.try_send(Event::Back);
        }
        let heard = self.state.heard(frame).map_err(|error| ViewError::Protocol(error.into()))?;
        let event = match heard {
            Heard::Nothing => None,
            Heard::Blank => Some(Event::Reset),
            Heard::Paint(bytes) => Some(Event::Screen(bytes)),
            Heard::Output(bytes, offset) => Some(Event::Output(bytes, offset)),
            Heard::Notice(FromNode::Notice { event, viewers, .. }) => {
                Some(Event::Notice { event, viewers })
            }
            Heard::Notice(_) => None,
            Heard::Exited(exit) => return Ok(Some(exit)),
            Heard::Refused(refusal) if is_last(refusal.code) => return Err(refusal.into()),
            Heard::Refused(_) => {
                self.lost(user);
                None
            }
            Heard::Ping(token) => {
                if let Some(line) = &self.line {
                    let _ = line.outgoing.try_send(Frame::Pong(token));
                }
                None
            }
        };
        let shown = self.state.painted().map(Event::Shown);
        for event in event.into_iter().chain(shown) {
            user.events.try_send(event).map_err(|_| ViewError::Unwatched)?;
        }
        self.note();
        Ok(None)
    }

    /// Asks for signs of life, and looks for another way where none comes.
    fn look_after(&mut self, user: &User) -> Result<(), ViewError> {
        if let (Some(since), Some(patience)) = (self.away, self.patience)
            && since.elapsed() > patience
        {
            return Err(ViewError::OutOfReach);
        }
        if let Some(line) = &self.line
            && self.asked.is_none()
            && self.heard.elapsed() >= SILENCE
        {
            self.tokens += 1;
            // A queue that is full is a line that is not getting on.
            let _ = line.outgoing.try_send(Frame::Ping(self.tokens));
            self.asked = Some(Instant::now());
        }
        if self.asked.is_some_and(|asked| asked.elapsed() >= PATIENCE) {
            self.missing(user);
        }
        if self.away.is_some() && self.dialled.elapsed() >= AGAIN {
            self.dial();
        }
        Ok(())
    }

    async fn detach(mut self, mut user: User) -> Outcome {
        self.dials.shutdown().await;
        while self.state.room() > 0
            && let Ok(bytes) = user.typed.try_recv()
        {
            self.typed(&bytes);
        }
        self.send();
        if let Some(line) = self.line.take() {
            line.end(Frame::Detach, FAREWELL).await;
        }
        Outcome::Detached
    }

    async fn exited(mut self, exit: Exit) -> Outcome {
        self.dials.shutdown().await;
        if let Some(line) = self.line.take() {
            line.end(Frame::Detach, FAREWELL).await;
        }
        Outcome::Exited(exit)
    }
}

/// What arrives next, if there is a line.
async fn next(line: &mut Option<Line>) -> Option<Incoming> {
    match line {
        Some(line) => line.incoming.recv().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
