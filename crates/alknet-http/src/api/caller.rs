//! Who may have what.

use std::sync::Arc;

use alknet_call::{CallError, OperationRegistry};
use alknet_core::{AuthContext, AuthMethod, Identity, Login};
use http::{HeaderName, request::Parts};
use tokio_util::sync::CancellationToken;

use super::{Problem, Refusal};
use crate::{
    app::Shutdown,
    origin::{is_same_origin, single},
};

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Somebody who may call at least something.
pub(super) struct Caller {
    pub(super) auth: AuthContext,
    identity: Arc<Identity>,
    may_call: bool,
    shutdown: Shutdown,
}

impl Caller {
    /// Whoever has an identity and a scope of `call`, or of a service with operations of its
    /// own.
    pub(super) fn of(
        registry: &OperationRegistry,
        auth: AuthContext,
        shutdown: Shutdown,
        parts: &Parts,
    ) -> Option<Self> {
        let identity = auth.identity.clone()?;
        // Whoever gets a person to follow a link may make their browser show a page, but
        // not run anything: a GET comes with the cookie also then.
        let may_call = auth.method != AuthMethod::Cookie || is_own_page(parts);
        registry.admits(&identity.scopes).then_some(Self { auth, identity, may_call, shutdown })
    }

    /// Whether the request may be for an operation.
    pub(super) fn may_call(&self) -> bool {
        self.may_call
    }

    /// Cancelled when the node shuts down.
    pub(super) fn shutdown(&self) -> CancellationToken {
        self.shutdown.0.clone()
    }

    /// A place on the node for the time of a call, which the caller's revocation ends.
    pub(super) fn login(&self) -> Result<Login, Refusal> {
        self.auth
            .session
            .login(self.identity.clone())
            .map_err(|refusal| Problem::from(CallError::unavailable(refusal.to_string())).into())
    }
}

/// Whether the browser says that a page of this origin sent the request.
fn is_own_page(parts: &Parts) -> bool {
    is_same_origin(parts) || single(&parts.headers, &FETCH_SITE) == Some("same-origin")
}
