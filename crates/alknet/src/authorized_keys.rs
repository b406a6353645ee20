//! The owner's `authorized_keys` file (sshd(8)) as an identity provider.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use alknet_core::{
    BoxFuture, Credential, Identity, IdentityProvider, KeyFingerprint, ProviderError, Scopes,
};

use crate::{
    peer_key::PeerKey,
    store::{OWNER, Source},
    trusted_file::{self, Revision, TrustError, Version},
};

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
    revision: Revision,
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

    /// Whether the keys of `path` would be taken: a file that is not there yet has none.
    /// Blocks for the disk.
    pub(crate) fn check(path: &Path) -> Result<(), TrustError> {
        trusted_file::version(path).map(drop)
    }

    async fn holds(&self, key: &KeyFingerprint) -> Result<bool, TrustError> {
        self.refresh().await?;
        Ok(self.cache().keys.contains(key))
    }

    /// Reads the file if it is not the one that was read last.
    async fn refresh(&self) -> Result<(), TrustError> {
        let before = self.cache().version;
        let look = move |path: &Path| {
            let version = trusted_file::version(path)?;
            let read = |_| Ok(parse(path, &trusted_file::read(path, MAX_FILE)?));
            let other = version.filter(|_| version != before).map(read).transpose()?;
            Ok::<_, TrustError>((version, other))
        };
        let (version, read) = trusted_file::blocking(&self.path, look).await?;
        let mut cache = self.cache();
        let keys = match (version, read) {
            (None, _) => HashSet::new(),
            (Some(_), Some(keys)) => keys,
            (Some(_), None) => return Ok(()),
        };
        cache.version = version;
        if cache.keys != keys {
            cache.keys = keys;
            cache.revision.changed();
        }
        Ok(())
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse(path: &Path, content: &[u8]) -> HashSet<KeyFingerprint> {
    let text = String::from_utf8_lossy(content);
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
            let credential = Credential::Key(*key);
            let owner = Identity::new(OWNER, OWNER, Scopes::from_iter([SCOPE]), credential);
            Ok(known.then_some(owner))
        })
    }

    fn version(&self) -> BoxFuture<'_, Result<u64, ProviderError>> {
        Box::pin(async move {
            self.refresh().await.map_err(ProviderError::new)?;
            Ok(self.cache().revision.settled())
        })
    }
}

impl Source for AuthorizedKeys {}

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

    /// The version moves with the keys, once they have settled, and not with a comment.
    #[tokio::test]
    async fn the_version_moves_with_the_keys() {
        let (_folder, keys) = file(&format!("{ONE}\n{TWO}\n"));
        let moved_from = async |before: u64| while keys.version().await.unwrap() == before {};
        moved_from(0).await;
        fs::write(&keys.path, format!("# mine\n{TWO}\n{ONE}\n")).unwrap();
        assert!(keys.holds(&fingerprint(ONE)).await.unwrap());
        fs::write(&keys.path, TWO).unwrap();
        // The comment counts for nothing: the next one is the second.
        let moved = async {
            moved_from(1).await;
            assert_eq!(keys.version().await.unwrap(), 2);
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), moved).await.unwrap();
    }
}
