//! Why something of the network was not to be had.

use std::{io, net::IpAddr, path::PathBuf};

/// The text is no host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidHost {
    /// No name (RFC 1035) and no address.
    #[error("not the name of a host, nor an address")]
    Name,
    /// An address in a spelling that programs read differently.
    #[error("write an IPv4 address as four decimal numbers")]
    Number,
}

/// Why the policy does not let a caller do something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No rule's destination matches.
    #[error("no rule allows it")]
    NoRule,
    /// No rule's destination matches, and only one that names the address could: it is
    /// loopback, link-local, metadata, multicast, or stands for such an address.
    #[error("no rule names the address {0}")]
    Special(IpAddr),
    /// A rule's destination matches, but the caller has no such grant.
    #[error("no grant of {0}")]
    NoGrant(String),
    /// The caller's sessions run as another account than the node, whose sockets are not
    /// theirs.
    #[error("Unix sockets take the node's own account")]
    NoUnix,
    /// The path is not absolute, has `.`, `..` or empty parts, or is too long for a socket.
    #[error("not a path of a Unix socket")]
    Path,
    /// A symbolic link leads to a path that is not allowed.
    #[error("the path leads to {0}, which is not allowed")]
    Elsewhere(PathBuf),
    /// Whoever may write to the folder could put another socket in place of ours.
    #[error("the folder is not the node's own, nor sticky")]
    Folder,
}

/// Why something of the network was not to be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// The policy does not allow it. The reason is for the audit log.
    #[error(transparent)]
    Refused(Refusal),
    /// The caller has as many connections, listeners or associations as it may.
    #[error("too many at once")]
    Limit,
    /// What was asked for is no host.
    #[error(transparent)]
    Host(InvalidHost),
    /// The name has no address, or none could be found out.
    #[error("the name does not resolve")]
    Resolve(#[source] io::Error),
    /// The deadline passed.
    #[error("timed out")]
    TimedOut,
    /// What the system says of the connection or socket.
    #[error(transparent)]
    Io(io::Error),
}

impl NetworkError {
    /// Whether the policy refused, which belongs in the audit log.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Limit)
    }

    /// What the system said, if it was that.
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Io(error) | Self::Resolve(error) => Some(error.kind()),
            Self::TimedOut => Some(io::ErrorKind::TimedOut),
            Self::Refused(_) | Self::Limit | Self::Host(_) => None,
        }
    }
}

impl From<Refusal> for NetworkError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<io::Error> for NetworkError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => Self::TimedOut,
            _ => Self::Io(error),
        }
    }
}

impl From<rustix::io::Errno> for NetworkError {
    fn from(error: rustix::io::Errno) -> Self {
        io::Error::from(error).into()
    }
}
