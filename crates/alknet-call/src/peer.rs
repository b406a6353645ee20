//! One end of a connection on which both sides call each other.

use std::{
    collections::BTreeMap,
    fmt,
    marker::PhantomData,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use alknet_core::{AuthContext, BoxFuture, Code, Connection, ConnectionError, TransportKind};
use arc_swap::ArcSwapOption;
use futures_util::Stream;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{sync::watch, time::timeout};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::{
    Access, CallError, Context, Execution, Handler, Item, Items, Kind, Operation,
    OperationRegistry, Request, Schema, Served, Spec,
    line::{Line, Starting},
    operation::Output,
    pending::{Incoming, Waiter},
    wire::{self, FrameType},
};

/// What calls on a lost stream end with. Whether they took effect is not known.
pub(crate) fn lost() -> CallError {
    let error = CallError::unavailable("the connection was lost");
    CallError { retryable: false, ..error }.with_details(json!({ "reason": LOST }))
}

const LOST: &str = "connection-lost";

/// Whether a call ended because its connection was lost.
pub(crate) fn is_lost(error: &CallError) -> bool {
    error.details.get("reason").is_some_and(|reason| reason == LOST)
}

/// How much one connection may ask for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CallLimits {
    /// Calls of the peer in progress on one stream.
    pub calls: usize,
    /// Streams of the peer in use at a time.
    pub streams: usize,
}

impl Default for CallLimits {
    fn default() -> Self {
        Self { calls: 512, streams: 64 }
    }
}

/// How to make a call.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct CallOptions {
    /// How long to wait for the output, or for the end of a subscription; without it there
    /// is the operation's own bound.
    pub timeout: Option<Duration>,
    /// The event behind which a subscription goes on.
    pub after: Option<String>,
    /// How many items of a subscription may be on their way; 256 if it is not set.
    pub window: Option<u32>,
}

const WINDOW: u32 = 256;

impl CallOptions {
    /// Waits no longer than this.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self }
    }

    /// Goes on behind the item that carried this event.
    #[must_use]
    pub fn after(self, event: impl Into<String>) -> Self {
        Self { after: Some(event.into()), ..self }
    }

    /// Lets so many items be on their way.
    #[must_use]
    pub fn window(self, items: u32) -> Self {
        Self { window: Some(items), ..self }
    }
}

/// The other end of a connection, to be called. Cheap to clone.
#[derive(Clone)]
pub struct Peer(Arc<Inner>);

struct Inner {
    connection: Connection,
    shared: Arc<Shared>,
    /// The stream for calls of this side.
    main: ArcSwapOption<Line>,
    /// Held by whoever opens that.
    opening: tokio::sync::Mutex<()>,
    /// The first stream that the peer opened: the only one where it is the one to open.
    accepted: watch::Sender<Option<Line>>,
    served: Mutex<BTreeMap<String, Arc<Operation>>>,
    lines: TaskTracker,
    over: CancellationToken,
}

/// What the streams of a connection need to answer calls.
pub(crate) struct Shared {
    registry: OperationRegistry,
    auth: AuthContext,
    pub(crate) limits: CallLimits,
    pub(crate) draining: CancellationToken,
    /// Calls of the peer.
    pub(crate) in_progress: TaskTracker,
    /// Set when draining is over: nothing more is read.
    pub(crate) drained: CancellationToken,
    /// Set once, right after the peer is made.
    peer: Mutex<Weak<Inner>>,
}

impl Shared {
    /// Starts what the peer asks for.
    pub(crate) fn start(&self, request: wire::Requested<'_>) -> Result<Execution, CallError> {
        let peer = self.peer.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        let has_window = request.window.is_some();
        let execution = self.registry.start(Request {
            input: request.input,
            timeout: request.timeout_ms.map(Duration::from_millis),
            after: request.after,
            peer: peer.map(Peer),
            ..Request::new(request.operation, self.auth.clone())
        })?;
        // Whoever waits for more than one output would wait for ever.
        if has_window && execution.kind() != Kind::Subscription {
            return Err(CallError::invalid_input("the operation is no subscription"));
        }
        Ok(execution)
    }
}

/// Carries a connection's calls in both directions.
pub struct Driver {
    peer: Peer,
    _over: DropGuard,
}

