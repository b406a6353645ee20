//! What holds for whoever is logged in: limits, revocation, expiry.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use alknet_core::{
    Access, Alpn, Audit, AuthContext, BoxFuture, Code, Connection, Credential, Dispatcher,
    HandlerError, HandlerRegistry, Identity, IdentityProvider, KeyFingerprint, Limits,
    ProtocolHandler, ProviderError, Refusal, Scopes, StreamReset, TransportKind,
};
use alknet_testing::{
    identities::{Identities, identity},
    memory,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
    task::JoinSet,
};

/// Logs its one caller in by the name that they write, and tells of the end.
struct Inner {
    known: Identity,
    ended: mpsc::UnboundedSender<&'static str>,
}

impl ProtocolHandler for Inner {
    fn name(&self) -> &'static str {
        "inner"
    }

    fn alpns(&self) -> Vec<Alpn> {
        Vec::from_iter(Alpn::service("inner"))
    }

    async fn handle(&self, connection: Connection, auth: AuthContext) -> Result<(), HandlerError> {
        let login = auth.session.login(Arc::new(self.known.clone()))?;
        let mut stream = connection.accept_bi().await?;
        stream.write_all(b"hello").await?;
        login.revoked().await;
        self.ended.send("revoked")?;
        Ok(())
    }
}

/// Holds every stream that comes.
struct Holds;

impl ProtocolHandler for Holds {
    fn name(&self) -> &'static str {
        "holds"
    }

    fn alpns(&self) -> Vec<Alpn> {
        Vec::from_iter(Alpn::service("holds"))
    }

    async fn handle(&self, connection: Connection, _: AuthContext) -> Result<(), HandlerError> {
        let mut streams = JoinSet::new();
        while let Ok(mut stream) = connection.accept_bi().await {
            streams.spawn(async move {
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
                let _ = stream.shutdown().await;
            });
        }
        Ok(())
    }
}

fn dispatcher(handler: impl ProtocolHandler, limits: Limits) -> Dispatcher {
    let mut registry = HandlerRegistry::new();
    registry.register(handler, Access::Public).unwrap();
    Dispatcher::new(registry, limits, Audit::to_log())
}

fn key() -> KeyFingerprint {
    KeyFingerprint::of_openssh_blob(b"ann")
}

fn ann(scopes: &[&str]) -> Identity {
    identity("ann", scopes)
}

/// A session on `alpn` as this identity.
fn session(
    dispatcher: &Dispatcher,
    alpn: &str,
    identity: Option<Identity>,
) -> Result<Connection, Refusal> {
    let alpn = Alpn::service(alpn).unwrap();
    let auth = AuthContext::anonymous(alpn, TransportKind::Memory, None);
    let auth = AuthContext { identity: identity.map(Arc::new), ..auth };
    let (near, far) = memory::pair();
    dispatcher.admit(auth)?.start(far);
    Ok(near)
}

fn store(scopes: &[&str]) -> Identities {
    Identities::new().with_key(key(), ann(scopes))
}

#[tokio::test]
async fn a_revoked_credential_ends_its_sessions_and_no_others() {
    let dispatcher = dispatcher(Holds, Limits::default());
    let known = store(&["holds"]);
    let hers = session(&dispatcher, "holds", Some(ann(&["holds"]))).unwrap();
    let anonymous = session(&dispatcher, "holds", None).unwrap();
    assert_eq!(dispatcher.recheck(&known).await, 0);
    assert!(hers.open_bi().await.is_ok());
    known.revoke_key(&key());
    assert_eq!(dispatcher.recheck(&known).await, 1);
    assert_eq!(hers.closed().await.code, Code::REVOKED);
    assert!(anonymous.open_bi().await.is_ok());
    assert_eq!(dispatcher.recheck(&known).await, 0);
}

/// A store that takes its time, so that others run between two answers.
#[derive(Debug)]
struct Slow(Identities);

impl IdentityProvider for Slow {
    fn by_credential<'a>(
        &'a self,
        credential: &'a Credential,
    ) -> BoxFuture<'a, Result<Option<Identity>, ProviderError>> {
        Box::pin(async {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            self.0.by_credential(credential).await
        })
    }
}

