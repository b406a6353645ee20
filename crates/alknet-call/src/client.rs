//! A client that stays connected.

use std::{
    error::Error,
    fmt,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    sync::Arc,
    time::Duration,
};

use alknet_core::{Alpn, Audit, AuthContext, BoxFuture, Code, Connection};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Access, CallError, CallLimits, CallOptions, Kind, Operation, OperationRegistry, Peer,
    RegisterError, Subscription,
    operation::Output,
    peer::{is_lost, read},
};

/// How long a call waits for a connection, if its options do not say.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the other end may take to hear what is served.
const REGISTER: Duration = Duration::from_secs(10);
/// A connection that lasted so long was a good one: the next try comes soon.
const GOOD: Duration = Duration::from_secs(5);

/// Makes connections to one place.
pub trait Connect: Send + Sync + 'static {
    /// One try. The client bounds how often there are any, not how long one takes.
    fn connect(&self) -> BoxFuture<'_, Result<Connection, ConnectError>>;
}

/// Why there is no connection.
#[derive(Debug, Clone, thiserror::Error)]
#[error("no connection: {0}")]
pub struct ConnectError(Arc<dyn Error + Send + Sync>);

impl ConnectError {
    /// Wraps an error.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(error.into().into())
    }
}

impl<F> Connect for F
where
    F: Fn() -> BoxFuture<'static, Result<Connection, ConnectError>> + Send + Sync + 'static,
{
    fn connect(&self) -> BoxFuture<'_, Result<Connection, ConnectError>> {
        self()
    }
}

/// How long to wait before the next try to connect.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Backoff {
    /// After the first failure; doubled with each that follows.
    pub first: Duration,
    /// Never longer than this.
    pub longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(200), longest: Duration::from_secs(30) }
    }
}

impl Backoff {
    /// Waits after so many failures in a row, with jitter: the whole time or as little as half of it, so that
    /// clients that lost one node together do not come back together.
    fn after(&self, failures: u32) -> Duration {
        let doubled = self.first.saturating_mul(1 << failures.saturating_sub(1).min(16));
        let most = doubled.min(self.longest);
        let random = RandomState::new().build_hasher().finish() % 1000;
        most.mul_f64(0.5 + f64::from(u32::try_from(random).unwrap_or(0)) / 2000.0)
    }
}

/// A client that connects by itself and, when the connection is lost, again. Dropping it
/// ends the connection, and all calls with it.
///
/// What was in progress when a connection was lost fails, because nobody knows whether it took
/// effect; [`query`](Self::query) alone tries once more.
pub struct Client {
    state: watch::Receiver<State>,
    _task: JoinSet<()>,
}

#[derive(Clone)]
enum State {
    Connecting(Option<ConnectError>),
    Open(Peer),
}

impl Client {
    /// Begins to connect. `served` are operations that the other end may call; once it is reached it is
    /// told of them.
    pub fn new(
        connect: impl Connect,
        served: impl IntoIterator<Item = Operation>,
        backoff: Backoff,
    ) -> Result<Self, RegisterError> {
        // Whoever we dialled may call what we say we serve, and nothing else is there.
        let served = served.into_iter().map(|operation| operation.access(Access::Public));
        let registry = OperationRegistry::new(Audit::to_log(), served)?;
        let (sender, state) = watch::channel(State::Connecting(None));
        let keeper = Keeper { connect, registry, backoff, state: sender };
        let mut task = JoinSet::new();
        task.spawn(keeper.run());
        Ok(Self { state, _task: task })
    }

    /// The other end, as soon as there is a connection. It serves for one connection alone.
    pub async fn peer(&self) -> Result<Peer, CallError> {
        let mut state = self.state.clone();
        let open = |state: &State| match state {
            State::Open(peer) => Some(peer.clone()),
            State::Connecting(_) => None,
        };
        let waited = timeout(PATIENCE, state.wait_for(|state| open(state).is_some())).await;
        if let Ok(Ok(state)) = &waited
            && let Some(peer) = open(state)
        {
            return Ok(peer);
        }
        drop(waited);
        let reason = match &*self.state.borrow() {
            State::Connecting(Some(error)) => error.to_string(),
            _ => "no connection yet".into(),
        };
        Err(CallError::unavailable(reason))
    }

    /// Whether there is a connection now.
    pub fn is_open(&self) -> bool {
        matches!(&*self.state.borrow(), State::Open(_))
    }

