//! Ordinary requests, alone and beside sessions.

use std::sync::atomic::Ordering;

use alknet_core::Code;
use alknet_http::h3::ConnectError;
use http::HeaderMap;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::rig::*;

#[tokio::test]
async fn bodies_and_trailers_stream_while_sessions_run() {
    let mut rig = Rig::new();
    let client = rig.client().await;
    let mut sessions = Vec::new();
    for _ in 0..6 {
        sessions.push(rig.open(&client).await);
    }
    let talk = async {
        for (near, far) in &sessions {
            let mut up = near.open_bi().await.unwrap();
            let (sent, received) = tokio::join!(
                async {
                    up.write_all(&[7; 300_000]).await.unwrap();
                    up.shutdown().await.unwrap();
                },
                async {
                    let mut all = Vec::new();
                    far.accept_bi().await.unwrap().read_to_end(&mut all).await.unwrap();
                    all
                }
            );
            let () = sent;
            assert_eq!(received, [7; 300_000]);
        }
    };
    let request = async {
        // Less than a stream holds: the client sends all of it before it reads.
        let body: Vec<u8> = (0..=255).cycle().take(50_000).collect();
        let response = client.request(ask("/echo", body.clone())).await.unwrap();
        assert_eq!(response.body(), &body);
        let trailers = response.extensions().get::<HeaderMap>().unwrap();
        assert_eq!(trailers["x-end"], "reached");
    };
    soon(async { tokio::join!(talk, request) }).await;
    let response = client.request(ask("/nothing", "")).await.unwrap();
    assert_eq!(response.status(), 404);
    assert_eq!(response.body(), "GET /nothing");
    assert_eq!(response.headers()["content-length"], "12");
    assert!(response.headers().contains_key("date"));
}

#[tokio::test]
async fn a_long_body_reaches_the_application_whole() {
    let rig = Rig::new();
    let client = rig.client().await;
    let body = vec![1; 3_000_000];
    let response = soon(client.request(ask("/length", body))).await.unwrap();
    assert_eq!(response.body(), "3000000");
}

#[tokio::test]
async fn a_body_that_nobody_reads_is_stopped() {
    let rig = Rig::new();
    let _control = by_hand(&rig.quic).await;
    let mut stream = rig.quic.open_bi().await.unwrap();
    stream.write_all(&request_head("POST", "/deaf", &[])).await.unwrap();
    let (mut send, mut recv) = stream.split();
    let mut answer = Vec::new();
    soon(recv.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.ends_with(b"did not listen"));
    let error = soon(async {
        loop {
            if let Err(error) = send.write_all(&frame(0, &[0; 1000])).await {
                return error;
            }
        }
    })
    .await;
    let code = alknet_core::StreamReset::code_of(&error).unwrap();
    assert_eq!(code.value(), NO_ERROR);
}

