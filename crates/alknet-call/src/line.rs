//! One stream: frames in both directions, and the calls that both sides make on it.

use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    io,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use alknet_core::{Code, RecvStream, Stream};
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use tokio::{io::AsyncReadExt as _, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    CallError, ErrorCode, Execution,
    answer::{Answer, Credit},
    peer::{Shared, lost},
    pending::{Event, Waiter},
    wire::{self, EventEnvelope, FrameError, FrameType, Responded, Window},
    writer::{self, Sending, Writer},
};

/// What the ids of the accepting side begin with.
const ACCEPTED: char = '~';
/// The longest event, in bytes.
pub(crate) const MAX_EVENT: usize = 4096;
/// What is read in one piece.
const PIECE: usize = 64 * 1024;
/// How long the stream's own task works on calls before it leaves them to others.
const INLINE: Duration = Duration::from_micros(200);

/// A stream of calls, for whoever makes some on it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Line(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) writer: Writer,
    /// Whether this side opened the stream.
    opened: bool,
    next: AtomicU64,
    pending: Mutex<Pending>,
    /// Nothing more can be called on it.
    pub(crate) over: CancellationToken,
}

/// What this side waits for; `None` once nothing will come any more.
struct Pending(Option<HashMap<String, Waiter>>);

/// A stream before its task runs.
pub(crate) struct Starting {
    line: Line,
    sending: Sending,
    receiving: RecvStream,
}

/// The calls of the peer in progress on a stream.
#[derive(Default)]
struct Incoming(Mutex<HashMap<String, Entry>>);

struct Entry {
    abort: CancellationToken,
    credit: Option<Arc<Credit>>,
}

