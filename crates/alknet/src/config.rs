//! The node's configuration: `alknet.toml` in the state folder. Every key is optional.
//!
//! The structs here are the one description of the file. Their documentation, types and
//! defaults become a JSON Schema, and from that come the reference that
//! `alknet config reference` prints, the search for unknown keys, and the answer to which
//! keys a running node takes over (`x-live`).

mod accounts;
mod check;
mod forward;
mod git;
mod import;
mod parse;
mod problem;
mod recordings;
mod reference;
mod schema;
mod sftp;
mod shell;
#[cfg(test)]
mod tests;
mod values;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::{NonZeroU32, NonZeroUsize},
    path::Path,
};

use ipnet::{IpNet, Ipv4Net};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use accounts::{Accounts, Mapped, PamService};
pub(crate) use forward::Forward;
pub(crate) use git::Git;
pub(crate) use import::Import;
pub(crate) use problem::{ConfigError, Problem};
pub(crate) use recordings::Recordings;
pub(crate) use reference::reference;
pub(crate) use schema::{Difference, schema};
pub(crate) use sftp::Sftp;
pub(crate) use shell::Shell;
pub(crate) use values::{
    AuthorizedKeys, Decoy, FilePath, InvalidSpan, Network, Origin, Size, Span, Variable,
};

use crate::home::Home;

/// The name of the file in the state folder.
pub(crate) const FILE: &str = "alknet.toml";
/// The port of a node unless another is given, to listen on and to dial.
pub(crate) const DEFAULT_PORT: u16 = 4433;

/// The settings of a node. Flags of the command line come before them. A path that is
/// relative starts at the folder of this file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "alknet.toml")]
pub(crate) struct Config {
    /// Where to listen, UDP and TCP alike; port 0 picks a free one.
    #[schemars(with = "String", extend("format" = "address"))]
    pub(crate) listen: SocketAddr,
    /// Offer HTTPS alone and hide every service in it.
    pub(crate) cover: bool,
    /// What strangers see: "404", a folder of static files, "http://UPSTREAM" (a reverse
    /// proxy), or "redirect:URL". Without it, a page that says what this is; under cover,
    /// the 404 of a bare nginx.
    #[schemars(extend("x-live" = true), example = &"404", example = &"redirect:https://example.org/")]
    pub(crate) decoy: Option<Decoy>,
    /// The certificate for browsers, as PEM files; without it a self-signed one is made and
    /// rotated. A reload reads the files again.
    #[schemars(extend("x-live" = true), example = Certificate::example())]
    pub(crate) certificate: Option<Certificate>,
    /// Origins beside the node's own whose pages may connect, such as `https://example.org`.
    #[schemars(extend("x-live" = true))]
    pub(crate) origins: Vec<Origin>,
    /// How long a shutdown waits for sessions to end.
    #[schemars(extend("x-live" = true))]
    pub(crate) drain: Span,
    /// Admit the keys of an OpenSSH authorized_keys file to SSH, as the owner: true is the
    /// file ~/.ssh/authorized_keys, and a path is that file.
    #[schemars(extend("x-live" = true))]
    pub(crate) authorized_keys: AuthorizedKeys,
    /// A file of peers and their keys beside those of `alknet peer`, for access that is kept
    /// under version control.
    #[schemars(extend("x-live" = true), example = &"people.toml")]
    pub(crate) identities: Option<FilePath>,
    /// Where the node runs as root: the accounts of the machine that peers may use, by the
    /// peer's name or id, or "*" for everybody who has no entry; the first of several is used
    /// where none is asked for. Without an entry, who may do everything (scope *) may use the
    /// node's own account, and nobody else any. A node that runs as another account serves that
    /// one.
    #[schemars(extend("x-live" = true), example = Accounts::example())]
    pub(crate) accounts: Accounts,
    /// The PAM service (a name in /etc/pam.d) that opens the sessions of accounts other than the
    /// node's own: "auto" is alknet where the machine has a service of that name, and none
    /// where it has not; "off" is none.
    #[schemars(example = &"sshd")]
    pub(crate) pam: PamService,
    /// How much the node takes on.
    pub(crate) limits: Limits,
    /// The SSH server.
    pub(crate) ssh: Ssh,
    /// The SFTP server.
    pub(crate) sftp: Sftp,
    /// Shells that outlive their connections.
    pub(crate) shell: Shell,
    /// Git repositories; see alknet git.
    pub(crate) git: Git,
    /// Connections from the node's network and listeners in it.
    pub(crate) forward: Forward,
    /// Recordings of terminals.
    pub(crate) recordings: Recordings,
    /// The audit log.
    pub(crate) audit: Audit,
    /// Operations over plain HTTP, at `/alknet/api`.
    pub(crate) api: Api,
    /// Servers elsewhere whose operations this node offers as its own.
    pub(crate) import: Import,
}

