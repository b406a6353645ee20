use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::{Mnemonic, Purpose, WordCount};

fn vault() -> Vault {
    Vault::create(WordCount::Twelve, "").unwrap()
}

/// One of each way, with its key.
fn sealed() -> Vec<(SealedVault, SealingKey)> {
    let argon2 = Argon2id::new(Cost::LEAST).unwrap();
    let of_passphrase = argon2.key(b"right").unwrap();
    [
        (Method::Passphrase(argon2), of_passphrase),
        (Method::KeyFile, SealingKey::generate().unwrap()),
        (Method::Credential("alknet-vault".parse().unwrap()), SealingKey::generate().unwrap()),
    ]
    .into_iter()
    .map(|(method, key)| (vault().seal(method, &key).unwrap(), key))
    .collect()
}

fn with_checksum(bytes: &[u8]) -> Vec<u8> {
    let signed = &bytes[..bytes.len() - CHECKSUM];
    [signed, &Sha256::digest(signed)].concat()
}

#[test]
fn every_way_of_sealing_comes_back() {
    for (sealed, key) in sealed() {
        let bytes = sealed.to_bytes();
        let read = SealedVault::parse(&bytes).unwrap();
        assert_eq!(read, sealed);
        assert!(read.open(&key).is_ok());
        assert_eq!(read.open(&SealingKey::generate().unwrap()).unwrap_err(), WrongKey);
    }
}

#[test]
fn seed_phrase_and_data_key_come_back() {
    let key = SealingKey::generate().unwrap();
    for words in [12, 15, 18, 21, 24] {
        let mut vault = Vault::create(WordCount::try_from(words).unwrap(), "").unwrap();
        let public =
            |vault: &Vault| vault.key(Purpose::Identity).unwrap().ed25519_public().unwrap();
        vault.rotate(0).unwrap();
        let opened = vault.seal(Method::KeyFile, &key).unwrap().open(&key).unwrap();
        assert_eq!(public(&opened), public(&vault));
        assert_eq!(opened.data_version(), 2);
        let phrase =
            |vault: &Vault| vault.phrase().map(|phrase| phrase.words().collect::<Vec<_>>());
        assert_eq!(phrase(&opened), phrase(&vault));
        assert_eq!(phrase(&opened).unwrap().len(), words);
        vault.forget_phrase();
        let forgotten = vault.seal(Method::KeyFile, &key).unwrap();
        assert!(forgotten.open(&key).unwrap().phrase().is_none());
        assert_eq!(public(&forgotten.open(&key).unwrap()), public(&opened));
    }
}

/// Whether the phrase is still there shows in no length, and neither seed nor phrase stand
/// in the file.
#[test]
fn the_file_tells_nothing() {
    let key = SealingKey::generate().unwrap();
    let mut vault = vault();
    let entropy = vault.entropy().unwrap().to_vec();
    let before = vault.seal(Method::KeyFile, &key).unwrap().to_bytes();
    vault.forget_phrase();
    let after = vault.seal(Method::KeyFile, &key).unwrap().to_bytes();
    assert_eq!(before.len(), after.len());
    for secret in [&entropy[..8], &vault.seed().expose()[..8]] {
        assert!(!before.windows(8).any(|window| window == secret));
    }
    let again = vault.seal(Method::KeyFile, &key).unwrap().to_bytes();
    assert_ne!(after, again, "a nonce came twice");
}

#[test]
fn every_flipped_bit_is_damage_and_not_a_wrong_key() {
    for (sealed, _) in sealed() {
        let good = sealed.to_bytes();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let error = SealedVault::parse(&bad).unwrap_err();
            let expected = match bit / 8 {
                0..12 => matches!(error, ParseError::Foreign),
                14 | 15 => matches!(error, ParseError::Damaged | ParseError::Truncated { .. }),
                _ => error == ParseError::Damaged,
            };
            assert!(expected, "bit {bit}: {error}");
        }
    }
}

/// Who changes the file on purpose makes the checksum fit: then the tag does not.
#[test]
fn every_change_with_a_fitting_checksum_opens_nothing() {
    for (sealed, key) in sealed() {
        let good = sealed.to_bytes();
        for at in 0..good.len() - CHECKSUM {
            let mut bad = good.clone();
            bad[at] ^= 1;
            let Ok(planted) = SealedVault::parse(&with_checksum(&bad)) else { continue };
            assert_eq!(planted.open(&key).unwrap_err(), WrongKey, "byte {at}");
        }
    }
}

