//! Large files, with the git-lfs of Debian.

use std::fs;

use super::{
    flows::{Remote, Work},
    http,
    native::install_helper,
    ssh,
};
use crate::{
    client::{Client, WAYS},
    process::text,
};

/// Pushes, clones and pulls large files, and locks them; then nothing differs.
fn everything(remote: &Remote) {
    let work = Work::new(remote, "lfs");
    work.git(".", &["lfs", "install", "--skip-repo"]);
    work.git(".", &["init", "-q", "seed"]);
    work.git("seed", &["lfs", "track", "*.bin", "--lockable"]);
    let contents = [vec![7; 3_000_000], Vec::new(), vec![9; 70_000]];
    for (number, content) in contents.iter().enumerate() {
        fs::write(work.at(&format!("seed/{number} ä.bin")), content).unwrap();
    }
    work.git("seed", &["add", "-A"]);
    work.git("seed", &["commit", "-q", "-m", "large files"]);
    work.git("seed", &["remote", "add", "origin", &work.url("a")]);
    // The repository is made by the push, and the objects come before that.
    work.git("seed", &["push", "-q", "origin", "main"]);
    work.there("a", &["fsck", "--strict", "--full"]);
    for number in [0, 2] {
        assert_kept(&work, &format!("{number} ä.bin"), &contents[number]);
    }

    work.clone_to("copy", &[]);
    for (number, content) in contents.iter().enumerate() {
        let name = work.at(&format!("copy/{number} ä.bin"));
        assert!(fs::read(&name).unwrap() == *content, "{name:?}");
    }
    work.git("copy", &["lfs", "fsck"]);

    fs::remove_file(work.at("copy/0 ä.bin")).unwrap();
    fs::write(work.at("copy/0 ä.bin"), "another").unwrap();
    work.git("copy", &["commit", "-q", "-am", "changed"]);
    work.git("copy", &["push", "-q", "origin", "main"]);
    work.git("seed", &["pull", "-q", "origin", "main"]);
    assert_eq!(fs::read(work.at("seed/0 ä.bin")).unwrap(), b"another");
    work.git("seed", &["lfs", "fsck"]);

    work.git("seed", &["lfs", "lock", "0 ä.bin"]);
    let listed = work.git("copy", &["lfs", "locks"]);
    assert!(listed.contains("0 ä.bin"), "{listed}");
    let again = work.refused("copy", &["lfs", "lock", "0 ä.bin"]);
    assert!(again.contains("lock"), "{again}");
    work.git("seed", &["lfs", "unlock", "0 ä.bin"]);
    assert_eq!(work.git("copy", &["lfs", "locks"]), "");
}

/// git has a pointer, and the node what it points to.
fn assert_kept(work: &Work<'_>, name: &str, content: &[u8]) {
    let pointer = work.git("seed", &["show", &format!("main:{name}")]);
    let oid = pointer.lines().find_map(|line| line.strip_prefix("oid sha256:"));
    let oid = oid.unwrap_or_else(|| panic!("{pointer}"));
    let objects = work.remote.folder(&work.repository("a")).join("lfs/objects");
    let path = objects.join(&oid[..2]).join(&oid[2..4]).join(oid);
    assert!(fs::read(&path).unwrap() == content, "{path:?}");
}

#[test]
fn large_files_over_https() {
    let rig = http::Rig::new();
    for version in ["HTTP/1.1", "HTTP/2"] {
        let token = rig.token("git");
        everything(&rig.remote(&token, version));
        fs::remove_dir_all(rig.home.path().join("repos/flows")).unwrap();
    }
    for event in ["git-lfs-upload", "git-lfs-download"] {
        rig.home.audited(event, |it| it["event"] == event && it["bytes"] == 3_000_000);
    }
}

#[test]
fn large_files_over_ssh_alone() {
    let rig = ssh::Rig::new("quic", "git");
    everything(&rig.remote());
}

