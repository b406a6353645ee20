//! How much a node takes on for one peer, and how long it waits.

use std::{sync::atomic::Ordering, time::Duration};

use alknet_core::{Code, StreamReset};
use alknet_http::h3::ConnectError;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::Instant,
};

use super::rig::*;

fn code(error: &std::io::Error) -> Option<u64> {
    StreamReset::code_of(error).map(Code::value)
}

#[tokio::test]
async fn a_connection_has_64_sessions_at_a_time() {
    let mut rig = Rig::new();
    let client = rig.client().await;
    let mut sessions = Vec::new();
    for _ in 0..64 {
        sessions.push(rig.open(&client).await);
    }
    let refused = client.connect(to("/alknet/test")).await.unwrap_err();
    let ConnectError::Refused(response) = refused else { panic!("{refused:?}") };
    assert_eq!(response.status(), 429);
    let (near, far) = sessions.pop().unwrap();
    far.close(Code::NORMAL, "");
    soon(near.closed()).await;
    rig.open(&client).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_waits_ten_seconds_for_its_session() {
    let rig = Rig::new();
    let _client = rig.client().await;
    let began = Instant::now();
    let mut orphan = stream_by_hand(&rig.quic, 400).await;
    let error = orphan.read_u8().await.unwrap_err();
    assert_eq!(code(&error), Some(BUFFERED_STREAM_REJECTED));
    assert_eq!(began.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_requests_is_closed() {
    let rig = Rig::new();
    let _client = rig.client().await;
    let began = Instant::now();
    rig.quic.closed().await;
    assert_eq!(began.elapsed().as_secs(), 75);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_never_says_what_it_is_is_given_up() {
    let rig = Rig::new();
    let _client = rig.client().await;
    let began = Instant::now();
    let mut silent = rig.quic.open_bi().await.unwrap();
    silent.write_all(&[0x40]).await.unwrap();
    assert_eq!(code(&silent.read_u8().await.unwrap_err()), Some(0x10d));
    assert_eq!(began.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_never_ends_its_header_is_given_up() {
    let rig = Rig::new();
    let _control = by_hand(&rig.quic).await;
    let began = Instant::now();
    let mut slow = rig.quic.open_bi().await.unwrap();
    slow.write_all(&request_head("GET", "/x", &[])[..8]).await.unwrap();
    assert_eq!(code(&slow.read_u8().await.unwrap_err()), Some(0x10c));
    assert_eq!(began.elapsed().as_secs(), 10);
}

#[tokio::test]
async fn no_more_than_64_streams_wait_for_sessions() {
    let rig = Rig::new();
    let _client = rig.client().await;
    let mut orphans = Vec::new();
    for _ in 0..64 {
        orphans.push(stream_by_hand(&rig.quic, 4000).await);
    }
    let mut excess = stream_by_hand(&rig.quic, 4000).await;
    let error = soon(excess.read_u8()).await.unwrap_err();
    assert_eq!(code(&error), Some(BUFFERED_STREAM_REJECTED));
    let waiting = futures_util::poll!(Box::pin(orphans[0].read_u8()));
    assert!(waiting.is_pending());
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_sessions_are_over_is_closed_after_half_a_minute() {
    let mut rig = Rig::new();
    let client = rig.client().await;
    let (near, far) = rig.open(&client).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    drop(far);
    near.closed().await;
    let began = Instant::now();
    let closed = rig.quic.closed().await;
    assert_eq!(closed.code.value(), NO_ERROR);
    assert!((30..35).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    assert!(rig.served().await.is_ok());
}

#[tokio::test]
async fn a_session_whose_handler_accepts_nothing_holds_a_bounded_number_of_streams() {
    let mut rig = Rig::new();
    let _control = by_hand(&rig.quic).await;
    let _connect = connect_by_hand(&rig.quic).await;
    let _far = rig.session().await;
    let mut refused = 0;
    let mut streams = Vec::new();
    for _ in 0..1200 {
        streams.push(stream_by_hand(&rig.quic, 0).await);
    }
    for stream in &mut streams[1024..] {
        let error = soon(stream.read_u8()).await.unwrap_err();
        refused += usize::from(code(&error) == Some(BUFFERED_STREAM_REJECTED));
    }
    assert_eq!(refused, 1200 - 1024);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_taken_is_given_up_after_a_minute() {
    let rig = Rig::new();
    let _control = by_hand(&rig.quic).await;
    let mut stream = rig.quic.open_bi().await.unwrap();
    stream.write_all(&request_head("GET", "/endless", &[])).await.unwrap();
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert_eq!(rig.bodies_over.load(Ordering::SeqCst), 0);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(rig.bodies_over.load(Ordering::SeqCst), 1);
    assert_eq!(code(&stream.read_u8().await.unwrap_err()), Some(0x10c));
}
