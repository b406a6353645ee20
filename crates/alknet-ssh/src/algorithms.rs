//! Which algorithms the server speaks.

use std::borrow::Cow;

use russh::{
    Preferred, cipher, compression, kex,
    keys::{Algorithm, EcdsaCurve, HashAlg},
    mac,
};

/// Which key exchanges are offered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KeyExchange {
    /// ML-KEM 768 with X25519 first, and X25519 alone for clients without it: OpenSSH has it
    /// from 9.9 on.
    #[default]
    Compatible,
    /// ML-KEM 768 with X25519 alone: what is recorded today is no use to a quantum computer
    /// of tomorrow, and older clients cannot connect.
    PostQuantum,
}

/// Post-quantum key exchange first, then X25519. Both strict (no packet may be slipped in
/// before the first encrypted one).
const COMPATIBLE: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::EXTENSION_SUPPORT_AS_SERVER,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
];
const POST_QUANTUM: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::EXTENSION_SUPPORT_AS_SERVER,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
];

/// AEAD only, the fastest on hardware with AES instructions first.
const CIPHERS: &[cipher::Name] =
    &[cipher::AES_128_GCM, cipher::AES_256_GCM, cipher::CHACHA20_POLY1305];

/// Never used, because every cipher is an AEAD; but some clients end the negotiation where
/// the list is empty.
const MACS: &[mac::Name] = &[mac::HMAC_SHA256_ETM, mac::HMAC_SHA512_ETM];

/// What user keys and the authorities of certificates may sign with; the host key is
/// Ed25519, so of these only that one is offered for the host. SHA-1 (`ssh-rsa`) is absent.
/// A security key's signature counts only if somebody touched the key for it, which our
/// patch to russh sees to.
pub(crate) const USER_KEYS: &[Algorithm] = &[
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
    Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
    Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
    Algorithm::SkEd25519,
    Algorithm::SkEcdsaSha2NistP256,
];

/// RSA keys shorter than this many bits are refused (NIST SP 800-131A).
pub(crate) const MIN_RSA_BITS: u32 = 2048;

/// What is offered in the key exchange.
pub(crate) fn preferred(key_exchange: KeyExchange) -> Preferred {
    let kex = match key_exchange {
        KeyExchange::Compatible => COMPATIBLE,
        KeyExchange::PostQuantum => POST_QUANTUM,
    };
    Preferred {
        kex: Cow::Borrowed(kex),
        key: Cow::Borrowed(USER_KEYS),
        host_key_certificates: Cow::Borrowed(&[]),
        cipher: Cow::Borrowed(CIPHERS),
        mac: Cow::Borrowed(MACS),
        compression: Cow::Borrowed(&[compression::NONE]),
    }
}
