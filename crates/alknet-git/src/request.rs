//! The line that opens an exchange.

mod command;

use std::str;

pub use command::RemoteCommand;

use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::name::{InvalidName, RepositoryName};

/// The longest request line, in bytes: a name, a host and a few parameters.
const MAX_LINE: usize = 4096;
/// The newest version of git's protocol.
const NEWEST: u8 = 2;
/// What a packet line's length takes, and counts itself.
const LENGTH: usize = 4;

/// What git is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// Fetches and clones.
    UploadPack,
    /// Pushes.
    ReceivePack,
    /// Archives.
    UploadArchive,
}

impl Service {
    /// The service of this name, such as `git-upload-pack`.
    pub fn named(name: &str) -> Option<Self> {
        [Self::UploadPack, Self::ReceivePack, Self::UploadArchive]
            .into_iter()
            .find(|service| service.name() == name)
    }

    /// What requests call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::UploadPack => "git-upload-pack",
            Self::ReceivePack => "git-receive-pack",
            Self::UploadArchive => "git-upload-archive",
        }
    }
}

/// A request for a service: `git-upload-pack /team/notes`, NUL, `host=node`, NUL, NUL,
/// `version=2`, NUL, in one packet line (gitprotocol-pack, section "Git transport").
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Request {
    /// The service.
    pub service: Service,
    /// The repository.
    pub repository: RepositoryName,
    /// The version of the protocol that the client would like; 0 if it does not say.
    pub version: u8,
}

/// The bytes are no request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRequest {
    /// The stream ended or failed.
    #[error("the stream ended before a request")]
    Read(#[from] std::io::Error),
    /// The packet line has no length, one that is too long, or text that is no request.
    #[error("the first packet line is no request")]
    Malformed,
    /// A service that is not served.
    #[error("there is no such service")]
    Service,
    /// Something that no repository is called.
    #[error("no repository has such a name")]
    Name(#[from] InvalidName),
}

impl Request {
    /// A request for the newest protocol.
    pub fn new(service: Service, repository: RepositoryName) -> Self {
        Self { service, repository, version: NEWEST }
    }

    /// With another version of the protocol.
    #[must_use]
    pub fn version(self, version: u8) -> Self {
        Self { version, ..self }
    }

    /// Reads the line and not a byte more. Not cancel safe.
    pub async fn read(input: &mut (impl AsyncRead + Unpin)) -> Result<Self, InvalidRequest> {
        let mut length = [0; LENGTH];
        input.read_exact(&mut length).await?;
        let length = gix_packetline::decode::hex_prefix(&length);
        let Ok(gix_packetline::decode::PacketLineOrWantedSize::Wanted(length)) = length else {
            return Err(InvalidRequest::Malformed);
        };
        let length = usize::from(length);
        if length > MAX_LINE {
            return Err(InvalidRequest::Malformed);
        }
        let mut line = vec![0; length];
        input.read_exact(&mut line).await?;
        Self::parse(&line)
    }

    fn parse(line: &[u8]) -> Result<Self, InvalidRequest> {
        let line = str::from_utf8(line).map_err(|_| InvalidRequest::Malformed)?;
        let mut fields = line.split('\0');
        let command = fields.next().unwrap_or_default();
        let command = command.strip_suffix('\n').unwrap_or(command);
        let (service, path) = command.split_once(' ').ok_or(InvalidRequest::Malformed)?;
        let service = Service::named(service).ok_or(InvalidRequest::Service)?;
        let repository = RepositoryName::from_path(path)?;
        Ok(Self { service, repository, version: version(fields) })
    }

    /// The packet line, as a client sends it.
    pub fn to_line(&self, host: &str) -> Vec<u8> {
        let Self { service, repository, version } = self;
        let line = format!("{} /{repository}\0host={host}\0\0version={version}\0", service.name());
        format!("{:04x}{line}", line.len() + LENGTH).into_bytes()
    }
}

/// The newest version of the protocol that is among these parameters; 0 if none is.
fn version<'a>(parameters: impl Iterator<Item = &'a str>) -> u8 {
    let versions = parameters.filter_map(|it| it.strip_prefix("version=")?.parse().ok());
    versions.filter(|version| *version <= NEWEST).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(mut bytes: &[u8]) -> Result<Request, InvalidRequest> {
        Request::read(&mut bytes).await
    }

    fn line(text: &str) -> Vec<u8> {
        format!("{:04x}{text}", text.len() + 4).into_bytes()
    }

    #[tokio::test]
    async fn what_a_client_writes_is_read() {
        let request = Request::new(Service::ReceivePack, "team/notes".parse().unwrap());
        let bytes = request.to_line("node.example:4433");
        assert_eq!(read(&bytes).await.unwrap(), request);
        let old = read(&line("git-upload-pack /notes.git\0host=x\0")).await.unwrap();
        assert_eq!((old.version, old.repository.as_str()), (0, "notes"));
        let newer = read(&line("git-upload-pack /x\0host=y\0\0version=7\0version=1\0")).await;
        assert_eq!(newer.unwrap().version, 1);
    }

    #[tokio::test]
    async fn what_is_no_request_is_refused() {
        for bytes in
            [&b"zzzz"[..], b"0000", b"0001", b"0004", b"ffff", b"0010git-upload", b"SSH-2.0-x\r\n"]
        {
            assert!(read(bytes).await.is_err(), "{bytes:?}");
        }
        for text in [
            "git-upload-pack",
            "git-upload-pack /../x\0",
            "git-shell /x\0",
            "git-upload-pack --upload-pack=x\0",
            "git-upload-pack /a\u{7f}\0",
            "upload-pack /x\0",
        ] {
            assert!(read(&line(text)).await.is_err(), "{text:?}");
        }
        let long = format!("git-upload-pack /{}\0", "a".repeat(5000));
        assert!(matches!(read(&line(&long)).await, Err(InvalidRequest::Malformed)));
    }
}
