//! RFC 6455, section 5, by hand: every bit that the tests send is theirs to choose, and no
//! library stands between them and what comes back.

use std::time::Duration;

use alknet_core::{Alpn, Dial, Endpoint, EndpointConfig, Pin, SelfSigned, Stream, WebCertificates};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::{body::Incoming, ext::Protocol};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    task::JoinSet,
    time::timeout,
};

use crate::harness::{HOST, Node, TOKEN, UPGRADE};

pub(super) const FIN: u8 = 0x80;
pub(super) const CONTINUE: u8 = 0;
pub(super) const TEXT: u8 = 1;
pub(super) const BINARY: u8 = 2;
pub(super) const CLOSE: u8 = 8;
pub(super) const PING: u8 = 9;
pub(super) const PONG: u8 = 10;

const MASKED: u8 = 0x80;
const MASK: [u8; 4] = [0x5a, 0, 0xff, 0x13];
/// How long any answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client's frame: `first` is its first byte.
pub(super) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    [head(first, payload.len() as u64), masked(MASK, payload)].concat()
}

/// A server's frame, which a client must not send.
pub(super) fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    frame.extend(length(payload.len() as u64, 0));
    [frame, payload.to_vec()].concat()
}

/// The head of a client's frame, without the payload that it announces.
pub(super) fn head(first: u8, announced: u64) -> Vec<u8> {
    [vec![first], length(announced, MASKED), MASK.to_vec()].concat()
}

/// As [`frame`], under this mask.
pub(super) fn frame_under(mask: [u8; 4], first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    frame.extend(length(payload.len() as u64, MASKED));
    frame.extend(mask);
    [frame, masked(mask, payload)].concat()
}

/// As [`frame`], with the length in 16 or in 64 bits, however short it is.
pub(super) fn frame_padded(bits: u8, first: u8, payload: &[u8]) -> Vec<u8> {
    let len = payload.len() as u64;
    let mut frame = vec![first];
    if bits == 16 {
        frame.push(MASKED | 126);
        frame.extend(u16::try_from(len).unwrap().to_be_bytes());
    } else {
        frame.push(MASKED | 127);
        frame.extend(len.to_be_bytes());
    }
    frame.extend(MASK);
    [frame, masked(MASK, payload)].concat()
}

/// A close frame with this code and reason.
pub(super) fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(FIN | CLOSE, &[&code.to_be_bytes()[..], reason].concat())
}

fn length(len: u64, flag: u8) -> Vec<u8> {
    match len {
        0..126 => vec![flag | u8::try_from(len).unwrap()],
        126..65536 => [&[flag | 126][..], &u16::try_from(len).unwrap().to_be_bytes()].concat(),
        _ => [&[flag | 127][..], &len.to_be_bytes()].concat(),
    }
}

fn masked(mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
    payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect()
}

/// What a WebSocket travels in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Carrier {
    /// An upgrade of HTTP/1.1, in memory.
    Memory,
    /// An upgrade of HTTP/1.1, on TLS over TCP.
    Tls,
    /// An extended CONNECT of HTTP/2, in memory.
    Http2,
}

pub(super) const CARRIERS: [Carrier; 3] = [Carrier::Memory, Carrier::Tls, Carrier::Http2];

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A client that knows only bytes.
pub(super) struct Peer {
    stream: Box<dyn Io>,
    /// What is under the stream, until the peer is dropped.
    _carrier: (JoinSet<hyper::Result<()>>, Option<Endpoint>),
}

impl Peer {
    /// Opens a WebSocket to the service at `path`.
    pub(super) async fn open(node: &Node, carrier: Carrier, path: &str) -> Self {
        let (stream, carrier): (Box<dyn Io>, _) = match carrier {
            Carrier::Memory => {
                let stream = node.connect("http/1.1").open_bi().await.unwrap();
                (Box::new(upgraded(stream, path).await), Default::default())
            }
            Carrier::Tls => {
                let (endpoint, stream) = tls(node).await;
                (Box::new(upgraded(stream, path).await), (JoinSet::new(), Some(endpoint)))
            }
            Carrier::Http2 => {
                let (stream, tasks) = connected(node, path).await;
                (Box::new(stream), (tasks, None))
            }
        };
        Self { stream, _carrier: carrier }
    }

    /// Sends these bytes. The server may have hung up on what came before.
    pub(super) async fn send(&mut self, bytes: &[u8]) {
        let sent = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        let _ = timeout(PATIENCE, sent).await.unwrap();
    }

    /// Ends the transport in this direction, with no close frame.
    pub(super) async fn hang_up(&mut self) {
        timeout(PATIENCE, self.stream.shutdown()).await.unwrap().unwrap();
    }

