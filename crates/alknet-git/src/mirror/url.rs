//! Where mirrors get their content from.

use std::{borrow::Cow, fmt, str::FromStr};

use gix::{Url, url::Scheme};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::name::{InvalidName, RepositoryName};

/// The longest address, in bytes.
const LONGEST: usize = 1024;

/// An address of a repository: `https://`, `http://`, `git://`, `ssh://` or `alknet://`, with a
/// host and a path, and nothing secret in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorUrl {
    pub(super) scheme: Transport,
    pub(super) user: Option<String>,
    pub(super) host: String,
    pub(super) port: Option<u16>,
    pub(super) path: String,
}

/// What carries the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Https,
    Http,
    Git,
    Ssh,
    Alknet,
}

/// The text is no address that a mirror can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidMirrorUrl {
    /// It is none at all, or not of a kind that can be fetched from.
    #[error(
        "a mirror's address is https://HOST/PATH, or begins with http://, git://, ssh:// or \
         alknet://"
    )]
    Scheme,
    /// There is a password or a token in it.
    #[error("a mirror's address has no password in it: those belong into a file of credentials")]
    Secret,
    /// Its host is none.
    #[error("a mirror's address has a name or an address as its host")]
    Host,
    /// Its user or path has characters that it must not have.
    #[error("a mirror's address has letters, digits and -._~/%+@=, in its path alone")]
    Path,
    /// No repository of a node is called that.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// It is too long.
    #[error("a mirror's address has {LONGEST} characters at most")]
    TooLong,
}

impl Transport {
    /// As git calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
            Self::Git => "git",
            Self::Ssh => "ssh",
            Self::Alknet => "alknet",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Https => 443,
            Self::Http => 80,
            Self::Git => 9418,
            Self::Ssh => 22,
            Self::Alknet => 4433,
        }
    }
}

impl MirrorUrl {
    pub(super) fn port_or_default(&self) -> u16 {
        self.port.unwrap_or_else(|| self.scheme.default_port())
    }

    /// Whether it is a repository of another node.
    pub fn is_of_node(&self) -> bool {
        self.scheme == Transport::Alknet
    }

    /// What the node is called that it is a repository of, as `HOST[:PORT]` or by a saved name,
    /// and what the repository is called there.
    pub(super) fn of_node(&self) -> Option<(String, RepositoryName)> {
        let repository = RepositoryName::from_path(&self.path).ok();
        repository.filter(|_| self.is_of_node()).map(|repository| (self.authority(), repository))
    }

    /// The host, with the port if one is named.
    fn authority(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        self.port.map_or_else(|| host.clone(), |port| format!("{host}:{port}"))
    }

    /// The same address at another host.
    pub(super) fn at(&self, host: String) -> Self {
        Self { host, ..self.clone() }
    }
}

impl FromStr for MirrorUrl {
    type Err = InvalidMirrorUrl;

    fn from_str(text: &str) -> Result<Self, InvalidMirrorUrl> {
        if text.len() > LONGEST {
            return Err(InvalidMirrorUrl::TooLong);
        }
        // Other forms, such as HOST:PATH, mean a file where one is there.
        if !text.contains("://") || text.contains("::") && !text.contains("://[") {
            return Err(InvalidMirrorUrl::Scheme);
        }
        let url = gix::url::parse(text.as_bytes()).map_err(|_| InvalidMirrorUrl::Scheme)?;
        let scheme = match &url.scheme {
            Scheme::Https => Transport::Https,
            Scheme::Http => Transport::Http,
            Scheme::Git => Transport::Git,
            Scheme::Ssh => Transport::Ssh,
            Scheme::HelperUrl(name) if name == "alknet" => Transport::Alknet,
            _ => return Err(InvalidMirrorUrl::Scheme),
        };
        let user = user(&url, scheme)?;
        let host = host(url.host.as_deref().unwrap_or_default())?;
        let path = path(&url.path.to_string(), text)?;
        let path = match scheme {
            Transport::Alknet => RepositoryName::from_path(&path)?.to_string(),
            _ => path,
        };
        Ok(Self { scheme, user, host, port: url.port.filter(|port| *port != 0), path })
    }
}

/// A name for ssh; elsewhere a name in an address often is a token.
fn user(url: &Url, scheme: Transport) -> Result<Option<String>, InvalidMirrorUrl> {
    if url.password.is_some() || (url.user.is_some() && scheme != Transport::Ssh) {
        return Err(InvalidMirrorUrl::Secret);
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    match &url.user {
        Some(user) if user.starts_with('-') || !user.chars().all(plain) || user.is_empty() => {
            Err(InvalidMirrorUrl::Path)
        }
        user => Ok(user.clone()),
    }
}

/// A name, or an address without its brackets.
fn host(host: &str) -> Result<String, InvalidMirrorUrl> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if bare.parse::<std::net::Ipv6Addr>().is_ok() {
        return Ok(bare.to_owned());
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
    let good = !host.is_empty()
        && host.len() <= 253
        && host.chars().all(plain)
        && !host.starts_with(['-', '.'])
        // Some versions of curl take the dot off, and look up a name that is not pinned.
        && !host.ends_with('.');
    if good { Ok(host.to_ascii_lowercase()) } else { Err(InvalidMirrorUrl::Host) }
}

/// The path, in which nothing is escaped that need not be.
fn path(path: &str, text: &str) -> Result<String, InvalidMirrorUrl> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~/+@=,".contains(c);
    let path = path.strip_prefix('/').unwrap_or(path);
    // Escapes were resolved; what they stood for has to be plain as well.
    let good = !path.is_empty()
        && !path.starts_with('-')
        && path.chars().all(plain)
        && !text.contains(['?', '#', '\\'])
        && !path.split('/').any(|word| word == "..");
    if good { Ok(path.to_owned()) } else { Err(InvalidMirrorUrl::Path) }
}

impl fmt::Display for MirrorUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme.name())?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        write!(f, "{}/{}", self.authority(), self.path)
    }
}

impl Serialize for MirrorUrl {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MirrorUrl {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}
