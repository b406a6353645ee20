//! The recovery phrase: BIP-0039 in English.

use std::fmt;

use zeroize::Zeroizing;

use crate::{CryptoError, Seed};

/// Twelve to twenty-four English words that stand for a seed, with a checksum.
///
/// It moves and is never copied, is zeroised when it goes, and shows nothing of itself
/// unless it is asked for its [`words`](Self::words).
pub struct Mnemonic(bip39::Mnemonic);

/// How many words a phrase has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WordCount {
    /// 128 bits.
    #[default]
    Twelve,
    /// 160 bits.
    Fifteen,
    /// 192 bits.
    Eighteen,
    /// 224 bits.
    TwentyOne,
    /// 256 bits.
    TwentyFour,
}

/// A text is no recovery phrase. A word is named by its place, so that the error may be
/// printed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidMnemonic {
    /// It has not 12, 15, 18, 21 or 24 words.
    #[error("a recovery phrase has 12, 15, 18, 21 or 24 words, and this one {0}")]
    WordCount(usize),
    /// A word is not in the list.
    #[error("word {0} of the recovery phrase is not in the English list of BIP-0039")]
    UnknownWord(usize),
    /// The words do not belong together.
    #[error("the checksum of the recovery phrase is wrong: a word is mistaken or misplaced")]
    Checksum,
}

impl WordCount {
    fn entropy(self) -> usize {
        match self {
            Self::Twelve => 16,
            Self::Fifteen => 20,
            Self::Eighteen => 24,
            Self::TwentyOne => 28,
            Self::TwentyFour => 32,
        }
    }
}

impl TryFrom<usize> for WordCount {
    type Error = InvalidMnemonic;

    fn try_from(words: usize) -> Result<Self, InvalidMnemonic> {
        match words {
            12 => Ok(Self::Twelve),
            15 => Ok(Self::Fifteen),
            18 => Ok(Self::Eighteen),
            21 => Ok(Self::TwentyOne),
            24 => Ok(Self::TwentyFour),
            other => Err(InvalidMnemonic::WordCount(other)),
        }
    }
}

impl Mnemonic {
    /// A fresh one from the system's random numbers.
    pub fn generate(words: WordCount) -> Result<Self, CryptoError> {
        let mut entropy = Zeroizing::new(vec![0; words.entropy()]);
        getrandom::fill(&mut entropy).map_err(|_| CryptoError)?;
        Self::from_entropy(&entropy).map_err(|_| CryptoError)
    }

    /// Reads a phrase. The case of letters and the space between words do not matter.
    pub fn parse(phrase: &str) -> Result<Self, InvalidMnemonic> {
        let lower = Zeroizing::new(phrase.to_lowercase());
        bip39::Mnemonic::parse_in_normalized(bip39::Language::English, &lower)
            .map(Self)
            .map_err(|error| Self::invalid(error, &lower))
    }

    /// The phrase that stands for 16, 20, 24, 28 or 32 bytes.
    pub(crate) fn from_entropy(entropy: &[u8]) -> Result<Self, InvalidMnemonic> {
        bip39::Mnemonic::from_entropy_in(bip39::Language::English, entropy)
            .map(Self)
            .map_err(|error| Self::invalid(error, ""))
    }

    fn invalid(error: bip39::Error, phrase: &str) -> InvalidMnemonic {
        match error {
            bip39::Error::UnknownWord(place) => InvalidMnemonic::UnknownWord(place + 1),
            bip39::Error::InvalidChecksum => InvalidMnemonic::Checksum,
            bip39::Error::BadWordCount(words) => InvalidMnemonic::WordCount(words),
            bip39::Error::BadEntropyBitCount(_) | bip39::Error::AmbiguousLanguages(_) => {
                InvalidMnemonic::WordCount(phrase.split_whitespace().count())
            }
        }
    }

    pub(crate) fn entropy(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.0.to_entropy())
    }

    /// The words, for whoever writes them down.
    pub fn words(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.0.words()
    }

    /// The seed that the phrase stands for, with a passphrase of the user's beside it
    /// (BIP-0039, "From mnemonic to seed"); every other passphrase is another seed.
    pub fn to_seed(&self, passphrase: &str) -> Seed {
        Seed::new(Zeroizing::new(self.0.to_seed(passphrase)))
    }
}

impl fmt::Debug for Mnemonic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mnemonic(…)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `vectors.json` of the reference implementation: entropy, phrase, seed with the
    /// passphrase `TREZOR`, and an extended key of another curve.
    #[test]
    fn the_reference_vectors_pass() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../tests/data/bip39.json")).unwrap();
        let english = vectors["english"].as_array().unwrap();
        assert_eq!(english.len(), 24);
        for vector in english {
            let of = |at: usize| vector[at].as_str().unwrap();
            let read = Mnemonic::parse(of(1)).unwrap();
            assert_eq!(hex::encode(&*read.entropy()), of(0));
            assert_eq!(hex::encode(read.to_seed("TREZOR").expose()), of(2));
            let made = Mnemonic::from_entropy(&hex::decode(of(0)).unwrap()).unwrap();
            assert_eq!(made.words().collect::<Vec<_>>().join(" "), of(1));
        }
    }

    #[test]
    fn a_wrong_phrase_is_named_by_the_place_and_not_by_the_word() {
        let of = |text: &str| Mnemonic::parse(text).unwrap_err();
        let abandon = "abandon ".repeat(11);
        assert_eq!(of(&abandon), InvalidMnemonic::WordCount(11));
        assert_eq!(of(&"abandon ".repeat(27)), InvalidMnemonic::WordCount(27));
        assert_eq!(of(&format!("{abandon}abandon")), InvalidMnemonic::Checksum);
        let unknown = of(&format!("{abandon}secretword"));
        assert_eq!(unknown, InvalidMnemonic::UnknownWord(12));
        assert!(!format!("{unknown} {unknown:?}").contains("secretword"));
        assert!(Mnemonic::parse(&format!("  {}\nABOUT\n", abandon.to_uppercase())).is_ok());
    }

    #[test]
    fn a_generated_phrase_has_the_words_that_were_asked_for_and_is_not_repeated() {
        for count in [12, 15, 18, 21, 24] {
            let phrase = Mnemonic::generate(count.try_into().unwrap()).unwrap();
            assert_eq!(phrase.words().count(), count);
            let other = Mnemonic::generate(count.try_into().unwrap()).unwrap();
            assert_ne!(phrase.entropy(), other.entropy());
            assert_eq!(format!("{phrase:?}"), "Mnemonic(…)");
        }
        assert_eq!(WordCount::try_from(13), Err(InvalidMnemonic::WordCount(13)));
    }

    proptest! {
        #[test]
        fn entropy_round_trips(words in 4_usize..=8, bytes in any::<[u8; 32]>()) {
            let entropy = &bytes[..words * 4];
            let phrase = Mnemonic::from_entropy(entropy).unwrap();
            let text = phrase.words().collect::<Vec<_>>().join(" ");
            prop_assert_eq!(&**Mnemonic::parse(&text).unwrap().entropy(), entropy);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,200}") {
            let _ = Mnemonic::parse(&text);
        }
    }
}
