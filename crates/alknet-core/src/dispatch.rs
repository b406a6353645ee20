//! The one way into a handler.

use std::{
    collections::HashMap,
    fmt,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{FutureExt as _, future::join_all};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

use crate::{
    Access, Alpn, AuthContext, Code, Connection, HandlerError, HandlerRegistry, Limits,
    ProtocolHandler,
    audit::{Audit, AuditEvent},
    handler::DynHandler,
    registry::{DuplicateAlpn, Entry},
};

/// How long closed sessions get to notice before their tasks are dropped.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// Registry, access, limits, audit and the live sessions: every source of connections,
/// native or tunnelled, hands them to a `Dispatcher`, and nothing else calls a handler.
///
/// Cheap to clone. Dispatchers made by [`extend`](Self::extend) share everything but the
/// registry.
#[derive(Clone)]
pub struct Dispatcher {
    registry: Arc<HandlerRegistry>,
    shared: Arc<Shared>,
}

struct Shared {
    limits: Limits,
    audit: Audit,
    sessions: Mutex<HashMap<u64, Session>>,
    next_session: AtomicU64,
    tasks: TaskTracker,
    draining: AtomicBool,
    deadline: CancellationToken,
}

/// A live session, for the owner to see.
#[derive(Debug, Clone)]
pub struct Session {
    /// Unique while the node runs.
    pub id: u64,
    /// Who, what, whence.
    pub auth: AuthContext,
    /// When it began.
    pub since: Instant,
    connection: Option<Connection>,
}

/// Why a connection does not reach a handler. Callers inside HTTPS are told nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No handler has this ALPN.
    #[error("no such service")]
    UnknownAlpn,
    /// The caller is not known, and the service needs an identity.
    #[error("not authenticated")]
    NotAuthenticated,
    /// The caller is known and lacks the scope.
    #[error("outside the caller's scopes")]
    OutOfScope,
    /// Too many sessions on the node.
    #[error("the node's session limit is reached")]
    NodeLimit,
    /// Too many sessions of this identity.
    #[error("the identity's session limit is reached")]
    IdentityLimit,
    /// The node takes no new sessions.
    #[error("shutting down")]
    ShuttingDown,
}

impl Refusal {
    /// The code that closes a native connection for this reason.
    pub fn code(self) -> Code {
        match self {
            Self::UnknownAlpn | Self::NotAuthenticated | Self::OutOfScope => Code::REFUSED,
            Self::NodeLimit | Self::IdentityLimit => Code::LIMIT,
            Self::ShuttingDown => Code::SHUTTING_DOWN,
        }
    }
}

/// Leave to start one session. It holds the session's place within the limits; dropping it
/// gives the place back.
#[must_use = "an admission that is dropped admits nobody"]
pub struct Admission {
    entry: Entry,
    auth: AuthContext,
    place: Place,
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").field("auth", &self.auth).finish_non_exhaustive()
    }
}

/// A row in the session table; removed on drop.
struct Place {
    id: u64,
    shared: Arc<Shared>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.sessions().remove(&self.id);
    }
}

impl Shared {
    fn sessions(&self) -> MutexGuard<'_, HashMap<u64, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(self: &Arc<Self>, auth: &AuthContext) -> Result<Place, Refusal> {
        let mut sessions = self.sessions();
        if sessions.len() >= self.limits.sessions {
            return Err(Refusal::NodeLimit);
        }
        if let Some(identity) = &auth.identity {
            let same = |s: &&Session| s.auth.identity.as_ref().is_some_and(|i| i.id == identity.id);
            if sessions.values().filter(same).count() >= self.limits.sessions_per_identity {
                return Err(Refusal::IdentityLimit);
            }
        }
        let id = self.next_session.fetch_add(1, Ordering::Relaxed);
        sessions.insert(
            id,
            Session { id, auth: auth.clone(), since: Instant::now(), connection: None },
        );
        drop(sessions);
        Ok(Place { id, shared: self.clone() })
    }
}

impl Dispatcher {
    /// A dispatcher over a finished registry.
    pub fn new(registry: HandlerRegistry, limits: Limits, audit: Audit) -> Self {
        let shared = Shared {
            limits,
            audit,
            sessions: Mutex::default(),
            next_session: AtomicU64::new(1),
            tasks: TaskTracker::new(),
            draining: AtomicBool::new(false),
            deadline: CancellationToken::new(),
        };
        Self { registry: Arc::new(registry), shared: Arc::new(shared) }
    }

    /// A dispatcher that also has `handler`, with the same limits, sessions and shutdown.
    ///
    /// A handler that is itself a source of connections (HTTP) is built over the dispatcher
    /// of the services it may reach, and added last: what it cannot reach, itself included,
    /// is then not there to be asked for.
    pub fn extend(
        &self,
        handler: impl ProtocolHandler,
        access: Access,
    ) -> Result<Self, DuplicateAlpn> {
        let mut registry = self.registry.duplicate();
        registry.register(handler, access)?;
        Ok(Self { registry: Arc::new(registry), shared: self.shared.clone() })
    }

    /// Every ALPN with a handler, in order.
    pub fn alpns(&self) -> impl Iterator<Item = &Alpn> {
        self.registry.alpns()
    }

    /// The bounds of this node.
    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// The node's audit log.
    pub fn audit(&self) -> &Audit {
        &self.shared.audit
    }

    /// Decides whether the caller may start a session, and takes its place within the
    /// limits. A refusal is in the audit log when this returns.
    pub fn admit(&self, auth: AuthContext) -> Result<Admission, Refusal> {
        match self.check(&auth) {
            Ok((entry, place)) => Ok(Admission { entry, auth, place }),
            Err(refusal) => {
                self.shared
                    .audit
                    .record(AuditEvent::about(AuditEvent::REFUSED, &auth).because(refusal));
                Err(refusal)
            }
        }
    }

