//! What was granted is taken away while sessions stand on it.
//!
//! How long that takes is read from the audit log. It is printed, and held against a bound
//! that a loaded machine keeps as well.

mod x509;

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, ChildStdout, Stdio},
    sync::Arc,
    time::Duration,
};

use alknet_core::{Code, Dial, NodeIdentity, Stream};
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use crate::{
    client::{Client, WAYS},
    https::{UPGRADE, dial, raw, upgrade},
    node::{Home, Node},
    process::{Deadline, SOON, eventually, output, output_with, stdout},
    session::Session,
};

/// What the audit log says of a session whose credential is gone.
const OVER: &str = "the credential was revoked or has expired";
/// Ten times what is promised: the machine has other things to do. What is looked at all the
/// same, without a change, is looked at each half minute.
const BOUND: Duration = Duration::from_secs(10);

/// A program at a terminal, with another one in the background, that goes on until its
/// session is ended.
struct Held {
    ssh: Child,
    output: BufReader<ChildStdout>,
    guard: Deadline,
    processes: Vec<u32>,
}

impl Held {
    #[track_caller]
    fn start(client: &Client, node: &Node, via: &str) -> Self {
        let mut ssh = client.ssh(node, via);
        ssh.args(["-tt", "sleep 1000 & echo $$ $!; wait"]);
        ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut ssh = ssh.spawn().unwrap();
        let guard = Deadline::kill(ssh.id(), SOON);
        let mut output = BufReader::new(ssh.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let processes: Vec<u32> = line.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
        assert_eq!(processes.len(), 2, "{via}: {line}");
        assert!(processes.iter().all(|pid| runs(*pid)), "{via}: {line}");
        Self { ssh, output, guard, processes }
    }

    /// Waits until the session is over and its programs with it.
    #[track_caller]
    fn ends(mut self) {
        let mut rest = Vec::new();
        let _ = self.output.read_to_end(&mut rest);
        assert_eq!(self.ssh.wait().unwrap().code(), Some(255));
        assert!(!self.guard.passed(), "the session went on");
        for pid in self.processes {
            eventually("the end of the session's programs", || (!runs(pid)).then_some(()));
        }
    }
}

/// Whether a process is there and has not ended.
fn runs(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    status.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Somebody with sessions of their own that have nothing to do with it.
struct Bystander(Vec<Session>);

impl Bystander {
    #[track_caller]
    fn start(home: &Home, node: &Node) -> Self {
        Self::with(&Client::known_to(home, "bystander", "ssh"), node)
    }

    #[track_caller]
    fn with(client: &Client, node: &Node) -> Self {
        let start = |via| Session::start(client, node, via, "exec cat");
        let mut sessions = WAYS.map(start);
        sessions.iter_mut().for_each(Session::ready);
        Self(sessions.into())
    }

    #[track_caller]
    fn goes_on(&mut self) {
        self.0.iter_mut().for_each(|session| session.echoes("still here"));
    }

    #[track_caller]
    fn leaves(mut self) {
        self.goes_on();
        for mut session in self.0 {
            session.end_input();
            assert_eq!(session.wait(), Some(0));
        }
    }
}

#[track_caller]
fn run(home: &Home, args: &[&str]) {
    stdout(&output(&mut home.alknet(args)));
}

#[track_caller]
fn json(home: &Home, args: &[&str]) -> Value {
    serde_json::from_str(&stdout(&output(&mut home.alknet(args)))).unwrap()
}

fn time(event: &Value) -> OffsetDateTime {
    OffsetDateTime::parse(event["time"].as_str().unwrap(), &Rfc3339).unwrap()
}

fn is_over(event: &Value) -> bool {
    event["event"] == "session-end" && event["reason"] == OVER
}

/// Runs a command that takes something away, and waits until that has ended sessions over
/// these transports and over no other, soon after the command's entry in the audit log.
#[track_caller]
fn takes_away(home: &Home, args: &[&str], ways: &[&str]) {
    let start = OffsetDateTime::now_utc();
    run(home, args);
    let entry =
        home.audited("the change", |event| event["transport"] == "local" && time(event) > start);
    ended_soon(home, &args[..2].join(" "), (start, time(&entry)), ways);
}

/// Waits until sessions over these transports have ended with their credential since
/// `start`, and that soon after `cause`.
#[track_caller]
fn ended_soon(
    home: &Home,
    what: &str,
    (start, cause): (OffsetDateTime, OffsetDateTime),
    ways: &[&str],
) {
    let ways: BTreeSet<&str> = ways.iter().copied().collect();
    let ended = eventually("the ends in the audit log", || {
        let mut ended = home.audit();
        ended.retain(|event| is_over(event) && time(event) > start);
        let over: BTreeSet<&str> = ended.iter().map(transport).collect();
        (over == ways).then_some(ended)
    });
    for event in ended {
        let took = time(&event) - cause;
        eprintln!("{what}, {}: {} ms", transport(&event), took.whole_milliseconds());
        assert!(took < BOUND, "{what}: {event}");
    }
}

fn transport(event: &Value) -> &str {
    event["transport"].as_str().unwrap()
}

/// Somebody who reaches the node with a token, and the token's id and end.
fn token_holder(home: &Home, node: &Node, lifetime: &str) -> (Client, String, i64) {
    let client = Client::known_to(home, "alice", "ssh");
    let create = ["token", "create", "--peer", "alice", "--expires", lifetime, "--json"];
    let created = json(home, &create);
    let (address, id) = (node.address().to_string(), node.id().to_string());
    let mut login = client.home.alknet(&["login", &address, "--pin", &id]);
    stdout(&output_with(&mut login, created["token"].as_str().unwrap().as_bytes()));
    let end = created["expires_at"].as_i64().unwrap_or_default();
    (client, created["id"].as_str().unwrap().to_owned(), end)
}

#[test]
fn a_revoked_token_ends_its_sessions_over_every_transport() {
    let home = Home::new();
    let node = Node::start(&home, &[]);
    let mut bystander = Bystander::start(&home, &node);
    let (client, token, _) = token_holder(&home, &node, "never");
    let held = WAYS.map(|via| Held::start(&client, &node, via));
    takes_away(&home, &["token", "revoke", &token], &WAYS);
    held.into_iter().for_each(Held::ends);
    bystander.goes_on();
    bystander.leaves();
    // It lasts: the token admits nobody inside HTTPS, while the SSH key is still good.
    for via in ["webtransport", "websocket"] {
        assert!(!output(client.ssh(&node, via).arg("true")).status.success(), "{via}");
    }
    run(&home, &["audit", "verify"]);
}

#[test]
fn a_token_that_expires_ends_its_sessions() {
    let home = Home::new();
    let node = Node::start(&home, &[]);
    let bystander = Bystander::start(&home, &node);
    let ways = ["quic", "webtransport"];
    let (client, _, end) = token_holder(&home, &node, "20s");
    let held = ways.map(|via| Held::start(&client, &node, via));
    held.into_iter().for_each(Held::ends);
    let end = OffsetDateTime::from_unix_timestamp(end).unwrap();
    ended_soon(&home, "a token's end", (end, end), &ways);
    let early = |event: &Value| is_over(event) && time(event) < end;
    assert!(!home.audit().iter().any(early));
    bystander.leaves();
}

#[test]
fn a_peer_that_is_removed_loses_its_sessions_over_every_transport() {
    let home = Home::new();
    let node = Node::start(&home, &[]);
    let bystander = Bystander::start(&home, &node);
    let client = Client::known_to(&home, "alice", "ssh");
    let held = WAYS.map(|via| Held::start(&client, &node, via));
    takes_away(&home, &["peer", "remove", "alice"], &WAYS);
    held.into_iter().for_each(Held::ends);
    bystander.leaves();
    for via in WAYS {
        assert!(!output(client.ssh(&node, via).arg("true")).status.success(), "{via}");
    }
}

/// The key that the connection stands on, and the one that SSH inside it stands on.
#[test]
fn a_key_that_is_removed_ends_what_stands_on_it_alone() {
    let home = Home::new();
    let node = Node::start(&home, &[]);
    let (one, two) = (Client::known_to(&home, "alice", "ssh"), Client::new());
    let (key, id) = (two.public_key(), two.home.id());
    run(&home, &["peer", "add", "alice", "--key", &key, "--key", &id]);
    let mut other = Bystander::with(&one, &node);
    for key in [key, id] {
        let held = WAYS.map(|via| Held::start(&two, &node, via));
        takes_away(&home, &["peer", "remove", "alice", "--key", &key], &WAYS);
        held.into_iter().for_each(Held::ends);
        other.goes_on();
        run(&home, &["peer", "add", "alice", "--key", &key]);
    }
    other.leaves();
}

#[test]
fn a_narrower_grant_ends_sessions_and_a_wider_one_does_not() {
    let home = Home::new();
    let node = Node::start(&home, &[]);
    let mut bystander = Bystander::start(&home, &node);
    let client = Client::known_to(&home, "alice", "ssh,git");
    let grant = |scopes| ["peer", "add", "alice", "--scope", scopes];
    let held = WAYS.map(|via| Held::start(&client, &node, via));
    takes_away(&home, &grant("git"), &WAYS);
    held.into_iter().for_each(Held::ends);
    assert!(!output(client.ssh(&node, "websocket").arg("true")).status.success());
    bystander.goes_on();

    run(&home, &grant("ssh"));
    let mut kept = Bystander::with(&client, &node);
    run(&home, &grant("ssh,git"));
    // What ends somebody else's sessions after that has looked at these as well.
    takes_away(&home, &["peer", "remove", "bystander"], &WAYS);
    kept.goes_on();
    run(&home, &grant("git,ssh:shell"));
    // They began with all of ssh.
    for session in kept.0 {
        assert_eq!(session.wait(), Some(255));
    }
    Bystander::with(&client, &node).leaves();
}

/// People in a file, each with the keys of a client.
fn write_people(home: &Home, people: &[(&str, &Client)]) {
    let describe = |(name, client): &(&str, &Client)| {
        let (key, id) = (client.public_key(), client.home.id());
        format!("[people.{name}]\nscopes = ['ssh']\nkeys = ['{key}', '{id}']\n")
    };
    write_file(home, &people.iter().map(describe).collect::<String>());
}

/// In one step, as editors and `git` do it.
fn write_file(home: &Home, text: &str) {
    let (next, file) = (home.path().join("people.next"), home.path().join("people.toml"));
    fs::write(&next, text).unwrap();
    fs::rename(next, file).unwrap();
}

#[test]
fn a_person_who_is_taken_out_of_the_file_loses_their_sessions() {
    let home = Home::new();
    let (alice, bob) = (Client::new(), Client::new());
    write_people(&home, &[("alice", &alice), ("bob", &bob)]);
    fs::write(home.path().join("alknet.toml"), "identities = 'people.toml'").unwrap();
    let node = Node::start(&home, &[]);
    let mut bystander = Bystander::with(&bob, &node);
    let mut kept = Bystander::with(&alice, &node);

    write_file(&home, "[people.alice]\nscopes = ['ssh'\n");
    eventually("the complaint", || {
        node.log().contains("the people of before are kept").then_some(())
    });
    // What ends a session of the store after that has looked at these as well.
    let stored = Client::known_to(&home, "stored", "ssh");
    let held = Held::start(&stored, &node, "tls");
    takes_away(&home, &["peer", "remove", "stored"], &["tls"]);
    held.ends();
    kept.goes_on();
    bystander.goes_on();
    kept.leaves();

    let held = WAYS.map(|via| Held::start(&alice, &node, via));
    let cause = OffsetDateTime::now_utc();
    write_people(&home, &[("bob", &bob)]);
    ended_soon(&home, "a change of the file", (cause, cause), &WAYS);
    held.into_iter().for_each(Held::ends);
    bystander.leaves();
    assert!(!output(alice.ssh(&node, "quic").arg("true")).status.success());
}

async fn ticket(node: &Node, credential: &str) -> String {
    let body = br#"{"alpn":"alknet/ssh"}"#;
    let fields = format!("Connection: close\r\n{credential}Content-Length: {}\r\n", body.len());
    let answer = raw(node, "POST /alknet/ticket", &fields, body).await;
    let (_, json) = answer.split_once("\r\n\r\n").unwrap();
    let issued: Value = serde_json::from_str(json).unwrap_or_else(|_| panic!("{answer}"));
    issued["ticket"].as_str().unwrap().to_owned()
}

async fn post(node: &Node, what: &str, credential: &str, body: &str) -> String {
    let fields = format!("Connection: close\r\n{credential}Content-Length: {}\r\n", body.len());
    raw(node, &format!("POST /alknet/{what}"), &fields, body.as_bytes()).await
}

/// Signs in with the link that the node printed; what a page of the node sends.
async fn sign_in(node: &Node, link: &str) -> String {
    let (_, secret) = link.split_once("/alknet/signin/").unwrap();
    let path = format!("GET /alknet/signin/{}", secret.split('#').next().unwrap());
    let answer = raw(node, &path, "Connection: close\r\n", b"").await;
    let (_, cookie) = answer.split_once("__Host-alknet=").unwrap_or_else(|| panic!("{answer}"));
    let cookie = cookie.split(';').next().unwrap();
    format!("Cookie: __Host-alknet={cookie}\r\nOrigin: https://localhost:{}\r\n", node.port())
}

fn offer(ticket: &str) -> String {
    format!("Sec-WebSocket-Protocol: alknet.ssh, ticket.{ticket}\r\n")
}

/// A WebSocket that stands, by a ticket; as its client has sent nothing, it can only wait.
async fn websocket(node: &Node, ticket: &str) -> Stream {
    let connection = dial("http/1.1").tls(node.address()).await.unwrap().connection;
    let mut stream = connection.open_bi().await.unwrap();
    let (host, offer) = (format!("localhost:{}", node.port()), offer(ticket));
    let head = format!("GET /alknet/ssh HTTP/1.1\r\nHost: {host}\r\n{UPGRADE}{offer}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "));
    stream
}

/// Waits for the WebSocket's end, and what its close frame says (RFC 6455, section 5.5.1).
async fn closed_with(mut stream: Stream) -> Option<u16> {
    let mut rest = Vec::new();
    // Whether TLS ends in order is not asked here.
    let _ = timeout(SOON, stream.read_to_end(&mut rest)).await.unwrap();
    let at = rest.windows(2).position(|frame| frame == [0x88, 0x02])?;
    Some(u16::from_be_bytes([*rest.get(at + 2)?, *rest.get(at + 3)?]))
}

#[tokio::test]
async fn tickets_and_what_they_opened_end_with_the_token() {
    let home = Home::new();
    let node = Node::start(&home, &[]);
    let [revoked, kept] = [(); 2].map(|()| json(&home, &["token", "create", "--json"]));
    let bearer =
        |of: &Value| format!("Authorization: Bearer {}\r\n", of["token"].as_str().unwrap());
    let open = websocket(&node, &ticket(&node, &bearer(&revoked)).await).await;
    let unused = [ticket(&node, &bearer(&revoked)).await, ticket(&node, &bearer(&kept)).await];
    takes_away(&home, &["token", "revoke", revoked["id"].as_str().unwrap()], &["websocket"]);
    assert_eq!(closed_with(open).await, Some(4007));
    let [refused, admitted] = unused.map(|ticket| offer(&ticket) + "Connection: close\r\n");
    let answer = upgrade(&node, "/alknet/ssh", &refused).await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    home.audited("the refusal", |event| {
        event["event"] == "refused" && event["reason"] == "ticket of a credential that was revoked"
    });
    assert!(upgrade(&node, "/alknet/ssh", &admitted).await.starts_with("HTTP/1.1 101 "));
}

#[tokio::test]
async fn signing_out_ends_what_the_browser_has_open() {
    let home = Home::new();
    let node = Node::start(&home, &[]);
    let own = sign_in(&node, &node.banner().sign_in[0]).await;
    let entry = home.audited("the sign-in", |event| event["method"] == "sign-in link");
    assert!(entry["peer"].is_string() && entry["transport"] == "tls", "{entry}");
    let client = Client::new();
    run(&home, &["peer", "add", "owner", "--key", &client.home.id()]);
    let key = serde_json::json!({ "openssh": client.public_key() }).to_string();
    let answer = post(&node, "keys", &own, &key).await;
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    let held = Held::start(&client, &node, "tls");
    let open = websocket(&node, &ticket(&node, &own).await).await;
    let unused = ticket(&node, &own).await;
    let start = OffsetDateTime::now_utc();
    let answer = post(&node, "signout", &own, "").await;
    assert!(answer.starts_with("HTTP/1.1 204 ") && answer.contains("Max-Age=0"), "{answer}");
    let event = home.audited("the sign-out", |event| event["event"] == "signed-out");
    assert_eq!((&event["identity"], &event["method"]), (&"owner".into(), &"cookie".into()));
    assert!(event["peer"].is_string(), "{event}");
    ended_soon(&home, "signing out", (start, time(&event)), &["tls", "websocket"]);
    held.ends();
    assert_eq!(closed_with(open).await, Some(4007));
    let peers = json(&home, &["peer", "list", "--json"]);
    assert_eq!(peers[0]["keys"].as_array().map(Vec::len), Some(1), "{peers}");
    assert!(!output(client.ssh(&node, "tls").arg("true")).status.success());
    let answer = raw(&node, "GET /alknet/session", &(own + "Connection: close\r\n"), b"").await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    let answer = upgrade(&node, "/alknet/ssh", &(offer(&unused) + "Connection: close\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}

/// A key that stays is for the owner to give, and nobody takes somebody else's.
#[tokio::test]
async fn only_a_browser_authorises_a_key_and_only_its_own() {
    let home = Home::new();
    let (alice, bob, new) = (Client::new(), Client::known_to(&home, "bob", "ssh"), Client::new());
    write_people(&home, &[("alice", &alice)]);
    fs::write(home.path().join("alknet.toml"), "identities = 'people.toml'").unwrap();
    let node = Node::start(&home, &[]);
    let token = json(&home, &["token", "create", "--json"])["token"].clone();
    let token = token.as_str().unwrap();
    let cookie = sign_in(&node, &node.banner().sign_in[0]).await;
    let as_cookie = cookie.split_once("\r\n").unwrap().1;
    let [bearer, as_cookie] = [
        format!("Authorization: Bearer {token}\r\n"),
        format!("Cookie: __Host-alknet={token}\r\n{as_cookie}"),
    ];
    let id = new.home.id();
    for (credential, key, status) in [
        (&bearer, new.public_key(), 403),
        (&as_cookie, new.public_key(), 403),
        (&cookie, alice.public_key(), 409),
        (&cookie, bob.public_key(), 409),
        (&cookie, id, 400),
        (&cookie, new.public_key(), 204),
        (&cookie, new.public_key(), 204),
    ] {
        let body = serde_json::json!({ "openssh": key }).to_string();
        let answer = post(&node, "keys", credential, &body).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{key}: {answer}");
    }
    let added = |event: &&Value| event["event"] == "key-added" && event["method"] == "cookie";
    home.audited("the key", |event| added(&event));
    assert_eq!(home.audit().iter().filter(added).count(), 1);
}

/// Unknown links cost nothing, and nobody pushes what happened before out of the log.
#[tokio::test]
async fn unknown_sign_in_links_are_recorded_once_for_each_connection() {
    let home = Home::new();
    let node = Node::start(&home, &[]);
    let host = format!("Host: localhost:{}\r\n", node.port());
    let again: String =
        (0..5).map(|i| format!("GET /alknet/signin/alk_{i} HTTP/1.1\r\n{host}\r\n")).collect();
    let connection = dial("http/1.1").tls(node.address()).await.unwrap().connection;
    let mut stream = connection.open_bi().await.unwrap();
    let last = format!("GET /alknet/signin/alk_9 HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
    stream.write_all((again + &last).as_bytes()).await.unwrap();
    let mut answers = Vec::new();
    // Whether TLS ends in order is not asked here.
    let _ = timeout(SOON, stream.read_to_end(&mut answers)).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&answers).matches("HTTP/1.1 404 ").count(), 6);
    sign_in(&node, &node.banner().sign_in[0]).await;
    home.audited("what comes after", |event| event["event"] == "authenticated");
    let refused: Vec<Value> =
        home.audit().into_iter().filter(|event| event["event"] == "refused").collect();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0]["reason"], "unknown sign-in link");
    assert!(refused[0]["peer"].is_string() && refused[0]["transport"] == "tls", "{refused:?}");
}

/// The code of the close tells a client that it need not try again.
#[tokio::test]
async fn a_native_client_is_told_that_it_was_revoked() {
    let home = Home::new();
    let node = Node::start_example(&home, "own_service");
    let key = NodeIdentity::from_seed(&[9; 32]).unwrap();
    run(&home, &["peer", "add", "it", "--key", &key.id().to_string(), "--scope", "echo"]);
    let call = Dial { key: Some(Arc::new(key)), ..dial("alknet/echo") };
    let connection = call.quic(node.address()).await.unwrap().connection;
    let mut stream = connection.open_bi().await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    stream.read_exact(&mut [0; 5]).await.unwrap();
    takes_away(&home, &["peer", "remove", "it"], &["quic"]);
    let closed = timeout(SOON, connection.closed()).await.unwrap();
    assert_eq!(closed.code, Code::REVOKED);
}
