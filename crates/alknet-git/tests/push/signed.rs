//! Signed pushes.

use std::{fs, process::Command};

use alknet_git::{InstalledGit, Request, Service};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::rig::{Rig, connect, url};

#[tokio::test]
async fn the_signature_of_a_push_is_verified_and_recorded() {
    let keys = tempfile::tempdir().unwrap();
    let key = keys.path().join("key");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "anna", "-f"])
        .arg(&key)
        .status();
    assert!(made.unwrap().success());
    let public = fs::read_to_string(key.with_extension("pub")).unwrap();
    let signers = keys.path().join("signers");
    fs::write(&signers, format!("anna@example.org namespaces=\"git\" {public}")).unwrap();
    let git = InstalledGit::find().unwrap();
    let mut rig = Rig::set_up(git, |setup| setup.allowed_signers = Some(signers), |_| ());
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
    let own = keys.path().join("own");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "anna", "-f"])
        .arg(&own)
        .status();
    assert!(made.unwrap().success());
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
    let mut stream = connect(anna).await;
    let request = Request::new(Service::ReceivePack, "notes".parse().unwrap()).version(0);
    stream.write_all(&request.to_line("x")).await.unwrap();
    let change = format!("{} {} refs/heads/x\n", "1".repeat(40), "0".repeat(40));
    let mut sent = String::new();
    for line in [
        "push-cert\0report-status",
        "certificate version 0.1\n",
        "pusher anna\n",
        "\n",
        &change,
        "-----BEGIN SSH SIGNATURE-----\n",
        &"x".repeat(60_000),
        "push-cert-end\n",
    ] {
        sent += &format!("{:04x}{line}", line.len() + 4);
    }
    let _ = stream.write_all(format!("{sent}0000").as_bytes()).await;
    let _ = stream.read_to_end(&mut Vec::new()).await;
    rig.quiet(&repository).await;
    let objects = fs::read_dir(repository.join("objects")).unwrap().flatten();
    let loose: Vec<_> = objects.filter(|it| it.file_name().len() == 2).collect();
    assert!(loose.is_empty(), "{loose:?}");
}
