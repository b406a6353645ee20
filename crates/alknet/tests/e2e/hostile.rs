//! Bytes that no client sends, and clients that never finish.

use std::{
    collections::HashMap,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use alknet_core::Connection;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    client::Client,
    https::{dial, raw},
    node::{Home, Node},
    process::{Deadline, LONG, output, output_of, stdout},
};

/// The ALPNs of a node.
const ALPNS: [&str; 4] = ["alknet/ssh", "h3", "h2", "http/1.1"];
const HALF_OPEN: usize = 10_000;
/// What a node may grow by under attack. Half of it is what 512 handshakes may hold.
const GROWTH: u64 = 128 << 20;

/// Numbers that look random and are the same in every run (xorshift, Marsaglia 2003).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next().to_le_bytes()[0]).collect()
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}

/// Beginnings of what each protocol says: cut short, they are frames that never end.
const BEGINNINGS: [&[u8]; 8] = [
    b"SSH-2.0-OpenSSH_9.9\r\n\0\0\x05\xdc\x06\x14",
    b"SSH-2.0-x\r\n\x7f\xff\xff\xff",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\xff\xff\xff\x01\x05\0\0\0\x01",
    b"GET /alknet/ssh HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
    b"POST /alknet/ticket HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551615\r\n\r\n{",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    // HTTP/3: a HEADERS frame of 2^62 - 1 bytes, a WebTransport stream without a session.
    b"\x01\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x40\x41\xff\xff\xff\xff\xff\xff\xff\xff",
];

#[tokio::test]
async fn malformed_input_on_every_protocol() {
    let home = Home::new();
    let node = Node::start(&home, &[]);
    let client = Client::known_to(&home, "tester", "ssh");
    let before = node.resident();
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    for alpn in ALPNS {
        for round in 0..24 {
            let mut bytes = BEGINNINGS.get(round).map_or_else(Vec::new, |start| start.to_vec());
            let more = noise.below(40_000);
            bytes.extend(noise.bytes(more));
            if alpn != "h3" {
                let connection = dial(alpn).tls(node.address()).await.unwrap().connection;
                assault(&connection, &bytes).await;
            }
            if alpn == "h3" || alpn == "alknet/ssh" {
                let connection = dial(alpn).quic(node.address()).await.unwrap().connection;
                assault(&connection, &bytes).await;
                sideways(&connection, &bytes).await;
            }
        }
    }
    assert_eq!(stdout(&output(client.ssh(&node, "quic").arg("echo alive"))), "alive\n");
    assert_eq!(stdout(&output(client.ssh(&node, "websocket").arg("echo alive"))), "alive\n");
    let grown = node.resident().saturating_sub(before);
    assert!(grown < GROWTH, "grown by {grown} bytes");
    assert!(!node.log().contains("panicked"), "{}", node.log());
}

/// Sends the bytes on a stream, takes what comes back for a moment, and drops it all.
async fn assault(connection: &Connection, bytes: &[u8]) {
    let Ok(mut stream) = connection.open_bi().await else { return };
    // The node may well end the stream before it has everything.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = [0; 4096];
    let reading = async { while matches!(stream.read(&mut answer).await, Ok(1..)) {} };
    let _ = tokio::time::timeout(Duration::from_millis(50), reading).await;
}

/// The same on a unidirectional stream and in a datagram.
async fn sideways(connection: &Connection, bytes: &[u8]) {
    if let Ok(Ok(mut stream)) =
        tokio::time::timeout(Duration::from_secs(1), connection.open_uni()).await
    {
        let _ = stream.write_all(bytes).await;
    }
    let _ = connection.send_datagram(bytes[..bytes.len().min(1000)].to_vec().into());
}

#[test]
fn noise_instead_of_a_handshake() {
    let home = Home::new();
    let node = Node::start(&home, &[]);
    let client = Client::known_to(&home, "tester", "ssh");
    let mut noise = Noise(0xdead_beef_cafe_f00d);
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..500 {
        let count = noise.below(1400) + 1;
        udp.send_to(&noise.bytes(count), node.address()).unwrap();
        let mut tcp = TcpStream::connect(node.address()).unwrap();
        let count = noise.below(4000) + 1;
        let mut bytes = noise.bytes(count);
        if noise.below(2) == 0 {
            // Begins like a TLS record with a ClientHello.
            bytes.splice(0..1, [0x16, 3, 1, 0x3f, 0xff, 1, 0, 0x3f, 0xfb]);
        }
        let _ = tcp.write_all(&bytes);
    }
    assert_eq!(stdout(&output(client.ssh(&node, "quic").arg("echo alive"))), "alive\n");
    assert_eq!(stdout(&output(client.ssh(&node, "tls").arg("echo alive"))), "alive\n");
    assert!(!node.log().contains("panicked"), "{}", node.log());
}

#[test]
fn half_open_tls_handshakes() {
    // Both ends of each connection need a descriptor.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    rustix::process::setrlimit(
        rustix::process::Resource::Nofile,
        rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum },
    )
    .unwrap();
    let home = Home::new();
    let node = Node::start(&home, &[]);
    let client = Client::known_to(&home, "tester", "ssh");
    let before = node.resident();
    let mut held = Vec::with_capacity(HALF_OPEN);
    for i in 0..HALF_OPEN {
        let mut tcp = TcpStream::connect(node.address()).unwrap();
        if i % 2 == 0 {
            // The beginning of a ClientHello.
            let _ = tcp.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]);
        }
        held.push(tcp);
    }
    // All of them are still there, as far as this side is concerned.
    assert_eq!(stdout(&output(client.ssh(&node, "tls").arg("echo alive"))), "alive\n");
    assert_eq!(stdout(&output(client.ssh(&node, "quic").arg("echo alive"))), "alive\n");
    let grown = node.resident().saturating_sub(before);
    assert!(grown < GROWTH, "grown by {grown} bytes");
    drop(held);
}

