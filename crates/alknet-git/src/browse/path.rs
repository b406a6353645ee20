//! Paths in a revision.

use std::{fmt, str::FromStr};

/// The longest path, in bytes.
const MAX_PATH: usize = 4096;
/// How many folders a path may have.
pub(super) const MAX_DEPTH: usize = 256;

/// The path of a file or a folder in a revision, as `src/main.rs`; without any name it is the
/// root. It cannot lead out of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct TreePath(String);

/// The text is no path in a revision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPath {
    /// Too many bytes or folders.
    #[error("a path has {MAX_PATH} bytes and {MAX_DEPTH} names at most")]
    TooLong,
    /// A name that nothing has.
    #[error("a path has names with single slashes between them, as in src/main.rs")]
    Name,
}

impl TreePath {
    /// The names on the way.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|name| !name.is_empty())
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for TreePath {
    type Err = InvalidPath;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_PATH || text.split('/').count() > MAX_DEPTH {
            return Err(InvalidPath::TooLong);
        }
        let odd = |name: &str| matches!(name, "" | "." | "..") || name.contains('\0');
        if !text.is_empty() && text.split('/').any(odd) {
            return Err(InvalidPath::Name);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_within() {
        for good in ["", "a", "a/b", "-x", "...", "a b/\u{1b}[m", ".git/x"] {
            assert_eq!(good.parse::<TreePath>().unwrap().as_str(), good);
        }
        for bad in ["/", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a\0"] {
            assert_eq!(bad.parse::<TreePath>(), Err(InvalidPath::Name), "{bad:?}");
        }
        for long in ["x".repeat(MAX_PATH + 1), "a/".repeat(MAX_DEPTH) + "a"] {
            assert_eq!(long.parse::<TreePath>(), Err(InvalidPath::TooLong));
        }
    }
}
