//! What can go wrong, and how JavaScript sees it.

use js_sys::{Error, Reflect};
use wasm_bindgen::{JsValue, prelude::wasm_bindgen};

use crate::HostError;

/// Why an operation failed. JavaScript gets an `Error` with the name `SshError`, this
/// text, and a `code`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SshError {
    /// The server did not prove to be the node it should be.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The server does not accept the user's key.
    #[error("the node does not accept this key for {user}")]
    Auth {
        /// The login name that was tried.
        user: String,
    },
    /// An argument has the wrong form.
    #[error("{0}")]
    Input(&'static str),
    /// The page's `sign` function failed.
    #[error("the key could not sign")]
    Sign,
    /// The server took too long to answer.
    #[error("no answer within {0} seconds")]
    Timeout(u32),
    /// The session has ended.
    #[error("the session has ended")]
    Closed,
    /// The server refused a channel, a terminal or a command.
    #[error("the node refused {0}")]
    Refused(&'static str),
    /// More output or input is waiting than a page should hold.
    #[error("more than {0} MiB are waiting")]
    TooMuch(u32),
    /// The key exchange was not protected against removed messages.
    #[error("the server does not support strict key exchange")]
    NotStrict,
    /// The SSH protocol failed.
    #[error("SSH failed: {0}")]
    Protocol(russh::Error),
}

impl SshError {
    fn code(&self) -> &'static str {
        match self {
            Self::Host(_) => "host",
            Self::Auth { .. } => "auth",
            Self::Input(_) => "input",
            Self::Sign => "sign",
            Self::Timeout(_) => "timeout",
            Self::Closed => "closed",
            Self::Refused(_) => "refused",
            Self::TooMuch(_) => "too-much",
            Self::NotStrict | Self::Protocol(_) => "protocol",
        }
    }
}

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = r#"
export interface SshError extends Error {
  name: "SshError";
  code: "host" | "auth" | "input" | "sign" | "timeout" | "closed" | "refused" | "too-much" | "protocol";
}
"#;

impl From<russh::Error> for SshError {
    fn from(error: russh::Error) -> Self {
        use russh::{AlgorithmKind, Error};
        match error {
            Error::NoCommonAlgo { kind: AlgorithmKind::Key, .. } => {
                Self::Host(HostError::NoCertificate)
            }
            Error::WrongServerSig => Self::Host(HostError::NoProof),
            Error::Disconnect | Error::HUP | Error::SendError | Error::RecvError | Error::IO(_) => {
                Self::Closed
            }
            other => Self::Protocol(other),
        }
    }
}

impl From<russh::SendError> for SshError {
    fn from(_: russh::SendError) -> Self {
        Self::Closed
    }
}

impl From<SshError> for JsValue {
    fn from(error: SshError) -> Self {
        let js = Error::new(&error.to_string());
        js.set_name("SshError");
        // Setting a property of a fresh object cannot fail.
        let _ = Reflect::set(&js, &"code".into(), &error.code().into());
        js.into()
    }
}
