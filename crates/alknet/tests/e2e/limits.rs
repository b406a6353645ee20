//! How much of everything one address and one identity may have, set by the configuration.
//!
//! Loopback is not counted by default, so most nodes here say `exempt = []`. Every address
//! of 127.0.0.0/8 is this machine's: another one is somebody else.

mod fail2ban;

use std::{
    fs,
    io::Write as _,
    process::{Child, Command, Output, Stdio},
    sync::Arc,
};

use alknet_core::{Code, Connection, Dial, NodeIdentity, Stream, StreamReset};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    client::{Client, WAYS},
    https::{dial, raw},
    node::{Home, Node},
    process::{eventually, output, stdout, text},
    session::Session,
};

/// What a client is told that comes from an address over its limits.
const TURNED_AWAY: &str =
    "the node turned the connection away: this address may be over one of its limits";
/// Another address than the one that clients have by themselves.
const ELSEWHERE: &str = "127.0.0.2";

fn home_with(limits: &str) -> Home {
    let home = Home::new();
    fs::write(home.path().join("alknet.toml"), format!("[limits]\n{limits}\n")).unwrap();
    home
}

fn dial_ssh(client: &Client, node: &Node, via: &str) -> Output {
    let (address, id) = (node.address().to_string(), node.id().to_string());
    output(&mut client.home.alknet(&["dial", &address, "ssh", "--via", via, "--pin", &id]))
}

#[track_caller]
fn turned_away(client: &Client, node: &Node, via: &str) {
    let refused = dial_ssh(client, node, via);
    let said = text(&refused);
    assert_eq!(refused.status.code(), Some(1), "{via}: {said}");
    assert!(refused.stdout.is_empty() && said.contains(TURNED_AWAY), "{via}: {said}");
}

/// `curl` from an address of this machine, with a bearer token.
fn curl(node: &Node, from: &str, path: &str, token: &str) -> Output {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--insecure", "--max-time", "20", "--interface", from]);
    curl.args(["--header", &format!("Authorization: Bearer {token}")]);
    curl.arg(format!("https://{}{path}", node.address()));
    output(&mut curl)
}

fn token(home: &Home, scope: &str) -> String {
    let made = stdout(&output(&mut home.alknet(&["token", "create", "--scope", scope])));
    made.trim().to_owned()
}

/// The sum of a counter over the labels that are not named.
fn counter(metrics: &str, name: &str, labels: &[&str]) -> u64 {
    let fits = |line: &&str| {
        line.split(['{', ' ']).next() == Some(name) && labels.iter().all(|it| line.contains(it))
    };
    let values = metrics.lines().filter(fits).filter_map(|line| line.rsplit(' ').next());
    values.map(|value| value.parse::<u64>().unwrap()).sum()
}

/// How often the node's log has this.
fn logged(node: &Node, text: &str) -> usize {
    node.log().matches(text).count()
}

#[test]
fn too_many_logins_with_unknown_keys_end_in_a_ban() {
    let home = home_with("exempt = []\nfailures_per_address = 3\nban = '1h'");
    let node = Node::start(&home, &[]);
    let metrics = token(&home, "metrics");
    let known = Client::known_to(&home, "known", "ssh");
    let mut session = Session::start(&known, &node, "tls", "exec cat");
    session.ready();
    let stranger = Client::new();
    for via in ["tls", "quic", "tls", "quic"] {
        let refused = output(stranger.ssh(&node, via).arg("true"));
        assert!(text(&refused).contains("Permission denied"), "{via}: {}", text(&refused));
    }
    eventually("the ban", || {
        (logged(&node, "turning away 127.0.0.1: too many") == 1).then_some(())
    });
    assert_eq!(logged(&node, "alknet::auth: authentication failed from 127.0.0.1: "), 4);
    for via in WAYS {
        turned_away(&known, &node, via);
    }
    // Who was there before is not put out, and another address is another matter.
    session.echoes("still here");
    session.end_input();
    assert_eq!(session.wait(), Some(0));
    let metrics = stdout(&curl(&node, ELSEWHERE, "/alknet/metrics", &metrics));
    let failures = "alknet_authentication_failures_total";
    assert_eq!(counter(&metrics, "alknet_bans_total", &[]), 1, "{metrics}");
    for (transport, count) in [("quic", 2), ("tls", 2)] {
        let transport = format!("transport=\"{transport}\"");
        let of_ssh = ["alpn=\"alknet/ssh\"", &transport];
        assert_eq!(counter(&metrics, failures, &of_ssh), count, "{metrics}");
        let banned = [&*transport, "verdict=\"banned\""];
        assert!(counter(&metrics, "alknet_handshakes_total", &banned) >= 2, "{metrics}");
    }
}

