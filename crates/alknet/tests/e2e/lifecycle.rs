//! Starting, ending, and being ended.

use std::{
    fs,
    io::{Read as _, Write as _},
    process::Stdio,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::{
    client::{Client, WAYS},
    node::{Home, Node},
    process::{SOON, eventually, first_bytes, output, output_of, output_with, stdout, text},
    session::Session,
};

/// What a session does that can be found among the processes by `mark`, until its input
/// ends.
fn marked(mark: &str) -> String {
    format!("exec cat - /dev/null/{mark} 2>&-")
}

/// Whether a process has this among its arguments.
fn is_running(mark: &str) -> bool {
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let mut lines = processes.filter_map(|it| fs::read(it.path().join("cmdline")).ok());
    // The ssh clients have it as a part of one argument, the remote command has it alone.
    let alone = format!("/dev/null/{mark}");
    lines.any(|line| line.split(|byte| *byte == 0).any(|arg| arg == alone.as_bytes()))
}

#[test]
fn sigterm_drains_then_closes() {
    // Long enough for a busy machine to end eight sessions in.
    const DRAIN: Duration = Duration::from_secs(10);
    let home = Home::new();
    let mut node = Node::start(&home, &["--drain", &DRAIN.as_secs().to_string()]);
    let client = Client::known_to(&home, "tester", "ssh");
    let mark = format!("drain-{}", node.pid());
    let mut sessions = Vec::new();
    while sessions.len() < 20 {
        // A few at once: a dial does not wait for ever.
        let mut some = WAYS.map(|via| Session::start(&client, &node, via, &marked(&mark)));
        some.iter_mut().for_each(Session::ready);
        sessions.extend(some);
    }
    assert!(is_running(&mark));

    let told = Instant::now();
    node.signal(Signal::SIGTERM);
    // Who is quicker than the signal is let in.
    let mut let_in = 0;
    eventually("a node that takes nobody new", || {
        let address = node.address().to_string();
        let dialled = output(&mut client.home.alknet(&["dial", &address, "ssh", "--via", "tls"]));
        let_in += usize::from(dialled.status.success());
        (!dialled.status.success()).then_some(())
    });

    // What ends by itself in time ends as if nothing were.
    let closed = sessions.split_off(8);
    for mut session in sessions {
        session.end_input();
        // cat fails for the path that marks it, after it has copied its input.
        assert_eq!(session.wait(), Some(1));
    }
    assert!(told.elapsed() < DRAIN, "too slow to tell a drained session from a closed one");
    for session in closed {
        assert_eq!(session.wait(), Some(255));
    }
    let status = node.wait(SOON);
    assert_eq!(status.code(), Some(0), "{}", node.log());
    assert!(told.elapsed() >= DRAIN, "the sessions were not given their time");
    eventually("the sessions in the log", || {
        node.log().contains("closed at the deadline").then_some(())
    });
    eventually("the end of the remote commands", || (!is_running(&mark)).then_some(()));

    let count = |name: &str| {
        let of_ssh =
            |event: &&serde_json::Value| event["event"] == name && event["alpn"] == "alknet/ssh";
        home.audit().iter().filter(of_ssh).count()
    };
    let all = 20 + let_in;
    assert_eq!((count("session-start"), count("session-end")), (all, all));
    assert!(!home.path().join("run/address").exists());
}

/// What ends in the middle is an error on every transport, in words of the program's own.
#[test]
fn clients_of_a_node_that_goes_are_told_so() {
    let home = Home::new();
    let mut node = Node::start(&home, &["--drain", "0"]);
    let client = Client::known_to(&home, "tester", "ssh");
    let address = node.address().to_string();
    let mut dialled = Vec::new();
    for via in WAYS {
        let mut dial = client.home.alknet(&["dial", &address, "ssh", "--via", via]);
        dial.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = dial.spawn().unwrap();
        // A QUIC stream begins with its first byte, and the end of the input would be an end
        // in order.
        let mut input = child.stdin.take().unwrap();
        input.write_all(b"SSH-2.0-test\r\n").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 8]).unwrap();
        dialled.push((via, child, input));
    }
    node.signal(Signal::SIGTERM);
    for (via, child, _input) in dialled {
        let ended = output_of(child, SOON);
        let said = text(&ended);
        assert_eq!(ended.status.code(), Some(1), "{via}: {said}");
        assert!(!said.contains("://") && !said.contains("notify"), "{via}: {said}");
    }
    assert_eq!(node.wait(SOON).code(), Some(0), "{}", node.log());
}

#[test]
fn an_idle_node_ends_at_once() {
    let home = Home::new();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut node = Node::start(&home, &["--drain", "50"]);
        node.signal(signal);
        assert_eq!(node.wait(Duration::from_secs(20)).code(), Some(0), "{}", node.log());
    }
}

#[test]
fn kill_and_restart_lose_nothing() {
    let home = Home::new();
    let mut node = Node::start(&home, &[]);
    let address = node.address().to_string();
    let id = node.id();
    let client = Client::known_to(&home, "tester", "ssh");
    let token =
        stdout(&output(&mut home.alknet(&["token", "create", "--name", "kept", "--scope", "ssh"])));
    let known = || {
        let list = |what| stdout(&output(&mut home.alknet(&[what, "list", "--json"])));
        (list("peer"), list("token"))
    };
    let before = known();
    let mut session = Session::start(&client, &node, "tls", &marked("killed"));
    session.ready();
    node.signal(Signal::SIGKILL);
    assert_eq!(node.wait(SOON).code(), None);
    assert_eq!(session.wait(), Some(255));

    let again = Node::start_at(&home, &address, &[]);
    assert_eq!(again.id(), id);
    assert_eq!(known(), before);
    for via in WAYS {
        assert_eq!(stdout(&output(client.ssh(&again, via).arg("echo back"))), "back\n");
    }
    // The token still proves who has it.
    let guest = Client::new();
    let login = ["login", &address, "--pin", &id.to_string()];
    let logged_in = output_with(&mut guest.home.alknet(&login), token.as_bytes());
    assert!(logged_in.status.success(), "{}", text(&logged_in));
    let dial = ["dial", &address, "ssh", "--via", "websocket"];
    assert_eq!(first_bytes(&mut guest.home.alknet(&dial)), *b"SSH-2.0-");
}

#[test]
fn one_state_folder_serves_one_node() {
    let home = Home::new();
    let _node = Node::start(&home, &[]);
    let second = output(&mut home.alknet(&["serve", "--listen", "127.0.0.1:0"]));
    assert_eq!(second.status.code(), Some(1), "{}", text(&second));
    assert!(second.stdout.is_empty() && text(&second).contains("error: "), "{}", text(&second));
}

#[test]
fn a_taken_port_is_an_error() {
    let (home, other) = (Home::new(), Home::new());
    let node = Node::start(&home, &[]);
    let address = node.address().to_string();
    let second = output(&mut other.alknet(&["serve", "--listen", &address]));
    assert_eq!(second.status.code(), Some(1), "{}", text(&second));
    assert!(text(&second).contains(&node.port()), "{}", text(&second));
}
