//! Repositories by HTTPS, with stock clients.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::Value;

use super::flows::{self, Remote, Work};
use crate::{
    client::Client,
    https::{http3, raw, request},
    node::{Home, Node},
    process::{output, stdout, text},
};

/// A node that shows itself, and the means to trust it.
pub(super) struct Rig {
    pub(super) home: Home,
    pub(super) node: Node,
    /// The node's certificate.
    pub(super) authority: PathBuf,
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::with(&[])
    }

    fn with(args: &[&str]) -> Self {
        let home = Home::new();
        flows::prepare(&home);
        let node = Node::start(&home, args);
        let authority = home.path().join("node.pem");
        let address = node.address().to_string();
        let shown = Command::new("openssl")
            .args(["s_client", "-connect", &address, "-servername", "localhost"])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        let (begin, end) = ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----");
        let (_, rest) = shown.split_once(begin).unwrap_or_else(|| panic!("{shown}"));
        let (body, _) = rest.split_once(end).unwrap();
        fs::write(&authority, format!("{begin}{body}{end}\n")).unwrap();
        Self { home, node, authority }
    }

    pub(super) fn token(&self, scopes: &str) -> String {
        self.created(&["--scope", scopes])
    }

    /// The same for a peer who is not the owner.
    pub(super) fn token_of_another(&self, scopes: &str) -> String {
        Client::known_to(&self.home, "other", scopes);
        self.created(&["--peer", "other"])
    }

    fn created(&self, args: &[&str]) -> String {
        let create = [&["token", "create", "--json"], args].concat();
        let created = stdout(&output(&mut self.home.alknet(&create)));
        let created: Value = serde_json::from_str(&created).unwrap();
        created["token"].as_str().unwrap().to_owned()
    }

    pub(super) fn base(&self) -> String {
        format!("https://localhost:{}/alknet/git/", self.node.address().port())
    }

    /// The repositories for the holder of a token, who gives it as a password, and by this
    /// version of HTTP.
    pub(super) fn remote(&self, token: &str, version: &str) -> Remote {
        let helper = self.home.path().join("credential-helper");
        // git asks it for a password, and tells it of wrong ones.
        let script = "#!/bin/sh\n[ \"$1\" = get ] && echo username=any && \
                      echo \"password=$TEST_TOKEN\"\nexit 0\n";
        fs::write(&helper, script).unwrap();
        fs::set_permissions(&helper, fs::Permissions::from_mode(0o700)).unwrap();
        let settings = [
            ("credential.helper", helper.display().to_string()),
            ("http.version", version.to_owned()),
            // Most of a push goes in pieces.
            ("http.postBuffer", "65536".to_owned()),
            ("lfs.locksverify", "true".to_owned()),
        ];
        Remote {
            base: self.base(),
            repositories: self.home.path().join("repos"),
            environment: vec![
                ("TEST_TOKEN".into(), token.to_owned()),
                // Which also takes the place of one in the caller's environment.
                ("GIT_SSL_CAINFO".into(), self.authority.display().to_string()),
            ],
            settings: settings.map(|(key, value)| (key.to_owned(), value)).into(),
            archives: false,
        }
    }

    fn curl(&self, args: &[&str], path: &str) -> Output {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--http1.1", "--cacert"]).arg(&self.authority);
        output(curl.args(args).arg(format!("{}{path}", self.base())))
    }

    fn status(&self, args: &[&str], path: &str) -> String {
        let mut all = vec!["--output", "/dev/null", "--write-out", "%{http_code}"];
        all.extend(args);
        stdout(&self.curl(&all, path))
    }
}

#[test]
fn every_flow_over_http_1() {
    let rig = Rig::new();
    flows::all(&rig.remote(&rig.token("git"), "HTTP/1.1"));
}

#[test]
fn every_flow_over_http_2() {
    let rig = Rig::new();
    flows::all(&rig.remote(&rig.token("git"), "HTTP/2"));
}

