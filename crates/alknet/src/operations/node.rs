//! `node/…`: how the node is, and who is connected to it.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use alknet_call::{CallError, Context, Nothing, Operation};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Made, Parts, on, sessions};
use crate::store;

/// The operations on the node itself.
pub(super) fn operations(parts: &Arc<Parts>) -> Made {
    let mut all = vec![
        Operation::query("node/status", on(parts, status))?
            .describe("How the node is: what it is, since when, and how much is going on."),
    ];
    all.extend(sessions::operations(parts)?);
    Ok(all)
}

/// How a node is.
#[derive(Debug, Serialize, JsonSchema)]
struct Status {
    /// The version of the program.
    version: &'static str,
    /// The node's identity: `ed25519:` and 64 hexadecimal digits.
    node: String,
    /// What the node calls itself.
    name: String,
    /// The account of the machine that it serves.
    account: String,
    /// Where it listens, UDP and TCP alike.
    #[schemars(with = "String")]
    address: SocketAddr,
    /// When it started, in seconds since 1970.
    started_at: i64,
    /// How long ago that is, in seconds.
    uptime_s: u64,
    /// The ALPNs that it serves beside HTTPS.
    services: Vec<String>,
    /// The live sessions.
    sessions: Counts,
    /// How much it takes on.
    limits: Limits,
    /// What it shows to browsers.
    certificate: Certificate,
    /// What it depends on, and whether that works.
    checks: Vec<Check>,
}

/// How many sessions are live.
#[derive(Debug, Default, Serialize, JsonSchema)]
struct Counts {
    /// All of them, HTTPS connections and the sessions inside them included.
    total: usize,
    /// By protocol.
    by_alpn: BTreeMap<String, usize>,
    /// By what carries them.
    by_transport: BTreeMap<&'static str, usize>,
}

/// How much a node takes on.
#[derive(Debug, Serialize, JsonSchema)]
struct Limits {
    /// Sessions at a time.
    sessions: usize,
    /// Sessions at a time of one address that has no identity.
    sessions_per_address: usize,
    /// Sessions at a time of one identity.
    sessions_per_identity: usize,
    /// Streams at a time of one identity.
    streams_per_identity: usize,
}

/// The certificate in use.
#[derive(Debug, Serialize, JsonSchema)]
struct Certificate {
    /// Whether the node made it itself. It replaces it ahead of time then.
    self_signed: bool,
    /// SHA-256 of the certificate in hexadecimal digits.
    sha256: String,
    /// Its end, in seconds since 1970, if that is known.
    not_after: Option<i64>,
}

/// Whether a part of the node works.
#[derive(Debug, Serialize, JsonSchema)]
struct Check {
    /// Which part.
    name: &'static str,
    /// Whether it works. The node's log has more.
    ok: bool,
}

async fn status(parts: Arc<Parts>, _: Context, _: Nothing) -> Result<Status, CallError> {
    let uptime_s = parts.started.elapsed().as_secs();
    let certificate = certificate(&parts);
    let checks = vec![
        Check { name: "identities", ok: parts.identities.version().await.is_ok() },
        Check {
            name: "certificate",
            ok: certificate.not_after.is_none_or(|end| end > store::now()),
        },
    ];
    Ok(Status {
        version: env!("CARGO_PKG_VERSION"),
        node: parts.id.to_string(),
        name: parts.name.clone(),
        account: parts.accounts.node().name.clone(),
        address: parts.address,
        started_at: store::now().saturating_sub_unsigned(uptime_s),
        uptime_s,
        services: parts.dispatcher.alpns().map(ToString::to_string).collect(),
        sessions: counts(&parts),
        limits: limits(&parts),
        certificate,
        checks,
    })
}

fn counts(parts: &Parts) -> Counts {
    let mut counts = Counts::default();
    for session in parts.dispatcher.sessions() {
        counts.total += 1;
        *counts.by_alpn.entry(session.auth.alpn.to_string()).or_default() += 1;
        *counts.by_transport.entry(session.auth.transport.name()).or_default() += 1;
    }
    counts
}

fn limits(parts: &Parts) -> Limits {
    let limits = parts.dispatcher.limits();
    Limits {
        sessions: limits.sessions,
        sessions_per_address: limits.sessions_per_address,
        sessions_per_identity: limits.sessions_per_identity,
        streams_per_identity: limits.streams_per_identity,
    }
}

fn certificate(parts: &Parts) -> Certificate {
    let published = parts.certificates.published.borrow();
    let present = published.first();
    Certificate {
        self_signed: present.is_some(),
        sha256: hex::encode(parts.certificates.tls.current().sha256()),
        not_after: present.map(|certificate| certificate.not_after),
    }
}
