//! Whether the server is the node it should be.

use alknet_core::NodeId;
use russh::keys::{
    Certificate,
    ssh_key::{
        Fingerprint, HashAlg,
        certificate::CertType,
        public::{Ed25519PublicKey, KeyData},
    },
};

/// The principal of a node's host certificate: the key that signed it says who the node is,
/// so the name it is reached under does not matter.
const ANY_HOST: &str = "*";

/// Why a server's host certificate does not prove that it is the node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// The server offers bare keys only.
    #[error("the server shows no host certificate")]
    NoCertificate,
    /// The key exchange is not signed with the key in the certificate.
    #[error("the server does not have the key of its host certificate")]
    NoProof,
    /// Another key signed the certificate.
    #[error("the host certificate is signed by {0}")]
    OtherNode(String),
    /// It is a user certificate.
    #[error("the certificate is not one for hosts")]
    NotForHosts,
    /// The present time is outside its validity.
    #[error("the host certificate is not valid at this time")]
    Expired,
    /// It names particular hosts instead of `*`.
    #[error("the host certificate is for another name")]
    Principal,
    /// It has an option that nobody here knows, and that is marked as critical.
    #[error("the host certificate has an unknown critical option")]
    Options,
    /// The signature does not match.
    #[error("the host certificate's signature is wrong")]
    Signature,
}

/// Checks that `node` signed this certificate, for a host, and that it holds at `now`
/// (seconds since 1970). That the server has the key inside is proven by the key exchange.
pub(crate) fn verify(certificate: &Certificate, node: NodeId, now: u64) -> Result<(), HostError> {
    let authority = KeyData::Ed25519(Ed25519PublicKey(*node.as_bytes()));
    if *certificate.signature_key() != authority {
        return Err(HostError::OtherNode(describe(certificate.signature_key())));
    }
    if certificate.cert_type() != CertType::Host {
        return Err(HostError::NotForHosts);
    }
    if !(certificate.valid_after()..certificate.valid_before()).contains(&now) {
        return Err(HostError::Expired);
    }
    if !certificate.valid_principals().iter().any(|name| name == ANY_HOST) {
        return Err(HostError::Principal);
    }
    if !certificate.critical_options().is_empty() {
        return Err(HostError::Options);
    }
    let trusted = authority.fingerprint(HashAlg::Sha256);
    certificate.validate_at(now, [&trusted]).map_err(|_| HostError::Signature)
}

/// A node id where the key can be one, else its OpenSSH fingerprint.
fn describe(key: &KeyData) -> String {
    match key {
        KeyData::Ed25519(key) => NodeId::from_bytes(key.0).to_string(),
        other => Fingerprint::to_string(&other.fingerprint(HashAlg::Sha256)),
    }
}

#[cfg(test)]
mod tests;
