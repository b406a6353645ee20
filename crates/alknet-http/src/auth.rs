//! Who sent a request.

use std::sync::{Arc, Mutex, PoisonError};

use alknet_core::{
    Audit, AuditEvent, AuthContext, AuthMethod, Connection, Identity, IdentityProvider,
    KeyFingerprint, ProviderError, Secret,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, Method, header, request::Parts};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::{
    concealed,
    origin::{authority, is_same_origin, single, target},
};

/// What every bearer token of a node begins with.
const TOKEN_PREFIX: &str = "alk_";

/// The cookie of a signed-in browser. The prefix makes browsers insist that it is secure,
/// of this host alone and for every path.
pub const SESSION_COOKIE: &str = "__Host-alknet";

/// One HTTP connection: what all its requests share.
pub(crate) struct Link {
    pub(crate) connection: Connection,
    /// What the handshake said of the peer.
    pub(crate) auth: AuthContext,
    /// The tasks that carry requests and tunnels; [`Link::over`] ends them.
    pub(crate) tasks: TaskTracker,
    pub(crate) over: CancellationToken,
    /// Who was last written to the audit log as authenticated here.
    known: Mutex<Option<(String, AuthMethod)>>,
    pub(crate) refusals: Refusals,
}

/// What was refused on one HTTP connection: an extension of each of its requests.
///
/// A refusal that costs the caller nothing goes into the audit log once for each connection,
/// so that nobody can fill the log with them.
#[derive(Debug, Clone, Default)]
pub struct Refusals(Arc<Mutex<Vec<&'static str>>>);

impl Refusals {
    /// Whether nothing of this kind was refused on the connection before.
    #[must_use]
    pub fn is_first(&self, kind: &'static str) -> bool {
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = !kinds.contains(&kind);
        if first {
            kinds.push(kind);
        }
        first
    }
}

impl Link {
    pub(crate) fn new(connection: Connection, auth: AuthContext) -> Self {
        Self {
            connection,
            auth,
            tasks: TaskTracker::new(),
            over: CancellationToken::new(),
            known: Mutex::default(),
            refusals: Refusals::default(),
        }
    }

    /// Whether this is somebody else than the requests before were from.
    fn is_news(&self, identity: &Identity, method: AuthMethod) -> bool {
        let now = Some((identity.id.clone(), method));
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let news = *known != now;
        *known = now;
        news
    }
}

/// Why a credential is none. The caller is treated as if it had sent nothing, and only the
/// audit log knows.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("malformed Authorization")]
    Malformed,
    #[error(transparent)]
    Concealed(#[from] concealed::Invalid),
    #[error("unknown bearer token")]
    UnknownToken,
    #[error("unknown key {0}")]
    UnknownKey(KeyFingerprint),
    #[error("unknown or ended browser session")]
    UnknownSession,
    #[error("browser session used from another origin")]
    ForeignOrigin,
    #[error(transparent)]
    Provider(#[from] ProviderError),
}

impl Refused {
    /// What it is, unless it counts against the caller's address. A cookie does not: a
    /// browser sends that of a session that has ended with every request, and nobody guesses
    /// one. Nor does what may be a credential of the site that the decoy shows.
    fn harmless(&self) -> Option<&'static str> {
        match self {
            Self::Concealed(_) | Self::UnknownToken | Self::UnknownKey(_) => None,
            Self::Malformed => Some("malformed credential"),
            Self::UnknownSession => Some("unknown session"),
            Self::ForeignOrigin => Some("session of another origin"),
            Self::Provider(_) => Some("identity provider"),
        }
    }
}

/// A credential that holds.
struct Proven {
    identity: Identity,
    method: AuthMethod,
    key: Option<KeyFingerprint>,
}

/// Which credentials count for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A plain request: a same-origin page may use its cookie.
    Request,
    /// The opening of a tunnel. Pages of any origin can ask a browser to open one, with
    /// cookies attached, so a cookie never counts.
    Tunnel,
}

/// Checks the credentials of requests.
pub(crate) struct Authenticator {
    pub(crate) identities: Arc<dyn IdentityProvider>,
    pub(crate) audit: Audit,
    /// What the paths begin with for which a token may be the password.
    pub(crate) basic: Vec<String>,
}

impl Authenticator {
    /// Who sent this request: by `Authorization`, else by cookie, else by the key that the
    /// TLS handshake proved. A credential that does not hold is as good as none.
    pub(crate) async fn caller(&self, link: &Link, parts: &Parts, purpose: Purpose) -> AuthContext {
        if link.auth.session.is_banned(&link.auth) {
            return link.auth.clone();
        }
        let mut found = self.authorization(link, parts).await;
        self.note_refusal(link, &found);
        if purpose == Purpose::Request && !matches!(found, Ok(Some(_))) {
            found = self.cookie(parts).await;
            self.note_refusal(link, &found);
        }
        let Ok(Some(proven)) = found else { return link.auth.clone() };
        let auth = AuthContext {
            client_key: proven.key.or(link.auth.client_key),
            identity: Some(Arc::new(proven.identity)),
            method: proven.method,
            ..link.auth.clone()
        };
        self.note_success(link, &auth);
        auth
    }

