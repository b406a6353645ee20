//! What a caller may do with repositories.

use alknet_core::{Action, Identity, Scopes};

use crate::name::RepositoryName;

/// What somebody may do with repositories, by their grants. Cheap to make.
#[derive(Debug, Clone, Copy)]
pub struct Rights<'a>(Option<&'a Scopes>);

impl<'a> Rights<'a> {
    /// Those of a caller; `None` is a stranger, who has none.
    pub fn of(caller: Option<&'a Identity>) -> Self {
        Self(caller.map(|identity| &identity.scopes))
    }

    /// Whether they may fetch and browse a private repository.
    pub fn read(self, name: &RepositoryName) -> bool {
        self.allow("git:read", name) || self.push(name) || self.admin(name)
    }

    /// Whether they may push to some ref.
    pub fn push(self, name: &RepositoryName) -> bool {
        let action = Action::from("git:write").word(name.as_str());
        self.0.is_some_and(|scopes| scopes.touch(action))
    }

    /// Whether they may push to this ref, such as `refs/heads/main`.
    pub fn write(self, name: &RepositoryName, reference: &str) -> bool {
        let action = Action::from("git:write").word(name.as_str()).word(reference);
        self.0.is_some_and(|scopes| scopes.allow(action))
    }

    /// Whether they may make the repository.
    pub fn create(self, name: &RepositoryName) -> bool {
        self.allow("git:create", name)
    }

    /// Whether they may change what it is called, described and protected by, and delete it.
    pub fn admin(self, name: &RepositoryName) -> bool {
        self.allow("git:admin", name)
    }

    fn allow(self, what: &str, name: &RepositoryName) -> bool {
        let action = Action::from(what).word(name.as_str());
        self.0.is_some_and(|scopes| scopes.allow(action))
    }
}
