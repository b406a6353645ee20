use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use alknet_core::{Alpn, Audit, AuthContext, ProtocolHandler as _, TransportKind};
use alknet_testing::{identities::identity, memory};
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::*;
use crate::{
    GitAdapter, GitConfig, GitServer, KeeperError, Mirror, Repositories, Settings,
    mirror::tests::{Fixture, git, loopback},
};

const REFS: [&str; 2] = ["for-each-ref", "--format=%(objectname) %(refname)"];
const OBJECTS: [&str; 3] = ["cat-file", "--batch-all-objects", "--batch-check=%(objectname)"];

/// Another node with the repositories `notes` and `private`, and the way there, at an address
/// of this machine.
struct Far {
    adapter: Arc<GitAdapter>,
    /// What this node may do there.
    scopes: Vec<&'static str>,
    served: Mutex<JoinSet<()>>,
    notes: PathBuf,
    _folder: TempDir,
}

impl fmt::Debug for Far {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Far")
    }
}

impl Far {
    fn new(scopes: &[&'static str]) -> Arc<Self> {
        let folder = tempfile::tempdir().unwrap();
        let all = Repositories::open(folder.path()).unwrap();
        let make = |name: &str| all.create(&name.parse().unwrap(), &Settings::default()).unwrap();
        let (notes, _) = (make("team/notes"), make("private"));
        let engine = InstalledGit::find().unwrap();
        let server = GitServer::new(GitConfig::new(all, engine, Audit::to_log()));
        Arc::new(Self {
            adapter: Arc::new(GitAdapter::new(server)),
            scopes: scopes.to_vec(),
            served: Mutex::default(),
            notes: notes.path,
            _folder: folder,
        })
    }
}

impl Nodes for Far {
    fn connect<'a>(
        &'a self,
        node: &'a str,
        policy: &'a MirrorPolicy,
    ) -> BoxFuture<'a, Result<Connection, MirrorError>> {
        if !policy.allows(IpAddr::from(Ipv4Addr::LOCALHOST)) {
            return Box::pin(async { Err(MirrorError::Forbidden(node.to_owned())) });
        }
        let (near, far) = memory::pair();
        let alpn = Alpn::service("git").unwrap();
        let mut auth = AuthContext::anonymous(alpn, TransportKind::Memory, None);
        auth.identity = Some(Arc::new(identity("near", &self.scopes)));
        let adapter = self.adapter.clone();
        self.served.lock().unwrap().spawn(async move { adapter.handle(far, auth).await.unwrap() });
        Box::pin(async move { Ok(near) })
    }
}

fn fixture(nodes: Arc<dyn Nodes>) -> Fixture {
    Fixture::with(loopback(), |config| config.nodes = Some(nodes))
}

