//! Shells that survive, by the real client over each transport.

mod link;
mod outage;

use std::{
    io::{Read as _, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Instant,
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    client::{Client, WAYS},
    node::{Home, Node},
    process::{Deadline, LONG, SOON, output, output_with, stdout, text},
    terminal::Terminal,
};

/// `alknet sessions VERB NODE`, and what follows.
fn sessions(client: &Client, node: &Node, verb: &str, more: &[&str]) -> Command {
    let (address, pin) = (node.address().to_string(), node.banner().node.clone());
    let mut args = vec!["sessions", verb, &address, "--pin", &pin];
    args.extend(more);
    client.home.alknet(&args)
}

fn listed(client: &Client, node: &Node) -> Vec<Value> {
    let list = stdout(&output(&mut sessions(client, node, "list", &["--json"])));
    serde_json::from_str(&list).unwrap()
}

/// A viewer on pipes.
struct Viewer {
    child: Child,
    input: Option<ChildStdin>,
    seen: Arc<(Mutex<Seen>, Condvar)>,
    guard: Deadline,
}

#[derive(Default)]
struct Seen {
    bytes: Vec<u8>,
    /// When anything was seen last.
    last: Option<Instant>,
    over: bool,
}

impl Viewer {
    fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let seen = Arc::<(Mutex<Seen>, Condvar)>::default();
        let (shared, mut from) = (seen.clone(), child.stdout.take().unwrap());
        thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            let (seen, changed) = &*shared;
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                let mut seen = seen.lock().unwrap();
                seen.bytes.extend_from_slice(&buffer[..count]);
                seen.last = Some(Instant::now());
                changed.notify_all();
            }
            seen.lock().unwrap().over = true;
            changed.notify_all();
        });
        let guard = Deadline::kill(child.id(), LONG * 10);
        let input = child.stdin.take();
        Self { child, input, seen, guard }
    }

    fn types(&mut self, bytes: &[u8]) {
        let input = self.input.as_mut().unwrap();
        input.write_all(bytes).unwrap();
        input.flush().unwrap();
    }

    #[track_caller]
    fn until(&self, what: &str, fits: impl Fn(&Seen) -> bool) {
        let (seen, changed) = &*self.seen;
        let waiting = |seen: &mut Seen| !fits(seen) && !seen.over;
        let (seen, _) = changed.wait_timeout_while(seen.lock().unwrap(), SOON, waiting).unwrap();
        let end = seen.bytes.len().saturating_sub(300);
        assert!(fits(&seen), "{what}: {:?}", String::from_utf8_lossy(&seen.bytes[end..]));
    }

    #[track_caller]
    fn sees(&self, text: &str) {
        self.until(text, |seen| {
            seen.bytes.windows(text.len()).any(|window| window == text.as_bytes())
        });
    }

    /// The status, what was written and what was said about it.
    fn ends(mut self) -> (Option<i32>, Vec<u8>, String) {
        drop(self.input.take());
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        let status = self.child.wait().unwrap();
        self.until_over();
        assert!(!self.guard.passed(), "the viewer did not end: {said}");
        let bytes = std::mem::take(&mut self.seen.0.lock().unwrap().bytes);
        (status.code(), bytes, said)
    }

    fn until_over(&self) {
        let (seen, changed) = &*self.seen;
        drop(changed.wait_while(seen.lock().unwrap(), |seen| !seen.over).unwrap());
    }
}

#[test]
fn over_each_transport_a_session_runs_is_listed_and_ends() {
    let home = Home::new();
    let node = Node::start(&home, &[]);
    let ann = Client::known_to(&home, "ann", "shell");
    for via in WAYS {
        let run = ["--via", via, via, "--", "stty", "-onlcr", "-echo;", "read x; seq 1 3; echo $x"];
        let mut run = sessions(&ann, &node, "attach", &run);
        let ran = output_with(&mut run, b"typed\n");
        // What comes before the terminal is set echoes.
        assert!(stdout(&ran).ends_with("1\n2\n3\ntyped\n"), "{via}: {}", text(&ran));
        let failed = output(&mut sessions(&ann, &node, "attach", &["--via", via, "--", "exit 3"]));
        assert_eq!(failed.status.code(), Some(1), "{via}");
        let viewer = Viewer::start(sessions(
            &ann,
            &node,
            "attach",
            &["--via", via, "kept", "--", "echo up; sleep 1000"],
        ));
        viewer.sees("up");
        let list = listed(&ann, &node);
        assert_eq!(list.len(), 1, "{via}: {list:?}");
        assert_eq!(list[0]["name"], "kept");
        assert_eq!(list[0]["viewers"][0]["away"], false);
        stdout(&output(&mut sessions(&ann, &node, "end", &["kept", "--via", via])));
        let (status, _, said) = viewer.ends();
        assert!(status == Some(1) && said.contains("ended"), "{via}: {said}");
        assert!(listed(&ann, &node).is_empty());
    }
    home.audited("the session's beginning", |it| it["event"] == "shell-started");
    home.audited("the session's end", |it| it["event"] == "shell-ended");
}

