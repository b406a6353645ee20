//! Servers elsewhere whose operations the node offers as its own.

use std::collections::BTreeSet;

use alknet_call::OperationRegistry;
use alknet_http::{api::import as api, mcp::import::Import};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{config::Config, failure::Failure};

/// The namespaces of the node itself, some of which it fills while it starts.
const OWN: [&str; 6] = ["audit", "config", "exec", "node", "peers", "tokens"];

/// Begins to import what the configuration names, until `stop`. A server that is away is no
/// failure: it is tried again and again.
pub(crate) async fn start(
    config: &Config,
    operations: &OperationRegistry,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    // A namespace that is taken is a mistake that shows at once.
    let mut taken: BTreeSet<String> = OWN.map(String::from).into();
    let mut claim = |namespace: &str| match taken.insert(namespace.to_owned()) {
        true => Ok(operations.mount(namespace, [])?),
        false => Err(Failure::new(format!("import: the namespace {namespace} is taken"))),
    };
    for server in config.import.mcp.clone() {
        claim(&server.namespace)?;
        let source = tokio::task::spawn_blocking(move || server.source()).await??;
        let import = Import::new(source, operations.clone())?;
        tasks.spawn(stop.clone().run_until_cancelled_owned(import.run()));
    }
    for described in config.import.openapi.clone() {
        claim(&described.namespace)?;
        let source = tokio::task::spawn_blocking(move || described.source()).await??;
        let import = api::Import::new(source, operations.clone())?;
        tasks.spawn(stop.clone().run_until_cancelled_owned(import.run()));
    }
    Ok(())
}
