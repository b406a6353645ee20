//! Signed pushes.

use std::{
    fs,
    io::Cursor,
    path::{Path, PathBuf},
    process::Command,
};

use alknet_core::AuditEvent;
use alknet_git::{Framing, InstalledGit, Request, Service};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

use crate::rig::{Rig, caller, connect, look, url};

/// A pack without objects.
const EMPTY: &[u8] = b"PACK\0\0\0\x02\0\0\0\0\
    \x02\x9d\x08\x82\x3b\xd8\xa8\xea\xb5\x10\xad\x6a\xc7\x5c\x82\x3c\xfd\x3e\xd3\x1e";

/// A server that knows the signatures of a key.
fn rig() -> (Rig, TempDir, PathBuf) {
    let keys = tempfile::tempdir().unwrap();
    let key = new_key(keys.path(), "key");
    let public = fs::read_to_string(key.with_extension("pub")).unwrap();
    let signers = keys.path().join("signers");
    fs::write(&signers, format!("anna@example.org namespaces=\"git\" {public}")).unwrap();
    let git = InstalledGit::find().unwrap();
    let rig = Rig::set_up(git, |setup| setup.allowed_signers = Some(signers), |_| ());
    (rig, keys, key)
}

fn new_key(folder: &Path, name: &str) -> PathBuf {
    let key = folder.join(name);
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "anna", "-f"])
        .arg(&key)
        .status();
    assert!(made.unwrap().success());
    key
}

/// The objects of a repository that are in no pack.
fn loose(repository: &Path) -> Vec<PathBuf> {
    let folders = fs::read_dir(repository.join("objects")).unwrap().flatten();
    let folders = folders.filter(|it| it.file_name().len() == 2);
    folders.flat_map(|it| fs::read_dir(it.path()).unwrap().flatten()).map(|it| it.path()).collect()
}

/// What a client sends that has signed: these lines, and what they end with.
fn signed<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let lines = ["push-cert\0report-status"].into_iter().chain(lines).chain(["push-cert-end\n"]);
    let mut sent: String = lines.map(|line| format!("{:04x}{line}", line.len() + 4)).collect();
    sent += "0000";
    sent.into()
}

/// Sends that to a server; what it answers.
async fn push(rig: &mut Rig, sent: &[u8]) -> Vec<u8> {
    let anna = rig.port("anna", &["git"]).await;
    let mut stream = connect(anna).await;
    let request = Request::new(Service::ReceivePack, "notes".parse().unwrap()).version(0);
    stream.write_all(&request.to_line("x")).await.unwrap();
    // The server may have had enough.
    let _ = stream.write_all(sent).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    answer
}

/// One part of an exchange by HTTP.
async fn exchange(rig: &Rig, name: &str, framing: Framing, input: Vec<u8>) -> String {
    let request = Request::new(Service::ReceivePack, name.parse().unwrap()).version(0);
    let admitted = rig.server.admit(&request, &caller("anna", &["git"])).await.unwrap();
    let (mut near, far) = duplex(1 << 16);
    let served = rig.server.exchange(&request, admitted, framing, Cursor::new(input), far);
    let mut said = Vec::new();
    let (served, read) = tokio::join!(served, near.read_to_end(&mut said));
    served.unwrap();
    read.unwrap();
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test]
async fn the_signature_of_a_push_is_verified_and_recorded() {
    let (mut rig, keys, key) = rig();
    rig.make("notes", |_| ());
    let anna = rig.port("anna", &["git"]).await;
    let work = rig.work("anna").await;
    let key = format!("user.signingKey={}", key.display());
    let sign = ["-c", "gpg.format=ssh", "-c", &key, "push", "--signed"];
    work.git(&[&sign[..], &[&url(anna, "notes"), "main"]].concat()).await;
    let entries = rig.log.wait("git-push").await;
    let signature = entries[0].signature.as_deref().unwrap();
    assert!(signature.starts_with("verified: anna@example.org (SHA256:"), "{signature}");
    work.git(&["push", &url(anna, "notes"), "main:unsigned"]).await;
    assert_eq!(rig.log.wait_for("git-push", 2).await[1].signature, None);

    // Anybody can sign with a key of their own.
    let own = new_key(keys.path(), "own");
    let own = format!("user.signingKey={}", own.display());
    let sign = ["-c", "gpg.format=ssh", "-c", &own, "push", "--signed"];
    work.git(&[&sign[..], &[&url(anna, "notes"), "main:anybody"]].concat()).await;
    let signature = rig.log.wait_for("git-push", 3).await[2].signature.clone();
    assert_eq!(signature.as_deref(), Some("unverified: signature U, nonce OK"));
}

