//! What holds at the moment when a push is decided.

use std::{error::Error as _, sync::Arc, time::SystemTime};

use alknet_core::Identity;

use super::{Guard, UNSURE};
use crate::{
    push::{GONE, file_of},
    repositories::Settings,
    rights::Rights,
    server::{GitError, blocking},
};

/// Why nothing is pushed with a credential that does not hold any more.
const ENDED: &str = "your access has ended";

/// Grants and settings of a moment.
pub(super) struct Now {
    caller: Option<Arc<Identity>>,
    pub(super) settings: Settings,
}

impl Now {
    /// What the caller may do.
    pub(super) fn rights(&self) -> Rights<'_> {
        Rights::of(self.caller.as_deref())
    }
}

impl Guard {
    /// What holds now; why nobody pushes here, if that is so.
    pub(super) async fn now(&self) -> Result<Now, String> {
        Ok(Now { caller: self.caller_now().await?, settings: self.settings_now().await? })
    }

    async fn caller_now(&self) -> Result<Option<Arc<Identity>>, String> {
        let caller = self.caller.identity.clone();
        let (Some(then), Some(identities)) = (&caller, &self.identities) else { return Ok(caller) };
        if then.valid_until.is_some_and(|end| end <= SystemTime::now()) {
            return Err(ENDED.into());
        }
        let now = identities.by_credential(&then.credential).await;
        let now = now.map_err(|error| {
            tracing::error!(%error, cause = error.source(), "who pushes could not be looked up");
            UNSURE.to_owned()
        })?;
        let now = now.filter(|now| now.id == then.id).ok_or(ENDED)?;
        // A session may be for less than its credential.
        let scopes = then.scopes.common(&now.scopes);
        Ok(Some(Arc::new(Identity { scopes, ..now })))
    }

    pub(super) async fn settings_now(&self) -> Result<Settings, String> {
        let (repositories, name) = (self.repositories.clone(), self.repository.name.clone());
        let folder = self.folder;
        let found = blocking(move || {
            let found = repositories.get(&name)?;
            Ok(found.filter(|it| file_of(&it.path).is_ok_and(|now| now == folder)))
        });
        let found = found.await.map_err(|error| {
            tracing::error!(%error, cause = error.source(), "settings could not be looked up");
            UNSURE.to_owned()
        })?;
        let settings = found.ok_or(GONE)?.settings;
        match settings.mirror {
            Some(_) => Err(GitError::Mirror(self.repository.name.clone()).to_string()),
            None => Ok(settings),
        }
    }
}
