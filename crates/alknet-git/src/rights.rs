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

    /// Whether they may do so with every repository of the node, whatever it is called.
    pub fn admin_all(self) -> bool {
        // No repository has this name, and only what stands for all of them stands for it.
        let action = Action::from("git:admin").word("*");
        self.0.is_some_and(|scopes| scopes.allow(action))
    }

    fn allow(self, what: &str, name: &RepositoryName) -> bool {
        let action = Action::from(what).word(name.as_str());
        self.0.is_some_and(|scopes| scopes.allow(action))
    }
}

#[cfg(test)]
mod tests {
    use alknet_testing::identities::identity;

    use super::*;

    #[test]
    fn all_repositories_are_more_than_those_of_a_prefix() {
        let all = |scope: &str| Rights::of(Some(&identity("ann", &[scope]))).admin_all();
        for whole in ["*", "git", "git:admin", "git:admin:*", "git:*"] {
            assert!(all(whole), "{whole}");
        }
        for part in ["git:admin:team/*", "git:admin:a", "git:write", "git:admin:*:x", "ssh"] {
            assert!(!all(part), "{part}");
        }
        assert!(!Rights::of(None).admin_all());
    }
}
