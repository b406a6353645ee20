//! Servers elsewhere whose operations the node offers as its own.

use alknet_call::OperationRegistry;
use alknet_http::{api::import as api, mcp::import::Import};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{config::Config, failure::Failure};

/// Begins to import what the configuration names, until `stop`. A server that is away is no
/// failure: it is tried again and again.
pub(crate) async fn start(
    config: &Config,
    operations: &OperationRegistry,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    for server in config.import.mcp.clone() {
        let namespace = server.namespace.clone();
        // A namespace that the node itself has is a mistake that shows at once.
        operations.mount(&namespace, [])?;
        let source = tokio::task::spawn_blocking(move || server.source()).await??;
        let import = Import::new(source, operations.clone())?;
        tasks.spawn(stop.clone().run_until_cancelled_owned(import.run()));
    }
    for described in config.import.openapi.clone() {
        operations.mount(&described.namespace, [])?;
        let source = tokio::task::spawn_blocking(move || described.source()).await??;
        let import = api::Import::new(source, operations.clone())?;
        tasks.spawn(stop.clone().run_until_cancelled_owned(import.run()));
    }
    Ok(())
}