impl Peer {
    /// Makes a connection a place of calls. The peer's calls go to `registry` as `auth`;
    /// once `draining` is cancelled, new ones are refused and subscriptions end. The driver has to be
    /// run.
    pub fn new(
        connection: Connection,
        registry: OperationRegistry,
        auth: AuthContext,
        limits: CallLimits,
        draining: CancellationToken,
    ) -> (Self, Driver) {
        let peer = Mutex::new(Weak::new());
        let (in_progress, drained) = (TaskTracker::new(), CancellationToken::new());
        let shared =
            Arc::new(Shared { registry, auth, limits, draining, in_progress, drained, peer });
        let over = CancellationToken::new();
        let inner = Arc::new(Inner {
            connection,
            shared: shared.clone(),
            main: ArcSwapOption::empty(),
            opening: tokio::sync::Mutex::default(),
            accepted: watch::Sender::new(None),
            served: Mutex::default(),
            lines: TaskTracker::new(),
            over: over.clone(),
        });
        *shared.peer.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&inner);
        let peer = Self(inner);
        (peer.clone(), Driver { peer, _over: over.drop_guard() })
    }

    /// Calls a query or a mutation of the peer. Dropping the future aborts the call.
    pub async fn call<I, O>(&self, operation: &str, input: &I) -> Result<O, CallError>
    where
        I: Serialize + Sync + ?Sized,
        O: DeserializeOwned,
    {
        let output = self.call_raw(operation, input, CallOptions::default()).await?;
        read(&output)
    }

    /// Calls with options, and leaves the output as JSON text.
    pub async fn call_raw<I: Serialize + Sync + ?Sized>(
        &self,
        operation: &str,
        input: &I,
        options: CallOptions,
    ) -> Result<Output, CallError> {
        let bound = options.timeout;
        let called = async {
            let (waiter, receiver) = Waiter::output();
            let line = self.main().await?;
            let mut call = Pending::new(line, waiter, false)?;
            call.request(operation, input, &options, None).await?;
            let outcome = receiver.await;
            call.is_over = true;
            outcome.unwrap_or_else(|_| Err(lost()))
        };
        match bound {
            Some(bound) => {
                timeout(bound, called).await.unwrap_or_else(|_| Err(CallError::timeout()))
            }
            None => called.await,
        }
    }

    /// Subscribes. Dropping the stream aborts the subscription.
    pub async fn subscribe<I, O>(
        &self,
        operation: &str,
        input: &I,
        options: CallOptions,
    ) -> Result<Subscription<O>, CallError>
    where
        I: Serialize + Sync + ?Sized,
        O: DeserializeOwned,
    {
        let window = options.window.unwrap_or(WINDOW).max(1);
        let (waiter, incoming) = Waiter::items(usize::try_from(window).unwrap_or(usize::MAX));
        // A stream of its own, where there are several, holds nobody else up.
        let is_alone = self.has_streams();
        let line = if is_alone { self.open().await? } else { self.main().await? };
        let mut call = Pending::new(line, waiter, is_alone)?;
        call.request(operation, input, &options, Some(window)).await?;
        Ok(Subscription { call, incoming, window, taken: 0, event: None, item: PhantomData })
    }

    fn has_streams(&self) -> bool {
        !matches!(self.0.connection.kind(), TransportKind::Tls | TransportKind::WebSocket)
    }

    /// The stream for calls of this side.
    async fn main(&self) -> Result<Line, CallError> {
        if let Some(line) = self.opened() {
            return Ok(line);
        }
        let _opening = self.0.opening.lock().await;
        if let Some(line) = self.opened() {
            return Ok(line);
        }
        let line = match self.open().await {
            Ok(line) => line,
            Err(_) if !self.has_streams() => self.accepted().await?,
            Err(error) => return Err(error),
        };
        self.0.main.store(Some(Arc::new(line.clone())));
        Ok(line)
    }

    fn opened(&self) -> Option<Line> {
        self.0.main.load().as_deref().filter(|line| !line.is_over()).cloned()
    }

    async fn open(&self) -> Result<Line, CallError> {
        let opened = tokio::select! {
            opened = self.0.connection.open_bi() => opened,
            () = self.0.over.cancelled() => return Err(CallError::unavailable("the connection is over")),
        };
        let stream = opened.map_err(|error| CallError::unavailable(error.to_string()))?;
        let starting = Line::on(stream, true, self.0.over.child_token());
        Ok(self.start(starting))
    }

    /// The one stream of a transport that has but one, which the peer opens.
    async fn accepted(&self) -> Result<Line, CallError> {
        let mut accepted = self.0.accepted.subscribe();
        let line = tokio::select! {
            line = accepted.wait_for(Option::is_some) => line.ok().and_then(|line| line.clone()),
            () = self.0.over.cancelled() => None,
        };
        line.ok_or_else(|| CallError::unavailable("the connection is over"))
    }

    fn start(&self, starting: Starting) -> Line {
        let line = starting.line().clone();
        self.0.lines.spawn(starting.run(self.0.shared.clone()));
        line
    }

    /// What the peer serves, by its own account.
    pub fn operations(&self) -> Vec<Arc<Operation>> {
        self.served_map().values().cloned().collect()
    }

    /// An operation that the peer serves.
    pub(crate) fn served(&self, name: &str) -> Option<Arc<Operation>> {
        self.served_map().get(name).cloned()
    }

    pub(crate) fn set_served(&self, operations: Vec<Served>) {
        let served = operations.into_iter().filter_map(|served| {
            let forward = Forward { peer: Arc::downgrade(&self.0), name: served.name.clone() };
            let mut spec =
                Spec::new(&served.name, served.kind, Schema::anything(), Schema::anything())
                    .ok()?;
            spec.description = served.description;
            let operation = Operation::raw(spec, forward).access(Access::Public);
            Some((served.name, Arc::new(operation)))
        });
        *self.served_map() = served.collect();
    }

    fn served_map(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Operation>>> {
        self.0.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether both lead to the same connection.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The connection.
    pub fn connection(&self) -> &Connection {
        &self.0.connection
    }

    /// Waits until nothing can be called any more. Cancel safe.
    pub async fn over(&self) {
        self.0.over.cancelled().await;
    }
}

impl Driver {
    /// Accepts the peer's streams until the connection ends, or, when the node is draining,
    /// until what is in progress is done.
    pub async fn run(self) {
        let Inner { connection, shared, lines, over, accepted, .. } = &*self.peer.0;
        let room = Arc::new(tokio::sync::Semaphore::new(shared.limits.streams));
        loop {
            let stream = tokio::select! {
                stream = accept(connection, &room) => stream,
                () = shared.draining.cancelled() => break,
            };
            let Some((stream, place)) = stream else { break };
            let starting = Line::on(stream, false, over.child_token());
            accepted.send_if_modified(|first| {
                let is_first = first.is_none();
                first.get_or_insert_with(|| starting.line().clone());
                is_first
            });
            let shared = shared.clone();
            lines.spawn(async move {
                starting.run(shared).await;
                drop(place);
            });
        }
        if shared.draining.is_cancelled() {
            self.peer.drain().await;
        }
        over.cancel();
        lines.close();
        lines.wait().await;
    }
}

impl Peer {
    /// Waits until every call of the peer has its answer, and closes the connection.
    async fn drain(&self) {
        let Inner { connection, shared, lines, .. } = &*self.0;
        let answered = async {
            shared.in_progress.close();
            shared.in_progress.wait().await;
            shared.drained.cancel();
            lines.close();
            lines.wait().await;
        };
        tokio::select! {
            () = answered => connection.close(Code::SHUTTING_DOWN, ""),
            _ = connection.closed() => {}
        }
    }
}

type Accepted = (alknet_core::Stream, tokio::sync::OwnedSemaphorePermit);

/// A stream of the peer, if there is room for it; `None` when there will be no more.
async fn accept(connection: &Connection, room: &Arc<tokio::sync::Semaphore>) -> Option<Accepted> {
    let place = tokio::select! {
        place = room.clone().acquire_owned() => place.ok()?,
        _ = connection.closed() => return None,
    };
    match connection.accept_bi().await {
        Ok(stream) => Some((stream, place)),
        Err(ConnectionError::Unsupported(..)) => {
            // The dialling side of a transport with one stream accepts none.
            connection.closed().await;
            None
        }
        Err(_) => None,
    }
}

/// A call of this side in progress; dropping it aborts the call.
struct Pending {
    line: Line,
    id: String,
    /// The stream is for this call alone, and ends with it.
    is_alone: bool,
    /// Whether the request has been sent.
    is_sent: bool,
    is_over: bool,
}

impl Pending {
    fn new(line: Line, waiter: Waiter, is_alone: bool) -> Result<Self, CallError> {
        let id = line.register(waiter)?;
        Ok(Self { line, id, is_alone, is_sent: false, is_over: false })
    }

    async fn request(
        &mut self,
        operation: &str,
        input: &(impl Serialize + Sync + ?Sized),
        options: &CallOptions,
        window: Option<u32>,
    ) -> Result<(), CallError> {
        let timeout_ms = options.timeout.map(|t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX));
        let after = options.after.as_deref();
        let request = wire::Request { operation, input, timeout_ms, window, after };
        let frame = wire::encode(FrameType::Requested, &self.id, &request);
        let long = || CallError::invalid_input("the input is longer than a frame may be");
        let frame = frame.ok_or_else(long)?;
        let sent = self.line.writer().send(&frame).await;
        sent.map_err(|_| lost())?;
        self.is_sent = true;
        Ok(())
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.line.forget(&self.id)
            && self.is_sent
            && !self.is_over
            && let Some(frame) = wire::encode(FrameType::Aborted, &self.id, &wire::Nothing {})
        {
            self.line.say(&frame);
        }
        if self.is_alone {
            self.line.writer().finish();
        }
    }
}

