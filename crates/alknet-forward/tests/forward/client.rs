//! The client that stays connected.

use std::time::Duration;

use alknet_core::{Code, TransportKind};
use alknet_forward::{
    Client, ErrorCode, OpenError, Place, Request, State,
    local::{ListenError, LocalForward, RemoteForward},
    socks,
};
use alknet_host::network::Settings;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use crate::node::{Node, Script, echo, says};

fn to(port: u16) -> Request {
    Request::Connect(Place::tcp("localhost", port))
}

#[tokio::test]
async fn a_lost_connection_is_made_again_and_no_stream_with_it() {
    let (node, port) = (Node::new(), echo().await);
    let (first, second) = (node.connect("anna"), node.connect("anna"));
    let client = Client::new(Script::of([None, None, Some(second)]), first.clone());
    let mut state = client.state();
    let mut old = client.open(&to(port)).await.unwrap();
    says(&mut old.stream, "before").await;
    let kept = client.clone();
    let after = async {
        first.close(Code::CANCELLED, "");
        state.wait_for(|state| matches!(state, State::Down(_))).await.unwrap();
        // It waits for the new connection.
        let mut new = client.open(&to(port)).await.unwrap();
        says(&mut new.stream, "after").await;
        assert_eq!(*state.borrow_and_update(), State::Up);
        assert!(old.stream.read(&mut [0]).await.is_err(), "a broken stream went on");
        // The script is at its end: the next loss is for good.
        client.close().await;
    };
    tokio::select! {
        error = kept.keep() => assert!(error.is_final(), "{error}"),
        () = after => {}
    }
}

#[tokio::test]
async fn streams_share_a_connection_where_they_can() {
    let (node, port) = (Node::new(), echo().await);
    // There is no second connection to be had.
    let client = Client::new(Script::of([]), node.connect("anna"));
    let mut streams = Vec::new();
    for _ in 0..10 {
        streams.push(client.open(&to(port)).await.unwrap());
    }
    for open in &mut streams {
        says(&mut open.stream, "shared").await;
    }
}

#[tokio::test]
async fn each_has_a_connection_where_there_is_one_stream() {
    let (node, port) = (Node::new(), echo().await);
    let by = |_| Some(node.connect_by("anna", TransportKind::Tls));
    let first = node.connect_by("anna", TransportKind::Tls);
    let client = Client::new(Script::of((0..3).map(by)), first);
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(client.open(&to(port)).await.unwrap());
    }
    for open in &mut streams {
        says(&mut open.stream, "alone").await;
    }
    let error = client.open(&to(port)).await.unwrap_err();
    assert!(matches!(error, OpenError::Dial(_)) && error.is_final(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_half_a_minute() {
    let node = Node::new();
    let first = node.connect("anna");
    first.close(Code::NORMAL, "");
    let nothing = std::iter::repeat_with(|| None).take(1000);
    let client = Client::new(Script::of(nothing), first);
    let started = tokio::time::Instant::now();
    let error = client.open(&Request::Ping {}).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::NetworkUnreachable);
    assert!(started.elapsed() <= Duration::from_secs(30), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_answer_is_dialled_again() {
    let node = Node::new();
    // It stands, and nobody is behind it.
    let (near, _far) = alknet_testing::memory::pair();
    let client = Client::new(Script::of([Some(node.connect("anna"))]), near);
    let waits = [client.open(&Request::Ping {}), client.open(&Request::Ping {})];
    for error in futures_util::future::join_all(waits).await {
        assert!(matches!(error, Err(OpenError::TimedOut)), "{error:?}");
    }
    client.open(&Request::Ping {}).await.unwrap();
    client.open(&Request::Ping {}).await.unwrap();
}

#[tokio::test]
async fn who_is_turned_away_does_not_come_again() {
    let (near, far) = alknet_testing::memory::pair();
    let node = Node::new();
    let client = Client::new(Script::of([Some(node.connect("anna"))]), near);
    far.close(Code::REVOKED, "");
    let error = client.keep().await;
    assert!(matches!(error, OpenError::TurnedAway(_)), "{error}");
}

#[tokio::test]
async fn socks_listens_on_loopback_alone() {
    let node = Node::new();
    let client = Client::new(Script::of([]), node.connect("anna"));
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[::ffff:192.0.2.1]:0"] {
        let error = socks::Server::bind(address.parse().unwrap(), client.clone(), None).await;
        assert!(matches!(error, Err(socks::BindError::NotLoopback(_))), "{address}");
    }
    let server = socks::Server::bind("127.0.0.1:0".parse().unwrap(), client, None).await.unwrap();
    let address = server.local_addr().unwrap();
    let port = echo().await;
    let asks = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = [&b"\x05\x01\x00\x05\x01\x00\x03\x09localhost"[..], &port.to_be_bytes()];
        stream.write_all(&request.concat()).await.unwrap();
        // Without waiting for the replies, which programs may do.
        stream.write_all(b"early").await.unwrap();
        let mut said = [0; 12 + 5];
        stream.read_exact(&mut said).await.unwrap();
        assert_eq!((&said[..4], &said[12..]), (&[5, 0, 5, 0][..], &b"early"[..]));
    };
    tokio::select! {
        ended = server.serve() => ended.unwrap(),
        () = asks => {}
    }
}

#[tokio::test]
async fn a_node_that_lets_nobody_listen_any_more_ends_it() {
    let node = Node::new();
    let (first, second) = (node.connect("anna"), node.connect("anna"));
    let client = Client::new(Script::of([Some(second)]), first.clone());
    let (here, there) = (Place::tcp("localhost", 1), Place::tcp("localhost", 0));
    let forward = RemoteForward::listen(there, here, client).await.unwrap();
    let mut served = JoinSet::new();
    served.spawn(forward.serve());
    node.policy.replace(Settings::default());
    first.close(Code::CANCELLED, "");
    let ListenError(error) = served.join_next().await.unwrap().unwrap();
    assert_eq!(error.code(), ErrorCode::NotAllowed);
}

/// The end of this side, as by Ctrl-C, is no end of what it carries.
#[tokio::test]
async fn what_is_carried_is_broken_off_with_its_forward() {
    let (node, port) = (Node::new(), echo().await);
    let client = Client::new(Script::of([]), node.connect("anna"));
    let (here, there) = (Place::tcp("localhost", 0), Place::tcp("localhost", port));
    let forward = LocalForward::bind(here, there, client).await.unwrap();
    let bound = forward.bound().unwrap().to_string();
    let mut served = JoinSet::new();
    served.spawn(forward.serve());
    let mut stream = TcpStream::connect(bound).await.unwrap();
    stream.write_all(b"part").await.unwrap();
    stream.read_exact(&mut [0; 4]).await.unwrap();
    served.shutdown().await;
    let error = stream.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}