    async fn authorization(&self, link: &Link, parts: &Parts) -> Result<Option<Proven>, Refused> {
        if !parts.headers.contains_key(header::AUTHORIZATION) {
            return Ok(None);
        }
        let value = single(&parts.headers, &header::AUTHORIZATION).ok_or(Refused::Malformed)?;
        let (scheme, rest) = value.split_once(' ').ok_or(Refused::Malformed)?;
        let token = rest.trim_matches(' ');
        if scheme.eq_ignore_ascii_case("Bearer") && token.starts_with(TOKEN_PREFIX) {
            self.bearer(token).await.map(Some)
        } else if scheme.eq_ignore_ascii_case(concealed::SCHEME) {
            self.concealed(link, parts, rest).await.map(Some)
        } else if scheme.eq_ignore_ascii_case("Basic") && self.takes_basic(parts) {
            match password(token) {
                Some(token) => self.bearer(token.expose()).await.map(Some),
                None => Ok(None),
            }
        } else {
            // A credential of whatever site the decoy shows.
            Ok(None)
        }
    }

    /// Whether a token may be the password of this request. A browser that was given one sends
    /// it for pages of others as well.
    fn takes_basic(&self, parts: &Parts) -> bool {
        let path = parts.uri.path();
        self.basic.iter().any(|prefix| path.starts_with(prefix)) && !is_cross_site(parts)
    }

    async fn bearer(&self, token: &str) -> Result<Proven, Refused> {
        let identity = self.identities.by_token(&Secret::new(token)).await?;
        let identity = identity.ok_or(Refused::UnknownToken)?;
        Ok(Proven { identity, method: AuthMethod::Bearer, key: None })
    }

    async fn concealed(
        &self,
        link: &Link,
        parts: &Parts,
        parameters: &str,
    ) -> Result<Proven, Refused> {
        let authority = authority(parts).ok_or(Refused::Malformed)?;
        let id = concealed::verify(&link.connection, parameters, target(&authority))?;
        let key = KeyFingerprint::Ed25519(id);
        let identity = self.identities.by_key(&key).await?.ok_or(Refused::UnknownKey(key))?;
        Ok(Proven { identity, method: AuthMethod::Concealed, key: Some(key) })
    }

    async fn cookie(&self, parts: &Parts) -> Result<Option<Proven>, Refused> {
        let Some(secret) = session_cookie(&parts.headers) else { return Ok(None) };
        if !may_use_cookie(parts) {
            return Err(Refused::ForeignOrigin);
        }
        let identity = self.identities.by_token(&Secret::new(secret)).await?;
        let identity = identity.ok_or(Refused::UnknownSession)?;
        Ok(Some(Proven { identity, method: AuthMethod::Cookie, key: None }))
    }

    fn note_refusal(&self, link: &Link, outcome: &Result<Option<Proven>, Refused>) {
        let Err(refused) = outcome else { return };
        let harmless = refused.harmless();
        if harmless.is_some_and(|kind| !link.refusals.is_first(kind)) {
            return;
        }
        if let Refused::Provider(error) = refused {
            tracing::error!(
                error = error as &dyn std::error::Error,
                "a caller could not be looked up"
            );
        }
        self.audit.record(AuditEvent::about(AuditEvent::REFUSED, &link.auth).because(refused));
        if harmless.is_none() {
            link.auth.session.failed(&link.auth, refused);
        }
    }

    fn note_success(&self, link: &Link, auth: &AuthContext) {
        let Some(identity) = &auth.identity else { return };
        if link.is_news(identity, auth.method) {
            self.audit.record(AuditEvent::about(AuditEvent::AUTHENTICATED, auth));
        }
    }
}

/// The password of Basic credentials (RFC 7617), if it is a token. The user may have any name.
fn password(credentials: &str) -> Option<Secret> {
    let decoded = String::from_utf8(STANDARD.decode(credentials).ok()?).ok()?;
    let decoded = Secret::new(decoded);
    let (_, password) = decoded.expose().split_once(':')?;
    password.starts_with(TOKEN_PREFIX).then(|| Secret::new(password))
}

/// The session secret among the cookies, which HTTP/2 may send in several fields.
fn session_cookie(headers: &HeaderMap) -> Option<&str> {
    let fields = headers.get_all(header::COOKIE).iter().filter_map(|field| field.to_str().ok());
    let mut pairs = fields.flat_map(|field| field.split(';')).filter_map(|p| p.split_once('='));
    pairs.find(|(name, _)| name.trim() == SESSION_COOKIE).map(|(_, value)| value.trim())
}

/// Whether a browser says that a page of another origin sent the request.
fn is_cross_site(parts: &Parts) -> bool {
    let site = single(&parts.headers, &header::HeaderName::from_static("sec-fetch-site"));
    site.is_some_and(|site| site != "same-origin" && site != "none")
}

/// Whether a page of this very origin sent the request, as far as a browser tells.
fn may_use_cookie(parts: &Parts) -> bool {
    if is_cross_site(parts) {
        return false;
    }
    let safe = parts.method == Method::GET || parts.method == Method::HEAD;
    is_same_origin(parts) || (safe && !parts.headers.contains_key(header::ORIGIN))
}
