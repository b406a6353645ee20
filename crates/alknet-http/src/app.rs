//! What answers the requests of every HTTP version.

use std::{sync::Arc, time::Duration};

use alknet_core::{AuthContext, TransportKind};
use arc_swap::ArcSwap;
use axum::{Router, body::Body, extract::DefaultBodyLimit, response::IntoResponse};
use futures_util::FutureExt as _;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header, request::Parts,
};
use hyper::upgrade::OnUpgrade;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::{
    auth::{Link, Purpose},
    body,
    decoy::{Site, date},
    h3, ticket,
    tunnel::{Gate, Opening},
    ws::{self, Role, handshake::Asked},
};

/// How long an accepted upgrade may take to be carried out.
const UPGRADE: Duration = Duration::from_secs(10);

/// Everything that the connections of one adapter share.
pub(crate) struct App {
    pub(crate) gate: Gate,
    pub(crate) routes: Arc<ArcSwap<Routes>>,
    pub(crate) site: Site,
    pub(crate) alt_svc: Option<HeaderValue>,
    pub(crate) max_body: usize,
    pub(crate) shutdown: CancellationToken,
}

/// Whether the node is shutting down: an extension of every request, for answers that would
/// go on for ever.
#[derive(Debug, Clone)]
pub(crate) struct Shutdown(pub(crate) CancellationToken);

/// What requests that open nothing go to.
#[derive(Debug)]
pub(crate) struct Routes {
    /// The private routes, then the public ones, then the decoy.
    known: Router,
    /// The public routes, then the decoy.
    strangers: Router,
}

impl Routes {
    /// Puts `site` behind the routes, and takes no body above `max_body` bytes.
    pub(crate) fn new(public: Router, private: Router, site: &Site, max_body: usize) -> Self {
        let strangers = closed(public, site).fallback_service(site.clone());
        let known = closed(private, site).fallback_service(strangers.clone());
        let limit = DefaultBodyLimit::max(max_body);
        Self { known: known.layer(limit), strangers: strangers.layer(limit) }
    }

    /// The routes of a caller.
    fn of(&self, auth: &AuthContext) -> Router {
        if auth.identity.is_some() { self.known.clone() } else { self.strangers.clone() }
    }
}

/// A path that exists for another method is, for this one, a path that does not exist.
fn closed(routes: Router, site: &Site) -> Router {
    let site = site.clone();
    routes.method_not_allowed_fallback(async move |request: Request<Body>| {
        Verbatim::of(site.answer(request).await)
    })
}

/// An answer of a route that shall not be told from a path that does not exist: the caller
/// gets the decoy's answer instead.
///
/// For public routes whose existence depends on what the request holds, such as a sign-in
/// link with a one-time secret. A body that the request had is not shown to the decoy.
#[derive(Debug, Clone, Copy)]
pub struct Conceal;

impl IntoResponse for Conceal {
    fn into_response(self) -> axum::response::Response {
        (StatusCode::NOT_FOUND, axum::Extension(self)).into_response()
    }
}

/// The header of an answer as it shall leave: the router says which methods a path has, and
/// that it has any is more than a caller may learn.
#[derive(Debug, Clone)]
pub(crate) struct Verbatim(HeaderMap);

impl Verbatim {
    pub(crate) fn of(mut response: Response<Body>) -> Response<Body> {
        let header = Self(response.headers().clone());
        response.extensions_mut().insert(header);
        response
    }
}

/// One connection's view of the [`App`].
#[derive(Clone)]
pub(crate) struct Served {
    pub(crate) app: Arc<App>,
    pub(crate) link: Arc<Link>,
}

impl Served {
    /// Answers one request of any version.
    pub(crate) async fn respond(&self, request: Request<Body>) -> Response<Body> {
        let version = request.version();
        let is_head = request.method() == Method::HEAD;
        let asked = match alknet_core::Alpn::from_path(request.uri().path()) {
            Some(_) => ws::handshake::asked(&request),
            None => None,
        };
        let mut response = match asked {
            Some(asked) => self.websocket(request, &asked).await,
            None => self.plain(request).await,
        };
        if is_head {
            *response.body_mut() = Body::empty();
        }
        if version <= Version::HTTP_2
            && let Some(value) = &self.app.alt_svc
        {
            response.headers_mut().insert(header::ALT_SVC, value.clone());
        }
        response
    }