    fn check(&self, auth: &AuthContext) -> Result<(Entry, Place), Refusal> {
        let entry = self.registry.entry(&auth.alpn).ok_or(Refusal::UnknownAlpn)?;
        if auth.transport.is_tunnelled() || entry.access == Access::Scope {
            let identity = auth.identity.as_ref().ok_or(Refusal::NotAuthenticated)?;
            if !identity.scopes.allow(auth.alpn.short()) {
                return Err(Refusal::OutOfScope);
            }
        }
        if self.shared.draining.load(Ordering::Acquire) {
            return Err(Refusal::ShuttingDown);
        }
        Ok((entry.clone(), self.shared.place(auth)?))
    }

    /// The live sessions, oldest first.
    pub fn sessions(&self) -> Vec<Session> {
        let mut sessions: Vec<Session> = self.shared.sessions().values().cloned().collect();
        sessions.sort_by_key(|session| session.id);
        sessions
    }

    /// How many sessions are live.
    pub fn session_count(&self) -> usize {
        self.shared.sessions().len()
    }

    /// Closes every session of an identity; how many there were.
    pub fn close_identity(&self, id: &str, code: Code) -> usize {
        let of_identity = |s: &Session| s.auth.identity.as_ref().is_some_and(|i| i.id == id);
        let sessions: Vec<Session> = self.sessions().into_iter().filter(of_identity).collect();
        for connection in sessions.iter().filter_map(|s| s.connection.as_ref()) {
            connection.close(code, "");
        }
        sessions.len()
    }

    /// Whether a shutdown has begun.
    pub fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::Acquire)
    }

    /// Ends all sessions, in this order: admit nobody new; tell the handlers; wait until
    /// they are done or `deadline` has passed; close what is left with
    /// [`Code::SHUTTING_DOWN`]; drop what does not notice. Returns how many had to be
    /// closed.
    pub async fn shutdown(&self, deadline: Duration) -> usize {
        let started = Instant::now();
        self.shared.draining.store(true, Ordering::Release);
        self.shared.tasks.close();
        let handlers = self.registry.handlers();
        let told = join_all(handlers.iter().map(|handler| handler.shutdown()));
        if timeout(deadline, told).await.is_err() {
            tracing::warn!("a handler did not answer the shutdown in time");
        }
        let left = deadline.saturating_sub(started.elapsed());
        if timeout(left, self.shared.tasks.wait()).await.is_ok() {
            return 0;
        }
        let late = self.sessions();
        for connection in late.iter().filter_map(|s| s.connection.as_ref()) {
            connection.close(Code::SHUTTING_DOWN, "shutting down");
        }
        if timeout(CLOSE_GRACE, self.shared.tasks.wait()).await.is_err() {
            self.shared.deadline.cancel();
            self.shared.tasks.wait().await;
        }
        late.len()
    }
}

impl fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatcher").field("registry", &self.registry).finish_non_exhaustive()
    }
}

impl Admission {
    /// Who was admitted.
    pub fn auth(&self) -> &AuthContext {
        &self.auth
    }

    /// Runs the handler on `connection` in a task of its own, which ends with the
    /// connection closed whatever happens in the handler. Dropping the returned handle
    /// does not end the session.
    pub fn start(self, connection: Connection) -> JoinHandle<()> {
        let span = tracing::info_span!("session", id = self.place.id, alpn = %self.auth.alpn, transport = %self.auth.transport);
        let tasks = self.place.shared.tasks.clone();
        if let Some(session) = self.place.shared.sessions().get_mut(&self.place.id) {
            session.connection = Some(connection.clone());
        }
        tasks.spawn(self.run(connection).instrument(span))
    }

    async fn run(self, connection: Connection) {
        let Self { entry, auth, place } = self;
        let started = Instant::now();
        let event =
            |event| AuditEvent { session: Some(place.id), ..AuditEvent::about(event, &auth) };
        place.shared.audit.record(event(AuditEvent::SESSION_START));
        let outcome = tokio::select! {
            outcome = guarded(&*entry.handler, connection.clone(), auth.clone()) => outcome,
            () = place.shared.deadline.cancelled() => Outcome::Dropped,
        };
        connection.close(outcome.code(), "");
        let duration_ms = u64::try_from(started.elapsed().as_millis()).ok();
        place.shared.audit.record(AuditEvent {
            duration_ms,
            ..event(AuditEvent::SESSION_END).because(outcome.reason())
        });
    }
}

/// How a handler ended.
enum Outcome {
    Done,
    Failed(HandlerError),
    Panicked,
    Dropped,
}

impl Outcome {
    fn code(&self) -> Code {
        match self {
            Self::Done => Code::NORMAL,
            Self::Failed(_) | Self::Panicked => Code::INTERNAL,
            Self::Dropped => Code::SHUTTING_DOWN,
        }
    }

    fn reason(&self) -> String {
        match self {
            Self::Done => "done".into(),
            Self::Failed(error) => format!("failed: {error}"),
            Self::Panicked => "the handler panicked".into(),
            Self::Dropped => "dropped at the shutdown deadline".into(),
        }
    }
}

/// Runs a handler so that its panic ends this connection alone.
async fn guarded(handler: &dyn DynHandler, connection: Connection, auth: AuthContext) -> Outcome {
    match AssertUnwindSafe(handler.handle(connection, auth)).catch_unwind().await {
        Ok(Ok(())) => Outcome::Done,
        Ok(Err(error)) => {
            tracing::debug!(handler = handler.name(), %error, "the handler failed");
            Outcome::Failed(error)
        }
        Err(_) => {
            tracing::error!(handler = handler.name(), "the handler panicked");
            Outcome::Panicked
        }
    }
}
