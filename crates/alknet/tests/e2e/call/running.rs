//! Calls that last, and how they end.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, ChildStdout, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::call;
use crate::{
    client::{Client, WAYS},
    node::{Home, Node},
    process::{Deadline, SOON, output, output_of, signal, stdout},
};

/// How soon the end of a call is the end of what it runs, the client's own end included. Ten
/// times what it takes: the machine has other things to do. A connection that nobody ends goes
/// on for a minute.
const PROMPT: Duration = Duration::from_secs(10);
/// Three levels, the deepest of which says who it is and stays.
const DEEP: &str = r#"command=sh -c 'sh -c "echo \$\$; exec sleep 600"; true'; true"#;

/// An `alknet call` that prints lines until it ends.
struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
    guard: Deadline,
}

impl Running {
    fn start(client: &Client, node: &Node, args: &[&str]) -> Self {
        let mut command = call(client, node, args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let guard = Deadline::kill(child.id(), SOON);
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines, guard }
    }

    #[track_caller]
    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    /// The process of the command that runs.
    #[track_caller]
    fn pid(&mut self) -> String {
        self.next()["data"].as_str().unwrap().trim().to_owned()
    }

    /// How it ended and what it said. It is heard to its end: one whose reader has gone is done.
    fn end(mut self) -> (Option<i32>, String) {
        let _ = self.lines.read_to_end(&mut Vec::new());
        self.leave()
    }

    /// The same where nobody reads any more.
    fn leave(self) -> (Option<i32>, String) {
        drop(self.lines);
        let done = output_of(self.child, SOON);
        assert!(!self.guard.passed(), "it did not end");
        (done.status.code(), String::from_utf8(done.stderr).unwrap())
    }
}

/// Whether a process is there and not dead.
fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| state != 'Z' && state != 'X')
}

#[track_caller]
fn ends_promptly(pid: &str, since: Instant, what: &str) {
    while runs(pid) {
        assert!(since.elapsed() < PROMPT, "{what}: process {pid} still runs");
        thread::park_timeout(Duration::from_millis(1));
    }
}

#[test]
fn a_signal_to_the_command_line_ends_what_runs_on_the_node() {
    let home = Home::new();
    let node = Node::start(&home, &[]);
    let client = Client::known_to(&home, "operator", "call:exec/run,exec");
    for via in WAYS {
        for told in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            let mut running = Running::start(&client, &node, &["--via", via, "exec/run", DEEP]);
            let pid = running.pid();
            assert!(runs(&pid));
            let since = Instant::now();
            signal(running.child.id(), told);
            ends_promptly(&pid, since, &format!("{told} over {via}"));
            let (code, said) = running.end();
            assert_eq!((code, said.as_str()), (Some(1), "error: the call was aborted\n"), "{via}");
        }
    }
}

/// Over TCP the operating system tells the node. Over QUIC a killed process tells nobody,
/// and the connection's idle timeout does.
#[test]
fn a_connection_that_is_gone_ends_what_runs_on_the_node() {
    let home = Home::new();
    let node = Node::start(&home, &[]);
    let client = Client::known_to(&home, "operator", "call:exec/run,exec");
    for via in ["tls", "websocket"] {
        let mut running = Running::start(&client, &node, &["--via", via, "exec/run", DEEP]);
        let pid = running.pid();
        let since = Instant::now();
        signal(running.child.id(), Signal::SIGKILL);
        ends_promptly(&pid, since, via);
        running.end();
    }
}

#[test]
fn a_revocation_ends_what_runs() {
    let home = Home::new();
    let node = Node::start(&home, &[]);
    for via in WAYS {
        let client = Client::known_to(&home, "operator", "call,exec");
        let mut tail = Running::start(&client, &node, &["--via", via, "audit/tail", "follow=true"]);
        let mut exec = Running::start(&client, &node, &["--via", via, "exec/run", DEEP]);
        tail.next();
        let pid = exec.pid();
        stdout(&output(&mut home.alknet(&["peer", "remove", "operator"])));
        let since = Instant::now();
        ends_promptly(&pid, since, via);
        for running in [tail, exec] {
            let (code, said) = running.end();
            assert_eq!(code, Some(1), "{via}: {said}");
            // TLS has no words for why a connection ends.
            let says_why = ["quic", "webtransport"].contains(&via);
            assert!(!says_why || said.contains("revoked"), "{via}: {said}");
        }
        assert!(since.elapsed() < PROMPT, "{via}: {:?}", since.elapsed());
    }
}

#[test]
fn a_subscription_goes_on_behind_an_event() {
    let home = Home::new();
    let node = Node::start(&home, &[]);
    let client = Client::known_to(&home, "reader", "call:audit/*");
    let tail = ["audit/tail", "follow=true", "--json"];
    let mut running = Running::start(&client, &node, &tail);
    let first = running.next();
    let event = first["event"].as_str().unwrap().to_owned();
    let seq = first["output"]["seq"].as_u64().unwrap();
    assert!(event.starts_with(&format!("{seq}:")), "{first}");
    signal(running.child.id(), Signal::SIGINT);
    running.end();
    let mut running = Running::start(&client, &node, &[&tail[..], &["--after", &event]].concat());
    assert_eq!(running.next()["output"]["seq"], seq + 1);
    // Nobody reads any more: it ends by itself, without a word.
    let (code, said) = running.leave();
    assert_eq!((code, said.as_str()), (Some(0), ""));
}

#[test]
fn the_end_of_the_node_is_told() {
    let home = Home::new();
    let mut node = Node::start(&home, &[]);
    let client = Client::known_to(&home, "operator", "call:exec/run,exec");
    let mut running = Running::start(&client, &node, &["--via", "quic", "exec/run", DEEP]);
    let pid = running.pid();
    node.signal(Signal::SIGTERM);
    node.wait(SOON);
    // Killed, it still has to notice.
    ends_promptly(&pid, Instant::now(), "what it ran is still there");
    let (code, said) = running.end();
    assert_eq!(code, Some(1), "{said}");
}