#[tokio::test]
async fn nothing_that_is_signed_is_kept_where_nobody_can_verify_it() {
    let mut rig = Rig::new();
    let repository = rig.make("notes", |_| ());
    let anna = rig.port("anna", &["git"]).await;
    let work = rig.work("anna").await;
    let refused = work.fails(&["push", "--signed", &url(anna, "notes"), "main"]).await;
    assert!(refused.contains("does not support --signed push"), "{refused}");

    // Nor for a client that does not ask.
    let change = format!("{} {} refs/heads/x\n", "1".repeat(40), "0".repeat(40));
    let (begin, junk) = ("-----BEGIN SSH SIGNATURE-----\n", "x".repeat(60_000));
    let lines = ["certificate version 0.1\n", "pusher anna\n", "\n", &change, begin, &junk];
    push(&mut rig, &signed(lines)).await;
    rig.quiet(&repository).await;
    assert!(loose(&repository).is_empty());
}

#[tokio::test]
async fn a_certificate_stays_only_with_what_it_has_changed() {
    let (mut rig, _keys, key) = rig();
    let repository = rig.make("notes", |_| ());
    let anna = rig.port("anna", &["git:write:notes:refs/heads/mine"]).await;
    let work = rig.work("anna").await;
    let key = format!("user.signingKey={}", key.display());
    let sign = ["-c", "gpg.format=ssh", "-c", &key, "push", "--signed"];
    for nth in 1..4 {
        let refused = work.fails(&[&sign[..], &[&url(anna, "notes"), "main"]].concat()).await;
        assert!(refused.contains("you may not push to this ref"), "{refused}");
        let entries = rig.log.wait_for(AuditEvent::REFUSED, nth).await;
        assert!(entries[0].signature.as_ref().unwrap().starts_with("verified"));
        rig.quiet(&repository).await;
    }
    // Git ends where it finds no signature, and is told not to change a ref twice, both after it
    // has kept what was signed.
    let change = format!("{} {} refs/heads/mine\n", "1".repeat(40), "0".repeat(40));
    let lines = ["certificate version 0.1\n", "pusher anna\n", "\n", &change, &change];
    let begin = "-----BEGIN SSH SIGNATURE-----\n";
    for (nth, (begin, why)) in [("", "bad/incompatible signature"), (begin, "a ref is named twice")]
        .into_iter()
        .enumerate()
    {
        push(&mut rig, &signed(lines.into_iter().chain([begin]))).await;
        let entries = rig.log.wait_for(AuditEvent::REFUSED, 4 + nth).await;
        let refused = entries[3 + nth].changes[0].refused.clone().unwrap();
        assert!(refused.contains(why), "{refused}");
    }
    // Whoever pushes next waits until it is gone.
    work.git(&["ls-remote", &url(anna, "notes")]).await;
    work.git(&["push", &url(anna, "notes"), "main:mine"]).await;
    assert!(loose(&repository).is_empty());
    work.commit("second").await;
    work.git(&[&sign[..], &[&url(anna, "notes"), "main:mine"]].concat()).await;
    rig.quiet(&repository).await;
    assert_eq!(loose(&repository).len(), 1);
    // Nor does somebody who sends the same take away what was there before.
    let blob = loose(&repository).remove(0);
    let id = blob.strip_prefix(repository.join("objects")).unwrap().to_str().unwrap();
    let text = look(&repository, &["cat-file", "blob", &id.replace('/', "")]).await + "\n";
    work.commit("third").await;
    work.git(&["push", &url(anna, "notes"), "main:mine"]).await;
    let again = [signed(text.split_inclusive('\n')), EMPTY.to_vec()].concat();
    push(&mut rig, &again).await;
    rig.log.wait_for(AuditEvent::REFUSED, 6).await;
    work.git(&["push", &url(anna, "notes"), "main:mine"]).await;
    assert_eq!(loose(&repository), [blob]);
}

