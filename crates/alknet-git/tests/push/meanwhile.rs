//! What changes while a push is under way.

use std::{fs, net::SocketAddr, path::Path, process::Output, sync::Arc};

use alknet_core::{Credential, Identity, KeyFingerprint};
use alknet_git::{Mirror, OwnerHooks, Repositories, RepositoryName};
use alknet_testing::identities::{Identities, identity};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy},
    net::{TcpListener, TcpStream},
};

use crate::rig::{Rig, Work, appears, noise, refs, script, texts, url};

/// How much of a push comes before what changes: its commands and some of its pack.
const SOME: u64 = 5000;

/// What somebody does meanwhile.
type Change = fn(&Repositories, &RepositoryName, &Identities);

fn key() -> KeyFingerprint {
    KeyFingerprint::of_openssh_blob(b"anna")
}

/// Lets somebody do other things from now on.
fn grant(identities: &Identities, scopes: &[&str]) {
    identities.add_key(key(), identity("anna", scopes));
}

/// Each with what the pusher is told.
const CHANGES: [(Change, &str); 8] = [
    (
        |all, name, _| drop(all.configure(name, |it| it.protected = vec!["main".parse().unwrap()])),
        "protected: only descendants",
    ),
    (
        |all, name, _| {
            let mirror = Mirror::new("https://example.org/x.git".parse().unwrap());
            all.configure(name, |it| it.mirror = Some(mirror)).unwrap();
        },
        "notes is a copy of another repository",
    ),
    (|_, _, who| who.revoke_key(&key()), "your access has ended"),
    (
        |_, _, who| {
            let other = Identity::new(
                "id-other",
                "anna",
                ["git"].into_iter().collect(),
                Credential::Key(key()),
            );
            who.add_key(key(), other);
        },
        "your access has ended",
    ),
    (|_, _, who| grant(who, &["git:write:notes:refs/heads/x"]), "you may not push to this ref"),
    (|_, _, who| who.set_broken(true), "the push could not be checked"),
    (
        |all, name, _| all.rename(name, &"moved".parse().unwrap()).map(drop).unwrap(),
        "the repository is not there any more",
    ),
    (
        |all, name, _| {
            all.rename(name, &"moved".parse().unwrap()).unwrap();
            all.create(name, &alknet_git::Settings::default()).unwrap();
        },
        "the repository is not there any more",
    ),
];

/// Where somebody pushes, who has pushed before.
struct Scene {
    rig: Rig,
    identities: Arc<Identities>,
    work: Work,
    node: SocketAddr,
}

impl Scene {
    async fn new(hooks: &Path) -> Self {
        let identities = Arc::new(Identities::new());
        grant(&identities, &["git"]);
        let known = identities.clone();
        let mut rig = Rig::with(|config| {
            config.identities = Some(known);
            config.hooks = Some(OwnerHooks::new(hooks));
        });
        rig.make("notes", |_| ());
        let node = rig.port("anna", &["git"]).await;
        let work = rig.work("anna").await;
        work.git(&["push", &url(node, "notes"), "main"]).await;
        fs::write(work.path().join("noise"), noise(1, 50_000)).unwrap();
        work.git(&["checkout", "-q", "--orphan", "other"]).await;
        work.commit("other").await;
        Self { rig, identities, work, node }
    }

    fn change(&self, change: Change) {
        let name = "notes".parse().unwrap();
        change(self.rig.server.repositories(), &name, &self.identities);
    }

    /// The repository, whatever it is called by now.
    fn repository(&self) -> std::path::PathBuf {
        let name = if self.rig.is_there("moved") { "moved" } else { "notes" };
        self.rig.server.repositories().find(&name.parse().unwrap()).unwrap().path
    }

    /// Pushes, and does something once a part of it has come.
    async fn push(&self, change: Change) -> Output {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = url(listener.local_addr().unwrap(), "notes");
        let carry = async {
            let (client, _) = listener.accept().await.unwrap();
            let server = TcpStream::connect(self.node).await.unwrap();
            let (from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            let up = async {
                let mut some = from_client.take(SOME);
                assert_eq!(copy(&mut some, &mut to_server).await.unwrap(), SOME);
                self.change(change);
                let _ = copy(&mut some.into_inner(), &mut to_server).await;
                let _ = to_server.shutdown().await;
            };
            let _ = tokio::join!(up, copy(&mut from_server, &mut to_client));
        };
        let push = ["push", &to, "+other:main"];
        let pushed = self.work.run(&push);
        tokio::pin!(pushed);
        tokio::select! {
            pushed = &mut pushed => pushed,
            () = carry => pushed.await,
        }
    }
}

fn check(nth: usize, pushed: &Output, why: &str) {
    let complaint = texts(pushed).1;
    assert!(!pushed.status.success(), "{nth}");
    // Git breaks long lines of its own.
    assert!(complaint.contains(why), "{nth}: {complaint}");
}

#[tokio::test]
async fn a_push_is_decided_by_what_holds_when_it_has_come() {
    for (nth, (change, why)) in CHANGES.into_iter().enumerate() {
        let hooks = tempfile::tempdir().unwrap();
        let scene = Scene::new(hooks.path()).await;
        let before = refs(&scene.repository()).await;
        check(nth, &scene.push(change).await, why);
        scene.rig.quiet(&scene.repository()).await;
        assert_eq!(refs(&scene.repository()).await, before, "{nth}");
    }
    let hooks = tempfile::tempdir().unwrap();
    let scene = Scene::new(hooks.path()).await;
    let pushed = scene.push(|_, _, who| grant(who, &["git:write:notes"])).await;
    assert!(pushed.status.success(), "{:?}", texts(&pushed));
}

#[tokio::test]
async fn a_quota_holds_for_what_is_under_way() {
    let hooks = tempfile::tempdir().unwrap();
    let scene = Scene::new(hooks.path()).await;
    let before = refs(&scene.repository()).await;
    let smaller: Change = |all, name, _| {
        all.configure(name, |it| it.quota = Some(40_000)).unwrap();
    };
    check(0, &scene.push(smaller).await, "the repository would have");
    assert_eq!(refs(&scene.repository()).await, before);
}

#[tokio::test]
async fn hooks_take_their_time_and_what_changes_meanwhile_holds_too() {
    for (nth, (change, why)) in CHANGES.into_iter().enumerate() {
        for hook in ["pre-receive", "update"] {
            let hooks = tempfile::tempdir().unwrap();
            let scene = Scene::new(hooks.path()).await;
            let before = refs(&scene.repository()).await;
            let (begun, go) = (hooks.path().join("begun"), hooks.path().join("go"));
            let text = "touch BEGUN\nuntil [ -e GO ]; do sleep 0.02; done";
            let text = text.replace("BEGUN", begun.to_str().unwrap());
            let text = text.replace("GO", go.to_str().unwrap());
            script(&hooks.path().join(hook), &text, 0o755);
            let changes = async {
                appears(&begun).await;
                scene.change(change);
                fs::write(&go, "").unwrap();
            };
            let to = url(scene.node, "notes");
            let push = ["push", &to, "+other:main"];
            let (pushed, ()) = tokio::join!(scene.work.run(&push), changes);
            check(nth, &pushed, why);
            assert_eq!(refs(&scene.repository()).await, before, "{nth} {hook}");
        }
    }
}
