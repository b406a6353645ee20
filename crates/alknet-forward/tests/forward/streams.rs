//! Streams, one by one.

use std::time::Duration;

use alknet_core::{Code, ProtocolHandler as _, StreamReset};
use alknet_forward::{ErrorCode, OpenError, Place, Request, open};
use alknet_host::network::Settings;
use futures_util::FutureExt as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::node::{Node, echo, says};

fn to(port: u16) -> Request {
    Request::Connect(Place::tcp("localhost", port))
}

#[tokio::test]
async fn each_stream_is_a_connection() {
    let (node, port) = (Node::new(), echo().await);
    let connection = node.connect("anna");
    let mut first = open(&connection, &to(port)).await.unwrap();
    let mut second = open(&connection, &to(port)).await.unwrap();
    says(&mut second.stream, "two").await;
    says(&mut first.stream, "one").await;
    assert_eq!(first.opened.peer, Some(format!("127.0.0.1:{port}")));
    first.stream.shutdown().await.unwrap();
    assert_eq!(first.stream.read(&mut [0]).await.unwrap(), 0);
    says(&mut second.stream, "still").await;
}

#[tokio::test]
async fn a_reset_is_passed_on_both_ways() {
    let (node, listener) = (Node::new(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let connection = node.connect("anna");
    let request = to(listener.local_addr().unwrap().port());
    let mut opened = open(&connection, &request).await.unwrap();
    let (mut far, _) = listener.accept().await.unwrap();
    opened.stream.write_all(b"part").await.unwrap();
    far.read_exact(&mut [0; 4]).await.unwrap();
    drop(opened);
    let error = far.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

    let mut opened = open(&connection, &request).await.unwrap();
    let (far, _) = listener.accept().await.unwrap();
    far.set_zero_linger().unwrap();
    drop(far);
    let error = opened.stream.read(&mut [0]).await.unwrap_err();
    assert_eq!(StreamReset::code_of(&error), Some(Code::CANCELLED));
}

/// As a revocation or the deadline of a shutdown does it.
#[tokio::test]
async fn a_connection_that_is_cut_off_has_no_clean_end() {
    let (node, listener) = (Node::new(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let connection = node.connect("anna");
    let request = to(listener.local_addr().unwrap().port());
    let mut opened = open(&connection, &request).await.unwrap();
    let (mut far, _) = listener.accept().await.unwrap();
    opened.stream.write_all(b"part").await.unwrap();
    far.read_exact(&mut [0; 4]).await.unwrap();
    node.cut().await;
    let error = far.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

/// Nor does one whose taker is gone before the node could say so.
#[tokio::test]
async fn a_connection_that_is_taken_by_nobody_has_no_clean_end() {
    let node = Node::new();
    let anna = node.connect("anna");
    let listen = Request::Listen(Place::tcp("localhost", 0));
    let mut listening = open(&anna, &listen).await.unwrap();
    let mut client = TcpStream::connect(listening.opened.bound.as_ref().unwrap()).await.unwrap();
    let (id, _) = told(&mut listening.stream).await;
    let mut stream = anna.open_bi().await.unwrap();
    let request = format!(r#"{{"accept":{{"id":"{id}"}}}}"#);
    stream.write_u32(u32::try_from(request.len()).unwrap()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let (_send, recv) = stream.split();
    drop(recv);
    let error = client.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn refusals_are_bounded_in_the_audit_log() {
    let node = Node::new();
    let long = format!("/{}", "\u{1}".repeat(600));
    // On connections of its own each, as it is an identity that is counted.
    for _ in 0..300 {
        let connection = node.connect("anna");
        let error = open(&connection, &Request::Connect(Place::unix(&long))).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::NotAllowed);
    }
    node.over().await;
    let reasons = node.record.reasons();
    assert!(reasons.len() < 400 && reasons.iter().all(|reason| reason.len() < 700), "{reasons:?}");
    // What is left out is counted.
    let told = |reason: &String| {
        let (_, more) = reason.split_once("; before it ").unwrap_or(("", reason));
        more.strip_suffix(" more that are not recorded")?.parse::<usize>().ok()
    };
    let refused = reasons.iter().filter(|reason| reason.starts_with("connect ")).count();
    let left_out: usize = reasons.iter().filter_map(told).sum();
    assert_eq!(refused + left_out, 300, "{reasons:?}");
    assert!(refused < 300, "each of them was recorded");
}

#[tokio::test]
async fn refusals_say_what_and_are_recorded() {
    let node = Node::new();
    let connection = node.connect("anna");
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    for (request, code) in [
        (Request::Connect(Place::tcp("10.0.0.1", 22)), ErrorCode::NotAllowed),
        (Request::Connect(Place::tcp("127.1", 22)), ErrorCode::Invalid),
        (Request::Connect(Place::unix("/run/docker.sock")), ErrorCode::NotAllowed),
        (Request::Connect(Place::unix("../x")), ErrorCode::NotAllowed),
        (Request::Listen(Place::tcp("*", 0)), ErrorCode::NotAllowed),
        (Request::Accept { id: "00".repeat(16).parse().unwrap() }, ErrorCode::Gone),
        (to(free), ErrorCode::Refused),
    ] {
        let error = open(&connection, &request).await.unwrap_err();
        assert_eq!(error.code(), code, "{request:?}: {error}");
    }
    assert_eq!(
        node.record.reasons(),
        [
            "connect 10.0.0.1:22: no rule allows it",
            "connect /run/docker.sock: no rule allows it",
            "connect ../x: not a path of a Unix socket",
            "listen *:0: no rule allows it",
        ]
    );
    // All of that on one connection, which goes on.
    open(&connection, &Request::Ping {}).await.unwrap();
}

#[tokio::test]
async fn what_is_allowed_is_recorded_where_it_is_asked_for() {
    let (node, port) = (Node::new(), echo().await);
    open(&node.connect("anna"), &to(port)).await.unwrap();
    assert_eq!(node.record.reasons(), [""; 0]);
    let settings = (*node.policy.settings()).clone();
    node.policy.replace(Settings { audit_destinations: true, ..settings });
    open(&node.connect("anna"), &to(port)).await.unwrap();
    assert_eq!(node.record.reasons(), [format!("connect localhost:{port}")]);
}

#[tokio::test]
async fn bytes_that_are_no_request_end_their_stream_alone() {
    let node = Node::new();
    let connection = node.connect("anna");
    let later = [&[0, 0, 0, 11][..], br#"{"exec":{}}"#].concat();
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &later] {
        let mut stream = connection.open_bi().await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[4..]).into_owned();
        assert!(answer.contains(r#""code":"unsupported""#), "{answer}");
    }
    open(&connection, &Request::Ping {}).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_not_waited_for() {
    let node = Node::new();
    let connection = node.connect("anna");
    let mut stream = connection.open_bi().await.unwrap();
    stream.write_all(&[0, 0]).await.unwrap();
    let error = stream.read(&mut [0]).await.unwrap_err();
    assert_eq!(StreamReset::code_of(&error), Some(Code::TIMEOUT));
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(64))]

    /// Whatever a client sends, its stream ends, and the session goes on.
    #[test]
    fn no_bytes_hold_up_a_session(
        requests in proptest::collection::vec("[ -~]{0,60}", 0..4),
        noise in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
        known in 0..4_usize,
    ) {
        let known = [r#"{"udp":{}}"#, r#"{"ping":{}}"#, r#"{"listen":{"path":"/"}}"#, ""][known];
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let node = Node::with(Settings::default());
            let connection = node.connect("anna");
            let mut stream = connection.open_bi().await.unwrap();
            let mut bytes = Vec::new();
            for json in std::iter::once(known).chain(requests.iter().map(String::as_str)) {
                bytes.extend(u32::try_from(json.len()).unwrap().to_be_bytes());
                bytes.extend(json.as_bytes());
            }
            bytes.extend(&noise);
            // Ended or reset at any place is well.
            if stream.write_all(&bytes).await.is_ok() {
                let _ = stream.shutdown().await;
            }
            let _ = stream.read_to_end(&mut Vec::new()).await;
            open(&connection, &Request::Ping {}).await.unwrap();
        });
    }
}

/// What a listener tells, as `(id, peer)`.
async fn told(stream: &mut alknet_core::Stream) -> (String, String) {
    let mut json = vec![0; usize::try_from(stream.read_u32().await.unwrap()).unwrap()];
    stream.read_exact(&mut json).await.unwrap();
    let told: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let field = |name| told["incoming"][name].as_str().unwrap().to_owned();
    (field("id"), field("peer"))
}

#[tokio::test]
async fn a_connection_that_came_in_is_given_out_once_and_to_its_owner() {
    let node = Node::new();
    let (anna, bert) = (node.connect("anna"), node.connect("bert"));
    let listen = Request::Listen(Place::tcp("localhost", 0));
    let mut listening = open(&anna, &listen).await.unwrap();
    let bound = listening.opened.bound.clone().unwrap();
    let mut client = TcpStream::connect(&bound).await.unwrap();
    let (id, peer) = told(&mut listening.stream).await;
    assert_eq!(peer, client.local_addr().unwrap().to_string());
    let accept = Request::Accept { id: id.parse().unwrap() };
    let refused = open(&bert, &accept).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::Gone, "somebody else's connection");
    // On another connection of the same identity, as where each has one stream.
    let mut taken = open(&node.connect("anna"), &accept).await.unwrap();
    assert_eq!(open(&anna, &accept).await.unwrap_err().code(), ErrorCode::Gone, "twice");
    client.write_all(b"in").await.unwrap();
    let mut heard = [0; 2];
    taken.stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"in");
    // The end of the listener ends no connection, and one that waits.
    let mut waiting = TcpStream::connect(&bound).await.unwrap();
    told(&mut listening.stream).await;
    listening.stream.shutdown().await.unwrap();
    assert!(matches!(waiting.read(&mut [0]).await, Err(_) | Ok(0)));
    assert_eq!(listening.stream.read(&mut [0]).await.unwrap(), 0);
    assert!(TcpStream::connect(&bound).await.is_err());
    taken.stream.write_all(b"out").await.unwrap();
    client.read_exact(&mut [0; 3]).await.unwrap();
}

/// What was taken makes room at once, not when its time is over: the first connection waits
/// all along, and is there still.
#[tokio::test]
async fn any_number_of_connections_come_in_one_after_the_other() {
    let node = Node::new();
    let anna = node.connect("anna");
    let listen = Request::Listen(Place::tcp("localhost", 0));
    let mut listening = open(&anna, &listen).await.unwrap();
    let bound = listening.opened.bound.clone().unwrap();
    let _first = TcpStream::connect(&bound).await.unwrap();
    let (first, _) = told(&mut listening.stream).await;
    for _ in 0..300 {
        let _client = TcpStream::connect(&bound).await.unwrap();
        let (id, _) = told(&mut listening.stream).await;
        let mut taken = open(&anna, &Request::Accept { id: id.parse().unwrap() }).await.unwrap();
        taken.stream.shutdown().await.unwrap();
    }
    open(&anna, &Request::Accept { id: first.parse().unwrap() }).await.unwrap();
}

#[tokio::test]
async fn so_many_wait_and_no_more() {
    let node = Node::new();
    let anna = node.connect("anna");
    let listen = Request::Listen(Place::tcp("localhost", 0));
    let mut listening = open(&anna, &listen).await.unwrap();
    let bound = listening.opened.bound.clone().unwrap();
    let mut clients = Vec::new();
    let mut ids = Vec::new();
    for _ in 0..64 {
        clients.push(TcpStream::connect(&bound).await.unwrap());
        ids.push(told(&mut listening.stream).await.0);
    }
    clients.push(TcpStream::connect(&bound).await.unwrap());
    // The node's tasks have nothing left to do once it has answered this.
    open(&anna, &Request::Ping {}).await.unwrap();
    assert!(told(&mut listening.stream).now_or_never().is_none(), "one too many");
    let accept = Request::Accept { id: ids[7].parse().unwrap() };
    let _taken = open(&anna, &accept).await.unwrap();
    told(&mut listening.stream).await;
}

#[tokio::test]
async fn nobody_waits_for_ever_to_be_taken() {
    let node = Node::new();
    let anna = node.connect("anna");
    let listen = Request::Listen(Place::tcp("localhost", 0));
    let mut listening = open(&anna, &listen).await.unwrap();
    let bound = listening.opened.bound.clone().unwrap();
    let mut client = TcpStream::connect(&bound).await.unwrap();
    let (id, _) = told(&mut listening.stream).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(11)).await;
    tokio::time::resume();
    assert!(matches!(client.read(&mut [0]).await, Err(_) | Ok(0)));
    let accept = Request::Accept { id: id.parse().unwrap() };
    assert_eq!(open(&anna, &accept).await.unwrap_err().code(), ErrorCode::Gone);
}

#[tokio::test]
async fn a_shutdown_ends_listeners_and_idle_sessions() {
    let (node, port) = (Node::new(), echo().await);
    let (anna, _idle) = (node.connect("anna"), node.connect("bert"));
    let mut listening = open(&anna, &Request::Listen(Place::tcp("localhost", 0))).await.unwrap();
    let mut carried = open(&anna, &to(port)).await.unwrap();
    node.adapter.shutdown().await;
    assert_eq!(listening.stream.read(&mut [0]).await.unwrap(), 0);
    // What is under way goes on, to the deadline of whoever shuts down.
    says(&mut carried.stream, "to the end").await;
    drop((carried, listening));
    node.over().await;
}

#[tokio::test]
async fn a_node_turns_away_for_good_or_for_now() {
    let (near, far) = alknet_testing::memory::pair();
    far.close(Code::REFUSED, "");
    let error = open(&near, &Request::Ping {}).await.unwrap_err();
    assert!(matches!(error, OpenError::TurnedAway(_)) && error.is_final(), "{error}");
    let (near, far) = alknet_testing::memory::pair();
    far.close(Code::SHUTTING_DOWN, "");
    let error = open(&near, &Request::Ping {}).await.unwrap_err();
    assert!(matches!(error, OpenError::Lost(_)) && !error.is_final(), "{error}");
}
