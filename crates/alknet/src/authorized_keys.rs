//! The owner's `authorized_keys` file (sshd(8)) as an identity provider.

use std::{
    collections::HashSet,
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use alknet_core::{
    Alpn, BoxFuture, Identity, IdentityProvider, KeyFingerprint, ProviderError, Scopes, Secret,
    TicketRefusal,
};

use crate::{peer_key::PeerKey, store::OWNER};

/// The longest file that is read.
const MAX_FILE: u64 = 1 << 20;
/// What the keys admit to.
const SCOPE: &str = "ssh";

/// Admits the keys of an `authorized_keys` file to SSH as the owner. The file is read again
/// when it changes. Only plain lines count: options restrict a key in ways that are not
/// ours to enforce, so a line with options admits nobody.
#[derive(Debug)]
pub(crate) struct AuthorizedKeys {
    path: PathBuf,
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    version: Option<Version>,
    keys: HashSet<KeyFingerprint>,
}

/// Changes when the file does.
type Version = (u64, u64, i64, i64, u64, u32);

/// The file exists and must not be trusted, or cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum AuthorizedKeysError {
    /// It cannot be read.
    #[error("{path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// Others could put their keys into it.
    #[error("{path} is ignored: others than its owner can change it")]
    Exposed {
        /// The file or its folder.
        path: PathBuf,
    },
}

impl AuthorizedKeys {
    /// Keys from `path`, which need not exist yet.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, cache: Mutex::default() }
    }

    /// The file that OpenSSH uses by default.
    pub(crate) fn default_path() -> Result<PathBuf, etcetera::HomeDirError> {
        Ok(etcetera::home_dir()?.join(".ssh/authorized_keys"))
    }

    async fn holds(&self, key: &KeyFingerprint) -> Result<bool, AuthorizedKeysError> {
        self.refresh().await?;
        Ok(self.cache.lock().unwrap_or_else(PoisonError::into_inner).keys.contains(key))
    }

    /// Reads the file if it is not the one that was read last.
    async fn refresh(&self) -> Result<(), AuthorizedKeysError> {
        let at = |path: &Path, source| AuthorizedKeysError::File { path: path.into(), source };
        let metadata = match tokio::fs::metadata(&self.path).await {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                *self.cache.lock().unwrap_or_else(PoisonError::into_inner) = Cache::default();
                return Ok(());
            }
            Err(error) => return Err(at(&self.path, error)),
        };
        only_owner_writes(&self.path, &metadata)?;
        if let Some(folder) = self.path.parent().filter(|folder| *folder != Path::new("")) {
            let metadata = tokio::fs::metadata(folder).await.map_err(|error| at(folder, error))?;
            only_owner_writes(folder, &metadata)?;
        }
        let version = Some(version(&metadata));
        if self.cache.lock().unwrap_or_else(PoisonError::into_inner).version == version {
            return Ok(());
        }
        let text = read(&self.path).await.map_err(|error| at(&self.path, error))?;
        let keys = parse(&self.path, &text);
        *self.cache.lock().unwrap_or_else(PoisonError::into_inner) = Cache { version, keys };
        Ok(())
    }
}

fn version(file: &std::fs::Metadata) -> Version {
    (file.dev(), file.ino(), file.ctime(), file.ctime_nsec(), file.len(), file.mode())
}

/// As sshd's StrictModes does for the file and its folder.
fn only_owner_writes(path: &Path, file: &std::fs::Metadata) -> Result<(), AuthorizedKeysError> {
    let trusted = file.uid() == nix::unistd::geteuid().as_raw() || file.uid() == 0;
    if trusted && file.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(AuthorizedKeysError::Exposed { path: path.into() })
}

async fn read(path: &Path) -> io::Result<String> {
    use tokio::io::AsyncReadExt as _;
    let mut bytes = Vec::new();
    let file = tokio::fs::File::open(path).await?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).await?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is too large"));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn parse(path: &Path, text: &str) -> HashSet<KeyFingerprint> {
    let mut keys = HashSet::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match PeerKey::parse(line) {
            // A file of OpenSSH's format has no other keys.
            Ok(key) if key.openssh.is_some() => {
                keys.insert(key.fingerprint);
            }
            _ => tracing::warn!(
                "{}, line {number}: ignored, for it is no plain public key of a supported type \
                 (lines with options are not taken)",
                path.display()
            ),
        }
    }
    keys
}

