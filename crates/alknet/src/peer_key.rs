//! A peer's public key as people give it: an OpenSSH line, a file of one, `ed25519:<hex>`,
//! `x509:<hex>`, or a certificate in PEM.

use std::{fs::File, io, io::Read as _, path::Path};

use alknet_core::{InvalidFingerprint, InvalidNodeId, KeyFingerprint};
use russh::keys::{
    Algorithm, PublicKey,
    ssh_key::{self, public::KeyData},
};
use rustls_pki_types::{
    CertificateDer,
    pem::{self, PemObject as _},
};

/// The longest text of one key: an RSA key of 16384 bits takes 2800 characters.
const MAX_TEXT: usize = 16 * 1024;
/// How much of a comment is kept.
const MAX_COMMENT: usize = 128;
/// RSA keys below this are refused.
const MIN_RSA_BITS: u32 = 2048;

/// One public key of a peer, ready for the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerKey {
    /// What it is found by.
    pub(crate) fingerprint: KeyFingerprint,
    /// Its algorithm: `ed25519` for a node's key, `x509` for a certificate, else the name in
    /// OpenSSH's format.
    pub(crate) kind: String,
    /// Where it comes from, in the owner's words.
    pub(crate) comment: String,
    /// The OpenSSH line, if it is such a key.
    pub(crate) openssh: Option<String>,
}

