//! `alknet vault show-path` and `derive`.

use std::{
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path as FilePath, PathBuf},
};

use alknet_core::NodeId;
use alknet_vault::{Path, Purpose, SecretKey};
use russh::keys::{
    HashAlg, PrivateKey,
    ssh_key::{LineEnding, private::Ed25519Keypair},
};
use serde::Serialize;

use crate::{failure::Failure, home::Home, output, vault::Given};

/// Show where the key for a purpose is, and its public half
///
/// The purposes are identity, device-N, ssh-host, web-certificate, quic-tokens and data-N.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  alknet vault show-path ssh-host")]
pub(super) struct ShowPath {
    /// What the key is for
    purpose: Purpose,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    given: Given,
}

/// Print the public key at a derivation path
///
/// Every index of a path is hardened, as in m/74'/0'/0'/1'. Quote it: the shell takes the
/// apostrophes otherwise, or write h in their place.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  alknet vault derive \"m/74'/0'/0'/1'\"\n  alknet vault derive m/74h/0h/0h/1h --private id_device"
)]
pub(super) struct Derive {
    /// The derivation path
    path: Path,
    /// Write the private key to a new file, in OpenSSH's format and not encrypted
    #[arg(long, value_name = "FILE")]
    private: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    given: Given,
}

/// A key without its secret.
#[derive(Debug, Serialize)]
struct Shown {
    path: String,
    /// Of keys that are Ed25519.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    public: Option<Public>,
}

/// The public half in the forms that people use.
#[derive(Debug, Serialize)]
struct Public {
    node: String,
    openssh: String,
    fingerprint: String,
}

pub(super) async fn show_path(args: ShowPath, home: &Home) -> Result<(), Failure> {
    let opened = super::open(home, &args.given).await?;
    let path = args.purpose.path();
    let key = opened.vault.derive(&path)?;
    let public = args.purpose.is_ed25519().then(|| public(&key)).transpose()?;
    print(&Shown { path: path.to_string(), public }, args.json)
}

pub(super) async fn derive(args: Derive, home: &Home) -> Result<(), Failure> {
    let opened = super::open(home, &args.given).await?;
    let key = opened.vault.derive(&args.path)?;
    if let Some(file) = &args.private {
        write_private(file, &key, &args.path)?;
    }
    print(&Shown { path: args.path.to_string(), public: Some(public(&key)?) }, args.json)
}

fn public(key: &SecretKey) -> Result<Public, Failure> {
    let node = NodeId::from_bytes(key.ed25519_public()?);
    let openssh = private(key);
    Ok(Public {
        node: node.to_string(),
        openssh: openssh.public_key().to_openssh()?,
        fingerprint: openssh.public_key().fingerprint(HashAlg::Sha256).to_string(),
    })
}

fn private(key: &SecretKey) -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(key.expose()))
}

/// Into a file that only its owner reads, and never to a terminal, where it would stay in
/// the scrollback.
fn write_private(file: &FilePath, key: &SecretKey, path: &Path) -> Result<(), Failure> {
    let mut key = private(key);
    key.set_comment(path.to_string());
    let text = key.to_openssh(LineEnding::LF)?;
    let failed = |error: std::io::Error| Failure::from(error).context(file.display().to_string());
    let mut out =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).map_err(failed)?;
    out.write_all(text.as_bytes()).and_then(|()| out.sync_all()).map_err(failed)
}

fn print(shown: &Shown, json: bool) -> Result<(), Failure> {
    if json {
        return Ok(output::json(shown)?);
    }
    output::line(format_args!("path         {}", shown.path))?;
    if let Some(public) = &shown.public {
        output::line(format_args!("node         {}", public.node))?;
        output::line(format_args!("openssh      {}", public.openssh))?;
        output::line(format_args!("fingerprint  {}", public.fingerprint))?;
    }
    Ok(())
}
