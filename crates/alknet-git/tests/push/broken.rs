//! Pushes that do not come to their end, and pushes that meet.

use std::{fs, net::SocketAddr};

use alknet_git::OwnerHooks;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy},
    net::{TcpListener, TcpStream},
};

use crate::rig::{LONG, Rig, gits_in, refs, texts, url};

/// Carries one connection and cuts it after so many bytes of the client's; how many there were.
async fn cut(listener: &TcpListener, to: SocketAddr, after: usize) -> usize {
    let (client, _) = listener.accept().await.unwrap();
    let server = TcpStream::connect(to).await.unwrap();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let mut carried = 0;
    let up = async {
        let mut buffer = vec![0; 4096];
        while carried < after {
            let most = buffer.len().min(after - carried);
            let count = from_client.read(&mut buffer[..most]).await.unwrap_or(0);
            if count == 0 || to_server.write_all(&buffer[..count]).await.is_err() {
                break;
            }
            carried += count;
        }
        if carried < after {
            let _ = to_server.shutdown().await;
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = up => {}
        _ = copy(&mut from_server, &mut to_client) => {}
    }
    carried
}

#[tokio::test]
async fn a_push_that_is_cut_anywhere_leaves_everything_as_it_was() {
    let mut rig = Rig::new();
    let repository = rig.make("notes", |_| ());
    let anna = rig.port("anna", &["git"]).await;
    let work = rig.work("anna").await;
    work.git(&["push", &url(anna, "notes"), "main"]).await;
    for nth in 0..20 {
        let noise: String = (0..2000_u64)
            .map(|k| format!("{:x}\n", k.wrapping_mul(0x9e37_79b9_7f4a_7c15 + nth)))
            .collect();
        fs::write(work.path().join(format!("file{nth}")), noise).unwrap();
    }
    work.commit("second").await;
    let before = refs(&repository).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let through = url(listener.local_addr().unwrap(), "notes");
    let push = ["push", &through, "main", "main:x"];
    let whole = {
        // Refused at the end, so that it can be repeated.
        let push = ["push", &through, "main:refs/alknet/x"];
        tokio::join!(work.run(&push), cut(&listener, anna, usize::MAX)).1
    };
    assert!(whole > 100_000, "{whole}");
    let line = 60;
    let places = [1, 4, 20, line, line + 60, line + 150, line + 230, line + 260];
    let places = places.into_iter().chain((1..8).map(|nth| whole / 8 * nth)).chain([whole - 1]);
    for place in places {
        let (pushed, carried) = tokio::join!(work.run(&push), cut(&listener, anna, place));
        assert_eq!(carried, place, "{}", texts(&pushed).1);
        assert!(!pushed.status.success(), "{place}");
        rig.quiet(&repository).await;
        assert_eq!(refs(&repository).await, before, "{place}");
    }
    work.git(&["push", &url(anna, "notes"), "main", "main:x"]).await;
}

#[tokio::test]
async fn a_repository_that_a_broken_push_has_made_goes_again() {
    let mut rig = Rig::new();
    let anna = rig.port("anna", &["git"]).await;
    let work = rig.work("anna").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let through = url(listener.local_addr().unwrap(), "new");
    for place in [100, 200, 350] {
        let push = ["push", &through, "main"];
        let (_, carried) = tokio::join!(work.run(&push), cut(&listener, anna, place));
        assert_eq!(carried, place);
        rig.gone("new").await;
    }
    work.git(&["push", &url(anna, "new"), "main"]).await;
    assert!(rig.is_there("new"));
}

/// A hook that waits for another one like it.
const MEET: &str = "#!/bin/sh
touch HERE/$$
for i in $(seq 600); do
    [ $(ls HERE | wc -l) -ge 2 ] && exit 0
    sleep 0.1
done
exit 1
";

fn hook(rig: &tempfile::TempDir, name: &str, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let path = rig.path().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn of_two_pushes_to_one_ref_one_wins() {
    let (hooks, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let owner = OwnerHooks::new(hooks.path());
    let mut rig = Rig::with(|config| config.hooks = Some(owner));
    let repository = rig.make("notes", |_| ());
    let anna = rig.port("anna", &["git"]).await;
    let to = url(anna, "notes");
    let (one, two) = (rig.work("one").await, rig.work("two").await);
    one.git(&["push", &to, "main"]).await;
    two.git(&["fetch", "-q", &to, "main"]).await;
    two.git(&["reset", "-q", "--hard", "FETCH_HEAD"]).await;
    let (a, b) = (one.commit("by one").await, two.commit("by two").await);
    hook(&hooks, "pre-receive", &MEET.replace("HERE", here.path().to_str().unwrap()));
    let push = ["push", &to, "main"];
    let (first, second) = tokio::join!(one.run(&push), two.run(&push));
    assert_ne!(first.status.success(), second.status.success());
    let winner = if first.status.success() { a } else { b };
    assert_eq!(refs(&repository).await, format!("{winner} refs/heads/main"));
    let loser = if first.status.success() { second } else { first };
    assert!(texts(&loser).1.contains("! [remote rejected] main -> main"), "{:?}", texts(&loser));
    rig.quiet(&repository).await;
}

#[tokio::test]
async fn a_git_of_the_node_that_is_killed_changes_nothing() {
    let (hooks, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let owner = OwnerHooks::new(hooks.path());
    let mut rig = Rig::with(|config| config.hooks = Some(owner));
    let repository = rig.make("notes", |_| ());
    let anna = rig.port("anna", &["git"]).await;
    let (to, work) = (url(anna, "notes"), rig.work("anna").await);
    hook(&hooks, "pre-receive", &MEET.replace("HERE", here.path().to_str().unwrap()));
    let push = ["push", &to, "main"];
    let kill = async {
        while fs::read_dir(here.path()).unwrap().next().is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        // As it has them while it changes refs.
        for lock in ["refs/heads/main.lock", "HEAD.lock"] {
            fs::write(repository.join(lock), "").unwrap();
        }
        let gits = gits_in(&repository);
        assert!(!gits.is_empty());
        for id in gits {
            kill_process(Pid::from_raw(id).unwrap(), Signal::KILL).unwrap();
        }
    };
    let (pushed, ()) = tokio::join!(work.run(&push), kill);
    assert!(!pushed.status.success());
    rig.quiet(&repository).await;
    assert_eq!(refs(&repository).await, "");
    fs::remove_file(hooks.path().join("pre-receive")).unwrap();
    let locked = async {
        while repository.join("refs/heads/main.lock").exists() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, locked).await.unwrap();
    work.git(&push).await;
}

#[tokio::test]
async fn a_start_takes_away_what_a_killed_node_has_left() {
    let mut rig = Rig::new();
    let repository = rig.make("notes", |_| ());
    let anna = rig.port("anna", &["git"]).await;
    let (to, work) = (url(anna, "notes"), rig.work("anna").await);
    fs::create_dir_all(repository.join("objects/tmp_objdir-incoming-x/pack")).unwrap();
    fs::write(repository.join("refs/heads/main.lock"), "").unwrap();
    work.fails(&["push", &to, "main"]).await;
    rig.server.sweep().await.unwrap();
    work.git(&["push", &to, "main"]).await;
    rig.quiet(&repository).await;
}
