//! Repositories by HTTPS.

use alknet_git::{GitServer, http, http::Unseen};
use alknet_http::Conceal;
use axum::{
    Router,
    middleware::map_response,
    response::{IntoResponse as _, Response},
};

/// What the path of every repository begins with.
pub(crate) const PREFIX: &str = http::PREFIX;

/// The routes of a node that shows itself, for everybody: whoever has no credential is asked
/// for one.
pub(crate) fn public(server: GitServer) -> Router {
    http::routes(server)
}

/// The routes of one that hides, for known callers: whatever they may not see is the decoy's.
pub(crate) fn hidden(server: GitServer) -> Router {
    http::routes(server).layer(map_response(conceal))
}

async fn conceal(response: Response) -> Response {
    match response.extensions().get::<Unseen>() {
        Some(_) => Conceal.into_response(),
        None => response,
    }
}
