//! The sealed vault: what lies on the disk.

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::{
    CryptoError, Seed, Vault,
    aead::{self, NONCE, TAG},
    sealing::{Argon2id, Cost, Method, SALT, SealingKey},
};

/// The first bytes, in every version.
const MAGIC: [u8; 12] = *b"alknet-vault";
/// The version that is written.
const VERSION: u16 = 1;
/// Magic, version and length of the whole, in every version.
const START: usize = MAGIC.len() + 4;
/// SHA-256 over all before it stands at the end, in every version.
const CHECKSUM: usize = 32;
/// A sealed vault is not longer than this.
const MAX: usize = 1024;
/// What is sealed: seed, version of the data key, entropy with its length.
const CONTENT: usize = 64 + 4 + 1 + 32;

/// A vault that is locked, as the bytes of a file.
///
/// ```text
/// "alknet-vault"  version (2 bytes, 1)  length of the whole (2)
/// method (1): 1 passphrase   salt (16)  memory in KiB (4)  passes (4)  lanes (4)
///             2 key file
///             3 credential   length of the name (1)  name
/// nonce (12)
/// AES-256-GCM of: seed (64)  data key version (4)  length of the entropy (1)  entropy (32)
/// tag (16)
/// SHA-256 of all the above (32)
/// ```
///
/// Numbers are big-endian. All before the nonce is authenticated as associated data. The
/// checksum tells damage from a wrong passphrase; whoever changes the file on purpose can
/// make it fit and is then stopped by the tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedVault {
    method: Method,
    nonce: [u8; NONCE],
    content: [u8; CONTENT + TAG],
}

/// Bytes are no sealed vault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// They begin otherwise.
    #[error("this is no vault")]
    Foreign,
    /// The end is missing.
    #[error("the vault is cut off: {present} bytes are left of {whole}")]
    Truncated {
        /// How many bytes there are.
        present: usize,
        /// How many it says there should be; as many as any vault begins with if not even
        /// that is there.
        whole: usize,
    },
    /// The checksum does not fit, or something stands after the end.
    #[error("the vault is damaged: its checksum does not fit")]
    Damaged,
    /// It is of a later version.
    #[error("the vault is of version {0}, and this program reads version {VERSION}")]
    Future(u16),
    /// The checksum fits, and the content makes no sense.
    #[error("the vault says something impossible about how it is sealed")]
    Malformed,
}

/// The vault was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key or passphrase is not the one that the vault is sealed with")]
pub struct WrongKey;

impl SealedVault {
    /// Reads the bytes of a file. Nothing is allocated beyond their length.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let begins = bytes.len().min(MAGIC.len());
        if bytes.get(..begins) != MAGIC.get(..begins) {
            return Err(ParseError::Foreign);
        }
        let present = bytes.len();
        let (start, _) = bytes
            .split_first_chunk::<START>()
            .ok_or(ParseError::Truncated { present, whole: START })?;
        let [.., v0, v1, l0, l1] = *start;
        let whole = usize::from(u16::from_be_bytes([l0, l1]));
        if present < whole {
            return Err(ParseError::Truncated { present, whole });
        }
        let (signed, sum) = bytes.split_last_chunk::<CHECKSUM>().ok_or(ParseError::Damaged)?;
        if present > whole || <[u8; CHECKSUM]>::from(Sha256::digest(signed)) != *sum {
            return Err(ParseError::Damaged);
        }
        match u16::from_be_bytes([v0, v1]) {
            VERSION if whole <= MAX => body(signed.get(START..).unwrap_or_default()),
            0 | VERSION => Err(ParseError::Malformed),
            later => Err(ParseError::Future(later)),
        }
    }

    /// The bytes for a file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = header(&self.method);
        bytes.extend_from_slice(&self.nonce);
        bytes.extend_from_slice(&self.content);
        let sum = Sha256::digest(&bytes);
        bytes.extend_from_slice(&sum);
        bytes
    }

    /// How it is opened.
    pub fn method(&self) -> &Method {
        &self.method
    }

    pub(crate) fn seal(
        vault: &Vault,
        method: Method,
        key: &SealingKey,
    ) -> Result<Self, CryptoError> {
        let content = vault.to_content();
        let (nonce, content) = aead::seal(key.expose(), &header(&method), &*content)?;
        let content = content.try_into().map_err(|_| CryptoError)?;
        Ok(Self { method, nonce, content })
    }

    /// Opens it.
    pub fn open(&self, key: &SealingKey) -> Result<Vault, WrongKey> {
        let header = header(&self.method);
        let content =
            aead::open(key.expose(), self.nonce, &header, &self.content).map_err(|_| WrongKey)?;
        Vault::from_content(&content).ok_or(WrongKey)
    }
}

