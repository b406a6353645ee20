//! What the sealed file is locked with.

use std::{fmt, str::FromStr};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use zeroize::Zeroizing;

use crate::CryptoError;

/// The bytes of a salt (RFC 9106, section 3.1).
pub(crate) const SALT: usize = 16;
/// The longest name of a credential.
const MAX_NAME: usize = 64;

/// How a sealed vault is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Method {
    /// By a passphrase.
    Passphrase(Argon2id),
    /// By a file of 32 random bytes.
    KeyFile,
    /// By a credential of systemd, which is a file of 32 random bytes as well.
    Credential(CredentialName),
}

/// The key that seals a vault: 32 bytes from a passphrase or a file.
///
/// It moves and is never copied, is zeroised when it goes, and shows nothing of itself.
pub struct SealingKey(Zeroizing<[u8; 32]>);

impl SealingKey {
    /// A fresh one from the system's random numbers, for a key file or a credential.
    pub fn generate() -> Result<Self, CryptoError> {
        let mut key = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *key).map_err(|_| CryptoError)?;
        Ok(Self(key))
    }

    /// The content of a key file; `None` unless it has exactly 32 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut key = Zeroizing::new([0; 32]);
        (bytes.len() == key.len()).then(|| key.copy_from_slice(bytes))?;
        Some(Self(key))
    }

    /// The bytes. Whoever takes a copy has to erase it.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey(…)")
    }
}

/// Argon2id (RFC 9106): what it costs, and a salt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argon2id {
    pub(crate) salt: [u8; SALT],
    pub(crate) cost: Cost,
}

/// What it costs to try a passphrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    pub(crate) memory: u32,
    pub(crate) passes: u32,
    pub(crate) lanes: u32,
}

/// A cost is out of bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the cost of the passphrase is out of bounds: 8 KiB to 1 GiB of memory for each lane of 1 to \
     16, 1 to 16 passes"
)]
pub struct InvalidCost;

impl Cost {
    /// The second of the two that RFC 9106, section 4, recommends: 64 MiB, 3 passes, 4 lanes.
    pub const RECOMMENDED: Self = Self { memory: 64 << 10, passes: 3, lanes: 4 };
    /// The least there is: for tests, where nothing is protected.
    pub const LEAST: Self = Self { memory: 8, passes: 1, lanes: 1 };

    /// Of this much memory in KiB, this many passes over it, and lanes.
    ///
    /// The bounds hold for a file that is read as well: one that somebody planted makes the
    /// reader take a gibibyte at most.
    pub fn new(memory: u32, passes: u32, lanes: u32) -> Result<Self, InvalidCost> {
        let fits = (1..=16).contains(&lanes)
            && (1..=16).contains(&passes)
            && (8 * lanes..=1 << 20).contains(&memory);
        if fits { Ok(Self { memory, passes, lanes }) } else { Err(InvalidCost) }
    }
}

impl Argon2id {
    /// At this cost, with a fresh salt.
    pub fn new(cost: Cost) -> Result<Self, CryptoError> {
        let mut salt = [0; SALT];
        getrandom::fill(&mut salt).map_err(|_| CryptoError)?;
        Ok(Self { salt, cost })
    }

    /// The key that comes of a passphrase. It takes the memory and time of the cost: about
    /// a second on the recommended one, on a thread that may block.
    pub fn key(&self, passphrase: &[u8]) -> Result<SealingKey, CryptoError> {
        let Cost { memory, passes, lanes } = self.cost;
        let params = Params::new(memory, passes, lanes, Some(32)).map_err(|_| CryptoError)?;
        let mut blocks = Vec::new();
        blocks.try_reserve_exact(params.block_count()).map_err(|_| CryptoError)?;
        blocks.resize(params.block_count(), Block::default());
        let mut key = Zeroizing::new([0; 32]);
        let done = Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into_with_memory(passphrase, &self.salt, &mut *key, &mut blocks);
        blocks.iter_mut().for_each(zeroize::Zeroize::zeroize);
        done.map_err(|_| CryptoError)?;
        Ok(SealingKey(key))
    }
}

/// What a credential is called: 1 to 64 letters, digits and `-_.`, not beginning with a dot.
/// It is the name of a file, and so has nothing that leads elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialName(String);

/// A text is no name of a credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a credential is named by 1 to 64 letters, digits and -_. and does not begin with a dot")]
pub struct InvalidCredentialName;

impl CredentialName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CredentialName {
    type Err = InvalidCredentialName;

    fn from_str(name: &str) -> Result<Self, InvalidCredentialName> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        let fits = (1..=MAX_NAME).contains(&name.len())
            && !name.starts_with('.')
            && name.bytes().all(plain);
        if fits { Ok(Self(name.into())) } else { Err(InvalidCredentialName) }
    }
}

impl fmt::Display for CredentialName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_belongs_to_its_passphrase_and_salt() {
        let one = Argon2id::new(Cost::LEAST).unwrap();
        let other = Argon2id::new(Cost::LEAST).unwrap();
        let key = |by: &Argon2id, passphrase: &str| *by.key(passphrase.as_bytes()).unwrap().0;
        assert_eq!(key(&one, "a"), key(&one, "a"));
        assert_ne!(key(&one, "a"), key(&one, "b"));
        assert_ne!(key(&one, "a"), key(&other, "a"));
    }

    /// Against the reference implementation, by Python's `argon2-cffi`.
    #[test]
    fn the_function_is_argon2id_at_the_cost_that_is_given() {
        let cost = Cost::new(64, 2, 4).unwrap();
        let key = Argon2id { salt: *b"somesaltsomesalt", cost }.key(b"password").unwrap();
        assert_eq!(
            hex::encode(*key.0),
            "4111a92266f8015c4224e634fdc7352dad7e17abe362d2386331333226f8189e"
        );
    }

    #[test]
    fn costs_are_bounded() {
        for (memory, passes, lanes) in
            [(7, 1, 1), (u32::MAX, 1, 1), (8, 0, 1), (8, u32::MAX, 1), (8, 1, 0), (8, 1, 2)]
        {
            assert_eq!(Cost::new(memory, passes, lanes), Err(InvalidCost));
        }
        let Cost { memory, passes, lanes } = Cost::RECOMMENDED;
        assert_eq!(Cost::new(memory, passes, lanes), Ok(Cost::RECOMMENDED));
    }

    #[test]
    fn a_credential_is_a_file_of_its_folder() {
        assert_eq!("alknet-vault".parse::<CredentialName>().unwrap().as_str(), "alknet-vault");
        for bad in ["", ".", "..", "a/b", "../a", ".hidden", "a b", "a\0", &"x".repeat(65)] {
            assert!(bad.parse::<CredentialName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_key_file_has_32_bytes() {
        assert!(SealingKey::from_bytes(&[0; 31]).is_none());
        assert!(SealingKey::from_bytes(&[0; 33]).is_none());
        assert_eq!(format!("{:?}", SealingKey::from_bytes(&[7; 32]).unwrap()), "SealingKey(…)");
    }
}