#[test]
fn at_a_terminal_it_is_left_by_the_keys_of_ssh_and_taken_up_again() {
    let home = Home::new();
    let node = Node::start(&home, &[]);
    let ann = Client::known_to(&home, "ann", "shell");
    let address = node.address().to_string();
    let attach = ["ssh", "--attach", "--pin", &node.banner().node, &address, "work"];
    let mut terminal = Terminal::run(&ann.home.alknet(&attach), 30, 90);
    terminal.type_line("stty size; echo s''een");
    terminal.expect("30 90");
    terminal.expect("seen");
    terminal.resize(20, 70);
    terminal.type_line("stty size");
    terminal.expect("20 70");
    terminal.type_line("~?");
    terminal.expect("this help");
    terminal.type_line("~.");
    terminal.expect("the session runs on");
    assert_eq!(terminal.wait(), Some(0));
    let mut again = Terminal::run(&ann.home.alknet(&attach), 20, 70);
    again.expect("seen");
    again.type_line("exit");
    assert_eq!(again.wait(), Some(0));
}

#[test]
fn a_session_that_ended_with_its_node_is_told_as_that() {
    let home = Home::new();
    let mut node = Node::start(&home, &[]);
    let address = node.address().to_string();
    let ann = Client::known_to(&home, "ann", "shell");
    let ways = ["quic", "tls"];
    let start = |node: &Node, via: &str| {
        let run = ["--via", via, via, "--", "echo up; sleep 1000"];
        let viewer = Viewer::start(sessions(&ann, node, "attach", &run));
        viewer.sees("up");
        viewer
    };
    let viewers = ways.map(|via| start(&node, via));
    node.signal(Signal::SIGTERM);
    node.wait(SOON);
    for viewer in viewers {
        let (status, _, said) = viewer.ends();
        assert!(status == Some(1) && said.contains("shutting down"), "{said}");
    }
    // One that dies says nothing, and the next knows nothing of its sessions.
    let mut node = Node::start_at(&home, &address, &[]);
    let viewers = ways.map(|via| start(&node, via));
    node.signal(Signal::SIGKILL);
    node.wait(SOON);
    let _node = Node::start_at(&home, &address, &[]);
    for viewer in viewers {
        let (status, _, said) = viewer.ends();
        assert!(status == Some(1) && said.contains("the session is over"), "{said}");
    }
}

#[test]
fn a_revoked_peer_is_told_and_leaves_nothing_running() {
    let home = Home::new();
    let node = Node::start(&home, &[]);
    let ann = Client::known_to(&home, "ann", "shell");
    let viewers = WAYS.map(|via| {
        let run = ["--via", via, via, "--", "echo up $$; exec sleep 1000"];
        let viewer = Viewer::start(sessions(&ann, &node, "attach", &run));
        viewer.sees("up ");
        viewer.until("the line", |seen| seen.bytes.ends_with(b"\n"));
        viewer
    });
    stdout(&output(&mut home.alknet(&["peer", "remove", "ann"])));
    for (via, viewer) in WAYS.into_iter().zip(viewers) {
        let (status, seen, said) = viewer.ends();
        assert_eq!(status, Some(1), "{via}: {said}");
        let seen = String::from_utf8(seen).unwrap();
        let pid = seen.lines().find_map(|line| line.strip_prefix("up ")).unwrap();
        let proc = format!("/proc/{}", pid.trim());
        crate::process::eventually("the end of the program", || {
            (!std::path::Path::new(&proc).exists()).then_some(())
        });
    }
}

#[test]
fn a_stranger_and_a_peer_without_the_scope_get_nothing() {
    let home = Home::new();
    let node = Node::start(&home, &[]);
    for client in [Client::new(), Client::known_to(&home, "bob", "ssh")] {
        for verb in ["list", "attach"] {
            let refused = output(&mut sessions(&client, &node, verb, &[]));
            assert_eq!(refused.status.code(), Some(1));
            let said = text(&refused);
            assert!(said.contains("refused") || said.contains("Refused"), "{said}");
        }
    }
}

#[test]
fn sessions_are_bounded_as_the_configuration_has_it() {
    let home = Home::new();
    let config = "[shell]\nsessions = 1\nviewers = 1\ndetached = \"1s\"\n";
    std::fs::write(home.path().join("alknet.toml"), config).unwrap();
    let node = Node::start(&home, &[]);
    let ann = Client::known_to(&home, "ann", "shell");
    let attach = |name: &str| {
        sessions(&ann, &node, "attach", &["--via", "tls", name, "--", "echo up; sleep 1000"])
    };
    let mut viewer = Viewer::start(attach("work"));
    viewer.sees("up");
    for (name, message) in [("other", "too many sessions"), ("work", "too many viewers")] {
        let refused = output(&mut attach(name));
        assert!(text(&refused).contains(message), "{}", text(&refused));
    }
    viewer.child.kill().unwrap();
    viewer.ends();
    crate::process::eventually("the end of a session that nobody looks at", || {
        listed(&ann, &node).is_empty().then_some(())
    });
}
