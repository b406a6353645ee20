//! A node over an in-memory connection, a client of it, and bytes by hand.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use alknet_core::{Connection, SendStream, Stream};
use alknet_http::h3::{App, Client, Connect, ServeError, serve};
use alknet_testing::memory;
use axum::body::Body;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::{
    io::AsyncWriteExt as _,
    sync::{Notify, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

pub(super) const NO_ERROR: u64 = 0x100;
pub(super) const SESSION_GONE: u64 = 0x170d_7b68;
pub(super) const BUFFERED_STREAM_REJECTED: u64 = 0x3994_bd84;

/// One node that serves one connection.
pub(super) struct Rig {
    /// The client's end.
    pub(super) quic: Connection,
    /// Sessions as the node's handlers get them.
    pub(super) sessions: mpsc::UnboundedReceiver<Connection>,
    /// Answers that were given up.
    pub(super) bodies_over: Arc<AtomicUsize>,
    /// Lets `/slow` go on, and `/sip` read one piece of its body.
    pub(super) slow: Arc<Notify>,
    pub(super) shutdown: CancellationToken,
    server: JoinSet<Result<(), ServeError>>,
}

impl Rig {
    pub(super) fn new() -> Self {
        let (quic, far) = memory::pair();
        let (app, sessions) = TestApp::new();
        let (bodies_over, slow) = (app.bodies_over.clone(), app.slow.clone());
        let shutdown = CancellationToken::new();
        let mut server = JoinSet::new();
        server.spawn(serve(far, Arc::new(app), shutdown.clone()));
        Self { quic, sessions, bodies_over, slow, shutdown, server }
    }

    pub(super) async fn client(&self) -> Client {
        Client::new(self.quic.clone()).await.unwrap()
    }

    pub(super) async fn session(&mut self) -> Connection {
        self.sessions.recv().await.unwrap()
    }

    /// Both ends of a new session.
    pub(super) async fn open(&mut self, client: &Client) -> (Connection, Connection) {
        let (response, near) = client.connect(to("/alknet/test")).await.unwrap();
        assert_eq!(response.status(), 200);
        (near, self.session().await)
    }

    /// How `serve` ended.
    pub(super) async fn served(&mut self) -> Result<(), ServeError> {
        self.server.join_next().await.unwrap().unwrap()
    }
}

pub(super) struct TestApp {
    sessions: mpsc::UnboundedSender<Connection>,
    bodies_over: Arc<AtomicUsize>,
    slow: Arc<Notify>,
}

impl TestApp {
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Connection>) {
        let (send, sessions) = mpsc::unbounded_channel();
        (Self { sessions: send, bodies_over: Arc::default(), slow: Arc::default() }, sessions)
    }
}

impl App for TestApp {
    async fn request(&self, request: Request<Body>) -> Response<Body> {
        match request.uri().path() {
            "/echo" => echo(request.into_body()),
            "/length" => match request.into_body().collect().await {
                Ok(body) => Response::new(body.to_bytes().len().to_string().into()),
                Err(error) => Response::new(format!("error: {error}").into()),
            },
            "/about" => {
                let cookies = request.headers().get_all("cookie").iter();
                let cookies: Vec<_> = cookies.map(HeaderValue::to_str).collect();
                let ended = http_body::Body::is_end_stream(request.body());
                Response::new(format!("cookies {cookies:?}, ended {ended}").into())
            }
            "/deaf" => Response::new("did not listen".into()),
            "/endless" => Response::new(endless(Count(self.bodies_over.clone()))),
            "/never" => {
                let _count = Count(self.bodies_over.clone());
                std::future::pending().await
            }
            "/silent" => {
                let count = Count(self.bodies_over.clone());
                let silence = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
                let held = silence.inspect(move |_| {
                    let _ = &count;
                });
                Response::new(Body::from_stream(held))
            }
            "/sip" => {
                let mut body = request.into_body();
                loop {
                    self.slow.notified().await;
                    body.frame().await;
                }
            }
            "/panic" => panic!("as asked"),
            path => {
                let method = request.method();
                let mut response = Response::new(format!("{method} {path}").into());
                *response.status_mut() = http::StatusCode::NOT_FOUND;
                response
            }
        }
    }

    async fn connect(&self, request: Request<()>) -> Connect {
        if request.uri().path() == "/refused" {
            let mut response = Response::new("no such thing".into());
            *response.status_mut() = http::StatusCode::NOT_FOUND;
            return Connect::Refuse(response);
        }
        if request.uri().path() == "/slow" {
            self.slow.notified().await;
        }
        let mut headers = HeaderMap::new();
        headers.insert("wt-protocol", HeaderValue::from_static("\"alknet/test\""));
        let sessions = self.sessions.clone();
        Connect::Accept { headers, start: Box::new(move |session| drop(sessions.send(session))) }
    }
}

fn echo(body: Body) -> Response<Body> {
    let trailers = futures_util::stream::once(async {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-end", HeaderValue::from_static("reached"));
        Ok(Frame::trailers(trailers))
    });
    Response::new(Body::new(StreamBody::new(body.into_data_stream().map(data).chain(trailers))))
}

fn data(data: Result<Bytes, axum::Error>) -> Result<Frame<Bytes>, axum::Error> {
    data.map(Frame::data)
}

/// Counts when it is dropped.
struct Count(Arc<AtomicUsize>);

impl Drop for Count {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn endless(count: Count) -> Body {
    let stream = futures_util::stream::repeat_with(move || {
        let _ = &count;
        Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 4096]))
    });
    Body::from_stream(stream)
}

