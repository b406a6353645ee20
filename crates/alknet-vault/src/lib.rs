//! One recovery phrase, every key: a vault holds the seed that all keys of a machine come
//! from, seals it for the disk, and encrypts data with keys that can be replaced.
//!
//! ```
//! use alknet_vault::{Argon2id, Cost, Method, Purpose, SealedVault, Vault, WordCount};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut vault = Vault::create(WordCount::Twelve, "")?;
//! let phrase = vault.phrase().ok_or("already shown")?;
//! assert_eq!(phrase.words().count(), 12); // to be written down
//! vault.forget_phrase();
//!
//! // Cost::RECOMMENDED for anything but an example.
//! let argon2 = Argon2id::new(Cost::LEAST)?;
//! let key = argon2.key(b"correct horse")?;
//! let file = vault.seal(Method::Passphrase(argon2), &key)?.to_bytes();
//!
//! let sealed = SealedVault::parse(&file)?;
//! let Method::Passphrase(argon2) = sealed.method() else { return Err("sealed otherwise".into()) };
//! let vault = sealed.open(&argon2.key(b"correct horse")?)?;
//! println!("{:x?}", vault.key(Purpose::Identity)?.ed25519_public()?);
//! let secret = vault.encrypt(b"tokens", b"hunter2")?;
//! assert_eq!(**vault.decrypt(b"tokens", &secret)?, *b"hunter2");
//! # Ok(())
//! # }
//! ```
//!
//! # The model
//!
//! A [`Mnemonic`] (BIP-0039, English) stands for a [`Seed`]. A [`SecretKey`] comes from the
//! seed by a [`Path`] (SLIP-0010 for Ed25519, hardened indices alone); a [`Purpose`] names
//! the paths that are in use. An open [`Vault`] holds the seed; a [`SealedVault`] is the same
//! as bytes for a file, opened by a [`SealingKey`], which a passphrase gives by [`Argon2id`]
//! or which is the content of a file. A [`Ciphertext`] is data under the vault's data key
//! and names the version of that key. [`Expiring`] keeps any of the secrets for a time.
//!
//! The crate reads and writes no file: the caller replaces files in one step, so that a crash
//! leaves the old one or the new one.
//!
//! # Invariants
//!
//! - The same phrase and passphrase give the same keys on every machine and in every version;
//!   a path never changes its meaning.
//! - An index that is not hardened is an error and is never hardened silently.
//! - Types that hold a secret are moved and never copied, are zeroised when they go, and show
//!   nothing in `Debug`. No error holds a secret or a part of one.
//! - The bytes of a file are checked before they are used, and cause no panic and no
//!   allocation beyond their own length. The memory that a passphrase costs is bounded.
//! - Damage, truncation, a later version and a wrong key are different errors.
//! - Every version of the data key derives for ever, so that a rotation that is interrupted
//!   leaves nothing that cannot be decrypted.
//!
//! # Security limits
//!
//! While a vault is open its seed is in memory, where root, a debugger of the same user and
//! the swap space can get at it. Memory that a library copied is beyond our reach. A key file
//! beside the vault protects against nothing but a copy of one without the other. A passphrase
//! is worth as much as it takes to guess it: [`Cost::RECOMMENDED`] makes each guess cost 64
//! MiB. Who has the phrase and its passphrase has everything, and nothing can be revoked but
//! by peers that forget the old keys. Who can write the file can put an older one in its place.

mod aead;
mod ciphertext;
mod expiring;
mod mnemonic;
mod path;
mod sealed;
mod sealing;
mod seed;
mod vault;

pub use self::{
    ciphertext::{Ciphertext, InvalidCiphertext, NotDecrypted},
    expiring::{Expiring, Locked},
    mnemonic::{InvalidMnemonic, Mnemonic, WordCount},
    path::{InvalidPath, Path, Purpose, UnknownPurpose},
    sealed::{ParseError, SealedVault, WrongKey},
    sealing::{
        Argon2id, Cost, CredentialName, InvalidCost, InvalidCredentialName, Method, SealingKey,
    },
    seed::{SecretKey, Seed},
    vault::{NoMoreVersions, ReencryptError, Vault},
};

/// The cryptographic library or the system's random numbers failed, or there is not enough
/// memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cryptographic library failed, or there is not enough memory for it")]
pub struct CryptoError;
