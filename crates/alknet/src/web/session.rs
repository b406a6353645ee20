//! The signed-in session: beginning, showing, using and ending it.

use std::sync::Arc;

use alknet_core::{AuditEvent, AuthContext, AuthMethod, Identity, IdentityProvider as _, Secret};
use alknet_http::{Conceal, Refusals, SESSION_COOKIE};
use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use super::{Web, session_cookie};
use crate::{
    peer_key::PeerKey,
    store::{PeerError, now},
};

/// What the node's signature on a statement covers before the statement itself.
const STATEMENT: &[u8] = b"alknet node statement v1\n";
/// The longest public key line that is read, in bytes.
const MAX_KEY: usize = 16 * 1024;

/// A certificate that a browser may pin (`serverCertificateHashes`).
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Certificate {
    /// SHA-256 of the certificate, in hex.
    pub(crate) sha256: String,
    /// Its end, in seconds since 1970.
    pub(crate) not_after: i64,
}

/// What the node says of itself under its signature.
#[derive(Serialize)]
struct Statement<'a> {
    node: String,
    certificates: &'a [Certificate],
    issued_at: i64,
}

#[derive(Serialize)]
struct Session<'a> {
    node: String,
    name: &'a str,
    identity: Caller<'a>,
    ssh_user: &'a str,
    certificates: &'a [Certificate],
    statement: String,
    signature: String,
}

#[derive(Serialize)]
struct Caller<'a> {
    id: &'a str,
    name: &'a str,
    scopes: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewKey {
    openssh: String,
}

#[derive(Serialize)]
struct Problem {
    error: String,
}

/// Uses a sign-in link up; the cookie of the session it begins.
pub(super) async fn begin(
    web: &Web,
    auth: &AuthContext,
    refusals: &Refusals,
    secret: String,
) -> Option<HeaderValue> {
    let event = |event| {
        let (identity, method) = (None, Some("sign-in link"));
        AuditEvent { identity, method, ..AuditEvent::about(event, auth) }
    };
    match web.store.signin(&Secret::new(secret)).await {
        Ok(Ok(session)) => {
            let identity = Some(session.identity.id);
            web.audit.record(AuditEvent { identity, ..event(AuditEvent::AUTHENTICATED) });
            let (secret, seconds) = (session.session.expose(), session.lifetime.as_secs());
            let cookie = format!(
                "{SESSION_COOKIE}={secret}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Strict"
            );
            let mut cookie = HeaderValue::try_from(cookie).ok()?;
            cookie.set_sensitive(true);
            Some(cookie)
        }
        Ok(Err(refusal)) => {
            // A page of any origin can make a browser ask, so it does not count against the
            // caller's address.
            if refusals.is_first(refusal.kind()) {
                web.audit.record(event(AuditEvent::REFUSED).because(refusal));
            }
            None
        }
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "signing in");
            None
        }
    }
}

/// `GET /alknet/session`: who is signed in, at which node, and how to reach it.
pub(super) async fn show(
    State(web): State<Arc<Web>>,
    Extension(auth): Extension<AuthContext>,
) -> Response {
    let Some(identity) = auth.identity else { return Conceal.into_response() };
    let certificates = web.certificates.borrow().clone();
    let node = web.node.id().to_string();
    let statement = Statement { node: node.clone(), certificates: &certificates, issued_at: now() };
    let Ok(statement) = serde_json::to_vec(&statement) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let signature = web.node.sign(&[STATEMENT, &statement].concat());
    let session = Session {
        node,
        name: &web.name,
        identity: Caller {
            id: &identity.id,
            name: &identity.name,
            scopes: identity.scopes.iter().map(ToString::to_string).collect(),
        },
        ssh_user: &login_name(&web, &identity),
        certificates: &certificates,
        statement: URL_SAFE_NO_PAD.encode(&statement),
        signature: URL_SAFE_NO_PAD.encode(signature),
    };
    ([(header::CACHE_CONTROL, "no-store")], Json(&session)).into_response()
}

