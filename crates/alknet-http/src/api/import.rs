//! HTTP APIs elsewhere, by their OpenAPI document: what they can do becomes operations of
//! this node.
//!
//! An operation of the document (3.0 or 3.1, as JSON) is one in the namespace of its API, so
//! that nobody may use it without the scope `call:NAMESPACE/NAME` or a wider one. Its name
//! comes from the `operationId`, or else from the method and the path. A `GET` is a query,
//! and everything else a mutation. The input is an object: the parameters of the path, the
//! query and the header by their names, and `body`. The output is the answer's body.
//!
//! What cannot be called like this is left out, and the log says so: bodies that are not
//! JSON, parameters in cookies, schemas outside of the document, a name that is taken.
//!
//! The document is not trusted: the number of its operations and their schemas are bounded,
//! nothing is fetched for it, and it does not say where requests go, which is always below
//! [`Source::base_url`]. Redirects are not followed, and the token goes nowhere else.

mod answer;
mod document;
mod forward;
mod schema;

use std::{
    error::Error,
    fmt,
    fs::File,
    io::{self, Read as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use alknet_call::{OperationName, OperationRegistry, RegisterError};
use alknet_core::Secret;
use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use tokio::time::{sleep, timeout};

use crate::outbound;
pub use crate::outbound::OutboundError;
pub use document::InvalidDocument;
use forward::Api;

/// How often the document is read anew.
const AGAIN: Duration = Duration::from_secs(5 * 60);
/// How long fetching it may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the first and the longest pause is, after which it is tried again.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// The longest document, in bytes.
const DOCUMENT: usize = 8 * 1024 * 1024;

/// Where a document is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Document {
    /// In a file.
    File(PathBuf),
    /// On a server.
    Url(Uri),
}

/// An API whose operations are to become operations of the node.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Source {
    /// The namespace of the operations.
    pub namespace: String,
    /// Its description.
    pub document: Document,
    /// What its paths are appended to, whatever the document says of servers.
    pub base_url: Uri,
    /// A bearer token for it.
    pub token: Option<Secret>,
    /// Whether `http://` may lead to another machine than this.
    pub allow_plain: bool,
    /// Authorities for its certificate, beside those of the system: X.509 in DER.
    pub authorities: Vec<Vec<u8>>,
}

impl Source {
    /// An API that needs no token.
    pub fn new(namespace: impl Into<String>, document: Document, base_url: Uri) -> Self {
        let (namespace, token, authorities) = (namespace.into(), None, Vec::new());
        Self { namespace, document, base_url, token, allow_plain: false, authorities }
    }

    /// Whether it can be imported, as far as it can be told without reading anything.
    pub fn check(&self) -> Result<(), ImportError> {
        if !OperationName::is_part(&self.namespace) {
            return Err(ImportError::Namespace(self.namespace.clone()));
        }
        outbound::check(&self.base_url, self.allow_plain)?;
        if self.base_url.query().is_some() {
            return Err(ImportError::Query(self.base_url.clone()));
        }
        if let Document::Url(url) = &self.document {
            outbound::check(url, self.allow_plain)?;
        }
        Ok(())
    }
}

/// An API cannot be imported like this.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The namespace cannot be a part of a name.
    #[error("{0:?} is no namespace: lower-case letters, digits, - and _, 64 at most")]
    Namespace(String),
    /// It cannot be asked.
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    /// The base address has a query.
    #[error("the base address ends with a path, and this does not: {0}")]
    Query(Uri),
}