/// Why a stream has ended before its end.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Line {
    /// Makes calls possible on a stream. The task has to be run.
    pub(crate) fn on(stream: Stream, opened: bool, over: CancellationToken) -> Starting {
        let stream_id = stream.id();
        let (send, receiving) = stream.split();
        let (writer, sending) = writer::writer(send, stream_id.is_some());
        let pending = Mutex::new(Pending(Some(HashMap::new())));
        let inner = Inner { writer, opened, next: AtomicU64::new(1), pending, over };
        Starting { line: Self(Arc::new(inner)), sending, receiving }
    }

    /// Takes an id for a call of this side and waits for what the peer says of it; fails
    /// when the stream is over.
    pub(crate) fn register(&self, waiter: Waiter) -> Result<String, CallError> {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let id = if self.0.opened { number.to_string() } else { format!("{ACCEPTED}{number}") };
        match &mut self.pending().0 {
            Some(pending) => drop(pending.insert(id.clone(), waiter)),
            None => return Err(lost()),
        }
        Ok(id)
    }

    /// Waits no more for a call; whether the peer still works on it.
    pub(crate) fn forget(&self, id: &str) -> bool {
        self.pending().0.as_mut().is_some_and(|pending| pending.remove(id).is_some())
    }

    pub(crate) fn writer(&self) -> &Writer {
        &self.0.writer
    }

    /// Sends a small frame without waiting. A peer that makes this side say much and reads
    /// nothing loses the stream.
    pub(crate) fn say(&self, frame: &[u8]) {
        if !self.0.writer.send_small(frame) {
            self.0.over.cancel();
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.0.over.is_cancelled()
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.0.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The waiter of a call, which has got its last word.
    fn take(&self, id: &str) -> Option<Waiter> {
        self.pending().0.as_mut()?.remove(id)
    }

    /// Passes an item on; whether somebody waits for it.
    fn pass(&self, id: &str, event: Event) -> bool {
        let mut pending = self.pending();
        let Some(all) = pending.0.as_mut() else { return false };
        let Some(waiter) = all.get(id) else { return false };
        let has_more = matches!(waiter, Waiter::Items { .. });
        if !waiter.pass(event)
            && let Some(waiter) = all.remove(id)
        {
            // Who waited for one output has it.
            waiter.end(Some(CallError::unavailable("more items than this side can hold")));
            // Of a subscription more is on its way: the peer has to be told.
            return !has_more;
        }
        true
    }

    fn is_ours(&self, id: &str) -> bool {
        id.starts_with(ACCEPTED) != self.0.opened
    }

    /// Fails what is waited for.
    fn lose(&self, error: &CallError) {
        let pending = self.pending().0.take();
        self.0.over.cancel();
        for waiter in pending.into_iter().flat_map(HashMap::into_values) {
            waiter.end(Some(error.clone()));
        }
    }
}

impl Starting {
    pub(crate) fn line(&self) -> &Line {
        &self.line
    }

    /// Carries frames until the stream is over, in both directions, or has to be.
    pub(crate) async fn run(self, shared: Arc<Shared>) {
        let Self { line, sending, receiving } = self;
        let (writer, over) = (line.0.writer.clone(), line.0.over.clone());
        let reading = Reading {
            line: line.clone(),
            shared,
            incoming: Arc::default(),
            calls: JoinSet::new(),
            inline_until: Instant::now(),
            forgotten: String::new(),
            receiving,
        };
        let stopped = sending.stopped();
        let outcome = tokio::select! {
            biased;
            outcome = both(&writer, reading.run(), sending.run()) => outcome,
            // Nobody wants the answers: a WebSocket says so, for one, when it is closed.
            _ = stopped => Ok(()),
            () = over.cancelled() => Ok(()),
        };
        if let Err(error) = outcome {
            tracing::debug!(%error, "a stream of calls broke");
        }
        line.lose(&lost());
    }
}

/// Reads, and then sends what that has led to, in one piece; until both are done, or one
/// fails.
async fn both(
    writer: &Writer,
    reading: impl Future<Output = io::Result<()>>,
    sending: impl Future<Output = io::Result<()>>,
) -> io::Result<()> {
    let (mut reading, mut sending) = (pin!(reading.fuse()), pin!(sending.fuse()));
    let (mut has_read, mut has_sent) = (false, false);
    poll_fn(|cx| {
        writer.stay_awake();
        if let Poll::Ready(read) = reading.as_mut().poll(cx) {
            read?;
            has_read = true;
        }
        if let Poll::Ready(sent) = sending.as_mut().poll(cx) {
            sent?;
            has_sent = true;
        }
        if has_read && has_sent { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await
}

/// The receiving direction, and the calls that came by it.
struct Reading {
    line: Line,
    shared: Arc<Shared>,
    incoming: Arc<Incoming>,
    calls: JoinSet<()>,
    inline_until: Instant,
    /// What the peer was told last to stop.
    forgotten: String,
    receiving: RecvStream,
}

impl Reading {
    /// Reads to the end and answers all that was asked.
    async fn run(mut self) -> io::Result<()> {
        match self.read().await {
            Ok(()) => {}
            Err(Broken::Io(error)) => return Err(error),
            Err(Broken::Frame(error)) => {
                self.receiving.stop(Code::PROTOCOL);
                self.calls.shutdown().await;
                let error = CallError::invalid_input(error.to_string());
                self.say(FrameType::Error, "", &error);
            }
        }
        // No answer to a call of ours can come any more.
        if let Some(pending) = self.line.pending().0.take() {
            pending.into_values().for_each(|waiter| waiter.end(Some(lost())));
        }
        while self.calls.join_next().await.is_some() {}
        self.line.0.writer.finish();
        Ok(())
    }

    async fn read(&mut self) -> Result<(), Broken> {
        let mut buffer = BytesMut::with_capacity(PIECE);
        loop {
            // Neither a peer that never pauses nor one that has lost the stream goes on alone.
            tokio::task::coop::consume_budget().await;
            if self.line.is_over() {
                return Ok(());
            }
            self.inline_until = Instant::now() + INLINE;
            while let Some(frame) = wire::split(&mut buffer)? {
                self.take(&frame).await?;
            }
            while self.calls.try_join_next().is_some() {}
            if self.shared.drained.is_cancelled() {
                return Ok(());
            }
            if buffer.capacity() - buffer.len() < PIECE / 4 {
                buffer.reserve(PIECE);
            }
            tokio::select! {
                biased;
                read = self.receiving.read_buf(&mut buffer) => {
                    if read? == 0 {
                        return Ok(());
                    }
                }
                Some(_) = self.calls.join_next() => {}
                () = self.shared.drained.cancelled() => return Ok(()),
            }
        }
    }

    async fn take(&mut self, frame: &Bytes) -> Result<(), Broken> {
        let envelope = EventEnvelope::parse(frame)?;
        let id = &*envelope.id;
        match envelope.kind {
            FrameType::Requested => self.requested(&envelope).await,
            FrameType::Responded => self.responded(&envelope),
            FrameType::Completed => {
                if let Some(waiter) = self.line.take(id) {
                    waiter.end(None);
                }
            }
            FrameType::Error => self.failed(&envelope),
            FrameType::Aborted => self.aborted(id),
            FrameType::Window => {
                if let Ok(Window { items }) = wire::payload(envelope.payload) {
                    self.incoming.widen(id, items);
                }
            }
            FrameType::Unknown => tracing::debug!("a frame of an unknown type"),
        }
        Ok(())
    }

    async fn requested(&mut self, envelope: &EventEnvelope<'_>) {
        let id = envelope.id.to_string();
        // Those that are done count no more.
        while self.calls.len() >= self.shared.limits.calls && self.calls.try_join_next().is_some() {
        }
        let request = match self.admit(envelope) {
            Ok(request) => request,
            Err(error) => return self.refuse(&id, error),
        };
        let credit = request.window.map(|window| Arc::new(Credit::new(window)));
        let abort = CancellationToken::new();
        let entry = Entry { abort: abort.clone(), credit: credit.clone() };
        if !self.incoming.insert(&id, entry) {
            let error = CallError::invalid_input("the id is in use on this stream");
            return self.refuse(&id, error);
        }
        let place =
            Place { incoming: self.incoming.clone(), id, is_given_up: AtomicBool::new(false) };
        let writer = self.line.0.writer.clone();
        let answer = Answer {
            writer,
            place,
            abort,
            credit,
            draining: self.shared.draining.clone(),
            _in_progress: self.shared.in_progress.token(),
        };
        let execution = self.shared.start(request);
        let mut answering = Box::pin(answer_safely(answer, execution));
        // Most calls are done at once, which spares them a task.
        if Instant::now() > self.inline_until || futures_util::poll!(&mut answering).is_pending() {
            self.calls.spawn(answering);
        }
    }

    fn admit<'a>(&self, envelope: &EventEnvelope<'a>) -> Result<wire::Requested<'a>, CallError> {
        if self.line.is_ours(&envelope.id) || envelope.id.is_empty() {
            let message = format!(
                "ids are not empty, and those of the side that accepted the stream, \
                 and no others, begin with {ACCEPTED}"
            );
            return Err(CallError::invalid_input(message));
        }
        if self.shared.draining.is_cancelled() {
            return Err(CallError::shutting_down());
        }
        if self.calls.len() >= self.shared.limits.calls {
            return Err(CallError::unavailable("too many calls in progress on this stream"));
        }
        let request: wire::Requested<'a> = wire::payload(envelope.payload)?;
        if request.after.as_ref().is_some_and(|after| after.len() > MAX_EVENT) {
            return Err(CallError::invalid_input("no event is as long as this"));
        }
        Ok(request)
    }

    /// Says no without waiting: two ends that wait to refuse each other would wait for ever.
    fn refuse(&self, id: &str, error: CallError) {
        self.say(FrameType::Error, id, &error.sendable());
    }

    fn responded(&mut self, envelope: &EventEnvelope<'_>) {
        let id = &*envelope.id;
        let event = wire::payload::<Responded<'_>>(envelope.payload).map(Event::of);
        let known = match event {
            Ok(event) => self.line.pass(id, event),
            Err(error) => self.line.take(id).map(|waiter| waiter.end(Some(error))).is_some(),
        };
        // Once in a row: what is on its way already needs no further word.
        if !known && self.forgotten != id {
            id.clone_into(&mut self.forgotten);
            self.say(FrameType::Aborted, id, &wire::Nothing {});
        }
    }

    fn failed(&self, envelope: &EventEnvelope<'_>) {
        let error = wire::payload::<CallError>(envelope.payload);
        let error = error.unwrap_or_else(|_| CallError::new(ErrorCode::Internal, "")).bounded();
        if envelope.id.is_empty() {
            tracing::debug!(%error, "the peer could not read what was sent");
            self.line.lose(&error);
        } else if let Some(waiter) = self.line.take(&envelope.id) {
            waiter.end(Some(error));
        }
    }

    fn aborted(&self, id: &str) {
        if self.line.is_ours(id) {
            if let Some(waiter) = self.line.take(id) {
                waiter.end(Some(CallError::unavailable("the call was aborted by its callee")));
            }
        } else {
            self.incoming.abort(id);
        }
    }

    fn say(&self, kind: FrameType, id: &str, payload: &impl serde::Serialize) {
        if let Some(frame) = wire::encode(kind, id, payload) {
            self.line.say(&frame);
        }
    }
}

/// A panic ends the call and nothing else.
async fn answer_safely(answer: Answer, execution: Result<Execution, CallError>) {
    if AssertUnwindSafe(answer.run(execution)).catch_unwind().await.is_err() {
        tracing::error!("the answer to a call panicked");
    }
}

impl Incoming {
    fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the id was free.
    fn insert(&self, id: &str, entry: Entry) -> bool {
        let mut entries = self.entries();
        let is_free = !entries.contains_key(id);
        if is_free {
            entries.insert(id.to_owned(), entry);
        }
        is_free
    }

    fn abort(&self, id: &str) {
        if let Some(entry) = self.entries().get(id) {
            entry.abort.cancel();
        }
    }

    fn widen(&self, id: &str, items: u32) {
        if let Some(credit) = self.entries().get(id).and_then(|entry| entry.credit.as_ref()) {
            credit.add(items);
        }
    }
}

/// The place of a call of the peer among those in progress. It has to be given up before
/// the last word is sent, because the peer may use the id again as soon as it has that.
pub(crate) struct Place {
    incoming: Arc<Incoming>,
    id: String,
    is_given_up: AtomicBool,
}

impl Place {
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn give_up(&self) {
        // By then the id may be another call's.
        if !self.is_given_up.swap(true, Ordering::Relaxed) {
            self.incoming.entries().remove(&self.id);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.give_up();
    }
}
