//! Requests: who may send them, and how long their answers last.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use alknet_core::{AuthContext, Login};
use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, Method, Request, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::combinators::BoxBody;
use rmcp::transport::StreamableHttpService;
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};

use super::{Mcp, handler::Tools, sessions::Owned};
use crate::{Conceal, app::Shutdown, origin::Origins};

/// What an operation that a request has started depends on.
#[derive(Clone)]
pub(super) struct Lease {
    pub(super) auth: AuthContext,
    /// The node is shutting down.
    pub(super) shutdown: CancellationToken,
    login: Arc<Login>,
    over: CancellationToken,
}

impl Lease {
    /// Waits until nobody reads the answer any more, or the caller's credential has ended.
    pub(super) async fn over(&self) {
        tokio::select! {
            () = self.over.cancelled() => (),
            () = self.login.revoked() => (),
        }
    }
}

/// Answers one request of somebody who is known.
pub(super) async fn answer(State(mcp): State<Mcp>, request: Request<Body>) -> Response {
    let (mut parts, body) = request.into_parts();
    let Some(auth) = parts.extensions.remove::<AuthContext>() else {
        return Conceal.into_response();
    };
    let Some(identity) = auth.identity.clone() else { return Conceal.into_response() };
    let Some(Shutdown(shutdown)) = parts.extensions.remove() else {
        return Conceal.into_response();
    };
    // A page of another site has no credential, but a browser extension or a proxy may add
    // one to all that passes.
    if !parts.extensions.get::<Origins>().is_some_and(|origins| origins.admit(&parts)) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let Ok(login) = auth.session.login(identity.clone()) else { return busy() };
    let (login, over) = (Arc::new(login), CancellationToken::new());
    let guard = over.clone().drop_guard();
    // A stream that answers nothing goes on until then.
    let end = (parts.method == Method::GET).then(|| shutdown.clone().cancelled_owned());
    parts.extensions.insert(Lease { auth: auth.clone(), shutdown, login: login.clone(), over });
    let inner = mcp.0.clone();
    let sessions = Arc::new(Owned::new(inner.sessions.clone(), &auth, identity));
    let tools = move || Ok(Tools::new(inner.operations.clone(), inner.info.clone(), auth.clone()));
    let service = StreamableHttpService::new(tools, sessions, mcp.0.transport.clone());
    let answer = service.handle(Request::from_parts(parts, body));
    tokio::select! {
        answer = answer => answer.map(|body| Body::new(Leased::new(body, login, end, guard))),
        () = login.revoked() => Conceal.into_response(),
    }
}

/// Somebody is logged in too often.
fn busy() -> Response {
    let later = [(header::RETRY_AFTER, HeaderValue::from_static("10"))];
    (StatusCode::SERVICE_UNAVAILABLE, later).into_response()
}

/// The body of an answer. It is cut when the caller's credential ends, and what it answers is
/// over when it is dropped.
struct Leased {
    body: BoxBody<Bytes, Infallible>,
    revoked: BoxFuture<'static, ()>,
    end: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    _over: DropGuard,
}

/// The credential has ended.
#[derive(Debug, thiserror::Error)]
#[error("the credential has ended")]
struct Revoked;

impl Leased {
    fn new(
        body: BoxBody<Bytes, Infallible>,
        login: Arc<Login>,
        end: Option<WaitForCancellationFutureOwned>,
        over: DropGuard,
    ) -> Self {
        let revoked = Box::pin(async move { login.revoked().await });
        Self { body, revoked, end: end.map(Box::pin), _over: over }
    }
}

impl HttpBody for Leased {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        if self.revoked.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(Revoked.into())));
        }
        if self.end.as_mut().is_some_and(|end| end.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(None);
        }
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| frame.map_err(|never| match never {})))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
