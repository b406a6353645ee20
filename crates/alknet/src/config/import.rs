//! Servers elsewhere whose operations the node offers as its own.

use std::path::Path;

use alknet_core::Secret;
use alknet_http::{
    api::import::{self as api, Document},
    mcp::import::Source,
};
use http::Uri;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{FilePath, problem::Wrong};
use crate::trusted_file;

/// The longest file of a token, in bytes.
const MAX_TOKEN: u64 = 4096;

/// Servers elsewhere whose operations this node offers as its own, each to whoever has the
/// scope `call:NAMESPACE/NAME` or a wider one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Import {
    /// MCP servers, by Streamable HTTP: namespace, url, and where they need it token_file, the
    /// file of a bearer token. Each may also be written as a table, `[[import.mcp]]`.
    #[schemars(example = McpServer::examples())]
    pub(crate) mcp: Vec<McpServer>,
    /// HTTP APIs, by their OpenAPI document (3.0 or 3.1, JSON): namespace, document (a file or
    /// an address), base_url, and where they need it token_file, the file of a bearer token.
    /// Each may also be written as a table, `[[import.openapi]]`.
    #[schemars(example = HttpApi::examples())]
    pub(crate) openapi: Vec<HttpApi>,
}

/// An HTTP API that an OpenAPI document describes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HttpApi {
    /// The namespace of the operations.
    pub(crate) namespace: String,
    /// Where the document is: a file, or https://HOST/PATH.
    pub(crate) document: String,
    /// What its paths are appended to, whatever the document says of servers:
    /// https://HOST/PATH, or http:// on this machine.
    pub(crate) base_url: String,
    /// A file with a bearer token for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<FilePath>,
    /// Ask it over http:// although it is on another machine.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) plain_http: bool,
}

impl HttpApi {
    fn examples() -> Vec<Self> {
        vec![Self {
            namespace: "pets".into(),
            document: "pets.openapi.json".into(),
            base_url: "https://pets.example.org/v1".into(),
            token_file: Some("pets.token".into()),
            plain_http: false,
        }]
    }

    /// A path in the file starts where the file is.
    pub(super) fn settle(&mut self, root: &Path) {
        if !self.document.contains("://") {
            let mut path = FilePath::from(self.document.as_str());
            path.settle(root);
            self.document = path.to_string();
        }
        self.token_file.iter_mut().for_each(|file| file.settle(root));
    }

    /// As it is imported, with its token. Blocks for the disk.
    pub(crate) fn source(&self) -> Result<api::Source, Wrong> {
        let document = match self.document.contains("://") {
            true => Document::Url(address(&self.document)?),
            false => Document::File(self.document.clone().into()),
        };
        let mut source = api::Source::new(&self.namespace, document, address(&self.base_url)?);
        source.allow_plain = self.plain_http;
        source.token = self.token_file.as_deref().map(token).transpose()?;
        source.check()?;
        Ok(source)
    }
}

fn address(text: &str) -> Result<Uri, Wrong> {
    text.parse().map_err(|_| Wrong::Address { text: text.to_owned() })
}

/// An MCP server whose tools are operations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct McpServer {
    /// The namespace of the operations.
    pub(crate) namespace: String,
    /// Where its MCP is: https://HOST/PATH, or http:// on this machine.
    pub(crate) url: String,
    /// A file with a bearer token for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<FilePath>,
    /// Ask it over http:// although it is on another machine.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) plain_http: bool,
}

impl McpServer {
    fn examples() -> Vec<Self> {
        let (namespace, url) = ("issues".into(), "https://issues.example.org/mcp".into());
        vec![Self { namespace, url, token_file: Some("issues.token".into()), plain_http: false }]
    }

    /// As it is imported, with its token. Blocks for the disk.
    pub(crate) fn source(&self) -> Result<Source, Wrong> {
        let mut source = Source::new(&self.namespace, address(&self.url)?);
        source.allow_plain = self.plain_http;
        source.token = self.token_file.as_deref().map(token).transpose()?;
        source.check()?;
        Ok(source)
    }
}

fn token(path: &Path) -> Result<Secret, Wrong> {
    let content = Zeroizing::new(trusted_file::read(path, MAX_TOKEN)?);
    let text = std::str::from_utf8(&content).map(str::trim).unwrap_or_default();
    let is_token = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    is_token.then(|| Secret::new(text)).ok_or_else(|| Wrong::NotAToken { path: path.into() })
}
