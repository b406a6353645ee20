//! Why a request was not done, as the client is told.

use std::borrow::Cow;

use russh_sftp::protocol::StatusCode;
use rustix::io::Errno;

/// A status and its message.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fault {
    pub(crate) code: StatusCode,
    pub(crate) message: Cow<'static, str>,
    /// Whether there was no room: on the disk, or in a quota.
    pub(crate) full: bool,
}

/// What an operation gives.
pub(crate) type Outcome<T> = Result<T, Fault>;

impl Fault {
    /// A failure that no other status stands for.
    pub(crate) fn failure(message: impl Into<Cow<'static, str>>) -> Self {
        Self { code: StatusCode::Failure, message: message.into(), full: false }
    }

    /// There is no room.
    pub(crate) fn full(message: impl Into<Cow<'static, str>>) -> Self {
        Self { full: true, ..Self::failure(message) }
    }

    /// Something that the caller may not do.
    pub(crate) fn denied(message: impl Into<Cow<'static, str>>) -> Self {
        Self { code: StatusCode::PermissionDenied, message: message.into(), full: false }
    }

    /// Something that is not there.
    pub(crate) fn missing() -> Self {
        Errno::NOENT.into()
    }

    /// A request that makes no sense.
    pub(crate) fn bad(message: &'static str) -> Self {
        Self { code: StatusCode::BadMessage, message: message.into(), full: false }
    }

    /// Something that is not done here.
    pub(crate) fn unsupported() -> Self {
        let message = "Operation unsupported".into();
        Self { code: StatusCode::OpUnsupported, message, full: false }
    }

    /// Nothing is left to read.
    pub(crate) fn end() -> Self {
        Self { code: StatusCode::Eof, message: "End of file".into(), full: false }
    }

    /// A handle that names nothing that is open.
    pub(crate) fn no_handle() -> Self {
        Self::failure("no such handle")
    }

    /// Whether the caller was turned away.
    pub(crate) fn is_denied(&self) -> bool {
        self.code == StatusCode::PermissionDenied
    }
}

/// The status is the one that OpenSSH's server gives for it.
impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        let code = match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::BADF | Errno::LOOP => StatusCode::NoSuchFile,
            Errno::PERM | Errno::ACCESS | Errno::FAULT => StatusCode::PermissionDenied,
            Errno::NAMETOOLONG | Errno::INVAL => StatusCode::BadMessage,
            Errno::NOSYS => StatusCode::OpUnsupported,
            _ => StatusCode::Failure,
        };
        let message = match errno {
            Errno::NOENT => "No such file".into(),
            Errno::MFILE | Errno::NFILE => TOO_MANY.into(),
            _ => text(errno).into(),
        };
        let full = matches!(errno, Errno::NOSPC | Errno::DQUOT);
        Self { code, message, full }
    }
}

/// What is said where no more can be opened.
pub(crate) const TOO_MANY: &str = "too many open handles";

/// What the system calls an error.
fn text(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    match text.rsplit_once(" (os error") {
        Some((text, _)) => text.to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_status_of_openssh_and_words() {
        for (errno, code, message) in [
            (Errno::NOENT, StatusCode::NoSuchFile, "No such file"),
            (Errno::NOTDIR, StatusCode::NoSuchFile, "Not a directory"),
            (Errno::ACCESS, StatusCode::PermissionDenied, "Permission denied"),
            (Errno::NAMETOOLONG, StatusCode::BadMessage, "File name too long"),
            (Errno::NOSPC, StatusCode::Failure, "No space left on device"),
            (Errno::DQUOT, StatusCode::Failure, "Disk quota exceeded"),
            (Errno::MFILE, StatusCode::Failure, TOO_MANY),
        ] {
            let full = [Errno::NOSPC, Errno::DQUOT].contains(&errno);
            assert_eq!(Fault::from(errno), Fault { code, message: message.into(), full });
        }
    }
}
