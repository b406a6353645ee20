//! Mirrors: repositories whose content comes from elsewhere.
//!
//! # Security limits
//!
//! Where content comes from is a text of somebody who administers a repository, so it must be
//! no way around the node's network policy. The host is resolved once, each of its addresses
//! has to be of the public Internet or of a network that the configuration names, and git is
//! held to the ones that passed; it follows no redirect and reads no proxy. Only the schemes of
//! [`MirrorUrl`] are spoken. Neither the account's SSH keys nor its agent are offered. To another
//! node this process connects itself ([`Nodes`]), as the node that it is: whoever may set such an
//! address has read what this node may read there, so it is for the owner alone to set.

mod fetch;
mod node;
mod status;
#[cfg(test)]
mod tests;
mod url;

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use alknet_host::network;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use fetch::MirrorError;
pub(crate) use fetch::fetch;
pub use node::Nodes;
pub use status::MirrorStatus;
pub(crate) use status::now;
pub use url::{InvalidMirrorUrl, MirrorUrl};

/// How often a mirror looks for news unless it says otherwise.
const EVERY: Duration = Duration::from_secs(60 * 60);
/// The longest time between two looks.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Where the content of a repository comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Mirror {
    /// Where from. There is no password in it.
    pub url: MirrorUrl,
    /// How often it looks for news.
    #[serde(default = "every", with = "seconds")]
    pub every: Duration,
    /// A file with what the other side wants to see: for http and https as `git
    /// credential-store` keeps it, for ssh a private key. Other nodes see who this one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<CredentialsFile>,
}

impl Mirror {
    /// Of this address, every hour.
    pub fn new(url: MirrorUrl) -> Self {
        Self { url, every: EVERY, credentials: None }
    }

    /// With another time between two looks.
    #[must_use]
    pub fn every(self, every: Duration) -> Self {
        Self { every, ..self }
    }

    /// With a file of what the other side wants to see.
    #[must_use]
    pub fn with_credentials(self, file: CredentialsFile) -> Self {
        Self { credentials: Some(file), ..self }
    }
}

fn every() -> Duration {
    EVERY
}

/// Durations as whole seconds.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        // TOML has no unsigned numbers beyond this.
        to.serialize_u32(u32::try_from(time.as_secs()).unwrap_or(u32::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        Ok(Duration::from_secs(u32::deserialize(from)?.into()))
    }
}

/// The absolute path of a file with credentials. Git hands it to a shell, so it has letters,
/// digits and `/._@+-` alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "PathBuf", into = "PathBuf")]
pub struct CredentialsFile(PathBuf);

/// The path names no file of credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the file of credentials needs an absolute path of letters, digits and /._@+-: {0:?}")]
pub struct InvalidCredentialsFile(PathBuf);

impl CredentialsFile {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl TryFrom<PathBuf> for CredentialsFile {
    type Error = InvalidCredentialsFile;

    fn try_from(path: PathBuf) -> Result<Self, InvalidCredentialsFile> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "/._@+-".contains(c);
        match path.to_str() {
            Some(text) if text.starts_with('/') && text.chars().all(plain) => Ok(Self(path)),
            _ => Err(InvalidCredentialsFile(path)),
        }
    }
}

impl FromStr for CredentialsFile {
    type Err = InvalidCredentialsFile;

    fn from_str(text: &str) -> Result<Self, InvalidCredentialsFile> {
        PathBuf::from(text).try_into()
    }
}

impl From<CredentialsFile> for PathBuf {
    fn from(file: CredentialsFile) -> Self {
        file.0
    }
}

impl fmt::Display for CredentialsFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

/// What mirrors may do.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MirrorPolicy {
    /// Networks that content may come from beside the public Internet.
    pub networks: Vec<IpNet>,
    /// The shortest time between two looks.
    pub shortest: Duration,
    /// How long a look may take.
    pub deadline: Duration,
    /// How long it may wait for the other side at a time.
    pub idle: Duration,
    /// How many look at a time.
    pub at_once: usize,
    /// The largest pack that comes at once, in bytes, where no quota is less.
    pub pack: u64,
}

impl Default for MirrorPolicy {
    fn default() -> Self {
        Self {
            networks: Vec::new(),
            shortest: Duration::from_secs(5 * 60),
            deadline: Duration::from_secs(60 * 60),
            idle: Duration::from_secs(2 * 60),
            at_once: 2,
            pack: 16 << 30,
        }
    }
}

impl MirrorPolicy {
    /// Whether content may come from there.
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        network::is_public(address) || self.networks.iter().any(|net| net.contains(&address))
    }

    /// How long a mirror waits between two looks, within the bounds.
    pub(crate) fn every(&self, mirror: &Mirror) -> Duration {
        mirror.every.min(LONGEST).max(self.shortest)
    }
}