/// Git is told once where the large files are of what comes by `alknet://`.
#[test]
fn large_files_over_https_of_what_goes_another_way() {
    let rig = http::Rig::new();
    let https = rig.remote(&rig.token("git"), "HTTP/2");
    let client = Client::known_to(&rig.home, "machine", "git");
    install_helper(&client.home);
    let (home, path) = (client.home.path().display(), std::env::var("PATH").unwrap());
    for via in WAYS {
        let url = format!("{}flows/lfs-a.git/info/lfs", https.base);
        let environment = [
            ("PATH", format!("{home}/bin:{path}")),
            ("ALKNET_HOME", home.to_string()),
            ("ALKNET_VIA", via.to_owned()),
        ];
        let environment = environment.map(|(key, value)| (key.to_owned(), value));
        everything(&Remote {
            base: format!("alknet://{}/", rig.node.address()),
            repositories: https.repositories.clone(),
            environment: [&https.environment[..], &environment].concat(),
            settings: [&https.settings[..], &[("lfs.url".to_owned(), url)]].concat(),
            archives: true,
        });
        fs::remove_dir_all(https.repositories.join("flows")).unwrap();
    }
}

#[test]
fn another_ones_lock_halts_a_push() {
    let rig = http::Rig::new();
    let (owner, other) = (rig.token("git"), rig.token_of_another("git"));
    let owner = rig.remote(&owner, "HTTP/2");
    let work = Work::new(&owner, "lock");
    work.git(".", &["lfs", "install", "--skip-repo"]);
    work.git(".", &["init", "-q", "seed"]);
    work.git("seed", &["lfs", "track", "*.bin"]);
    fs::write(work.at("seed/a.bin"), "one").unwrap();
    work.git("seed", &["add", "-A"]);
    work.git("seed", &["commit", "-q", "-m", "one"]);
    work.git("seed", &["remote", "add", "origin", &work.url("a")]);
    work.git("seed", &["push", "-q", "origin", "main"]);
    work.git("seed", &["lfs", "lock", "a.bin"]);

    let other = rig.remote(&other, "HTTP/2");
    let theirs = Work::new(&other, "lock");
    theirs.git(".", &["lfs", "install", "--skip-repo"]);
    theirs.clone_to("copy", &[]);
    fs::write(theirs.at("copy/a.bin"), "two").unwrap();
    theirs.git("copy", &["commit", "-q", "-am", "two"]);
    let halted = theirs.refused("copy", &["push", "origin", "main"]);
    assert!(halted.contains("locked files"), "{halted}");
    theirs.refused("copy", &["lfs", "unlock", "a.bin"]);
    theirs.git("copy", &["lfs", "unlock", "--force", "a.bin"]);
    theirs.git("copy", &["push", "-q", "origin", "main"]);
}

/// A remote by another way has one line that says where its large files are.
#[test]
fn any_remote_can_have_its_large_files_over_https() {
    let rig = http::Rig::new();
    let owner = rig.remote(&rig.token("git"), "HTTP/2");
    let work = Work::new(&owner, "elsewhere");
    work.git(".", &["lfs", "install", "--skip-repo"]);
    work.git(".", &["init", "-q", "seed"]);
    work.git("seed", &["lfs", "track", "*.bin"]);
    fs::write(work.at("seed/a.bin"), "large").unwrap();
    work.git("seed", &["add", "-A"]);
    work.git("seed", &["commit", "-q", "-m", "one"]);
    let url = format!("{}.git/info/lfs", work.url("a"));
    work.git("seed", &["push", "-q", "--no-verify", &work.url("a"), "main"]);
    work.git("seed", &["config", "lfs.url", &url]);
    work.git(".", &["init", "-q", "--bare", "local"]);
    let local = work.at("local");
    work.git("seed", &["remote", "add", "origin", local.to_str().unwrap()]);
    work.git("seed", &["push", "-q", "origin", "main"]);
    assert_kept(&work, "a.bin", b"large");
    // A reader fetches, and may not lock.
    let reader = rig.remote(&rig.token("git:read:*"), "HTTP/2");
    let theirs = Work::new(&reader, "elsewhere");
    theirs.git(".", &["lfs", "install", "--skip-repo"]);
    theirs.git(".", &["config", "--global", "lfs.url", &url]);
    theirs.git(".", &["clone", "-q", local.to_str().unwrap(), "copy"]);
    assert_eq!(fs::read(theirs.at("copy/a.bin")).unwrap(), b"large");
    let refused = theirs.output("copy", &["lfs", "lock", "a.bin"]);
    assert!(!refused.status.success(), "{}", text(&refused));
}