    /// Calls a query or a mutation. Dropping the future aborts it.
    pub async fn call<I, O>(&self, operation: &str, input: &I) -> Result<O, CallError>
    where
        I: Serialize + Sync + ?Sized,
        O: DeserializeOwned,
    {
        read(&self.call_raw(operation, input, CallOptions::default()).await?)
    }

    /// Calls with options, and leaves the output as JSON text. The timeout holds for the wait for a
    /// connection as well.
    pub async fn call_raw<I: Serialize + Sync + ?Sized>(
        &self,
        operation: &str,
        input: &I,
        options: CallOptions,
    ) -> Result<Output, CallError> {
        let bound = options.timeout;
        let called = async { self.peer().await?.call_raw(operation, input, options).await };
        match bound {
            Some(bound) => {
                timeout(bound, called).await.unwrap_or_else(|_| Err(CallError::timeout()))
            }
            None => called.await,
        }
    }

    /// Calls something that may be repeated: if the connection is lost meanwhile, once more
    /// over the next one.
    pub async fn query<I, O>(&self, operation: &str, input: &I) -> Result<O, CallError>
    where
        I: Serialize + Sync + ?Sized,
        O: DeserializeOwned,
    {
        let peer = self.peer().await?;
        match peer.call(operation, input).await {
            Err(error) if is_lost(&error) => {
                // The state may still be that of the connection that was lost.
                let mut state = self.state.clone();
                let another = |state: &State| !matches!(state, State::Open(now) if now.is(&peer));
                let _ = timeout(PATIENCE, state.wait_for(another)).await;
                self.call(operation, input).await
            }
            outcome => outcome,
        }
    }

    /// Subscribes; the subscription ends with its connection, and its
    /// [`event`](Subscription::event) says where to go on.
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
        self.peer().await?.subscribe(operation, input, options).await
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("is_open", &self.is_open()).finish_non_exhaustive()
    }
}

/// Keeps a client connected.
struct Keeper<C> {
    connect: C,
    registry: OperationRegistry,
    backoff: Backoff,
    state: watch::Sender<State>,
}

impl<C: Connect> Keeper<C> {
    async fn run(self) {
        let mut failures: u32 = 0;
        loop {
            match self.connect.connect().await {
                Ok(connection) => {
                    let since = Instant::now();
                    self.serve(connection).await;
                    self.state.send_replace(State::Connecting(None));
                    failures = if since.elapsed() >= GOOD { 0 } else { failures + 1 };
                }
                Err(error) => {
                    tracing::debug!(%error, "trying again later");
                    self.state.send_replace(State::Connecting(Some(error)));
                    failures += 1;
                }
            }
            if failures > 0 {
                sleep(self.backoff.after(failures)).await;
            }
        }
    }

    /// Uses one connection until its end.
    async fn serve(&self, connection: Connection) {
        let Ok(alpn) = Alpn::service("call") else { return };
        let auth = AuthContext::anonymous(alpn, connection.kind(), connection.remote_addr());
        let limits = CallLimits::default();
        let draining = CancellationToken::new();
        let (peer, driver) =
            Peer::new(connection.clone(), self.registry.clone(), auth, limits, draining);
        let register = async {
            match timeout(REGISTER, self.register(&peer)).await {
                Ok(Ok(())) => drop(self.state.send_replace(State::Open(peer.clone()))),
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the other end does not take what is served");
                    connection.close(Code::CANCELLED, "");
                }
                Err(_) => connection.close(Code::TIMEOUT, ""),
            }
        };
        tokio::join!(driver.run(), register);
    }

    async fn register(&self, peer: &Peer) -> Result<(), CallError> {
        let operations: Vec<Value> = self
            .registry
            .all()
            .iter()
            .map(|operation| operation.spec())
            .filter(|spec| spec.name.namespace() != "services")
            .map(|spec| {
                let (name, kind): (&str, Kind) = (spec.name.as_str(), spec.kind);
                let (input, output) = (spec.input.json(), spec.output.json());
                let description = &spec.description;
                json!({ "name": name, "type": kind, "description": description, "input": input, "output": output })
            })
            .collect();
        if operations.is_empty() {
            return Ok(());
        }
        let operations = json!({ "operations": operations });
        peer.call::<_, Value>("services/register", &operations).await.map(drop)
    }
}
