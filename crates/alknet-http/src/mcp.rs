//! MCP, the Model Context Protocol, by Streamable HTTP: operations as the tools of a model.
//!
//! ```
//! # use alknet_call::{CallError, Context, Nothing, Operation, OperationRegistry};
//! # use alknet_core::Audit;
//! # use alknet_http::mcp::{Mcp, Server};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let hello = Operation::query("demo/hello", async |_: Context, Nothing {}| Ok("hello"))?;
//! let operations = OperationRegistry::new(Audit::to_log(), [hello])?;
//! let mcp = Mcp::new(operations, Server::new("demo", "1.0"));
//! let (public, private) = (mcp.challenge(), mcp.routes());
//! # Ok(())
//! # }
//! ```
//!
//! # Tools
//! Every operation that the caller may use is a tool; one that they may not use answers as
//! one that does not exist. `node/status` is the tool `node_status`. The name of a namespace
//! with an underscore in it ends in a dot instead (`my_files.read`), so that no two operations
//! have the same name. The operations `services/…` are left out: MCP tells of tools by itself.
//!
//! - Output is `structuredContent`, and the same as text. What is no object stands in one, as
//!   `result`.
//! - A subscription gives each item by a progress notification, if the caller asks for those,
//!   and all of them at the end: `{"items": […], "ended": true}`. After 256 items, 1 MiB of
//!   them or, without progress, a minute, it is ended from here, and `ended` is `false`.
//! - A failure of an operation is a result with `isError` and the failure as
//!   `structuredContent`; only a tool that does not exist is an error of the protocol.
//!
//! # Requests and sessions
//! Every request is authenticated by itself, and has the rights of its own credential. In the
//! current revision of the protocol there are no sessions. Clients of the ones before get one
//! by `initialize`: it belongs to the credential that began it, ends with that, and is unknown
//! to everybody else. A request that is cancelled, or whose answer nobody reads any more, ends
//! the operation and all that it has called in turn, in all revisions. When the node shuts
//! down, a subscription ends with what it has, and anything else may come to its end.
//!
//! # Strangers
//! A node that shows itself adds [`Mcp::challenge`] to its public routes: strangers are told
//! to bring a bearer token (RFC 6750), and where that is described (RFC 9728). No
//! authorization server is named, because the node's owner hands tokens out. Any other node
//! leaves it away, and a stranger gets the decoy's answer.

mod answer;
mod challenge;
mod handler;
pub mod import;
mod result;
mod sessions;
mod tool;

use std::{sync::Arc, time::Duration};

use alknet_call::OperationRegistry;
use axum::{Router, routing::any};
use rmcp::{
    model::{Implementation, ServerCapabilities, ServerConfig},
    transport::StreamableHttpServerConfig,
};

use sessions::Sessions;

/// Where MCP is.
const PATH: &str = "/alknet/mcp";
/// How often something is sent on a stream on which nothing happens.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What a server says of itself.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Server {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What models are told of it.
    pub instructions: Option<String>,
    /// The longest request, in bytes.
    pub max_body: usize,
}

impl Server {
    /// A server that says no more than this.
    pub fn new(name: impl Into<String>, version: impl Into<String>) -> Self {
        let (name, version) = (name.into(), version.into());
        Self { name, version, instructions: None, max_body: 1024 * 1024 }
    }
}

/// The operations of a registry as an MCP server. Cheap to clone; every clone is the same
/// server, with the same sessions.
#[derive(Debug, Clone)]
pub struct Mcp(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    operations: OperationRegistry,
    info: ServerConfig,
    transport: StreamableHttpServerConfig,
    sessions: Arc<Sessions>,
}

impl Mcp {
    /// A server of these operations.
    pub fn new(operations: OperationRegistry, server: Server) -> Self {
        let mut info = ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new(server.name, server.version));
        info.instructions = server.instructions;
        // Who may ask, and for which origin, is decided before the transport sees a request;
        // without a credential, which no page of another origin has, the host means nothing.
        let transport = StreamableHttpServerConfig::default()
            .disable_allowed_hosts()
            .with_json_response(true)
            .with_sse_keep_alive(Some(KEEP_ALIVE))
            .with_sse_retry(None)
            .with_max_request_body_bytes(server.max_body);
        let sessions = Arc::default();
        Self(Arc::new(Inner { operations, info, transport, sessions }))
    }

    /// The server itself, for [`Builder::private`](crate::Builder::private).
    pub fn routes(&self) -> Router {
        Router::new().route(PATH, any(answer::answer)).with_state(self.clone())
    }

    /// What strangers are told, for [`Builder::public`](crate::Builder::public) of a node that
    /// does not hide.
    pub fn challenge(&self) -> Router {
        challenge::routes(&self.0.info.server_info.name)
    }

    /// How many sessions there are.
    pub fn sessions(&self) -> usize {
        self.0.sessions.count()
    }
}
