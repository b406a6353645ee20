//! The dispatcher over in-memory connections: access, limits, panics, shutdown.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use alknet_core::{
    Access, Alpn, Audit, AuditEvent, AuditSink, AuthContext, ClosedBy, Code, Connection,
    Dispatcher, HandlerError, HandlerRegistry, Limits, ProtocolHandler, Refusal, Scopes,
    TransportKind,
};
use alknet_testing::{identities::identity, memory};
use tokio::sync::Notify;

/// A handler that does what its test asks for.
#[derive(Clone)]
struct Script {
    alpn: &'static str,
    act: Act,
    told: Arc<Notify>,
}

#[derive(Clone, Copy)]
enum Act {
    UntilClosed,
    UntilTold,
    Panic,
    Fail,
    Forever,
}

fn script(alpn: &'static str, act: Act) -> Script {
    Script { alpn, act, told: Arc::default() }
}

impl ProtocolHandler for Script {
    fn name(&self) -> &'static str {
        self.alpn
    }

    fn alpns(&self) -> Vec<Alpn> {
        vec![Alpn::service(self.alpn).unwrap()]
    }

    async fn handle(&self, connection: Connection, _auth: AuthContext) -> Result<(), HandlerError> {
        match self.act {
            Act::UntilClosed => drop(connection.closed().await),
            Act::UntilTold => self.told.notified().await,
            Act::Panic => panic!("as the test asks"),
            Act::Fail => return Err(HandlerError::new("as the test asks")),
            Act::Forever => std::future::pending().await,
        }
        Ok(())
    }

    async fn shutdown(&self) {
        self.told.notify_waiters();
    }
}

#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<AuditEvent>>>);

impl AuditSink for Events {
    fn record(&self, event: AuditEvent) {
        self.0.lock().unwrap().push(event);
    }
}

impl Events {
    fn reasons(&self, kind: &str) -> Vec<String> {
        let events = self.0.lock().unwrap();
        events.iter().filter(|e| e.event == kind).filter_map(|e| e.reason.clone()).collect()
    }
}

fn dispatcher(handlers: &[(Script, Access)], limits: Limits) -> (Dispatcher, Events) {
    let mut registry = HandlerRegistry::new();
    for (handler, access) in handlers {
        registry.register(handler.clone(), *access).unwrap();
    }
    let events = Events::default();
    (Dispatcher::new(registry, limits, Audit::new(events.clone())), events)
}

fn auth(alpn: &str, transport: TransportKind, scopes: Option<&[&str]>) -> AuthContext {
    let mut auth = AuthContext::anonymous(Alpn::service(alpn).unwrap(), transport, None);
    auth.identity = scopes.map(|scopes| Arc::new(identity("somebody", scopes)));
    auth
}

#[tokio::test]
async fn access_is_enforced_by_declaration_and_transport() {
    use TransportKind::{Quic, Tls, WebSocket, WebTransport};
    let all = [
        (script("public", Act::UntilClosed), Access::Public),
        (script("protocol", Act::UntilClosed), Access::Protocol),
        (script("scope", Act::UntilClosed), Access::Scope),
    ];
    let (dispatcher, events) = dispatcher(&all, Limits::default());
    let check = |alpn, transport, scopes| dispatcher.admit(auth(alpn, transport, scopes)).err();

    for transport in [Quic, Tls] {
        assert_eq!(check("public", transport, None), None);
        assert_eq!(check("protocol", transport, None), None);
        assert_eq!(check("scope", transport, None), Some(Refusal::NotAuthenticated));
        assert_eq!(check("scope", transport, Some(&["other"])), Some(Refusal::OutOfScope));
        assert_eq!(check("scope", transport, Some(&["scope"])), None);
        assert_eq!(check("scope", transport, Some(&["*"])), None);
    }
    for transport in [WebTransport, WebSocket] {
        for alpn in ["public", "protocol", "scope"] {
            let own = [alpn];
            assert_eq!(check(alpn, transport, None), Some(Refusal::NotAuthenticated));
            assert_eq!(check(alpn, transport, Some(&["other"])), Some(Refusal::OutOfScope));
            assert!(dispatcher.admit(auth(alpn, transport, Some(&own))).is_ok());
        }
    }
    assert_eq!(check("missing", Quic, Some(&["*"])), Some(Refusal::UnknownAlpn));
    assert_eq!(events.reasons(AuditEvent::REFUSED).last().unwrap(), "no such service");
}

#[tokio::test]
async fn a_handler_may_be_for_several_services() {
    use TransportKind::{Quic, WebTransport};
    let all = [(script("shared", Act::UntilClosed), Access::ScopeOr(&["one", "two"]))];
    let (dispatcher, _) = dispatcher(&all, Limits::default());
    let check = |transport, scopes| dispatcher.admit(auth("shared", transport, scopes)).err();
    let alpn = Alpn::service("shared").unwrap();
    for transport in [Quic, WebTransport] {
        assert_eq!(check(transport, None), Some(Refusal::NotAuthenticated));
        for scopes in [&["shared"][..], &["one:read:x"], &["two"], &["*"], &["shared:y", "other"]] {
            assert_eq!(check(transport, Some(scopes)), None, "{scopes:?}");
            assert!(dispatcher.admits(&alpn, &scopes.iter().copied().collect()));
        }
        for scopes in [&[][..], &["other"], &["on"], &["three", "share"]] {
            assert_eq!(check(transport, Some(scopes)), Some(Refusal::OutOfScope), "{scopes:?}");
            assert!(!dispatcher.admits(&alpn, &scopes.iter().copied().collect()));
        }
    }
    assert!(!dispatcher.admits(&Alpn::service("none").unwrap(), &Scopes::all()));
}