#[tokio::test]
async fn a_mirror_has_what_a_repository_of_another_node_has() {
    let far = Far::new(&["git:read:team/notes"]);
    let here = fixture(far.clone());
    let source = here.source();
    fs::write(source.join("noise"), [7; 300_000]).unwrap();
    git(&source, &["add", "."]);
    git(&source, &["commit", "-q", "-m", "noise"]);
    let push = || git(&source, &["push", "-q", "--mirror", far.notes.to_str().unwrap()]);
    push();
    git(&far.notes, &["symbolic-ref", "HEAD", "refs/heads/trunk"]);
    let name = here.mirror("copies/notes", "alknet://far.example:4433/team/notes");
    assert_eq!(here.keeper.update(&name).await.unwrap().len(), 2);
    let copy = here.all.find(&name).unwrap();
    let same = || {
        git(&copy.path, &["fsck", "--strict", "--full"]);
        assert_eq!(git(&copy.path, &REFS), git(&far.notes, &REFS));
    };
    same();
    assert_eq!(git(&copy.path, &OBJECTS), git(&far.notes, &OBJECTS));
    assert_eq!(git(&copy.path, &["symbolic-ref", "HEAD"]), "refs/heads/trunk");
    // What is moved by force there is moved here, and what goes there goes here.
    git(&source, &["checkout", "-q", "-b", "other"]);
    git(&source, &["commit", "-q", "--amend", "-m", "two"]);
    git(&source, &["branch", "-q", "-f", "trunk", "HEAD"]);
    git(&source, &["tag", "-d", "v1"]);
    push();
    assert_eq!(here.keeper.update(&name).await.unwrap().len(), 3);
    same();
    assert_eq!(here.keeper.update(&name).await.unwrap(), []);
    // The first of those that are here goes, and the others do not.
    git(&far.notes, &["update-ref", "-d", "refs/heads/other"]);
    assert_eq!(here.keeper.update(&name).await.unwrap().len(), 1);
    same();
    git(&far.notes, &["update-ref", "-d", "refs/heads/trunk"]);
    let empty = here.keeper.update(&name).await;
    let is_empty = matches!(empty, Err(KeeperError::Mirror(MirrorError::Empty)));
    assert!(is_empty, "{empty:?}");
    assert_eq!(git(&copy.path, &["branch", "--list"]), "* trunk");
}

#[tokio::test]
async fn what_is_not_granted_there_is_not_had_here_and_says_so() {
    let here = fixture(Far::new(&["git:read:team/notes"]));
    let mut said = Vec::new();
    for repository in ["private", "missing"] {
        let name = here.mirror(repository, &format!("alknet://far/{repository}"));
        let refused = here.keeper.update(&name).await.unwrap_err();
        assert!(refused.to_string().contains("there is no repository"), "{refused}");
        said.push(refused.to_string().replace(repository, "NAME"));
        let status = here.all.mirror_status(&here.all.find(&name).unwrap()).unwrap();
        assert!(status.last_error.unwrap().contains("not yours to see"));
    }
    assert_eq!(said[0], said[1]);
}

#[tokio::test]
async fn no_node_is_reached_by_whom_nothing_reaches_or_that_the_policy_keeps_away() {
    let none = Fixture::with(loopback(), |_| ());
    let name = none.mirror("a", "alknet://far/team/notes");
    let refused = none.keeper.update(&name).await;
    assert!(matches!(refused, Err(KeeperError::Mirror(MirrorError::NoNodes))), "{refused:?}");

    let far = Far::new(&["git"]);
    let here = Fixture::with(Vec::new(), |config| config.nodes = Some(far.clone()));
    let name = here.mirror("a", "alknet://far/team/notes");
    let refused = here.keeper.update(&name).await;
    assert!(matches!(refused, Err(KeeperError::Mirror(MirrorError::Forbidden(_)))), "{refused:?}");
    assert!(far.served.lock().unwrap().is_empty());
}

/// A node that begins to answer and goes, or never answers.
#[derive(Debug, Default)]
struct Broken {
    silent: bool,
    reached: Arc<AtomicUsize>,
    served: Mutex<JoinSet<()>>,
}

impl Nodes for Broken {
    fn connect<'a>(
        &'a self,
        _: &'a str,
        _: &'a MirrorPolicy,
    ) -> BoxFuture<'a, Result<Connection, MirrorError>> {
        self.reached.fetch_add(1, Ordering::Relaxed);
        if self.silent {
            return Box::pin(std::future::pending());
        }
        let (near, far) = memory::pair();
        self.served.lock().unwrap().spawn(async move {
            let mut stream = far.accept_bi().await.unwrap();
            stream.write_all(b"000eversion 2\n000cagent=x\n").await.unwrap();
            // Git has heard it.
            let request = Request::read(&mut stream).await.unwrap();
            assert_eq!(request.repository.as_str(), "team/notes");
            far.close(Code::SHUTTING_DOWN, "");
        });
        Box::pin(async move { Ok(near) })
    }
}

