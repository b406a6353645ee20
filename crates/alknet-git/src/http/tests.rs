//! Requests by hand, and the real git, against the routes.

mod large_files;
mod moved;
mod places;
mod revoked;

use std::{path::Path, process::Command, sync::Arc};

use alknet_core::{Alpn, Audit, AuthContext, AuthMethod, TransportKind};
use alknet_testing::identities::identity;
use async_compression::tokio::write::GzipEncoder;
use axum::{
    body::{Body, to_bytes},
    http::{HeaderMap, HeaderName, Request, StatusCode},
};
use bytes::Bytes;
use tokio::io::AsyncWriteExt as _;
use tower::ServiceExt as _;

use super::*;
use crate::{
    engine::InstalledGit,
    repositories::{Repositories, Settings},
    server::GitConfig,
};

const FETCH: &str = "application/x-git-upload-pack-request";
const PUSH: &str = "application/x-git-receive-pack-request";
const LFS: &str = "application/vnd.git-lfs+json";

/// A server with the repositories `private` and `public`.
struct Here {
    folder: tempfile::TempDir,
    server: GitServer,
}

impl Here {
    fn new() -> Self {
        Self::with(&Settings::default())
    }

    /// With these settings of `private`.
    fn with(settings: &Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let repositories = Repositories::open(folder.path()).unwrap();
        repositories.create(&"private".parse().unwrap(), settings).unwrap();
        let public = Settings { public: true, ..Settings::default() };
        repositories.create(&"public".parse().unwrap(), &public).unwrap();
        let engine = InstalledGit::find().unwrap();
        let server = GitServer::new(GitConfig::new(repositories, engine, Audit::to_log()));
        Self { folder, server }
    }

    /// The answer to a request of somebody with this grant; without one, of a stranger.
    async fn ask(&self, scope: &str, request: Request<Body>) -> Answer {
        let method = if scope.is_empty() { AuthMethod::None } else { AuthMethod::Bearer };
        self.ask_by(auth(scope, method), request).await
    }

    async fn ask_by(&self, auth: AuthContext, request: Request<Body>) -> Answer {
        let router = routes(self.server.clone()).layer(Extension(auth));
        let response = router.oneshot(request).await.unwrap();
        let unseen = response.extensions().get::<Unseen>().is_some();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        Answer { status: parts.status, headers: parts.headers, body, unseen }
    }

