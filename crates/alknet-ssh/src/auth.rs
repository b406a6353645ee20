//! Who may log in.

use std::sync::Arc;

use alknet_core::{
    AuditEvent, AuthContext, Identity, IdentityProvider, KeyFingerprint, ProviderError,
};
use russh::keys::{Algorithm, PublicKey};

use crate::{
    handler::Settings,
    user_key::{UserKeyError, accepted},
};

/// The scope that admits to SSH.
const SCOPE: &str = "ssh";
/// How the audit log names a proven SSH key.
const METHOD: &str = "publickey";

/// Why a login is refused. For the audit log: the client is told only that it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("login name {0:?} is not the node's account")]
    WrongUser(String),
    #[error(transparent)]
    Kind(#[from] UserKeyError),
    #[error("unknown key")]
    UnknownKey,
    #[error("outside the identity's scopes")]
    OutOfScope,
    #[error("certificates are not accepted")]
    Certificate,
    #[error("no login within {0} seconds")]
    TooLate(u64),
    #[error(transparent)]
    Store(#[from] ProviderError),
}

/// The login of one SSH transport.
#[derive(Debug)]
pub(crate) struct Login {
    settings: Arc<Settings>,
    auth: AuthContext,
    proven: Option<KeyFingerprint>,
}

impl Login {
    pub(crate) fn new(settings: Arc<Settings>, auth: AuthContext) -> Self {
        Self { settings, auth, proven: None }
    }

    /// Whether a login with this key could succeed. The client has not proven yet that the
    /// key is its own.
    pub(crate) async fn offered(&self, user: &str, key: &PublicKey, algorithm: &Algorithm) -> bool {
        let fingerprint = fingerprint(key);
        let verdict = self.check(user, key, algorithm, fingerprint).await;
        verdict.map_err(|refusal| self.refused(fingerprint, &refusal)).is_ok()
    }

    /// Logs in with a key that the client has proven to be its own.
    pub(crate) async fn proven(
        &mut self,
        user: &str,
        key: &PublicKey,
        algorithm: &Algorithm,
    ) -> bool {
        let fingerprint = fingerprint(key);
        match self.check(user, key, algorithm, fingerprint).await {
            Ok((identity, fingerprint)) => {
                let event = self.event(AuditEvent::AUTHENTICATED, Some(fingerprint));
                self.settings.audit.record(AuditEvent { identity: Some(identity.id), ..event });
                self.proven = Some(fingerprint);
                true
            }
            Err(refusal) => {
                self.refused(fingerprint, &refusal);
                false
            }
        }
    }

    /// Whether the key of this login is still good: keys and scopes can be taken away while
    /// a session lasts.
    pub(crate) async fn holds(&self) -> bool {
        let Some(fingerprint) = self.proven else { return false };
        let verdict = self.identity(fingerprint).await;
        verdict.map_err(|refusal| self.refused(Some(fingerprint), &refusal)).is_ok()
    }

    /// Puts a refusal into the audit log.
    pub(crate) fn refused(&self, key: Option<KeyFingerprint>, refusal: &Refusal) {
        let mut reason = refusal.to_string();
        if let Refusal::Store(error) = refusal {
            reason.extend(std::error::Error::source(error).map(|cause| format!(": {cause}")));
        }
        self.settings.audit.record(self.event(AuditEvent::REFUSED, key).because(reason));
    }

    async fn check(
        &self,
        user: &str,
        key: &PublicKey,
        algorithm: &Algorithm,
        fingerprint: Option<KeyFingerprint>,
    ) -> Result<(Identity, KeyFingerprint), Refusal> {
        if user != self.settings.account.name {
            return Err(Refusal::WrongUser(user.chars().take(32).collect()));
        }
        accepted(key.key_data(), algorithm)?;
        let fingerprint = fingerprint.ok_or(Refusal::UnknownKey)?;
        Ok((self.identity(fingerprint).await?, fingerprint))
    }

    async fn identity(&self, fingerprint: KeyFingerprint) -> Result<Identity, Refusal> {
        let identities: &dyn IdentityProvider = &*self.settings.identities;
        let identity = identities.by_key(&fingerprint).await?.ok_or(Refusal::UnknownKey)?;
        if identity.scopes.allow(SCOPE) { Ok(identity) } else { Err(Refusal::OutOfScope) }
    }

    fn event(&self, event: &'static str, key: Option<KeyFingerprint>) -> AuditEvent {
        let mut event = AuditEvent::about(event, &self.auth);
        if let Some(key) = key {
            event.key = Some(key.to_string());
            event.method = Some(METHOD);
        }
        event
    }
}

fn fingerprint(key: &PublicKey) -> Option<KeyFingerprint> {
    key.to_bytes().ok().map(|blob| KeyFingerprint::of_openssh_blob(&blob))
}
