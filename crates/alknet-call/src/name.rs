//! The names of operations.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

/// The longest part of a name, in bytes.
const MAX_PART: usize = 64;

/// `namespace/name`: two parts of lower-case letters, digits, `-` and `_`, at most 64 bytes
/// each. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OperationName(Arc<str>);

/// The text is no name of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an operation is named namespace/name, in lower-case letters, digits, - and _, \
     {MAX_PART} at most in each part"
)]
pub struct InvalidName;

impl OperationName {
    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands before the slash.
    pub fn namespace(&self) -> &str {
        self.0.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// What stands behind it.
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, name)| name)
    }

    /// Whether a text can be either part of a name.
    pub fn is_part(text: &str) -> bool {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        (1..=MAX_PART).contains(&text.len()) && text.bytes().all(plain)
    }
}

impl FromStr for OperationName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((namespace, name)) if Self::is_part(namespace) && Self::is_part(name) => {
                Ok(Self(text.into()))
            }
            _ => Err(InvalidName),
        }
    }
}

impl Borrow<str> for OperationName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OperationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for OperationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OperationName({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_two_plain_parts() {
        let name: OperationName = "node/end-session_2".parse().unwrap();
        assert_eq!((name.namespace(), name.name()), ("node", "end-session_2"));
        let long = format!("a/{}", "b".repeat(65));
        for bad in ["", "/", "a", "a/", "/b", "a/b/c", "A/b", "a/b c", "a/é", "a/b*", &long] {
            assert_eq!(bad.parse::<OperationName>(), Err(InvalidName), "{bad}");
        }
    }
}
