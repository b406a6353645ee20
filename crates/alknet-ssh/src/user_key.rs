//! Public keys as users hand them in.

use alknet_core::KeyFingerprint;
use russh::keys::{
    Algorithm, HashAlg, PublicKey,
    ssh_key::{self, public::KeyData},
};

use crate::algorithms::{MIN_RSA_BITS, USER_KEYS};

/// A user's public key in OpenSSH's format, of a kind that the server accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserKey {
    key: PublicKey,
    fingerprint: KeyFingerprint,
}

/// A line is not a public key that a user could log in with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UserKeyError {
    /// Not in the form `type base64 comment`.
    #[error("not a public key in OpenSSH's format")]
    Format(#[source] ssh_key::Error),
    /// A kind of key or signature that the server does not accept.
    #[error("keys of type {0} are not accepted")]
    Type(String),
    /// An RSA key that is too short.
    #[error("an RSA key of {0} bits is too short: {MIN_RSA_BITS} are needed")]
    Short(u32),
}

impl UserKey {
    /// Parses one line: `ssh-ed25519 AAAA… comment`.
    pub fn parse(line: &str) -> Result<Self, UserKeyError> {
        let key = PublicKey::from_openssh(line.trim()).map_err(UserKeyError::Format)?;
        accepted(key.key_data(), &best_algorithm(key.key_data()))?;
        let blob = key.to_bytes().map_err(UserKeyError::Format)?;
        Ok(Self { fingerprint: KeyFingerprint::of_openssh_blob(&blob), key })
    }

    /// What identifies the key.
    pub fn fingerprint(&self) -> KeyFingerprint {
        self.fingerprint
    }

    /// What the owner wrote behind the key: often `user@host`.
    pub fn comment(&self) -> &str {
        self.key.comment().as_str_lossy()
    }
}

/// What a key signs with where nothing says so: which hash an RSA key takes is not a property
/// of the key.
pub(crate) fn best_algorithm(key: &KeyData) -> Algorithm {
    match key.algorithm() {
        Algorithm::Rsa { .. } => Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
        other => other,
    }
}

/// Whether a kind of key and signature is good enough to log in with.
pub(crate) fn accepted(key: &KeyData, algorithm: &Algorithm) -> Result<(), UserKeyError> {
    if !USER_KEYS.contains(algorithm) {
        return Err(UserKeyError::Type(algorithm.to_string()));
    }
    match key.rsa().map(|key| key.key_size()) {
        Some(bits) if bits < MIN_RSA_BITS => Err(UserKeyError::Short(bits)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti user@example.com";

    #[test]
    fn a_key_has_the_fingerprint_that_openssh_prints() {
        let key = UserKey::parse(&format!("  {ED25519}\n")).unwrap();
        assert_eq!(
            key.fingerprint().to_string(),
            "SHA256:UCUiLr7Pjs9wFFJMDByLgc3NrtdU344OgUM45wZPcIQ"
        );
        assert_eq!(key.comment(), "user@example.com");
    }

    #[test]
    fn keys_of_hardware_count() {
        let sk = "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAICFo/k5LU8863u66YC9eUO2170QduohPURkQnbLa/dczAAAABHNzaDo= user@example.com";
        assert!(UserKey::parse(sk).is_ok());
    }

    #[test]
    fn what_cannot_log_in_is_refused() {
        let dsa = "ssh-dss AAAAB3NzaC1kc3MAAAABAwAAAAEDAAAAAQMAAAABAw== user@example.com";
        let error = |line: &str| UserKey::parse(line).unwrap_err();
        assert!(matches!(error(dsa), UserKeyError::Type(_)));
        assert!(matches!(error(""), UserKeyError::Format(_)));
        assert!(matches!(error("ssh-ed25519 AAAA"), UserKeyError::Format(_)));
        assert!(matches!(error(&format!("command=\"x\" {ED25519}")), UserKeyError::Format(_)));
    }
}