/// PEM files of an X.509 certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Certificate {
    /// The chain, the node's own certificate first.
    pub(crate) chain: FilePath,
    /// Its private key.
    pub(crate) key: FilePath,
}

impl Certificate {
    fn example() -> Self {
        Self { chain: "chain.pem".into(), key: "key.pem".into() }
    }
}

/// How much a node takes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Limits {
    /// Sessions in progress over all transports, HTTP connections included.
    pub(crate) sessions: NonZeroU32,
    /// Sessions in progress of one address that have no identity, HTTP connections included.
    pub(crate) sessions_per_address: NonZeroU32,
    /// Sessions in progress of one identity.
    pub(crate) sessions_per_identity: NonZeroU32,
    /// Streams that all sessions of one identity may have open.
    pub(crate) streams_per_identity: NonZeroU32,
    /// Handshakes in progress, TCP and QUIC each. One more ends the oldest.
    pub(crate) handshakes: NonZeroU32,
    /// Handshakes that one address may begin in a minute.
    pub(crate) handshakes_per_address: NonZeroU32,
    /// Failed authentications of one address in ten minutes, before it is turned away.
    pub(crate) failures_per_address: NonZeroU32,
    /// How long such an address is turned away.
    pub(crate) ban: Span,
    /// Addresses and networks whose sessions, handshakes and failures are not counted. Behind a proxy
    /// on the same machine everybody comes from there.
    pub(crate) exempt: Vec<Network>,
}

/// The SSH server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Ssh {
    /// Who may open a native connection: "protocol" admits whoever SSH itself authenticates,
    /// so that a stock ssh client needs nothing else; "scope" wants an identity with the
    /// scope ssh before SSH begins.
    pub(crate) access: SshAccess,
    /// Keys and certificates that are no longer good: an OpenSSH key revocation list
    /// (ssh-keygen -k).
    #[schemars(extend("x-live" = true), example = &"krl")]
    pub(crate) revoked_keys: Option<FilePath>,
    /// Which key exchanges are offered: "compatible" prefers ML-KEM 768 with X25519 and takes
    /// X25519 alone from clients without it (OpenSSH before 9.9); "post-quantum" has none
    /// but the first.
    pub(crate) key_exchange: SshKeyExchange,
    /// Variables that clients may set for what they run, besides LANG, LC_* and COLORTERM; a *
    /// at the end stands for any ending. Some change what a program loads or runs.
    #[schemars(example = vec!["GIT_PROTOCOL"])]
    pub(crate) accept_env: Vec<String>,
    /// Variables that whatever is run has, whatever clients set.
    #[schemars(example = vec!["EDITOR=vim"])]
    pub(crate) set_env: Vec<Variable>,
    /// A text that clients are shown before they log in.
    #[schemars(example = &"For members only.")]
    pub(crate) banner: Option<String>,
}

/// Which key exchanges the SSH server offers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(crate) enum SshKeyExchange {
    #[default]
    Compatible,
    PostQuantum,
}

