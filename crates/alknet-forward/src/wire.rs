//! What both ends say before the bytes of a connection, and between datagrams: see
//! `docs/forwarding.md`.

use std::{fmt, io, path::PathBuf, str::FromStr};

use alknet_host::network::{NetworkError, Target};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest header, in bytes, without its length.
pub const MAX_HEADER: usize = 4096;

/// What a stream begins with: what the client wants it to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// A connection to somewhere in the node's network.
    Connect(Place),
    /// Datagrams to and from the node's network.
    Udp {},
    /// Connections that come in at the node, told on this stream.
    Listen(Place),
    /// One of those connections.
    Accept {
        /// As it was told.
        id: Id,
    },
    /// Nothing but the answer: whether the caller may forward at all.
    Ping {},
}

/// Where to connect to or to listen on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Place {
    /// A TCP port.
    Tcp(TcpPlace),
    /// A Unix socket.
    Unix(UnixPlace),
}

/// A TCP port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcpPlace {
    /// A name or an address, without brackets. To listen on, `*` stands for all addresses.
    pub host: String,
    /// The port. To listen on, 0 stands for any that is free.
    pub port: u16,
}

/// A Unix socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnixPlace {
    /// Its absolute path.
    pub path: PathBuf,
}

impl Place {
    /// A TCP port.
    pub fn tcp(host: impl Into<String>, port: u16) -> Self {
        Self::Tcp(TcpPlace { host: host.into(), port })
    }

    /// A Unix socket.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::Unix(UnixPlace { path: path.into() })
    }
}

impl From<Place> for Target {
    fn from(place: Place) -> Self {
        match place {
            Place::Tcp(TcpPlace { host, port }) => Self::Tcp { host, port },
            Place::Unix(UnixPlace { path }) => Self::Unix(path),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Target::from(self.clone()).fmt(f)
    }
}

/// The name of a connection that waits to be taken: 128 random bits in hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Id([u8; 16]);

impl Id {
    /// One that nobody can guess.
    pub(crate) fn random() -> io::Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(Self(bytes))
    }
}

/// The text is no id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id has 32 hexadecimal digits")]
pub struct InvalidId;

impl FromStr for Id {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| InvalidId)?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// What the node answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It is done, and what follows is what was asked for.
    Ok(Opened),
    /// It is not, and nothing follows.
    Error(Refused),
}

/// What is known of a connection or a listener that stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// The node's end: the address it connected from, or listens on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<String>,
    /// The other end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
}

/// What the node tells on a stream that listens: a connection has come in, and can be taken
/// for ten seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// A connection has come in.
    Incoming {
        /// By which it is taken.
        id: Id,
        /// Where it comes from.
        peer: String,
    },
}

/// Why the node does not do what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// For programs.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
}

/// Kinds of refusals and failures. The names are wire format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorCode {
    /// The policy does not allow it.
    NotAllowed,
    /// There is no way to that network.
    NetworkUnreachable,
    /// The name has no address, or nobody answers at it.
    HostUnreachable,
    /// The other end takes no connections.
    Refused,
    /// The deadline passed.
    TimedOut,
    /// What was asked for is no host or no path.
    Invalid,
    /// The node has no such request.
    Unsupported,
    /// The caller has as many as it may.
    Limit,
    /// The address is somebody's already.
    InUse,
    /// No connection waits under that id.
    Gone,
    /// Anything else, and every code that this version does not know.
    #[serde(other)]
    Failed,
}

impl From<&NetworkError> for Refused {
    fn from(error: &NetworkError) -> Self {
        let message = match error {
            // Why is for the audit log: rules are no business of those who try them.
            NetworkError::Refused(_) => "not allowed by the node's rules".into(),
            NetworkError::Resolve(_)
            | NetworkError::Host(_)
            | NetworkError::Limit
            | NetworkError::TimedOut
            | NetworkError::Io(_)
            | _ => error.to_string(),
        };
        Self { code: code_of(error), message }
    }
}

fn code_of(error: &NetworkError) -> ErrorCode {
    use io::ErrorKind as K;
    match error {
        NetworkError::Refused(_) => ErrorCode::NotAllowed,
        NetworkError::Limit => ErrorCode::Limit,
        NetworkError::Host(_) => ErrorCode::Invalid,
        NetworkError::TimedOut => ErrorCode::TimedOut,
        NetworkError::Resolve(_) => ErrorCode::HostUnreachable,
        error => match error.io_kind() {
            Some(K::ConnectionRefused | K::ConnectionReset) => ErrorCode::Refused,
            // A Unix socket that is not there.
            Some(K::NotFound) => ErrorCode::HostUnreachable,
            Some(K::HostUnreachable) => ErrorCode::HostUnreachable,
            Some(K::NetworkUnreachable | K::NetworkDown) => ErrorCode::NetworkUnreachable,
            Some(K::AddrInUse) => ErrorCode::InUse,
            Some(K::PermissionDenied) => ErrorCode::NotAllowed,
            _ => ErrorCode::Failed,
        },
    }
}

/// Why bytes are no header. The stream cannot go on behind it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// It announces more than a header may have.
    #[error("a header of {0} bytes is longer than {MAX_HEADER}")]
    TooLong(u32),
    /// It is not such an object.
    #[error("not a header: {0}")]
    Malformed(#[source] serde_json::Error),
    /// The stream failed, or ended within it.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads one header: 4 bytes of length, big endian, and that much JSON. Not cancel safe.
pub(crate) async fn read<T: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin),
) -> Result<T, HeaderError> {
    let length = from.read_u32().await?;
    let size = usize::try_from(length).ok().filter(|size| *size <= MAX_HEADER);
    let mut bytes = vec![0; size.ok_or(HeaderError::TooLong(length))?];
    from.read_exact(&mut bytes).await?;
    serde_json::from_slice(&bytes).map_err(HeaderError::Malformed)
}

/// Writes one header and flushes.
pub(crate) async fn write(
    to: &mut (impl AsyncWrite + Unpin),
    header: &impl Serialize,
) -> io::Result<()> {
    let json = serde_json::to_vec(header)?;
    let length = u32::try_from(json.len()).map_err(io::Error::other)?;
    if json.len() > MAX_HEADER {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the header is too long"));
    }
    let mut bytes = Vec::with_capacity(4 + json.len());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&json);
    to.write_all(&bytes).await?;
    to.flush().await
}

/// For the fuzz target and the tests: reads what a client may have sent.
#[cfg(test)]
pub(crate) async fn parse(bytes: &[u8]) -> Result<Request, HeaderError> {
    read(&mut &bytes[..]).await
}

#[cfg(test)]
mod tests;
