//! The node's own key.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::NodeId;

/// An Ed25519 key that names a node or a client. Peers pin its public half, the [`NodeId`].
pub struct NodeIdentity {
    key: Ed25519KeyPair,
    pkcs8: Zeroizing<Vec<u8>>,
    id: NodeId,
}

/// The key material or the certificate made from it was not usable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The cryptographic library refused the key.
    #[error("the identity key was rejected: {0}")]
    Key(#[from] aws_lc_rs::error::KeyRejected),
    /// The certificate around the key could not be made.
    #[error("the identity certificate could not be made")]
    Certificate(#[from] rcgen::Error),
    /// rustls refused the key.
    #[error("the identity key does not work for TLS")]
    Tls(#[from] rustls::Error),
    /// The library failed to encode the key.
    #[error("the identity key could not be encoded")]
    Encoding,
}

/// A signature does not fit the key and the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature is not valid")]
pub struct InvalidSignature;

impl NodeIdentity {
    /// The identity that a 32-byte seed (RFC 8032) stands for.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, IdentityError> {
        let key = Ed25519KeyPair::from_seed_unchecked(seed)?;
        let document = key.to_pkcs8v1().map_err(|_| IdentityError::Encoding)?;
        let pkcs8 = Zeroizing::new(document.as_ref().to_vec());
        let public = key.public_key().as_ref().try_into().map_err(|_| IdentityError::Encoding)?;
        Ok(Self { key, pkcs8, id: NodeId::from_bytes(public) })
    }

    /// The public half.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Signs a message (pure Ed25519). The caller separates its messages from every other
    /// use of the key by a prefix of their own.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.key.sign(message).as_ref());
        signature
    }

    /// A self-signed X.509 certificate around the key: peers read the key from it and pin
    /// that; its names and dates mean nothing.
    pub(crate) fn certified_key(&self) -> Result<rustls::sign::CertifiedKey, IdentityError> {
        let der = PrivatePkcs8KeyDer::from(self.pkcs8.as_slice());
        let key = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ED25519)?;
        let params = rcgen::CertificateParams::new(Vec::new())?;
        let certificate: CertificateDer<'static> = params.self_signed(&key)?.der().clone();
        let signer = rustls::crypto::aws_lc_rs::sign::any_eddsa_type(&der)?;
        Ok(rustls::sign::CertifiedKey::new(vec![certificate], signer))
    }
}

impl fmt::Debug for NodeIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeIdentity({})", self.id)
    }
}

impl NodeId {
    /// Checks a signature that [`NodeIdentity::sign`] made.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        UnparsedPublicKey::new(&ED25519, self.as_bytes())
            .verify(message, signature)
            .map_err(|_| InvalidSignature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032, section 7.1, test 1.
    #[test]
    fn a_seed_gives_the_published_key_and_signature() {
        let seed = hex::decode("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
            .unwrap();
        let identity = NodeIdentity::from_seed(seed.as_slice().try_into().unwrap()).unwrap();
        assert_eq!(
            identity.id().to_string(),
            "ed25519:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
        );
        let signature = identity.sign(b"");
        assert!(
            hex::encode(signature)
                .starts_with("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065")
        );
        assert_eq!(identity.id().verify(b"", &signature), Ok(()));
        assert_eq!(identity.id().verify(b"x", &signature), Err(InvalidSignature));
    }

    #[test]
    fn the_certificate_holds_the_key() {
        let identity = NodeIdentity::from_seed(&[7; 32]).unwrap();
        assert!(identity.certified_key().unwrap().keys_match().is_ok());
    }
}
