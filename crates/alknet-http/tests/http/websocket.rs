//! WebSockets against an independent implementation of RFC 6455, and, in the modules below,
//! against bytes alone.

mod close;
mod frames;
mod handshake;
mod wire;

use alknet_core::Stream;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{Method, Request, StatusCode};
use http_body_util::Empty;
use hyper::ext::Protocol;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    task::JoinSet,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        self, Message,
        protocol::{
            CloseFrame, Role,
            frame::{
                Frame,
                coding::{CloseCode, Data, OpCode},
            },
        },
    },
};

use crate::harness::{HOST, Node, TOKEN, UPGRADE};

async fn open(node: &Node, path: &str) -> WebSocketStream<Stream> {
    let stream = node.connect("http/1.1").open_bi().await.unwrap();
    let request = Request::get(format!("wss://{HOST}{path}"))
        .header("host", HOST)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", tungstenite::handshake::client::generate_key())
        .header("authorization", format!("Bearer {TOKEN}"));
    client_async(request.body(()).unwrap(), stream).await.unwrap().0
}

/// The bytes of the next binary messages, `len` in all.
async fn receive<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
    len: usize,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < len {
        match socket.next().await.unwrap().unwrap() {
            Message::Binary(data) => bytes.extend(data),
            Message::Pong(_) | Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
    bytes
}

async fn close_code<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<S>) -> u16 {
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Close(frame) => return frame.unwrap().code.into(),
            Message::Binary(_) | Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from(i * 31 % 251).unwrap()).collect()
}

#[tokio::test]
async fn bytes_go_both_ways_and_end_in_order() {
    let node = Node::new();
    let mut socket = open(&node, "/alknet/echo").await;
    let data = pattern(3_000_000);
    let (mut sink, stream) = socket.split();
    let mut tasks = JoinSet::new();
    let sent = data.clone();
    tasks.spawn(async move {
        for chunk in sent.chunks(70_001) {
            sink.send(Message::binary(chunk.to_vec())).await.unwrap();
        }
        sink.send(Message::binary(Vec::new())).await.unwrap();
        sink
    });
    let mut received = Vec::new();
    let mut stream = stream;
    loop {
        match stream.next().await.unwrap().unwrap() {
            Message::Binary(end) if end.is_empty() => break,
            Message::Binary(more) => received.extend(more),
            other => panic!("{other:?}"),
        }
    }
    assert!(received == data);
    socket = tasks.join_next().await.unwrap().unwrap().reunite(stream).unwrap();
    assert_eq!(close_code(&mut socket).await, 1000);
}

#[tokio::test]
async fn a_message_of_the_largest_size_passes() {
    let node = Node::new();
    let socket = open(&node, "/alknet/echo").await;
    let data = pattern(1 << 20);
    let (mut sink, mut stream) = socket.split();
    let mut tasks = JoinSet::new();
    let sent = Bytes::from(data.clone());
    tasks.spawn(async move {
        sink.send(Message::Binary(sent)).await.unwrap();
        sink
    });
    let mut received = Vec::new();
    while received.len() < data.len() {
        received.extend(stream.next().await.unwrap().unwrap().into_data());
    }
    assert!(received == data);
    tasks.join_all().await;
}

/// Whether its length says so at once or its fragments add up to it; either way the close
/// frame arrives although the peer is still sending.
#[tokio::test]
async fn a_message_beyond_the_largest_size_is_refused() {
    let fragment = |opcode, len| {
        let data = vec![7; len];
        Message::Frame(Frame::message(data, OpCode::Data(opcode), false))
    };
    let long = vec![Message::binary(pattern(8 << 20))];
    let mut fragments = vec![fragment(Data::Binary, 1 << 20)];
    fragments.extend((0..64).map(|_| fragment(Data::Continue, 100_000)));
    for messages in [long, fragments] {
        let node = Node::new();
        let (mut sink, mut stream) = open(&node, "/alknet/echo").await.split();
        let sending = async move {
            for message in messages {
                if sink.send(message).await.is_err() {
                    break;
                }
            }
            std::future::pending::<()>().await;
        };
        let closing = async {
            loop {
                if let Message::Close(frame) = stream.next().await.unwrap().unwrap() {
                    break frame.unwrap().code;
                }
            }
        };
        let code = tokio::select! {
            code = closing => code,
            () = sending => unreachable!(),
        };
        assert_eq!(code, CloseCode::Size);
    }
}

