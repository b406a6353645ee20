//! `alknet vault`.

mod data;
mod derive;
mod init;
mod lock;
mod seal;

use alknet_core::AuditEvent;
use clap::Subcommand;

use super::audit::unrecorded;
use crate::{
    audit,
    failure::Failure,
    home::Home,
    vault::{self, Given, Opened, VaultError},
};

/// Keep the keys of this machine in a vault
///
/// All keys come from one recovery phrase of 12 to 24 words. What lies on the disk is sealed
/// by a passphrase, by a key file, or by a credential that systemd passes to the node.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  alknet vault init        make a vault, or show the recovery phrase of a new one\n  alknet vault unlock --for 8h"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Init(init::Init),
    Import(init::Import),
    ShowPath(derive::ShowPath),
    Lock(lock::Lock),
    Unlock(lock::Unlock),
    ChangePassphrase(seal::ChangePassphrase),
    Derive(derive::Derive),
    Encrypt(data::Encrypt),
    Decrypt(data::Decrypt),
    Rotate(data::Rotate),
    #[command(hide = true)]
    Agent(lock::Agent),
}

pub(crate) async fn run(args: Args, home: &Home) -> Result<(), Failure> {
    match args.action {
        Action::Init(args) => init::init(args, home).await,
        Action::Import(args) => init::import(args, home).await,
        Action::ShowPath(args) => derive::show_path(args, home).await,
        Action::Lock(_) => lock::lock(home).await,
        Action::Unlock(args) => lock::unlock(args, home).await,
        Action::ChangePassphrase(args) => seal::change_passphrase(args, home).await,
        Action::Derive(args) => derive::derive(args, home).await,
        Action::Encrypt(args) => data::encrypt(args, home).await,
        Action::Decrypt(args) => data::decrypt(args, home).await,
        Action::Rotate(args) => data::rotate(args, home).await,
        Action::Agent(args) => lock::agent(&args, home).await,
    }
}

/// The vault of the state folder, open.
async fn open(home: &Home, given: &Given) -> Result<Opened, VaultError> {
    let none = || VaultError::None { path: home.root().into() };
    let sealed = vault::load(home)?.ok_or_else(none)?;
    vault::open(home, sealed, given).await
}

/// Puts a change of the vault into the audit log.
fn record(home: &Home, event: &'static str, reason: Option<String>) -> Result<(), Failure> {
    let event = AuditEvent { event, transport: Some("local"), reason, ..AuditEvent::default() };
    audit::append_once(home, event).map_err(unrecorded)
}
