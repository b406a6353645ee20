//! Encrypted data that says what it needs to be decrypted.

use std::{fmt, str::FromStr};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use crate::{
    CryptoError, SecretKey,
    aead::{self, NONCE, TAG},
};

/// The first bytes, so that a file shows what it is.
const MAGIC: [u8; 3] = *b"akv";
/// The format that this version writes.
const FORMAT: u8 = 1;
/// Magic, format, version of the key.
const HEADER: usize = 8;
/// The beginning of the text form, which is base64url of the bytes without padding.
const TEXT: &str = "akv:";
/// What the associated data begins with: no other use of a key has the same.
const DOMAIN: &[u8] = b"alknet-vault data v1\0";

/// Data under AES-256-GCM with the version of its key.
///
/// ```text
/// "akv"  format (1 byte, 1)  key version (4, big-endian)  nonce (12)  ciphertext  tag (16)
/// ```
///
/// All of it is authenticated, and so is the context that the data was encrypted for, which
/// is not in it. As text it is `akv:` and the same bytes in base64url.
#[derive(Clone, PartialEq, Eq)]
pub struct Ciphertext {
    key_version: u32,
    nonce: [u8; NONCE],
    content: Vec<u8>,
}

/// Bytes are no ciphertext of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidCiphertext {
    /// It begins otherwise, or the text is no base64url.
    #[error("this is nothing that the vault encrypted")]
    Foreign,
    /// It is of a later format.
    #[error("this is encrypted in format {0}, and this version reads format {FORMAT}")]
    Future(u8),
    /// It is shorter than an empty one.
    #[error("the encrypted data is cut off")]
    Truncated,
}

/// The data was not decrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the encrypted data is damaged, was encrypted by another vault, or for another context")]
pub struct NotDecrypted;

impl Ciphertext {
    pub(crate) fn seal(
        key: &SecretKey,
        key_version: u32,
        context: &[u8],
        plaintext: &[u8],
    ) -> Result<Self, CryptoError> {
        let associated = associated(key_version, context);
        let (nonce, content) = aead::seal(key.expose(), &associated, plaintext)?;
        Ok(Self { key_version, nonce, content })
    }

    pub(crate) fn open(
        &self,
        key: &SecretKey,
        context: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, NotDecrypted> {
        let associated = associated(self.key_version, context);
        aead::open(key.expose(), self.nonce, &associated, &self.content).map_err(|_| NotDecrypted)
    }

    /// The version of the data key that it is encrypted with. It is authentic only once the
    /// data has been decrypted.
    pub fn key_version(&self) -> u32 {
        self.key_version
    }

    /// Reads the binary form.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidCiphertext> {
        let rest = bytes.strip_prefix(&MAGIC).ok_or(InvalidCiphertext::Foreign)?;
        let (format, rest) = rest.split_first().ok_or(InvalidCiphertext::Truncated)?;
        if *format != FORMAT {
            return Err(InvalidCiphertext::Future(*format));
        }
        let (version, rest) = rest.split_first_chunk().ok_or(InvalidCiphertext::Truncated)?;
        let (nonce, content) = rest.split_first_chunk().ok_or(InvalidCiphertext::Truncated)?;
        if content.len() < TAG {
            return Err(InvalidCiphertext::Truncated);
        }
        Ok(Self {
            key_version: u32::from_be_bytes(*version),
            nonce: *nonce,
            content: content.to_vec(),
        })
    }

    /// The binary form.
    pub fn to_bytes(&self) -> Vec<u8> {
        [&header(self.key_version)[..], &self.nonce, &self.content].concat()
    }
}

fn header(key_version: u32) -> [u8; HEADER] {
    let [a, k, v] = MAGIC;
    let [v0, v1, v2, v3] = key_version.to_be_bytes();
    [a, k, v, FORMAT, v0, v1, v2, v3]
}

/// The header has one length, so that its end and the context's beginning are no question.
fn associated(key_version: u32, context: &[u8]) -> Vec<u8> {
    [DOMAIN, &header(key_version), context].concat()
}

impl fmt::Display for Ciphertext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{TEXT}{}", BASE64_URL_SAFE_NO_PAD.encode(self.to_bytes()))
    }
}

impl FromStr for Ciphertext {
    type Err = InvalidCiphertext;

    fn from_str(text: &str) -> Result<Self, InvalidCiphertext> {
        let digits = text.trim().strip_prefix(TEXT).ok_or(InvalidCiphertext::Foreign)?;
        let bytes =
            BASE64_URL_SAFE_NO_PAD.decode(digits).map_err(|_| InvalidCiphertext::Foreign)?;
        Self::parse(&bytes)
    }
}

impl fmt::Debug for Ciphertext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ciphertext(key {}, {} bytes)", self.key_version, self.content.len())
    }
}