/// The operations of an API could not be taken over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file cannot be read.
    #[error("the document cannot be read")]
    File(#[from] io::Error),
    /// The document did not come in time.
    #[error("the document does not come")]
    Silent,
    /// The server cannot be asked.
    #[error("the document cannot be fetched")]
    Fetch(#[source] Box<dyn Error + Send + Sync>),
    /// The server does not have it.
    #[error("the document cannot be fetched: {0}")]
    Status(StatusCode),
    /// It is none.
    #[error(transparent)]
    Invalid(#[from] InvalidDocument),
    /// The operations do not go together with the others of the node.
    #[error("its operations cannot be taken over")]
    Mount(#[from] RegisterError),
}

/// An API whose operations are those of its document for as long as [`run`](Import::run)
/// does.
pub struct Import {
    namespace: String,
    document: Document,
    api: Arc<Api>,
    registry: OperationRegistry,
}

impl Import {
    /// Prepares to import an API. Nothing is read or sent yet.
    pub fn new(source: Source, registry: OperationRegistry) -> Result<Self, ImportError> {
        source.check()?;
        let Source { namespace, document, base_url, token, authorities, .. } = source;
        let client = outbound::client(authorities)?;
        let api = Arc::new(Api { client, base: base_url, token });
        Ok(Self { namespace, document, api, registry })
    }

    /// Keeps the operations up to date, for ever. When the future is dropped, the operations
    /// stay as they are. Cancel safe.
    pub async fn run(self) {
        let (mut pause, mut known) = (PAUSE.0, Bytes::new());
        loop {
            let outcome = async {
                let text = self.read().await?;
                if text != known {
                    self.mount(&text)?;
                    known = text;
                }
                Ok::<_, LoadError>(())
            };
            match outcome.await {
                Ok(()) => {
                    pause = PAUSE.0;
                    sleep(AGAIN).await;
                }
                Err(error) => {
                    self.failed(&error);
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE.1);
                }
            }
        }
    }

    fn failed(&self, error: &LoadError) {
        let (namespace, error) = (&self.namespace, error as &dyn Error);
        tracing::warn!(namespace, error, "an API is not imported");
    }

    /// Reads the document and puts its operations in place of those before; how many there
    /// are. Cancel safe.
    pub async fn load(&self) -> Result<usize, LoadError> {
        let text = self.read().await?;
        self.mount(&text)
    }

    fn mount(&self, text: &[u8]) -> Result<usize, LoadError> {
        let operations = document::operations(text, &self.namespace, &self.api)?;
        let count = operations.len();
        self.registry.mount(&self.namespace, operations)?;
        Ok(count)
    }

    async fn read(&self) -> Result<Bytes, LoadError> {
        match &self.document {
            Document::File(path) => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || read(File::open(path)?));
                Ok(read.await.map_err(io::Error::other)??.into())
            }
            Document::Url(url) => {
                timeout(PATIENCE, self.fetch(url)).await.map_err(|_| LoadError::Silent)?
            }
        }
    }

    async fn fetch(&self, url: &Uri) -> Result<Bytes, LoadError> {
        let mut request = Request::get(url).header(header::ACCEPT, "application/json");
        // Elsewhere the token would be somebody else's.
        let base = &self.api.base;
        if (url.scheme(), url.authority()) == (base.scheme(), base.authority())
            && let Some(value) = self.api.token.as_ref().and_then(outbound::bearer)
        {
            request = request.header(header::AUTHORIZATION, value);
        }
        let request = request.body(Full::default()).map_err(|e| LoadError::Fetch(e.into()))?;
        let answered = self.api.client.request(request).await;
        let answer = answered.map_err(|error| LoadError::Fetch(error.into()))?;
        if !answer.status().is_success() {
            return Err(LoadError::Status(answer.status()));
        }
        let body = Limited::new(answer.into_body(), DOCUMENT).collect().await;
        Ok(body.map_err(LoadError::Fetch)?.to_bytes())
    }
}

fn read(file: File) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    file.take(DOCUMENT as u64 + 1).read_to_end(&mut text)?;
    if text.len() > DOCUMENT {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the document is too long"));
    }
    Ok(text)
}

impl fmt::Debug for Import {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Import")
            .field("namespace", &self.namespace)
            .field("document", &self.document)
            .field("base_url", &self.api.base)
            .finish_non_exhaustive()
    }
}
