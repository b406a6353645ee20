//! What everybody sees who may not see more.

mod nginx;
mod strict;
mod upstream;

use std::{convert::Infallible, fmt, path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use axum::body::Body;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use tower::{Service, ServiceExt as _};
use tower_http::services::ServeDir;

pub(crate) use nginx::{closing_page, date};
use upstream::Upstream;

/// The site that a node pretends to be: the answer to every path that is not ours, and to
/// every caller who may not have what is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decoy {
    /// The `404` of an nginx with nothing to show.
    #[default]
    NotFound,
    /// A folder of static files.
    Folder(PathBuf),
    /// A redirect of every request to one address.
    Redirect(Uri),
    /// A reverse proxy to a real site, reached over plain `http://`.
    Proxy(Uri),
}

impl Decoy {
    /// Whether it can be served, as [`Builder::build`](crate::Builder::build) and
    /// [`Live::set_decoy`](crate::Live::set_decoy) want it. A folder is not looked at.
    pub fn check(&self) -> Result<(), DecoyError> {
        Kind::new(self.clone()).map(drop)
    }
}

/// The decoy cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecoyError {
    /// Only plain HTTP upstreams with a host are possible.
    #[error("the decoy's upstream must be http://HOST[:PORT], and this is not: {0}")]
    Upstream(Uri),
    /// The address does not fit into a header field.
    #[error("the decoy cannot redirect there: {0}")]
    Redirect(Uri),
}

/// A [`Decoy`] ready to answer. It never fails and never asks who is calling. Clones share
/// what they show, which can be exchanged at any time.
#[derive(Clone)]
pub(crate) struct Site(Arc<ArcSwap<Kind>>);

#[derive(Clone)]
enum Kind {
    NotFound,
    Folder(ServeDir),
    Redirect(HeaderValue),
    Proxy(Box<Upstream>),
}

impl Kind {
    fn new(decoy: Decoy) -> Result<Self, DecoyError> {
        Ok(match decoy {
            Decoy::NotFound => Self::NotFound,
            Decoy::Folder(path) => Self::Folder(ServeDir::new(path)),
            Decoy::Redirect(uri) => {
                let value = HeaderValue::try_from(uri.to_string());
                Self::Redirect(value.map_err(|_| DecoyError::Redirect(uri))?)
            }
            Decoy::Proxy(uri) => Self::Proxy(Box::new(Upstream::new(uri)?)),
        })
    }
}

impl Site {
    pub(crate) fn new(decoy: Decoy) -> Result<Self, DecoyError> {
        Ok(Self(Arc::new(ArcSwap::from_pointee(Kind::new(decoy)?))))
    }

    /// Shows something else from the next request on; answers under way stay what they are.
    pub(crate) fn replace(&self, decoy: Decoy) -> Result<(), DecoyError> {
        self.0.store(Arc::new(Kind::new(decoy)?));
        Ok(())
    }

    /// The answer to any request.
    pub(crate) async fn answer(&self, request: Request<Body>) -> Response<Body> {
        // One answer is of one kind, whatever is exchanged meanwhile.
        let kind = self.0.load_full();
        let asked = nginx::Asked::of(&request);
        if let Some(status) = strict::status(&request) {
            return asked.closing().page(status);
        }
        if strict::is_too_long(&request) && !matches!(*kind, Kind::Proxy(_)) {
            return asked.closing().page(StatusCode::PAYLOAD_TOO_LARGE);
        }
        match &*kind {
            Kind::NotFound => asked.page(StatusCode::NOT_FOUND),
            Kind::Folder(files) => folder(files.clone(), request, &asked).await,
            Kind::Redirect(to) => {
                let mut response = asked.page(StatusCode::MOVED_PERMANENTLY);
                response.headers_mut().insert(header::LOCATION, to.clone());
                response
            }
            Kind::Proxy(upstream) => match upstream.forward(request).await {
                Ok(response) => asked.dress(response),
                Err(failure) => {
                    tracing::debug!(%failure, "the decoy's upstream failed");
                    asked.page(failure.status())
                }
            },
        }
    }
}

async fn folder(files: ServeDir, request: Request<Body>, asked: &nginx::Asked) -> Response<Body> {
    let Ok(response) = files.oneshot(request).await;
    let status = response.status();
    if status.is_client_error() && status != StatusCode::RANGE_NOT_SATISFIABLE {
        return asked.page(status);
    }
    asked.dress(response.map(Body::new))
}

/// As the fallback of the routers.
impl Service<Request<Body>> for Site {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(
        &mut self,
        _cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let site = self.clone();
        Box::pin(async move { Ok(site.answer(request).await) })
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &**self.0.load() {
            Kind::NotFound => "NotFound",
            Kind::Folder(_) => "Folder",
            Kind::Redirect(_) => "Redirect",
            Kind::Proxy(_) => "Proxy",
        };
        write!(f, "Site({kind})")
    }
}
