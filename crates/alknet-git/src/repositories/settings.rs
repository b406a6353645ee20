//! What the owner of a repository has set.

use std::{fmt, path::Path, str::FromStr};

use gix::refs::FullName;
use serde::{Deserialize, Serialize};

use super::{RepositoryError, files};
use crate::mirror::Mirror;

/// The settings of a repository, in its folder.
pub(crate) const FILE: &str = "alknet.toml";
/// The longest file of settings that is read, in bytes.
const MAX_FILE: u64 = 64 << 10;
/// The longest description, in bytes.
const MAX_DESCRIPTION: usize = 1000;
/// The most patterns of protected refs.
const MAX_PROTECTED: usize = 100;
/// The longest name of a ref or pattern of refs, in bytes.
const MAX_REFERENCE: usize = 500;

/// What the owner of a repository has set. What `HEAD` points to is not in it: that is in the
/// repository itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Settings {
    /// What it is, in a line.
    pub description: String,
    /// Whether it may be read without any grant.
    pub public: bool,
    /// Refs that are neither deleted nor moved to anything but a descendant.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub protected: Vec<RefPattern>,
    /// How large it may grow, in bytes, with what it keeps of LFS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<u64>,
    /// Whether large files may be stored beside it (Git LFS).
    pub lfs: bool,
    /// Where its content comes from, if it is a copy. Nobody pushes to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirror>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            description: String::new(),
            public: false,
            protected: Vec::new(),
            quota: None,
            lfs: true,
            mirror: None,
        }
    }
}

/// A setting has a value that it cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSettings {
    /// The description is more than a line.
    #[error("a description is one line of {MAX_DESCRIPTION} bytes at most")]
    Description,
    /// There are too many patterns.
    #[error("{MAX_PROTECTED} patterns of protected refs are enough for everybody")]
    Protected,
    /// The text names no branch.
    #[error("{0:?} is no name of a branch")]
    Branch(String),
    /// It would be larger than whoever sets it may let it be.
    #[error("a quota is {0} bytes at most here")]
    Quota(u64),
    /// This node has no public repositories.
    #[error("this node does not allow public repositories")]
    Public,
}

impl Settings {
    /// Whether a ref, such as `refs/heads/main`, is protected.
    pub fn protects(&self, reference: &str) -> bool {
        self.protected.iter().any(|pattern| pattern.matches(reference))
    }

    /// Whether the values are within their bounds.
    pub(crate) fn check(&self) -> Result<(), InvalidSettings> {
        let long = self.description.len() > MAX_DESCRIPTION;
        if long || self.description.chars().any(char::is_control) {
            return Err(InvalidSettings::Description);
        }
        match self.protected.len() > MAX_PROTECTED {
            true => Err(InvalidSettings::Protected),
            false => Ok(()),
        }
    }

    /// Those of an open repository; the defaults where it has none.
    pub(super) fn read(folder: &files::Folder, path: &Path) -> Result<Self, RepositoryError> {
        let at = path.join(FILE);
        let content = folder.read(FILE, MAX_FILE).map_err(|source| super::file(&at, source))?;
        let Some(content) = content else { return Ok(Self::default()) };
        let text = String::from_utf8_lossy(&content);
        toml::from_str(&text).map_err(|source| RepositoryError::Settings { path: at, source })
    }

    /// As they are written to the file.
    pub(super) fn to_file(&self) -> Result<String, RepositoryError> {
        toml::to_string(self).map_err(RepositoryError::Unwritable)
    }
}

/// One ref, or, with a `*` at the end, all that begin so: `refs/heads/main`,
/// `refs/heads/release/*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RefPattern(String);

/// The text is no pattern of refs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} names no ref: write a branch (main), a ref (refs/tags/v1), or the beginning of some \
     and a * (refs/heads/release/*)"
)]
pub struct InvalidRefPattern(String);

impl RefPattern {
    /// Whether it stands for this ref.
    pub fn matches(&self, reference: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(beginning) => reference.starts_with(beginning),
            None => reference == self.0,
        }
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RefPattern {
    type Err = InvalidRefPattern;

    fn from_str(text: &str) -> Result<Self, InvalidRefPattern> {
        let full = match text.starts_with("refs/") {
            true => text.to_owned(),
            false => format!("refs/heads/{text}"),
        };
        // A beginning is one if something may follow.
        let example = match full.strip_suffix('*') {
            Some(beginning) => format!("{beginning}x"),
            None => full.clone(),
        };
        let valid = full.len() <= MAX_REFERENCE && FullName::try_from(example).is_ok();
        if valid { Ok(Self(full)) } else { Err(InvalidRefPattern(text.to_owned())) }
    }
}

impl fmt::Display for RefPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for RefPattern {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RefPattern {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The ref of a branch that is given by its short name or in full.
pub(super) fn branch(name: &str) -> Result<String, InvalidSettings> {
    let short = name.strip_prefix("refs/heads/").unwrap_or(name);
    let full = format!("refs/heads/{short}");
    let plain = !short.starts_with('-') && short != "HEAD" && full.len() <= MAX_REFERENCE;
    match plain && FullName::try_from(full.as_str()).is_ok() {
        true => Ok(full),
        false => Err(InvalidSettings::Branch(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> RefPattern {
        text.parse().unwrap()
    }

    #[test]
    fn a_pattern_is_a_ref_or_the_beginning_of_some() {
        assert_eq!(pattern("main").as_str(), "refs/heads/main");
        assert!(pattern("main").matches("refs/heads/main"));
        assert!(!pattern("main").matches("refs/heads/main2"));
        assert!(pattern("release/*").matches("refs/heads/release/1.0"));
        assert!(!pattern("release/*").matches("refs/heads/releases"));
        assert!(pattern("refs/*").matches("refs/tags/v1"));
        assert!(pattern("refs/heads/*").matches("refs/heads/a/b"));
        for bad in ["", "*/x", "a..b", "a b", "refs/", "a*b", "-\u{7f}", "a/../b", "x.lock"] {
            assert!(bad.parse::<RefPattern>().is_err(), "{bad:?}");
        }
        assert!("a".repeat(600).parse::<RefPattern>().is_err());
    }

    #[test]
    fn a_branch_has_one_full_name() {
        assert_eq!(branch("main").unwrap(), "refs/heads/main");
        assert_eq!(branch("refs/heads/a/b").unwrap(), "refs/heads/a/b");
        for bad in ["", "-f", "HEAD", "a b", "a..b", "a\n", "/a", "a.lock", "refs/heads/"] {
            assert!(branch(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn settings_are_bounded() {
        let described =
            |description: &str| Settings { description: description.into(), ..Settings::default() };
        assert!(described("Notes of the team").check().is_ok());
        assert!(described("two\nlines").check().is_err());
        assert!(described("\u{1b}[2J").check().is_err());
        assert!(described(&"a".repeat(1001)).check().is_err());
    }
}
