//! Peers that break the protocol.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use alknet_core::{ClosedBy, Code, Connection, StreamReset};
use alknet_http::h3::ServeError;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::rig::*;

/// Counts panics of this process from now on.
fn panics() -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let seen = count.clone();
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        seen.fetch_add(1, Ordering::SeqCst);
        before(info);
    }));
    count
}

async fn closed_with(quic: &Connection) -> u64 {
    let closed = soon(quic.closed()).await;
    assert_eq!(closed.by, ClosedBy::Peer);
    closed.code.value()
}

#[tokio::test]
async fn settings_that_are_none_end_the_connection() {
    for (opening, code) in [
        // A second SETTINGS frame.
        (vec![frame(4, b""), frame(4, b"")], 0x105),
        // A setting twice.
        (vec![frame(4, b"\x33\x01\x33\x01")], 0x109),
        // One of HTTP/2.
        (vec![frame(4, b"\x02\x01")], 0x109),
        // Something else first.
        (vec![frame(7, b"\x00")], 0x10a),
        // DATA on the control stream.
        (vec![frame(4, b""), frame(0, b"x")], 0x105),
    ] {
        let mut rig = Rig::new();
        let mut control = rig.quic.open_uni().await.unwrap();
        control.write_all(&[varint(0), opening.concat()].concat()).await.unwrap();
        assert_eq!(closed_with(&rig.quic).await, code, "{opening:?}");
        assert!(matches!(soon(rig.served()).await, Err(ServeError::Protocol(_))));
    }
}

#[tokio::test]
async fn giant_lengths_are_refused_before_anything_is_kept() {
    let giant = varint((1 << 62) - 1);
    let rig = Rig::new();
    let mut control = rig.quic.open_uni().await.unwrap();
    control.write_all(&[varint(0), varint(4), giant.clone()].concat()).await.unwrap();
    assert_eq!(closed_with(&rig.quic).await, 0x104);

    let rig = Rig::new();
    let _control = by_hand(&rig.quic).await;
    let mut stream = rig.quic.open_bi().await.unwrap();
    stream.write_all(&[varint(1), giant.clone()].concat()).await.unwrap();
    let (mut send, _recv) = stream.split();
    let error = soon(async {
        loop {
            if let Err(error) = send.write_all(&[0; 1000]).await {
                return error;
            }
        }
    })
    .await;
    assert_eq!(StreamReset::code_of(&error), Some(Code::new(0x107)));
}

#[tokio::test]
async fn a_giant_capsule_ends_its_session_alone() {
    let mut rig = Rig::new();
    let _control = by_hand(&rig.quic).await;
    let mut connect = connect_by_hand(&rig.quic).await;
    let far = rig.session().await;
    let capsule = [varint(0x2843), varint((1 << 62) - 1)].concat();
    connect.write_all(&frame(0, &capsule)).await.unwrap();
    let closed = soon(far.closed()).await;
    assert_eq!((closed.by, closed.code), (ClosedBy::Lost, Code::PROTOCOL));
    let error = soon(async {
        let mut all = Vec::new();
        connect.read_to_end(&mut all).await
    })
    .await
    .unwrap_err();
    assert_eq!(StreamReset::code_of(&error), Some(Code::new(0x33)));
    let _next = connect_by_hand(&rig.quic).await;
    soon(rig.session()).await;
}

#[tokio::test]
async fn a_session_id_that_is_no_request_ends_the_connection() {
    let rig = Rig::new();
    let _control = by_hand(&rig.quic).await;
    let _stream = stream_by_hand(&rig.quic, 3).await;
    assert_eq!(closed_with(&rig.quic).await, 0x108);
}