/// The text is no public key that a peer can have.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum InvalidKey {
    /// Neither form fits.
    #[error(
        "this is neither an OpenSSH public key, nor a certificate in PEM, nor \"ed25519:\" or \
         \"x509:\" and 64 hexadecimal digits"
    )]
    Format(#[source] ssh_key::Error),
    /// It begins like a node's key.
    #[error(transparent)]
    NodeId(#[from] InvalidNodeId),
    /// It begins like the fingerprint of a certificate.
    #[error("a certificate is written as \"x509:\" and the 64 hexadecimal digits of its SHA-256")]
    Fingerprint(#[from] InvalidFingerprint),
    /// It begins like a certificate.
    #[error("this is no certificate in PEM")]
    Pem(#[from] pem::Error),
    /// What the PEM holds.
    #[error("this is no X.509 certificate")]
    Certificate,
    /// Only OpenSSH's keys sign OpenSSH's certificates.
    #[error("an authority needs an OpenSSH public key")]
    NoAuthority,
    /// Longer than any key.
    #[error("the text is too long for a public key")]
    TooLong,
    /// A private key, which nobody else should have.
    #[error("this is a private key: give the public one (the file that ends in .pub)")]
    Private,
    /// An algorithm that the SSH server does not take.
    #[error("keys of the type {0} are not supported")]
    Unsupported(String),
    /// Too short to be safe.
    #[error("an RSA key needs {MIN_RSA_BITS} bits or more")]
    WeakRsa,
    /// Looks like a file that cannot be read.
    #[error("the key file {path} could not be read")]
    File {
        /// The name that was given.
        path: String,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
}

impl PeerKey {
    /// From a command-line argument: a key, or the name of a file that holds one.
    pub(crate) fn from_argument(argument: &str) -> Result<Self, InvalidKey> {
        match Self::parse(argument) {
            Err(InvalidKey::Format(_)) if !argument.contains(char::is_whitespace) => Self::parse(
                &read(Path::new(argument))
                    .map_err(|source| InvalidKey::File { path: argument.into(), source })?,
            ),
            parsed => parsed,
        }
    }

    /// From the text of one key.
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidKey> {
        let text = text.trim();
        if text.len() > MAX_TEXT {
            return Err(InvalidKey::TooLong);
        }
        if text.starts_with("-----BEGIN CERTIFICATE-----") {
            return Self::of_certificate(text);
        }
        if text.starts_with("-----BEGIN") {
            return Err(InvalidKey::Private);
        }
        if text.starts_with("x509:") {
            return Ok(Self::bare(text.parse()?, "x509"));
        }
        if text.starts_with("ed25519:") {
            return Ok(Self::bare(KeyFingerprint::Ed25519(text.parse()?), "ed25519"));
        }
        let key = PublicKey::from_openssh(text).map_err(InvalidKey::Format)?;
        supported(&key)?;
        let blob = key.to_bytes().map_err(InvalidKey::Format)?;
        Ok(Self {
            fingerprint: KeyFingerprint::of_openssh_blob(&blob),
            kind: key.algorithm().to_string(),
            comment: printable(key.comment().as_ref()),
            openssh: Some(
                PublicKey::from(key.key_data().clone()).to_openssh().map_err(InvalidKey::Format)?,
            ),
        })
    }

    /// The key of an authority, from a command-line argument.
    pub(crate) fn authority_from_argument(argument: &str) -> Result<Self, InvalidKey> {
        Self::from_argument(argument)?.into_authority()
    }

    /// It as the key of an authority.
    pub(crate) fn into_authority(self) -> Result<Self, InvalidKey> {
        if self.openssh.is_some() { Ok(self) } else { Err(InvalidKey::NoAuthority) }
    }

    /// What a handshake knows a certificate by. Of a chain, the first counts.
    fn of_certificate(text: &str) -> Result<Self, InvalidKey> {
        let certificate = CertificateDer::from_pem_slice(text.as_bytes())?;
        let fingerprint = KeyFingerprint::of_client_certificate(&certificate);
        let fingerprint = fingerprint.ok_or(InvalidKey::Certificate)?;
        let kind =
            if matches!(fingerprint, KeyFingerprint::Ed25519(_)) { "ed25519" } else { "x509" };
        Ok(Self::bare(fingerprint, kind))
    }

    fn bare(fingerprint: KeyFingerprint, kind: &str) -> Self {
        Self { fingerprint, kind: kind.into(), comment: String::new(), openssh: None }
    }
}

fn supported(key: &PublicKey) -> Result<(), InvalidKey> {
    match key.algorithm() {
        Algorithm::Ed25519
        | Algorithm::Ecdsa { .. }
        | Algorithm::SkEd25519
        | Algorithm::SkEcdsaSha2NistP256 => Ok(()),
        Algorithm::Rsa { .. } => match key.key_data() {
            KeyData::Rsa(rsa) if rsa.key_size() >= MIN_RSA_BITS => Ok(()),
            _ => Err(InvalidKey::WeakRsa),
        },
        other => Err(InvalidKey::Unsupported(other.to_string())),
    }
}

/// A comment comes from outside and is shown on terminals: control characters go.
fn printable(comment: &str) -> String {
    comment.chars().filter(|c| !c.is_control()).take(MAX_COMMENT).collect()
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_TEXT as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

    #[test]
    fn an_openssh_line_has_the_fingerprint_that_ssh_keygen_prints() {
        let key = PeerKey::parse(&format!("{LINE} alice@laptop \u{1b}[31mred\n")).unwrap();
        assert_eq!(key.kind, "ssh-ed25519");
        assert_eq!(key.comment, "alice@laptop [31mred");
        assert_eq!(key.openssh.as_deref(), Some(LINE));
        assert_eq!(
            key.fingerprint.to_string(),
            "SHA256:T7SvZ2cslqpPj6nKzitCBHHlpVF3r3MvLwmFL0fk0IE"
        );
    }

    #[test]
    fn a_node_id_is_a_key() {
        let text = format!("ed25519:{}", "ab".repeat(32));
        assert_eq!(PeerKey::parse(&text).unwrap().fingerprint.to_string(), text);
        assert!(matches!(PeerKey::parse("ed25519:ab"), Err(InvalidKey::NodeId(_))));
    }

    #[test]
    fn a_file_of_a_key_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("id.pub");
        std::fs::write(&path, LINE).unwrap();
        let argument = path.to_str().unwrap();
        assert_eq!(PeerKey::from_argument(argument).unwrap(), PeerKey::parse(LINE).unwrap());
        let missing = PeerKey::from_argument("no-such-file.pub").unwrap_err();
        assert!(matches!(missing, InvalidKey::File { .. }), "{missing}");
    }

    #[test]
    fn what_is_no_safe_public_key_is_refused() {
        let private = PeerKey::parse("-----BEGIN OPENSSH PRIVATE KEY-----\n");
        assert!(matches!(private, Err(InvalidKey::Private)));
        let options = format!("command=\"id\" {LINE}");
        assert!(matches!(PeerKey::parse(&options), Err(InvalidKey::Format(_))));
        assert!(matches!(PeerKey::parse(&"x".repeat(MAX_TEXT + 1)), Err(InvalidKey::TooLong)));
        let rsa1024 = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQClGVYjOOpHscexObnTjF1QfUicZxE8kHqrFQbdqxCCTMlUEWPL7FKezPaXc/1+vYqUzSROtD2I18FTZi4r5QT2koF3oqvvu3UBsxqM079iwX5PGow1kw7goIurwDzD8h931NE74iXxJSHvDmqEHJ4+XeH/NejTUy2nkpjGMj0dEw==";
        assert!(matches!(PeerKey::parse(rsa1024), Err(InvalidKey::WeakRsa)));
    }
}
