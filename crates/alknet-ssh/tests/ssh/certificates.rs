//! Certificates that OpenSSH made, and OpenSSH's client logging in with them.

use std::{fs, process::Output};

use alknet_core::{AuditEvent, KeyFingerprint};
use alknet_ssh::UserKey;
use alknet_testing::identities::identity;
use russh::keys::{
    Algorithm, Certificate, PrivateKey,
    key::safe_rng,
    ssh_key::{HashAlg, private::RsaKeypair},
};
use tokio::process::Command;

use crate::{
    node::{Node, new_key, soon},
    openssh::{Setup, finish, text},
};

/// Offers certificates alone: not the bare key that is in one.
const CERTIFICATES: &str = "-oPubkeyAcceptedAlgorithms=*-cert-v01@openssh.com";

/// A node that trusts the authority `ca` for the principal `team`, and somebody whose key
/// nobody knows.
pub(crate) struct Team {
    pub(crate) setup: Setup,
    pub(crate) authority: KeyFingerprint,
}

impl Team {
    pub(crate) async fn new() -> Self {
        Self::of(Node::new(), &["ssh"]).await
    }

    pub(crate) async fn of(node: Node, scopes: &[&str]) -> Self {
        let setup = Setup::of(node).await;
        let authority = new_key();
        setup.key_file("ca", &authority);
        setup.key_file("other", &new_key());
        setup.key_file("id", &new_key());
        let line = authority.public_key().to_openssh().unwrap();
        let authority = UserKey::parse(&line).unwrap().fingerprint();
        let alice = identity("alice", scopes);
        setup.node.identities.add_authority(authority, "team", alice);
        Self { setup, authority }
    }

    /// Certifies the client's key as number 7, called `laptop`.
    pub(crate) async fn certify(&self, authority: &str, options: &[&str]) {
        let path = self.setup.path("id-cert.pub");
        drop(fs::remove_file(&path));
        let mut command = Command::new("ssh-keygen");
        let authority = self.setup.path(authority);
        command.args(["-q", "-I", "laptop", "-z", "7", "-s"]).arg(authority).args(options);
        let output = finish(command.arg(self.setup.path("id.pub"))).await;
        assert!(output.status.success(), "{}", text(&output.stderr));
    }

    pub(crate) fn ssh(&self, options: &[&str]) -> Command {
        self.setup.ssh(&[&[CERTIFICATES], options].concat())
    }

    pub(crate) async fn run(&self, command: &str) -> Output {
        finish(self.ssh(&[]).arg(command)).await
    }

    fn certificate(&self) -> Certificate {
        let line = fs::read_to_string(self.setup.path("id-cert.pub")).unwrap();
        Certificate::from_openssh(&line).unwrap()
    }

    /// Asserts that the client does not get in, and why.
    pub(crate) async fn assert_refused(&self, reason: &str) {
        let before = self.setup.node.audit.refusals().len();
        let output = self.run("true").await;
        assert_eq!(output.status.code(), Some(255), "{reason}");
        assert!(text(&output.stderr).contains("Permission denied (publickey)"), "{reason}");
        let refused = self.setup.node.audit.of(AuditEvent::REFUSED);
        assert_eq!(refused.len(), before + 1, "{refused:?}");
        let last = refused.last().unwrap();
        let why = last.reason.as_deref().unwrap();
        assert!(why.starts_with(&format!("{reason}; key id \"laptop\", serial 7, ")), "{why}");
        assert_eq!(last.method, Some("certificate"));
        assert!(last.key.as_deref().unwrap().starts_with("SHA256:"));
    }
}

#[tokio::test]
async fn a_certificate_of_a_trusted_authority_logs_in() {
    let team = Team::new().await;
    team.certify("ca", &["-n", "others,team", "-V", "-1d:+1d"]).await;
    let output = team.run("echo hello").await;
    assert_eq!(text(&output.stdout), "hello\n", "{}", text(&output.stderr));
    let logins = team.setup.node.audit.of(AuditEvent::AUTHENTICATED);
    let [login] = logins.as_slice() else { panic!("{logins:?}") };
    assert_eq!(login.identity.as_deref(), Some("id-alice"));
    assert_eq!(login.method, Some("certificate"));
    let line = fs::read_to_string(team.setup.path("id.pub")).unwrap();
    assert_eq!(login.key, Some(UserKey::parse(&line).unwrap().fingerprint().to_string()));
    let detail =
        format!("principal \"team\", key id \"laptop\", serial 7, authority {}", team.authority);
    assert_eq!(login.reason, Some(detail));
}