#[tokio::test]
async fn a_certificate_is_bounded_by_its_length_and_the_quota() {
    let (mut rig, _keys, _) = rig();
    let repository = rig.make("notes", |it| it.quota = Some(1 << 20));
    let change = format!("{} {} refs/alknet/x\n", "0".repeat(40), "1".repeat(40));
    let (version, junk) = ("certificate version 0.1\n", format!("x {}\n", "x".repeat(60_000)));
    let mut long = vec![version];
    long.extend(std::iter::repeat_n(junk.as_str(), 400));
    long.extend(["\n", &change]);
    for _ in 0..3 {
        push(&mut rig, &signed(long.iter().copied())).await;
    }
    rig.quiet(&repository).await;
    assert!(loose(&repository).is_empty());

    let name = "notes".parse().unwrap();
    rig.server.repositories().configure(&name, |it| it.quota = Some(100)).unwrap();
    push(&mut rig, &signed([version, "\n", &change])).await;
    let entries = rig.log.wait_for(AuditEvent::REFUSED, 4).await;
    let reason = entries[0].reason.as_deref();
    assert_eq!(reason, Some("git-receive-pack: the request is too long"));
    let why = entries[3].changes[0].refused.clone().unwrap();
    assert!(why.contains("quota"), "{why}");
    rig.quiet(&repository).await;
    assert!(loose(&repository).is_empty());
}

#[tokio::test]
async fn what_was_signed_for_one_repository_counts_for_no_other() {
    let (mut rig, keys, key) = rig();
    let anna = rig.port("anna", &["git"]).await;
    let work = rig.work("anna").await;
    for name in ["one", "two"] {
        rig.make(name, |_| ());
        work.git(&["push", &url(anna, name), "main", "main:x"]).await;
    }
    let said = exchange(&rig, "one", Framing::Advertisement, Vec::new()).await;
    let (_, nonce) = said.split_once("push-cert=").unwrap();
    let nonce = nonce.split_whitespace().next().unwrap();
    let (old, new) = (work.git(&["rev-parse", "main"]).await, "0".repeat(40));
    let text = format!(
        "certificate version 0.1\npusher anna <anna@example.org> 1700000000 +0000\nnonce {nonce}\n\n\
         {old} {new} refs/heads/x\n"
    );
    let file = keys.path().join("certificate");
    fs::write(&file, &text).unwrap();
    let mut sign = Command::new("ssh-keygen");
    let made = sign.args(["-q", "-Y", "sign", "-n", "git", "-f"]).arg(&key).arg(&file).status();
    assert!(made.unwrap().success());
    let text = text + &fs::read_to_string(file.with_extension("sig")).unwrap();
    let mut signatures = Vec::new();
    for (nth, name) in ["two", "one"].into_iter().enumerate() {
        let sent = signed(text.split_inclusive('\n'));
        let said = exchange(&rig, name, Framing::Stateless, sent).await;
        assert!(said.contains("ok refs/heads/x"), "{said}");
        signatures.push(rig.log.wait_for("git-push", 3 + nth).await[2 + nth].signature.clone());
    }
    assert_eq!(signatures[0].as_deref(), Some("unverified: signature G, nonce BAD"));
    assert!(signatures[1].as_ref().unwrap().starts_with("verified: anna@example.org"));
}