    fn git_dir(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(format!("{name}.git"))
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    unseen: bool,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

fn auth(scope: &str, method: AuthMethod) -> AuthContext {
    let alpn = Alpn::new("http/1.1").unwrap();
    let mut auth = AuthContext::anonymous(alpn, TransportKind::Tls, None);
    auth.identity = (!scope.is_empty()).then(|| Arc::new(identity("ann", &[scope])));
    auth.method = method;
    auth
}

fn request(method: &str, path: &str, kind: &str, body: impl Into<Body>) -> Request<Body> {
    let builder = Request::builder().method(method).uri(format!("{PREFIX}{path}"));
    let builder = builder.header("host", "node.example:4433");
    let builder = if kind.is_empty() { builder } else { builder.header("content-type", kind) };
    builder.body(body.into()).unwrap()
}

fn get(path: &str) -> Request<Body> {
    request("GET", path, "", "")
}

fn with(mut request: Request<Body>, name: &'static str, value: &str) -> Request<Body> {
    request.headers_mut().insert(HeaderName::from_static(name), value.parse().unwrap());
    request
}

/// The requests that there are, and some that are wrong.
fn every(name: &str) -> Vec<Request<Body>> {
    let oid = "a".repeat(64);
    let batch = format!(r#"{{"operation":"upload","objects":[{{"oid":"{oid}","size":1}}]}}"#);
    let object = format!("{name}.git/info/lfs/objects/{oid}");
    vec![
        get(&format!("{name}.git/info/refs?service=git-upload-pack")),
        get(&format!("{name}/info/refs?service=git-receive-pack")),
        get(&format!("{name}.git/info/refs")),
        get(&format!("{name}.git/info/refs?service=git-upload-archive")),
        request("HEAD", &format!("{name}.git/info/refs?service=git-upload-pack"), "", ""),
        request("POST", &format!("{name}.git/git-upload-pack"), FETCH, "0000"),
        request("POST", &format!("{name}.git/git-receive-pack"), PUSH, "0000"),
        request("POST", &format!("{name}.git/git-upload-pack"), "text/plain", "0000"),
        request("POST", &format!("{name}.git/git-receive-pack"), "", "0000"),
        get(&format!("{name}.git/git-receive-pack")),
        request("POST", &format!("{name}.git/info/lfs/objects/batch"), LFS, batch),
        request("POST", &format!("{name}.git/info/lfs/objects/batch"), LFS, "nonsense"),
        request("POST", &format!("{name}.git/info/lfs/objects/batch"), "text/plain", "{}"),
        request("POST", &format!("{name}.git/info/lfs/verify"), LFS, "{}"),
        get(&object),
        request("PUT", &object, "", "x"),
        request("DELETE", &object, "", ""),
        get(&format!("{name}.git/info/lfs/locks?limit=x")),
        request("POST", &format!("{name}.git/info/lfs/locks"), LFS, r#"{"path":"x"}"#),
        request("POST", &format!("{name}.git/info/lfs/locks/verify"), LFS, "{}"),
        request("POST", &format!("{name}.git/info/lfs/locks/00/unlock"), LFS, "{}"),
        get(&format!("{name}.git/bundles/1.bundle")),
        get(&format!("{name}.git/HEAD")),
        get(&format!("{name}.git")),
        get(&format!("{name}%2egit/info/refs?service=git-upload-pack")),
        get(&format!("%2e%2e/{name}.git/info/refs?service=git-upload-pack")),
        get(&format!("../{name}.git/info/refs?service=git-upload-pack")),
    ]
}

#[tokio::test(start_paused = true)]
async fn nobody_tells_a_repository_that_is_not_theirs_from_none() {
    let here = Here::new();
    for scope in ["", "git:read:public", "git:write:public", "git:read:privat", "ssh"] {
        let mut answers = Vec::new();
        for (there, missing) in every("private").into_iter().zip(every("missing")) {
            let what = format!("{} {} {scope:?}", there.method(), there.uri());
            let bodiless = *there.method() == Method::HEAD;
            let there = here.ask(scope, there).await;
            assert_eq!(there, here.ask(scope, missing).await, "{what}");
            assert!(there.unseen, "{what}");
            answers.extend((!bodiless).then_some(there));
        }
        assert!(answers.windows(2).all(|two| two[0] == two[1]), "they are all alike");
        let (status, challenge) = match scope {
            "" => (401, "Basic realm=\"alknet\""),
            _ => (404, ""),
        };
        let one = &answers[0];
        assert_eq!((one.status.as_u16(), one.header("www-authenticate")), (status, challenge));
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_tells_nobody_that_it_is_there() {
    let here = Here::new();
    std::fs::write(here.git_dir("private").join("alknet.toml"), "no settings").unwrap();
    let refs = |name: &str| get(&format!("{name}.git/info/refs?service=git-upload-pack"));
    for scope in ["", "git:read:other"] {
        let there = here.ask(scope, refs("private")).await;
        assert_eq!(there, here.ask(scope, refs("missing")).await, "{scope:?}");
    }
    assert_eq!(here.ask("git:read:private", refs("private")).await.status, 500);
}

#[tokio::test]
async fn a_public_repository_is_read_by_all_and_written_by_few() {
    let here = Here::new();
    let refs = |service| get(&format!("public.git/info/refs?service={service}"));
    for scope in ["", "git:read:other"] {
        assert_eq!(here.ask(scope, refs("git-upload-pack")).await.status, 200);
        let fetch = request("POST", "public.git/git-upload-pack", FETCH, "0000");
        assert_eq!(here.ask(scope, fetch).await.status, 200);
        let locks = here.ask(scope, get("public.git/info/lfs/locks")).await;
        assert_eq!((locks.status.as_u16(), locks.text().as_str()), (200, r#"{"locks":[]}"#));
    }
    let push = || request("POST", "public.git/git-receive-pack", PUSH, "0000");
    for (scope, status) in [("", 401), ("git:read:public", 403)] {
        assert_eq!(here.ask(scope, refs("git-receive-pack")).await.status, status);
        assert_eq!(here.ask(scope, push()).await.status, status);
        let lock = request("POST", "public.git/info/lfs/locks", LFS, r#"{"path":"x"}"#);
        assert_eq!(here.ask(scope, lock).await.status, status);
    }
}

#[tokio::test]
async fn what_a_browser_sends_for_others_counts_for_nothing() {
    let here = Here::new();
    let refs = || get("private.git/info/refs?service=git-upload-pack");
    let stranger = here.ask("", refs()).await;
    let cookie = || auth("git", AuthMethod::Cookie);
    assert_eq!(here.ask_by(cookie(), refs()).await, stranger);
    for site in ["cross-site", "same-site", "same-origin, none"] {
        let foreign = with(refs(), "sec-fetch-site", site);
        assert_eq!(here.ask("git", foreign).await, stranger, "{site}");
    }
    let own = with(refs(), "sec-fetch-site", "same-origin");
    assert_eq!(here.ask("git", own).await.status, 200);
}

#[tokio::test]
async fn refs_begin_as_the_protocol_has_it() {
    let here = Here::new();
    let refs = |service: &str| get(&format!("private/info/refs?service={service}"));
    let plain = here.ask("git", refs("git-upload-pack")).await;
    assert!(plain.text().starts_with("001e# service=git-upload-pack\n0000"), "{plain:?}");
    assert_eq!(plain.header("content-type"), "application/x-git-upload-pack-advertisement");
    assert_eq!(plain.header("cache-control"), "no-cache, max-age=0, must-revalidate");
    for version in ["version=2", "version=2:x", "x=1:version=2"] {
        let asked = with(refs("git-upload-pack"), "git-protocol", version);
        let answer = here.ask("git", asked).await;
        assert!(answer.text().starts_with("000eversion 2\n"), "{version} {answer:?}");
    }
    for version in ["version=3", "version=-1", "version=2;x", "2"] {
        let asked = with(refs("git-upload-pack"), "git-protocol", version);
        assert_eq!(here.ask("git", asked).await, plain, "{version}");
    }
}

#[tokio::test]
async fn what_is_not_smart_http_is_refused() {
    let here = Here::new();
    let fetch = |kind| request("POST", "private.git/git-upload-pack", kind, "0000");
    for (request, status) in [
        (get("private.git/info/refs"), 403),
        (get("private.git/info/refs?service=git-upload-archive"), 403),
        (get("private.git/info/refs?service=git-upload-pack&x=y"), 403),
        (get("private.git/HEAD"), 404),
        (get("private.git/objects/info/packs"), 404),
        (request("HEAD", "private.git/info/refs?service=git-upload-pack", "", ""), 405),
        (request("PUT", "private.git/git-receive-pack", PUSH, ""), 405),
        (get("private.git/git-upload-pack"), 405),
        (fetch("text/plain"), 415),
        (fetch(PUSH), 415),
        (fetch(""), 415),
        (with(fetch(FETCH), "content-encoding", "br"), 415),
        (with(fetch(FETCH), "content-encoding", "gzip"), 400),
        (request("POST", "private.git/git-upload-pack", FETCH, "zzzz"), 400),
    ] {
        let what = format!("{} {}", request.method(), request.uri());
        let answer = here.ask("git", request).await;
        assert_eq!(answer.status, status, "{what} {answer:?}");
        assert_eq!(answer.unseen, status == 404, "{what}");
        assert_eq!(answer.headers.contains_key("allow"), status == 405, "{what}");
    }
}

#[tokio::test]
async fn a_bundle_is_a_file_of_the_repository() {
    let here = Here::new();
    let folder = here.git_dir("private").join("bundles");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("17.bundle"), "a bundle").unwrap();
    for path in ["private.git/bundles/17.bundle", "private/bundles/17.bundle"] {
        let whole = here.ask("git:read:private", get(path)).await;
        assert_eq!((whole.status.as_u16(), whole.text().as_str()), (200, "a bundle"));
        assert_eq!(here.ask("git:read:other", get(path)).await.status, 404);
        assert_eq!(here.ask("", get(path)).await.status, 401);
    }
    let missing = here.ask("git", get("private.git/bundles/18.bundle")).await;
    assert_eq!((missing.status.as_u16(), missing.unseen), (404, false));
}

async fn packed(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzipEncoder::new(Vec::new());
    encoder.write_all(plain).await.unwrap();
    encoder.shutdown().await.unwrap();
    encoder.into_inner()
}

fn fetch_v2(body: Vec<u8>) -> Request<Body> {
    let request = request("POST", "private.git/git-upload-pack", FETCH, body);
    with(with(request, "git-protocol", "version=2"), "content-encoding", "gzip")
}

#[tokio::test]
async fn packed_requests_are_unpacked() {
    let here = Here::new();
    let list = packed(b"0014command=ls-refs\n0000").await;
    let answer = here.ask("git", fetch_v2(list)).await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "0000"));
    assert_eq!(answer.header("content-type"), "application/x-git-upload-pack-result");
}

#[tokio::test]
async fn a_bomb_is_stopped() {
    let here = Here::new();
    let have = format!("0032have {}\n", "a".repeat(40));
    let mut bomb = b"0012command=fetch0001".to_vec();
    bomb.extend(have.repeat(70 * 1024 * 1024 / have.len()).bytes());
    let small = packed(&bomb).await;
    assert!(small.len() < 1024 * 1024);
    let plain = request("POST", "private.git/git-upload-pack", FETCH, bomb);
    for bomb in [fetch_v2(small), with(plain, "git-protocol", "version=2")] {
        let answer = here.ask("git", bomb).await;
        assert_eq!(answer.status, 413, "{answer:?}");
    }
}

/// git with nothing of the caller's own.
fn git(folder: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=Tester", "-c", "user.email=tester@example.org"])
        .args(args)
        .current_dir(folder)
        .env("HOME", folder)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {args:?}: {complaint}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn git_clones() {
    let here = Here::new();
    let work = tempfile::tempdir().unwrap();
    git(work.path(), &["init", "-q", "-b", "main", "seed"]);
    let seed = work.path().join("seed");
    std::fs::write(seed.join("noise"), vec![7; 3_000_000]).unwrap();
    git(&seed, &["add", "."]);
    git(&seed, &["commit", "-q", "-m", "first"]);
    let (there, head) = (here.git_dir("private"), git(&seed, &["rev-parse", "HEAD"]));
    git(&seed, &["push", "-q", there.to_str().unwrap(), "main"]);

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}{PREFIX}private", listener.local_addr().unwrap());
    let auth = auth("git:read:private", AuthMethod::Bearer);
    let router = routes(here.server.clone()).layer(Extension(auth));
    let mut serving = tokio::task::JoinSet::new();
    serving.spawn(async move { axum::serve(listener, router).await });
    let clone = move || {
        for version in ["0", "1", "2"] {
            let protocol = format!("protocol.version={version}");
            let copy = format!("copy-{version}");
            git(work.path(), &["-c", &protocol, "clone", "-q", &base, &copy]);
            let copy = work.path().join(copy);
            git(&copy, &["fsck", "--strict"]);
            assert_eq!(git(&copy, &["rev-parse", "HEAD"]), head);
        }
        git(work.path(), &["clone", "-q", &format!("{base}.git"), "suffix"]);
    };
    tokio::task::spawn_blocking(clone).await.unwrap();
}