#[tokio::test]
async fn rsa_keys_and_authorities_do_with_sha2() {
    let team = Team::new().await;
    let rsa = || PrivateKey::from(RsaKeypair::random(&mut safe_rng(), 2048).unwrap());
    let authority = rsa();
    team.setup.key_file("rsa", &authority);
    team.setup.key_file("id", &rsa());
    let line = authority.public_key().to_openssh().unwrap();
    let authority = UserKey::parse(&line).unwrap().fingerprint();
    team.setup.node.identities.add_authority(authority, "team", identity("bob", &["ssh"]));
    team.certify("rsa", &["-n", "team"]).await;
    let output = team.run("echo hello").await;
    assert_eq!(text(&output.stdout), "hello\n", "{}", text(&output.stderr));

    team.certify("rsa", &["-n", "team", "-t", "ssh-rsa"]).await;
    let reason = "certificate authority: keys of type ssh-rsa are not accepted";
    team.assert_refused(reason).await;
}

#[tokio::test]
async fn what_does_not_hold_is_refused_and_the_log_says_why() {
    let team = Team::new().await;
    let no_principal = "no principal that the certificate authority is trusted for";
    for (authority, options, reason) in [
        ("ca", &["-n", "team", "-V", "20200101:20200102"] as &[_], "certificate has expired"),
        ("ca", &["-n", "team", "-V", "+1w:+2w"], "certificate is not valid yet"),
        ("ca", &["-n", "others"], no_principal),
        ("other", &["-n", "team"], "unknown certificate authority"),
        ("ca", &[], "certificate without principals"),
        (
            "ca",
            &["-n", "team", "-O", "source-address=10.0.0.0/8"],
            "source address outside the certificate's list",
        ),
        (
            "ca",
            &["-n", "team", "-O", "critical:frobnicate=x"],
            "unknown critical option \"frobnicate\"",
        ),
        (
            "ca",
            &["-n", "team", "-O", "verify-required"],
            "unknown critical option \"verify-required\"",
        ),
    ] {
        team.certify(authority, options).await;
        team.assert_refused(reason).await;
    }
    team.certify("ca", &["-n", "team"]).await;
    let name = UserKey::parse(&fs::read_to_string(team.setup.path("ca.pub")).unwrap()).unwrap();
    team.setup.node.identities.add_authority(name.fingerprint(), "team", identity("x", &["git"]));
    team.assert_refused("outside the identity's scopes").await;
    assert!(team.setup.node.audit.of(AuditEvent::AUTHENTICATED).is_empty());
}

#[tokio::test]
async fn another_login_name_is_refused_whatever_the_principals_are() {
    let team = Team::new().await;
    team.certify("ca", &["-n", "team,somebody"]).await;
    let output = finish(team.setup.ssh_as("somebody", &[CERTIFICATES]).arg("true")).await;
    assert_eq!(output.status.code(), Some(255));
    let refusals = team.setup.node.audit.refusals();
    assert!(refusals[0].starts_with("login name \"somebody\" is not the node's account; key id"));
}

#[tokio::test]
async fn a_certificate_holds_where_it_says() {
    let team = Team::new().await;
    let list = "source-address=10.0.0.0/8,127.0.0.0/8";
    team.certify("ca", &["-n", "team", "-O", list]).await;
    assert!(team.run("true").await.status.success());
}

/// The certificate lies in many places and is no secret: the key is what counts.
#[tokio::test]
async fn a_certificate_without_its_key_is_worth_nothing() {
    let team = Team::new().await;
    team.certify("ca", &["-n", "team"]).await;
    let node = &team.setup.node;
    let mut client = node.client().await;
    let name = node.account.name.clone();
    let stolen = client.authenticate_openssh_cert(&name, new_key(), team.certificate()).await;
    assert!(!stolen.is_ok_and(|answer| answer.success()));
    assert!(node.audit.of(AuditEvent::AUTHENTICATED).is_empty());
}

#[tokio::test]
async fn a_host_s_certificate_is_no_user_s() {
    let team = Team::new().await;
    team.certify("ca", &["-n", "team", "-h"]).await;
    let node = &team.setup.node;
    let key = PrivateKey::read_openssh_file(team.setup.path("id")).unwrap();
    let mut client = node.client().await;
    let name = node.account.name.clone();
    let answer = client.authenticate_openssh_cert(&name, key.into(), team.certificate()).await;
    assert!(!answer.unwrap().success());
    assert!(node.audit.refusals()[0].starts_with("not a user certificate; key id \"laptop\""));
}

