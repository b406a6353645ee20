//! How a call fails.

use std::{borrow::Cow, error::Error, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::wire::MAX_FRAME;

/// The longest code that is taken from a peer, in bytes.
const MAX_CODE: usize = 64;
/// The longest message that is taken from a peer, in bytes.
const MAX_MESSAGE: usize = 4096;

/// What kind of failure it was. The names of the first six are wire format.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorCode {
    /// There is no such operation, or the caller may not use it.
    NotFound,
    /// The operation is there for the caller, but not with this input.
    Forbidden,
    /// The input does not fit the schema, or the request makes no sense.
    InvalidInput,
    /// The deadline has passed.
    Timeout,
    /// Not now: a limit is reached, the node shuts down, something else is away.
    Unavailable,
    /// The operation failed; the node's log says why.
    Internal,
    /// A code that the operation declares.
    Other(Cow<'static, str>),
}

impl ErrorCode {
    /// The codes that every operation may end with.
    pub const STANDARD: [Self; 6] = [
        Self::NotFound,
        Self::Forbidden,
        Self::InvalidInput,
        Self::Timeout,
        Self::Unavailable,
        Self::Internal,
    ];

    /// The name on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::NotFound => "NOT_FOUND",
            Self::Forbidden => "FORBIDDEN",
            Self::InvalidInput => "INVALID_INPUT",
            Self::Timeout => "TIMEOUT",
            Self::Unavailable => "UNAVAILABLE",
            Self::Internal => "INTERNAL",
            Self::Other(code) => code,
        }
    }

    /// The code with this name on the wire.
    pub fn from_wire(name: &str) -> Self {
        let standard = Self::STANDARD.into_iter().find(|code| code.as_str() == name);
        standard.unwrap_or_else(|| Self::Other(shortened(name, MAX_CODE).to_owned().into()))
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::from_wire(&Cow::<str>::deserialize(deserializer)?))
    }
}

/// Why a call failed, as both ends see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{message} ({code})")]
#[non_exhaustive]
pub struct CallError {
    /// The kind of failure.
    pub code: ErrorCode,
    /// One line for a person: a peer's text, not to be trusted.
    #[serde(default)]
    pub message: String,
    /// Whether the same call may succeed later.
    #[serde(default)]
    pub retryable: bool,
    /// More, for programs; `null` if there is none.
    #[serde(default)]
    pub details: Value,
}

impl CallError {
    /// A failure with this code.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let retryable = matches!(code, ErrorCode::Timeout | ErrorCode::Unavailable);
        Self { code, message: message.into(), retryable, details: Value::Null }
    }

    /// A failure with a code that the operation has declared.
    pub fn declared(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Other(code.into()), message)
    }

    /// The one answer for what does not exist and for what the caller may not use.
    pub fn not_found() -> Self {
        Self::new(ErrorCode::NotFound, "there is no such operation")
    }

    /// The caller may not use the operation with this input.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Forbidden, message)
    }

    /// The input is wrong in a way that the schema does not say.
    pub fn invalid_input(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidInput, message)
    }

    /// Not now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Unavailable, message)
    }

    /// The node is about to end: the next connection leads to its successor.
    pub(crate) fn shutting_down() -> Self {
        let details = serde_json::json!({ "reason": "shutting-down" });
        Self::unavailable("the node is shutting down").with_details(details)
    }

    /// The deadline has passed.
    pub fn timeout() -> Self {
        Self::new(ErrorCode::Timeout, "the deadline has passed")
    }

    /// Something broke here. The cause goes to the log, and the caller is told no more than
    /// that it did.
    pub fn internal(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let cause = cause.into();
        tracing::error!(error = &*cause as &dyn Error, "an operation failed");
        Self::new(ErrorCode::Internal, "the operation failed")
    }

    /// With details for programs.
    #[must_use]
    pub fn with_details(self, details: Value) -> Self {
        Self { details, ..self }
    }

    /// As it fits into a frame.
    pub(crate) fn sendable(self) -> Self {
        let error = self.bounded();
        let fits = serde_json::to_vec(&error).is_ok_and(|json| json.len() < MAX_FRAME / 2);
        if fits { error } else { Self { details: Value::Null, ..error } }
    }

    /// The failure, its texts cut to a bound.
    pub(crate) fn bounded(mut self) -> Self {
        let end = shortened(&self.message, MAX_MESSAGE).len();
        self.message.truncate(end);
        self
    }
}

/// The longest beginning of a text that has at most `max` bytes.
fn shortened(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_are_wire_format_and_stay() {
        let names: Vec<String> = ErrorCode::STANDARD.iter().map(ToString::to_string).collect();
        let wire =
            ["NOT_FOUND", "FORBIDDEN", "INVALID_INPUT", "TIMEOUT", "UNAVAILABLE", "INTERNAL"];
        assert_eq!(names, wire);
        for name in wire.into_iter().chain(["NO_SUCH_FILE"]) {
            assert_eq!(ErrorCode::from_wire(name).as_str(), name);
        }
    }

    #[test]
    fn a_peers_texts_are_cut() {
        let code = "ü".repeat(1000);
        assert_eq!(ErrorCode::from_wire(&code).as_str().len(), MAX_CODE);
        let error = CallError::unavailable("ü".repeat(5000)).bounded();
        assert_eq!(error.message.len(), MAX_MESSAGE);
    }

    #[test]
    fn members_may_be_missing_or_unknown() {
        let error: CallError = serde_json::from_str(r#"{"code": "X", "more": 1}"#).unwrap();
        assert_eq!(error, CallError::declared("X", ""));
    }
}