#[test]
fn too_many_wrong_bearer_tokens_end_in_a_ban() {
    let home = home_with("exempt = []\nfailures_per_address = 3\nban = '1h'");
    let node = Node::start(&home, &[]);
    let right = token(&home, "metrics");
    let ask = |from, token: &str| curl(&node, from, "/alknet/metrics", token);
    for _ in 0..3 {
        assert!(!stdout(&ask(ELSEWHERE, "alk_wrong")).contains("alknet_"));
    }
    assert!(stdout(&ask(ELSEWHERE, &right)).contains("alknet_sessions"));
    // A right one does not forgive the wrong ones.
    stdout(&ask(ELSEWHERE, "alk_wrong"));
    let refused = ask(ELSEWHERE, &right);
    assert!(!refused.status.success() && refused.stdout.is_empty(), "{}", text(&refused));
    let metrics = stdout(&ask("127.0.0.1", &right));
    assert_eq!(counter(&metrics, "alknet_bans_total", &[]), 1, "{metrics}");
    let failures = counter(&metrics, "alknet_authentication_failures_total", &[]);
    assert_eq!(failures, 4, "{metrics}");
    assert_eq!(logged(&node, "authentication failed from 127.0.0.2: "), 4);
    assert_eq!(logged(&node, "turning away 127.0.0.2: too many failures to authenticate"), 1);
}

/// An HTTP/1.1 connection that stays.
struct Http {
    stream: Stream,
    _connection: Connection,
}

impl Http {
    async fn open(node: &Node) -> Self {
        let connection = dial("http/1.1").tls(node.address()).await.unwrap().connection;
        Self { stream: connection.open_bi().await.unwrap(), _connection: connection }
    }

    /// The status of the answer to a request with this header.
    async fn status(&mut self, header: &str) -> String {
        let request =
            format!("HEAD /alknet/session HTTP/1.1\r\nHost: localhost\r\n{header}\r\n\r\n");
        self.stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.stream.read_u8().await.unwrap());
        }
        String::from_utf8(head).unwrap().split(' ').nth(1).unwrap().to_owned()
    }
}

/// A ban holds within a connection too: it is no place to go on guessing.
#[tokio::test]
async fn nothing_is_looked_at_on_a_connection_that_failed_too_often() {
    let home = home_with("exempt = []\nfailures_per_address = 3");
    let node = Node::start(&home, &[]);
    let right = format!("Authorization: Bearer {}", token(&home, "ssh"));
    let mut http = Http::open(&node).await;
    assert_eq!(http.status(&right).await, "200");
    for _ in 0..4 {
        assert_eq!(http.status("Authorization: Bearer alk_wrong").await, "404");
    }
    assert_eq!(http.status(&right).await, "404");
    // Nor is it counted.
    assert_eq!(logged(&node, "authentication failed"), 4);
}

/// A browser sends the cookie of a session that has ended with every request.
#[tokio::test]
async fn a_stale_cookie_bans_nobody() {
    let home = home_with("exempt = []\nfailures_per_address = 3");
    let node = Node::start(&home, &[]);
    let client = Client::known_to(&home, "known", "ssh");
    let mut http = Http::open(&node).await;
    for _ in 0..100 {
        assert_eq!(http.status("Cookie: __Host-alknet=c3RhbGU").await, "404");
    }
    assert_eq!(stdout(&output(client.ssh(&node, "tls").arg("echo in"))), "in\n");
    assert_eq!(logged(&node, "authentication failed"), 0);
}

#[tokio::test]
async fn loopback_is_exempt_by_default() {
    let home = home_with("failures_per_address = 1\nhandshakes_per_address = 1");
    let node = Node::start(&home, &[]);
    for _ in 0..10 {
        let header = "Authorization: Bearer alk_wrong\r\nConnection: close\r\n";
        raw(&node, "GET /alknet/session", header, b"").await;
    }
    // Each is in the log all the same, for whoever reads it.
    assert_eq!(logged(&node, "authentication failed from 127.0.0.1: "), 10);
    assert_eq!(logged(&node, "turning away"), 0);
    let client = Client::known_to(&home, "known", "ssh");
    assert_eq!(stdout(&output(client.ssh(&node, "quic").arg("echo in"))), "in\n");
}

#[test]
fn an_address_has_so_many_handshakes_a_minute() {
    let home = home_with("exempt = []\nhandshakes_per_address = 4");
    let node = Node::start(&home, &[]);
    let metrics = token(&home, "metrics");
    let client = Client::known_to(&home, "known", "ssh");
    for via in ["tls", "quic", "tls", "quic"] {
        let dialled = dial_ssh(&client, &node, via);
        assert!(dialled.stdout.starts_with(b"SSH-2.0-"), "{via}: {}", text(&dialled));
    }
    for via in WAYS {
        turned_away(&client, &node, via);
    }
    assert_eq!(logged(&node, "turning away"), 0);
    let metrics = stdout(&curl(&node, ELSEWHERE, "/alknet/metrics", &metrics));
    let verdict =
        |is: &str| counter(&metrics, "alknet_handshakes_total", &[&format!("verdict=\"{is}\"")]);
    // The last welcome one is that of curl.
    assert_eq!((verdict("welcome"), verdict("too-many")), (5, 4), "{metrics}");
    // Half of them: a QUIC client whose address may be forged has to prove it.
    assert!(verdict("prove-address") >= 1, "{metrics}");
}

