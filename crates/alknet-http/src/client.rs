//! A native client's way to a service inside HTTPS.
//!
//! On the wire this is a browser's WebTransport session or WebSocket. Both ends prove
//! themselves over keying material of the TLS session: the client by the Concealed scheme
//! (RFC 9729), the node by a field of the accepting answer. No byte of the service's stream
//! is sent before the node's proof has been checked.

use std::time::Duration;

use alknet_core::{
    Alpn, Connection, ConnectionError, NodeId, NodeIdentity, Pin, Stream, TransportKind,
};
use axum::body::Body;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, uri::Authority};
use hyper_util::rt::TokioIo;
use tokio::{task::JoinSet, time::timeout};
use tokio_util::task::TaskTracker;

use crate::{
    concealed, h3,
    origin::target,
    proof::{self, ProofError},
    wire::Wire,
    ws::{self, Role},
};

/// How long the whole opening may take.
const OPENING: Duration = Duration::from_secs(20);

/// A service reached inside HTTPS.
#[derive(Debug)]
pub struct Tunnel {
    /// The service's connection: a WebTransport session or a WebSocket.
    pub connection: Connection,
    /// The node that proved itself.
    pub node: NodeId,
}

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TunnelError {
    /// Not `HOST` or `HOST:PORT`.
    #[error("not a host and port: {0:?}")]
    Authority(String),
    /// HTTPS is spoken over QUIC and TLS alone.
    #[error("there is no HTTPS over {0}")]
    Transport(TransportKind),
    /// The connection failed.
    #[error("the connection failed")]
    Connection(#[from] ConnectionError),
    /// HTTP/1.1 failed.
    #[error("the HTTP connection failed")]
    Http(#[from] hyper::Error),
    /// HTTP/3 failed.
    #[error("the HTTP/3 connection failed")]
    Http3(#[from] h3::ConnectError),
    /// The server does not let this key in, or has no such service, and does not say which.
    #[error("the server answered {0}: this key is not let in, or there is no such service")]
    Refused(StatusCode),
    /// The server's answer to the WebSocket handshake is wrong.
    #[error("the server's WebSocket handshake is wrong")]
    Handshake,
    /// The node did not prove to be the expected one.
    #[error("the node did not prove its identity")]
    Proof(#[from] ProofError),
    /// The server took too long.
    #[error("the server did not answer in time")]
    TimedOut,
}

/// Opens `alpn` at the node behind an established HTTPS connection: by WebTransport over
/// QUIC (`h3`), by WebSocket over TLS (`http/1.1`).
///
/// `authority` is the server's `HOST[:PORT]`, `key` the caller's own key, and `expect` what
/// the node must prove to be. The result keeps `connection` alive. Not cancel safe: a
/// connection that was given here is not to be used for anything else.
pub async fn tunnel(
    connection: Connection,
    authority: &str,
    alpn: &Alpn,
    key: &NodeIdentity,
    expect: Pin,
) -> Result<Tunnel, TunnelError> {
    let invalid = || TunnelError::Authority(authority.into());
    let authority: Authority = authority.parse().map_err(|_| invalid())?;
    let request = Asking { connection, authority, alpn, key, expect };
    let opening = async {
        match request.connection.kind() {
            TransportKind::Quic => request.webtransport().await,
            TransportKind::Tls => request.websocket().await,
            kind => Err(TunnelError::Transport(kind)),
        }
    };
    timeout(OPENING, opening).await.map_err(|_| TunnelError::TimedOut)?
}

struct Asking<'a> {
    connection: Connection,
    authority: Authority,
    alpn: &'a Alpn,
    key: &'a NodeIdentity,
    expect: Pin,
}

impl Asking<'_> {
    async fn webtransport(self) -> Result<Tunnel, TunnelError> {
        let uri = format!("https://{}{}", self.authority, self.alpn.path());
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri(uri)
            .header(header::AUTHORIZATION, self.credential()?)
            .header("wt-available-protocols", format!("\"{}\"", self.alpn));
        let request = request.body(()).map_err(|_| self.invalid())?;
        let (answer, connection) = match h3::connect(self.connection.clone(), request).await {
            Err(h3::ConnectError::Refused(answer)) => {
                return Err(TunnelError::Refused(answer.status()));
            }
            outcome => outcome?,
        };
        let node = self.proven(answer.headers())?;
        Ok(Tunnel { connection, node })
    }

    async fn websocket(self) -> Result<Tunnel, TunnelError> {
        let ws_key = ws::handshake::key();
        let request = Request::builder()
            .uri(self.alpn.path())
            .header(header::HOST, self.authority.as_str())
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, &ws_key)
            .header(header::SEC_WEBSOCKET_PROTOCOL, self.alpn.as_str().replace('/', "."))
            .header(header::AUTHORIZATION, self.credential()?);
        let request = request.body(Body::empty()).map_err(|_| self.invalid())?;
        let stream = self.connection.open_bi().await?;
        let (answer, upgraded) = upgrade(stream, request).await?;
        if answer.headers().get(header::SEC_WEBSOCKET_ACCEPT)
            != Some(&ws::handshake::accept(&ws_key))
        {
            return Err(TunnelError::Handshake);
        }
        let node = self.proven(answer.headers())?;
        let (stream, head) = ws::unwrap(upgraded);
        let (connection, driver) = ws::connection(stream, head, Role::Client, &self.connection);
        // Ends by itself within seconds of the stream's last half.
        TaskTracker::new().spawn(driver.run());
        Ok(Tunnel { connection, node })
    }

    fn credential(&self) -> Result<HeaderValue, TunnelError> {
        let value = concealed::authorization(&self.connection, self.key, target(&self.authority))?;
        let mut value = HeaderValue::try_from(value).map_err(|_| self.invalid())?;
        value.set_sensitive(true);
        Ok(value)
    }

    fn proven(&self, headers: &HeaderMap) -> Result<NodeId, ProofError> {
        let value = headers.get(proof::HEADER).ok_or(ProofError::Missing)?;
        let value = value.to_str().map_err(|_| ProofError::Malformed)?;
        proof::check(&self.connection, value, self.expect)
    }

    fn invalid(&self) -> TunnelError {
        TunnelError::Authority(self.authority.to_string())
    }
}

/// Sends the request and takes the connection over.
async fn upgrade(
    stream: Stream,
    request: Request<Body>,
) -> Result<(Response<hyper::body::Incoming>, hyper::upgrade::Upgraded), TunnelError> {
    let io = TokioIo::new(Wire::new(stream, false));
    let (mut sender, driver) = hyper::client::conn::http1::handshake(io).await?;
    let mut driving = JoinSet::new();
    driving.spawn(driver.with_upgrades());
    let mut answer = sender.send_request(request).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(TunnelError::Refused(answer.status()));
    }
    let upgraded = hyper::upgrade::on(&mut answer).await?;
    Ok((answer, upgraded))
}
