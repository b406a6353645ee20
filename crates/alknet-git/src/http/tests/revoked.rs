//! Credentials that are taken away while a file is on its way.

use std::{future::pending, io};

use alknet_core::{Access, Dispatcher, HandlerRegistry, Limits, SessionHandle};
use futures_util::{StreamExt as _, stream};
use sha2::{Digest as _, Sha256};
use tokio::{sync::Notify, time::timeout};

use super::*;
use crate::GitAdapter;

/// Enough for anything that is not meant to take time, and less than a client is waited for.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);
/// More than is on its way at once.
const LARGE: usize = 2 << 20;

/// A node that can take away the credential that ann's requests come with.
struct Node {
    here: Here,
    dispatcher: Arc<Dispatcher>,
    session: SessionHandle,
}

impl Node {
    fn new() -> Self {
        let here = Here::new();
        let mut registry = HandlerRegistry::new();
        registry.register(GitAdapter::new(here.server.clone()), Access::Public).unwrap();
        let dispatcher = Dispatcher::new(registry, Limits::default(), Audit::to_log());
        let alpn = Alpn::service("git").unwrap();
        let stranger = AuthContext::anonymous(alpn, TransportKind::Tls, None);
        let session = dispatcher.admit(stranger).unwrap().auth().session.clone();
        Self { here, dispatcher: Arc::new(dispatcher), session }
    }

    fn auth(&self) -> AuthContext {
        AuthContext { session: self.session.clone(), ..auth("git", AuthMethod::Bearer) }
    }

    /// Asks for a file, and loses the credential before the end of it; what came by then.
    async fn loses(&self, path: &str) -> Result<Bytes, axum::Error> {
        let router = routes(self.here.server.clone()).layer(Extension(self.auth()));
        let response = router.oneshot(get(path)).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(self.dispatcher.end_identity("id-ann"), 1);
        let body = to_bytes(response.into_body(), usize::MAX);
        timeout(PATIENCE, body).await.unwrap()
    }
}

#[tokio::test]
async fn what_somebody_sends_is_not_kept() {
    let content = "large file";
    let oid = hex::encode(Sha256::digest(content));
    let path = format!("private.git/info/lfs/objects/{oid}");
    for comes_whole in [false, true] {
        let node = Node::new();
        let (begun, dispatcher) = (Arc::new(Notify::new()), node.dispatcher.clone());
        let told = begun.clone();
        let rest = stream::once(async move {
            if !comes_whole {
                told.notify_one();
                pending::<()>().await;
            }
            assert_eq!(dispatcher.end_identity("id-ann"), 1);
            Ok::<_, io::Error>(&content[5..])
        });
        let pieces = stream::iter([Ok(&content[..5])]).chain(rest);
        let put = request("PUT", &path, "", Body::from_stream(pieces));
        let put = with(put, "content-length", &content.len().to_string());
        let revoked = async {
            if !comes_whole {
                begun.notified().await;
                assert_eq!(node.dispatcher.end_identity("id-ann"), 1);
            }
        };
        let answered = async { tokio::join!(node.here.ask_by(node.auth(), put), revoked).0 };
        let answer = timeout(PATIENCE, answered).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.unseen), (403, false), "{answer:?}");
        assert!(answer.text().contains("your access has ended"), "{answer:?}");
        assert_eq!(node.dispatcher.end_identity("id-ann"), 0);
        let lfs = node.here.git_dir("private").join("lfs");
        assert!(!lfs.join("objects").exists());
        assert_eq!(std::fs::read_dir(lfs.join("incoming")).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn what_somebody_gets_breaks_off() {
    let node = Node::new();
    let content = vec![7; LARGE];
    let oid = hex::encode(Sha256::digest(&content));
    let repository = node.here.git_dir("private");
    let object = repository.join("lfs/objects").join(&oid[..2]).join(&oid[2..4]);
    for (folder, name) in [(&object, oid.as_str()), (&repository.join("bundles"), "1.bundle")] {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join(name), &content).unwrap();
    }
    let object = format!("private.git/info/lfs/objects/{oid}");
    for path in [object.as_str(), "private.git/bundles/1.bundle"] {
        let got = node.loses(path).await;
        assert!(got.is_err(), "{path}: {} bytes", got.unwrap().len());
        assert_eq!(node.dispatcher.end_identity("id-ann"), 0);
        // Another credential of theirs is as good as before.
        let whole = node.here.ask_by(node.auth(), get(path)).await;
        assert_eq!(whole.body.len(), LARGE, "{path}");
    }
}
