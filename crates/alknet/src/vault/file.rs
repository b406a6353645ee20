//! The file and its key file: made once, replaced in one step.

use std::{fs, io};

use alknet_vault::{Method, SealedVault, SealingKey, Vault, WordCount};
use zeroize::Zeroizing;

use super::{FILE, KEY_FILE, NEXT_KEY_FILE, OLD_FILE, Opened, VaultError};
use crate::home::{Home, HomeError};

/// The vault, locked; `None` if there is none yet.
pub(crate) fn load(home: &Home) -> Result<Option<SealedVault>, VaultError> {
    let Some(content) = home.read_secret(FILE)? else {
        let old = home.path(OLD_FILE);
        if old.exists() {
            return Err(VaultError::Old { path: old });
        }
        return Ok(None);
    };
    SealedVault::parse(&content)
        .map(Some)
        .map_err(|source| VaultError::Parse { path: home.path(FILE), source })
}

/// Makes the vault of a node that starts with nothing configured: sealed by a key file
/// beside it. Of several processes at the same moment one makes it, and all have the same.
/// Tells whether it was this one.
pub(crate) fn create_unattended(home: &Home) -> Result<(SealedVault, bool), VaultError> {
    let _lock = home.lock(FILE)?;
    if let Some(other) = load(home)? {
        return Ok((other, false));
    }
    sweep(home)?;
    let key = fresh_key_file(home)?;
    let sealed = Vault::create(WordCount::Twelve, "")?.seal(Method::KeyFile, &key)?;
    if !home.create(FILE, &sealed.to_bytes())? {
        return Err(VaultError::Changed);
    }
    Ok((sealed, true))
}

/// Writes a new vault; one that is there is never overwritten. `None` stands for the key
/// file, whose key is made or, after a crash, taken from it.
pub(crate) fn create(
    home: &Home,
    vault: &Vault,
    seal: Option<(Method, SealingKey)>,
) -> Result<SealedVault, VaultError> {
    let _lock = home.lock(FILE)?;
    if load(home)?.is_some() {
        return Err(VaultError::Exists { path: home.path(FILE) });
    }
    sweep(home)?;
    let (method, key) = match seal {
        Some(seal) => seal,
        None => (Method::KeyFile, fresh_key_file(home)?),
    };
    let sealed = vault.seal(method, &key)?;
    if !home.create(FILE, &sealed.to_bytes())? {
        return Err(VaultError::Exists { path: home.path(FILE) });
    }
    Ok(sealed)
}

/// The key file's key, which is made if there is no key file. It comes before the vault, so
/// that there is never a vault without its key.
fn fresh_key_file(home: &Home) -> Result<SealingKey, VaultError> {
    let key = SealingKey::generate()?;
    if home.create(KEY_FILE, key.expose())? {
        return Ok(key);
    }
    key_file(home, KEY_FILE)?.ok_or_else(|| no_key_file(home))
}

/// Removes what a process that was killed left of a file that it was writing: it may be a
/// key. For whoever has the lock.
fn sweep(home: &Home) -> Result<(), HomeError> {
    [FILE, KEY_FILE, NEXT_KEY_FILE].into_iter().try_for_each(|name| home.sweep(name))
}

/// The key in a file of the state folder.
fn key_file(home: &Home, name: &str) -> Result<Option<SealingKey>, VaultError> {
    let Some(content) = home.read_secret(name)? else { return Ok(None) };
    SealingKey::from_bytes(&content)
        .map(Some)
        .ok_or_else(|| VaultError::NoKey { path: home.path(name) })
}

fn no_key_file(home: &Home) -> VaultError {
    VaultError::KeyFile { path: home.path(KEY_FILE), source: io::ErrorKind::NotFound.into() }
}