    /// A request that opens nothing: our own endpoints, the routes, the decoy.
    async fn plain(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let purpose = if is_opening(&parts) { Purpose::Tunnel } else { Purpose::Request };
        let auth = self.app.gate.authenticator.caller(&self.link, &parts, purpose).await;
        let head = head_of(&parts);
        let request = Request::from_parts(parts, body);
        let answer = if ticket::is_asked(&head, &auth) {
            self.app.gate.ticket(request, &auth, self.app.max_body).await
        } else {
            self.route(request, auth).await
        };
        match answer {
            Some(mut response) => {
                response.headers_mut().entry(header::DATE).or_insert_with(date);
                response
            }
            None => self.app.site.answer(Request::from_parts(head, Body::empty())).await,
        }
    }

    /// The routes' answer; `None` if they want the decoy's.
    async fn route(&self, mut request: Request<Body>, auth: AuthContext) -> Option<Response<Body>> {
        let router = self.app.routes.load().of(&auth);
        request.extensions_mut().insert(auth);
        request.extensions_mut().insert(self.link.connection.clone());
        request.extensions_mut().insert(self.link.refusals.clone());
        request.extensions_mut().insert(Shutdown(self.app.shutdown.clone()));
        request.extensions_mut().insert(self.app.gate.origins.clone());
        let Ok(mut response) = router.oneshot(request).await;
        if let Some(Verbatim(header)) = response.extensions_mut().remove() {
            *response.headers_mut() = header;
        }
        response.extensions().get::<Conceal>().is_none().then_some(response)
    }

    /// Opens a WebSocket to a service for whoever may have it.
    async fn websocket(&self, mut request: Request<Body>, asked: &Asked) -> Response<Body> {
        let upgrade = hyper::upgrade::on(&mut request);
        let (parts, body) = request.into_parts();
        match self.app.gate.open(&self.link, &parts, TransportKind::WebSocket).await {
            Ok(opening) => match asked {
                Asked::Wrongly(fault) => fault.answer(),
                Asked::Upgrade(_) | Asked::Connect => self.accept(upgrade, asked, opening),
            },
            Err(_closed) => self.app.site.answer(Request::from_parts(parts, body)).await,
        }
    }

    fn accept(&self, upgrade: OnUpgrade, asked: &Asked, opening: Opening) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.headers_mut() = opening.headers;
        if let Asked::Upgrade(key) = asked {
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            let headers = response.headers_mut();
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::SEC_WEBSOCKET_ACCEPT, ws::handshake::accept(key));
        }
        let outer = self.link.connection.clone();
        let carry = async move {
            let Ok(Ok(upgraded)) = timeout(UPGRADE, upgrade).await else {
                tracing::debug!("an accepted WebSocket did not open");
                return;
            };
            let (stream, head) = ws::unwrap(upgraded);
            let (connection, driver) = ws::connection(stream, head, Role::Server, &outer);
            opening.admission.start(connection);
            driver.run().await;
        };
        let over = self.link.over.clone();
        self.link.tasks.spawn(over.run_until_cancelled_owned(carry).map(drop));
        response
    }
}

impl h3::App for Served {
    async fn request(&self, request: Request<Body>) -> Response<Body> {
        self.respond(request.map(body::guarded)).await
    }

    async fn connect(&self, request: Request<()>) -> h3::Connect {
        let (parts, ()) = request.into_parts();
        match self.app.gate.open(&self.link, &parts, TransportKind::WebTransport).await {
            Ok(Opening { admission, headers }) => {
                let start = Box::new(|session| drop(admission.start(session)));
                h3::Connect::Accept { headers, start }
            }
            Err(_closed) => {
                let request = Request::from_parts(parts, Body::empty());
                h3::Connect::Refuse(self.app.site.answer(request).await)
            }
        }
    }
}

/// Whether the request would open something, whatever becomes of it.
fn is_opening(parts: &Parts) -> bool {
    parts.method == Method::CONNECT || parts.headers.contains_key(header::UPGRADE)
}

/// A copy of what the decoy needs of a request.
fn head_of(parts: &Parts) -> Parts {
    let mut head = Request::new(()).into_parts().0;
    head.method = parts.method.clone();
    head.uri = parts.uri.clone();
    head.version = parts.version;
    head.headers = parts.headers.clone();
    head
}
