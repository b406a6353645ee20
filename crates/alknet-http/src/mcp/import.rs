//! MCP servers elsewhere: their tools become operations of this node.
//!
//! A tool is an operation in the namespace of its server, so that nobody may use it without
//! the scope `call:NAMESPACE/NAME` or a wider one. Its name is brought into the form of an
//! operation's, its schemas are taken over, and a call goes to the server and back. A call
//! that is aborted here is cancelled there; one of which nothing is heard for a minute, not
//! even progress, has failed.
//!
//! While the server is away its operations answer `UNAVAILABLE`, and it is tried again. Its
//! tools are listed anew every five minutes, and when it says that they have changed.
//!
//! What the server says is not trusted: the number of its tools, their schemas, descriptions
//! and answers are bounded, and no schema makes the node fetch anything.

mod https;
mod remote;

use std::{error::Error, fmt, sync::Arc, time::Duration};

use alknet_call::{Operation, OperationName, OperationRegistry};
use alknet_core::Secret;
use http::Uri;
use rmcp::{
    ClientHandler, RoleClient,
    handler::client::progress::ProgressDispatcher,
    model::{
        ClientConfig, Implementation, PaginatedRequestParams, ProgressNotificationParam,
        ProtocolVersion, Tool,
    },
    service::{
        ClientInitializeError, ClientLifecycleMode, ClientServiceExt as _, NotificationContext,
        Peer, RunningService, ServiceError,
    },
    transport::{
        StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig,
    },
};
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};
use tokio_util::task::TaskTracker;

use https::Https;
use remote::Remote;

use crate::outbound;
pub use crate::outbound::OutboundError;

/// How often the tools are listed anew.
const AGAIN: Duration = Duration::from_secs(5 * 60);
/// How long connecting, and listing one page of tools, may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the first and the longest pause is, after which a server that is away is tried
/// again.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// The most tools and pages of them that are taken from one server.
const TOOLS: usize = 256;
const PAGES: usize = 32;

/// A server whose tools are to become operations.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Source {
    /// The namespace of the operations.
    pub namespace: String,
    /// Where the server's MCP is.
    pub url: Uri,
    /// A bearer token for it.
    pub token: Option<Secret>,
    /// Whether `http://` may lead to another machine than this.
    pub allow_plain: bool,
    /// Authorities for its certificate, beside those of the system: X.509 in DER.
    pub authorities: Vec<Vec<u8>>,
}

impl Source {
    /// A server that needs no token.
    pub fn new(namespace: impl Into<String>, url: Uri) -> Self {
        let namespace = namespace.into();
        Self { namespace, url, token: None, allow_plain: false, authorities: Vec::new() }
    }

    /// Whether it can be imported at all. Nothing is sent.
    pub fn check(&self) -> Result<(), ImportError> {
        if !OperationName::is_part(&self.namespace) {
            return Err(ImportError::Namespace(self.namespace.clone()));
        }
        Ok(outbound::check(&self.url, self.allow_plain)?)
    }
}

/// A server cannot be imported like this.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The namespace cannot be a part of a name.
    #[error("{0:?} is no namespace: lower-case letters, digits, - and _, 64 at most")]
    Namespace(String),
    /// The server cannot be asked like this.
    #[error(transparent)]
    Outbound(#[from] OutboundError),
}

/// A server whose tools are operations for as long as [`run`](Import::run) does.
pub struct Import {
    namespace: String,
    url: Uri,
    https: Https,
    registry: OperationRegistry,
    server: Server,
}

