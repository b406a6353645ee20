//! The handler of `alknet/call`.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use alknet_core::{Alpn, AuthContext, Connection, HandlerError, ProtocolHandler};
use tokio_util::sync::CancellationToken;

use crate::{CallLimits, OperationRegistry, Peer, registry::SERVICE};

/// The handler of `alknet/call`: every connection is a place where both sides call each
/// other.
#[derive(Debug)]
pub struct CallAdapter {
    registry: OperationRegistry,
    limits: CallLimits,
    peers: Peers,
    draining: CancellationToken,
}

/// The other ends of the live connections, by the number of their session: of those with a grant
/// of `call`, who may serve operations. Cheap to clone.
#[derive(Clone, Default)]
pub struct Peers(Arc<Mutex<BTreeMap<u64, Peer>>>);

impl CallAdapter {
    /// A handler that serves these operations.
    pub fn new(registry: OperationRegistry, limits: CallLimits, peers: Peers) -> Self {
        Self { registry, limits, peers, draining: CancellationToken::new() }
    }
}

impl ProtocolHandler for CallAdapter {
    fn name(&self) -> &'static str {
        "call"
    }

    fn alpns(&self) -> Vec<Alpn> {
        Vec::from_iter(Alpn::service("call"))
    }

    async fn handle(&self, connection: Connection, auth: AuthContext) -> Result<(), HandlerError> {
        let identity = auth.identity.as_ref();
        let may_serve = identity.is_some_and(|identity| identity.scopes.admit(SERVICE));
        let session = auth.session.id().filter(|_| may_serve);
        let (peer, driver) = Peer::new(
            connection,
            self.registry.clone(),
            auth,
            self.limits.clone(),
            self.draining.clone(),
        );
        let _listed = session.map(|session| self.peers.list(session, peer));
        driver.run().await;
        Ok(())
    }

    async fn shutdown(&self) {
        self.draining.cancel();
    }
}

impl Peers {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The other end of a session.
    pub fn of(&self, session: u64) -> Option<Peer> {
        self.peers().get(&session).cloned()
    }

    fn peers(&self) -> MutexGuard<'_, BTreeMap<u64, Peer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn list(&self, session: u64, peer: Peer) -> Listed {
        self.peers().insert(session, peer);
        Listed { peers: self.clone(), session }
    }
}

/// A row among the peers; removed on drop.
struct Listed {
    peers: Peers,
    session: u64,
}

impl Drop for Listed {
    fn drop(&mut self) {
        let peer = self.peers.peers().remove(&self.session);
        // Its connection must not end under the lock.
        drop(peer);
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.peers().keys()).finish()
    }
}