#[tokio::test]
async fn unknown_streams_and_frames_are_passed_over() {
    let rig = Rig::new();
    let _control = by_hand(&rig.quic).await;
    let mut unknown = rig.quic.open_uni().await.unwrap();
    unknown.write_all(&varint(0x1f * 9 + 0x21)).await.unwrap();
    let mut stream = rig.quic.open_bi().await.unwrap();
    let grease = frame(0x1f * 4 + 0x21, &[9; 40_000]);
    let head = request_head("POST", "/length", &[]);
    let body = [frame(0, b""), frame(0, b"abc"), grease.clone(), frame(0, b""), frame(0, b"d")];
    stream.write_all(&[grease.clone(), head, body.concat(), grease].concat()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    soon(stream.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.ends_with(b"4"), "{}", String::from_utf8_lossy(&answer));
    let error = soon(async {
        loop {
            if let Err(error) = unknown.write_all(&[0; 64]).await {
                return error;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(StreamReset::code_of(&error), Some(Code::new(0x103)));
}

/// A body cut off inside a DATA frame must not pass as a whole one.
#[tokio::test]
async fn a_body_that_is_cut_off_is_an_error() {
    let panics = panics();
    let rig = Rig::new();
    let _control = by_hand(&rig.quic).await;
    for cut in 0..5 {
        let mut stream = rig.quic.open_bi().await.unwrap();
        let head = request_head("POST", "/length", &[]);
        let body = &frame(0, b"body")[..1 + cut];
        stream.write_all(&[&head, body].concat()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        soon(stream.read_to_end(&mut answer)).await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.contains("error: "), "{cut}: {answer}");
    }
    assert_eq!(panics.load(Ordering::SeqCst), 0);
}

/// However small the frames of a body are, a peer gets no more of it into the node than
/// the application has read and a stream and a piece hold.
#[tokio::test(start_paused = true)]
async fn a_body_of_tiny_frames_is_held_back() {
    let rig = Rig::new();
    let _control = by_hand(&rig.quic).await;
    let mut stream = rig.quic.open_bi().await.unwrap();
    stream.write_all(&request_head("POST", "/sip", &[])).await.unwrap();
    let tiny = frame(0, b"x").repeat(1000);
    let mut written = 0;
    for _ in 0..100 {
        rig.slow.notify_one();
        // The clock goes on when nothing else does: when the node takes no more.
        while let Ok(Ok(count)) =
            tokio::time::timeout(Duration::from_millis(1), stream.write(&tiny)).await
        {
            written += count;
        }
    }
    assert!(written < 160 * 1024, "{written}");
}

async fn throw_at_node(bidirectional: bool, opened: bool, bytes: Vec<u8>) {
    let rig = Rig::new();
    let _control = if opened { Some(by_hand(&rig.quic).await) } else { None };
    if bidirectional {
        let mut stream = rig.quic.open_bi().await.unwrap();
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = soon(stream.read_to_end(&mut answer)).await;
    } else {
        let mut stream = rig.quic.open_uni().await.unwrap();
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
    }
    let _ = rig.quic.send_datagram(bytes.into_iter().take(1000).collect());
    tokio::task::yield_now().await;
}

/// Bytes that look a little like frames.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![0u64..16, Just(0x41), Just(0x54), Just(0x2843), any::<u64>()];
    let body = prop::collection::vec(any::<u8>(), 0..60);
    let len = prop_oneof![4 => Just(None), 1 => any::<u64>().prop_map(Some)];
    let one = (kind, len, body).prop_map(|(kind, len, body)| {
        let kind = varint(kind.min((1 << 62) - 1));
        let len = varint(len.unwrap_or(body.len() as u64).min((1 << 62) - 1));
        [kind, len, body].concat()
    });
    prop::collection::vec(one, 0..6).prop_map(|frames| frames.concat())
}

/// A whole HEADERS frame around bytes that may be no field section.
fn field_sections() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..200)
        .prop_map(|block| frame(1, &[&[0, 0], &block[..]].concat()))
}

#[test]
fn no_bytes_make_a_node_panic() {
    let panics = panics();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let runtime = runtime.unwrap();
    let bytes = prop_oneof![frames(), field_sections(), prop::collection::vec(any::<u8>(), 0..300)];
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(600));
    let ran =
        runner.run(&(any::<bool>(), any::<bool>(), bytes), |(bidirectional, opened, bytes)| {
            runtime.block_on(throw_at_node(bidirectional, opened, bytes));
            prop_assert_eq!(panics.load(Ordering::SeqCst), 0);
            Ok(())
        });
    ran.unwrap();
}
