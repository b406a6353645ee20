//! WebTransport sessions, both sides.

use std::io;

use alknet_core::{
    Closed, ClosedBy, Code, Connection, ConnectionError, RecvStream, SendStream, Stream,
    StreamReset, TransportKind,
};
use alknet_http::h3::{ConnectError, connect};
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::rig::*;

async fn text(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

/// One stream there and back.
async fn there_and_back(from: &Connection, at: &Connection, word: &str) {
    let mut near = from.open_bi().await.unwrap();
    near.write_all(word.as_bytes()).await.unwrap();
    near.shutdown().await.unwrap();
    let mut far = at.accept_bi().await.unwrap();
    assert_eq!(near.id(), far.id());
    assert_eq!(text(&mut far).await, word);
    far.write_all(b"back").await.unwrap();
    far.shutdown().await.unwrap();
    assert_eq!(text(&mut near).await, "back");
}

async fn one_way(from: &Connection, at: &Connection, word: &str) {
    let mut near = from.open_uni().await.unwrap();
    near.write_all(word.as_bytes()).await.unwrap();
    near.shutdown().await.unwrap();
    assert_eq!(text(&mut at.accept_uni().await.unwrap()).await, word);
}

#[tokio::test]
async fn streams_and_datagrams_go_both_ways() {
    let mut rig = Rig::new();
    let client = rig.client().await;
    let (near, far) = rig.open(&client).await;
    assert_eq!(far.kind(), TransportKind::WebTransport);
    assert_eq!(far.remote_addr(), Some(([127, 0, 0, 1], 9).into()));
    there_and_back(&near, &far, "up").await;
    there_and_back(&far, &near, "down").await;
    one_way(&near, &far, "up").await;
    one_way(&far, &near, "down").await;
    near.send_datagram(Bytes::from_static(b"ping")).unwrap();
    assert_eq!(far.read_datagram().await.unwrap(), "ping");
    far.send_datagram(Bytes::from_static(b"pong")).unwrap();
    assert_eq!(near.read_datagram().await.unwrap(), "pong");
    assert_eq!(near.max_datagram_size(), Some(1199));
}

#[tokio::test]
async fn both_ends_export_the_same_keying_material() {
    let mut rig = Rig::new();
    let client = rig.client().await;
    let (near, far) = rig.open(&client).await;
    let (mut ours, mut theirs) = ([0; 32], [0; 32]);
    near.export_keying_material(&mut ours, b"label", b"context").unwrap();
    far.export_keying_material(&mut theirs, b"label", b"context").unwrap();
    assert_eq!(ours, theirs);
}

#[tokio::test]
async fn many_streams_at_once_keep_apart() {
    let mut rig = Rig::new();
    let client = rig.client().await;
    let (near, far) = rig.open(&client).await;
    let exchange = async |n: usize| {
        let word = n.to_string();
        let mut stream = near.open_bi().await.unwrap();
        stream.write_all(word.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(text(&mut stream).await, word);
    };
    let echo = async {
        let mut streams = Vec::new();
        for _ in 0..500 {
            streams.push(far.accept_bi().await.unwrap());
        }
        for stream in &mut streams {
            let word = text(stream).await;
            stream.write_all(word.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    };
    let all = futures_util::future::join_all((0..500).map(exchange));
    soon(async { tokio::join!(all, echo) }).await;
}

#[tokio::test]
async fn a_close_carries_its_code_and_reason_to_the_node() {
    let mut rig = Rig::new();
    let client = rig.client().await;
    let (near, far) = rig.open(&client).await;
    near.close(Code::new(77), "enough of this");
    let closed = soon(far.closed()).await;
    let peer = ClosedBy::Peer;
    assert_eq!(closed, Closed { by: peer, code: Code::new(77), reason: "enough of this".into() });
    let closed = near.closed().await;
    assert_eq!(closed.by, ClosedBy::Local);
    assert!(matches!(far.accept_bi().await, Err(ConnectionError::Closed(_))));
    assert!(matches!(near.open_bi().await, Err(ConnectionError::Closed(_))));
    assert!(near.send_datagram(Bytes::new()).is_err());
}

#[tokio::test]
async fn a_close_carries_its_code_and_reason_from_the_node() {
    let mut rig = Rig::new();
    let client = rig.client().await;
    let (near, far) = rig.open(&client).await;
    far.close(Code::MAX, &"y".repeat(2000));
    let closed = soon(near.closed()).await;
    assert_eq!(closed.code, Code::new(u64::from(u32::MAX)));
    assert_eq!(closed.reason, "y".repeat(1024));
    // The connection has room for the next one.
    let (near, far) = rig.open(&client).await;
    there_and_back(&near, &far, "again").await;
}

#[tokio::test]
async fn a_dropped_session_closes() {
    let mut rig = Rig::new();
    let client = rig.client().await;
    let (near, far) = rig.open(&client).await;
    drop(near);
    let closed = soon(far.closed()).await;
    assert_eq!((closed.by, closed.code), (ClosedBy::Peer, Code::NORMAL));
    let (near, far) = rig.open(&client).await;
    drop(far);
    let closed = soon(near.closed()).await;
    assert_eq!((closed.by, closed.code), (ClosedBy::Peer, Code::NORMAL));
}

#[tokio::test]
async fn a_lost_connection_ends_its_sessions() {
    let mut rig = Rig::new();
    let client = rig.client().await;
    let (near, far) = rig.open(&client).await;
    let mut stream = near.open_bi().await.unwrap();
    rig.quic.close(Code::new(NO_ERROR), "");
    let closed = soon(far.closed()).await;
    assert_eq!((closed.by, closed.code), (ClosedBy::Peer, Code::NORMAL));
    assert!(soon(stream.read_u8()).await.is_err());
    assert!(soon(rig.served()).await.is_ok());
}

#[tokio::test]
async fn the_close_of_a_session_with_its_own_connection_ends_both() {
    let mut rig = Rig::new();
    let (_, near) = connect(rig.quic.clone(), to("/alknet/test")).await.unwrap();
    let far = rig.session().await;
    there_and_back(&near, &far, "hello").await;
    near.close(Code::REVOKED, "bye");
    let closed = soon(far.closed()).await;
    assert_eq!(
        (closed.by, closed.code, &closed.reason[..]),
        (ClosedBy::Peer, Code::REVOKED, "bye")
    );
    assert!(soon(rig.served()).await.is_ok());
}

#[tokio::test]
async fn a_close_reaches_the_node_even_if_the_session_is_dropped_at_once() {
    let mut rig = Rig::new();
    let (_, near) = connect(rig.quic.clone(), to("/alknet/test")).await.unwrap();
    let far = rig.session().await;
    near.close(Code::LIMIT, "bye");
    drop(near);
    let closed = soon(far.closed()).await;
    assert_eq!((closed.by, closed.code, &closed.reason[..]), (ClosedBy::Peer, Code::LIMIT, "bye"));
}

fn reset_code<T>(result: io::Result<T>) -> u64 {
    let error = result.err().expect("the stream goes on");
    StreamReset::code_of(&error).unwrap_or_else(|| panic!("no reset: {error:?}")).value()
}

async fn read_code(recv: &mut RecvStream) -> u64 {
    reset_code(soon(recv.read_u8()).await)
}

/// Writes until the peer's stop has arrived.
async fn write_code(send: &mut SendStream) -> u64 {
    let writing = async {
        loop {
            if let Err(error) = send.write_all(&[0; 64]).await {
                return reset_code::<()>(Err(error));
            }
            tokio::task::yield_now().await;
        }
    };
    soon(writing).await
}

async fn pair_of_streams(from: &Connection, at: &Connection) -> (Stream, Stream) {
    let near = from.open_bi().await.unwrap();
    (near, at.accept_bi().await.unwrap())
}

#[tokio::test]
async fn resets_and_stops_carry_their_codes_both_ways() {
    let mut rig = Rig::new();
    let client = rig.client().await;
    let (near, far) = rig.open(&client).await;
    for (from, at) in [(&near, &far), (&far, &near)] {
        for code in [0, 29, 30, 31, 4711, u64::from(u32::MAX)] {
            let (a, b) = pair_of_streams(from, at).await;
            let ((mut a_send, mut a_recv), (mut b_send, mut b_recv)) = (a.split(), b.split());
            a_send.reset(Code::new(code));
            assert_eq!(read_code(&mut b_recv).await, code);
            a_recv.stop(Code::new(code));
            assert_eq!(write_code(&mut b_send).await, code);
        }
    }
    let (mut a, mut b) = pair_of_streams(&near, &far).await;
    a.reset(Code::MAX);
    assert_eq!(reset_code(soon(b.read_u8()).await), u64::from(u32::MAX));
}

#[tokio::test]
async fn codes_on_the_wire_are_those_of_the_draft() {
    let mut rig = Rig::new();
    let _client = rig.client().await;
    let _control = stream_by_hand(&rig.quic, 4).await;
    let connect = connect_by_hand(&rig.quic).await;
    assert_eq!(connect.id(), Some(4));
    let far = rig.session().await;
    let mut raw = stream_by_hand(&rig.quic, 4).await;
    // The first is the one that was there before the session.
    far.accept_bi().await.unwrap();
    let mut bound = far.accept_bi().await.unwrap();
    bound.reset(Code::new(31));
    assert_eq!(reset_code(soon(raw.read_u8()).await), 0x52e4_a40f_a8db + 32);
    raw.reset(Code::new(0x10c));
    assert_eq!(reset_code(soon(bound.read_u8()).await), Code::CANCELLED.value());
}

#[tokio::test]
async fn a_dropped_stream_is_told_from_a_finished_one() {
    let mut rig = Rig::new();
    let client = rig.client().await;
    let (near, far) = rig.open(&client).await;
    let (mut a, b) = pair_of_streams(&near, &far).await;
    drop(b);
    assert_eq!(reset_code(soon(a.read_u8()).await), Code::CANCELLED.value());
}

#[tokio::test]
async fn the_streams_of_a_closed_session_fail_on_both_sides() {
    let mut rig = Rig::new();
    let client = rig.client().await;
    let (near, far) = rig.open(&client).await;
    let (mut a, mut b) = pair_of_streams(&near, &far).await;
    let (reading, ()) = soon(async {
        tokio::join!(b.read_u8(), async {
            tokio::task::yield_now().await;
            near.close(Code::REVOKED, "");
        })
    })
    .await;
    assert_eq!(reading.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    assert_eq!(a.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    assert_eq!(b.write_all(b"x").await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
}

#[tokio::test]
async fn a_peer_sees_the_streams_of_a_closed_session_reset() {
    let mut rig = Rig::new();
    let _control = by_hand(&rig.quic).await;
    let _connect = connect_by_hand(&rig.quic).await;
    let far = rig.session().await;
    let mut accepted = stream_by_hand(&rig.quic, 0).await;
    let held = far.accept_bi().await.unwrap();
    let mut queued = stream_by_hand(&rig.quic, 0).await;
    far.close(Code::NORMAL, "");
    drop((held, far));
    assert_eq!(reset_code(soon(accepted.read_u8()).await), SESSION_GONE);
    assert_eq!(reset_code(soon(queued.read_u8()).await), SESSION_GONE);
}

#[tokio::test]
async fn streams_and_datagrams_that_come_before_their_session_wait_for_it() {
    let mut rig = Rig::new();
    // Opens the control stream of HTTP/3 and nothing else.
    let client = rig.client().await;
    let mut early = stream_by_hand(&rig.quic, 4).await;
    early.write_all(b"early").await.unwrap();
    early.shutdown().await.unwrap();
    let mut early_uni = rig.quic.open_uni().await.unwrap();
    early_uni.write_all(&[varint(0x54), varint(4), b"uni".to_vec()].concat()).await.unwrap();
    early_uni.shutdown().await.unwrap();
    rig.quic.send_datagram([varint(1), b"gram".to_vec()].concat().into()).unwrap();
    rig.quic.send_datagram([varint(2), b"other".to_vec()].concat().into()).unwrap();
    let (near, far) = rig.open(&client).await;
    assert_eq!(text(&mut soon(far.accept_bi()).await.unwrap()).await, "early");
    assert_eq!(text(&mut soon(far.accept_uni()).await.unwrap()).await, "uni");
    assert_eq!(soon(far.read_datagram()).await.unwrap(), "gram");
    near.send_datagram(Bytes::from_static(b"next")).unwrap();
    assert_eq!(soon(far.read_datagram()).await.unwrap(), "next");
}

#[tokio::test]
async fn streams_that_come_after_their_session_are_told_so() {
    let mut rig = Rig::new();
    let _control = by_hand(&rig.quic).await;
    let mut connect = connect_by_hand(&rig.quic).await;
    let far = rig.session().await;
    connect.shutdown().await.unwrap();
    assert_eq!(soon(far.closed()).await.code, Code::NORMAL);
    let mut late = stream_by_hand(&rig.quic, 0).await;
    assert_eq!(reset_code(soon(late.read_u8()).await), SESSION_GONE);
    let mut late = rig.quic.open_uni().await.unwrap();
    late.write_all(&[varint(0x54), varint(0)].concat()).await.unwrap();
    assert_eq!(write_code(&mut late).await, SESSION_GONE);
}

#[tokio::test]
async fn streams_wait_while_their_session_is_being_decided() {
    let mut rig = Rig::new();
    let _control = by_hand(&rig.quic).await;
    let mut connect = rig.quic.open_bi().await.unwrap();
    let head = request_head("CONNECT", "/slow", &[(":protocol", "webtransport")]);
    connect.write_all(&head).await.unwrap();
    let mut early = stream_by_hand(&rig.quic, 0).await;
    early.write_all(b"early").await.unwrap();
    early.shutdown().await.unwrap();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    rig.slow.notify_one();
    let far = rig.session().await;
    assert_eq!(text(&mut soon(far.accept_bi()).await.unwrap()).await, "early");
}

/// Also while the peer has not ended the CONNECT stream and the handler holds the session.
#[tokio::test(start_paused = true)]
async fn a_session_is_gone_at_once() {
    let mut rig = Rig::new();
    let _control = by_hand(&rig.quic).await;
    let mut connect = connect_by_hand(&rig.quic).await;
    let far = rig.session().await;
    far.close(Code::NORMAL, "");
    connect.read_to_end(&mut Vec::new()).await.unwrap();
    let began = tokio::time::Instant::now();
    let mut late = stream_by_hand(&rig.quic, 0).await;
    assert_eq!(reset_code(late.read_u8().await), SESSION_GONE);
    assert!(began.elapsed().is_zero());
    assert!(far.accept_bi().await.is_err());
}

#[tokio::test]
async fn streams_of_a_refused_session_are_told_so() {
    let rig = Rig::new();
    let client = rig.client().await;
    let mut early = stream_by_hand(&rig.quic, 4).await;
    let refused = client.connect(to("/refused")).await.unwrap_err();
    let ConnectError::Refused(response) = refused else { panic!("{refused:?}") };
    assert_eq!(response.status(), 404);
    assert!(!response.headers().contains_key("sec-webtransport-http3-draft"));
    assert_eq!(reset_code(soon(early.read_u8()).await), SESSION_GONE);
}

#[tokio::test]
async fn an_accepted_session_has_the_headers_of_the_application() {
    let rig = Rig::new();
    let client = rig.client().await;
    let (response, _session) = client.connect(to("/alknet/test")).await.unwrap();
    assert_eq!(response.headers()["wt-protocol"], "\"alknet/test\"");
    assert_eq!(response.headers()["sec-webtransport-http3-draft"], "draft02");
}

#[tokio::test]
async fn capsules_by_hand_close_a_session() {
    let mut rig = Rig::new();
    let _control = by_hand(&rig.quic).await;
    let mut connect = connect_by_hand(&rig.quic).await;
    let far = rig.session().await;
    let drain = frame(0x78ae, b"");
    let grease = frame(0x1f * 3 + 0x21, &[1; 500]);
    let close = frame(0x2843, b"\0\0\x01\x02so long");
    for piece in [drain, grease, close].concat().chunks(3) {
        connect.write_all(&frame(0, piece)).await.unwrap();
    }
    let closed = soon(far.closed()).await;
    assert_eq!((closed.by, closed.code.value()), (ClosedBy::Peer, 0x102));
    assert_eq!(closed.reason, "so long");
    // The node ends its side too: the answer's header, and nothing behind it.
    let mut answer = Vec::new();
    soon(connect.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer[0], 1);
}

#[tokio::test]
async fn a_node_that_closes_says_so_with_a_capsule() {
    let mut rig = Rig::new();
    let _control = by_hand(&rig.quic).await;
    let mut connect = connect_by_hand(&rig.quic).await;
    let far = rig.session().await;
    far.close(Code::new(7), "why");
    let mut answer = Vec::new();
    soon(connect.read_to_end(&mut answer)).await.unwrap();
    let want = frame(0, &frame(0x2843, b"\0\0\0\x07why"));
    assert!(answer.ends_with(&want), "{answer:?}");
}

#[tokio::test]
async fn a_cancelled_wait_loses_no_stream() {
    let mut rig = Rig::new();
    let client = rig.client().await;
    let (near, far) = rig.open(&client).await;
    for n in 0..50u8 {
        let mut stream = near.open_bi().await.unwrap();
        stream.write_all(&[n]).await.unwrap();
        let mut arrived = None;
        while arrived.is_none() {
            // Waits for one poll only, with the stream at every stage of its way.
            let waiting = std::pin::pin!(far.accept_bi());
            if let std::task::Poll::Ready(stream) = futures_util::poll!(waiting) {
                arrived = Some(stream.unwrap());
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(arrived.unwrap().read_u8().await.unwrap(), n);
    }
}
