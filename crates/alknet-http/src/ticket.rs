//! `POST /alknet/ticket`: a caller who cannot put a credential on a CONNECT trades the one
//! they have for a ticket.

use std::time::Duration;

use alknet_core::{Alpn, AuditEvent, AuthContext, Identity, Secret};
use axum::body::Body;
use http::{HeaderValue, Method, Request, Response, header, request::Parts};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Limited};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::tunnel::Gate;

const PATH: &str = "/alknet/ticket";
/// How long a ticket holds, in seconds: part of [`IdentityProvider::issue_ticket`]'s
/// contract.
///
/// [`IdentityProvider::issue_ticket`]: alknet_core::IdentityProvider::issue_ticket
const LIFETIME: u32 = 30;
/// How long the request's body may take.
const BODY: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    alpn: String,
}

#[derive(Serialize)]
struct Issued<'a> {
    ticket: &'a str,
    expires_in: u32,
}

/// Why no ticket is issued.
#[derive(Debug, thiserror::Error)]
enum Denied {
    #[error("malformed request for a ticket")]
    Malformed,
    #[error("ticket for a service that is not there")]
    NoService,
    #[error("ticket outside the caller's scopes")]
    OutOfScope,
    #[error(transparent)]
    Provider(#[from] alknet_core::ProviderError),
}

/// Whether this is a known caller's request for a ticket.
pub(crate) fn is_asked(parts: &Parts, auth: &AuthContext) -> bool {
    parts.uri.path() == PATH && parts.method == Method::POST && auth.identity.is_some()
}

impl Gate {
    /// Issues a ticket, or `None` for the decoy's answer.
    pub(crate) async fn ticket(
        &self,
        request: Request<Body>,
        auth: &AuthContext,
        limit: usize,
    ) -> Option<Response<Body>> {
        let identity = auth.identity.as_deref()?;
        match self.issue(request.into_body(), identity, limit).await {
            Ok(secret) => Some(answer(&secret)),
            Err(denied) => {
                let event = AuditEvent::about(AuditEvent::REFUSED, auth).because(denied);
                self.dispatcher.audit().record(event);
                None
            }
        }
    }

    async fn issue(&self, body: Body, identity: &Identity, limit: usize) -> Result<Secret, Denied> {
        // What announces itself as too long need not be waited for.
        if body.size_hint().lower() > limit as u64 {
            return Err(Denied::Malformed);
        }
        let collected = timeout(BODY, Limited::new(body, limit).collect()).await;
        let body = collected.ok().and_then(Result::ok).ok_or(Denied::Malformed)?.to_bytes();
        let wanted: Wanted = serde_json::from_slice(&body).map_err(|_| Denied::Malformed)?;
        let alpn = Alpn::service(&wanted.alpn).map_err(|_| Denied::NoService)?;
        if !self.dispatcher.alpns().any(|known| *known == alpn) {
            return Err(Denied::NoService);
        }
        if !self.dispatcher.admits(&alpn, &identity.scopes) {
            return Err(Denied::OutOfScope);
        }
        Ok(self.identities.issue_ticket(identity, &alpn).await?)
    }
}

fn answer(secret: &Secret) -> Response<Body> {
    let issued = Issued { ticket: secret.expose(), expires_in: LIFETIME };
    let json = serde_json::to_vec(&issued).unwrap_or_default();
    let mut response = Response::new(Body::from(json));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
