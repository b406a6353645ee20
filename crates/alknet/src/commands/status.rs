//! `alknet status`.

use std::{io, net::SocketAddr};

use alknet_core::SelfSigned;
use alknet_vault::Purpose;
use serde::Serialize;

use crate::{
    config::Config,
    failure::Failure,
    home::Home,
    keys::{KeyError, Keys},
    output,
    store::{OWNER, Store},
    vault::VaultError,
};

/// Show the node of this state folder
///
/// It is read from the folder, so that it also works for a node that does not answer. The
/// exit code is 0 whether the node runs or not.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  alknet status\n  alknet status --json | jq .running")]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
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
    /// None has been made yet, or the vault that it belongs to is locked.
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

pub(crate) async fn run(args: &Args, home: &Home) -> Result<(), Failure> {
    let status = status(home).await?;
    let printed = if args.json { output::json(&status) } else { show(&status) };
    Ok(printed?)
}

async fn status(home: &Home) -> Result<Status, Failure> {
    let store = Store::open(home).await?;
    let (peers, tokens) = (store.peers().await?, store.tokens().await?);
    store.close().await;
    let served = home.served_by()?;
    let keys = match Keys::open(home).await {
        Err(KeyError::Vault(VaultError::Locked)) => None,
        keys => Some(keys?),
    };
    let of_kind = |kind| tokens.iter().filter(|token| token.kind == kind).count();
    Ok(Status {
        running: served.is_some(),
        pid: served.flatten(),
        address: if served.is_some() { home.address()? } else { None },
        node: match &keys {
            Some(keys) => keys.identity()?.id().to_string(),
            None => "unknown: the vault is locked".into(),
        },
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
    let pair = SelfSigned::from_text(&String::from_utf8_lossy(&content), seed.expose())?;
    let [(_, expires), _] = pair.published()?;
    Ok(Certificate::SelfSigned {
        rotates_at: pair.rotates_at().unix_timestamp(),
        expires_at: expires.unix_timestamp(),
    })
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