#[tokio::test]
async fn a_panic_ends_that_connection_alone() {
    let handlers = [
        (script("calm", Act::UntilClosed), Access::Public),
        (script("panic", Act::Panic), Access::Public),
    ];
    let (dispatcher, events) = dispatcher(&handlers, Limits::default());
    let (calm, calm_far) = memory::pair();
    dispatcher.admit(auth("calm", TransportKind::Memory, None)).unwrap().start(calm_far);
    let (broken, broken_far) = memory::pair();
    let task =
        dispatcher.admit(auth("panic", TransportKind::Memory, None)).unwrap().start(broken_far);

    assert_eq!(broken.closed().await.code, Code::INTERNAL);
    task.await.unwrap();
    assert_eq!(events.reasons(AuditEvent::SESSION_END), ["the handler panicked"]);
    assert_eq!(dispatcher.sessions().len(), 1);
    assert!(calm.open_bi().await.is_ok());
}

#[tokio::test]
async fn an_error_closes_with_internal_and_stands_in_the_audit() {
    let (dispatcher, events) =
        dispatcher(&[(script("fail", Act::Fail), Access::Public)], Limits::default());
    let (near, far) = memory::pair();
    dispatcher.admit(auth("fail", TransportKind::Memory, None)).unwrap().start(far).await.unwrap();
    assert_eq!(near.closed().await.code, Code::INTERNAL);
    assert_eq!(events.reasons(AuditEvent::SESSION_END), ["failed: as the test asks"]);
}

#[tokio::test]
async fn limits_count_admissions_and_give_places_back() {
    let mut limits = Limits::default();
    limits.sessions = 3;
    limits.sessions_per_identity = 2;
    let (dispatcher, _) = dispatcher(&[(script("x", Act::UntilClosed), Access::Public)], limits);
    let known = || dispatcher.admit(auth("x", TransportKind::Memory, Some(&["x"])));
    let unknown = || dispatcher.admit(auth("x", TransportKind::Memory, None));

    let (first, _second) = (known().unwrap(), known().unwrap());
    assert_eq!(known().unwrap_err(), Refusal::IdentityLimit);
    let _third = unknown().unwrap();
    assert_eq!(unknown().unwrap_err(), Refusal::NodeLimit);
    drop(first);
    assert!(known().is_ok());
}

#[tokio::test]
async fn the_sessions_of_an_identity_can_be_ended() {
    let (dispatcher, _) =
        dispatcher(&[(script("x", Act::UntilClosed), Access::Public)], Limits::default());
    let (near, far) = memory::pair();
    dispatcher.admit(auth("x", TransportKind::Memory, Some(&["x"]))).unwrap().start(far);
    let (other, other_far) = memory::pair();
    dispatcher.admit(auth("x", TransportKind::Memory, None)).unwrap().start(other_far);
    assert_eq!(dispatcher.end_identity("id-somebody"), 1);
    assert_eq!(near.closed().await.code, Code::REVOKED);
    assert!(other.open_bi().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn shutdown_tells_handlers_waits_then_closes_what_is_left() {
    let handlers = [
        (script("polite", Act::UntilTold), Access::Public),
        (script("slow", Act::UntilClosed), Access::Public),
        (script("deaf", Act::Forever), Access::Public),
    ];
    let (dispatcher, events) = dispatcher(&handlers, Limits::default());
    let connect = |alpn| {
        let (near, far) = memory::pair();
        dispatcher.admit(auth(alpn, TransportKind::Memory, None)).unwrap().start(far);
        near
    };
    let (polite, slow, deaf) = (connect("polite"), connect("slow"), connect("deaf"));
    tokio::task::yield_now().await;

    let closed = dispatcher.shutdown(Duration::from_secs(5)).await;
    assert_eq!(closed, 2);
    assert_eq!(polite.closed().await.code, Code::NORMAL);
    assert_eq!(slow.closed().await.code, Code::SHUTTING_DOWN);
    let end = deaf.closed().await;
    assert_eq!((end.by, end.code), (ClosedBy::Peer, Code::SHUTTING_DOWN));
    assert!(dispatcher.sessions().is_empty());
    let late = dispatcher.admit(auth("slow", TransportKind::Memory, None)).unwrap_err();
    assert_eq!(late, Refusal::ShuttingDown);
    assert!(
        events
            .reasons(AuditEvent::SESSION_END)
            .contains(&"dropped at the shutdown deadline".into())
    );
}

#[test]
fn two_handlers_on_one_alpn_are_an_error_that_names_both() {
    #[derive(Clone)]
    struct Named(&'static str);
    impl ProtocolHandler for Named {
        fn name(&self) -> &'static str {
            self.0
        }
        fn alpns(&self) -> Vec<Alpn> {
            vec![Alpn::service("same").unwrap()]
        }
        async fn handle(&self, _: Connection, _: AuthContext) -> Result<(), HandlerError> {
            Ok(())
        }
    }
    let mut registry = HandlerRegistry::new();
    registry.register(Named("one"), Access::Public).unwrap();
    let error = registry.register(Named("two"), Access::Public).unwrap_err();
    assert_eq!(error.to_string(), "two handlers want the ALPN alknet/same: one and two");

    let mut registry = HandlerRegistry::new();
    registry.register(Named("one"), Access::Public).unwrap();
    let dispatcher = Dispatcher::new(registry, Limits::default(), Audit::to_log());
    assert!(dispatcher.extend(Named("two"), Access::Public).is_err());
}