/// The items of a subscription. Dropping it aborts the subscription.
pub struct Subscription<O> {
    call: Pending,
    incoming: Incoming,
    window: u32,
    /// Items taken since the peer was told last.
    taken: u32,
    event: Option<String>,
    item: PhantomData<fn() -> O>,
}

impl<O> Subscription<O> {
    /// The event of the last item that carried one: what to go on behind.
    pub fn event(&self) -> Option<&str> {
        self.event.as_deref()
    }

    /// The next item as it came. Cancel safe.
    pub async fn next_raw(&mut self) -> Option<Result<Item, CallError>> {
        std::future::poll_fn(|cx| self.poll_raw(cx)).await
    }

    fn poll_raw(&mut self, cx: &mut TaskContext<'_>) -> Poll<Option<Result<Item, CallError>>> {
        let item = std::task::ready!(self.incoming.items.poll_recv(cx));
        if let Some(Ok(item)) = &item {
            self.incoming.took(item);
            if item.event.is_some() {
                self.event.clone_from(&item.event);
            }
            self.taken += 1;
            if self.taken >= self.window.div_ceil(2) {
                self.widen();
            }
        }
        Poll::Ready(item)
    }

    fn widen(&mut self) {
        let window = wire::Window { items: std::mem::take(&mut self.taken) };
        if let Some(frame) = wire::encode(FrameType::Window, &self.call.id, &window) {
            self.call.line.say(&frame);
        }
    }
}