#[tokio::test]
async fn a_node_that_goes_is_named() {
    let here = fixture(Arc::new(Broken::default()));
    let name = here.mirror("a", "alknet://far:4433/team/notes");
    let lost = here.keeper.update(&name).await.unwrap_err();
    let KeeperError::Mirror(MirrorError::Node { node, .. }) = &lost else { panic!("{lost:?}") };
    assert_eq!(node, "far:4433");
    let status = here.all.mirror_status(&here.all.find(&name).unwrap()).unwrap();
    assert_eq!(status.last_error.unwrap(), "the node far:4433 cannot be fetched from");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_never_answers_is_waited_for_no_longer_than_a_while() {
    let broken = Arc::new(Broken { silent: true, ..Broken::default() });
    let here = fixture(broken.clone());
    let name = here.mirror("a", "alknet://far/team/notes");
    let late = here.keeper.update(&name).await;
    assert!(matches!(late, Err(KeeperError::Mirror(MirrorError::Node { .. }))), "{late:?}");
    assert_eq!(broken.reached.load(Ordering::Relaxed), 1);
}

/// Neither who this node is nor where the other one is, nor any way but the stream.
#[tokio::test]
async fn git_gets_a_stream_and_knows_nothing_of_a_network() {
    let folder = tempfile::tempdir().unwrap();
    let (program, told) = (folder.path().join("git"), folder.path().join("told"));
    let script = format!("#!/bin/sh\n(env; echo \"$@\") > '{}'\nexit 1\n", told.display());
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    let far = Far::new(&["git"]);
    let here = Fixture::with(loopback(), |config| {
        config.nodes = Some(far);
        config.git = InstalledGit::named(program);
    });
    let name = here.mirror("a", "alknet://far.example/team/notes");
    here.keeper.update(&name).await.unwrap_err();
    let told = fs::read_to_string(told).unwrap();
    assert!(told.contains("GIT_ALLOW_PROTOCOL=fd\n") && told.contains("-- fd::3 +refs"), "{told}");
    assert!(!told.contains("far.example") && !told.contains("alknet://"), "{told}");
}

#[tokio::test]
async fn what_a_node_says_of_its_head_is_bounded() {
    let asked = async |said: &[u8]| {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        far.write_all(said).await.unwrap();
        far.shutdown().await.unwrap();
        ask(Stream::from_bistream(near), ASK_HEAD, head_of).await
    };
    let id = "1".repeat(40);
    let line = |text: String| format!("{:04x}{text}", text.len() + 4);
    let head = line(format!("{id} HEAD symref-target:refs/heads/main\n"));
    let answer = format!("000eversion 2\n0000{head}0000");
    assert_eq!(asked(answer.as_bytes()).await.unwrap().as_deref(), Some("main"));
    let detached = format!("000eversion 2\n0000{}0000", line(format!("{id} HEAD\n")));
    assert_eq!(asked(detached.as_bytes()).await.unwrap(), None);
    let endless = line("x".into()).repeat(200) + &head;
    assert_eq!(asked(endless.as_bytes()).await.unwrap(), None);
    for bad in [&b""[..], b"zzzz", b"0003", b"ffffshort", b"0001"] {
        assert!(asked(bad).await.is_err(), "{bad:?}");
    }
}

#[test]
fn only_an_address_of_a_node_leads_to_one() {
    let remote = |text: &str| Mirror::new(text.parse().unwrap()).url.of_node();
    assert_eq!(remote("https://far/team/notes"), None);
    for (text, node) in [
        ("alknet://far/team/notes.git", "far"),
        ("alknet://192.0.2.7:4433/team/notes", "192.0.2.7:4433"),
        ("alknet://[2001:db8::7]/team/notes", "[2001:db8::7]"),
    ] {
        let (name, repository) = remote(text).unwrap();
        assert_eq!((name.as_str(), repository.as_str()), (node, "team/notes"));
    }
}
