//! JSON by POST over HTTP/2: axum, and hyper as the client. Subscriptions are server-sent
//! events.

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
};

use anyhow::{Context as _, Result, ensure};
use axum::{
    Json, Router,
    response::{IntoResponse, Sse, sse::Event},
    routing::post,
};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::Serialize;
use tokio::{net::TcpStream, task::JoinSet};
use tokio_rustls::server::TlsStream;

use super::{BoxFuture, Caller};
use crate::{
    note::{Note, Wanted},
    tls::{self, HOST, Listener, SelfSigned},
};

const CALL: &str = "/notes/answer";
const ITEMS: &str = "/notes/watch";
const ALPN: &str = "h2";

impl axum::serve::Listener for Listener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            if let Ok(stream) = self.next().await {
                return (stream, (Ipv4Addr::LOCALHOST, 0).into());
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.addr().map_err(io::Error::other)
    }
}

async fn answer(Json(note): Json<Note>) -> Json<Note> {
    Json(note.answer())
}

async fn watch(Json(wanted): Json<Wanted>) -> impl IntoResponse {
    let event = |note| Ok::<_, Infallible>(Event::default().json_data(note).unwrap_or_default());
    Sse::new(stream::iter(wanted.notes().map(event)))
}

pub(super) async fn serve(
    identity: &SelfSigned,
    tasks: &mut JoinSet<Result<()>>,
) -> Result<SocketAddr> {
    let listener = Listener::bind(identity, ALPN).await?;
    let addr = listener.addr()?;
    let routes = Router::new().route(CALL, post(answer)).route(ITEMS, post(watch));
    tasks.spawn(async move { Ok(axum::serve(listener, routes).await?) });
    Ok(addr)
}

pub(super) struct Client {
    requests: http2::SendRequest<Full<Bytes>>,
    _connection: JoinSet<()>,
}

impl Client {
    pub(super) async fn connect(addr: SocketAddr, certificate: &str) -> Result<Self> {
        let stream = TokioIo::new(tls::connect(addr, certificate, ALPN).await?);
        let (requests, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { drop(connection.await) });
        Ok(Self { requests, _connection: tasks })
    }

    async fn post(&self, path: &str, json: &impl Serialize) -> Result<Response<Incoming>> {
        let request = Request::post(format!("https://{HOST}{path}"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(serde_json::to_vec(json)?))?;
        let mut requests = self.requests.clone();
        requests.ready().await?;
        let response = requests.send_request(request).await?;
        ensure!(response.status().is_success(), "status {}", response.status());
        Ok(response)
    }
}

impl Caller for Client {
    fn call(&self, note: Note) -> BoxFuture<'_, Result<Note>> {
        Box::pin(async move {
            let body = self.post(CALL, &note).await?.into_body().collect().await?.to_bytes();
            Ok(serde_json::from_slice(&body)?)
        })
    }

    fn items(&self, wanted: Wanted) -> BoxFuture<'_, Result<u64>> {
        Box::pin(async move {
            let mut body = self.post(ITEMS, &wanted).await?.into_body();
            let (mut buffer, mut count) = (BytesMut::new(), 0);
            while let Some(frame) = body.frame().await {
                let Ok(data) = frame?.into_data() else { continue };
                buffer.extend_from_slice(&data);
                while let Some(end) = end_of_event(&buffer) {
                    let event = buffer.split_to(end + 2);
                    let json = event.strip_prefix(b"data: ").context("an event of other shape")?;
                    serde_json::from_slice::<Note>(json)?;
                    count += 1;
                }
            }
            Ok(count)
        })
    }
}

/// Where the first event ends. Its JSON holds no line break.
fn end_of_event(buffer: &[u8]) -> Option<usize> {
    buffer.iter().position(|&byte| byte == b'\n')
}
