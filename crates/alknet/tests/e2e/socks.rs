//! `alknet socks` with real clients, and with bytes of the RFC.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::{Command, Output},
    thread,
};

use serde_json::Value;

use crate::{
    client::{Client, WAYS},
    forward::{Background, allow, web_server},
    node::{Home, Node},
    process::{SOON, eventually, output, output_with, stdout, text},
};

/// A proxy for a client, when it listens.
#[track_caller]
fn socks(client: &Client, node: &Node, args: &[&str]) -> (Background, SocketAddr) {
    let address = node.address().to_string();
    let mut command = client.home.alknet(&["socks", &address, "--listen", "127.0.0.1:0"]);
    let proxy = Background::start(command.arg("--json").args(args));
    let listen = proxy.ready()["listen"].as_str().unwrap().parse().unwrap();
    (proxy, listen)
}

fn curl(proxy: SocketAddr, args: &[&str]) -> Output {
    let mut curl = Command::new("curl");
    curl.args(["-q", "-sS", "--max-time", "50", "--noproxy", "", "--socks5-hostname"]);
    output(curl.arg(proxy.to_string()).args(args))
}

/// A node whose rules allow these, and a client that may do anything there with its network.
fn setup(rules: &str) -> (Home, Node, Client) {
    let home = Home::new();
    allow(&home, rules);
    let node = Node::start(&home, &[]);
    let client = Client::known_to(&home, "tester", "forward");
    (home, node, client)
}

