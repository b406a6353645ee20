//! Where the key that opens the vault comes from.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use alknet_vault::{Argon2id, Method, SealedVault, SealingKey, Vault};
use zeroize::Zeroizing;

use super::{VaultError, agent, file};
use crate::{commands::prompt, home::Home};

/// How often a person may mistype it.
const TRIES: usize = 3;
/// The folder in which systemd puts the credentials of a unit (systemd.exec(5)).
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// What the user gives to open the vault; it comes before everything else.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Given {
    /// Read the passphrase from the first line of a file; /dev/fd/N is a descriptor
    #[arg(long, value_name = "FILE", conflicts_with = "key_file")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Read the 32 bytes of the key from a file
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
}

/// An open vault with what it was opened by.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) vault: Vault,
    pub(crate) key: SealingKey,
    pub(crate) sealed: SealedVault,
}

/// Opens the vault: by what was given, else by the agent, the key file or the credential,
/// else by a passphrase that is asked for at the terminal.
pub(crate) async fn open(
    home: &Home,
    sealed: SealedVault,
    given: &Given,
) -> Result<Opened, VaultError> {
    if let Some(path) = &given.key_file {
        return by_key(home, &sealed, read_key(path)?, &path.display().to_string());
    }
    if let Some(path) = &given.passphrase_file {
        let key = derived(&sealed, read_passphrase(path)?).await?;
        return by_key(home, &sealed, key, &format!("the passphrase in {}", path.display()));
    }
    match open_unasked(home, sealed.clone()).await {
        Err(VaultError::Locked) => by_asking(home, &sealed).await,
        opened => opened,
    }
}

/// Opens the vault by the agent, the key file or the credential; where it takes a
/// passphrase, it is [`Locked`](VaultError::Locked).
pub(crate) async fn open_unasked(home: &Home, sealed: SealedVault) -> Result<Opened, VaultError> {
    match agent::key(home).await {
        Ok(Some(key)) => {
            if let Ok(vault) = sealed.open(&key) {
                return Ok(Opened { vault, key, sealed });
            }
        }
        Ok(None) => {}
        Err(error) => tracing::warn!(%error, "the vault's agent gives no answer"),
    }
    match sealed.method() {
        Method::KeyFile => file::open_by_key_file(home, &sealed),
        Method::Credential(name) => {
            let none = || VaultError::NoCredentials { name: name.to_string() };
            let folder = std::env::var_os(CREDENTIALS).ok_or_else(none)?;
            let key = read_key(&Path::new(&folder).join(name.as_str()))?;
            by_key(home, &sealed, key, &format!("the credential {name}"))
        }
        _ => Err(VaultError::Locked),
    }
}

fn by_key(
    home: &Home,
    sealed: &SealedVault,
    key: SealingKey,
    what: &str,
) -> Result<Opened, VaultError> {
    match sealed.open(&key) {
        Ok(vault) => Ok(Opened { vault, key, sealed: sealed.clone() }),
        Err(_) => Err(VaultError::WrongKey { what: what.to_owned(), path: home.path(super::FILE) }),
    }
}

async fn by_asking(home: &Home, sealed: &SealedVault) -> Result<Opened, VaultError> {
    let mut last = VaultError::Locked;
    for _ in 0..TRIES {
        let asked = prompt::at_terminal("passphrase of the vault:").await;
        let passphrase = asked.map_err(VaultError::Terminal)?.ok_or(VaultError::Locked)?;
        let key = derived(sealed, passphrase).await?;
        match by_key(home, sealed, key, "the passphrase") {
            Err(error) => last = error,
            opened => return opened,
        }
        prompt::tell("that does not open the vault").map_err(VaultError::Terminal)?;
    }
    Err(last)
}

/// The key that a passphrase stands for, for this vault.
async fn derived(
    sealed: &SealedVault,
    passphrase: Zeroizing<String>,
) -> Result<SealingKey, VaultError> {
    match sealed.method() {
        Method::Passphrase(argon2) => key_of_passphrase(argon2.clone(), passphrase).await,
        _ => Err(VaultError::Passphrase("this vault is not sealed with a passphrase")),
    }
}

/// Computes the key of a passphrase on a thread of its own: it takes about a second.
pub(crate) async fn key_of_passphrase(
    argon2: Argon2id,
    passphrase: Zeroizing<String>,
) -> Result<SealingKey, VaultError> {
    let computed = tokio::task::spawn_blocking(move || argon2.key(passphrase.as_bytes()));
    Ok(computed.await.map_err(|_| alknet_vault::CryptoError)??)
}

/// The key in a file of exactly 32 bytes.
pub(crate) fn read_key(path: &Path) -> Result<SealingKey, VaultError> {
    let failed = |source| VaultError::KeyFile { path: path.into(), source };
    let mut content = Zeroizing::new(Vec::with_capacity(33));
    File::open(path).and_then(|file| file.take(33).read_to_end(&mut content)).map_err(failed)?;
    SealingKey::from_bytes(&content).ok_or_else(|| VaultError::NoKey { path: path.into() })
}

/// The first line of a file, without its end.
pub(crate) fn read_passphrase(path: &Path) -> Result<Zeroizing<String>, VaultError> {
    let line = File::open(path)
        .and_then(prompt::first_line)
        .map_err(|source| VaultError::PassphraseFile { path: path.into(), source })?;
    if line.is_empty() {
        return Err(VaultError::Passphrase("the passphrase is empty"));
    }
    Ok(line)
}