impl IdentityProvider for AuthorizedKeys {
    fn by_key<'a>(
        &'a self,
        key: &'a KeyFingerprint,
    ) -> BoxFuture<'a, Result<Option<Identity>, ProviderError>> {
        Box::pin(async move {
            let known = self.holds(key).await.map_err(ProviderError::new)?;
            let owner = || Identity {
                id: OWNER.into(),
                name: OWNER.into(),
                scopes: Scopes::from_iter([SCOPE]),
            };
            Ok(known.then(owner))
        })
    }

    fn by_token<'a>(
        &'a self,
        _token: &'a Secret,
    ) -> BoxFuture<'a, Result<Option<Identity>, ProviderError>> {
        Box::pin(async { Ok(None) })
    }

    fn redeem_ticket<'a>(
        &'a self,
        _ticket: &'a Secret,
        _alpn: &'a Alpn,
    ) -> BoxFuture<'a, Result<Result<Identity, TicketRefusal>, ProviderError>> {
        Box::pin(async { Ok(Err(TicketRefusal::Unknown)) })
    }

    fn issue_ticket<'a>(
        &'a self,
        _identity: &'a Identity,
        _alpn: &'a Alpn,
    ) -> BoxFuture<'a, Result<Secret, ProviderError>> {
        Box::pin(async { Err(ProviderError::new(NoTickets)) })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("a file of keys issues no tickets")]
struct NoTickets;

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    const ONE: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const TWO: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA6rWI3G1sz07DnfFlrouTcysQlj2P+jpNSOEWD9OJ3X";

    fn file(text: &str) -> (tempfile::TempDir, AuthorizedKeys) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("authorized_keys");
        fs::write(&path, text).unwrap();
        (folder, AuthorizedKeys::new(path))
    }

    fn fingerprint(line: &str) -> KeyFingerprint {
        PeerKey::parse(line).unwrap().fingerprint
    }

    #[tokio::test]
    async fn a_plain_line_admits_to_ssh_alone() {
        let (_folder, keys) = file(&format!("# mine\n\n{ONE} me@laptop\n"));
        let owner = keys.by_key(&fingerprint(ONE)).await.unwrap().unwrap();
        assert_eq!(owner.id, OWNER);
        assert!(owner.scopes.allow("ssh") && !owner.scopes.allow("git"));
        assert_eq!(keys.by_key(&fingerprint(TWO)).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_line_with_options_admits_nobody() {
        for options in ["command=\"true\"", "from=\"10.0.0.0/8\"", "restrict", "cert-authority"] {
            let (_folder, keys) = file(&format!("{options} {ONE}\n{TWO}\n"));
            assert_eq!(keys.by_key(&fingerprint(ONE)).await.unwrap(), None, "{options}");
            assert!(keys.by_key(&fingerprint(TWO)).await.unwrap().is_some());
        }
    }

    #[tokio::test]
    async fn a_change_of_the_file_holds_at_once() {
        let (_folder, keys) = file(ONE);
        assert!(keys.by_key(&fingerprint(ONE)).await.unwrap().is_some());
        fs::write(&keys.path, TWO).unwrap();
        assert_eq!(keys.by_key(&fingerprint(ONE)).await.unwrap(), None);
        assert!(keys.by_key(&fingerprint(TWO)).await.unwrap().is_some());
        fs::remove_file(&keys.path).unwrap();
        assert_eq!(keys.by_key(&fingerprint(TWO)).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_file_that_others_can_write_is_ignored() {
        let (folder, keys) = file(ONE);
        fs::set_permissions(&keys.path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(keys.by_key(&fingerprint(ONE)).await.is_err());
        fs::set_permissions(&keys.path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(keys.by_key(&fingerprint(ONE)).await.unwrap().is_some());
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(keys.by_key(&fingerprint(ONE)).await.is_err());
    }
}