#[test]
fn every_truncation_says_so() {
    for (sealed, _) in sealed() {
        let good = sealed.to_bytes();
        for length in 0..good.len() {
            let error = SealedVault::parse(&good[..length]).unwrap_err();
            let whole = if length < START { START } else { good.len() };
            assert_eq!(error, ParseError::Truncated { present: length, whole });
        }
        let longer = [&good[..], b"\n"].concat();
        assert_eq!(SealedVault::parse(&longer), Err(ParseError::Damaged));
    }
}

#[test]
fn a_later_version_says_so() {
    for (sealed, _) in sealed() {
        for version in [2_u16, 255, u16::MAX] {
            let mut later = sealed.to_bytes();
            later[12..14].copy_from_slice(&version.to_be_bytes());
            let later = with_checksum(&later);
            assert_eq!(SealedVault::parse(&later), Err(ParseError::Future(version)));
        }
    }
}

/// A planted file does not make the reader take more memory or time than the bounds allow.
#[test]
fn an_impossible_cost_is_refused_before_it_is_paid() {
    let (sealed, _) = sealed().remove(0);
    let cost_at = START + 1 + SALT;
    for (at, number) in [(0, u32::MAX), (0, 0), (4, u32::MAX), (4, 0), (8, u32::MAX), (8, 0)] {
        let mut planted = sealed.to_bytes();
        planted[cost_at + at..cost_at + at + 4].copy_from_slice(&number.to_be_bytes());
        let planted = with_checksum(&planted);
        assert_eq!(SealedVault::parse(&planted), Err(ParseError::Malformed), "{at} {number}");
    }
}

#[test]
fn the_errors_say_different_things() {
    let said = [
        ParseError::Foreign.to_string(),
        ParseError::Truncated { present: 1, whole: 2 }.to_string(),
        ParseError::Damaged.to_string(),
        ParseError::Future(2).to_string(),
        ParseError::Malformed.to_string(),
        WrongKey.to_string(),
    ];
    let different: HashMap<_, _> = said.iter().map(|text| (text, ())).collect();
    assert_eq!(different.len(), said.len());
}

/// A vault of this version has to be readable for ever.
#[test]
fn the_format_does_not_change() {
    let phrase = Mnemonic::from_entropy(&[0; 16]).unwrap();
    let key = SealingKey::from_bytes(&[0x2a; 32]).unwrap();
    let sealed = SealedVault::parse(&hex::decode(KEPT.concat()).unwrap()).unwrap();
    assert_eq!(sealed.method(), &Method::Credential("kept".parse().unwrap()));
    let opened = sealed.open(&key).unwrap();
    let expected = Vault::from_mnemonic(&phrase, "");
    assert_eq!(opened.seed().expose(), expected.seed().expose());
    assert_eq!((opened.data_version(), opened.entropy()), (1, None));
}

/// The phrase `abandon … about`, sealed by 32 bytes of 0x2a.
const KEPT: [&str; 5] = [
    "616c6b6e65742d7661756c74000100b703046b6570743b7131eb53ae23432150fddac6e2aa53b8c8",
    "1585ea1db3330259dc323f92ae91c8b0673061580c075b8c6a3dcb54fdf6611f7accb4d3fb88a8ef",
    "74fa70b68665c078faf79c16020b58bc886b8c03153868c5b3b4e79e6e101bd7adc502b9f8f47a26",
    "1af82808652945d57eb38beda15d6ea45e5567c150b8edb48af3f9bf6677b00321fecdcfe58dcbbf",
    "d28520502eeba48f5eabcd8f223604513e5fe0de3ed373",
];

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = SealedVault::parse(&bytes);
        let planted = [&MAGIC[..], &bytes].concat();
        let _ = SealedVault::parse(&planted);
        let mut fitting = [&MAGIC[..], &1_u16.to_be_bytes(), &0_u16.to_be_bytes(), &bytes].concat();
        let whole = u16::try_from(fitting.len() + CHECKSUM).unwrap();
        fitting[14..16].copy_from_slice(&whole.to_be_bytes());
        fitting.extend_from_slice(&[0; CHECKSUM]);
        let _ = SealedVault::parse(&with_checksum(&fitting));
    }
}
