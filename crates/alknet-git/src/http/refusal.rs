//! Answers to what is not done.

use axum::{
    Extension,
    body::Body,
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse as _, Response},
};

use super::uncached;
use crate::{
    engine::EngineError,
    lfs::LfsError,
    server::{Caller, GitError},
};

/// How a credential is asked for: any user name, and a token as the password.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"alknet\"");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// The extension of an answer that says nothing of what is there: 401 to whoever has no
/// credential, 404 to everybody else. A node that hides answers something else instead.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Unseen;

/// Why a request is not answered as it would like.
#[derive(Debug)]
pub(super) enum Refusal {
    /// There is nothing that the caller may know of.
    Unseen,
    /// They see it, and may not do this.
    Forbidden,
    /// It is there for another method.
    Method(Method),
    /// The request is not right, or cannot be answered; why, for people.
    Status(StatusCode, &'static str),
}

impl Refusal {
    pub(super) fn answer(self, caller: &Caller) -> Response {
        let stranger = caller.identity.is_none();
        let (status, message) = match &self {
            Self::Unseen | Self::Forbidden if stranger => {
                (StatusCode::UNAUTHORIZED, "a token is needed, as the password")
            }
            Self::Unseen => (StatusCode::NOT_FOUND, "there is no such repository"),
            Self::Forbidden => (StatusCode::FORBIDDEN, "you may not push to this repository"),
            Self::Method(_) => (StatusCode::METHOD_NOT_ALLOWED, "not by this method"),
            Self::Status(status, message) => (*status, *message),
        };
        let mut response = Response::new(Body::from(format!("{message}\n")));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, TEXT);
        uncached(headers);
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, CHALLENGE);
        }
        if let Self::Method(allowed) = &self
            && let Ok(allowed) = HeaderValue::try_from(allowed.as_str())
        {
            headers.insert(header::ALLOW, allowed);
        }
        match self {
            Self::Unseen => (Extension(Unseen), response).into_response(),
            Self::Forbidden if stranger => (Extension(Unseen), response).into_response(),
            Self::Forbidden | Self::Method(_) | Self::Status(..) => response,
        }
    }
}

impl From<GitError> for Refusal {
    fn from(error: GitError) -> Self {
        match error {
            GitError::NotFound(_) => Self::Unseen,
            GitError::Forbidden(_) => Self::Forbidden,
            GitError::Mirror(_) => Self::Status(
                StatusCode::FORBIDDEN,
                "the repository is a copy of another: push there",
            ),
            GitError::Ended => Self::Status(StatusCode::FORBIDDEN, "your access has ended"),
            GitError::Busy => {
                Self::Status(StatusCode::SERVICE_UNAVAILABLE, "the node is busy: try again later")
            }
            GitError::Lfs(error) => error.into(),
            GitError::Engine(EngineError::TooLong) => {
                Self::Status(StatusCode::PAYLOAD_TOO_LARGE, "the request is too long")
            }
            GitError::Engine(EngineError::Signed) => {
                Self::Status(StatusCode::BAD_REQUEST, "signed pushes are not taken here")
            }
            GitError::Engine(EngineError::Full) => {
                Self::Status(StatusCode::INSUFFICIENT_STORAGE, "no room for a signed push")
            }
            GitError::Engine(EngineError::Failed { .. } | EngineError::Gone(_)) => {
                Self::Status(StatusCode::BAD_REQUEST, "git could not make sense of the request")
            }
            GitError::Engine(EngineError::Idle(_) | EngineError::Late(_)) => {
                Self::Status(StatusCode::REQUEST_TIMEOUT, "the request took too long")
            }
            error => {
                let cause = std::error::Error::source(&error);
                tracing::warn!(%error, cause, "a git request failed");
                Self::Status(StatusCode::INTERNAL_SERVER_ERROR, "the request could not be served")
            }
        }
    }
}

impl From<LfsError> for Refusal {
    fn from(error: LfsError) -> Self {
        let (status, message) = match error {
            LfsError::Content | LfsError::Size => {
                (StatusCode::UNPROCESSABLE_ENTITY, "the content is not that of the object")
            }
            LfsError::Full => {
                (StatusCode::INSUFFICIENT_STORAGE, "the repository may not grow by so much")
            }
            LfsError::Gone => return Self::Unseen,
            LfsError::Off => (StatusCode::FORBIDDEN, "large files are not kept here"),
            LfsError::Path => (StatusCode::UNPROCESSABLE_ENTITY, "no file has such a path"),
            LfsError::Locks => {
                (StatusCode::INSUFFICIENT_STORAGE, "the repository has too many locks")
            }
            LfsError::Protocol => (StatusCode::BAD_REQUEST, "the request did not come to its end"),
            LfsError::Stalled | LfsError::Late(_) => {
                (StatusCode::REQUEST_TIMEOUT, "the body came too slowly")
            }
            LfsError::Io(error) => {
                tracing::warn!(%error, "large files could not be read or written");
                (StatusCode::INTERNAL_SERVER_ERROR, "the request could not be served")
            }
        };
        Self::Status(status, message)
    }
}
