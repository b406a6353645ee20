//! A node with operations, and what it notices of them.

use std::{
    future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use alknet_call::{
    CallError, Context, InvalidOperation, Items, Nothing, Operation, OperationRegistry,
};
use alknet_core::{Audit, Credential, Identity};
use alknet_http::{
    Builder,
    mcp::{Mcp, Server},
};
use alknet_testing::identities::identity;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::harness::Node;

/// May call everything.
pub(crate) const CAROL: &str = "alk_of-carol";
/// Another token of Carol's.
pub(crate) const CAROL_TOO: &str = "alk_of-carol-too";
/// May call `test/echo` alone.
pub(crate) const DORA: &str = "alk_of-dora";

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Text {
    pub(crate) text: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Count {
    count: u32,
}

/// How many operations are in progress.
#[derive(Clone)]
pub(crate) struct Running(Arc<AtomicUsize>, watch::Sender<usize>);

impl Running {
    fn new() -> Self {
        Self(Arc::default(), watch::Sender::new(0))
    }

    fn one(&self) -> OneRunning {
        self.1.send_replace(self.0.fetch_add(1, Ordering::SeqCst) + 1);
        OneRunning(self.clone())
    }

    /// Waits until so many are in progress.
    pub(crate) async fn become_(&self, count: usize) {
        let mut watch = self.1.subscribe();
        watch.wait_for(|now| *now == count).await.unwrap();
    }
}

struct OneRunning(Running);

impl Drop for OneRunning {
    fn drop(&mut self) {
        let Running(count, watch) = &self.0;
        watch.send_replace(count.fetch_sub(1, Ordering::SeqCst) - 1);
    }
}

fn operations(running: &Running) -> Result<Vec<Operation>, InvalidOperation> {
    let (hanging, endless) = (running.clone(), running.clone());
    Ok(vec![
        Operation::query("test/echo", async |_: Context, text: Text| Ok(text))?
            .describe("Says the same."),
        Operation::query("test/plain", async |_: Context, Nothing {}| Ok("plain text"))?,
        Operation::mutation("test/fail", async |_: Context, Nothing {}| {
            Err::<Text, _>(CallError::declared("TOO_LATE", "the train has left"))
        })?
        .error("TOO_LATE", "There is no train."),
        Operation::query("test/hang", move |_: Context, Nothing {}| {
            let running = hanging.one();
            async move {
                let _running = running;
                future::pending::<Result<Text, CallError>>().await
            }
        })?
        .deadline(None),
        Operation::subscription(
            "test/count",
            async |_: Context, Count { count }, items: Items<u32>| {
                for n in 1..=count {
                    items.send(n).await?;
                }
                Ok(())
            },
        )?,
        Operation::subscription(
            "test/endless",
            move |_: Context, Nothing {}, items: Items<Text>| {
                let running = endless.one();
                async move {
                    let _running = running;
                    items.send(Text { text: "first".into() }).await?;
                    future::pending().await
                }
            },
        )?,
    ])
}

/// A node with MCP, seen from outside.
pub(crate) struct Fixture {
    pub(crate) node: Node,
    pub(crate) mcp: Mcp,
    pub(crate) running: Running,
}

impl Fixture {
    /// A node that hides.
    pub(crate) fn new() -> Self {
        Self::with(|builder, _| builder)
    }

    pub(crate) fn with(configure: impl FnOnce(Builder, &Mcp) -> Builder) -> Self {
        let running = Running::new();
        let operations = operations(&running).unwrap();
        let registry = OperationRegistry::new(Audit::to_log(), operations).unwrap();
        let mcp = Mcp::new(registry, Server::new("test", "1.0"));
        let node = Node::with(|builder| configure(builder.private(mcp.routes()), &mcp));
        let carol = identity("carol", &["call"]);
        node.identities.add_token(CAROL, carol.clone());
        let credential = Credential::Token("carol-too".into());
        node.identities.add_token(CAROL_TOO, Identity { credential, ..carol });
        node.identities.add_token(DORA, identity("dora", &["call:test/echo"]));
        Self { node, mcp, running }
    }
}
