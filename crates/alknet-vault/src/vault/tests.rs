use proptest::prelude::*;

use super::*;
use crate::InvalidCiphertext;

fn vault() -> Vault {
    Vault::create(WordCount::Twelve, "").unwrap()
}

#[test]
fn the_phrase_brings_every_key_back() {
    let vault = Vault::create(WordCount::TwentyFour, "extra").unwrap();
    let phrase = vault.phrase().unwrap();
    let again = Vault::from_mnemonic(&phrase, "extra");
    let without = Vault::from_mnemonic(&phrase, "");
    for purpose in [Purpose::Identity, Purpose::Device(3), Purpose::SshHost, Purpose::Data(9)] {
        let of = |vault: &Vault| *vault.key(purpose).unwrap().expose();
        assert_eq!(of(&vault), of(&again));
        assert_ne!(of(&vault), of(&without));
    }
    assert!(again.phrase().is_none());
}

#[test]
fn a_context_and_a_vault_decrypt_their_own_alone() {
    let (ours, theirs) = (vault(), vault());
    let secret = ours.encrypt(b"tokens", b"hunter2").unwrap();
    assert_eq!(**ours.decrypt(b"tokens", &secret).unwrap(), *b"hunter2");
    assert_eq!(ours.decrypt(b"token", &secret), Err(NotDecrypted));
    assert_eq!(ours.decrypt(b"", &secret), Err(NotDecrypted));
    assert_eq!(theirs.decrypt(b"tokens", &secret), Err(NotDecrypted));
}

#[test]
fn every_flipped_bit_and_every_truncation_is_refused() {
    let vault = vault();
    let good = vault.encrypt(b"c", b"hunter2").unwrap().to_bytes();
    assert!(!good.windows(7).any(|window| window == b"hunter2"));
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        match Ciphertext::parse(&bad) {
            Ok(bad) => assert_eq!(vault.decrypt(b"c", &bad), Err(NotDecrypted), "bit {bit}"),
            Err(error) if bit / 8 < 3 => assert_eq!(error, InvalidCiphertext::Foreign),
            Err(error) => assert!(matches!(error, InvalidCiphertext::Future(_)), "bit {bit}"),
        }
    }
    for length in 0..good.len() {
        match Ciphertext::parse(&good[..length]) {
            Ok(bad) => assert_eq!(vault.decrypt(b"c", &bad), Err(NotDecrypted)),
            Err(InvalidCiphertext::Foreign) => assert!(length < 3),
            Err(error) => assert_eq!(error, InvalidCiphertext::Truncated),
        }
    }
}

#[test]
fn a_rotation_keeps_the_old_and_moves_on() {
    let mut vault = vault();
    let first = vault.encrypt(b"c", b"data").unwrap();
    assert_eq!((first.key_version(), vault.rotate(0)), (1, Ok(2)));
    assert_eq!(**vault.decrypt(b"c", &first).unwrap(), *b"data");
    let second = vault.reencrypt(b"c", &first).unwrap().unwrap();
    assert_eq!(second.key_version(), 2);
    assert_eq!(**vault.decrypt(b"c", &second).unwrap(), *b"data");
    assert_eq!(vault.reencrypt(b"c", &second), Ok(None));
    assert!(vault.reencrypt(b"d", &second).is_err());
    assert_eq!(vault.rotate(7), Ok(8));
    assert_eq!(vault.rotate(LAST_VERSION), Err(NoMoreVersions));
    assert_eq!(vault.data_version(), 8);
}

#[test]
fn nothing_secret_is_shown() {
    let vault = vault();
    let secret = vault.encrypt(b"c", b"hunter2").unwrap();
    assert_eq!(format!("{vault:?}"), "Vault(data key 1, …)");
    assert_eq!(format!("{secret:?}"), "Ciphertext(key 1, 23 bytes)");
}

proptest! {
    #[test]
    fn data_round_trips_as_bytes_and_as_text(
        context in prop::collection::vec(any::<u8>(), 0..40),
        data in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let vault = vault();
        let secret = vault.encrypt(&context, &data).unwrap();
        prop_assert_eq!(Ciphertext::parse(&secret.to_bytes()), Ok(secret.clone()));
        prop_assert_eq!(secret.to_string().parse(), Ok(secret.clone()));
        prop_assert_eq!(&**vault.decrypt(&context, &secret).unwrap(), &data);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), text in "\\PC{0,80}") {
        let _ = Ciphertext::parse(&[b"akv\x01", &bytes[..]].concat());
        let _ = text.parse::<Ciphertext>();
        let _ = format!("akv:{text}").parse::<Ciphertext>();
    }
}
