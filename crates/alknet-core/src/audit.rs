//! What happened, for the owner's record.

use std::{fmt, net::SocketAddr, sync::Arc};

use serde::Serialize;

use crate::AuthContext;

/// One entry of the audit log: a line of JSON where it is written out. Absent fields are
/// left out. It never holds a secret.
#[derive(Debug, Clone, Default, Serialize)]
pub struct AuditEvent {
    /// What happened: see the constants of this type.
    pub event: &'static str,
    /// The session it belongs to, unique while the node runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<u64>,
    /// The protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpn: Option<String>,
    /// What carried it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<&'static str>,
    /// The peer's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<SocketAddr>,
    /// The stable id of the identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// How the identity was proven.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<&'static str>,
    /// The key that was proven or presented.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What was changed: the id of a peer or a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// What the owner calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The account of the machine that a session runs as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The file that it is about, without the folder where those are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// How long that is, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Its BLAKE3 hash, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blake3: Option<String>,
    /// What it may do from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scopes: Option<String>,
    /// Why something was refused or ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How long the session lasted, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// How much was read from a file, or fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_read: Option<u64>,
    /// How much was written to a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_written: Option<u64>,
    /// The repository that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// What was asked of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<&'static str>,
    /// What became of the names in it; a bounded number of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<AuditChange>,
    /// How many more there were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub more_changes: Option<usize>,
    /// How the changes were signed, if they were, and whether that could be verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

/// What became of a name that stands for something.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct AuditChange {
    /// The name.
    pub name: String,
    /// What it stood for.
    pub old: String,
    /// What it stands for from now on.
    pub new: String,
    /// Why it does not, if that was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

impl AuditEvent {
    /// Somebody proved who they are.
    pub const AUTHENTICATED: &'static str = "authenticated";
    /// Somebody was turned away.
    pub const REFUSED: &'static str = "refused";
    /// A handler began to serve a connection.
    pub const SESSION_START: &'static str = "session-start";
    /// A handler is done with a connection.
    pub const SESSION_END: &'static str = "session-end";

    /// An event about a caller.
    pub fn about(event: &'static str, auth: &AuthContext) -> Self {
        Self {
            event,
            alpn: Some(auth.alpn.to_string()),
            transport: Some(auth.transport.name()),
            peer: auth.remote_addr,
            identity: auth.identity.as_ref().map(|identity| identity.id.clone()),
            method: Some(auth.method.name()),
            key: auth.client_key.map(|key| key.to_string()),
            ..Self::default()
        }
    }

    /// With a reason.
    #[must_use]
    pub fn because(self, reason: impl fmt::Display) -> Self {
        Self { reason: Some(reason.to_string()), ..self }
    }
}

/// Where audit events go. `record` must not block: it is called on the way into a handler.
pub trait AuditSink: Send + Sync + 'static {
    /// Takes one event.
    fn record(&self, event: AuditEvent);
}

/// The shared audit log that every part of the node writes to.
#[derive(Clone)]
pub struct Audit(Arc<dyn AuditSink>);

impl Audit {
    /// Sends events to `sink`.
    pub fn new(sink: impl AuditSink) -> Self {
        Self(Arc::new(sink))
    }

    /// Sends events to the `tracing` log alone.
    pub fn to_log() -> Self {
        Self::new(LogSink)
    }

    /// Records one event.
    pub fn record(&self, event: AuditEvent) {
        self.0.record(event);
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Audit")
    }
}

struct LogSink;

impl AuditSink for LogSink {
    fn record(&self, event: AuditEvent) {
        tracing::info!(target: "audit", ?event);
    }
}