/// A request for a session.
pub(super) fn to(path: &str) -> Request<()> {
    Request::builder().uri(format!("https://node.example{path}")).body(()).unwrap()
}

/// A GET, or a POST if there is a body.
pub(super) fn ask(path: &str, body: impl Into<Bytes>) -> Request<Bytes> {
    let body = body.into();
    let method = if body.is_empty() { "GET" } else { "POST" };
    let uri = format!("https://node.example{path}");
    Request::builder().method(method).uri(uri).body(body).unwrap()
}

pub(super) fn varint(value: u64) -> Vec<u8> {
    let (mark, len) = match value {
        0..=0x3f => (0, 1),
        0x40..=0x3fff => (1 << 14, 2),
        0x4000..=0x3fff_ffff => (2 << 30, 4),
        _ => (3 << 62, 8),
    };
    (value | mark).to_be_bytes()[8 - len..].to_vec()
}

pub(super) fn frame(kind: u64, body: &[u8]) -> Vec<u8> {
    [varint(kind), varint(body.len() as u64), body.to_vec()].concat()
}

/// A HEADERS frame of literal fields (RFC 9204, section 4.5.6).
pub(super) fn headers(fields: &[(&str, &str)]) -> Vec<u8> {
    fn integer(out: &mut BytesMut, flags: u8, mask: u8, len: usize) {
        let len = u8::try_from(len).unwrap();
        match len.checked_sub(mask) {
            None => out.put_u8(flags | len),
            Some(rest) => {
                assert!(rest < 128);
                out.put_slice(&[flags | mask, rest]);
            }
        }
    }
    let mut block = BytesMut::from(&[0, 0][..]);
    for (name, value) in fields {
        integer(&mut block, 0x20, 0x07, name.len());
        block.put_slice(name.as_bytes());
        integer(&mut block, 0x00, 0x7f, value.len());
        block.put_slice(value.as_bytes());
    }
    frame(1, &block)
}

/// The head of a request made by hand.
pub(super) fn request_head(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut fields = vec![
        (":method", method),
        (":scheme", "https"),
        (":authority", "node.example"),
        (":path", path),
    ];
    fields.extend_from_slice(more);
    headers(&fields)
}

/// A peer that writes its own bytes: opens the control stream.
pub(super) async fn by_hand(quic: &Connection) -> SendStream {
    let mut control = quic.open_uni().await.unwrap();
    let settings = [varint(0x33), varint(1), varint(0x2b60_3742), varint(1)].concat();
    control.write_all(&[varint(0), frame(4, &settings)].concat()).await.unwrap();
    control
}

/// Asks for a session by hand; the stream's number is the session's.
pub(super) async fn connect_by_hand(quic: &Connection) -> Stream {
    let mut stream = quic.open_bi().await.unwrap();
    let head = request_head("CONNECT", "/alknet/test", &[(":protocol", "webtransport")]);
    stream.write_all(&head).await.unwrap();
    stream
}

/// A stream of a session, by hand.
pub(super) async fn stream_by_hand(quic: &Connection, session: u64) -> Stream {
    let mut stream = quic.open_bi().await.unwrap();
    stream.write_all(&[varint(0x41), varint(session)].concat()).await.unwrap();
    stream
}

/// Lets a test that waits for too long fail, also if what it waited for was not woken and
/// would go on now.
pub(super) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::select! {
        biased;
        () = tokio::time::sleep(Duration::from_secs(20)) => panic!("took too long"),
        output = future => output,
    }
}