#[tokio::test]
async fn a_message_in_fragments_with_a_ping_between_is_whole() {
    let node = Node::new();
    let mut socket = open(&node, "/alknet/echo").await;
    let frame = |data: &'static [u8], opcode, last| {
        Message::Frame(Frame::message(data, OpCode::Data(opcode), last))
    };
    socket.send(frame(b"", Data::Binary, false)).await.unwrap();
    socket.send(frame(b"one ", Data::Continue, false)).await.unwrap();
    socket.send(Message::Ping(Bytes::from_static(b"there?"))).await.unwrap();
    socket.send(frame(b"two", Data::Continue, false)).await.unwrap();
    socket.send(frame(b"", Data::Continue, true)).await.unwrap();
    let (mut pong, mut bytes) = (None, Vec::new());
    while pong.is_none() || bytes.len() < 7 {
        match socket.next().await.unwrap().unwrap() {
            Message::Pong(payload) => pong = Some(payload),
            Message::Binary(data) => bytes.extend(data),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((pong.unwrap(), bytes.as_slice()), (Bytes::from_static(b"there?"), &b"one two"[..]));
}

#[tokio::test]
async fn text_is_refused() {
    let node = Node::new();
    let mut socket = open(&node, "/alknet/echo").await;
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(close_code(&mut socket).await, 1003);
}

#[tokio::test]
async fn data_after_the_end_is_a_protocol_error() {
    let node = Node::new();
    let mut socket = open(&node, "/alknet/abrupt").await;
    socket.send(Message::binary(Vec::new())).await.unwrap();
    socket.send(Message::binary(vec![1])).await.unwrap();
    let code = close_code(&mut socket).await;
    // The handler fails at the end of the stream, at the same time.
    assert!(code == 1002 || code == 4009, "{code}");
}

#[tokio::test]
async fn a_reset_carries_its_code() {
    let node = Node::new();
    let mut socket = open(&node, "/alknet/abrupt").await;
    socket.send(Message::binary(vec![1])).await.unwrap();
    assert_eq!(close_code(&mut socket).await, 4077);
}

#[tokio::test]
async fn the_peers_close_is_answered_alike() {
    let node = Node::new();
    let mut socket = open(&node, "/alknet/echo").await;
    socket.send(Message::binary(vec![1])).await.unwrap();
    assert_eq!(receive(&mut socket, 1).await, [1]);
    let frame = CloseFrame { code: CloseCode::from(4005), reason: "enough".into() };
    socket.close(Some(frame)).await.unwrap();
    assert_eq!(close_code(&mut socket).await, 4005);
    assert!(socket.next().await.is_none());
}

/// A stream after the opening handshake.
async fn raw(node: &Node) -> Stream {
    let mut stream = node.connect("http/1.1").open_bi().await.unwrap();
    let request = format!(
        "GET /alknet/echo HTTP/1.1\r\nHost: {HOST}\r\n{UPGRADE}Authorization: Bearer {TOKEN}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"));
    stream
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_pinged_and_then_gone() {
    let node = Node::new();
    let mut stream = raw(&node).await;
    let begun = tokio::time::Instant::now();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, [0x89, 0x00], "one ping, then nothing");
    assert_eq!(begun.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_pings_stays() {
    let node = Node::new();
    let mut stream = raw(&node).await;
    for _ in 0..5 {
        let mut ping = [0; 2];
        stream.read_exact(&mut ping).await.unwrap();
        assert_eq!(ping, [0x89, 0x00]);
        stream.write_all(&[0x8a, 0x80, 0, 0, 0, 0]).await.unwrap();
    }
}

/// A pong cannot come in the middle of a frame (RFC 6455, section 5.4), and a long frame may
/// take a slow peer minutes: its bytes are a sign of life, too.
#[tokio::test(start_paused = true)]
async fn a_peer_that_is_long_over_a_frame_stays() {
    let node = Node::new();
    let mut stream = raw(&node).await;
    stream.write_all(&[0x82, 0x8a, 0, 0, 0, 0]).await.unwrap();
    for byte in b"helloworld" {
        tokio::time::sleep(std::time::Duration::from_secs(25)).await;
        stream.write_all(&[*byte]).await.unwrap();
    }
    let mut answer = Vec::new();
    while !answer.ends_with(b"\x82\x0ahelloworld") {
        answer.push(stream.read_u8().await.expect("given up"));
    }
    assert_eq!(answer.len(), 12 + 2 * 8, "eight pings in 250 seconds: {answer:x?}");
}

#[tokio::test]
async fn over_http2_by_extended_connect() {
    let node = Node::new();
    let io = TokioIo::new(node.connect("h2").open_bi().await.unwrap());
    let (mut sender, driver) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(driver);
    let warm_up = Request::get(format!("https://{HOST}/public")).body(Empty::<Bytes>::new());
    sender.send_request(warm_up.unwrap()).await.unwrap();
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri(format!("https://{HOST}/alknet/echo"))
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", "alknet.echo")
        .header("authorization", format!("Bearer {TOKEN}"))
        .extension(Protocol::from_static("websocket"));
    let mut response = sender.send_request(request.body(Empty::new()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["sec-websocket-protocol"], "alknet.echo");
    let io = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Client, None).await;
    let data = pattern(200_000);
    socket.send(Message::binary(data.clone())).await.unwrap();
    assert!(receive(&mut socket, data.len()).await == data);
    socket.send(Message::binary(Vec::new())).await.unwrap();
    assert_eq!(close_code(&mut socket).await, 1000);
}
