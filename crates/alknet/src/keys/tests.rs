use std::{fs, os::unix::fs::PermissionsExt as _};

use alknet_vault::{Method, Mnemonic, SealingKey};

use super::*;
use crate::home::HomeError;

fn home() -> (tempfile::TempDir, Home) {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::open(Some(folder.path().join("state"))).unwrap();
    (folder, home)
}

#[tokio::test]
async fn the_identity_stays() {
    let (_folder, home) = home();
    let first = Keys::open(&home).await.unwrap().identity().unwrap().id();
    let second = Keys::open(&home).await.unwrap().identity().unwrap().id();
    assert_eq!(first, second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn all_who_start_at_once_get_one_identity() {
    let (_folder, home) = home();
    let mut starting = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let home = home.clone();
        starting.spawn(async move { Keys::open(&home).await.unwrap().identity().unwrap().id() });
    }
    let ids = starting.join_all().await;
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

/// Peers pin what comes of the phrase: a new derivation would be a new identity. The
/// expected seeds are BIP-0039 and SLIP-0010 by Python's `hashlib` and `hmac`, the token's
/// is RFC 5869.
#[test]
fn the_derivation_does_not_change() {
    let phrase = format!("{} about", ["abandon"; 11].join(" "));
    let keys = Keys(Vault::from_mnemonic(&Mnemonic::parse(&phrase).unwrap(), ""));
    let key = |purpose| hex::encode(keys.key(purpose).unwrap().expose());
    assert_eq!(key(Purpose::Identity), IDENTITY);
    assert_eq!(key(Purpose::SshHost), SSH_HOST);
    assert_eq!(key(Purpose::WebCertificate), WEB);
    assert_eq!(key(Purpose::Data(1)), DATA);
    let token = token_identity(&Secret::new("alk_test")).unwrap();
    let expected =
        NodeIdentity::from_seed(&hex::decode(TOKEN_OF_ALK_TEST).unwrap().try_into().unwrap());
    assert_eq!(token.id(), expected.unwrap().id());
}

const IDENTITY: &str = "603aa5c626317fda4afd87b902e5c9de76c33f40834005245e1c5a675e92d700";
const SSH_HOST: &str = "be2dfaff0d268c833fd9c653b9bd352cef3ec2b211db804211c9f912b63dc3ab";
const WEB: &str = "8593e748dcbffc3716468460bd3973e9756b6b69831212c201a020a9e8244eee";
const DATA: &str = "3ddaf7a4485d755c959c883347420fdc9fa2a64fb1edae8a5f312e82c210f0f0";
const TOKEN_OF_ALK_TEST: &str = "e99ad9a152859fa54da2852d51ddb2691cfa12476a1cc3c57a57d111e7606470";

#[tokio::test]
async fn an_exposed_or_damaged_file_is_refused() {
    let (_folder, home) = home();
    Keys::open(&home).await.unwrap();
    for name in ["vault", "vault.key"] {
        fs::set_permissions(home.path(name), fs::Permissions::from_mode(0o640)).unwrap();
        let error = Keys::open(&home).await.unwrap_err();
        let exposed = matches!(
            error,
            KeyError::Vault(VaultError::Home(HomeError::Readable { mode: 0o640, .. }))
        );
        assert!(exposed, "{error}");
        fs::set_permissions(home.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    home.write("vault", b"rubbish").unwrap();
    let error = Keys::open(&home).await.unwrap_err();
    assert!(matches!(error, KeyError::Vault(VaultError::Parse { .. })), "{error}");
    assert_eq!(home.read("vault").unwrap().unwrap(), b"rubbish");
}

#[tokio::test]
async fn an_early_identity_is_neither_used_nor_replaced() {
    let (_folder, home) = home();
    home.write("identity", b"alknet-identity-v1").unwrap();
    let error = Keys::open(&home).await.unwrap_err();
    assert!(matches!(error, KeyError::Vault(VaultError::Old { .. })), "{error}");
    assert!(error.hint().unwrap().contains("move"), "{error}");
    assert!(!home.path("vault").exists());
}

#[tokio::test]
async fn a_key_file_of_another_vault_opens_nothing() {
    let (_folder, home) = home();
    Keys::open(&home).await.unwrap();
    home.write("vault.key", SealingKey::generate().unwrap().expose()).unwrap();
    let error = Keys::open(&home).await.unwrap_err();
    assert!(matches!(error, KeyError::Vault(VaultError::WrongKey { .. })), "{error}");
    fs::remove_file(home.path("vault.key")).unwrap();
    let error = Keys::open(&home).await.unwrap_err();
    assert!(matches!(error, KeyError::Vault(VaultError::KeyFile { .. })), "{error}");
    assert!(!home.path("vault.key").exists());
}

#[tokio::test]
async fn nothing_secret_is_shown() {
    let (_folder, home) = home();
    let keys = Keys::open(&home).await.unwrap();
    assert_eq!(format!("{keys:?}"), "Keys(Vault(data key 1, …))");
    let sealed = vault::load(&home).unwrap().unwrap();
    assert_eq!(sealed.method(), &Method::KeyFile);
}
