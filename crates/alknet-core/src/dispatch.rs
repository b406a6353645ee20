//! The one way into a handler.

use std::{
    convert::Infallible,
    fmt,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use futures_util::{FutureExt as _, future::join_all};
use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

use crate::{
    Access, Alpn, AuthContext, Code, Connection, HandlerError, HandlerRegistry, IdentityProvider,
    Limits, ProtocolHandler, Scopes,
    addresses::Addresses,
    audit::{Audit, AuditEvent},
    handler::DynHandler,
    registry::{DuplicateAlpn, Entry},
    session::{Login, Place, Session, SessionHandle, Sessions},
};

/// How long closed sessions get to notice before their tasks are dropped.
const CLOSE_GRACE: Duration = Duration::from_secs(1);
/// How often it is looked whether identities have changed.
const WATCH: Duration = Duration::from_millis(200);
/// After so many looks without a change everything is checked all the same.
const RECHECK: u64 = 150;

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
    sessions: Arc<Sessions>,
    tasks: TaskTracker,
    draining: AtomicBool,
    deadline: CancellationToken,
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
    /// Too many sessions of this address that have no identity.
    #[error("the address's session limit is reached")]
    AddressLimit,
    /// Too many sessions of this identity.
    #[error("the identity's session limit is reached")]
    IdentityLimit,
    /// The node takes no new sessions.
    #[error("shutting down")]
    ShuttingDown,
}

impl Refusal {
    /// The name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::UnknownAlpn => "unknown-alpn",
            Self::NotAuthenticated => "not-authenticated",
            Self::OutOfScope => "out-of-scope",
            Self::NodeLimit => "node-limit",
            Self::AddressLimit => "address-limit",
            Self::IdentityLimit => "identity-limit",
            Self::ShuttingDown => "shutting-down",
        }
    }

    /// The code that closes a native connection for this reason.
    pub fn code(self) -> Code {
        match self {
            Self::UnknownAlpn | Self::NotAuthenticated | Self::OutOfScope => Code::REFUSED,
            Self::NodeLimit | Self::AddressLimit | Self::IdentityLimit => Code::LIMIT,
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
    login: Option<Login>,
    shared: Arc<Shared>,
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").field("auth", &self.auth).finish_non_exhaustive()
    }
}

impl Dispatcher {
    /// A dispatcher over a finished registry.
    pub fn new(registry: HandlerRegistry, limits: Limits, audit: Audit) -> Self {
        let shared = Shared {
            sessions: Arc::new(Sessions::new(limits, audit)),
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

    /// Whether somebody with these scopes may reach a handler; not if there is none.
    pub fn admits(&self, alpn: &Alpn, scopes: &Scopes) -> bool {
        self.registry.entry(alpn).is_some_and(|entry| entry.access.admits(alpn, scopes))
    }

    /// The bounds of this node.
    pub fn limits(&self) -> &Limits {
        &self.shared.sessions.limits
    }

    /// The node's audit log.
    pub fn audit(&self) -> &Audit {
        &self.shared.sessions.audit
    }

    /// Decides whether the caller may start a session, and takes its place within the
    /// limits. A refusal is in the audit log when this returns.
    pub fn admit(&self, auth: AuthContext) -> Result<Admission, Refusal> {
        let auth = AuthContext { session: SessionHandle::new(&self.shared.sessions), ..auth };
        self.check(&auth).inspect_err(|&refusal| {
            metrics::counter!("alknet_refusals_total", "reason" => refusal.name()).increment(1);
            let event = AuditEvent::about(AuditEvent::REFUSED, &auth).because(refusal);
            self.audit().record(event);
        })
    }

    fn check(&self, auth: &AuthContext) -> Result<Admission, Refusal> {
        let entry = self.registry.entry(&auth.alpn).ok_or(Refusal::UnknownAlpn)?;
        if auth.transport.is_tunnelled() || entry.access.needs_identity() {
            let identity = auth.identity.as_ref().ok_or(Refusal::NotAuthenticated)?;
            if !entry.access.admits(&auth.alpn, &identity.scopes) {
                return Err(Refusal::OutOfScope);
            }
        }
        if self.is_draining() {
            return Err(Refusal::ShuttingDown);
        }
        let place = self.shared.sessions.place(auth)?;
        let login = auth.identity.clone().map(|identity| auth.session.login(identity));
        Ok(Admission {
            entry: entry.clone(),
            auth: AuthContext { session: auth.session.clone().of(place.id), ..auth.clone() },
            place,
            login: login.transpose()?,
            shared: self.shared.clone(),
        })
    }

    /// The live sessions, oldest first.
    pub fn sessions(&self) -> Vec<Session> {
        self.shared.sessions.list()
    }

    /// How many sessions are live.
    pub fn session_count(&self) -> usize {
        self.shared.sessions.count()
    }

    /// Ends one session, by [`Session::id`], with [`Code::CANCELLED`]; whether it is live.
    pub fn end_session(&self, id: u64) -> bool {
        self.shared.sessions.end_one(id)
    }

    /// Ends every session of an identity, and every login of its inside a session, with
    /// [`Code::REVOKED`]; how many there were.
    pub fn end_identity(&self, id: &str) -> usize {
        self.shared.sessions.end(|identity| identity.id == id)
    }

    /// Ends what stands on a credential whose time is over; how many logins that were. To
    /// be called every second or so.
    pub fn end_expired(&self) -> usize {
        self.shared.sessions.end_expired(SystemTime::now())
    }

    /// Asks who every credential stands for now, and ends what stands on one that does not
    /// hold any more, or grants less than it did; how many logins that were. To be called
    /// when the store of identities has changed. While the store fails, sessions go on.
    pub async fn recheck(&self, identities: &dyn IdentityProvider) -> usize {
        self.shared.sessions.recheck(identities).await.0
    }

    /// Keeps what is live true to what is known: several times a second it looks whether
    /// `identities` have changed, and ends what does not hold any more, or has expired. It
    /// never returns; dropping it stops it.
    pub async fn watch(&self, identities: &dyn IdentityProvider) -> Infallible {
        // A store that is slow to answer must not keep anybody in beyond their time.
        tokio::select! {
            never = self.watch_changes(identities) => never,
            never = self.watch_clock() => never,
        }
    }

    async fn watch_clock(&self) -> Infallible {
        let mut tick = tokio::time::interval(WATCH);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.end_expired();
        }
    }

    async fn watch_changes(&self, identities: &dyn IdentityProvider) -> Infallible {
        let mut tick = tokio::time::interval(WATCH);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut seen, mut since, mut fails) = (0, 0, false);
        loop {
            tick.tick().await;
            match identities.version().await {
                Ok(now) if now != seen => (seen, since, fails) = (now, 0, false),
                Ok(_) => fails = false,
                Err(error) => {
                    if !std::mem::replace(&mut fails, true) {
                        let error: &dyn std::error::Error = &error;
                        tracing::error!(error, "identities cannot be watched");
                    }
                }
            }
            // Somebody who was looked up just before the change may be admitted just after.
            let look = since < 3 || since % RECHECK == 0;
            let whole = !look || self.shared.sessions.recheck(identities).await.1;
            since = if whole { since + 1 } else { 0 };
        }
    }