#[test]
fn curl_reaches_what_is_allowed_by_every_transport() {
    let (_home, node, client) = setup(r#"connect = ["localhost:*"]"#);
    let four = web_server("127.0.0.1:0", "over IPv4").unwrap();
    let six = web_server("[::1]:0", "over IPv6");
    for via in WAYS {
        let (_proxy, proxy) = socks(&client, &node, &["--via", via]);
        let by_name = curl(proxy, &[&format!("http://localhost:{}/", four.port())]);
        assert_eq!(stdout(&by_name), "over IPv4", "{via}");
        let by_address = curl(proxy, &[&format!("http://127.0.0.1:{}/", four.port())]);
        assert_eq!(stdout(&by_address), "over IPv4", "{via}");
        if let Ok(six) = &six {
            let by_address = curl(proxy, &["-g", &format!("http://[::1]:{}/", six.port())]);
            assert_eq!(stdout(&by_address), "over IPv6", "{via}");
        }
        // A name that the client resolves comes as an address.
        let mut resolved = Command::new("curl");
        resolved.args(["-q", "-sS", "-4", "--noproxy", "", "--socks5"]).arg(proxy.to_string());
        resolved.arg(format!("http://localhost:{}/", four.port()));
        assert_eq!(stdout(&output(&mut resolved)), "over IPv4", "{via}");
    }
}

#[test]
fn what_is_refused_gets_the_code_of_the_rfc() {
    let rules = r#"connect = ["localhost:*", "*.invalid:80", "192.0.2.0/24:80"]"#;
    let (home, node, client) = setup(rules);
    // Nobody listens on a port that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (_proxy, proxy) = socks(&client, &node, &[]);
    for (url, code) in [
        ("http://example.org:8080/".to_owned(), 2),
        ("http://10.0.0.1/".to_owned(), 2),
        ("http://169.254.169.254/latest/meta-data/".to_owned(), 2),
        ("http://127.0.0.2:80/".to_owned(), 2),
        (format!("http://localhost:{free}/"), 5),
        ("http://nobody.invalid/".to_owned(), 4),
    ] {
        let refused = curl(proxy, &[&url]);
        assert_eq!(refused.status.code(), Some(97), "{url}: {}", text(&refused));
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(said.contains(&format!("({code})")), "{url}: {said}");
    }
    let refusal = home.audited("the refusal", |event| {
        event["event"] == "refused" && event["alpn"] == "alknet/forward"
    });
    assert_eq!(refusal["reason"], "connect example.org:8080: no rule allows it");
    // What is allowed is nobody's business unless asked for.
    assert!(!home.audit().iter().any(|event| event["event"] == "forwarded"));
}

#[test]
fn a_grant_is_needed_beside_the_rule() {
    let home = Home::new();
    allow(&home, r#"connect = ["localhost:*"]"#);
    let node = Node::start(&home, &[]);
    let web = web_server("127.0.0.1:0", "a page").unwrap();
    let scope = format!("forward:connect:localhost:{}", web.port());
    let client = Client::known_to(&home, "tester", &scope);
    let (_proxy, proxy) = socks(&client, &node, &[]);
    let url = |host| format!("http://{host}:{}/", web.port());
    assert_eq!(stdout(&curl(proxy, &[&url("localhost")])), "a page");
    assert_eq!(curl(proxy, &[&url("127.0.0.1")]).status.code(), Some(97));

    let stranger = Client::known_to(&home, "stranger", "ssh");
    let address = node.address().to_string();
    for via in WAYS {
        let args = ["socks", &address, "--listen", "127.0.0.1:0", "--via", via];
        let refused = output(&mut stranger.home.alknet(&args));
        assert_eq!(refused.status.code(), Some(1), "{via}: {}", text(&refused));
        // What is to be added, and where.
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(said.contains("alknet id") && said.contains("peer"), "{via}: {said}");
    }
    let refused =
        output(&mut stranger.home.alknet(&["socks", &address, "--listen", "127.0.0.1:0"]));
    assert!(text(&refused).contains("with the scope forward"), "{}", text(&refused));
}

#[test]
fn the_next_connection_works_after_a_restart_of_the_node() {
    for via in ["quic", "tls"] {
        let (home, node, client) = setup(r#"connect = ["localhost:*"]"#);
        let web = web_server("127.0.0.1:0", "a page").unwrap();
        let url = format!("http://localhost:{}/", web.port());
        let (background, proxy) = socks(&client, &node, &["--via", via]);
        assert_eq!(stdout(&curl(proxy, &[&url])), "a page", "{via}");
        let listen = node.address().to_string();
        drop(node);
        let _node = Node::start_at(&home, &listen, &[]);
        assert_eq!(stdout(&curl(proxy, &[&url])), "a page", "{via}");
        if via == "quic" {
            eventually("what it says of that", || {
                let said = background.log();
                (said.contains("is lost") && said.contains("again")).then_some(())
            });
        }
    }
}

#[test]
fn a_program_presents_the_password_where_there_is_one() {
    let (_home, node, client) = setup(r#"connect = ["localhost:*"]"#);
    let web = web_server("127.0.0.1:0", "a page").unwrap();
    let url = format!("http://localhost:{}/", web.port());
    let file = client.home.path().join("password");
    fs::write(&file, "open sesame\n").unwrap();
    let file = file.to_str().unwrap();
    let (_proxy, proxy) = socks(&client, &node, &["--user", "anna", "--password-file", file]);
    assert_eq!(stdout(&curl(proxy, &["--proxy-user", "anna:open sesame", &url])), "a page");
    for user in ["anna:open", "bert:open sesame", "anna:"] {
        let refused = curl(proxy, &["--proxy-user", user, &url]);
        assert_eq!(refused.status.code(), Some(97), "{user}: {}", text(&refused));
    }
    assert_eq!(curl(proxy, &[&url]).status.code(), Some(97));
}

#[test]
fn only_loopback_is_listened_on() {
    let client = Client::new();
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:1080", "[::ffff:192.0.2.1]:1080"] {
        let args = ["socks", "127.0.0.1:9", "--listen", listen, "--user", "anna"];
        let refused = output(&mut client.home.alknet(&args));
        assert_eq!(refused.status.code(), Some(2), "{listen}: {}", text(&refused));
    }
}

/// Answers DNS queries with one address, as dnspython writes them.
const DNS: &str = r#"
import socket, sys, dns.message, dns.rrset
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 0))
print('{"port": %d}' % server.getsockname()[1], flush=True)
while True:
    data, sender = server.recvfrom(65535)
    answer = dns.message.make_response(dns.message.from_wire(data))
    answer.answer.append(dns.rrset.from_text(answer.question[0].name, 60, "IN", "A", "192.0.2.53"))
    server.sendto(answer.to_wire(), sender)
"#;

/// Asks through the proxy: PySocks has UDP ASSOCIATE.
const ASK: &str = r#"
import socks, sys, dns.message
proxy, host, port = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
client = socks.socksocket(socks.socket.AF_INET, socks.socket.SOCK_DGRAM)
client.set_proxy(socks.SOCKS5, "127.0.0.1", proxy, rdns=True)
client.settimeout(40)
client.bind(("127.0.0.1", 0))
query = dns.message.make_query("alknet.test", "A")
client.sendto(query.to_wire(), (host, port))
data, sender = client.recvfrom(65535)
print(dns.message.from_wire(data).answer[0], *sender)
"#;

#[test]
fn dns_over_udp_is_answered_by_every_transport() {
    let (_home, node, client) = setup(r#"udp = ["localhost:*"]"#);
    let dns = Background::start(Command::new("/usr/bin/python3").args(["-c", DNS]));
    let port = dns.ready()["port"].as_u64().unwrap().to_string();
    for via in WAYS {
        let (_proxy, proxy) = socks(&client, &node, &["--via", via]);
        for host in ["localhost", "127.0.0.1"] {
            let mut ask = Command::new("/usr/bin/python3");
            ask.args(["-c", ASK, &proxy.port().to_string(), host, &port]);
            let answer = stdout(&output(&mut ask));
            let expected = format!("alknet.test. 60 IN A 192.0.2.53 127.0.0.1 {port}\n");
            assert_eq!(answer, expected, "{via} {host}");
        }
    }
}

/// A SOCKS5 client of the test's own: it says just what the RFC has.
fn associate(proxy: SocketAddr) -> (TcpStream, SocketAddr) {
    let mut control = TcpStream::connect(proxy).unwrap();
    control.set_read_timeout(Some(SOON)).unwrap();
    control.write_all(&[5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
    let mut said = [0; 12];
    control.read_exact(&mut said).unwrap();
    assert_eq!(said[..6], [5, 0, 5, 0, 0, 1]);
    let ip: [u8; 4] = said[6..10].try_into().unwrap();
    let port = u16::from_be_bytes([said[10], said[11]]);
    (control, SocketAddr::new(Ipv4Addr::from(ip).into(), port))
}

fn datagram(to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let SocketAddr::V4(to) = to else { panic!("IPv4 here") };
    [&[0, 0, 0, 1], &to.ip().octets()[..], &to.port().to_be_bytes(), payload].concat()
}

#[test]
fn datagrams_are_passed_for_whom_they_belong_to_alone() {
    let (home, node, client) = setup(r#"udp = ["localhost:*"]"#);
    let (_proxy, proxy) = socks(&client, &node, &[]);
    let (control, relay) = associate(proxy);
    assert!(relay.ip().is_loopback());
    let own = || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        socket
    };
    let (mine, server, another) = (own(), own(), own());
    let address = server.local_addr().unwrap();
    // A refused destination loses its datagram and no other.
    let elsewhere = "192.0.2.1:53".parse().unwrap();
    mine.send_to(&datagram(elsewhere, b"lost"), relay).unwrap();
    mine.send_to(&datagram(address, b"ask"), relay).unwrap();
    let mut buffer = [0; 64];
    let (length, from) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"ask");
    // Neither a stranger on the client's side nor one on the node's gets in.
    another.send_to(&datagram(address, b"forged"), relay).unwrap();
    another.send_to(b"forged", from).unwrap();
    server.send_to(b"answer", from).unwrap();
    let (length, _) = mine.recv_from(&mut buffer).unwrap();
    assert_eq!(buffer[..length], datagram(address, b"answer"));
    mine.send_to(&datagram(address, b"again"), relay).unwrap();
    let (length, _) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"again");
    home.audited("the refusal", |event| event["reason"] == "udp 192.0.2.1:53: no rule allows it");
    // The association ends with its connection.
    drop(control);
    eventually("the end of the association", || {
        // A connected socket hears that nobody listens any more.
        let probe = own();
        probe.connect(relay).unwrap();
        let _ = probe.send(b"x");
        probe.set_read_timeout(Some(std::time::Duration::from_millis(50))).unwrap();
        let error = probe.recv(&mut [0; 8]).unwrap_err();
        (error.kind() == std::io::ErrorKind::ConnectionRefused).then_some(())
    });
}

/// Sends for ever to whoever connects, until they go.
fn flood() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || while stream.write_all(&[b'x'; 65536]).is_ok() {});
        }
    });
    address
}