/// git itself knows no HTTP/3 (RFC 9114).
#[tokio::test(flavor = "multi_thread")]
async fn http_3_reaches_the_same() {
    let rig = Rig::new();
    let owner = rig.remote(&rig.token("git"), "HTTP/2");
    let (head, token) = tokio::task::block_in_place(|| {
        let work = Work::new(&owner, "three");
        work.publish();
        (work.git("seed", &["rev-parse", "main"]), rig.token("git:read:*"))
    });
    let bearer = format!("Bearer {token}");
    let fields = [
        ("authorization", bearer.as_str()),
        ("git-protocol", "version=2"),
        ("content-type", "application/x-git-upload-pack-request"),
    ];
    let path = "/alknet/git/flows/three-a.git/git-upload-pack";
    let list = Bytes::from_static(b"0014command=ls-refs\n0000");
    let mut request = request(&rig.node, path, &fields, list);
    *request.method_mut() = http::Method::POST;
    let answer = http3(&rig.node).await.request(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    let listed = String::from_utf8_lossy(answer.body()).into_owned();
    assert!(listed.contains(&format!("{head} refs/heads/main\n")), "{listed}");
}

#[test]
fn debians_git_goes_through_it_as_well() {
    let rig = Rig::new();
    let mut remote = rig.remote(&rig.token("git"), "HTTP/2");
    remote.environment.push(("PATH".into(), "/usr/bin:/bin".into()));
    let work = Work::new(&remote, "debian");
    work.publish();
    work.clone_to("copy", &["--mirror"]);
    work.assert_same("copy", "a");
}

#[test]
fn a_token_is_what_lets_somebody_in() {
    let rig = Rig::new();
    let owner = rig.remote(&rig.token("git"), "HTTP/2");
    let work = Work::new(&owner, "tokens");
    work.publish();
    for token in ["alk_wrong", "", "password", &rig.token("ssh"), &rig.token("git:read:other")] {
        let remote = rig.remote(token, "HTTP/2");
        let work = Work::new(&remote, "tokens");
        work.refused(".", &["clone", "-q", &work.url("a"), "copy"]);
        let there = work.refused(".", &["ls-remote", &work.url("a")]);
        let missing = work.refused(".", &["ls-remote", &work.url("b")]);
        assert_eq!(there.replace("tokens-a", "R"), missing.replace("tokens-b", "R"));
    }
    rig.home.audited("the wrong token", |event| {
        event["event"] == "refused" && event["reason"] == "unknown bearer token"
    });
    // As a bearer token as well.
    let bearer = format!("http.extraHeader=Authorization: Bearer {}", rig.token("git:read:*"));
    let remote = rig.remote("", "HTTP/2");
    let work = Work::new(&remote, "tokens");
    work.git(".", &["-c", &bearer, "clone", "-q", &work.url("a"), "copy"]);
    let refused = work.refused("copy", &["-c", &bearer, "push", "origin", "main:new"]);
    assert!(refused.contains("403"), "{refused}");
}

#[test]
fn a_public_repository_needs_no_token_to_be_read() {
    let rig = Rig::new();
    let owner = rig.remote(&rig.token("git"), "HTTP/2");
    let work = Work::new(&owner, "public");
    work.publish();
    let settings = owner.folder("flows/public-a").join("alknet.toml");
    fs::write(settings, "public = true\n").unwrap();
    let anybody = rig.remote("", "HTTP/2");
    let work = Work::new(&anybody, "public");
    work.clone_to("copy", &["--mirror"]);
    work.assert_same("copy", "a");
    work.refused("copy", &["push", "origin", "main:new"]);
}

#[test]
fn what_is_no_request_of_git_is_refused() {
    let rig = Rig::new();
    let token = rig.token("git");
    let owner = rig.remote(&token, "HTTP/2");
    Work::new(&owner, "odd").publish();
    let user = format!("any:{token}");
    let name = "flows/odd-a.git";
    for (path, status) in [
        ("info/refs?service=git-upload-pack", "200"),
        ("info/refs", "403"),
        ("HEAD", "404"),
        ("objects/info/packs", "404"),
        ("../odd-a.git/info/refs?service=git-upload-pack", "404"),
        ("%2e%2e/odd-a.git/info/refs?service=git-upload-pack", "404"),
        ("..%2fodd-a.git/info/refs?service=git-upload-pack", "404"),
        ("info%2frefs?service=git-upload-pack", "404"),
        ("git-upload-pack", "405"),
    ] {
        let path = format!("{name}/{path}");
        assert_eq!(rig.status(&["--path-as-is", "--user", &user], &path), status, "{path}");
    }
    let kind = "Content-Type: application/x-git-upload-pack-request";
    let expect = ["--user", &user, "--data", "0000", "--header", kind, "--header"];
    let expect = [&expect[..], &["Expect: 100-continue"]].concat();
    assert_eq!(rig.status(&expect, &format!("{name}/git-upload-pack")), "200");
    let head = ["--head", "--user", &user];
    assert_eq!(rig.status(&head, &format!("{name}/info/refs?service=git-upload-pack")), "405");
    let form = ["--user", &user, "--data", "0000"];
    assert_eq!(rig.status(&form, &format!("{name}/git-receive-pack")), "415");
    let site = ["--user", &user, "--header", "Sec-Fetch-Site: cross-site"];
    assert_eq!(rig.status(&site, &format!("{name}/info/refs?service=git-upload-pack")), "401");
}

/// A request whose answer must not tell whether the repository is there.
fn blind(name: &str) -> Vec<(String, String, String)> {
    let kind = |kind: &str| format!("Content-Type: {kind}\r\nContent-Length: 4\r\n");
    let fetch = kind("application/x-git-upload-pack-request");
    let lfs = kind("application/vnd.git-lfs+json");
    let post = |path: &str, headers: &str| {
        (format!("POST /alknet/git/{name}{path}"), headers.to_owned(), "0000".to_owned())
    };
    let get = |path: &str| (format!("GET /alknet/git/{name}{path}"), String::new(), String::new());
    vec![
        get(".git/info/refs?service=git-upload-pack"),
        get("/info/refs?service=git-receive-pack"),
        get(".git/info/refs"),
        get(".git/HEAD"),
        get(".git/info/lfs/locks"),
        post(".git/git-upload-pack", &fetch),
        post(".git/git-receive-pack", &kind("application/x-git-receive-pack-request")),
        post(".git/info/lfs/objects/batch", &lfs),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_repository_is_answered_like_none() {
    let rig = Rig::new();
    let owner = rig.remote(&rig.token("git"), "HTTP/2");
    let url = tokio::task::block_in_place(|| {
        Work::new(&owner, "hidden").publish();
        rig.token("git:read:other")
    });
    let basic = STANDARD.encode(format!("any:{url}"));
    let cookie = "Cookie: __Host-alknet=alk_wrong\r\n".to_owned();
    for who in [String::new(), cookie, format!("Authorization: Basic {basic}\r\n")] {
        let status = if who.starts_with("Auth") { "404" } else { "401" };
        for (there, missing) in blind("flows/hidden-a").into_iter().zip(blind("flows/hidden-b")) {
            let ask = async |(line, headers, body): (String, String, String)| {
                let headers = format!("Connection: close\r\n{headers}{who}");
                raw(&rig.node, &line, &headers, body.as_bytes()).await
            };
            let (line, _, _) = there.clone();
            let (there, missing) = (ask(there).await, ask(missing).await);
            assert_eq!(there, missing, "{line}");
            assert!(there.starts_with(&format!("HTTP/1.1 {status} ")), "{line} {there}");
            assert_eq!(there.contains("Basic realm=\"alknet\""), status == "401", "{there}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_under_cover_asks_for_nothing() {
    let rig = Rig::with(&["--cover"]);
    let owner = rig.remote(&rig.token("git"), "HTTP/1.1");
    let token = tokio::task::block_in_place(|| {
        // git does not ask for a password unless it is told that one is needed.
        let bearer = format!("Authorization: Bearer {}", rig.token("git"));
        let mut owner = owner;
        owner.settings.retain(|(key, _)| key != "credential.helper");
        owner.settings.push(("http.extraHeader".into(), bearer));
        let work = Work::new(&owner, "cover");
        work.publish();
        work.clone_to("copy", &["--mirror"]);
        work.assert_same("copy", "a");
        let public = owner.folder("flows/cover-a").join("alknet.toml");
        fs::write(public, "public = true\n").unwrap();
        rig.token("git:read:other")
    });
    let basic = format!("Authorization: Basic {}\r\n", STANDARD.encode(format!("any:{token}")));
    let nothing = |line: &str| match line.split_once(' ').unwrap().0 {
        "POST" => "POST /nothing".to_owned(),
        _ => "GET /nothing".to_owned(),
    };
    for (who, name) in [
        (String::new(), "flows/cover-a"),
        (String::new(), "flows/cover-b"),
        (basic, "flows/cover-b"),
    ] {
        for (line, headers, body) in blind(name) {
            let headers = format!("Connection: close\r\n{headers}{who}");
            let answer = raw(&rig.node, &line, &headers, body.as_bytes()).await;
            let decoy = raw(&rig.node, &nothing(&line), &headers, body.as_bytes()).await;
            assert_eq!(answer, decoy, "{line}");
        }
    }
}

#[test]
fn a_large_push_is_not_held_in_memory() {
    let rig = Rig::new();
    let owner = rig.remote(&rig.token("git"), "HTTP/1.1");
    let work = Work::new(&owner, "large");
    work.publish();
    let before = rig.node.resident();
    let name = work.at("seed/large");
    let made = Command::new("head").args(["-c", "120000000", "/dev/urandom"]).output().unwrap();
    fs::write(name, made.stdout).unwrap();
    work.git("seed", &["add", "large"]);
    work.git("seed", &["commit", "-q", "-m", "large"]);
    work.git("seed", &["-c", "core.compression=0", "push", "-q", "origin", "main"]);
    let after = rig.node.resident();
    assert!(after < before + 60_000_000, "{before} {after}");
    work.assert_same("seed", "a");
}

/// dulwich (PyPI), an implementation of its own, from the folder that `cargo xtask test` puts
/// it in.
#[test]
fn dulwich_clones_and_pushes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let python = root.join("target/xtask/python/venv/bin/python3");
    assert!(python.exists(), "dulwich is not there: run `cargo xtask test`");
    let rig = Rig::new();
    let token = rig.token("git");
    let owner = rig.remote(&token, "HTTP/2");
    let work = Work::new(&owner, "dulwich");
    work.publish();
    let ran = output(
        Command::new(python)
            .arg(root.join("crates/alknet/tests/e2e/git/http/dulwich_client.py"))
            .arg(work.url("a"))
            .arg(&rig.authority)
            .arg(work.at("copy"))
            .env("TEST_TOKEN", &token)
            .env("HOME", rig.home.path()),
    );
    assert!(ran.status.success(), "{}", text(&ran));
    let head = ["rev-parse", "main"];
    assert_eq!(work.git("copy", &head), work.there("a", &head));
    assert_eq!(work.there("a", &["show", "main:by-dulwich"]), "here");
    work.there("a", &["fsck", "--strict", "--full"]);
    work.git("copy", &["fsck", "--full"]);
}
