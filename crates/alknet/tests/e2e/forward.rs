//! `alknet forward` both ways, and what its tests share with those of `alknet socks`.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    client::{Client, WAYS},
    node::{Home, Node},
    process::{Deadline, Log, SOON, eventually, output, signal, stdout, text},
};

/// One rule for forwarding in a node's configuration.
pub(crate) fn allow(home: &Home, rule: &str) {
    fs::write(home.path().join("alknet.toml"), format!("[[forward.allow]]\n{rule}\n")).unwrap();
}

/// A program that says in one line of JSON that it is ready, and is ended with this.
pub(crate) struct Background {
    child: Child,
    ready: Value,
    log: Log,
}

impl Background {
    #[track_caller]
    pub(crate) fn start(command: &mut Command) -> Self {
        let log = Log::new();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log.end());
        let mut child = command.spawn().unwrap();
        let lines: Receiver<String> = {
            let (send, lines) = channel();
            let stdout = BufReader::new(child.stdout.take().unwrap());
            thread::spawn(move || {
                stdout.lines().map_while(Result::ok).try_for_each(|line| send.send(line))
            });
            lines
        };
        let Ok(line) = lines.recv_timeout(SOON) else {
            let _ = child.kill();
            panic!("it is not ready: {}", log.text());
        };
        let ready = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        Self { child, ready, log }
    }

    pub(crate) fn ready(&self) -> &Value {
        &self.ready
    }

    pub(crate) fn log(&self) -> String {
        self.log.text()
    }

    /// Ends it with a signal.
    #[track_caller]
    pub(crate) fn end(&mut self, it: Signal) -> ExitStatus {
        signal(self.child.id(), it);
        let guard = Deadline::kill(self.child.id(), SOON);
        let status = self.child.wait().unwrap();
        assert!(!guard.passed(), "it did not end: {}", self.log());
        status
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            signal(self.child.id(), Signal::SIGTERM);
            let guard = Deadline::kill(self.child.id(), SOON);
            let _ = self.child.wait();
            guard.passed();
        }
        if thread::panicking() {
            eprintln!("it said:\n{}", self.log());
        }
    }
}

/// Answers every HTTP request with a page.
pub(crate) fn web_server(address: &str, page: &'static str) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(address)?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || answer(stream, page));
        }
    });
    Ok(address)
}

fn answer(mut stream: TcpStream, page: &str) -> std::io::Result<()> {
    let mut request = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    while request.read_line(&mut line)? > 2 {
        line.clear();
    }
    let length = page.len();
    write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n{page}")
}

/// Sends back in capitals what has come, once all of it has.
fn shouting() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || -> std::io::Result<()> {
                let mut text = String::new();
                stream.read_to_string(&mut text)?;
                stream.write_all(text.to_uppercase().as_bytes())
            });
        }
    });
    address
}