/// Why a server is away.
#[derive(Debug, thiserror::Error)]
enum Away {
    #[error("it does not answer")]
    Silent,
    #[error("it cannot be reached")]
    Connect(#[source] Box<ClientInitializeError>),
    #[error("its tools cannot be listed")]
    List(#[source] ServiceError),
    #[error("its tools cannot be taken over")]
    Mount(#[source] alknet_call::RegisterError),
    #[error("the connection has ended")]
    Ended,
}

impl Import {
    /// Prepares to import a server. Nothing is sent yet.
    pub fn new(source: Source, registry: OperationRegistry) -> Result<Self, ImportError> {
        source.check()?;
        let Source { namespace, url, token, authorities, .. } = source;
        let https = Https::new(outbound::client(authorities)?, token);
        Ok(Self { namespace, url, https, registry, server: Server::default() })
    }

    /// Keeps the operations up to date, for ever. When the future is dropped, the operations
    /// stay and answer `UNAVAILABLE`.
    pub async fn run(self) {
        let mut pause = PAUSE.0;
        loop {
            let away = match self.connect().await {
                Ok(client) => {
                    let away = self.keep(&client, &mut pause).await;
                    self.server.peer.send_replace(None);
                    away
                }
                Err(away) => away,
            };
            self.is_away(&away);
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    fn is_away(&self, away: &Away) {
        let (namespace, error) = (&self.namespace, away as &dyn Error);
        tracing::warn!(namespace, error, "an imported MCP server is away");
    }

    async fn connect(&self) -> Result<Running, Away> {
        let mut config = StreamableHttpClientTransportConfig::with_uri(self.url.to_string());
        config.allow_stateless = true;
        let transport = StreamableHttpClientTransport::with_client(self.https.clone(), config);
        let lifecycle = ClientLifecycleMode::Auto {
            preferred_versions: vec![ProtocolVersion::V_2026_07_28],
            legacy_version: None,
        };
        let connecting = self.server.client().serve_with_lifecycle(transport, lifecycle);
        let connected = timeout(PATIENCE, connecting).await.map_err(|_| Away::Silent)?;
        connected.map_err(|error| Away::Connect(Box::new(error)))
    }

    /// Until the server is away.
    async fn keep(&self, client: &Running, pause: &mut Duration) -> Away {
        loop {
            if let Err(away) = self.list(client).await {
                return away;
            }
            *pause = PAUSE.0;
            tokio::select! {
                () = sleep(AGAIN) => (),
                // A server that never rests is listed no more often than this.
                () = async { self.server.changed.notified().await; sleep(PAUSE.0).await } => (),
                () = ended(client) => return Away::Ended,
            }
        }
    }

    /// Makes operations of the tools that there are now.
    async fn list(&self, client: &Running) -> Result<(), Away> {
        let operations = self.operations(tools(client.peer()).await?);
        self.registry.mount(&self.namespace, operations).map_err(Away::Mount)?;
        self.server.peer.send_replace(Some(client.peer().clone()));
        Ok(())
    }

    fn operations(&self, tools: Vec<Tool>) -> Vec<Operation> {
        let mut operations: Vec<Operation> = Vec::new();
        for tool in tools {
            let name = tool.name.to_string();
            let known = |operation: &Operation| {
                operations.iter().any(|other| other.spec().name == operation.spec().name)
            };
            match Remote::operation(&self.namespace, tool, &self.server) {
                Ok(operation) if !known(&operation) => operations.push(operation),
                Ok(_) => self.left_out(&name, &"its name is that of another"),
                Err(error) => self.left_out(&name, &error),
            }
        }
        operations
    }

    fn left_out(&self, tool: &str, reason: &dyn fmt::Display) {
        let tool: String = tool.chars().take(64).collect();
        tracing::warn!(namespace = self.namespace, tool, %reason, "a tool is left out");
    }
}

impl fmt::Debug for Import {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Import")
            .field("namespace", &self.namespace)
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// A connection to the server.
type Running = RunningService<RoleClient, Client>;

/// What the operations of one server share.
#[derive(Clone, Default)]
struct Server {
    /// Its present connection, if there is one.
    peer: watch::Sender<Option<Peer<RoleClient>>>,
    changed: Arc<Notify>,
    progress: ProgressDispatcher,
    calls: TaskTracker,
}

impl Server {
    fn client(&self) -> Client {
        Client { changed: self.changed.clone(), progress: self.progress.clone() }
    }
}

/// What the server tells by itself.
struct Client {
    changed: Arc<Notify>,
    progress: ProgressDispatcher,
}

impl ClientHandler for Client {
    fn get_info(&self) -> ClientConfig {
        let mut info = ClientConfig::default();
        info.client_info = Implementation::new("alknet", env!("CARGO_PKG_VERSION"));
        info
    }

    async fn on_progress(
        &self,
        progress: ProgressNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        self.progress.handle_notification(progress).await;
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.changed.notify_one();
    }
}

/// All tools, as far as they are taken.
async fn tools(peer: &Peer<RoleClient>) -> Result<Vec<Tool>, Away> {
    let (mut tools, mut cursor) = (Vec::new(), None);
    for _ in 0..PAGES {
        let page = PaginatedRequestParams::default().with_cursor(cursor);
        let listed = timeout(PATIENCE, peer.list_tools(Some(page))).await;
        let listed = listed.map_err(|_| Away::Silent)?.map_err(Away::List)?;
        tools.extend(listed.tools);
        cursor = listed.next_cursor;
        if cursor.is_none() || tools.len() >= TOOLS {
            break;
        }
    }
    tools.truncate(TOOLS);
    Ok(tools)
}

/// Waits until the connection has ended.
async fn ended(client: &Running) {
    while !client.peer().is_transport_closed() {
        sleep(Duration::from_secs(1)).await;
    }
}

#[cfg(test)]
mod tests;
