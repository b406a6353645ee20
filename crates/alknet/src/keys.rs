//! The secret that all keys of this machine come from.

use std::{fmt, path::PathBuf};

use alknet_core::{IdentityError, NodeIdentity, Secret};
use aws_lc_rs::{error::Unspecified, hkdf};
use zeroize::Zeroizing;

use crate::home::{Home, HomeError};

/// The name of the seed file in the state folder.
const FILE: &str = "identity";
/// Its first line; the second is the seed in hexadecimal.
const HEADER: &str = "alknet-identity-v1";

/// What a key is for. Each has its own label, so that knowing one key tells nothing of the
/// others; a label never changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum Purpose {
    /// The Ed25519 key that names this node or client.
    Identity,
    /// The Ed25519 host key of the SSH server.
    SshHost,
}

impl Purpose {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Identity => b"alknet v1 identity ed25519",
            Self::SshHost => b"alknet v1 ssh-host ed25519",
        }
    }
}

/// Where keys come from: a file now, anything that can be locked and so can fail.
pub(crate) trait KeySource: fmt::Debug + Send + Sync {
    /// The 32-byte seed of the key for a purpose; the same at every call.
    fn key(&self, purpose: Purpose) -> Result<Zeroizing<[u8; 32]>, KeyError>;
}

/// The keys of this machine.
#[derive(Debug)]
pub(crate) struct Keys(Box<dyn KeySource>);

/// A key cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum KeyError {
    /// The state folder failed.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The content is no seed of a version we know.
    #[error("the identity file {path} is damaged or of another version")]
    Malformed {
        /// The seed file.
        path: PathBuf,
    },
    /// The seed makes no key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The cryptographic library failed.
    #[error("the cryptographic library failed")]
    Crypto,
}

impl From<Unspecified> for KeyError {
    fn from(_: Unspecified) -> Self {
        Self::Crypto
    }
}

impl KeyError {
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Home(error) => error.hint(),
            Self::Malformed { .. } => Some("restore it from a backup".into()),
            _ => None,
        }
    }
}

impl Keys {
    /// The keys from the seed file, which is made the first time.
    pub(crate) fn open(home: &Home) -> Result<Self, KeyError> {
        Ok(Self(Box::new(SeedFile::open(home)?)))
    }

    /// The identity of this machine, as a node and as a client.
    pub(crate) fn identity(&self) -> Result<NodeIdentity, KeyError> {
        Ok(NodeIdentity::from_seed(&*self.seed(Purpose::Identity)?)?)
    }

    /// The 32-byte seed of the key for a purpose.
    pub(crate) fn seed(&self, purpose: Purpose) -> Result<Zeroizing<[u8; 32]>, KeyError> {
        self.0.key(purpose)
    }
}

/// The key that the holder of a bearer token proves instead of sending the token: Ed25519
/// over the seed HKDF-SHA256(token, no salt, info "alknet v1 token ed25519").
pub(crate) fn token_identity(token: &Secret) -> Result<NodeIdentity, KeyError> {
    let seed = derive(token.expose().as_bytes(), b"alknet v1 token ed25519")?;
    Ok(NodeIdentity::from_seed(&seed)?)
}

/// HKDF-SHA256 (RFC 5869) without salt: the input is uniformly random.
fn derive(secret: &[u8], label: &[u8]) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let key = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(secret);
    let mut out = Zeroizing::new([0; 32]);
    key.expand(&[label], hkdf::HKDF_SHA256)?.fill(&mut *out)?;
    Ok(out)
}

/// The seed in a file of mode 0600.
struct SeedFile(Zeroizing<[u8; 32]>);

