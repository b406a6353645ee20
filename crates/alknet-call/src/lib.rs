//! A JSON call protocol.

mod answer;
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
