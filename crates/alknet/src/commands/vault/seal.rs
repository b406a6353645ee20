//! `alknet vault change-passphrase`, and what a vault is sealed with.

use std::{path::PathBuf, str::FromStr};

use alknet_vault::{Argon2id, Cost, CredentialName, InvalidCredentialName, Method, SealingKey};
use zeroize::Zeroizing;

use crate::{
    commands::prompt,
    failure::Failure,
    home::Home,
    output,
    vault::{self, Changes, Given, VaultError, agent},
};

/// The credential that is meant unless another is named.
const CREDENTIAL: &str = "alknet-vault";

/// What to seal with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum How {
    Passphrase,
    KeyFile,
    Credential(CredentialName),
}

impl FromStr for How {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = match text {
            "passphrase" => return Ok(Self::Passphrase),
            "key-file" => return Ok(Self::KeyFile),
            "credential" => CREDENTIAL,
            _ => text
                .strip_prefix("credential=")
                .ok_or("write passphrase, key-file, credential or credential=NAME")?,
        };
        let name = name.parse().map_err(|error: InvalidCredentialName| error.to_string())?;
        Ok(Self::Credential(name))
    }
}

/// What to seal with, and where its secret comes from.
#[derive(Debug)]
pub(super) struct Seal {
    pub(super) how: How,
    pub(super) passphrase_file: Option<PathBuf>,
    pub(super) key_file: Option<PathBuf>,
}

impl Seal {
    /// Method and key; `None` stands for a new key file in the state folder.
    pub(super) async fn prepare(self) -> Result<Option<(Method, SealingKey)>, Failure> {
        match self.how {
            How::Passphrase => {
                let passphrase = new_passphrase(self.passphrase_file).await?;
                let argon2 = Argon2id::new(Cost::RECOMMENDED)?;
                let key = vault::key_of_passphrase(argon2.clone(), passphrase).await?;
                Ok(Some((Method::Passphrase(argon2), key)))
            }
            How::KeyFile => Ok(None),
            How::Credential(name) => {
                let path = self.key_file.ok_or_else(|| no_credential(&name))?;
                Ok(Some((Method::Credential(name), vault::read_key(&path)?)))
            }
        }
    }

    /// The options that go together.
    pub(super) fn check(self) -> Result<Self, Failure> {
        let (passphrase, key) = (self.passphrase_file.is_some(), self.key_file.is_some());
        let fits = match &self.how {
            How::Passphrase => !key,
            How::KeyFile => !key && !passphrase,
            How::Credential(_) => !passphrase,
        };
        if fits {
            return Ok(self);
        }
        Err(Failure::usage(
            "a passphrase is for --seal passphrase, and a key for --seal credential",
        ))
    }
}

fn no_credential(name: &CredentialName) -> Failure {
    Failure::usage(format!("the 32 bytes of the credential {name} are needed as a file")).hint(
        format!(
            "umask 077; head -c 32 /dev/urandom > KEY; systemd-creds encrypt --name={name} KEY \
             /etc/credstore.encrypted/{name}; then name KEY here, and erase it when that is done"
        ),
    )
}

/// From a file, or typed twice.
async fn new_passphrase(file: Option<PathBuf>) -> Result<Zeroizing<String>, Failure> {
    if let Some(path) = file {
        return Ok(vault::read_passphrase(&path)?);
    }
    let first = asked("new passphrase of the vault:").await?;
    if first.is_empty() {
        return Err(VaultError::Passphrase("the passphrase is empty").into());
    }
    if asked("the same again:").await? != first {
        return Err(VaultError::Passphrase("the two passphrases are not the same").into());
    }
    Ok(first)
}

async fn asked(what: &str) -> Result<Zeroizing<String>, Failure> {
    prompt::at_terminal(what).await.map_err(VaultError::Terminal)?.ok_or_else(|| {
        Failure::new("there is no terminal to ask for a new passphrase")
            .hint("name a file that holds it, /dev/fd/N for a descriptor")
    })
}

/// Seal the vault with another passphrase, or in another way
///
/// Keys and recovery phrase stay. A node that runs is not touched. An older copy of the
/// vault, in a backup for one, still opens by what it was sealed with.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  alknet vault change-passphrase\n  alknet vault change-passphrase --seal credential --new-key-file KEY"
)]
pub(super) struct ChangePassphrase {
    /// passphrase, key-file, or credential[=NAME]
    #[arg(long, value_name = "HOW", default_value = "passphrase")]
    seal: How,
    /// Read the new passphrase from the first line of a file
    #[arg(long, value_name = "FILE")]
    new_passphrase_file: Option<PathBuf>,
    /// Read the 32 bytes of the credential from a file
    #[arg(long, value_name = "FILE")]
    new_key_file: Option<PathBuf>,
    #[command(flatten)]
    given: Given,
}

pub(super) async fn change_passphrase(args: ChangePassphrase, home: &Home) -> Result<(), Failure> {
    let seal = Seal {
        how: args.seal,
        passphrase_file: args.new_passphrase_file,
        key_file: args.new_key_file,
    }
    .check()?;
    let mut opened = super::open(home, &args.given).await?;
    let seal = seal.prepare().await?;
    Changes::begin(home, &opened)?.reseal(&mut opened, seal)?;
    let how = described(opened.sealed.method());
    super::record(home, "vault-resealed", Some(how.clone()))?;
    output::note(format!("the vault is sealed with {how}"))?;
    // What an agent holds opens older copies alone.
    match agent::lock(home).await {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::from(VaultError::Agent(error))
            .context("the vault is sealed anew, and an agent may still hold the key before")),
    }
}

/// A way of sealing in words.
pub(super) fn described(method: &Method) -> String {
    match method {
        Method::Passphrase(_) => "a passphrase".into(),
        Method::KeyFile => "the key file vault.key beside it".into(),
        Method::Credential(name) => format!("the credential {name}"),
        _ => "something else".into(),
    }
}