/// Opens a vault by its key file. After a crash in a change of keys the next one may be the
/// right one: which of the two it is tells the vault.
pub(super) fn open_by_key_file(home: &Home, sealed: &SealedVault) -> Result<Opened, VaultError> {
    let mut found = false;
    for name in [KEY_FILE, NEXT_KEY_FILE] {
        let Some(key) = key_file(home, name)? else { continue };
        found = true;
        if let Ok(vault) = sealed.open(&key) {
            let opened = Opened { vault, key, sealed: sealed.clone() };
            if let Err(error) = finish(home, &opened) {
                // It opens all the same, and whoever opens it next tries again.
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "finishing a change of the vault's key");
            }
            return Ok(opened);
        }
    }
    if !found {
        return Err(no_key_file(home));
    }
    let what = home.path(KEY_FILE).display().to_string();
    Err(VaultError::WrongKey { what, path: home.path(FILE) })
}

/// Finishes a change of key files that a crash has cut off, unless it is still under way:
/// the key that opens the vault gets its place, and no other stays.
fn finish(home: &Home, opened: &Opened) -> Result<(), VaultError> {
    if !home.path(NEXT_KEY_FILE).exists() {
        return Ok(());
    }
    let Some(lock) = home.try_lock(FILE)? else { return Ok(()) };
    if load(home)?.as_ref() != Some(&opened.sealed) {
        return Ok(());
    }
    let changes = Changes::locked(home, lock)?;
    home.write(KEY_FILE, opened.key.expose())?;
    changes.remove(NEXT_KEY_FILE)
}

/// A change of the vault that nobody else makes at the same time.
#[derive(Debug)]
pub(crate) struct Changes<'a> {
    home: &'a Home,
    _lock: fs::File,
}

impl<'a> Changes<'a> {
    /// Waits for others who change the vault; an error if it is no longer `opened`.
    pub(crate) fn begin(home: &'a Home, opened: &Opened) -> Result<Self, VaultError> {
        let lock = home.lock(FILE)?;
        if load(home)?.as_ref() != Some(&opened.sealed) {
            return Err(VaultError::Changed);
        }
        Self::locked(home, lock)
    }

    fn locked(home: &'a Home, lock: fs::File) -> Result<Self, VaultError> {
        sweep(home)?;
        Ok(Self { home, _lock: lock })
    }

    /// Writes the vault as it is now, sealed as it was.
    pub(crate) fn save(&self, opened: &mut Opened) -> Result<(), VaultError> {
        let sealed = opened.vault.seal(opened.sealed.method().clone(), &opened.key)?;
        self.home.write(FILE, &sealed.to_bytes())?;
        opened.sealed = sealed;
        Ok(())
    }

    /// Seals the vault otherwise; `None` stands for a new key file. At every moment the
    /// files open the vault: the new key is on the disk before the vault needs it, and the
    /// old one goes after.
    pub(crate) fn reseal(
        &self,
        opened: &mut Opened,
        seal: Option<(Method, SealingKey)>,
    ) -> Result<(), VaultError> {
        let to_key_file = seal.is_none();
        let (method, key) = match seal {
            Some(seal) => seal,
            None => (Method::KeyFile, self.next_key_file(opened)?),
        };
        opened.key = key;
        let sealed = opened.vault.seal(method, &opened.key)?;
        self.home.write(FILE, &sealed.to_bytes())?;
        opened.sealed = sealed;
        if to_key_file {
            self.home.write(KEY_FILE, opened.key.expose())?;
        } else {
            self.remove(KEY_FILE)?;
        }
        self.remove(NEXT_KEY_FILE)
    }

    /// Puts a new key beside the present one.
    pub(super) fn next_key_file(&self, opened: &Opened) -> Result<SealingKey, VaultError> {
        if *opened.sealed.method() == Method::KeyFile {
            // An earlier change may have ended before its key had its place, which is about
            // to be written over.
            let current = Zeroizing::new(*opened.key.expose());
            self.home.write(KEY_FILE, &*current)?;
        }
        let key = SealingKey::generate()?;
        self.home.write(NEXT_KEY_FILE, key.expose())?;
        Ok(key)
    }

    fn remove(&self, name: &str) -> Result<(), VaultError> {
        let path = self.home.path(name);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(HomeError::File { path, source }.into())
            }
            _ => Ok(()),
        }
    }
}
