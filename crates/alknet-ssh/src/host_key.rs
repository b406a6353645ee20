//! The host key, and how whoever knows the node's id can check it.

use std::fmt;

use alknet_core::{NodeId, NodeIdentity};
use russh::keys::{
    Certificate, PrivateKey,
    signature::{self, Signer},
    ssh_key::{
        self, Algorithm, PublicKey, Signature,
        certificate::{Builder, CertType},
        private::Ed25519Keypair,
        public::{Ed25519PublicKey, KeyData},
    },
};
use sha2::{Digest, Sha256};

/// The host key of a node: Ed25519, with an OpenSSH host certificate over it that the
/// node's identity signed. A client that knows the node's id takes the identity as the
/// certification authority (see [`known_hosts_line`]) and needs no trust on first use.
#[derive(Clone)]
pub struct HostKey {
    key: PrivateKey,
    certificate: Certificate,
}

/// The host certificate could not be made.
#[derive(Debug, thiserror::Error)]
#[error("the host certificate could not be made")]
pub struct HostKeyError(#[from] ssh_key::Error);

impl HostKey {
    /// The host key that a 32-byte seed (RFC 8032) stands for, certified by `identity`.
    ///
    /// The seed must be another one than the identity's. The certificate is for every host
    /// name and never expires: it says that the host key is this node's, and the node's id
    /// is what clients trust. The same seed and identity always give the same certificate.
    pub fn from_seed(seed: &[u8; 32], identity: &NodeIdentity) -> Result<Self, HostKeyError> {
        let key = PrivateKey::from(Ed25519Keypair::from_seed(seed));
        let blob = key.public_key().to_bytes()?;
        let nonce: [u8; 32] = Sha256::new_with_prefix(b"alknet host certificate v1")
            .chain_update(blob)
            .finalize()
            .into();
        let mut builder = Builder::new(nonce, key.public_key().clone(), 0, u64::MAX)?;
        builder.cert_type(CertType::Host)?.key_id(identity.id().to_string())?;
        // OpenSSH up to 10.2 compares the host's name with each principal, later versions
        // take principals as patterns; none of them takes an empty list any more.
        builder.valid_principal("*")?.valid_principal(identity.id().to_string())?;
        let certificate = builder.sign(&Authority(identity))?;
        Ok(Self { key, certificate })
    }

    /// The host key as one line in OpenSSH's format, without a comment.
    pub fn public_line(&self) -> Result<String, HostKeyError> {
        Ok(self.key.public_key().to_openssh()?)
    }

    pub(crate) fn key(&self) -> &PrivateKey {
        &self.key
    }

    pub(crate) fn certificate(&self) -> &Certificate {
        &self.certificate
    }
}

impl fmt::Debug for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostKey({})", self.key.public_key().fingerprint(ssh_key::HashAlg::Sha256))
    }
}

/// A node's id as an OpenSSH public key: `ssh-ed25519 AAAA…`.
pub fn node_key_line(node: NodeId) -> Result<String, HostKeyError> {
    Ok(PublicKey::from(key_data(node)).to_openssh()?)
}

/// The line of `known_hosts` by which OpenSSH trusts this node alone, for every host that
/// matches `pattern` (`*`, a name, `[name]:port`).
///
/// OpenSSH before 10.3 also wants `HostKeyAlias` to be the node's id as it is displayed;
/// given that, the id serves as the pattern as well:
///
/// ```text
/// ssh -o HostKeyAlias=ed25519:7f… -o UserKnownHostsFile=FILE -o StrictHostKeyChecking=yes …
/// ```
pub fn known_hosts_line(pattern: &str, node: NodeId) -> Result<String, HostKeyError> {
    Ok(format!("@cert-authority {pattern} {}", node_key_line(node)?))
}

fn key_data(node: NodeId) -> KeyData {
    KeyData::from(Ed25519PublicKey(*node.as_bytes()))
}

/// The node's identity in the role of a certification authority. What it signs begins with
/// the length-prefixed name of the certificate type, as nothing else that it signs does.
struct Authority<'a>(&'a NodeIdentity);

impl From<&Authority<'_>> for KeyData {
    fn from(authority: &Authority<'_>) -> Self {
        key_data(authority.0.id())
    }
}

impl Signer<Signature> for Authority<'_> {
    fn try_sign(&self, message: &[u8]) -> Result<Signature, signature::Error> {
        Signature::new(Algorithm::Ed25519, self.0.sign(message).to_vec())
            .map_err(signature::Error::from_source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(seed: u8) -> NodeIdentity {
        NodeIdentity::from_seed(&[seed; 32]).unwrap()
    }

    #[test]
    fn the_node_certifies_its_host_key() {
        let host = HostKey::from_seed(&[2; 32], &node(1)).unwrap();
        let trusted = |id: &NodeIdentity| {
            let authority = PublicKey::from(key_data(id.id()));
            let fingerprint = authority.fingerprint(ssh_key::HashAlg::Sha256);
            host.certificate.validate_at(1_800_000_000, [&fingerprint])
        };
        assert!(trusted(&node(1)).is_ok());
        assert!(trusted(&node(3)).is_err());
        assert_eq!(host.certificate.public_key(), host.key.public_key().key_data());
        assert!(host.certificate.cert_type().is_host());
    }

    #[test]
    fn the_certificate_stays_the_same() {
        let make = || HostKey::from_seed(&[2; 32], &node(1)).unwrap().certificate;
        assert_eq!(make().to_bytes().unwrap(), make().to_bytes().unwrap());
    }

    #[test]
    fn nothing_of_the_key_is_printed() {
        let host = HostKey::from_seed(&[2; 32], &node(1)).unwrap();
        assert!(format!("{host:?}").starts_with("HostKey(SHA256:"));
    }

    #[test]
    fn a_node_id_is_an_openssh_key() {
        let line = node_key_line(node(1).id()).unwrap();
        let key = PublicKey::from_openssh(&line).unwrap();
        assert_eq!(key.key_data(), &key_data(node(1).id()));
        assert!(known_hosts_line("*", node(1).id()).unwrap().starts_with("@cert-authority * ssh-"));
    }
}
