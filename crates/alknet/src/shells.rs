//! Shells that survive, on this node.

use std::sync::Arc;

use alknet_core::{Audit, IdentityProvider};
use alknet_host::{Accounts, Recorder};
use alknet_shell::{ShellAdapter, ShellConfig, ShellLimits, Shells};

/// The handler of `alknet/shell` for this node's accounts.
pub(crate) fn adapter(
    accounts: Accounts,
    identities: Arc<dyn IdentityProvider>,
    audit: Audit,
    recorder: Option<Arc<dyn Recorder>>,
    limits: ShellLimits,
) -> ShellAdapter {
    let config = ShellConfig { accounts, identities, audit, recorder, limits };
    ShellAdapter::new(Shells::new(config))
}
