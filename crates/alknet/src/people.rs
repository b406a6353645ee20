//! People kept in a TOML file, for whoever has their configuration under version control.
//!
//! ```toml
//! [people.alice]
//! scopes = ["ssh", "git:read:*"]
//! keys = ["ssh-ed25519 AAAA… alice@laptop", "ed25519:<hex>", "x509:<hex>"]
//! authorities = [{ key = "ssh-ed25519 AAAA… team", principals = ["alice"] }]
//! tokens = [{ name = "ci", sha256 = "<hex>", key = "ed25519:<hex>", scopes = ["git"], expires = 2027-01-01T00:00:00Z }]
//! ```
//!
//! The file holds no secret, and it issues no tickets: the store does that for everybody.

mod file;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use alknet_core::{
    BoxFuture, Credential, Identity, IdentityProvider, KeyFingerprint, ProviderError, Secret,
};

pub(crate) use self::file::PeopleError;
use self::file::{Directory, Person};
use crate::{
    failure::Failure,
    store::Source,
    trusted_file::{self, Revision, TrustError, Version},
};

/// The longest file that is read.
const MAX_FILE: u64 = 16 << 20;

/// The people of a file. It is read again when it changes; a version that cannot be used is
/// logged, and the one before it holds on.
#[derive(Debug)]
pub(crate) struct People {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// That was looked at last, whether it could be used or not.
    version: Option<Version>,
    directory: Arc<Directory>,
    revision: Revision,
    /// What is wrong with the file, so that it is logged once.
    problem: Option<String>,
}

/// What there is to know of a version of the file, if it is another one.
type Look = (Option<Version>, Option<Result<Directory, PeopleError>>);

impl People {
    /// The people of `path`, which has to be there and in order. Blocks for the disk.
    pub(crate) fn open(path: PathBuf) -> Result<Self, PeopleError> {
        let (version, directory) = match look(&path, None)? {
            (version, Some(directory)) => (version, directory?),
            (_, None) => return Err(PeopleError::Missing { path }),
        };
        let directory = Arc::new(directory);
        let (revision, problem) = (Revision::default(), None);
        Ok(Self { path, state: Mutex::new(State { version, directory, revision, problem }) })
    }

    /// Somebody by their name in the file, or by their id.
    pub(crate) async fn person(&self, name: &str) -> Option<Person> {
        self.now().await.person(name).cloned()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the file says now.
    async fn now(&self) -> Arc<Directory> {
        let before = self.state().version;
        let seen = trusted_file::blocking(&self.path, move |path| look(path, before)).await;
        let mut state = self.state();
        match seen {
            Ok((None, _)) => state.note(PeopleError::Missing { path: self.path.clone() }),
            Ok((_, None)) => {}
            Ok((version, Some(read))) => {
                state.version = version;
                match read {
                    Ok(directory) => state.take(directory),
                    Err(problem) => state.note(problem),
                }
            }
            Err(problem) => state.note(problem.into()),
        }
        state.directory.clone()
    }
}

impl State {
    fn take(&mut self, directory: Directory) {
        if self.problem.take().is_some() {
            tracing::info!("the file of people is in order again");
        }
        if *self.directory != directory {
            self.directory = Arc::new(directory);
            self.revision.changed();
        }
    }

    fn note(&mut self, problem: PeopleError) {
        let text = Failure::from(problem).message();
        if self.problem.as_ref() != Some(&text) {
            tracing::error!("the people of before are kept: {text}");
            self.problem = Some(text);
        }
    }
}

/// Looks at the file, and reads it if it is not the version that is known.
fn look(path: &Path, known: Option<Version>) -> Result<Look, TrustError> {
    let version = trusted_file::version(path)?;
    if version.is_none() || version == known {
        return Ok((version, None));
    }
    let content = trusted_file::read(path, MAX_FILE)?;
    Ok((version, Some(Directory::parse(path, &content))))
}

impl IdentityProvider for People {
    fn by_key<'a>(
        &'a self,
        key: &'a KeyFingerprint,
    ) -> BoxFuture<'a, Result<Option<Identity>, ProviderError>> {
        Box::pin(async move { Ok(self.now().await.by_key(key)) })
    }

    fn by_token<'a>(
        &'a self,
        token: &'a Secret,
    ) -> BoxFuture<'a, Result<Option<Identity>, ProviderError>> {
        Box::pin(async move { Ok(self.now().await.by_token(&token.hash())) })
    }

    fn by_authority<'a>(
        &'a self,
        authority: &'a KeyFingerprint,
        principals: &'a [String],
    ) -> BoxFuture<'a, Result<Option<Identity>, ProviderError>> {
        Box::pin(async move { Ok(self.now().await.by_authority(authority, principals)) })
    }

    fn knows_authority<'a>(
        &'a self,
        authority: &'a KeyFingerprint,
    ) -> BoxFuture<'a, Result<bool, ProviderError>> {
        Box::pin(async move { Ok(self.now().await.knows_authority(authority)) })
    }

    fn by_credential<'a>(
        &'a self,
        credential: &'a Credential,
    ) -> BoxFuture<'a, Result<Option<Identity>, ProviderError>> {
        Box::pin(async move { Ok(self.now().await.by_credential(credential)) })
    }

    fn version(&self) -> BoxFuture<'_, Result<u64, ProviderError>> {
        Box::pin(async move {
            self.now().await;
            Ok(self.state().revision.settled())
        })
    }
}

impl Source for People {}

#[cfg(test)]
mod tests;
