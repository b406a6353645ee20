//! Two ends of a connection, and what tests look at.

use std::sync::{Arc, Mutex};

use alknet_call::{CallLimits, Driver, Operation, OperationRegistry, Peer};
use alknet_core::{
    Alpn, Audit, AuditEvent, AuditSink, AuthContext, Connection, Identity, SingleStream,
    TransportKind,
};
use alknet_testing::{identities::identity, memory};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// Audit events, kept.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<AuditEvent>>>);

impl AuditSink for Log {
    fn record(&self, event: AuditEvent) {
        self.0.lock().unwrap().push(event);
    }
}

impl Log {
    /// What the events of this kind are about.
    pub(crate) fn subjects(&self, kind: &str) -> Vec<String> {
        let events = self.0.lock().unwrap();
        let events = events.iter().filter(|event| event.event == kind);
        events.map(|event| event.subject.clone().unwrap_or_default()).collect()
    }
}

/// The dialling end's view of the other, and the other way round.
pub(crate) struct Both {
    pub(crate) near: Peer,
    pub(crate) far: Peer,
    pub(crate) log: Log,
    pub(crate) draining: CancellationToken,
}

pub(crate) fn alice(scopes: &[&str]) -> Identity {
    identity("alice", scopes)
}

pub(crate) fn auth(identity: Option<Identity>) -> AuthContext {
    let alpn = Alpn::service("call").unwrap();
    let anonymous = AuthContext::anonymous(alpn, TransportKind::Memory, None);
    AuthContext { identity: identity.map(Arc::new), ..anonymous }
}

/// Both ends, with everything allowed to either.
pub(crate) fn connect<const N: usize, const M: usize>(
    kind: TransportKind,
    far: [Operation; N],
    near: [Operation; M],
) -> Both {
    with_operations(kind, auth(Some(alice(&["*"]))), far, near)
}

/// Both ends; `caller` is who the far one takes the near one for.
pub(crate) fn with_operations<const N: usize, const M: usize>(
    kind: TransportKind,
    caller: AuthContext,
    far: [Operation; N],
    near: [Operation; M],
) -> Both {
    let (log, draining) = (Log::default(), CancellationToken::new());
    let (near_end, far_end) = connections(kind);
    let mut tasks = JoinSet::new();
    let mut start = |connection, operations: Vec<Operation>, auth, draining| {
        let registry = OperationRegistry::new(Audit::new(log.clone()), operations).unwrap();
        let (peer, driver): (Peer, Driver) =
            Peer::new(connection, registry, auth, CallLimits::default(), draining);
        tasks.spawn(driver.run());
        peer
    };
    let everything = auth(Some(alice(&["*"])));
    let near = start(near_end, near.into(), everything, CancellationToken::new());
    let far = start(far_end, far.into(), caller, draining.clone());
    // They end with the test's runtime.
    tasks.detach_all();
    Both { near, far, log, draining }
}

/// A connection with many streams, or with one.
pub(crate) fn connections(kind: TransportKind) -> (Connection, Connection) {
    if kind != TransportKind::Tls {
        return memory::pair_of_kind(kind);
    }
    let (near, far) = tokio::io::duplex(16 * 1024);
    let stream = alknet_core::Stream::from_bistream;
    (
        Connection::new(SingleStream::dialled(kind, stream(near))),
        Connection::new(SingleStream::accepted(kind, stream(far))),
    )
}

/// How many of something live.
#[derive(Clone)]
pub(crate) struct Counter(Arc<watch::Sender<usize>>);

impl Counter {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

/// Counts itself among the living.
pub(crate) struct Alive(Counter);

impl Alive {
    pub(crate) fn new(counter: &Counter) -> Self {
        counter.0.send_modify(|living| *living += 1);
        Self(counter.clone())
    }

    /// Waits until so many live.
    pub(crate) async fn count(counter: &Counter, wanted: usize) {
        counter.0.subscribe().wait_for(|&living| living == wanted).await.unwrap();
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.0.send_modify(|living| *living -= 1);
    }
}
