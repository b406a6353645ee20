//! What of a running node follows its configuration.

use std::sync::Arc;

use alknet_host::{Accounts, network::Policy};
use alknet_ssh::RevokedKeys;

use crate::{
    certificates::{CertificateError, Certificates, Loaded},
    chain::ChainProvider,
    failure::Failure,
    node::{Settings, providers},
    recordings::Recordings,
    routes::Routes,
    store::Store,
};

/// The parts of a node that take new settings while it serves. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    pub(crate) accounts: Accounts,
    pub(crate) recordings: Recordings,
    pub(crate) http: alknet_http::Live,
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) identities: Arc<ChainProvider>,
    pub(crate) network: Policy,
    pub(crate) revoked_keys: RevokedKeys,
    pub(crate) routes: Routes,
    pub(crate) store: Store,
}

impl Live {
    /// Takes over all that can be, or nothing if any of it cannot be used; whether there is
    /// another certificate now. Sessions go on as they began. If the future is dropped,
    /// nothing has changed.
    pub(crate) async fn apply(&self, settings: &Settings) -> Result<bool, Failure> {
        let loaded = self.load_certificate(settings).await?;
        let providers = providers(&self.store, &settings.config)?;
        // The last that can fail, and it changes nothing then.
        self.http.set_decoy(settings.decoy())?;
        let changed = loaded.is_some_and(|loaded| self.certificates.replace(loaded));
        self.http.set_routes(self.routes.public(settings), self.routes.private(settings));
        self.http.set_allowed_origins(settings.origins());
        self.recordings.set(settings.config.recordings.rules());
        self.accounts.set(settings.config.accounts.mapping());
        self.identities.replace(providers);
        self.network.replace(settings.config.forward.policy());
        self.revoked_keys.set_file(settings.revoked_keys());
        Ok(changed)
    }

    /// Files may be slow, and sessions must not wait for them.
    async fn load_certificate(&self, settings: &Settings) -> Result<Option<Loaded>, Failure> {
        let (certificates, source) = (self.certificates.clone(), settings.certificate());
        let load =
            move || -> Result<Option<Loaded>, CertificateError> { certificates.load(source) };
        Ok(tokio::task::spawn_blocking(load).await??)
    }
}
