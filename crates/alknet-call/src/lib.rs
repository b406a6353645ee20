//! A JSON call protocol: one registry of operations, called from either end of a connection.
//!
//! ```
//! use alknet_call::{CallLimits, Context, Operation, OperationRegistry, Peer};
//! # use alknet_core::{Alpn, Audit, AuthContext, Scopes, TransportKind};
//! # use alknet_testing::{identities::identity, memory};
//!
//! #[derive(serde::Deserialize, schemars::JsonSchema)]
//! struct Pair { a: i64, b: i64 }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let sum = Operation::query("math/sum", async |_: Context, Pair { a, b }: Pair| Ok(a + b))?
//!     .describe("Adds two numbers.");
//! let node = OperationRegistry::new(Audit::to_log(), [sum])?;
//! # let (client, server) = memory::pair();
//! # let auth = AuthContext::anonymous(Alpn::service("call")?, TransportKind::Memory, None);
//! # let alice = AuthContext { identity: Some(std::sync::Arc::new(identity("alice", &["call"]))), ..auth.clone() };
//! # let nothing = OperationRegistry::new(Audit::to_log(), [])?;
//!
//! // On the node, `CallAdapter` does this for every connection on `alknet/call`.
//! let (_, driver) = Peer::new(server, node, alice, CallLimits::default(), Default::default());
//! let serving = driver.run();
//!
//! let (peer, driver) = Peer::new(client, nothing, auth, CallLimits::default(), Default::default());
//! let calling = async {
//!     let sum: i64 = peer.call("math/sum", &serde_json::json!({ "a": 2, "b": 40 })).await?;
//!     assert_eq!(sum, 42);
//!     Ok::<_, Box<dyn std::error::Error>>(())
//! };
//! tokio::select! {
//!     outcome = calling => outcome?,
//!     _ = async { tokio::join!(serving, driver.run()) } => {}
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # The model
//! An [`Operation`] is a query, a mutation or a subscription with a name, JSON Schemas and an
//! [`Access`]. The types of a Rust function give the schemas. The [`OperationRegistry`] checks
//! the caller's rights and the input and [`start`](OperationRegistry::start)s an
//! [`Execution`], which every way in (this protocol's frames, REST, MCP) drives alike; dropping
//! it cancels the operation and all that it has called. A [`Peer`] is the other end of a
//! connection, and both ends call: what one says it serves, by `services/register`, the
//! operations that it calls can call in turn. [`CallAdapter`] is the handler of `alknet/call`,
//! and [`Client`] stays connected to one. The frames are described in `docs/call.md`, and
//! read and written by [`wire`].
//!
//! # Invariants
//! - What a caller may not use does not exist for them: the answer is the same.
//! - An operation runs only with input that fits its schema, and never longer than its
//!   deadline.
//! - A call that an operation makes has the rights that its caller and it have in common,
//!   unless an elevation is declared; then it is in the audit log.
//! - Frames, queues, items on their way and calls in progress are bounded, and whoever reads
//!   too slowly is told, then ended.
//! - A peer's bytes cause no panic, and a panicking operation fails its own call alone.
//!
//! # Security limits
//! The input is checked against the schema, and that is all: what a handler does with a path or a command is its
//! own. Descriptions and errors of a peer are its text. A peer that serves operations sees
//! what it is asked.

mod answer;
mod client;
mod context;
mod discovery;
mod error;
mod execution;
mod handler;
mod items;
mod line;
mod name;
mod operation;
mod peer;
mod pending;
mod registry;
mod schema;
pub mod wire;
mod writer;

pub use client::{Backoff, Client, Connect, ConnectError};
pub use context::{Context, Nested};
pub use discovery::{Nothing, Served};
pub use error::{CallError, ErrorCode};
pub use execution::Execution;
pub use handler::{CallAdapter, Peers};
pub use items::{Gone, Item, Items};
pub use name::{InvalidName, OperationName};
pub use operation::{
    Access, DeclaredError, Handler, InvalidOperation, Kind, Operation, Output, Spec,
};
pub use peer::{CallLimits, CallOptions, Driver, Peer, Subscription};
pub use registry::{OperationRegistry, RegisterError, Request};
pub use schema::{InvalidSchema, Schema};

/// The audit event of a mutation that was called; its `subject` is the operation.
pub const CALLED: &str = "called";
/// The audit event of a call that an operation made with rights that its caller has not.
pub const ELEVATED: &str = "elevated";