/// Neither the authority's key nor the certified one gets in by itself.
#[tokio::test]
async fn the_bare_keys_are_unknown() {
    let team = Team::new().await;
    team.certify("ca", &["-n", "team"]).await;
    let options = ["-oPubkeyAcceptedAlgorithms=ssh-ed25519"];
    let output = finish(team.setup.ssh(&options).arg("true")).await;
    assert_eq!(output.status.code(), Some(255));
    fs::copy(team.setup.path("ca"), team.setup.path("id")).unwrap();
    fs::copy(team.setup.path("ca.pub"), team.setup.path("id.pub")).unwrap();
    fs::remove_file(team.setup.path("id-cert.pub")).unwrap();
    assert_eq!(team.setup.run("true").await.status.code(), Some(255));
    assert_eq!(team.setup.node.audit.refusals(), ["unknown key", "unknown key"]);
}

#[tokio::test]
async fn a_forced_command_is_all_that_runs() {
    let team = Team::new().await;
    let option = "force-command=echo forced: \"$SSH_ORIGINAL_COMMAND\"";
    team.certify("ca", &["-n", "team", "-O", option]).await;
    let marker = team.setup.node.file("marker");
    let asked = format!("touch {}; echo \"$HOME\"", marker.display());
    assert_eq!(text(&team.run(&asked).await.stdout), format!("forced: {asked}\n"));
    assert_eq!(text(&finish(&mut team.ssh(&[])).await.stdout), "forced: \n");
    let output = finish(team.ssh(&["-oSetEnv=SSH_ORIGINAL_COMMAND=sly"]).arg("true")).await;
    assert_eq!(text(&output.stdout), "forced: true\n");
    let output = finish(team.ssh(&["-s"]).arg("sftp")).await;
    assert_eq!(text(&output.stdout), "forced: sftp\n");
    assert!(!marker.exists());
}

#[tokio::test]
async fn a_terminal_takes_its_extension() {
    let team = Team::new().await;
    let script = "test -t 0 && echo terminal || echo none";
    team.certify("ca", &["-n", "team"]).await;
    let output = finish(team.ssh(&["-tt"]).arg(script)).await;
    assert_eq!(text(&output.stdout), "terminal\r\n");

    team.certify("ca", &["-n", "team", "-O", "no-pty"]).await;
    let output = finish(team.ssh(&["-tt"]).arg(script)).await;
    assert!(text(&output.stderr).contains("PTY allocation request failed"));
    assert_eq!(text(&team.run(script).await.stdout), "none\n");
    let refusals = team.setup.node.audit.refusals();
    let [refusal] = refusals.as_slice() else { panic!("{refusals:?}") };
    assert!(refusal.starts_with("the certificate is without permit-pty; "));
}

#[tokio::test]
async fn what_an_authority_may_no_longer_say_opens_no_channel() {
    let team = Team::new().await;
    team.certify("ca", &["-n", "team"]).await;
    let node = &team.setup.node;
    let key = PrivateKey::read_openssh_file(team.setup.path("id")).unwrap();
    let mut client = node.client().await;
    let name = node.account.name.clone();
    let answer = client.authenticate_openssh_cert(&name, key.into(), team.certificate()).await;
    assert!(answer.unwrap().success());
    assert!(client.channel_open_session().await.is_ok());
    node.identities.revoke_authority(&team.authority, "team");
    assert!(client.channel_open_session().await.is_err());
    let refusals = node.audit.refusals();
    let reason = "no principal that the certificate authority is trusted for; ";
    assert!(refusals[0].starts_with(reason), "{}", refusals[0]);
}

/// russh asks about a certificate, not about the key in it: an unknown key that is offered
/// must not get the answer that the same key gets in its certificate.
#[tokio::test]
async fn an_unknown_key_is_refused_before_it_signs() {
    let team = Team::new().await;
    team.certify("ca", &["-n", "team"]).await;
    let options = ["-v", "-oPubkeyAcceptedAlgorithms=ssh-ed25519"];
    let output = finish(team.setup.ssh(&options).arg("true")).await;
    let log = text(&output.stderr);
    assert!(log.contains("Offering public key") && !log.contains("Server accepts key"), "{log}");
}

#[tokio::test]
async fn an_authority_that_is_too_short_is_refused() {
    let team = Team::new().await;
    let weak = PrivateKey::from(RsaKeypair::random(&mut safe_rng(), 1024).unwrap());
    assert_eq!(weak.algorithm(), Algorithm::Rsa { hash: None });
    let fingerprint = weak.public_key().fingerprint(HashAlg::Sha256).to_string();
    let authority = fingerprint.parse().unwrap();
    team.setup.key_file("weak", &weak);
    team.setup.node.identities.add_authority(authority, "team", identity("bob", &["ssh"]));
    team.certify("weak", &["-n", "team"]).await;
    let reason = "certificate authority: an RSA key of 1024 bits is too short: 2048 are needed";
    soon("the refusal", team.assert_refused(reason)).await;
}
