//! User certificates in OpenSSH's format (its `PROTOCOL.certkeys`): what has to hold for one
//! to count, apart from who trusts its authority.

use std::{
    fmt,
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use alknet_core::KeyFingerprint;
use ipnet::IpNet;
use russh::keys::{
    Certificate, PublicKey,
    ssh_key::{HashAlg, public::KeyData},
};

use crate::user_key::{UserKeyError, accepted};

/// As many as OpenSSH takes.
const PRINCIPALS: usize = 256;
/// How much of a text out of a certificate is shown.
const SHOWN: usize = 64;

const FORCE_COMMAND: &str = "force-command";
const SOURCE_ADDRESS: &str = "source-address";
/// The extension without which there is no terminal.
pub(crate) const PERMIT_PTY: &str = "permit-pty";
/// The extension without which nothing of the network is forwarded.
pub(crate) const PERMIT_PORT_FORWARDING: &str = "permit-port-forwarding";
/// The extension without which no agent is forwarded.
pub(crate) const PERMIT_AGENT_FORWARDING: &str = "permit-agent-forwarding";

/// Why a certificate does not count. For the audit log: the client is told only that it is
/// refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    #[error("not a user certificate")]
    Type,
    #[error("certificate authority: {0}")]
    Authority(#[source] UserKeyError),
    #[error("the certificate is not by the authority that it names")]
    Signature,
    #[error("certificate is not valid yet")]
    Early,
    #[error("certificate has expired")]
    Expired,
    #[error("certificate without principals")]
    NoPrincipals,
    #[error("certificate with more than {PRINCIPALS} principals")]
    ManyPrincipals,
    #[error("unknown certificate authority")]
    UnknownAuthority,
    #[error("no principal that the certificate authority is trusted for")]
    NoTrustedPrincipal,
    #[error("source address outside the certificate's list")]
    SourceAddress,
    #[error("malformed critical option {0:?}")]
    Malformed(&'static str),
    #[error("unknown critical option {0:?}")]
    UnknownOption(String),
}

/// Checks all of a certificate but who trusts its authority for its principals: the client
/// is at `peer`, and the time is `now`.
pub(crate) fn check(
    certificate: &Certificate,
    peer: Option<IpAddr>,
    now: SystemTime,
) -> Result<(), CertificateError> {
    if !certificate.cert_type().is_user() {
        return Err(CertificateError::Type);
    }
    accepted(certificate.signature_key(), &certificate.signature().algorithm())
        .map_err(CertificateError::Authority)?;
    check_period(certificate, now)?;
    match certificate.valid_principals().len() {
        0 => Err(CertificateError::NoPrincipals),
        1..=PRINCIPALS => check_options(certificate, peer),
        _ => Err(CertificateError::ManyPrincipals),
    }
}

fn check_period(certificate: &Certificate, now: SystemTime) -> Result<(), CertificateError> {
    let (from, until) = (certificate.valid_after(), certificate.valid_before());
    let own = certificate.signature_key().fingerprint(HashAlg::Sha256);
    // An empty period is over, whenever it is. In any other, the signature alone decides
    // whether the certificate holds at the first second.
    if from < until && certificate.validate_at(from, [&own]).is_err() {
        return Err(CertificateError::Signature);
    }
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if now >= until {
        Err(CertificateError::Expired)
    } else if now < from {
        Err(CertificateError::Early)
    } else {
        Ok(())
    }
}

fn check_options(certificate: &Certificate, peer: Option<IpAddr>) -> Result<(), CertificateError> {
    for (name, value) in certificate.critical_options().iter() {
        match name.as_str() {
            FORCE_COMMAND if value.is_empty() || value.contains('\0') => {
                return Err(CertificateError::Malformed(FORCE_COMMAND));
            }
            FORCE_COMMAND => {}
            SOURCE_ADDRESS => check_source(value, peer)?,
            unknown => return Err(CertificateError::UnknownOption(cut(unknown))),
        }
    }
    Ok(())
}

/// Checks a peer against a list such as `192.0.2.0/24,2001:db8::1`.
fn check_source(list: &str, peer: Option<IpAddr>) -> Result<(), CertificateError> {
    let networks: Option<Vec<IpNet>> = list.split(',').map(network).collect();
    let networks = networks.ok_or(CertificateError::Malformed(SOURCE_ADDRESS))?;
    let peer = peer.ok_or(CertificateError::SourceAddress)?.to_canonical();
    if networks.iter().any(|network| network.contains(&peer)) {
        Ok(())
    } else {
        Err(CertificateError::SourceAddress)
    }
}

fn network(text: &str) -> Option<IpNet> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.into());
    }
    // As with OpenSSH, an address beside the network's is a mistake.
    text.parse().ok().filter(|network: &IpNet| network.trunc() == *network)
}

/// The fingerprint of the key that signed the certificate.
pub(crate) fn authority(certificate: &Certificate) -> Option<KeyFingerprint> {
    fingerprint(certificate.signature_key())
}

/// When the certificate ends by itself, if it does.
pub(crate) fn valid_until(certificate: &Certificate) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(certificate.valid_before()))
}

