//! The keys of this machine: all of them come from the vault.

use alknet_core::{AuditEvent, IdentityError, NodeIdentity, Secret};
use alknet_vault::{CryptoError, Purpose, SecretKey, Vault};
use aws_lc_rs::{error::Unspecified, hkdf};
use zeroize::Zeroizing;

use crate::{
    audit,
    home::Home,
    output,
    vault::{self, Given, VaultError},
};

/// The keys of this machine, while its vault is open.
#[derive(Debug)]
pub(crate) struct Keys(Vault);

/// A key cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum KeyError {
    /// The vault is not there, or does not open.
    #[error(transparent)]
    Vault(#[from] VaultError),
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

impl From<CryptoError> for KeyError {
    fn from(_: CryptoError) -> Self {
        Self::Crypto
    }
}

impl KeyError {
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Vault(error) => error.hint(),
            Self::Identity(_) | Self::Crypto => None,
        }
    }
}

impl Keys {
    /// The keys from the vault. The first time it is made, sealed by a key file beside it;
    /// else it is opened by the agent, the key file, the credential or, at a terminal, by
    /// its passphrase. Who has them keeps them: locking the vault takes them from nobody.
    pub(crate) async fn open(home: &Home) -> Result<Self, KeyError> {
        let sealed = match vault::load(home)? {
            Some(sealed) => sealed,
            None => {
                let (sealed, made) = vault::create_unattended(home)?;
                if made {
                    tell_of_new(home)?;
                }
                sealed
            }
        };
        Ok(Self(vault::open(home, sealed, &Given::default()).await?.vault))
    }

    /// The keys as far as they are to be had without asking anybody or making anything;
    /// `None` if there is no vault.
    pub(crate) async fn peek(home: &Home) -> Result<Option<Self>, KeyError> {
        match vault::load(home)? {
            Some(sealed) => Ok(Some(Self(vault::open_unasked(home, sealed).await?.vault))),
            None => Ok(None),
        }
    }

    /// The identity of this machine, as a node and as a client.
    pub(crate) fn identity(&self) -> Result<NodeIdentity, KeyError> {
        Ok(NodeIdentity::from_seed(self.key(Purpose::Identity)?.expose())?)
    }

    /// The 32 bytes for a purpose.
    pub(crate) fn key(&self, purpose: Purpose) -> Result<SecretKey, KeyError> {
        Ok(self.0.key(purpose)?)
    }
}

/// A new identity is not to go unnoticed: where there was another, its vault is gone.
fn tell_of_new(home: &Home) -> Result<(), VaultError> {
    if std::io::IsTerminal::is_terminal(&std::io::stderr()) {
        // Whoever has no stderr does not miss it.
        let _ = output::note(
            "made a vault for the keys of this machine; `alknet vault init` shows its recovery \
             phrase, once",
        );
    } else {
        tracing::warn!(folder = %home.root().display(), "made a vault: the identity is a new one");
    }
    let event =
        AuditEvent { event: "vault-made", transport: Some("local"), ..AuditEvent::default() };
    Ok(audit::append_once(home, event)?)
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

#[cfg(test)]
mod tests;
