//! What the targets share: a runtime, a few operations, and a node in memory.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use alknet_call::{CallAdapter, CallLimits, Context, Items, Operation, OperationRegistry, Peers};
use alknet_core::{
    Access, Alpn, Audit, AuditEvent, AuditSink, AuthContext, Connection, Dispatcher, HandlerError,
    HandlerRegistry, Identity, Limits, NodeIdentity, ProtocolHandler, SingleStream, Stream,
    TransportKind,
};
use alknet_http::{
    HttpAdapter, api,
    mcp::{Mcp, Server},
};
use alknet_testing::identities::{Identities, identity};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::{
    runtime::{Builder, Runtime},
    task::JoinHandle,
    time::{sleep, timeout},
};

/// The token of somebody who may use everything.
pub const TOKEN: &str = "alk_of-alice";

/// Longer than anything of one input may take. The clock stands still while anybody has
/// something to do, so what takes that long would wait for ever.
const PATIENCE: Duration = Duration::from_secs(3600);

thread_local! {
    static RUNTIME: Runtime =
        Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
}

/// Runs one input.
pub fn run<F: Future>(input: F) -> F::Output {
    RUNTIME.with(|runtime| runtime.block_on(input))
}

/// What this comes to; it has to come to something.
pub async fn ends<F: Future>(what: &str, future: F) -> F::Output {
    match timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what} does not end"),
    }
}

/// Writing to a log costs more than what is looked for.
#[derive(Debug)]
struct Nobody;

impl AuditSink for Nobody {
    fn record(&self, _event: AuditEvent) {}
}

/// Who may use everything.
pub fn alice() -> Identity {
    identity("alice", &["*"])
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct Pair {
    a: i64,
    b: i64,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Count {
    #[schemars(range(max = 200))]
    to: u8,
    #[serde(default)]
    text: String,
}

/// One operation of each kind, a slow one, and one that calls another.
pub fn operations() -> OperationRegistry {
    static OPERATIONS: LazyLock<OperationRegistry> = LazyLock::new(|| {
        let add = Operation::query("test/add", async |_: Context, Pair { a, b }: Pair| {
            Ok(a.wrapping_add(b))
        });
        let set = Operation::mutation("test/set", async |_: Context, value: Value| Ok(value));
        let count = Operation::subscription(
            "test/count",
            async |context: Context, Count { to, text }: Count, items: Items<(u8, String)>| {
                let from = context.after().and_then(|after| after.parse().ok()).unwrap_or(0);
                for i in from..to {
                    items.send_event(i.to_string(), (i, text.clone())).await?;
                }
                Ok(())
            },
        );
        let wait = Operation::query("test/wait", async |_: Context, Count { to, .. }: Count| {
            sleep(Duration::from_secs(to.into())).await;
            Ok(())
        });
        let relay = Operation::query("test/relay", async |context: Context, input: Value| {
            let operation = input.get("operation").and_then(Value::as_str).unwrap_or("test/add");
            context.call::<_, Value>(operation, &input["input"]).await
        });
        let all = [add, set, count.map(Operation::resumable), wait, relay];
        OperationRegistry::new(Audit::new(Nobody), all.map(Result::unwrap)).unwrap()
    });
    OPERATIONS.clone()
}

/// Sends back what it gets.
struct Echo;

impl ProtocolHandler for Echo {
    fn name(&self) -> &'static str {
        "echo"
    }

    fn alpns(&self) -> Vec<Alpn> {
        Vec::from_iter(Alpn::service("echo"))
    }

    async fn handle(&self, connection: Connection, _: AuthContext) -> Result<(), HandlerError> {
        let (mut send, mut recv) = connection.accept_bi().await?.split();
        tokio::io::copy(&mut recv, &mut send).await?;
        tokio::io::AsyncWriteExt::shutdown(&mut send).await?;
        drop((send, recv));
        connection.closed().await;
        Ok(())
    }
}

/// A new HTTP/1.1 connection to a node: the client's stream, and the server, which ends with
/// it. The node serves `alknet/echo`, `alknet/call`, the operations by REST and by MCP, and
/// tickets.
pub fn http() -> (Stream, JoinHandle<()>) {
    thread_local! {
        static NODE: Dispatcher = node();
    }
    let (client, server) = tokio::io::duplex(16 * 1024);
    let server = SingleStream::accepted(TransportKind::Tls, Stream::from_bistream(server));
    let alpn = Alpn::new("http/1.1").unwrap();
    let auth = AuthContext::anonymous(alpn, TransportKind::Tls, None);
    let serving = NODE.with(|node| node.admit(auth).unwrap().start(Connection::new(server)));
    (Stream::from_bistream(client), serving)
}

fn node() -> Dispatcher {
    let identities = Arc::new(Identities::new().with_token(TOKEN, alice()));
    let mut registry = HandlerRegistry::new();
    registry.register(Echo, Access::Scope).unwrap();
    let call = CallAdapter::new(operations(), CallLimits::default(), Peers::new());
    registry.register(call, Access::Scope).unwrap();
    let services = Dispatcher::new(registry, Limits::default(), Audit::new(Nobody));
    let identity = Arc::new(NodeIdentity::from_seed(&[1; 32]).unwrap());
    let mcp = Mcp::new(operations(), Server::new("fuzzed", "0"));
    let http = HttpAdapter::builder(services.clone(), identities, identity)
        .private(api::routes(operations(), api::Settings::default()))
        .private(mcp.routes())
        .build();
    services.extend(http.unwrap(), Access::Public).unwrap()
}