/// What a native connection to the SSH server needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(crate) enum SshAccess {
    #[default]
    Protocol,
    Scope,
}

/// The audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Audit {
    /// How many full files are kept beside the one that is written.
    pub(crate) keep: NonZeroU32,
    /// How long a file grows.
    pub(crate) max_size: Size,
}

/// Operations over plain HTTP, at `/alknet/api`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Api {
    /// Origins beside the node's own whose pages may call operations with a bearer token,
    /// such as `https://example.org`.
    #[schemars(extend("x-live" = true))]
    pub(crate) cors_origins: Vec<Origin>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv6Addr::UNSPECIFIED, DEFAULT_PORT)),
            cover: false,
            decoy: None,
            certificate: None,
            origins: Vec::new(),
            drain: Span::seconds(10),
            authorized_keys: AuthorizedKeys::default(),
            identities: None,
            accounts: Accounts::default(),
            pam: PamService::default(),
            limits: Limits::default(),
            ssh: Ssh::default(),
            sftp: Sftp::default(),
            shell: Shell::default(),
            git: Git::default(),
            forward: Forward::default(),
            recordings: Recordings::default(),
            audit: Audit::default(),
            api: Api::default(),
            import: Import::default(),
        }
    }
}

/// A count that is written in the source, where zero would be a mistake.
const fn count(n: u32) -> NonZeroU32 {
    match NonZeroU32::new(n) {
        Some(n) => n,
        None => NonZeroU32::MIN,
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions: count(8192),
            sessions_per_address: count(512),
            sessions_per_identity: count(1024),
            streams_per_identity: count(4096),
            handshakes: count(512),
            handshakes_per_address: count(600),
            failures_per_address: count(20),
            ban: Span::seconds(10 * 60),
            exempt: vec![
                Network::from(IpNet::from(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8))),
                Network::from(IpNet::from(IpAddr::from(Ipv6Addr::LOCALHOST))),
            ],
        }
    }
}

impl Default for Audit {
    fn default() -> Self {
        Self { keep: count(8), max_size: Size::mebibytes(64) }
    }
}

impl Limits {
    /// As the dispatcher and the endpoint take them.
    pub(crate) fn of_node(&self) -> alknet_core::Limits {
        let size = |count: NonZeroU32| usize::try_from(count.get()).unwrap_or(usize::MAX);
        let mut limits = alknet_core::Limits::default();
        limits.sessions = size(self.sessions);
        limits.sessions_per_address = size(self.sessions_per_address);
        limits.sessions_per_identity = size(self.sessions_per_identity);
        limits.streams_per_identity = size(self.streams_per_identity);
        limits.handshakes = size(self.handshakes);
        limits.handshakes_per_address = self.handshakes_per_address.get();
        limits.failures_per_address = self.failures_per_address.get();
        limits.ban = self.ban.into();
        limits.exempt = self.exempt.iter().copied().map(IpNet::from).collect();
        limits
    }
}

impl From<SshKeyExchange> for alknet_ssh::KeyExchange {
    fn from(key_exchange: SshKeyExchange) -> Self {
        match key_exchange {
            SshKeyExchange::Compatible => Self::Compatible,
            SshKeyExchange::PostQuantum => Self::PostQuantum,
        }
    }
}

impl From<SshAccess> for alknet_core::Access {
    fn from(access: SshAccess) -> Self {
        match access {
            SshAccess::Protocol => Self::Protocol,
            SshAccess::Scope => Self::Scope,
        }
    }
}

impl Audit {
    /// As the writer of the log takes them.
    pub(crate) fn limits(&self) -> crate::audit::Limits {
        let keep = NonZeroUsize::try_from(self.keep).unwrap_or(NonZeroUsize::MAX);
        crate::audit::Limits { file_size: self.max_size.bytes(), keep }
    }
}

