//! What repositories are called.

use std::{fmt, str::FromStr};

/// The longest name, in bytes.
const MAX_NAME: usize = 200;
/// The most words of a name.
const MAX_WORDS: usize = 6;
/// What the folder of a repository ends in.
pub(crate) const SUFFIX: &str = ".git";

/// The name of a repository: words of lower-case letters, digits, `.`, `_` and `-` with
/// slashes between them, as in `team/notes`.
///
/// It cannot leave the folder of the repositories, begin like an option of a program, or be
/// written in two ways; and it is one word of a grant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryName(String);

/// The text is no name of a repository.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidName {
    /// No text, or nothing between two slashes.
    #[error("the name of a repository has words with slashes between them, as in team/notes")]
    Empty,
    /// Too many bytes or words.
    #[error("the name of a repository has {MAX_NAME} letters and {MAX_WORDS} words at most")]
    TooLong,
    /// A character that no name has.
    #[error("the name of a repository has lower-case letters, digits, '.', '_' and '-', not {0:?}")]
    Character(char),
    /// A word that git or a file system understands otherwise.
    #[error("no word of a repository's name begins with '.' or '-' or ends in '.', .git or .lock")]
    Word,
}

impl RepositoryName {
    /// The name in the path of a request: with or without slashes around it, and with or
    /// without `.git`.
    pub fn from_path(path: &str) -> Result<Self, InvalidName> {
        let path = path.strip_prefix('/').unwrap_or(path);
        let path = path.strip_suffix('/').unwrap_or(path);
        path.strip_suffix(SUFFIX).unwrap_or(path).parse()
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RepositoryName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_NAME || text.split('/').count() > MAX_WORDS {
            return Err(InvalidName::TooLong);
        }
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-/".contains(c);
        if let Some(other) = text.chars().find(|c| !plain(*c)) {
            return Err(InvalidName::Character(other));
        }
        text.split('/').try_for_each(word)?;
        Ok(Self(text.to_owned()))
    }
}

fn word(word: &str) -> Result<(), InvalidName> {
    let odd = word.starts_with(['.', '-'])
        || word.ends_with('.')
        || word.ends_with(SUFFIX)
        || word.ends_with(".lock");
    match word {
        "" => Err(InvalidName::Empty),
        _ if odd => Err(InvalidName::Word),
        _ => Ok(()),
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_words() {
        for good in ["notes", "team/notes", "a/b/c/d/e/f", "x.y_z-1", "0"] {
            assert_eq!(good.parse::<RepositoryName>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "/",
            "a//b",
            "/a",
            "a/",
            ".",
            "..",
            "a/../b",
            ".git",
            "a.git",
            "a.git/b",
            "-a",
            "a/-b",
            "a.lock",
            "a.",
            "A",
            "ä",
            "a b",
            "a\0b",
            "a\\b",
            "~a",
            "a:b",
            "a*",
            "a/b/c/d/e/f/g",
        ] {
            assert!(bad.parse::<RepositoryName>().is_err(), "{bad:?}");
        }
        assert!("a".repeat(201).parse::<RepositoryName>().is_err());
    }

    #[test]
    fn a_path_names_one_repository_in_the_ways_of_git() {
        for path in ["team/notes", "/team/notes", "/team/notes.git", "team/notes.git/"] {
            assert_eq!(RepositoryName::from_path(path).unwrap().as_str(), "team/notes");
        }
        for path in ["//notes", "/../notes", "/notes.git.git", "notes//", "~/notes", "/"] {
            assert!(RepositoryName::from_path(path).is_err(), "{path:?}");
        }
    }
}
