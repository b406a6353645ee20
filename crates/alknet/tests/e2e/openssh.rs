//! The stock OpenSSH client, over every transport.

use std::{
    io::{BufRead as _, BufReader, Read, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    thread,
};

use aws_lc_rs::digest::{Context, Digest, SHA256};

use crate::{
    client::{Client, WAYS, account},
    node::{Home, Node},
    process::{Deadline, LONG, SOON, eventually, output, output_with, stdout},
    terminal::Terminal,
};

/// Through `cat` and back.
const BULK: u64 = 300 << 20;
/// Far more than any window or buffer on the way holds.
const STALLED: u64 = 200 << 20;

/// One test per transport.
macro_rules! over_every_transport {
    ($($test:ident),* $(,)?) => {
        over_every_transport!(@ways [$($test),*] quic tls webtransport websocket);

        #[test]
        fn no_transport_is_left_out() {
            assert_eq!(WAYS, ["quic", "tls", "webtransport", "websocket"]);
        }
    };
    (@ways $tests:tt $($via:ident)*) => { $(over_every_transport!(@one $via $tests);)* };
    (@one $via:ident [$($test:ident),*]) => {
        mod $via {
            $(#[test] fn $test() { super::$test(stringify!($via)); })*
        }
    };
}

over_every_transport!(
    commands_and_their_status,
    a_terminal_that_is_resized,
    bulk_data_is_whole,
    a_stalled_channel_beside_a_busy_one,
    twenty_sessions_at_once,
);

fn node_and_client() -> (Home, Node, Client) {
    let home = Home::new();
    let node = Node::start(&home, &[]);
    let client = Client::known_to(&home, "tester", "ssh");
    (home, node, client)
}

fn commands_and_their_status(via: &str) {
    let (_home, node, client) = node_and_client();
    let run = |command: &str| output(client.ssh(&node, via).arg(command));
    assert_eq!(stdout(&run("true")), "");
    assert_eq!(stdout(&run("echo hello")), "hello\n");
    assert_eq!(run("exit 7").status.code(), Some(7));
    let both = run("echo out; echo err >&2; exit 3");
    assert_eq!((both.stdout.as_slice(), both.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    assert_eq!(both.status.code(), Some(3));
    // The end of input reaches the command, and its answer comes after.
    let counted = output_with(client.ssh(&node, via).arg("wc -c; echo done"), b"12345");
    assert_eq!(stdout(&counted), "5\ndone\n");
    // A command ended by a signal.
    assert_eq!(run("kill -TERM $$").status.code(), Some(255));
}

fn a_terminal_that_is_resized(via: &str) {
    let (_home, node, client) = node_and_client();
    let mut ssh = client.ssh(&node, via);
    ssh.args(["-tt", "sh"]);
    let mut terminal = Terminal::run(&ssh, 30, 90);
    // What is typed is echoed: the shell's answer must differ from the line itself.
    terminal.type_line("echo size: $(stty size)");
    terminal.expect("size: 30 90");
    terminal.resize(41, 123);
    terminal
        .type_line(r#"until [ "$(stty size)" = "41 123" ]; do :; done; echo now: $(stty size)"#);
    terminal.expect("now: 41 123");
    terminal.type_line("exit 5");
    assert_eq!(terminal.wait(), Some(5));
}

fn bulk_data_is_whole(via: &str) {
    let (_home, node, client) = node_and_client();
    let mut ssh = piped(client.ssh(&node, via).arg("cat"));
    let guard = Deadline::kill(ssh.id(), LONG);
    let input = ssh.stdin.take().unwrap();
    let sender = thread::spawn(move || send_random(input, BULK));
    let (received, digest) = hash(ssh.stdout.take().unwrap());
    let sent = sender.join().unwrap();
    assert!(!guard.passed(), "{received} bytes in {LONG:?}");
    assert_eq!(received, BULK);
    assert_eq!(sent.as_ref(), digest.as_ref());
    assert!(ssh.wait().unwrap().success());
}

/// One connection, one channel whose output nobody reads: the other goes on, and the first
/// loses nothing.
fn a_stalled_channel_beside_a_busy_one(via: &str) {
    let (_home, node, client) = node_and_client();
    let socket = client.home.path().join("mux");
    let mut master = piped(
        client.ssh(&node, via).arg("-N").args(["-o", "ControlMaster=yes", "-S"]).arg(&socket),
    );
    let guard = Deadline::kill(master.id(), LONG);
    let mux = || {
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "none", "-S"]).arg(&socket);
        ssh
    };
    eventually("the multiplexed connection", || {
        output(mux().args(["-O", "check", "node"])).status.success().then_some(())
    });

    let mut stalled = piped(mux().args(["node", &format!("head -c {STALLED} /dev/zero")]));
    let mut first = [0; 1];
    let mut stalled_output = stalled.stdout.take().unwrap();
    stalled_output.read_exact(&mut first).unwrap();

    let mut busy = piped(mux().args(["node", "cat"]));
    let input = busy.stdin.take().unwrap();
    let sender = thread::spawn(move || send_random(input, 50 << 20));
    let (_, digest) = hash(busy.stdout.take().unwrap());
    assert_eq!(sender.join().unwrap().as_ref(), digest.as_ref());
    assert!(busy.wait().unwrap().success());

    let (rest, _) = hash(stalled_output);
    assert_eq!(rest + 1, STALLED);
    assert!(stalled.wait().unwrap().success());
    assert!(output(mux().args(["-O", "exit", "node"])).status.success());
    assert!(master.wait().is_ok() && !guard.passed());
}

fn twenty_sessions_at_once(via: &str) {
    let (_home, node, client) = node_and_client();
    let mut sessions: Vec<Child> = (0..20)
        .map(|i| piped(client.ssh(&node, via).arg(format!("echo ready {i}; cat"))))
        .collect();
    let guards: Vec<Deadline> = sessions.iter().map(|ssh| Deadline::kill(ssh.id(), SOON)).collect();
    let mut outputs: Vec<_> =
        sessions.iter_mut().map(|ssh| BufReader::new(ssh.stdout.take().unwrap())).collect();
    for (i, output) in outputs.iter_mut().enumerate() {
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, format!("ready {i}\n"));
    }
    // All of them stand; now each one works.
    for (i, ssh) in sessions.iter_mut().enumerate() {
        let mut input = ssh.stdin.take().unwrap();
        input.write_all(format!("{i}").as_bytes()).unwrap();
    }
    for (i, output) in outputs.iter_mut().enumerate() {
        let mut said = String::new();
        output.read_to_string(&mut said).unwrap();
        assert_eq!(said, format!("{i}"));
    }
    for (ssh, guard) in sessions.iter_mut().zip(guards) {
        assert!(ssh.wait().unwrap().success());
        assert!(!guard.passed());
    }
}

/// With nothing set up but a key: identity, host key and transport are found out.
#[test]
fn alknet_ssh_needs_no_options() {
    let (_home, node, client) = node_and_client();
    let to = format!("{}@{}", account(), node.address());
    for via in WAYS.into_iter().chain(["auto"]) {
        let mut ssh = client.home.alknet(&["ssh", "--via", via, &to, "-F", "none", "-i"]);
        ssh.arg(client.key()).args(["-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"]);
        assert_eq!(stdout(&output(ssh.args(["echo", "over", via]))), format!("over {via}\n"));
    }
}

/// A connection that is there already may be one to another server.
#[test]
fn alknet_ssh_shares_no_connection_of_the_users() {
    let (_home, node, client) = node_and_client();
    let to = format!("{}@{}", account(), node.address());
    let (config, socket) = (client.home.path().join("config"), client.home.path().join("control"));
    let sharing = format!("ControlMaster auto\nControlPath {}\n", socket.display());
    std::fs::write(&config, sharing).unwrap();
    let look = format!("test -S {} && echo shared || echo alone", socket.display());
    let run = |more: &[String]| {
        let mut ssh = client.home.alknet(&["ssh", &to, "-F", config.to_str().unwrap(), "-i"]);
        ssh.arg(client.key()).args(["-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"]);
        stdout(&output(ssh.args(more).arg(&look)))
    };
    assert_eq!(run(&[]), "alone\n");
    assert_eq!(run(&["-S".into(), socket.display().to_string()]), "shared\n");
}

fn piped(command: &mut Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

/// Writes random bytes and ends the input; their digest.
fn send_random(mut to: ChildStdin, count: u64) -> Digest {
    let random = std::fs::File::open("/dev/urandom").unwrap().take(count);
    let mut reader = BufReader::with_capacity(1 << 18, random);
    let mut context = Context::new(&SHA256);
    loop {
        let bytes = reader.fill_buf().unwrap();
        if bytes.is_empty() {
            return context.finish();
        }
        context.update(bytes);
        to.write_all(bytes).unwrap();
        let count = bytes.len();
        reader.consume(count);
    }
}

/// Reads to the end; how much there was, and its digest.
fn hash(from: impl Read) -> (u64, Digest) {
    let mut reader = BufReader::with_capacity(1 << 18, from);
    let (mut total, mut context) = (0, Context::new(&SHA256));
    loop {
        let bytes = reader.fill_buf().unwrap();
        if bytes.is_empty() {
            return (total, context.finish());
        }
        context.update(bytes);
        let count = bytes.len();
        total += count as u64;
        reader.consume(count);
    }
}