impl Config {
    /// Reads the file of a state folder; all defaults if there is none. What its values
    /// name, such as files, is not looked at.
    pub(crate) fn load(home: &Home) -> Result<Self, ConfigError> {
        let path = home.path(FILE);
        let content = home.read(FILE)?.unwrap_or_default();
        parsed(&path, content)?.finish().map_err(ConfigError::of(&path))
    }

    /// Reads the file of a state folder and tries everything that its values name, so that a
    /// node that is given the result can use it. Cancel safe.
    pub(crate) async fn load_checked(home: &Home) -> Result<Self, ConfigError> {
        let (path, home) = (home.path(FILE), home.clone());
        let content = blocking(move || Ok(home.read(FILE)?.unwrap_or_default())).await?;
        Self::checked(&path, content).await
    }

    /// The same for any file, which has to exist.
    pub(crate) async fn check_file(path: &Path) -> Result<Self, ConfigError> {
        let owned = path.to_owned();
        let read =
            move || check::read(&owned).map_err(|source| ConfigError::File { path: owned, source });
        Self::checked(path, blocking(read).await?).await
    }

    /// Everything that is wrong with a text, but for what its values name: nothing is
    /// looked at outside of it. For whoever may not look at files either.
    pub(crate) fn problems_of(text: &str) -> Vec<Problem> {
        match parse::parse(text, Path::new("")).finish() {
            Ok(_) => Vec::new(),
            Err(problems) => problems,
        }
    }

    async fn checked(path: &Path, content: Vec<u8>) -> Result<Self, ConfigError> {
        let mut parsed = parsed(path, content)?;
        if parsed.is_toml() {
            for (key, wrong) in check::problems(&parsed.config).await? {
                parsed.note(key, wrong);
            }
        }
        parsed.finish().map_err(ConfigError::of(path))
    }

    /// As others may see it: no password in it, and no key.
    pub(crate) fn without_secrets(mut self) -> Self {
        self.decoy = self.decoy.map(Decoy::without_userinfo);
        let servers = self.import.mcp.iter_mut().map(|server| &mut server.url);
        let documents = self.import.openapi.iter_mut().map(|described| &mut described.document);
        // The query of an address is where keys of others are put.
        for address in servers.chain(documents.filter(|document| document.contains("://"))) {
            address.truncate(address.find('?').unwrap_or(address.len()));
        }
        self
    }

    /// A path in the file starts where the file is, not where the program was started.
    fn settle_paths(&mut self, root: &Path) {
        let settle = |path: &mut FilePath| path.settle(root);
        if let Some(files) = &mut self.certificate {
            settle(&mut files.chain);
            settle(&mut files.key);
        }
        if let AuthorizedKeys::File(file) = &mut self.authorized_keys {
            settle(file);
        }
        if let Some(decoy) = &mut self.decoy {
            decoy.settle(root);
        }
        self.identities.iter_mut().chain(&mut self.ssh.revoked_keys).for_each(settle);
        let tokens = self.import.mcp.iter_mut().filter_map(|server| server.token_file.as_mut());
        tokens.for_each(settle);
        self.import.openapi.iter_mut().for_each(|api| api.settle(root));
        self.sftp.settle(root);
        self.git.settle(root);
    }
}

/// For the fuzz target.
#[cfg(fuzzing)]
pub(crate) fn any(text: &str) {
    drop(parse::parse(text, Path::new("/")));
}

fn parsed(path: &Path, content: Vec<u8>) -> Result<parse::Parsed, ConfigError> {
    let text =
        String::from_utf8(content).map_err(|_| ConfigError::NotText { path: path.into() })?;
    Ok(parse::parse(&text, path.parent().unwrap_or_else(|| Path::new(""))))
}

/// Files may be slow, and sessions must not wait for them.
async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, ConfigError> + Send + 'static,
) -> Result<T, ConfigError> {
    match tokio::task::spawn_blocking(read).await {
        Ok(result) => result,
        Err(error) => Err(ConfigError::Interrupted(error)),
    }
}
