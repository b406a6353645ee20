//! The vault of the state folder: the file `vault`, how it is opened, and how it changes so
//! that a crash at any moment loses nothing.

pub(crate) mod agent;
mod file;
mod unlock;

use std::{
    io,
    path::{Path, PathBuf},
};

use alknet_vault::{CryptoError, Mnemonic, ParseError};

pub(crate) use file::{Changes, create, create_unattended, load};
pub(crate) use unlock::{
    Given, Opened, key_of_passphrase, open, open_unasked, read_key, read_passphrase,
};

use crate::home::HomeError;

/// The sealed vault.
const FILE: &str = "vault";
/// The key that opens it where nobody is asked.
const KEY_FILE: &str = "vault.key";
/// The key that is about to be that one. While it is there either may be the right one.
const NEXT_KEY_FILE: &str = "vault.key.next";
/// What earlier versions kept the identity in.
const OLD_FILE: &str = "identity";

/// The vault cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum VaultError {
    /// The state folder failed.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// There is none.
    #[error("there is no vault in {path}")]
    None {
        /// The state folder.
        path: PathBuf,
    },
    /// There is one, and a second would replace it.
    #[error("there is a vault already: {path}")]
    Exists {
        /// The vault.
        path: PathBuf,
    },
    /// The state folder has an identity of a version without vaults.
    #[error("{path} is the identity of an early version, which no vault holds")]
    Old {
        /// The old file.
        path: PathBuf,
    },
    /// The file is not a vault that can be read.
    #[error("{path}")]
    Parse {
        /// The vault.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: ParseError,
    },
    /// The passphrase or the key is another one.
    #[error("{what} does not open the vault")]
    WrongKey {
        /// Where it came from.
        what: String,
        /// The vault.
        path: PathBuf,
    },
    /// The file with the key is not there or cannot be read.
    #[error("the key of the vault cannot be read from {path}")]
    KeyFile {
        /// Where it should be.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// The file with a passphrase is not there or cannot be read.
    #[error("the passphrase cannot be read from {path}")]
    PassphraseFile {
        /// Where it should be.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// The file with the key has another length.
    #[error("{path} is no key of a vault: it has not exactly 32 bytes")]
    NoKey {
        /// Which file.
        path: PathBuf,
    },
    /// There is no folder of credentials.
    #[error("the vault is sealed with the credential {name}, and systemd has passed none")]
    NoCredentials {
        /// The credential.
        name: String,
    },
    /// Nobody can be asked for the passphrase.
    #[error("the vault is locked, and there is no terminal to ask for its passphrase")]
    Locked,
    /// A passphrase does not do.
    #[error("{0}")]
    Passphrase(&'static str),
    /// The terminal failed.
    #[error("the terminal")]
    Terminal(#[source] io::Error),
    /// The agent could not be started or asked.
    #[error("the vault's agent")]
    Agent(#[source] io::Error),
    /// Another process changed the vault meanwhile.
    #[error("another process has changed the vault meanwhile")]
    Changed,
    /// The cryptographic library failed.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
}

impl VaultError {
    pub(crate) fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Home(error) => return error.hint(),
            Self::None { .. } => "make one with `alknet vault init`, or bring one back from its \
                                  recovery phrase with `alknet vault import`"
                .into(),
            Self::Exists { path } => {
                format!("it is never overwritten: to begin anew, {}", move_away(path))
            }
            Self::Old { path } => format!(
                "stop the node, then move {} away; it gets a new identity, and peers have to \
                 learn it",
                path.display()
            ),
            Self::Parse { source: ParseError::Future(_), .. } => {
                "use the version of alknet that wrote it, or a later one".into()
            }
            Self::Parse { path, .. } => format!(
                "nothing was changed; restore it from a backup, or {} and use `alknet vault \
                 import` with the recovery phrase",
                move_away(path)
            ),
            Self::WrongKey { path, .. } => format!(
                "nothing was changed; without the right one, {} and use `alknet vault import` \
                 with the recovery phrase",
                move_away(path)
            ),
            Self::KeyFile { .. } => "restore it from a backup, or name its place with --key-file; \
                                     without it, `alknet vault import` needs the recovery phrase"
                .into(),
            Self::NoCredentials { .. } => {
                "in the unit: LoadCredentialEncrypted=NAME; elsewhere: alknet vault unlock \
                 --key-file FILE"
                    .into()
            }
            Self::Locked => {
                "alknet vault unlock, at a terminal or with --passphrase-file FILE".into()
            }
            Self::Changed => "try again".into(),
            Self::Agent(_) => {
                "a process `alknet vault agent` may still hold the key: end it with kill".into()
            }
            Self::NoKey { .. }
            | Self::Passphrase(_)
            | Self::Terminal(_)
            | Self::PassphraseFile { .. }
            | Self::Crypto(_) => return None,
        })
    }
}

/// How to make room for another vault: a key file that stayed would seal that one too.
fn move_away(vault: &Path) -> String {
    let (vault, key) = (vault.display(), vault.with_file_name(KEY_FILE));
    format!("stop the node, then move {vault} and, if it is there, {} away", key.display())
}

/// The words of a phrase in numbered columns, for a person who writes them down.
pub(crate) fn columns(phrase: &Mnemonic) -> zeroize::Zeroizing<String> {
    // As large as it becomes: a text that moves leaves words behind.
    let mut text = zeroize::Zeroizing::new(String::with_capacity(1024));
    for (i, word) in phrase.words().enumerate() {
        let end = if i % 4 == 3 { '\n' } else { ' ' };
        let line = zeroize::Zeroizing::new(format!("{:>4}. {word:<9}{end}", i + 1));
        text.push_str(&line);
    }
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests;
