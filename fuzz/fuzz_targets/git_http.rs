//! Whatever is asked below the path of repositories, there is an answer, it is no fault of the
//! server, and nothing but the repository that is named is opened.
#![no_main]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use alknet_core::{Alpn, Audit, AuditEvent, AuditSink, AuthContext, BoxFuture, TransportKind};
use alknet_fuzz::{ends, run};
use alknet_git::{
    Engine, EngineError, Exchange, GitConfig, GitServer, Repositories, Settings, http,
};
use alknet_testing::identities::identity;
use axum::{
    Extension, Router,
    body::{Body, to_bytes},
    http::{Request, Uri},
};
use libfuzzer_sys::fuzz_target;
use tower::ServiceExt as _;

/// The requests; what is fuzzed stands for the `@`.
const REQUESTS: &[(&str, &str)] = &[
    ("GET", "@"),
    ("GET", "@/info/refs?service=git-upload-pack"),
    ("GET", "notes/info/refs?service=@"),
    ("GET", "notes.git/info/refs?@"),
    ("POST", "@/git-upload-pack"),
    ("POST", "notes/git-receive-pack"),
    ("POST", "notes/git-upload-pack"),
    ("POST", "notes/info/lfs/objects/batch"),
    ("GET", "notes/info/lfs/objects/@"),
    ("PUT", "notes/info/lfs/objects/@"),
    ("POST", "notes/info/lfs/verify"),
    ("GET", "notes/info/lfs/locks?@"),
    ("POST", "notes/info/lfs/locks"),
    ("POST", "notes/info/lfs/locks/verify"),
    ("POST", "notes/info/lfs/locks/@/unlock"),
    ("GET", "notes/bundles/@"),
    ("DELETE", "notes@"),
];

/// Takes note of nothing.
#[derive(Debug)]
struct Nobody;

impl AuditSink for Nobody {
    fn record(&self, _event: AuditEvent) {}
}

/// Serves nothing, in the one place where it may be asked to.
#[derive(Debug)]
struct Nothing(PathBuf);

impl Engine for Nothing {
    fn serve(&self, exchange: Exchange) -> BoxFuture<'static, Result<(), EngineError>> {
        assert_eq!(exchange.repository, self.0);
        Box::pin(async { Ok(()) })
    }
}

/// A folder with a repository beside a file that no request may change.
struct Rig {
    folder: PathBuf,
    routes: Router,
    /// What is in the folder of repositories.
    names: Vec<PathBuf>,
}

static RIG: LazyLock<Rig> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("alknet-fuzz-git-{}", std::process::id()));
    fs::create_dir_all(folder.join("repos")).unwrap();
    fs::write(folder.join("secret"), "secret").unwrap();
    let folder = folder.canonicalize().unwrap();
    let repositories = Repositories::open(&folder.join("repos")).unwrap();
    repositories.create(&"notes".parse().unwrap(), &Settings::default()).unwrap();
    let engine = Nothing(folder.join("repos/notes.git"));
    let server = GitServer::new(GitConfig::new(repositories, engine, Audit::new(Nobody)));
    let mut auth = AuthContext::anonymous(Alpn::new("http/1.1").unwrap(), TransportKind::Tls, None);
    auth.identity = Some(Arc::new(identity("alice", &["git:write:notes", "git:admin:notes"])));
    let names = names(&folder.join("repos"));
    Rig { routes: http::routes(server).layer(Extension(auth)), names, folder }
});

fn names(folder: &Path) -> Vec<PathBuf> {
    let mut names = Vec::from_iter(fs::read_dir(folder).unwrap().map(|it| it.unwrap().path()));
    names.sort();
    names
}

fuzz_target!(|input: (u8, &str, &str, &[u8])| {
    let (which, fuzzed, kind, body) = input;
    let (method, template) = REQUESTS[usize::from(which) % REQUESTS.len()];
    let path = format!("{}{}", http::PREFIX, template.replace('@', fuzzed));
    let Ok(uri) = path.parse::<Uri>() else { return };
    let standard = if path.contains("/lfs/") { "application/vnd.git-lfs+json" } else { kind };
    let request = Request::builder().method(method).uri(uri);
    let request = request.header("content-type", standard).header("accept", standard);
    let request = request.header("git-protocol", kind).header("content-encoding", kind);
    let Ok(request) = request.body(Body::from(body.to_vec())) else { return };
    run(async {
        let routes = RIG.routes.clone();
        let answer = ends("the answer", routes.oneshot(request)).await.unwrap();
        assert!(answer.status().as_u16() < 500, "{path}: {}", answer.status());
        let _ = ends("the body", to_bytes(answer.into_body(), 1 << 20)).await;
    });
    assert_eq!(fs::read(RIG.folder.join("secret")).unwrap(), b"secret");
    assert_eq!(names(&RIG.folder).len(), 2);
    assert_eq!(names(&RIG.folder.join("repos")), RIG.names);
});