    pub(crate) fn quic_sessions(&self) -> usize {
        self.shared.sessions.quic()
    }

    pub(crate) fn addresses(&self) -> &Addresses {
        &self.shared.sessions.addresses
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
        let tasks = self.shared.tasks.clone();
        let connection = match self.login.as_ref().and_then(Login::streams) {
            Some(meter) => connection.metered(meter.clone()),
            None => connection,
        };
        self.place.sessions.started(self.place.id, &connection);
        tasks.spawn(self.run(connection).instrument(span))
    }

    async fn run(self, connection: Connection) {
        let Self { entry, auth, place, login, shared } = self;
        let started = Instant::now();
        let audit = &shared.sessions.audit;
        let event =
            |event| AuditEvent { session: Some(place.id), ..AuditEvent::about(event, &auth) };
        audit.record(event(AuditEvent::SESSION_START));
        let labels = [("alpn", auth.alpn.to_string()), ("transport", auth.transport.to_string())];
        let gauge = metrics::gauge!("alknet_sessions", &labels);
        metrics::counter!("alknet_sessions_total", &labels).increment(1);
        gauge.increment(1.0);
        let outcome = tokio::select! {
            outcome = guarded(&*entry.handler, connection.clone(), auth.clone()) => outcome,
            () = revoked(login.as_ref()) => Outcome::Revoked,
            () = place.ended.cancelled() => Outcome::Ended,
            () = shared.deadline.cancelled() => Outcome::Dropped,
        };
        connection.close(outcome.code(), "");
        gauge.decrement(1.0);
        let duration_ms = u64::try_from(started.elapsed().as_millis()).ok();
        audit.record(AuditEvent {
            duration_ms,
            ..event(AuditEvent::SESSION_END).because(outcome.reason())
        });
    }
}

/// Waits until the login of a session is over; for ever if it has none.
async fn revoked(login: Option<&Login>) {
    match login {
        Some(login) => login.revoked().await,
        None => std::future::pending().await,
    }
}

/// How a handler ended.
enum Outcome {
    Done,
    Failed(HandlerError),
    Panicked,
    Revoked,
    Ended,
    Dropped,
}

impl Outcome {
    fn code(&self) -> Code {
        match self {
            Self::Done => Code::NORMAL,
            Self::Failed(_) | Self::Panicked => Code::INTERNAL,
            Self::Revoked => Code::REVOKED,
            Self::Ended => Code::CANCELLED,
            Self::Dropped => Code::SHUTTING_DOWN,
        }
    }

    fn reason(&self) -> String {
        match self {
            Self::Done => "done".into(),
            Self::Failed(error) => format!("failed: {error}"),
            Self::Panicked => "the handler panicked".into(),
            Self::Revoked => "the credential was revoked or has expired".into(),
            Self::Ended => "ended by an operator".into(),
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
