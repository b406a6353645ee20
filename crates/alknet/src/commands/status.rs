//! `alknet status`.

mod remote;

use std::{io, net::SocketAddr};

use alknet_core::{SelfSigned, WebCertificateError};
use alknet_vault::Purpose;
use serde::Serialize;

use super::dial::Reach;
use crate::{
    config::Config,
    failure::Failure,
    home::Home,
    keys::{KeyError, Keys},
    output,
    store::{OWNER, Store},
    vault::VaultError,
};

/// Show the node of this state folder, or another one
///
/// That of this folder is read from the folder, so that it also works for a node that does not
/// answer. The exit code is 0 whether the node runs or not. Nobody is asked for a passphrase
/// and no vault is made: where that would be needed the node's id is unknown.
///
/// Another node is asked by its operation node/status.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  alknet status\n  alknet status --json | jq .running\n  alknet status example.org"
)]
pub(crate) struct Args {
    /// Another node: HOST[:PORT], a saved name, a node id, or a link to it
    node: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

#[derive(Serialize)]
struct Status {
    running: bool,
    pid: Option<u32>,
    address: Option<SocketAddr>,
    node: String,
    version: &'static str,
    home: String,
    peers: usize,
    keys: usize,
    tokens: usize,
    sessions: usize,
    certificate: Certificate,
}

/// Where the certificate for browsers comes from.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum Certificate {
    /// None has been made yet, the one that there is will be replaced, or the vault that it
    /// belongs to does not open.
    None,
    /// Of the node itself.
    SelfSigned {
        /// Seconds since 1970.
        rotates_at: i64,
        /// Of the present certificate, in seconds since 1970.
        expires_at: i64,
    },
    /// From files that the configuration names.
    Files { chain: String },
}

pub(crate) async fn run(args: Args, home: &Home) -> Result<(), Failure> {
    if let Some(node) = &args.node {
        return remote::run(node, &args.reach, args.json, home).await;
    }
    let status = status(home).await?;
    let printed = if args.json { output::json(&status) } else { show(&status) };
    Ok(printed?)
}

async fn status(home: &Home) -> Result<Status, Failure> {
    let store = Store::open(home).await?;
    let (peers, tokens) = (store.peers().await?, store.tokens().await?);
    store.close().await;
    let served = home.served_by()?;
    let keys = Keys::peek(home).await;
    let node = match &keys {
        Ok(Some(keys)) => keys.identity()?.id().to_string(),
        Ok(None) => "unknown: there is no vault yet".into(),
        Err(KeyError::Vault(VaultError::Locked)) => "unknown: the vault is locked".into(),
        Err(error) => format!("unknown: {}", causes(error)),
    };
    let keys = keys.ok().flatten();
    let of_kind = |kind| tokens.iter().filter(|token| token.kind == kind).count();
    Ok(Status {
        running: served.is_some(),
        pid: served.flatten(),
        address: if served.is_some() { home.address()? } else { None },
        node,
        version: env!("CARGO_PKG_VERSION"),
        home: home.root().display().to_string(),
        peers: peers.iter().filter(|peer| peer.id != OWNER).count(),
        keys: peers.iter().map(|peer| peer.keys.len()).sum(),
        tokens: of_kind("token"),
        sessions: of_kind("session"),
        certificate: certificate(home, keys.as_ref())?,
    })
}

fn certificate(home: &Home, keys: Option<&Keys>) -> Result<Certificate, Failure> {
    if let Some(files) = Config::load(home)?.certificate {
        return Ok(Certificate::Files { chain: files.chain.display().to_string() });
    }
    let (Some(content), Some(keys)) = (home.read("web-certificate")?, keys) else {
        return Ok(Certificate::None);
    };
    let seed = keys.key(Purpose::WebCertificate)?;
    // One that is damaged or another vault's is replaced by the next start.
    Ok(self_signed(&content, seed.expose()).unwrap_or(Certificate::None))
}

fn self_signed(content: &[u8], seed: &[u8; 32]) -> Result<Certificate, WebCertificateError> {
    let pair = SelfSigned::from_text(&String::from_utf8_lossy(content), seed)?;
    let [(_, expires), _] = pair.published()?;
    Ok(Certificate::SelfSigned {
        rotates_at: pair.rotates_at().unix_timestamp(),
        expires_at: expires.unix_timestamp(),
    })
}

/// An error with its causes, in one line.
fn causes(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

fn show(status: &Status) -> io::Result<()> {
    let state = match (status.running, status.pid) {
        (false, _) => "not running".into(),
        (true, None) => "running".into(),
        (true, Some(pid)) => format!("running (process {pid})"),
    };
    let address = status.address.map_or_else(|| "-".into(), |address| address.to_string());
    let certificate = match &status.certificate {
        Certificate::None => "none yet".into(),
        Certificate::Files { chain } => format!("from {chain}"),
        Certificate::SelfSigned { rotates_at, .. } => {
            format!("self-signed, rotates {} UTC", output::minute(*rotates_at))
        }
    };
    let Status { peers, keys, tokens, sessions, .. } = status;
    for (name, value) in [
        ("state", state),
        ("address", address),
        ("node", status.node.clone()),
        ("version", status.version.into()),
        ("folder", status.home.clone()),
        ("peers", format!("{peers}, with {keys} keys in all")),
        ("tokens", format!("{tokens}, and {sessions} browser sessions")),
        ("certificate", certificate),
    ] {
        output::line(format_args!("{name:<12} {value}"))?;
    }
    Ok(())
}
