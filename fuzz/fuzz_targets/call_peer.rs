//! Whatever comes on its streams, a peer answers in frames, and ends with its connection.
#![no_main]

use std::sync::Arc;

use alknet_call::{
    CallLimits, Peer,
    wire::{EventEnvelope, FrameType, encode, split},
};
use alknet_core::{Alpn, AuthContext, Code, Stream, TransportKind};
use alknet_fuzz::{alice, ends, operations, run};
use alknet_testing::memory;
use bytes::BytesMut;
use libfuzzer_sys::{
    arbitrary::{self, Arbitrary},
    fuzz_target,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinSet,
};

#[derive(Debug, Arbitrary)]
enum Piece<'a> {
    /// Bytes as they are.
    Raw(&'a [u8]),
    /// A frame around any bytes.
    Frame(&'a [u8]),
    /// A frame with an envelope in it.
    Envelope(u8, u8, Payload<'a>),
}

#[derive(Debug, Arbitrary)]
enum Payload<'a> {
    Text(&'a str),
    Request { operation: u8, input: Input<'a>, window: Option<u32>, timeout: Option<u32> },
    Resume(&'a str),
    Output(&'a str),
    Window(u32),
}

#[derive(Debug, Arbitrary)]
enum Input<'a> {
    Pair(i64, i64),
    Count(u8, &'a str),
    Relay(u8),
    Register(Vec<&'a str>),
    Text(&'a str),
}

const OPERATIONS: [&str; 9] = [
    "test/add",
    "test/set",
    "test/count",
    "test/wait",
    "test/relay",
    "services/list",
    "services/schema",
    "services/register",
    "back/there",
];
const KINDS: [FrameType; 7] = [
    FrameType::Requested,
    FrameType::Responded,
    FrameType::Completed,
    FrameType::Error,
    FrameType::Aborted,
    FrameType::Window,
    FrameType::Unknown,
];
const IDS: [&str; 5] = ["1", "2", "~1", "~2", ""];

fn of<T: Copy, const N: usize>(all: [T; N], which: u8) -> T {
    all[usize::from(which) % N]
}

fn input(input: &Input) -> Value {
    match input {
        Input::Pair(a, b) => json!({ "a": a, "b": b }),
        Input::Count(to, text) => json!({ "to": to, "text": text }),
        Input::Relay(which) => {
            json!({ "operation": of(OPERATIONS, *which), "input": { "a": 1, "b": 2 } })
        }
        Input::Register(names) => {
            let one = |name| json!({ "name": name, "type": "query", "description": "" });
            json!({ "operations": names.iter().map(one).collect::<Vec<_>>() })
        }
        Input::Text(text) => serde_json::from_str(text).unwrap_or_else(|_| json!(text)),
    }
}

fn payload(payload: &Payload) -> Value {
    match payload {
        Payload::Text(text) => serde_json::from_str(text).unwrap_or_else(|_| json!(text)),
        Payload::Request { operation, input: with, window, timeout } => json!({
            "operationId": of(OPERATIONS, *operation),
            "input": input(with),
            "window": window,
            "timeout_ms": timeout,
        }),
        Payload::Resume(after) => json!({
            "operationId": "test/count", "input": { "to": 9 }, "after": after,
        }),
        Payload::Output(event) => json!({ "output": event, "event": event }),
        Payload::Window(items) => json!({ "items": items }),
    }
}

fn bytes(pieces: &[Piece]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Raw(raw) => bytes.extend(*raw),
            Piece::Frame(frame) => {
                bytes.extend(u32::try_from(frame.len()).unwrap().to_be_bytes());
                bytes.extend(*frame);
            }
            Piece::Envelope(kind, id, with) => {
                bytes.extend(encode(of(KINDS, *kind), of(IDS, *id), &payload(with)).unwrap());
            }
        }
    }
    bytes
}

/// Sends `bytes`, ends that direction, and reads the other one to its end.
async fn converse(stream: Stream, bytes: &[u8], chunk: usize) {
    let (mut send, mut recv) = stream.split();
    let writing = async {
        for chunk in bytes.chunks(chunk) {
            send.write_all(chunk).await?;
        }
        send.shutdown().await
    };
    let mut answers = Vec::new();
    // The peer may give the stream up before it has everything.
    let _ = tokio::join!(writing, recv.read_to_end(&mut answers));
    let mut answers = BytesMut::from(&answers[..]);
    while let Some(frame) = split(&mut answers).unwrap() {
        let answer = EventEnvelope::parse(&frame).unwrap();
        assert_ne!(answer.kind, FrameType::Unknown);
    }
}

fuzz_target!(|input: (u8, Vec<Piece>, Vec<Piece>)| {
    let (chunk, one, two) = (usize::from(input.0) + 1, bytes(&input.1), bytes(&input.2));
    run(async {
        let (near, far) = memory::pair();
        let auth = AuthContext {
            identity: Some(Arc::new(alice())),
            ..AuthContext::anonymous(Alpn::service("call").unwrap(), TransportKind::Memory, None)
        };
        let (_peer, driver) =
            Peer::new(far, operations(), auth, CallLimits::default(), Default::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(driver.run());
        let (first, second) = (near.open_bi().await.unwrap(), near.open_bi().await.unwrap());
        let both = async {
            tokio::join!(converse(first, &one, chunk), converse(second, &two, chunk));
        };
        ends("a stream", both).await;
        near.close(Code::NORMAL, "");
        ends("the peer", tasks.join_next()).await.unwrap().unwrap();
    });
});