/// The one command that the certificate is for, if it is.
pub(crate) fn forced_command(certificate: &Certificate) -> Option<&str> {
    certificate.critical_options().get(FORCE_COMMAND).map(String::as_str)
}

/// Whether the certificate has an extension, such as [`PERMIT_PTY`].
pub(crate) fn permits(certificate: &Certificate, extension: &str) -> bool {
    certificate.extensions().contains_key(extension)
}

/// The fingerprint of a key.
pub(crate) fn fingerprint(key: &KeyData) -> Option<KeyFingerprint> {
    let blob = PublicKey::from(key.clone()).to_bytes().ok()?;
    Some(KeyFingerprint::of_openssh_blob(&blob))
}

/// What the audit log says of a certificate.
pub(crate) struct Description<'a>(pub(crate) &'a Certificate);

impl fmt::Display for Description<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key id {:?}, serial {}", cut(self.0.key_id()), self.0.serial())?;
        match authority(self.0) {
            Some(authority) => write!(f, ", authority {authority}"),
            None => Ok(()),
        }
    }
}

/// The beginning of a text that somebody else chose.
pub(crate) fn cut(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use russh::keys::{
        PrivateKey,
        ssh_key::{self, certificate::Builder, private::Ed25519Keypair},
    };

    use super::*;

    fn key(seed: u8) -> PrivateKey {
        PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]))
    }

    type Change<'a> = &'a dyn Fn(&mut Builder) -> ssh_key::Result<&mut Builder>;

    fn certificate(change: Change<'_>) -> Certificate {
        let mut builder = Builder::new([0; 16], key(1).public_key().clone(), 1000, 2000).unwrap();
        change(&mut builder).unwrap();
        builder.sign(&key(2)).unwrap()
    }

    fn at(seconds: u64, certificate: &Certificate) -> Result<(), CertificateError> {
        let peer = Some("192.0.2.7".parse().unwrap());
        check(certificate, peer, UNIX_EPOCH + Duration::from_secs(seconds))
    }

    #[test]
    fn the_period_begins_with_its_first_second_and_ends_before_its_last() {
        let certificate = certificate(&|it| it.valid_principal("team"));
        assert!(matches!(at(999, &certificate), Err(CertificateError::Early)));
        assert!(at(1000, &certificate).is_ok());
        assert!(at(1999, &certificate).is_ok());
        assert!(matches!(at(2000, &certificate), Err(CertificateError::Expired)));
        assert_eq!(valid_until(&certificate), Some(UNIX_EPOCH + Duration::from_secs(2000)));
    }

    #[test]
    fn one_that_was_changed_is_not_by_its_authority() {
        let certificate = certificate(&|it| it.valid_principal("team"));
        let mut bytes = certificate.to_bytes().unwrap();
        let found = bytes.windows(4).position(|four| four == b"team").unwrap();
        bytes[found] = b'b';
        let changed = Certificate::from_bytes(&bytes).unwrap();
        assert_eq!(changed.valid_principals(), ["beam"]);
        assert!(matches!(at(1500, &changed), Err(CertificateError::Signature)));
    }

    #[test]
    fn a_certificate_for_everybody_is_for_nobody() {
        let certificate = certificate(&|it| it.all_principals_valid());
        assert!(matches!(at(1500, &certificate), Err(CertificateError::NoPrincipals)));
    }

    #[test]
    fn source_addresses_are_networks_or_addresses() {
        let from = |list: &str, peer: &str| check_source(list, Some(peer.parse().unwrap()));
        for (list, peer) in [
            ("192.0.2.0/24", "192.0.2.7"),
            ("10.0.0.0/8,192.0.2.7", "192.0.2.7"),
            ("192.0.2.7", "::ffff:192.0.2.7"),
            ("2001:db8::/32", "2001:db8::1"),
        ] {
            assert!(from(list, peer).is_ok(), "{list} {peer}");
        }
        for list in ["10.0.0.0/8", "192.0.2.8", "2001:db8::/32"] {
            let verdict = from(list, "192.0.2.7");
            assert!(matches!(verdict, Err(CertificateError::SourceAddress)), "{list}");
        }
        for list in ["", "192.0.2.0/24,", "192.0.2.7/24", "example.com", "!10.0.0.0/8", "*"] {
            let verdict = from(list, "192.0.2.7");
            assert!(matches!(verdict, Err(CertificateError::Malformed(_))), "{list}");
        }
        let nowhere = check_source("0.0.0.0/0", None);
        assert!(matches!(nowhere, Err(CertificateError::SourceAddress)));
    }

    #[test]
    fn what_the_authority_wrote_is_escaped_and_cut() {
        let id = format!("a\n\x1b{}", "b".repeat(1000));
        let certificate =
            certificate(&|it| it.key_id(id.clone())?.serial(7)?.valid_principal("team"));
        let text = Description(&certificate).to_string();
        assert!(text.starts_with("key id \"a\\n\\u{1b}bbb"), "{text}");
        assert!(text.contains("b\", serial 7, authority SHA256:"), "{text}");
        assert!(text.len() < 200, "{text}");
    }
}