impl SeedFile {
    fn open(home: &Home) -> Result<Self, KeyError> {
        if let Some(content) = home.read_secret(FILE)? {
            return Self::parse(home, &content);
        }
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed).map_err(|_| KeyError::Crypto)?;
        let digits = Zeroizing::new(hex::encode(*seed));
        let content = Zeroizing::new(format!("{HEADER}\n{}\n", *digits));
        if home.create(FILE, content.as_bytes())? {
            return Ok(Self(seed));
        }
        // Another process was first: its seed is the one.
        Self::parse(home, &home.read_secret(FILE)?.unwrap_or_default())
    }

    fn parse(home: &Home, content: &[u8]) -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        std::str::from_utf8(content)
            .ok()
            .and_then(|text| text.strip_prefix(HEADER)?.strip_prefix('\n'))
            .and_then(|digits| hex::decode_to_slice(digits.trim_end(), &mut *seed).ok())
            .map(|()| Self(seed))
            .ok_or_else(|| KeyError::Malformed { path: home.path(FILE) })
    }
}

impl KeySource for SeedFile {
    fn key(&self, purpose: Purpose) -> Result<Zeroizing<[u8; 32]>, KeyError> {
        derive(&*self.0, purpose.label())
    }
}

impl fmt::Debug for SeedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SeedFile(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, thread};

    use super::*;

    fn home() -> (tempfile::TempDir, Home) {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(Some(folder.path().join("state"))).unwrap();
        (folder, home)
    }

    #[test]
    fn the_identity_stays() {
        let (_folder, home) = home();
        let first = Keys::open(&home).unwrap().identity().unwrap().id();
        let second = Keys::open(&home).unwrap().identity().unwrap().id();
        assert_eq!(first, second);
    }

    #[test]
    fn all_who_start_at_once_get_one_identity() {
        let (_folder, home) = home();
        let ids: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| Keys::open(&home).unwrap())).collect();
            threads.into_iter().map(|t| t.join().unwrap().identity().unwrap().id()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    }

    /// Peers pin what comes of the seed: a new derivation would be a new identity. The
    /// expected keys are RFC 5869 by Python's `hmac` over 32 bytes of 0x2a.
    #[test]
    fn the_derivation_does_not_change() {
        let (_folder, home) = home();
        let seed = "2a".repeat(32);
        home.write(FILE, format!("{HEADER}\n{seed}\n").as_bytes()).unwrap();
        let keys = Keys::open(&home).unwrap();
        let seed = |purpose| hex::encode(*keys.seed(purpose).unwrap());
        assert_eq!(seed(Purpose::Identity), IDENTITY_OF_2A);
        assert_eq!(seed(Purpose::SshHost), SSH_HOST_OF_2A);
        let token = token_identity(&Secret::new("alk_test")).unwrap();
        let expected =
            NodeIdentity::from_seed(&hex::decode(TOKEN_OF_ALK_TEST).unwrap().try_into().unwrap());
        assert_eq!(token.id(), expected.unwrap().id());
    }

    const IDENTITY_OF_2A: &str = "a0c0f7308eb1c77d4e0ed2e90fc6c107f49d0587a5091259fe26419d51395de5";
    const SSH_HOST_OF_2A: &str = "c5a4ddd2bf8e3e5e6a7d8a6da7aff3c3e28a7eba3d1581146faeeaaf637213b6";
    const TOKEN_OF_ALK_TEST: &str =
        "e99ad9a152859fa54da2852d51ddb2691cfa12476a1cc3c57a57d111e7606470";

    #[test]
    fn an_exposed_or_damaged_file_is_refused() {
        let (_folder, home) = home();
        Keys::open(&home).unwrap();
        fs::set_permissions(home.path(FILE), fs::Permissions::from_mode(0o640)).unwrap();
        let error = Keys::open(&home).unwrap_err();
        assert!(
            matches!(error, KeyError::Home(HomeError::Readable { mode: 0o640, .. })),
            "{error}"
        );
        for damaged in ["", "alknet-identity-v2\n00\n", "alknet-identity-v1\n00ff\n"] {
            home.write(FILE, damaged.as_bytes()).unwrap();
            let error = Keys::open(&home).unwrap_err();
            assert!(matches!(error, KeyError::Malformed { .. }), "{error}");
        }
    }

    #[test]
    fn nothing_secret_is_shown() {
        let (_folder, home) = home();
        let keys = Keys::open(&home).unwrap();
        assert_eq!(format!("{keys:?}"), "Keys(SeedFile(…))");
    }
}
