use std::{fs, path::Path};

use alknet_vault::{Argon2id, Cost, Method, Mnemonic, SealingKey, Vault};

use super::*;
use crate::home::Home;

fn home() -> (tempfile::TempDir, Home) {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::open(Some(folder.path().join("state"))).unwrap();
    (folder, home)
}

async fn opened(home: &Home, given: &Given) -> Result<Opened, VaultError> {
    open(home, load(home).unwrap().unwrap(), given).await
}

async fn unattended(home: &Home) -> Opened {
    create_unattended(home).unwrap();
    opened(home, &Given::default()).await.unwrap()
}

fn by_passphrase(folder: &Path, passphrase: &str) -> (Given, Method, SealingKey) {
    let file = folder.join("passphrase");
    fs::write(&file, format!("{passphrase}\n")).unwrap();
    let argon2 = Argon2id::new(Cost::LEAST).unwrap();
    let key = argon2.key(passphrase.as_bytes()).unwrap();
    let given = Given { passphrase_file: Some(file), key_file: None };
    (given, Method::Passphrase(argon2), key)
}

fn files(home: &Home) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(home.root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "run")
        .collect();
    names.sort();
    names
}

fn seed(opened: &Opened) -> [u8; 32] {
    *opened.vault.derive(&"m/74'".parse().unwrap()).unwrap().expose()
}

#[tokio::test]
async fn every_way_of_sealing_leads_to_every_other() {
    let (folder, home) = home();
    let mut vault = unattended(&home).await;
    let before = seed(&vault);
    assert_eq!(files(&home), ["vault", "vault.key"]);

    let (given, method, key) = by_passphrase(folder.path(), "correct horse");
    Changes::begin(&home, &vault).unwrap().reseal(&mut vault, Some((method, key))).unwrap();
    assert_eq!(files(&home), ["vault"]);
    assert_eq!(seed(&opened(&home, &given).await.unwrap()), before);

    Changes::begin(&home, &vault).unwrap().reseal(&mut vault, None).unwrap();
    assert_eq!(files(&home), ["vault", "vault.key"]);
    let first = fs::read(home.path("vault.key")).unwrap();
    Changes::begin(&home, &vault).unwrap().reseal(&mut vault, None).unwrap();
    assert_ne!(fs::read(home.path("vault.key")).unwrap(), first);
    assert_eq!(seed(&opened(&home, &Given::default()).await.unwrap()), before);
    assert!(matches!(opened(&home, &given).await, Err(VaultError::Passphrase(_))));
}

#[tokio::test]
async fn a_wrong_passphrase_says_so_and_changes_nothing() {
    let (folder, home) = home();
    let (_, method, key) = by_passphrase(folder.path(), "right");
    let made = Vault::create(alknet_vault::WordCount::Twelve, "").unwrap();
    create(&home, &made, Some((method, key))).unwrap();
    let before = fs::read(home.path("vault")).unwrap();
    let (wrong, ..) = by_passphrase(folder.path(), "mistyped");
    let error = opened(&home, &wrong).await.unwrap_err();
    assert!(matches!(error, VaultError::WrongKey { .. }), "{error}");
    assert!(!format!("{error} {error:?} {:?}", error.hint()).contains("mistyped"));
    assert_eq!(fs::read(home.path("vault")).unwrap(), before);
}

/// Each moment at which a change from one key file to the next can be cut off.
#[tokio::test]
async fn a_crash_between_two_keys_loses_neither() {
    let (_folder, home) = home();
    let mut vault = unattended(&home).await;
    let before = seed(&vault);
    let old = [fs::read(home.path("vault")).unwrap(), fs::read(home.path("vault.key")).unwrap()];
    Changes::begin(&home, &vault).unwrap().reseal(&mut vault, None).unwrap();
    let new = [fs::read(home.path("vault")).unwrap(), fs::read(home.path("vault.key")).unwrap()];
    for (vault, key) in [(&old[0], &old[1]), (&new[0], &old[1]), (&new[0], &new[1])] {
        home.write("vault", vault).unwrap();
        home.write("vault.key", key).unwrap();
        home.write("vault.key.next", &new[1]).unwrap();
        let lost = home.path(".vault.key.0123456789abcdef.new");
        fs::write(&lost, &old[1]).unwrap();
        let mut found = opened(&home, &Given::default()).await.unwrap();
        assert_eq!(seed(&found), before);
        // Whoever opens it finishes the change, and leaves no other key.
        assert_eq!(files(&home), ["vault", "vault.key"]);
        assert_eq!(fs::read(home.path("vault.key")).unwrap(), found.key.expose());
        // The next change must not write over the only key that fits, if it is cut off too.
        let changes = Changes::begin(&home, &found).unwrap();
        changes.next_key_file(&found).unwrap();
        assert_eq!(seed(&opened(&home, &Given::default()).await.unwrap()), before);
        changes.reseal(&mut found, None).unwrap();
        drop(changes);
        assert_eq!(files(&home), ["vault", "vault.key"]);
        assert_eq!(seed(&opened(&home, &Given::default()).await.unwrap()), before);
    }
}

#[tokio::test]
async fn a_change_that_somebody_else_made_meanwhile_is_not_undone() {
    let (_folder, home) = home();
    let (mut one, mut other) = (unattended(&home).await, unattended(&home).await);
    one.vault.rotate(0).unwrap();
    Changes::begin(&home, &one).unwrap().save(&mut one).unwrap();
    other.vault.forget_phrase();
    assert!(matches!(Changes::begin(&home, &other), Err(VaultError::Changed)));
    let now = opened(&home, &Given::default()).await.unwrap();
    assert_eq!(now.vault.data_version(), 2);
}

#[tokio::test]
async fn a_vault_that_is_there_is_never_overwritten() {
    let (_folder, home) = home();
    unattended(&home).await;
    let before = fs::read(home.path("vault")).unwrap();
    let other = Vault::create(alknet_vault::WordCount::Twelve, "").unwrap();
    assert!(matches!(create(&home, &other, None), Err(VaultError::Exists { .. })));
    home.write("vault", &before[..before.len() / 2]).unwrap();
    let error = create(&home, &other, None).unwrap_err();
    assert!(matches!(error, VaultError::Parse { .. }), "{error}");
    assert!(create_unattended(&home).is_err());
    assert_eq!(fs::read(home.path("vault")).unwrap(), before[..before.len() / 2]);
}

#[test]
fn a_phrase_is_shown_with_its_numbers() {
    let phrase = format!("{} about", ["abandon"; 11].join(" "));
    let shown = columns(&Mnemonic::parse(&phrase).unwrap());
    assert_eq!(shown.lines().count(), 3);
    assert!(shown.starts_with("   1. abandon"), "{}", *shown);
    assert!(shown.trim_end().ends_with("12. about"), "{}", *shown);
}