impl<O: DeserializeOwned> Stream for Subscription<O> {
    type Item = Result<O, CallError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        self.poll_raw(cx).map(|item| item.map(|item| read(&item?.output)))
    }
}

pub(crate) fn read<O: DeserializeOwned>(output: &Output) -> Result<O, CallError> {
    serde_json::from_str(output.get()).map_err(|error| {
        CallError::new(
            crate::ErrorCode::Internal,
            format!("the output is of another type: {error}"),
        )
    })
}

/// An operation that the peer serves.
struct Forward {
    peer: Weak<Inner>,
    name: String,
}

impl Handler for Forward {
    fn run(
        &self,
        context: Context,
        input: Value,
        items: Items,
    ) -> BoxFuture<'_, Result<Output, CallError>> {
        Box::pin(async move {
            let peer = self.peer.upgrade().map(Peer);
            let peer = peer.ok_or_else(|| CallError::unavailable("the connection is over"))?;
            let mut options =
                CallOptions { timeout: context.remaining(), ..CallOptions::default() };
            options.after = context.after().map(str::to_owned);
            if items.is_none() {
                return peer.call_raw(&self.name, &input, options).await;
            }
            let mut subscription = peer.subscribe::<_, Value>(&self.name, &input, options).await?;
            while let Some(item) = subscription.next_raw().await {
                let Item { output, event, .. } = item?;
                items.send_raw(output, event).await?;
            }
            Ok(serde_json::value::RawValue::NULL.to_owned())
        })
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("connection", &self.0.connection).finish_non_exhaustive()
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("peer", &self.peer).finish()
    }
}

impl<O> fmt::Debug for Subscription<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("id", &self.call.id).finish_non_exhaustive()
    }
}