/// Clients that send their Initial packets and never hear an answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_quic_handshakes() {
    let home = Home::new();
    let node = Node::start(&home, &[]);
    let client = Client::known_to(&home, "tester", "ssh");
    let before = node.resident();
    let hole = UdpSocket::bind("127.0.0.1:0").unwrap();
    let towards = hole.local_addr().unwrap();
    let node_address = node.address();
    let forward = thread::spawn(move || forward_beginnings(&hole, node_address));
    for _ in 0..HALF_OPEN / 100 {
        let mut dials = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let mut dial = dial("alknet/ssh");
            dial.timeout = Duration::from_millis(150);
            dials.spawn(async move { dial.quic(towards).await.is_err() });
        }
        assert!(dials.join_all().await.into_iter().all(|failed| failed));
    }
    let clients = forward.join().unwrap();
    assert!(clients > HALF_OPEN * 9 / 10, "only {clients} clients");
    assert_eq!(stdout(&output(client.ssh(&node, "quic").arg("echo alive"))), "alive\n");
    assert_eq!(stdout(&output(client.ssh(&node, "tls").arg("echo alive"))), "alive\n");
    let grown = node.resident().saturating_sub(before);
    assert!(grown < GROWTH, "grown by {grown} bytes");
}

/// Passes on what each client says first, a ClientHello in two packets, and neither an
/// answer nor the client's farewell; how many clients there were.
fn forward_beginnings(hole: &UdpSocket, node: SocketAddr) -> usize {
    hole.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let out = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (mut buffer, mut heard) = ([0; 2048], HashMap::new());
    while let Ok(count) = hole.recv(&mut buffer) {
        // The id that the client chose for the node (RFC 9000, section 17.2).
        let id = buffer[6..14].to_vec();
        let packets: &mut usize = heard.entry(id).or_default();
        *packets += 1;
        if *packets <= 2 {
            out.send_to(&buffer[..count], node).unwrap();
        }
    }
    heard.len()
}

#[tokio::test]
async fn an_oversized_ticket_request() {
    let home = Home::new();
    let node = Node::start(&home, &[]);
    let token = stdout(&output(&mut home.alknet(&["token", "create", "--scope", "ssh"])));
    let authorization = format!("Authorization: Bearer {}\r\n", token.trim());
    let before = node.resident();
    // Announced, and refused before it is sent.
    let headers = format!("Connection: close\r\n{authorization}Content-Length: 4000000000\r\n");
    let announced = raw(&node, "POST /alknet/ticket", &headers, b"").await;
    assert_eq!(announced, raw(&node, "POST /images/cat/1", &headers, b"").await);
    assert!(announced.starts_with("HTTP/1.1 4"), "{announced}");
    // Sent without an end.
    let mut zeros = Command::new("head")
        .args(["-c", "300M", "/dev/zero"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    for version in ["--http1.1", "--http2"] {
        let curl = Command::new("curl")
            .args(["--disable", "--silent", "--insecure", version, "--request", "POST"])
            .args(["--header", authorization.trim(), "--upload-file", "-"])
            .args(["--write-out", "%{response_code}", "--output", "/dev/null"])
            .arg(format!("https://{}/alknet/ticket", node.address()))
            .stdin(zeros.stdout.take().map_or_else(Stdio::null, Stdio::from))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let answer = output_of(curl, LONG);
        // Whether the answer outruns the end of the connection is the network's affair.
        assert_ne!(answer.stdout, b"200");
    }
    zeros.kill().unwrap();
    zeros.wait().unwrap();
    let grown = node.resident().saturating_sub(before);
    assert!(grown < GROWTH, "grown by {grown} bytes");
    let small = raw(
        &node,
        "POST /alknet/ticket",
        &format!("Connection: close\r\n{authorization}Content-Length: 21\r\n"),
        br#"{"alpn":"alknet/ssh"}"#,
    )
    .await;
    assert!(small.starts_with("HTTP/1.1 200 "), "{small}");
}

/// A peer that stops reading in the middle of an answer holds nobody else up.
#[test]
fn a_client_that_stops_reading() {
    let home = Home::new();
    let node = Node::start(&home, &[]);
    let client = Client::known_to(&home, "tester", "ssh");
    let mut stuck: Vec<_> = (0..4)
        .map(|_| {
            let mut ssh = client.ssh(&node, "quic");
            ssh.arg("cat /dev/zero").stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let guards: Vec<Deadline> = stuck.iter().map(|ssh| Deadline::kill(ssh.id(), LONG)).collect();
    for ssh in &mut stuck {
        ssh.stdout.as_mut().unwrap().read_exact(&mut [0; 65536]).unwrap();
    }
    let before = node.resident();
    for _ in 0..5 {
        assert_eq!(stdout(&output(client.ssh(&node, "quic").arg("echo alive"))), "alive\n");
    }
    let grown = node.resident().saturating_sub(before);
    assert!(grown < GROWTH, "grown by {grown} bytes");
    for (mut ssh, guard) in stuck.into_iter().zip(guards) {
        ssh.kill().unwrap();
        ssh.wait().unwrap();
        assert!(!guard.passed());
    }
}
