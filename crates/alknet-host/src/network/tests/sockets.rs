//! Real sockets on loopback.

use std::net::Ipv4Addr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
};

use super::*;

#[tokio::test]
async fn a_connection_is_made_and_half_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let policy = Policy::new(settings(vec![connects(&["localhost:*"])]));
    let anna = identity("anna", &["forward:connect:localhost"]);
    let mut made = policy.connect(&anna, &tcp("localhost", address.port())).await.unwrap();
    assert_eq!(made.remote(), &Peer::Tcp(address));
    let (mut other, from) = listener.accept().await.unwrap();
    assert_eq!(made.local(), &Peer::Tcp(from));
    made.shutdown().await.unwrap();
    assert_eq!(other.read(&mut [0]).await.unwrap(), 0);
    other.write_all(b"still").await.unwrap();
    drop(other);
    let mut text = String::new();
    made.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "still");

    drop(listener);
    let error = policy.connect(&anna, &tcp("localhost", address.port())).await.unwrap_err();
    assert_eq!(error.io_kind(), Some(io::ErrorKind::ConnectionRefused));
}

#[tokio::test]
async fn a_caller_has_so_many_and_no_more() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = tcp("localhost", listener.local_addr().unwrap().port());
    let rule = Rule { listen: destinations(&["*:*"]), ..connects(&["localhost:*"]) };
    let three = Settings { connections: 3, listeners: 1, ..settings(vec![rule]) };
    let policy = Policy::new(three);
    let anna = Arc::new(identity("anna", &["forward"]));
    let first = policy.connect(&anna, &target).await.unwrap();
    // Two sockets.
    let _datagrams = policy.udp(anna.clone()).unwrap();
    let error = policy.connect(&anna, &target).await.unwrap_err();
    assert!(matches!(error, NetworkError::Limit), "{error}");
    policy.connect(&identity("bert", &["forward"]), &target).await.unwrap();
    drop(first);
    policy.connect(&anna, &target).await.unwrap();

    let _one = policy.listen(&anna, &tcp("localhost", 0)).await.unwrap();
    let error = policy.listen(&anna, &tcp("localhost", 0)).await.unwrap_err();
    assert!(matches!(error, NetworkError::Limit), "{error}");
}

#[tokio::test]
async fn all_callers_together_have_so_many_descriptors_and_no_more() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = tcp("localhost", listener.local_addr().unwrap().port());
    let rule = Rule { listen: destinations(&["*:*"]), ..connects(&["localhost:*"]) };
    let policy = Policy::new(Settings { descriptors: 8, ..settings(vec![rule]) });
    let [anna, bert, carl] = ["anna", "bert", "carl"].map(|it| identity(it, &["forward"]));
    let mut open = Vec::new();
    // One alone has no more than half.
    for _ in 0..4 {
        open.push(policy.connect(&anna, &target).await.unwrap());
    }
    let error = policy.connect(&anna, &target).await.unwrap_err();
    assert!(matches!(error, NetworkError::Limit), "{error}");
    let _datagrams = policy.udp(Arc::new(bert.clone())).unwrap();
    let listening = policy.listen(&carl, &tcp("localhost", 0)).await.unwrap();
    assert!(matches!(policy.connect(&carl, &target).await, Err(NetworkError::Limit)));
    assert!(matches!(policy.listen(&bert, &tcp("localhost", 0)).await, Err(NetworkError::Limit)));
    drop(listening);
    policy.connect(&carl, &target).await.unwrap();
}

#[tokio::test]
async fn listening_follows_the_rules() {
    let anna = identity("anna", &["forward:listen"]);
    let cases: &[(&str, &str, u16, bool)] = &[
        ("localhost:*", "localhost", 0, true),
        ("localhost:*", "127.0.0.1", 0, true),
        ("localhost:*", "::1", 0, true),
        ("localhost:*", "", 0, false),
        ("localhost:*", "*", 0, false),
        ("localhost:*", "0.0.0.0", 0, false),
        ("localhost:8000-8999", "localhost", 0, false),
        ("127.0.0.0/8:*", "127.0.0.5", 0, true),
        ("0.0.0.0/0:*", "127.0.0.5", 0, false),
        ("0.0.0.0/0:*", "", 0, false),
        ("[::/0]:*", "", 0, false),
        ("*:*", "", 0, true),
        ("*:*", "*", 0, true),
        ("*:*", "0.0.0.0", 0, true),
        ("*:*", "::", 0, true),
        ("*:*", "localhost", 0, true),
        ("*:2222", "", 2223, false),
    ];
    for (rule, host, port, expected) in cases {
        let policy = Policy::with_resolver(settings(vec![listens(&[rule])]), Names::default());
        let listener = policy.listen(&anna, &tcp(host, *port)).await;
        assert_eq!(listener.is_ok(), *expected, "{host}:{port} by {rule}: {listener:?}");
    }
    let policy = Policy::new(settings(vec![listens(&["*:*"])]));
    let wide = identity("anna", &["forward:listen:localhost"]);
    assert!(policy.listen(&wide, &tcp("", 0)).await.unwrap_err().is_refusal());
    assert!(policy.connect(&anna, &tcp("localhost", 1)).await.unwrap_err().is_refusal());
}