/// All before the nonce.
fn header(method: &Method) -> Vec<u8> {
    let mut sealed = Vec::new();
    match method {
        Method::Passphrase(Argon2id { salt, cost }) => {
            sealed.push(1);
            sealed.extend_from_slice(salt);
            for number in [cost.memory, cost.passes, cost.lanes] {
                sealed.extend_from_slice(&number.to_be_bytes());
            }
        }
        Method::KeyFile => sealed.push(2),
        Method::Credential(name) => {
            sealed.push(3);
            sealed.push(u8::try_from(name.as_str().len()).unwrap_or(u8::MAX));
            sealed.extend_from_slice(name.as_str().as_bytes());
        }
    }
    let whole = START + sealed.len() + NONCE + CONTENT + TAG + CHECKSUM;
    let whole = u16::try_from(whole).unwrap_or(u16::MAX);
    [&MAGIC[..], &VERSION.to_be_bytes(), &whole.to_be_bytes(), &sealed].concat()
}

/// What stands between the start and the checksum.
fn body(bytes: &[u8]) -> Result<SealedVault, ParseError> {
    let (method, rest) = method(bytes).ok_or(ParseError::Malformed)?;
    let (nonce, content) = rest.split_first_chunk().ok_or(ParseError::Malformed)?;
    let content = content.try_into().map_err(|_| ParseError::Malformed)?;
    Ok(SealedVault { method, nonce: *nonce, content })
}

fn method(bytes: &[u8]) -> Option<(Method, &[u8])> {
    let (kind, rest) = bytes.split_first()?;
    match kind {
        1 => {
            let (salt, rest) = rest.split_first_chunk::<SALT>()?;
            let (memory, rest) = number(rest)?;
            let (passes, rest) = number(rest)?;
            let (lanes, rest) = number(rest)?;
            let cost = Cost::new(memory, passes, lanes).ok()?;
            Some((Method::Passphrase(Argon2id { salt: *salt, cost }), rest))
        }
        2 => Some((Method::KeyFile, rest)),
        3 => {
            let (length, rest) = rest.split_first()?;
            let (name, rest) = rest.split_at_checked(usize::from(*length))?;
            let name = std::str::from_utf8(name).ok()?.parse().ok()?;
            Some((Method::Credential(name), rest))
        }
        _ => None,
    }
}

fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    bytes.split_first_chunk().map(|(number, rest)| (u32::from_be_bytes(*number), rest))
}

impl Vault {
    /// What is sealed. It always has the same length, so that the file does not tell whether
    /// the phrase is still in it.
    fn to_content(&self) -> Zeroizing<[u8; CONTENT]> {
        let mut content = Zeroizing::new([0; CONTENT]);
        let mut entropy = Zeroizing::new([0; 32]);
        let present = self.entropy().unwrap_or_default();
        entropy.iter_mut().zip(present).for_each(|(to, from)| *to = *from);
        let length = [u8::try_from(present.len()).unwrap_or(0)];
        let version = self.data_version().to_be_bytes();
        let parts = [&self.seed().expose()[..], &version, &length, &*entropy];
        content.iter_mut().zip(parts.into_iter().flatten()).for_each(|(to, from)| *to = *from);
        content
    }

    fn from_content(content: &[u8]) -> Option<Self> {
        let (seed, rest) = content.split_first_chunk::<64>()?;
        let (version, rest) = number(rest)?;
        let (length, rest) = rest.split_first()?;
        let entropy = rest.get(..usize::from(*length))?;
        let mut copy = Zeroizing::new([0; 64]);
        copy.copy_from_slice(seed);
        let entropy = (!entropy.is_empty()).then(|| Zeroizing::new(entropy.to_vec()));
        Some(Self::of_parts(Seed::new(copy), entropy, version))
    }
}

#[cfg(test)]
mod tests;
