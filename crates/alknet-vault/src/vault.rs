//! The vault while it is open.

use std::fmt;

use zeroize::Zeroizing;

use crate::{
    Ciphertext, CryptoError, Mnemonic, NotDecrypted, Path, Purpose, SealedVault, SecretKey, Seed,
    WordCount,
    sealing::{Method, SealingKey},
};

/// The highest version of a data key: the index of a path has 31 bits.
const LAST_VERSION: u32 = (1 << 31) - 1;

/// An open vault: the seed, and what has to be remembered beside it.
///
/// It moves and is never copied, is zeroised when it goes, and shows nothing of itself.
pub struct Vault {
    seed: Seed,
    entropy: Option<Zeroizing<Vec<u8>>>,
    data_version: u32,
}

/// A data key could not be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no version of the data key after {LAST_VERSION}")]
pub struct NoMoreVersions;

/// Data could not be encrypted anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReencryptError {
    /// It could not be decrypted.
    #[error(transparent)]
    NotDecrypted(#[from] NotDecrypted),
    /// The cryptographic library failed.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
}

impl Vault {
    /// A new one, with a recovery phrase of this many words and a passphrase of the user's
    /// for it, which may be empty. The phrase stays in it until it
    /// [has been shown](Self::forget_phrase).
    pub fn create(words: WordCount, passphrase: &str) -> Result<Self, CryptoError> {
        let phrase = Mnemonic::generate(words)?;
        let entropy = Some(phrase.entropy());
        Ok(Self { entropy, ..Self::from_mnemonic(&phrase, passphrase) })
    }

    /// The one that a recovery phrase and its passphrase stand for. The phrase itself does
    /// not stay in it: whoever entered it has it.
    pub fn from_mnemonic(phrase: &Mnemonic, passphrase: &str) -> Self {
        Self::of_parts(phrase.to_seed(passphrase), None, 1)
    }

    pub(crate) fn of_parts(
        seed: Seed,
        entropy: Option<Zeroizing<Vec<u8>>>,
        data_version: u32,
    ) -> Self {
        Self { seed, entropy, data_version: data_version.clamp(1, LAST_VERSION) }
    }

    pub(crate) fn entropy(&self) -> Option<&[u8]> {
        self.entropy.as_deref().map(Vec::as_slice)
    }

    /// The seed.
    pub fn seed(&self) -> &Seed {
        &self.seed
    }

    /// The recovery phrase, if it has not been forgotten. A passphrase beside it is not part
    /// of it.
    pub fn phrase(&self) -> Option<Mnemonic> {
        Mnemonic::from_entropy(self.entropy()?).ok()
    }

    /// Forgets the recovery phrase: after this has been sealed and written, nobody can show
    /// it again. The keys do not change.
    pub fn forget_phrase(&mut self) {
        self.entropy = None;
    }

    /// The key at a path.
    pub fn derive(&self, path: &Path) -> Result<SecretKey, CryptoError> {
        self.seed.derive(path)
    }

    /// The key for a purpose.
    pub fn key(&self, purpose: Purpose) -> Result<SecretKey, CryptoError> {
        self.derive(&purpose.path())
    }

    /// The version of the data key that [`encrypt`](Self::encrypt) uses, from 1.
    pub fn data_version(&self) -> u32 {
        self.data_version
    }

    /// Encrypts with the present data key. Only who gives the same context decrypts it.
    ///
    /// Up to 2^32 messages under one version keep a repeated nonce improbable (NIST SP
    /// 800-38D, section 8.3); [`rotate`](Self::rotate) before that.
    pub fn encrypt(&self, context: &[u8], plaintext: &[u8]) -> Result<Ciphertext, CryptoError> {
        let key = self.key(Purpose::Data(self.data_version))?;
        Ciphertext::seal(&key, self.data_version, context, plaintext)
    }

    /// Decrypts what was encrypted under any version of the data key: old ones derive for
    /// ever.
    pub fn decrypt(
        &self,
        context: &[u8],
        ciphertext: &Ciphertext,
    ) -> Result<Zeroizing<Vec<u8>>, NotDecrypted> {
        let version = ciphertext.key_version();
        if !(1..=LAST_VERSION).contains(&version) {
            return Err(NotDecrypted);
        }
        let key = self.key(Purpose::Data(version)).map_err(|_| NotDecrypted)?;
        ciphertext.open(&key, context)
    }

    /// Takes a new data key into use; gives its version, which is above the present one and
    /// above `seen`, the highest that is known from ciphertexts: a vault that was recovered
    /// from its phrase begins at 1 again and must not come back to a key that was retired.
    ///
    /// Seal and write the vault before data is encrypted with the new key.
    pub fn rotate(&mut self, seen: u32) -> Result<u32, NoMoreVersions> {
        let highest = self.data_version.max(seen);
        if highest >= LAST_VERSION {
            return Err(NoMoreVersions);
        }
        self.data_version = highest + 1;
        Ok(self.data_version)
    }

    /// The same data under the present data key; `None` if it is under that or a later one.
    pub fn reencrypt(
        &self,
        context: &[u8],
        ciphertext: &Ciphertext,
    ) -> Result<Option<Ciphertext>, ReencryptError> {
        let plaintext = self.decrypt(context, ciphertext)?;
        if ciphertext.key_version() >= self.data_version {
            return Ok(None);
        }
        Ok(Some(self.encrypt(context, &plaintext)?))
    }

    /// Seals it. Each time takes a fresh nonce.
    pub fn seal(&self, method: Method, key: &SealingKey) -> Result<SealedVault, CryptoError> {
        SealedVault::seal(self, method, key)
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vault(data key {}, …)", self.data_version)
    }
}

#[cfg(test)]
mod tests;
