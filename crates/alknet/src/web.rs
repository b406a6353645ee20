//! What the node shows a browser: signing in, the session, and the web client.

mod app;
pub(crate) mod metrics;
mod session;

use std::sync::Arc;

use alknet_core::{Audit, AuthContext, NodeIdentity};
use alknet_host::Accounts;
use alknet_http::{Conceal, Refusals, SESSION_COOKIE};
use axum::{
    Extension, Router,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tokio::sync::watch;

pub(crate) use session::Certificate;
#[cfg(fuzzing)]
pub(crate) use session::any_key;

use crate::{chain::ChainProvider, store::Store};

/// Where the web client is.
pub(crate) const APP: &str = "/alknet/app/";
/// What a sign-in link begins with.
pub(crate) const SIGN_IN: &str = "/alknet/signin/";

/// What the pages are made from.
#[derive(Debug)]
pub(crate) struct Web {
    pub(crate) store: Store,
    /// Everybody whom the node knows.
    pub(crate) identities: Arc<ChainProvider>,
    pub(crate) node: Arc<NodeIdentity>,
    pub(crate) audit: Audit,
    /// Whose shells are served.
    pub(crate) accounts: Accounts,
    /// What the owner calls the node.
    pub(crate) name: String,
    /// The self-signed certificates in use and to come; none where they come from files.
    pub(crate) certificates: watch::Receiver<Vec<Certificate>>,
}

/// The routes open to all. A node that hides behind cover or a decoy has only the sign-in
/// links: they answer whoever has no valid one with the decoy.
pub(crate) fn public(web: Arc<Web>, shows_itself: bool) -> Router {
    let router = Router::new().route("/alknet/signin/{secret}", get(sign_in)).with_state(web);
    if shows_itself { router.merge(app::routes()).route("/", get(app::landing)) } else { router }
}

/// The routes for known callers.
pub(crate) fn private(web: Arc<Web>, shows_itself: bool) -> Router {
    let router = Router::new()
        .route("/alknet/session", get(session::show))
        .route("/alknet/keys", post(session::add_key))
        .route("/alknet/signout", post(session::sign_out))
        .with_state(web)
        .route("/alknet/metrics", get(metrics::show));
    if shows_itself { router } else { router.merge(app::routes()) }
}

/// Uses a sign-in link up and leaves the browser with a session. The secret is gone from
/// the address bar with the redirect; the fragment, which names the node, stays.
async fn sign_in(
    State(web): State<Arc<Web>>,
    Extension(auth): Extension<AuthContext>,
    Extension(refusals): Extension<Refusals>,
    method: Method,
    Path(secret): Path<String>,
) -> Response {
    // Programs that preview links ask by HEAD, which must not use the secret up.
    if method != Method::GET {
        return Conceal.into_response();
    }
    match session::begin(&web, &auth, &refusals, secret).await {
        Some(cookie) => {
            let headers = [
                (header::LOCATION, HeaderValue::from_static(APP)),
                (header::SET_COOKIE, cookie),
                (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
                (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
            ];
            (StatusCode::SEE_OTHER, headers).into_response()
        }
        None => Conceal.into_response(),
    }
}

/// The session secret among a request's cookies.
fn session_cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs =
        cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == SESSION_COOKIE).map(|(_, value)| value)
}