/// The login name that somebody gets by themselves. Where there is none, a login as the
/// node's account is refused with the reason in the audit log.
fn login_name(web: &Web, identity: &Identity) -> String {
    let own = || web.accounts.node().name.clone();
    web.accounts.names(identity).into_iter().next().unwrap_or_else(own)
}

/// `POST /alknet/keys`: authorises an SSH key for whoever is signed in, as long as they are.
pub(super) async fn add_key(
    State(web): State<Arc<Web>>,
    Extension(auth): Extension<AuthContext>,
    body: axum::body::Bytes,
) -> Response {
    let Some(identity) = auth.identity.clone() else { return Conceal.into_response() };
    let outcome = match parse_key(&body) {
        _ if auth.method != AuthMethod::Cookie => Err(refused(&PeerError::NoSession)),
        Ok(key) => authorise(&web, &auth, &identity, &key).await,
        Err(problem) => Err(problem),
    };
    match outcome {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err((status, error)) => (status, Json(Problem { error })).into_response(),
    }
}

fn parse_key(body: &[u8]) -> Result<PeerKey, (StatusCode, String)> {
    if body.len() > MAX_KEY {
        return Err((StatusCode::PAYLOAD_TOO_LARGE, "the key is too long".into()));
    }
    let bad = |error: String| (StatusCode::BAD_REQUEST, error);
    let new: NewKey = serde_json::from_slice(body).map_err(|error| bad(error.to_string()))?;
    let key = PeerKey::parse(&new.openssh).map_err(|error| bad(error.to_string()))?;
    if key.openssh.is_none() {
        return Err(bad("only an OpenSSH key can be authorised".into()));
    }
    Ok(key)
}

/// For the fuzz target.
#[cfg(fuzzing)]
pub(crate) fn any_key(body: &[u8]) {
    drop(parse_key(body));
}

async fn authorise(
    web: &Web,
    auth: &AuthContext,
    identity: &Identity,
    key: &PeerKey,
) -> Result<(), (StatusCode, String)> {
    match web.identities.by_key(&key.fingerprint).await {
        Ok(Some(holder)) if holder.id != identity.id => {
            return Err((StatusCode::CONFLICT, "the key belongs to somebody else".into()));
        }
        Ok(_) => {}
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "looking a key up");
            return Err((StatusCode::INTERNAL_SERVER_ERROR, "the key cannot be looked up".into()));
        }
    }
    // The web client asks whenever it connects: only what is new is news.
    if web.store.add_session_key(identity, key).await.map_err(|error| refused(&error))? {
        let added = AuditEvent {
            key: Some(key.fingerprint.to_string()),
            ..AuditEvent::about("key-added", auth)
        };
        web.audit.record(added);
    }
    Ok(())
}

fn refused(error: &PeerError) -> (StatusCode, String) {
    match error {
        PeerError::Store(error) => {
            tracing::error!(error = error as &dyn std::error::Error, "adding a key");
            (StatusCode::INTERNAL_SERVER_ERROR, "the node could not store the key".into())
        }
        PeerError::NoSession => (StatusCode::FORBIDDEN, error.to_string()),
        error => (StatusCode::CONFLICT, error.to_string()),
    }
}

/// `POST /alknet/signout`: ends the session of the request's cookie.
pub(super) async fn sign_out(
    State(web): State<Arc<Web>>,
    Extension(auth): Extension<AuthContext>,
    headers: HeaderMap,
) -> Response {
    if let Some(secret) = session_cookie(&headers) {
        match web.store.signout(&Secret::new(secret)).await {
            Ok(true) => web.audit.record(AuditEvent::about("signed-out", &auth)),
            Ok(false) => {}
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "signing out");
                return StatusCode::INTERNAL_SERVER_ERROR.into_response();
            }
        }
    }
    let gone = format!("{SESSION_COOKIE}=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Strict");
    ([(header::SET_COOKIE, gone)], StatusCode::NO_CONTENT).into_response()
}
