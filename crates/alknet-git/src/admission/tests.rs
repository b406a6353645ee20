use std::sync::Arc;

use alknet_core::{Access, Alpn, Audit, Dispatcher, HandlerRegistry, Limits, TransportKind};
use alknet_testing::identities::identity;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, duplex, split},
    task::JoinSet,
    time::timeout,
};

use super::*;
use crate::{GitAdapter, GitConfig, InstalledGit, Mirror, Repositories};

/// Enough for anything that is not meant to take time.
const PATIENCE: Duration = Duration::from_secs(60);
/// Exchanges of one caller.
const EACH: usize = 2;

/// A server with the repository `busy`.
struct Here {
    server: GitServer,
    _folder: TempDir,
}

impl Here {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let repositories = Repositories::open(folder.path()).unwrap();
        repositories.create(&"busy".parse().unwrap(), &Settings::default()).unwrap();
        let engine = InstalledGit::find().unwrap();
        let mut config = GitConfig::new(repositories, engine, Audit::to_log());
        config.limits.exchanges_per_caller = EACH;
        Self { server: GitServer::new(config), _folder: folder }
    }

    /// All the room that anna has.
    async fn fill(&self) -> Vec<Admitted> {
        let mut held = Vec::new();
        for _ in 0..EACH {
            let request = request(Service::UploadPack, "busy");
            held.push(self.server.admit(&request, &anna()).await.unwrap());
        }
        held
    }

    /// Attempts to push to `new`, which there is no room for.
    async fn attempts(&self, count: usize) -> JoinSet<Result<Admitted, GitError>> {
        let mut attempts = JoinSet::new();
        for _ in 0..count {
            let server = self.server.clone();
            attempts.spawn(async move {
                server.admit(&request(Service::ReceivePack, "new"), &anna()).await
            });
        }
        let wait = async {
            while self.server.0.slots.waiting(self.server.limits().waiting) < count {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, wait).await.unwrap();
        attempts
    }

    fn there(&self) -> Option<Repository> {
        self.server.repositories().get(&"new".parse().unwrap()).unwrap()
    }
}

fn request(service: Service, name: &str) -> Request {
    Request::new(service, name.parse().unwrap())
}

fn anna() -> Caller {
    let alpn = Alpn::service("git").unwrap();
    let auth = AuthContext::anonymous(alpn, TransportKind::Memory, None);
    Caller::of(AuthContext { identity: Some(Arc::new(identity("anna", &["git"]))), ..auth })
}

#[tokio::test]
async fn of_two_first_pushes_at_once_both_get_in() {
    let here = Here::new();
    let held = here.fill().await;
    let attempts = here.attempts(2).await;
    assert!(here.there().is_none());
    drop(held);
    let admitted = attempts.join_all().await;
    let mut admitted: Vec<_> = admitted.into_iter().map(Result::unwrap).collect();
    admitted.pop();
    assert!(here.there().is_some(), "one of them is under way");
    admitted.pop();
    let gone = async {
        while here.there().is_some() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, gone).await.unwrap();
}

#[tokio::test]
async fn what_somebody_else_has_made_meanwhile_is_theirs() {
    let here = Here::new();
    let held = here.fill().await;
    let mut attempts = here.attempts(1).await;
    let mirror = Mirror::new("https://example.org/x.git".parse().unwrap());
    let settings = Settings { mirror: Some(mirror), ..Settings::default() };
    here.server.repositories().create(&"new".parse().unwrap(), &settings).unwrap();
    drop(held);
    let refused = attempts.join_next().await.unwrap().unwrap();
    assert!(matches!(refused, Err(GitError::Mirror(_))), "{refused:?}");
    assert_eq!(here.there().unwrap().settings, settings);
}

#[tokio::test]
async fn an_exchange_ends_with_the_credential_of_its_request() {
    let here = Here::new();
    let mut registry = HandlerRegistry::new();
    registry.register(GitAdapter::new(here.server.clone()), Access::Public).unwrap();
    let dispatcher = Dispatcher::new(registry, Limits::default(), Audit::to_log());
    let stranger = AuthContext::anonymous(Alpn::service("git").unwrap(), TransportKind::Tls, None);
    let connection = dispatcher.admit(stranger).unwrap();
    for method in [AuthMethod::Bearer, AuthMethod::Concealed] {
        let identity = anna().identity;
        let caller = Caller::of(AuthContext { identity, method, ..connection.auth().clone() });
        let request = request(Service::UploadPack, "busy");
        let admitted = here.server.admit(&request, &caller).await.unwrap();
        let (near, far) = duplex(1 << 16);
        let (input, output) = split(far);
        let exchange = here.server.exchange(&request, admitted, Framing::Stateful, input, output);
        let (mut near, _silent) = split(near);
        let revoke = async {
            // It has begun.
            near.read_exact(&mut [0; 4]).await.unwrap();
            assert_eq!(dispatcher.end_identity("id-anna"), 1);
            let _ = near.read_to_end(&mut Vec::new()).await;
        };
        let (ended, ()) =
            timeout(PATIENCE, async { tokio::join!(exchange, revoke) }).await.unwrap();
        let interrupted = matches!(ended, Err(GitError::Engine(EngineError::Interrupted)));
        assert!(interrupted, "{ended:?}");
        assert_eq!(dispatcher.end_identity("id-anna"), 0);
    }
    // Whoever has a connection of their own is logged in once.
    let caller = Caller::of(AuthContext {
        identity: anna().identity,
        method: AuthMethod::TlsKey,
        ..connection.auth().clone()
    });
    let request = request(Service::UploadPack, "busy");
    let _admitted = here.server.admit(&request, &caller).await.unwrap();
    assert_eq!(dispatcher.end_identity("id-anna"), 0);
}