#[tokio::test]
async fn a_session_is_revoked_before_a_login_inside_it_can_end_it() {
    for _ in 0..16 {
        let (ended, mut ends) = mpsc::unbounded_channel();
        let dispatcher =
            dispatcher(Inner { known: identity("bob", &[]), ended }, Limits::default());
        let session = session(&dispatcher, "inner", Some(ann(&["inner"]))).unwrap();
        session.open_bi().await.unwrap().read_exact(&mut [0; 5]).await.unwrap();
        assert_eq!(dispatcher.recheck(&Slow(Identities::new())).await, 2);
        assert_eq!(session.closed().await.code, Code::REVOKED);
        assert!(ends.try_recv().is_err(), "the handler was not cut off");
    }
}

#[tokio::test]
async fn who_may_do_less_than_before_has_to_begin_anew() {
    let dispatcher = dispatcher(Holds, Limits::default());
    let known = store(&["holds", "more"]);
    let hers = session(&dispatcher, "holds", Some(ann(&["holds"]))).unwrap();
    assert_eq!(dispatcher.recheck(&known).await, 0, "she may do more");
    known.add_key(key(), ann(&["holds:a", "more"]));
    assert_eq!(dispatcher.recheck(&known).await, 1);
    assert_eq!(hers.closed().await.code, Code::REVOKED);
}

#[tokio::test]
async fn a_store_that_fails_ends_nothing() {
    let dispatcher = dispatcher(Holds, Limits::default());
    let known = store(&["holds"]);
    let hers = session(&dispatcher, "holds", Some(ann(&["holds"]))).unwrap();
    known.set_broken(true);
    assert_eq!(dispatcher.recheck(&known).await, 0);
    assert!(hers.open_bi().await.is_ok());
}