    /// The first byte and the payload of the server's next frame; `None` when the transport
    /// has ended.
    pub(super) async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        timeout(PATIENCE, read_frame(&mut self.stream)).await.expect("the server says nothing")
    }

    /// The bytes of the next binary messages, `len` in all, and the pongs among them.
    pub(super) async fn receive(&mut self, len: usize) -> (Vec<u8>, Vec<Vec<u8>>) {
        let (mut bytes, mut pongs) = (Vec::new(), Vec::new());
        while bytes.len() < len {
            match self.next().await.expect("the server is gone") {
                (first, payload) if first == FIN | BINARY => bytes.extend(payload),
                (first, payload) if first == FIN | PONG => pongs.push(payload),
                other => panic!("{other:x?}"),
            }
        }
        (bytes, pongs)
    }

    /// The payload of the server's one close frame, behind which nothing may come.
    pub(super) async fn closed(&mut self) -> Vec<u8> {
        let payload = self.close_frame().await;
        assert_eq!(self.next().await, None, "nothing follows a close frame");
        payload
    }

    /// The payload of the server's close frame, whatever data and pongs come before it.
    async fn close_frame(&mut self) -> Vec<u8> {
        loop {
            match self.next().await.expect("the server is gone without a close frame") {
                (first, payload) if first == FIN | CLOSE => return payload,
                (first, _) if first == FIN | BINARY || first == FIN | PONG => {}
                other => panic!("{other:x?}"),
            }
        }
    }

    /// The code in the server's close frame, likewise.
    pub(super) async fn close_code(&mut self) -> u16 {
        code(&self.closed().await)
    }

    /// The code with which the server closes, and what a client has to answer.
    pub(super) async fn refused(&mut self) -> u16 {
        let payload = self.close_frame().await;
        self.send(&frame(FIN | CLOSE, &payload)).await;
        assert_eq!(self.next().await, None, "nothing follows a close frame");
        code(&payload)
    }
}

fn code(payload: &[u8]) -> u16 {
    std::str::from_utf8(&payload[2..]).expect("a reason is text");
    u16::from_be_bytes([payload[0], payload[1]])
}

/// Reads one frame as a client has to: unmasked, with nothing reserved, as short as it can be.
async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> Option<(u8, Vec<u8>)> {
    let mut first = [0];
    // A transport that is cut is as much of an end as one that is closed.
    if stream.read(&mut first).await.unwrap_or(0) == 0 {
        return None;
    }
    let [first] = first;
    assert_eq!(first & 0x70, 0, "reserved bits");
    let len = match stream.read_u8().await.unwrap() {
        126 => u64::from(stream.read_u16().await.unwrap()),
        127 => stream.read_u64().await.unwrap(),
        short => u64::from(short),
    };
    assert!(len < 1 << 21, "a server's frame of {len} bytes, or a masked one");
    let mut payload = vec![0; usize::try_from(len).unwrap()];
    stream.read_exact(&mut payload).await.unwrap();
    Some((first, payload))
}

/// The stream after the opening handshake of HTTP/1.1.
async fn upgraded(mut stream: Stream, path: &str) -> Stream {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {HOST}\r\n{UPGRADE}Authorization: Bearer {TOKEN}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"));
    stream
}

/// A real endpoint for the node, and a stream to it.
async fn tls(node: &Node) -> (Endpoint, Stream) {
    let names = ["localhost".to_owned()];
    let pair = SelfSigned::generate(&names, time::OffsetDateTime::now_utc()).unwrap();
    let config = EndpointConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        identity: node.identity.clone(),
        web: WebCertificates::new(pair.current().unwrap()),
        hide_services: false,
        fallback: None,
        resets: None,
    };
    let endpoint =
        Endpoint::bind(&config, node.dispatcher.clone(), node.identities.clone()).unwrap();
    let dial = Dial {
        server_name: "localhost".into(),
        alpn: Alpn::new("http/1.1").unwrap(),
        pin: Pin::Learn,
        key: None,
        timeout: PATIENCE,
    };
    let dialled = dial.tls(endpoint.local_addr()).await.unwrap();
    (endpoint, dialled.connection.open_bi().await.unwrap())
}

/// The stream of an extended CONNECT.
async fn connected(
    node: &Node,
    path: &str,
) -> (TokioIo<hyper::upgrade::Upgraded>, JoinSet<hyper::Result<()>>) {
    let (mut answer, tasks) = connect(node, path, "13", TOKEN).await;
    assert_eq!(answer.status(), StatusCode::OK);
    (TokioIo::new(hyper::upgrade::on(&mut answer).await.unwrap()), tasks)
}

/// The answer to an extended CONNECT for this version, and what keeps its connection.
pub(super) async fn connect(
    node: &Node,
    path: &str,
    version: &str,
    token: &str,
) -> (Response<Incoming>, JoinSet<hyper::Result<()>>) {
    let io = TokioIo::new(node.connect("h2").open_bi().await.unwrap());
    let (mut sender, driver) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(driver);
    // The server's settings, which allow it, are there with the first answer.
    let warm_up = Request::get(format!("https://{HOST}/public")).body(Empty::<Bytes>::new());
    sender.send_request(warm_up.unwrap()).await.unwrap();
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri(format!("https://{HOST}{path}"))
        .header("sec-websocket-version", version)
        .header("authorization", format!("Bearer {token}"))
        .extension(Protocol::from_static("websocket"));
    (sender.send_request(request.body(Empty::new()).unwrap()).await.unwrap(), tasks)
}
