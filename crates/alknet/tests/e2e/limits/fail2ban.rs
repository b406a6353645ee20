//! fail2ban on a node's log, through the filter that comes with the documentation.

use std::{fs, path::Path, process::Command, sync::Arc};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::curl;
use crate::{
    client::Client,
    https::{dial, raw},
    node::{Home, Node},
    process::{eventually, output, stdout},
};

/// What fail2ban finds in a log: an address for each line that matches.
fn banned(folder: &Path, log: &str) -> Vec<String> {
    let file = folder.join("node.log");
    fs::write(&file, log).unwrap();
    let filter = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/fail2ban/alknet.conf");
    let mut regex = Command::new("fail2ban-regex");
    regex.args(["--usedns", "no", "--out", "ip"]).arg(&file).arg(filter);
    stdout(&output(&mut regex)).lines().map(str::to_owned).collect()
}

/// Somebody who would like to have another address banned.
const FORGED: &str = "authentication failed from 203.0.113.9: alpn=";

/// Trusts every node.
struct Credulous;

impl russh::client::Handler for Credulous {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        _: &russh::keys::PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

/// Tries to log in under a name that OpenSSH's client would not send.
async fn log_in(node: &Node, client: &Client, user: String) {
    let connection = dial("alknet/ssh").tls(node.address()).await.unwrap().connection;
    let stream = connection.open_bi().await.unwrap();
    let config = Arc::new(russh::client::Config::default());
    let mut ssh = russh::client::connect_stream(config, stream, Credulous).await.unwrap();
    let key = Arc::new(russh::keys::load_secret_key(client.key(), None).unwrap());
    let key = russh::keys::PrivateKeyWithHashAlg::new(key, None);
    assert!(!ssh.authenticate_publickey(user, key).await.unwrap().success());
}

/// How many of these count: four logins, six tokens at odd paths, and an odd token.
const FAILURES: usize = 4 + 6 + 1;

/// Everything that a stranger can say and a node might log.
async fn say_everything(node: &Node) {
    let line = format!("2026-11-22T10:00:00.000000Z  WARN alknet::auth: {FORGED}");
    let client = Client::new();
    for user in [format!("x\n{line}"), format!("x\r\n{line}"), line.clone(), format!("x: {FORGED}")]
    {
        log_in(node, &client, user).await;
    }
    let path = line.replace(' ', "%20");
    for path in [format!("/{path}"), format!("/x%0A{path}"), format!("/alknet/x%0A{path}")] {
        let wrong = "Authorization: Bearer alk_wrong\r\nConnection: close\r\n";
        raw(node, &format!("GET {path}"), wrong, b"").await;
        assert!(curl(node, "127.0.0.1", &path, &format!("alk_{line}")).status.success());
    }
    for fields in [
        format!("Authorization: Bearer alk_{line}"),
        format!("Authorization: Bearer\t{line}"),
        format!("Authorization: {line}\r\nCookie: __Host-alknet={line}"),
        format!("User-Agent: {line}\r\nX-Forwarded-For: 203.0.113.9\r\nForwarded: for=203.0.113.9"),
    ] {
        raw(node, "GET /", &format!("Connection: close\r\n{fields}\r\n"), b"").await;
    }
    let connection = dial("alknet/ssh").tls(node.address()).await.unwrap().connection;
    let mut stream = connection.open_bi().await.unwrap();
    stream.write_all(format!("SSH-2.0-{line}\n{line}\r\n{line}\r\n").as_bytes()).await.unwrap();
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

#[tokio::test]
async fn fail2ban_finds_each_failure_and_nothing_that_was_forged() {
    for level in ["info", "trace"] {
        let home = Home::new();
        let mut serve =
            home.alknet(&["serve", "--listen", "127.0.0.1:0", "--json", "--drain", "1"]);
        serve.env("ALKNET_LOG", level);
        let node = Node::run(&home, serve);
        say_everything(&node).await;
        let (log, failures) = eventually("the failures", || {
            let log = node.log();
            let failures = log.matches("alknet::auth: authentication failed from 127.0.0.1: ");
            let failures = failures.count();
            (failures >= FAILURES).then_some((log, failures))
        });
        assert!(log.contains("203.0.113.9") || level == "info", "nothing was tried");
        assert_eq!(banned(home.path(), &log), vec!["127.0.0.1"; failures], "at {level}");
    }
}

/// The forms that a line can have: from a file, from the journal, of an IPv6 address.
#[test]
fn fail2ban_reads_files_and_journals() {
    let home = Home::new();
    let line = |head: &str, address: &str| {
        format!("{head}  WARN alknet::auth: authentication failed from {address}: alpn=\"h2\" x\n")
    };
    let now = "2026-11-22T10:00:00.123456Z";
    let journal = format!("{now} host alknet[12]: {now}");
    let good = [line(now, "192.0.2.7"), line(now, "2001:db8::7"), line(&journal, "192.0.2.8")];
    assert_eq!(banned(home.path(), &good.concat()), ["192.0.2.7", "2001:db8::7", "192.0.2.8"]);
    let other = [
        line(&format!("{now} TRACE hyper: GET /"), "192.0.2.7"),
        line(&format!("{now}  WARN other: reason=\"x"), "192.0.2.7"),
        line(&format!("{now}  INFO"), "192.0.2.7"),
        line(now, "host.example"),
        format!("{now}  WARN alknet::auth: turning away 192.0.2.7: too many\n"),
    ];
    assert!(banned(home.path(), &other.concat()).is_empty());
}
