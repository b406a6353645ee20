//! Tries what a configuration names.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::Path,
};

use alknet_core::WebCertificate;
use alknet_host::{Accounts, Leader};
use alknet_ssh::RevokedKeys;

use super::{Certificate, Config, ConfigError, blocking, problem::Wrong};
use crate::{authorized_keys::AuthorizedKeys, people::People};

/// The longest file that is read, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// What is wrong, with the key it is about.
type Found = Vec<(&'static str, Wrong)>;

/// Everything that a node could not use. Cancel safe.
pub(super) async fn problems(config: &Config) -> Result<Found, ConfigError> {
    let owned = config.clone();
    let mut found = blocking(move || Ok(of_files(&owned))).await?;
    if let Some(path) = &config.ssh.revoked_keys {
        let verified = RevokedKeys::new(Some(path.to_path_buf())).verify().await;
        found.extend(verified.err().map(|error| ("ssh.revoked_keys", error.into())));
    }
    Ok(found)
}

/// Blocks for the disk.
fn of_files(config: &Config) -> Found {
    let mut found = Vec::new();
    let mut note = |key, result: Result<(), Wrong>| {
        if let Err(wrong) = result {
            found.push((key, wrong));
        }
    };
    if let Some(folder) = config.decoy.as_ref().and_then(|decoy| decoy.folder()) {
        note("decoy", is_folder(folder));
    }
    if let Some(files) = &config.certificate {
        certificate(files, &mut note);
    }
    note("authorized_keys", authorized_keys(config));
    if let Some(path) = &config.identities {
        note("identities", People::open(path.to_path_buf()).map(drop).map_err(Wrong::from));
    }
    let accounts = Accounts::of_process(config.accounts.mapping(), Leader::new(""));
    note("accounts", accounts.map(drop).map_err(Wrong::from));
    note("pam", config.pam.check());
    for server in &config.import.mcp {
        note("import.mcp", server.source().map(drop));
    }
    for api in &config.import.openapi {
        note("import.openapi", api.source().map(drop));
    }
    for (name, export) in &config.sftp.exports {
        note("sftp.exports", export.open(name).map(drop));
    }
    note("git.default_branch", config.git.defaults().check().map_err(Wrong::from));
    if let Some(hooks) = &config.git.hooks {
        note("git.hooks", is_folder(hooks));
    }
    if let Some(signers) = &config.git.allowed_signers {
        note("git.allowed_signers", content(signers).map(drop));
    }
    if config.limits.ban.is_zero() {
        note("limits.ban", Err(Wrong::Zero));
    }
    found
}

/// The content of a file that is not too long.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the file is too large"));
    }
    Ok(content)
}

fn content(path: &Path) -> Result<Vec<u8>, Wrong> {
    read(path).map_err(|source| Wrong::File { path: path.into(), source })
}

fn is_folder(path: &Path) -> Result<(), Wrong> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(Wrong::NotAFolder { path: path.into() }),
        Err(source) => Err(Wrong::File { path: path.into(), source }),
    }
}

/// Each file by itself, then the two together.
fn certificate(files: &Certificate, note: &mut impl FnMut(&'static str, Result<(), Wrong>)) {
    let key = content(&files.key).map(zeroize::Zeroizing::new);
    match (content(&files.chain), key) {
        (Ok(chain), Ok(key)) => {
            let usable = WebCertificate::from_pem(&chain, &key);
            note("certificate", usable.map(drop).map_err(Wrong::from));
        }
        (chain, key) => {
            note("certificate.chain", chain.map(drop));
            note("certificate.key", key.map(drop));
        }
    }
}

fn authorized_keys(config: &Config) -> Result<(), Wrong> {
    match config.authorized_keys.file()? {
        Some(path) => Ok(AuthorizedKeys::check(&path)?),
        None => Ok(()),
    }
}