/// What comes back for a text, and the end of it: both directions end by themselves.
#[track_caller]
fn shout(to: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[track_caller]
fn forward(client: &Client, node: &Node, args: &[&str]) -> Background {
    let address = node.address().to_string();
    let mut command = client.home.alknet(&["forward", &address, "--json"]);
    Background::start(command.args(args))
}

fn listens(background: &Background, kind: &str, index: usize) -> SocketAddr {
    background.ready()[kind][index]["listen"].as_str().unwrap().parse().unwrap()
}

const EVERYTHING: &str = r#"connect = ["localhost:*"]
listen = ["localhost:*"]
udp = ["localhost:*"]"#;

#[test]
fn connections_are_carried_both_ways_by_every_transport() {
    let home = Home::new();
    allow(&home, EVERYTHING);
    let node = Node::start(&home, &[]);
    let client = Client::known_to(&home, "tester", "forward");
    let target = shouting();
    let spec = format!("0:localhost:{}", target.port());
    for via in WAYS {
        let forward = forward(&client, &node, &["--via", via, "-L", &spec, "-R", &spec]);
        for kind in ["local", "remote"] {
            let listen = listens(&forward, kind, 0);
            assert!(listen.ip().is_loopback() && listen != target);
            assert_eq!(shout(listen, "a half-closed text"), "A HALF-CLOSED TEXT", "{via} {kind}");
            let calls: Vec<_> = (0..8)
                .map(|i| thread::spawn(move || (shout(listen, &format!("n{i}")), format!("N{i}"))))
                .collect();
            for call in calls {
                let (heard, expected) = call.join().unwrap();
                assert_eq!(heard, expected);
            }
        }
    }
}

#[test]
fn a_unix_socket_here_is_a_port_there() {
    let home = Home::new();
    allow(&home, EVERYTHING);
    let node = Node::start(&home, &[]);
    let client = Client::known_to(&home, "tester", "forward");
    let path = client.home.path().join("here.sock");
    let target = shouting();
    let spec = format!("{}:127.0.0.1:{}", path.display(), target.port());
    let mut forward = forward(&client, &node, &["-L", &spec]);
    assert_eq!(shout_by_path(&path, "by path"), "BY PATH");
    assert_eq!(forward.end(Signal::SIGTERM).code(), Some(0));
    assert!(!path.exists(), "the socket stays behind");
}

/// The same by the path of a Unix socket.
#[track_caller]
fn shout_by_path(path: &Path, text: &str) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn unix_sockets_of_the_node_are_under_its_rules() {
    let home = Home::new();
    let folder = Home::new();
    let path = |name: &str| folder.path().canonicalize().unwrap().join(name);
    let inside = path("in-*").display().to_string();
    allow(&home, &format!("connect = ['{inside}']\nlisten = ['{inside}']"));
    let node = Node::start(&home, &[]);
    let client = Client::known_to(&home, "tester", "forward");
    let listener = UnixListener::bind(path("in-node")).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut text = String::new();
            let _ = stream.read_to_string(&mut text);
            let _ = stream.write_all(text.to_uppercase().as_bytes());
        }
    });
    let target = shouting();
    let here = format!("0:{}", path("in-node").display());
    let there = format!("{}:127.0.0.1:{}", path("in-remote").display(), target.port());
    let mut both = forward(&client, &node, &["-L", &here, "-R", &there]);
    assert_eq!(shout(listens(&both, "local", 0), "by port"), "BY PORT");
    assert_eq!(shout_by_path(&path("in-remote"), "by path"), "BY PATH");
    assert_eq!(both.end(Signal::SIGTERM).code(), Some(0));
    eventually("the socket's end", || (!path("in-remote").exists()).then_some(()));

    let outside = format!("{}:127.0.0.1:1", path("outside").display());
    let address = node.address().to_string();
    let refused = output(&mut client.home.alknet(&["forward", &address, "-R", &outside]));
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    assert!(!path("outside").exists());
}

#[test]
fn datagrams_are_carried() {
    let home = Home::new();
    allow(&home, EVERYTHING);
    let node = Node::start(&home, &[]);
    let client = Client::known_to(&home, "tester", "forward");
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let spec = format!("127.0.0.1:0:localhost:{}", server.local_addr().unwrap().port());
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = server.recv_from(&mut buffer) {
            let _ = server.send_to(&buffer[..length].to_ascii_uppercase(), from);
        }
    });
    for via in WAYS {
        let forward = forward(&client, &node, &["--via", via, "-U", &spec]);
        let listen = listens(&forward, "udp", 0);
        let senders = [0, 1].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
        for (i, sender) in senders.iter().enumerate() {
            sender.set_read_timeout(Some(SOON)).unwrap();
            sender.send_to(format!("from {i}").as_bytes(), listen).unwrap();
        }
        for (i, sender) in senders.iter().enumerate() {
            let mut buffer = [0; 64];
            let (length, from) = sender.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], format!("FROM {i}").as_bytes(), "{via}");
            assert_eq!(from, listen);
        }
    }
}