#[tokio::test]
async fn localhost_is_one_port_of_both_addresses() {
    let policy = Policy::new(settings(vec![listens(&["localhost:*"])]));
    let anna = identity("anna", &["forward"]);
    let listener = policy.listen(&anna, &tcp("localhost", 0)).await.unwrap();
    let port = listener.port().unwrap();
    for host in ["127.0.0.1", "::1"] {
        let Ok(made) = TcpStream::connect((host, port)).await else {
            assert_eq!(host, "::1", "this machine has no IPv6");
            continue;
        };
        let accepted = listener.accept().await;
        assert_eq!(accepted.remote(), &Peer::Tcp(made.local_addr().unwrap()));
    }
    let error = policy.listen(&anna, &tcp("localhost", port)).await.unwrap_err();
    assert_eq!(error.io_kind(), Some(io::ErrorKind::AddrInUse));
}

#[tokio::test]
async fn new_rules_hold_for_what_comes_after() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = tcp("localhost", listener.local_addr().unwrap().port());
    let policy = Policy::new(Settings::default());
    let anna = identity("anna", &["forward"]);
    assert!(policy.connect(&anna, &target).await.unwrap_err().is_refusal());
    policy.clone().replace(settings(vec![connects(&["localhost:*"])]));
    policy.connect(&anna, &target).await.unwrap();
    policy.replace(Settings::default());
    assert!(policy.connect(&anna, &target).await.unwrap_err().is_refusal());
}

fn datagrams(texts: &[&str]) -> Settings {
    settings(vec![Rule { udp: destinations(texts), ..Rule::default() }])
}

#[tokio::test]
async fn answers_come_from_where_something_was_sent_alone() {
    let known = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let stranger = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = known.local_addr().unwrap().port();
    let policy = Policy::new(datagrams(&["localhost:*"]));
    let anna = Arc::new(identity("anna", &[&format!("forward:udp:localhost:{port}")]));
    let association = policy.udp(anna).unwrap();
    association.send("localhost", port, b"ask").await.unwrap();
    let mut buf = [0; 16];
    let (len, from) = known.recv_from(&mut buf).await.unwrap();
    assert_eq!(&buf[..len], b"ask");
    stranger.send_to(b"forged", from).await.unwrap();
    known.send_to(b"answer", from).await.unwrap();
    let (len, from) = association.recv(&mut buf).await.unwrap();
    assert_eq!((&buf[..len], from), (&b"answer"[..], known.local_addr().unwrap()));

    let refused = association.send("localhost", stranger.local_addr().unwrap().port(), b"x").await;
    assert!(refused.unwrap_err().is_refusal());
    policy.replace(Settings::default());
    let refused = association.send("localhost", port, b"ask").await.unwrap_err();
    assert!(refused.is_refusal(), "an address outlived the rules");
}

#[tokio::test]
async fn a_name_is_resolved_once_for_an_association() {
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = server.local_addr().unwrap().port();
    let names = Names::of(&[("dns.example", &["127.0.0.1"]), ("evil.example", &["127.0.0.2"])]);
    let policy = Policy::with_resolver(datagrams(&["127.0.0.1:*", "*:*"]), names.clone());
    let association = policy.udp(Arc::new(identity("anna", &["forward"]))).unwrap();
    assert!(!association.is_known("dns.example", port));
    for _ in 0..3 {
        association.send("dns.example", port, b"ask").await.unwrap();
    }
    assert!(association.is_known("DNS.example", port));
    assert_eq!(names.asked(), 1);
    let refused = association.send("evil.example", port, b"ask").await.unwrap_err();
    assert!(refused.is_refusal());
    for host in ["255.255.255.255", "224.0.0.1", "169.254.169.254"] {
        assert!(association.send(host, 53, b"x").await.unwrap_err().is_refusal(), "{host}");
    }
}