/// `alknet dial echo` that goes on until its input ends.
fn echo(client: &Client, node: &Node, via: &str) -> Command {
    let (address, id) = (node.address().to_string(), node.id().to_string());
    let mut command = client.home.alknet(&["dial", &address, "echo", "--via", via, "--pin", &id]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// One that has echoed.
fn standing(client: &Client, node: &Node, via: &str) -> Child {
    let mut child = echo(client, node, via).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    child
}

#[test]
fn an_identity_has_so_many_sessions() {
    let home = home_with("sessions_per_identity = 2");
    let node = Node::start_example(&home, "own_service");
    let metrics = token(&home, "metrics");
    let client = Client::known_to(&home, "known", "echo");
    let other = Client::known_to(&home, "other", "echo");
    let mut held = [standing(&client, &node, "quic"), standing(&client, &node, "websocket")];
    for via in WAYS {
        let refused = output(&mut echo(&client, &node, via));
        let said = text(&refused);
        assert_eq!(refused.status.code(), Some(1), "{via}: {said}");
        assert!(refused.stdout.is_empty(), "{via}: {said}");
        // Inside HTTPS a refusal is the decoy's answer, and TLS has no words for it.
        match via {
            "quic" => assert!(said.contains("limit reached"), "{said}"),
            "tls" => assert!(said.contains("ended the connection\nhint: the key may be"), "{said}"),
            _ => {}
        }
        home.audited(via, |event| {
            event["event"] == "refused"
                && event["transport"] == via
                && event["reason"] == "the identity's session limit is reached"
        });
    }
    let mut apart = standing(&other, &node, "quic");
    drop(apart.stdin.take());
    assert!(apart.wait().unwrap().success());

    // What is given back can be had again.
    let [first, second] = &mut held;
    drop(first.stdin.take());
    assert!(first.wait().unwrap().success());
    home.audited("the end of it", |event| {
        event["event"] == "session-end"
            && event["alpn"] == "alknet/echo"
            && event["identity"] == event_identity(&home, "known")
    });
    let mut again = standing(&client, &node, "tls");
    for child in [second, &mut again] {
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
    }
    let metrics = stdout(&curl(&node, "127.0.0.1", "/alknet/metrics", &metrics));
    let refused = counter(&metrics, "alknet_refusals_total", &["reason=\"identity-limit\""]);
    assert_eq!(refused, 4, "{metrics}");
}

pub(crate) fn event_identity(home: &Home, name: &str) -> serde_json::Value {
    let peers = stdout(&output(&mut home.alknet(&["peer", "list", "--json"])));
    let peers: Vec<serde_json::Value> = serde_json::from_str(&peers).unwrap();
    peers.into_iter().find(|peer| peer["name"] == name).unwrap()["id"].take()
}

async fn echoes(stream: &mut Stream) -> std::io::Result<()> {
    stream.write_all(b"x").await?;
    stream.read_exact(&mut [0]).await.map(drop)
}

/// A stream beyond the limit is reset with a code that says so, and the connection goes on.
#[tokio::test]
async fn an_identity_has_so_many_streams_over_all_its_connections() {
    let home = home_with("streams_per_identity = 3");
    let node = Node::start_example(&home, "own_service");
    let connect = async |name: &str, seed: u8| {
        let key = NodeIdentity::from_seed(&[seed; 32]).unwrap();
        let add = ["peer", "add", name, "--key", &key.id().to_string(), "--scope", "echo"];
        stdout(&output(&mut home.alknet(&add)));
        let call = Dial { key: Some(Arc::new(key)), ..dial("alknet/echo") };
        call.quic(node.address()).await.unwrap().connection
    };
    // One identity with two keys, and another one.
    let (one, two, other) =
        (connect("it", 1).await, connect("it", 2).await, connect("other", 3).await);
    let mut streams = Vec::new();
    for connection in [&one, &two, &one] {
        let mut stream = connection.open_bi().await.unwrap();
        echoes(&mut stream).await.unwrap();
        streams.push(stream);
    }
    for connection in [&one, &two] {
        let mut beyond = connection.open_bi().await.unwrap();
        let error = echoes(&mut beyond).await.unwrap_err();
        assert_eq!(StreamReset::code_of(&error), Some(Code::LIMIT), "{error}");
    }
    echoes(&mut other.open_bi().await.unwrap()).await.unwrap();
    for stream in &mut streams {
        echoes(stream).await.unwrap();
    }
    // An end in order, which is there when the node's own end is.
    let mut ended = streams.remove(0);
    ended.shutdown().await.unwrap();
    ended.read_to_end(&mut Vec::new()).await.unwrap();
    let mut again = None;
    while again.is_none() {
        let mut stream = two.open_bi().await.unwrap();
        match echoes(&mut stream).await {
            Ok(()) => again = Some(stream),
            // The node has sent its end and is about to count it.
            Err(error) => assert_eq!(StreamReset::code_of(&error), Some(Code::LIMIT)),
        }
    }
}