#[test]
fn the_node_listens_again_after_a_restart() {
    let home = Home::new();
    allow(&home, EVERYTHING);
    let node = Node::start(&home, &[]);
    let client = Client::known_to(&home, "tester", "forward");
    let target = shouting();
    let spec = format!("0:localhost:{}", target.port());
    let forward = forward(&client, &node, &["-L", &spec, "-R", &spec]);
    let (here, there) = (listens(&forward, "local", 0), listens(&forward, "remote", 0));
    assert_eq!(shout(there, "before"), "BEFORE");
    let listen = node.address().to_string();
    drop(node);
    assert!(TcpStream::connect(there).is_err(), "it outlived its node");
    let _node = Node::start_at(&home, &listen, &[]);
    assert_eq!(shout(here, "after"), "AFTER");
    // On the same port, though the node had picked it.
    eventually("the port", || TcpStream::connect(there).ok());
    assert_eq!(shout(there, "after"), "AFTER");
}

#[test]
fn what_is_not_allowed_says_so() {
    let home = Home::new();
    allow(
        &home,
        r#"connect = ["localhost:1"]
listen = ["localhost:8000-8001"]"#,
    );
    let node = Node::start(&home, &[]);
    let client = Client::known_to(&home, "tester", "forward");
    let address = node.address().to_string();
    let refused =
        output(&mut client.home.alknet(&["forward", &address, "-R", "*:8000:localhost:1"]));
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("not allowed by the node's rules") && said.contains("hint:"), "{said}");
    home.audited("the refusal", |event| event["reason"] == "listen *:8000: no rule allows it");

    // A refused connection is broken off: it does not look like an empty answer.
    let forward = forward(&client, &node, &["-L", "0:localhost:22"]);
    let mut stream = TcpStream::connect(listens(&forward, "local", 0)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    eventually("the reason", || forward.log().contains("not allowed").then_some(()));

    for args in [&["forward", &address][..], &["forward", &address, "-L", "80"]] {
        assert_eq!(output(&mut client.home.alknet(args)).status.code(), Some(2), "{args:?}");
    }
}

/// A connection that comes in is for the identity that listens, whoever knows its id.
#[test]
fn what_is_forwarded_ends_with_its_credential() {
    let home = Home::new();
    allow(&home, EVERYTHING);
    let node = Node::start(&home, &[]);
    let client = Client::known_to(&home, "tester", "forward");
    let target = shouting();
    let spec = format!("0:localhost:{}", target.port());
    let mut forward = forward(&client, &node, &["--via", "quic", "-L", &spec, "-R", &spec]);
    let there = listens(&forward, "remote", 0);
    let mut open = TcpStream::connect(listens(&forward, "local", 0)).unwrap();
    open.set_read_timeout(Some(SOON)).unwrap();
    open.write_all(b"x").unwrap();
    assert_eq!(shout(there, "before"), "BEFORE");
    stdout(&output(&mut home.alknet(&["peer", "remove", "tester"])));
    // Neither end takes what it has for all there is.
    let error = open.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    eventually("the listener's end", || TcpStream::connect(there).is_err().then_some(()));
    let status = eventually("the end of the client", || forward.child.try_wait().unwrap());
    assert_eq!(status.code(), Some(1));
    assert!(forward.log().contains("revoked"), "{}", forward.log());
}

/// Whatever the node was started with, its programs start with too.
#[test]
fn a_node_raises_its_descriptors_and_not_those_of_its_programs() {
    let home = Home::new();
    let limited = |limits: &str| {
        let mut serve = Command::new("/bin/sh");
        let script = format!("ulimit {limits} && exec \"$@\"");
        serve.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_alknet")]);
        serve.args(["serve", "--listen", "127.0.0.1:0", "--json", "--drain", "1"]);
        serve.env("ALKNET_HOME", home.path()).env_remove("ALKNET_LOG");
        Node::run(&home, serve)
    };
    let soft_of = |pid: u32| {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        line.split_whitespace().nth(3).unwrap().to_owned()
    };
    let hard = |limits: &str| limits.split_whitespace().nth(4).unwrap().to_owned();
    let node = limited("-Sn 300");
    let own = fs::read_to_string("/proc/self/limits").unwrap();
    let own = own.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(soft_of(node.pid()), hard(own));
    let client = Client::known_to(&home, "tester", "ssh");
    assert_eq!(stdout(&output(client.ssh(&node, "quic").arg("ulimit -n"))), "300\n");
    drop(node);
    let node = limited("-n 1000");
    eventually("the warning", || node.log().contains("few descriptors").then_some(()));
}
