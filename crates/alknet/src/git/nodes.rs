//! Other nodes, from which mirrors fetch.

use std::sync::Arc;

use alknet_core::{Alpn, BoxFuture, Connection, InvalidAlpn, NodeIdentity};
use alknet_git::{MirrorError, MirrorPolicy, Nodes};

use crate::{
    connect::{ConnectError, ReachError, Route, Via},
    home::Home,
    keys::Keys,
};

/// Other nodes, reached with the identity that this one has.
#[derive(Debug)]
pub(crate) struct OtherNodes {
    home: Home,
    alpn: Alpn,
    /// Where there is none, it is taken from the vault when it is needed.
    key: Option<Arc<NodeIdentity>>,
}

impl OtherNodes {
    /// For a node that runs with this key, or for a command beside it.
    pub(crate) fn new(home: &Home, key: Option<Arc<NodeIdentity>>) -> Result<Self, InvalidAlpn> {
        Ok(Self { home: home.clone(), alpn: Alpn::service("git")?, key })
    }

    async fn reach(&self, node: &str, policy: &MirrorPolicy) -> Result<Connection, ReachError> {
        let key = match &self.key {
            Some(key) => key.clone(),
            None => Arc::new(Keys::open(&self.home).await?.identity()?),
        };
        let route = Route::of_node(&self.home, node, self.alpn.clone(), key)?;
        let connected = route.connect_where(|address| policy.allows(address), Via::Auto).await?;
        Ok(connected.connection)
    }
}

impl Nodes for OtherNodes {
    fn connect<'a>(
        &'a self,
        node: &'a str,
        policy: &'a MirrorPolicy,
    ) -> BoxFuture<'a, Result<Connection, MirrorError>> {
        Box::pin(async move {
            self.reach(node, policy).await.map_err(|error| match error {
                ReachError::Connect { source: ConnectError::Forbidden, .. } => {
                    MirrorError::Forbidden(node.to_owned())
                }
                ReachError::Connect { source: ConnectError::Resolve { source, .. }, .. } => {
                    MirrorError::Resolve { host: node.to_owned(), source }
                }
                error => MirrorError::Node { node: node.to_owned(), source: Box::new(error) },
            })
        })
    }
}
