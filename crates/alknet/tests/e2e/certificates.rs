//! A team that logs in with OpenSSH certificates: the node knows its authority and nobody's
//! key.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use crate::{
    client::Client,
    node::{Home, Node},
    process::{Deadline, SOON, output, stdout},
};

/// Somebody whose key is certified for `team`, by an authority that the node trusts for the
/// peer `ops`.
fn member(home: &Home) -> Client {
    let (client, authority) = (Client::new(), Client::new());
    let key = authority.public_key();
    let add = ["peer", "add", "ops", "--ca", &key, "--principal", "team", "--scope", "ssh"];
    stdout(&output(&mut home.alknet(&add)));
    let mut certify = Command::new("ssh-keygen");
    certify.args(["-q", "-I", "laptop", "-z", "7", "-n", "team", "-V", "-1m:+1h", "-s"]);
    certify.arg(authority.key()).arg(client.key().with_extension("pub"));
    stdout(&output(&mut certify));
    client
}

#[test]
fn a_team_needs_no_key_of_its_members() {
    let home = Home::new();
    let node = Node::start(&home, &[]);
    let client = member(&home);
    for via in ["quic", "tls"] {
        assert_eq!(stdout(&output(client.ssh(&node, via).arg("echo hello"))), "hello\n", "{via}");
    }
    let login = home.audited("the login", |event| {
        event["event"] == "authenticated" && event["method"] == "certificate"
    });
    let detail = login["reason"].as_str().unwrap();
    assert!(
        detail.starts_with("principal \"team\", key id \"laptop\", serial 7, authority SHA256:")
    );
}

#[test]
fn a_peer_that_is_removed_is_logged_out() {
    let home = Home::new();
    let node = Node::start(&home, &[]);
    let client = member(&home);
    let mut ssh = client.ssh(&node, "quic");
    let mut ssh = ssh.arg("echo ready; exec sleep 1000").stdout(Stdio::piped()).spawn().unwrap();
    let guard = Deadline::kill(ssh.id(), SOON);
    let mut ready = String::new();
    BufReader::new(ssh.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    assert_eq!(ready, "ready\n");
    stdout(&output(&mut home.alknet(&["peer", "remove", "ops"])));
    assert_eq!(ssh.wait().unwrap().code(), Some(255));
    assert!(!guard.passed(), "the session went on");
    home.audited("the end of the login", |event| {
        event["event"] == "session-end"
            && event["reason"] == "the credential was revoked or has expired"
    });
    assert!(!output(client.ssh(&node, "quic").arg("true")).status.success());
}