#[tokio::test]
async fn a_credential_ends_at_its_time() {
    let dispatcher = dispatcher(Holds, Limits::default());
    let until = |end| Identity { valid_until: Some(end), ..ann(&["holds"]) };
    let now = SystemTime::now();
    let over = session(&dispatcher, "holds", Some(until(now))).unwrap();
    let later = now + Duration::from_secs(3600);
    let good = session(&dispatcher, "holds", Some(until(later))).unwrap();
    assert_eq!(dispatcher.end_expired(), 1);
    assert_eq!(over.closed().await.code, Code::REVOKED);
    assert!(good.open_bi().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_watch_ends_what_is_revoked_within_a_second() {
    let dispatcher = dispatcher(Holds, Limits::default());
    let known = store(&["holds"]);
    let hers = session(&dispatcher, "holds", Some(ann(&["holds"]))).unwrap();
    let end = Identity { valid_until: Some(SystemTime::now()), ..identity("bob", &["holds"]) };
    let revoked = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(hers.open_bi().await.is_ok());
        let begin = tokio::time::Instant::now();
        known.revoke_key(&key());
        assert_eq!(hers.closed().await.code, Code::REVOKED);
        assert!(begin.elapsed() < Duration::from_secs(1));
        // Somebody whose time is over is ended without any change.
        let his = session(&dispatcher, "holds", Some(end)).unwrap();
        assert_eq!(his.closed().await.code, Code::REVOKED);
        assert!(begin.elapsed() < Duration::from_secs(2));
    };
    tokio::select! {
        never = dispatcher.watch(&known) => match never {},
        () = revoked => {}
    }
}

#[tokio::test]
async fn a_login_inside_a_session_is_told_of_its_revocation() {
    let (ended, mut news) = mpsc::unbounded_channel();
    let dispatcher = dispatcher(Inner { known: ann(&["inner"]), ended }, Limits::default());
    let known = store(&["inner"]);
    let connection = session(&dispatcher, "inner", None).unwrap();
    let mut stream = connection.open_bi().await.unwrap();
    stream.write_all(b"ann").await.unwrap();
    let mut greeting = [0; 5];
    stream.read_exact(&mut greeting).await.unwrap();
    known.revoke_key(&key());
    assert_eq!(dispatcher.recheck(&known).await, 1);
    assert_eq!(news.recv().await, Some("revoked"));
}

#[tokio::test]
async fn an_identity_has_so_many_logins() {
    let mut limits = Limits::default();
    limits.sessions_per_identity = 2;
    let dispatcher = dispatcher(Holds, limits);
    let open = || session(&dispatcher, "holds", Some(ann(&["holds"])));
    let (first, _second) = (open().unwrap(), open().unwrap());
    assert_eq!(open().unwrap_err(), Refusal::IdentityLimit);
    assert!(session(&dispatcher, "holds", Some(identity("bob", &["holds"]))).is_ok());
    assert!(session(&dispatcher, "holds", None).is_ok());
    first.close(Code::NORMAL, "");
    while dispatcher.sessions().len() > 3 {
        tokio::task::yield_now().await;
    }
    assert!(open().is_ok());
}

#[tokio::test]
async fn an_address_has_so_many_sessions_without_an_identity() {
    let mut limits = Limits::default();
    limits.sessions_per_address = 2;
    let dispatcher = dispatcher(Holds, limits);
    let from = |address: &str, identity: Option<Identity>| {
        let peer = Some(format!("{address}:4000").parse().unwrap());
        let alpn = Alpn::service("holds").unwrap();
        let auth = AuthContext::anonymous(alpn, TransportKind::Memory, peer);
        dispatcher.admit(AuthContext { identity: identity.map(Arc::new), ..auth })
    };
    let (first, _second) = (from("192.0.2.1", None).unwrap(), from("192.0.2.1", None).unwrap());
    assert_eq!(from("192.0.2.1", None).unwrap_err(), Refusal::AddressLimit);
    assert!(from("192.0.2.1", Some(ann(&["holds"]))).is_ok(), "who is known is not meant");
    assert!(from("192.0.2.2", None).is_ok());
    let _local: Vec<_> = (0..5).map(|_| from("127.0.0.1", None).unwrap()).collect();
    drop(first);
    assert!(from("192.0.2.1", None).is_ok());
}

/// The first looks after a change fail, as they do while a store is overloaded.
#[tokio::test(start_paused = true)]
async fn a_look_that_failed_is_made_again() {
    let dispatcher = dispatcher(Holds, Limits::default());
    let known = store(&["holds"]);
    let hers = session(&dispatcher, "holds", Some(ann(&["holds"]))).unwrap();
    let revoked = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        known.revoke_key(&key());
        known.set_broken(true);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(hers.open_bi().await.is_ok());
        known.set_broken(false);
        let begin = tokio::time::Instant::now();
        assert_eq!(hers.closed().await.code, Code::REVOKED);
        assert!(begin.elapsed() < Duration::from_secs(1));
    };
    tokio::select! {
        never = dispatcher.watch(&known) => match never {},
        () = revoked => {}
    }
}

#[tokio::test]
async fn an_identity_has_so_many_streams_over_all_its_connections() {
    let mut limits = Limits::default();
    limits.streams_per_identity = 3;
    let dispatcher = dispatcher(Holds, limits);
    let open = || session(&dispatcher, "holds", Some(ann(&["holds"]))).unwrap();
    let (one, other) = (open(), open());
    let mut streams = Vec::new();
    for connection in [&one, &one, &other] {
        let mut stream = connection.open_bi().await.unwrap();
        stream.write_all(b"x").await.unwrap();
        streams.push(stream);
    }
    let mut refused = other.open_bi().await.unwrap();
    refused.write_all(b"x").await.unwrap();
    let error = refused.read_u8().await.unwrap_err();
    assert_eq!(StreamReset::code_of(&error), Some(Code::LIMIT), "{error}");
    // Room is there again once a stream has ended at both sides.
    let mut first = streams.remove(0);
    first.shutdown().await.unwrap();
    assert_eq!(first.read(&mut [0]).await.unwrap(), 0);
    let mut again = other.open_bi().await.unwrap();
    again.shutdown().await.unwrap();
    assert_eq!(again.read(&mut [0]).await.unwrap(), 0);
}

#[test]
fn a_handle_of_no_node_lets_everybody_in_for_ever() {
    let handle = alknet_core::SessionHandle::default();
    let nobody = Identity::new("x", "x", Scopes::default(), Credential::Key(key()));
    assert!(!handle.login(Arc::new(nobody)).unwrap().is_revoked());
}