/// Whether it is being sent, waits for the application, or is not begun.
#[tokio::test]
async fn an_answer_that_nobody_wants_is_given_up() {
    for (path, begins) in [("/endless", true), ("/silent", true), ("/never", false)] {
        let rig = Rig::new();
        let _control = by_hand(&rig.quic).await;
        let mut stream = rig.quic.open_bi().await.unwrap();
        stream.write_all(&request_head("GET", path, &[])).await.unwrap();
        stream.shutdown().await.unwrap();
        if begins {
            stream.read_u8().await.unwrap();
        }
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(rig.bodies_over.load(Ordering::SeqCst), 0, "{path}");
        stream.reset(Code::new(0x10c));
        soon(async {
            while rig.bodies_over.load(Ordering::SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_request_that_is_given_up_fails_for_the_application() {
    let rig = Rig::new();
    let _control = by_hand(&rig.quic).await;
    let mut stream = rig.quic.open_bi().await.unwrap();
    let head = request_head("POST", "/echo", &[]);
    stream.write_all(&[head, frame(0, b"some")].concat()).await.unwrap();
    let (mut send, mut recv) = stream.split();
    // The answer begins before the body ends.
    recv.read_u8().await.unwrap();
    send.reset(Code::new(0x10c));
    let error = soon(recv.read_to_end(&mut Vec::new())).await.unwrap_err();
    assert_eq!(alknet_core::StreamReset::code_of(&error), Some(Code::new(0x102)));
}

#[tokio::test]
async fn a_body_has_the_length_it_announces() {
    let rig = Rig::new();
    let _control = by_hand(&rig.quic).await;
    for (announced, sent, want) in [("4", 4, "4"), ("4", 3, "error: "), ("4", 5, "error: ")] {
        let mut stream = rig.quic.open_bi().await.unwrap();
        let head = request_head("POST", "/length", &[("content-length", announced)]);
        stream.write_all(&[head, frame(0, &vec![b'x'; sent])].concat()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        soon(stream.read_to_end(&mut answer)).await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        // Only the header comes before it.
        assert!(answer.rsplit('?').next().unwrap().contains(want), "{sent}: {answer}");
    }
}

#[tokio::test]
async fn a_request_without_a_body_is_known_for_one() {
    let rig = Rig::new();
    let _control = by_hand(&rig.quic).await;
    let cookies = [("cookie", "a=1"), ("cookie", "b=2")];
    let mut stream = rig.quic.open_bi().await.unwrap();
    stream.write_all(&request_head("GET", "/about", &cookies)).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    soon(stream.read_to_end(&mut answer)).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.ends_with("cookies [Ok(\"a=1; b=2\")], ended true"), "{answer}");
}

#[tokio::test]
async fn an_answer_to_head_has_no_body() {
    let rig = Rig::new();
    let client = rig.client().await;
    let mut request = ask("/nothing", "");
    *request.method_mut() = http::Method::HEAD;
    let response = client.request(request).await.unwrap();
    assert_eq!(response.headers()["content-length"], "13");
    assert!(response.body().is_empty());
}

#[tokio::test]
async fn a_request_that_contradicts_itself_is_refused() {
    let rig = Rig::new();
    let _control = by_hand(&rig.quic).await;
    for more in [
        &[("transfer-encoding", "chunked")][..],
        &[("connection", "close")],
        &[("content-length", "1"), ("content-length", "2")],
        &[("content-length", "x")],
        &[("host", "elsewhere.example")],
        &[("Upper", "case")],
        &[(":unknown", "x")],
    ] {
        let mut stream = rig.quic.open_bi().await.unwrap();
        stream.write_all(&request_head("GET", "/x", more)).await.unwrap();
        let error = soon(stream.read_u8()).await.unwrap_err();
        let code = alknet_core::StreamReset::code_of(&error);
        assert_eq!(code, Some(Code::new(0x10e)), "{more:?}");
    }
}

#[tokio::test]
async fn a_connect_for_anything_else_is_an_ordinary_request() {
    let rig = Rig::new();
    let _control = by_hand(&rig.quic).await;
    for more in [&[][..], &[(":protocol", "connect-udp")]] {
        let mut stream = rig.quic.open_bi().await.unwrap();
        stream.write_all(&request_head("CONNECT", "/alknet/test", more)).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        soon(stream.read_to_end(&mut answer)).await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.ends_with("CONNECT /alknet/test"), "{answer}");
    }
}

#[tokio::test]
async fn a_panic_ends_its_request_alone() {
    let mut rig = Rig::new();
    let client = rig.client().await;
    let (near, far) = rig.open(&client).await;
    assert!(matches!(client.request(ask("/panic", "")).await, Err(ConnectError::Failed(_))));
    let _held = near.open_bi().await.unwrap();
    soon(far.accept_bi()).await.unwrap();
    assert_eq!(client.request(ask("/x", "")).await.unwrap().status(), 404);
}

#[tokio::test]
async fn a_node_that_shuts_down_finishes_what_runs_and_takes_nothing_new() {
    let mut rig = Rig::new();
    let client = rig.client().await;
    let (near, far) = rig.open(&client).await;
    rig.shutdown.cancel();
    soon(async {
        // The notice is under way; once it is there, the client does not even ask.
        while client.request(ask("/x", "")).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut refused = rig.quic.open_bi().await.unwrap();
    refused.write_all(&request_head("GET", "/x", &[])).await.unwrap();
    let error = soon(refused.read_u8()).await.unwrap_err();
    assert_eq!(alknet_core::StreamReset::code_of(&error).unwrap().value(), 0x10b);
    let mut stream = near.open_bi().await.unwrap();
    stream.write_all(b"still").await.unwrap();
    soon(far.accept_bi()).await.unwrap();
    near.close(Code::NORMAL, "");
    drop(client);
    assert!(soon(rig.served()).await.is_ok());
}

/// Reads a SETTINGS frame as pairs.
fn settings(mut frame: &[u8]) -> Vec<(u64, u64)> {
    let mut next = || {
        let len = 1usize << (frame[0] >> 6);
        let (number, rest) = frame.split_at(len);
        frame = rest;
        let first = u64::from(number[0] & 0x3f);
        number[1..].iter().fold(first, |value, byte| value << 8 | u64::from(*byte))
    };
    assert_eq!((next(), next()), (0, 4), "a control stream and its settings");
    let _len = next();
    (0..8).map(|_| (next(), next())).collect()
}

#[tokio::test]
async fn a_node_tells_its_settings_and_its_end_on_the_control_stream() {
    let mut rig = Rig::new();
    let _control = by_hand(&rig.quic).await;
    let mut stream = connect_by_hand(&rig.quic).await;
    let _session = rig.session().await;
    let mut control = rig.quic.accept_uni().await.unwrap();
    let opening = soon(control.chunk(1000)).await.unwrap().unwrap();
    let settings = settings(&opening);
    for id in [0x2b60_3742, 0xc671_706a, 0x14e9_cd29, 0x08, 0x33, 0xff_d277] {
        assert!(settings.iter().any(|(of, value)| *of == id && *value > 0), "{id:#x}");
    }
    rig.shutdown.cancel();
    // Of the requests, only that of stream 0 is taken.
    let goaway = soon(control.chunk(1000)).await.unwrap().unwrap();
    assert_eq!(goaway, frame(7, &varint(4)));
    stream.shutdown().await.unwrap();
    assert!(soon(rig.served()).await.is_ok());
}

#[tokio::test]
async fn an_answer_is_not_cut_off_by_the_end_of_the_connection() {
    let mut rig = Rig::new();
    let _control = by_hand(&rig.quic).await;
    let mut stream = rig.quic.open_bi().await.unwrap();
    stream.write_all(&request_head("GET", "/deaf", &[])).await.unwrap();
    stream.shutdown().await.unwrap();
    let first = stream.read_u8().await.unwrap();
    rig.shutdown.cancel();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let mut answer = vec![first];
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.ends_with(b"did not listen"));
    assert!(soon(rig.served()).await.is_ok());
}