fn connect(proxy: SocketAddr, port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(proxy).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let request = [&[5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1], &port.to_be_bytes()[..]].concat();
    stream.write_all(&request).unwrap();
    let mut said = [0; 6];
    stream.read_exact(&mut said).unwrap();
    assert_eq!(said, [5, 0, 5, 0, 0, 1]);
    stream.read_exact(&mut [0; 6]).unwrap();
    stream
}

/// Others go on past readers that have stalled: what arrives beside them is far more than all
/// buffers on the way hold. That it arrives is all that is asked here, not how fast.
#[test]
fn stalled_readers_hold_up_nobody() {
    const FAR_MORE: usize = 64 << 20;
    let (_home, node, client) = setup(r#"connect = ["localhost:*"]"#);
    let source = flood();
    for via in WAYS {
        let (_proxy, proxy) = socks(&client, &node, &["--via", via]);
        let mut stalled: Vec<TcpStream> = (0..8).map(|_| connect(proxy, source.port())).collect();
        // They flow, and are then read no more.
        for stalled in &mut stalled {
            stalled.read_exact(&mut [0; 1024]).unwrap();
        }
        let others: Vec<_> = (0..3)
            .map(|_| {
                thread::spawn(move || {
                    let mut stream = connect(proxy, source.port());
                    let mut left = FAR_MORE / 3;
                    let mut buffer = vec![0; 65536];
                    while left > 0 {
                        let read = stream.read(&mut buffer).unwrap();
                        assert!(read > 0);
                        left = left.saturating_sub(read);
                    }
                })
            })
            .collect();
        others.into_iter().for_each(|other| other.join().unwrap());
        // And they take up where they were.
        for stalled in &mut stalled {
            stalled.read_exact(&mut vec![0; 1 << 20]).unwrap();
        }
    }
}

#[test]
fn new_rules_hold_without_a_restart() {
    let (home, node, client) = setup(r#"connect = ["localhost:1"]"#);
    let web = web_server("127.0.0.1:0", "a page").unwrap();
    let url = format!("http://localhost:{}/", web.port());
    let (_proxy, proxy) = socks(&client, &node, &[]);
    assert_eq!(curl(proxy, &[&url]).status.code(), Some(97));
    allow(&home, r#"connect = ["localhost:*"]"#);
    let answer = stdout(&output(&mut home.alknet(&["reload", "--json"])));
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["changed"], serde_json::json!(["forward.allow"]));
    assert_eq!(stdout(&curl(proxy, &[&url])), "a page");
}

#[test]
fn a_signal_ends_the_proxy_and_its_session() {
    let (home, node, client) = setup(r#"connect = ["localhost:*"]"#);
    for signal in [nix::sys::signal::Signal::SIGINT, nix::sys::signal::Signal::SIGTERM] {
        let (mut background, proxy) = socks(&client, &node, &[]);
        assert_eq!(background.end(signal).code(), Some(0));
        assert!(TcpStream::connect(proxy).is_err());
    }
    let ended = |home: &Home| {
        let ended =
            |event: &&Value| event["event"] == "session-end" && event["alpn"] == "alknet/forward";
        home.audit().iter().filter(ended).count()
    };
    eventually("the sessions' ends", || (ended(&home) >= 2).then_some(()));
}

/// Not a proxy for HTTP, nor of an older version; and it does not fall over.
#[test]
fn bytes_that_are_no_socks_end_their_connection_alone() {
    let (_home, node, client) = setup(r#"connect = ["localhost:*"]"#);
    let (_proxy, proxy) = socks(&client, &node, &[]);
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x04\x01\0\x50\x7f\0\0\x01\0", &[0xff; 4096]] {
        let mut stream = TcpStream::connect(proxy).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(bytes).unwrap();
        // A reset is an end as well: bytes were left unread.
        let _ = stream.read_to_end(&mut Vec::new());
    }
    let web = web_server("127.0.0.1:0", "a page").unwrap();
    let url = format!("http://localhost:{}/", web.port());
    assert_eq!(stdout(&curl(proxy, &[&url])), "a page");
}

#[test]
fn the_password_is_read_from_a_pipe_too() {
    let (_home, node, client) = setup(r#"connect = ["localhost:*"]"#);
    let address = node.address().to_string();
    // Empty is none.
    let args = ["socks", &address, "--listen", "127.0.0.1:0", "--user", "anna"];
    let refused = output_with(&mut client.home.alknet(&args), b"\n");
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
}
