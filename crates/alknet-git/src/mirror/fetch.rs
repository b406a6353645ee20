//! Looking for news.

use std::{
    collections::BTreeMap,
    error::Error,
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use gix::ObjectId;
use tokio::{
    net::lookup_host,
    process::Command,
    time::{Instant, sleep, timeout},
};

use super::{
    Mirror, MirrorPolicy, MirrorUrl,
    node::{Nodes, Remote},
    url::Transport,
};
use crate::{
    engine::InstalledGit,
    push::RefChange,
    repositories::{Allowance, Repositories, Repository, RepositoryError, RunError, THREADS, run},
};

/// How long a name may take to resolve.
const RESOLVE: Duration = Duration::from_secs(15);
/// How many addresses of a host are tried.
const MAX_ADDRESSES: usize = 8;
/// How often the size of what comes is looked at.
const MEASURE: Duration = Duration::from_secs(5);
/// Room for what is taken from the repository beside what comes, to complete a thin pack.
const BESIDE: u64 = 1 << 30;
/// What a question may use: where `HEAD` points, or which refs there are.
const ASKS: Allowance = Allowance { time: Duration::from_secs(60), file: BESIDE, idle: None };
/// Where what is fetched is, here and there.
const FOLLOWED: [&str; 2] = ["refs/heads/", "refs/tags/"];
/// What git complains of where a ref is not there that is asked for by its name.
const NO_SUCH_REF: &str = "couldn't find remote ref";
/// What old histories have, and harms nobody.
const HARMLESS: [&str; 4] =
    ["zeroPaddedFilemode", "badTimezone", "missingSpaceBeforeDate", "missingSpaceBeforeEmail"];

/// A mirror could not get its content.
///
/// Whoever administers a repository is told what it displays, and not what has caused it: what
/// names mean in the node's own network is no business of theirs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MirrorError {
    /// The host cannot be found.
    #[error("{host} cannot be found, or this node fetches nothing from its network")]
    Resolve {
        /// Which.
        host: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// No address of the host may be fetched from.
    #[error("{0} cannot be found, or this node fetches nothing from its network")]
    Forbidden(String),
    /// What is there of the mirror is all that is left of it.
    #[error("there is no branch and no tag there any more, and those here stay")]
    Empty,
    /// It would be larger than it may.
    #[error("it is larger than its quota of {0} bytes")]
    Quota(u64),
    /// Another node cannot be reached, or has gone.
    #[error("the node {node} cannot be fetched from")]
    Node {
        /// What it is called.
        node: String,
        /// Why not.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Nobody here reaches other nodes.
    #[error("nothing is fetched from other nodes here")]
    NoNodes,
    /// Git could not do it.
    #[error(transparent)]
    Git(#[from] RunError),
    /// The repository cannot be used.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The node is ending.
    #[error("interrupted")]
    Interrupted,
}

/// Makes all branches and tags those of the other side; gives what has changed. Where there are
/// some here and none there any more, nothing changes. Dropped before its end, it leaves refs
/// that each are as before or as they are to be.
pub(crate) async fn fetch(
    git: &InstalledGit,
    repositories: &Repositories,
    repository: &Repository,
    mirror: &Mirror,
    policy: &MirrorPolicy,
    nodes: Option<&dyn Nodes>,
) -> Result<Vec<RefChange>, MirrorError> {
    let source = match Remote::of(&mirror.url, policy, nodes)? {
        Some(remote) => Source::Node(remote),
        None => Source::Addresses(addresses(&mirror.url, policy).await?),
    };
    let (before, allowance) = (refs(repository).await?, allowance(repository, policy));
    let fetched = tokio::select! {
        fetched = source.follow(git, repository, mirror, allowance, &before) => fetched,
        error = outgrown(repository) => Err(error),
    };
    // A part may have come before a failure.
    let after = refs(repository).await?;
    fetched?;
    if before.is_empty() && !after.is_empty() {
        let asked = follow_head(git, repositories, repository, mirror, &source);
        if let Err(error) = asked.await {
            tracing::debug!(name = %repository.name, %error, "the default branch is not known");
        }
    }
    Ok(changes(&before, &after))
}

/// Where content comes from, once it is clear that it may.
enum Source<'a> {
    Addresses(Vec<IpAddr>),
    Node(Remote<'a>),
}

impl Source<'_> {
    /// Fetches. Where there were refs before, one is asked for by its name, without which
    /// nothing is fetched: git would else remove all of them where there are none any more.
    async fn follow(
        &self,
        git: &InstalledGit,
        repository: &Repository,
        mirror: &Mirror,
        allowance: Allowance,
        before: &Refs,
    ) -> Result<(), MirrorError> {
        let Some(known) = before.keys().find(|name| is_followed(name)) else {
            return self.update(git, repository, mirror, allowance, None).await;
        };
        match self.update(git, repository, mirror, allowance, Some(known)).await {
            Err(MirrorError::Git(RunError::Failed { complaint, .. }))
                if complaint.contains(NO_SUCH_REF) => {}
            done => return done,
        }
        // It may be the only one that has gone.
        let left = self.any(git, repository, mirror).await?.ok_or(MirrorError::Empty)?;
        self.update(git, repository, mirror, allowance, Some(&left)).await
    }

    async fn update(
        &self,
        git: &InstalledGit,
        repository: &Repository,
        mirror: &Mirror,
        allowance: Allowance,
        known: Option<&str>,
    ) -> Result<(), MirrorError> {
        match self {
            Self::Addresses(all) => update(git, repository, mirror, all, allowance, known).await,
            Self::Node(remote) => remote.update(git, &repository.path, allowance, known).await,
        }
    }

    /// The branch that `HEAD` points to there.
    async fn head(
        &self,
        git: &InstalledGit,
        repository: &Repository,
        mirror: &Mirror,
    ) -> Result<Option<String>, MirrorError> {
        let all = match self {
            Self::Addresses(all) => all,
            Self::Node(remote) => return remote.head().await,
        };
        let (mut command, url) = command(git, &repository.path, mirror, all);
        command.args(["ls-remote", "--symref", "--", &url, "HEAD"]);
        let said = run(command, ASKS).await?;
        let branch = |line: &str| {
            Some(line.strip_prefix("ref: refs/heads/")?.strip_suffix("\tHEAD")?.to_owned())
        };
        Ok(said.lines().find_map(branch))
    }

    /// Some branch or tag that is there, if there is any.
    async fn any(
        &self,
        git: &InstalledGit,
        repository: &Repository,
        mirror: &Mirror,
    ) -> Result<Option<String>, MirrorError> {
        let all = match self {
            Self::Addresses(all) => all,
            Self::Node(remote) => return remote.any().await,
        };
        let mut failed = MirrorError::Forbidden(mirror.url.host.clone());
        for pinned in pins(mirror, all) {
            let (mut command, url) = command(git, &repository.path, mirror, pinned);
            command.args(["ls-remote", "--heads", "--tags", "--refs", "--", &url]);
            match run(command, ASKS).await {
                Ok(said) => {
                    let names = said.lines().filter_map(|line| line.split_once('\t'));
                    let mut followed = names.map(|(_, name)| name).filter(|name| is_followed(name));
                    return Ok(followed.next().map(ToOwned::to_owned));
                }
                Err(error) => failed = error.into(),
            }
        }
        Err(failed)
    }
}

/// Whether a ref, of here or there, is one that is fetched, and can be asked for.
pub(super) fn is_followed(name: &str) -> bool {
    FOLLOWED.iter().any(|beginning| name.starts_with(beginning))
        && gix::refs::FullName::try_from(name).is_ok()
}

/// What git may use. What comes is looked at only [now and then](MEASURE), and much may come
/// between two looks.
pub(super) fn allowance(repository: &Repository, policy: &MirrorPolicy) -> Allowance {
    let pack = repository.settings.quota.unwrap_or(u64::MAX).min(policy.pack);
    let (time, idle) = (policy.deadline, Some(policy.idle));
    Allowance { time, file: pack.saturating_add(BESIDE), idle }
}

/// Those of the host that content may come from.
async fn addresses(url: &MirrorUrl, policy: &MirrorPolicy) -> Result<Vec<IpAddr>, MirrorError> {
    let lookup = lookup_host((url.host.as_str(), url.port_or_default()));
    let found =
        timeout(RESOLVE, lookup).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let found = found.map_err(|source| MirrorError::Resolve { host: url.host.clone(), source })?;
    let mut allowed = Vec::new();
    for address in found.map(|found: SocketAddr| found.ip().to_canonical()) {
        if policy.allows(address) && !allowed.contains(&address) && allowed.len() < MAX_ADDRESSES {
            allowed.push(address);
        }
    }
    match allowed.is_empty() {
        true => Err(MirrorError::Forbidden(url.host.clone())),
        false => Ok(allowed),
    }
}

/// The addresses of one attempt after the other, where the transport cannot be given all.
fn pins<'a>(mirror: &Mirror, addresses: &'a [IpAddr]) -> impl Iterator<Item = &'a [IpAddr]> {
    let several = matches!(mirror.url.scheme, Transport::Git | Transport::Ssh);
    addresses.chunks(if several { 1 } else { MAX_ADDRESSES })
}

/// Fetches from one address after the other, where the transport cannot be given all.
pub(super) async fn update(
    git: &InstalledGit,
    repository: &Repository,
    mirror: &Mirror,
    addresses: &[IpAddr],
    allowance: Allowance,
    known: Option<&str>,
) -> Result<(), MirrorError> {
    let begun = Instant::now();
    let mut failed = MirrorError::Forbidden(mirror.url.host.clone());
    for pinned in pins(mirror, addresses) {
        let (mut command, url) = command(git, &repository.path, mirror, pinned);
        everything(&mut command, &url, known);
        // One deadline for all of them.
        let time = allowance.time.saturating_sub(begun.elapsed());
        if time.is_zero() {
            return Err(RunError::Late(allowance.time).into());
        }
        match run(command, Allowance { time, ..allowance }).await {
            Ok(_) => return Ok(()),
            Err(RunError::Late(_)) => return Err(RunError::Late(allowance.time).into()),
            Err(error) => failed = error.into(),
        }
    }
    Err(failed)
}

/// Has a command fetch all branches and tags, and nothing where a known one is not among them.
pub(super) fn everything(command: &mut Command, url: &str, known: Option<&str>) {
    command.args(["-c", "fetch.fsckObjects=true", "-c", THREADS]);
    for kind in HARMLESS {
        command.args(["-c", &format!("fetch.fsck.{kind}=ignore")]);
    }
    command.args(["fetch", "--prune", "--force", "--no-tags", "--quiet", "--atomic"]);
    command.args(["--no-write-fetch-head", "--no-auto-maintenance", "--no-recurse-submodules"]);
    command.args(["--", url, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]);
    command.args(known.map(|name| format!("+{name}:{name}")));
}

/// A command of git that talks to these addresses of the other side and to nobody else, and
/// what it is to call it.
fn command(
    git: &InstalledGit,
    path: &Path,
    mirror: &Mirror,
    pinned: &[IpAddr],
) -> (Command, String) {
    let url = &mirror.url;
    let mut command = git.command(path);
    command.env("GIT_ALLOW_PROTOCOL", url.scheme.name());
    command.args(["-c", "credential.helper=", "-c", "core.askPass="]);
    let first = pinned.first().map(ToString::to_string).unwrap_or_default();
    match url.scheme {
        Transport::Https | Transport::Http => {
            command.args(["-c", "http.followRedirects=false"]);
            command.args(["-c", "http.lowSpeedLimit=100", "-c", "http.lowSpeedTime=60"]);
            if url.host.parse::<IpAddr>().is_err() {
                let pins: Vec<String> = pinned.iter().map(bracketed).collect();
                let (host, port) = (&url.host, url.port_or_default());
                let pin = format!("http.curloptResolve={host}:{port}:{}", pins.join(","));
                command.args(["-c", &pin]);
            }
            if let Some(file) = &mirror.credentials {
                // Git would have the file forget what the other side refuses.
                let helper = format!(
                    "credential.helper=!f() {{ test \"$1\" = get && \
                     exec git credential-store --file '{file}' get; }}; f"
                );
                command.args(["-c", &helper]);
            }
            (command, url.to_string())
        }
        Transport::Git => {
            let host =
                url.port.map_or_else(|| url.host.clone(), |port| format!("{}:{port}", url.host));
            command.env("GIT_OVERRIDE_VIRTUAL_HOST", host);
            (command, url.at(first).to_string())
        }
        Transport::Ssh => {
            command.env("GIT_SSH_VARIANT", "ssh");
            command.env("GIT_SSH_COMMAND", ssh(path, mirror, &first));
            (command, url.to_string())
        }
        // To a node this process connects, and git by itself goes nowhere.
        Transport::Alknet => {
            command.env("GIT_ALLOW_PROTOCOL", "none");
            (command, url.to_string())
        }
    }
}

/// How ssh is started: no configuration, no key but the one that is named, and this address.
/// Git hands it to a shell; nothing in it has a meaning there.
pub(super) fn ssh(repository: &Path, mirror: &Mirror, address: &str) -> String {
    let host = &mirror.url.host;
    let key = mirror.credentials.as_ref().map_or_else(|| "none".into(), ToString::to_string);
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._@+-".contains(c);
    // Which hosts are known is each mirror's own, where the path can be said.
    let known = repository.join("alknet-known-hosts");
    let known = known.to_str().filter(|path| path.chars().all(plain)).unwrap_or("/dev/null");
    format!(
        "ssh -F /dev/null -o BatchMode=yes -o IdentitiesOnly=yes -o IdentityAgent=none \
         -o IdentityFile={key} -o HostName={address} -o HostKeyAlias={host} -o CheckHostIP=no \
         -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile={known} \
         -o GlobalKnownHostsFile=/dev/null -o ProxyCommand=none -o ConnectTimeout=30 \
         -o ClearAllForwardings=yes -o PermitLocalCommand=no"
    )
}

/// As curl takes it.
fn bracketed(address: &IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// Lets `HEAD` of a repository that has just got its first content point where the other
/// side's does.
async fn follow_head(
    git: &InstalledGit,
    repositories: &Repositories,
    repository: &Repository,
    mirror: &Mirror,
    source: &Source<'_>,
) -> Result<(), MirrorError> {
    let Some(branch) = source.head(git, repository, mirror).await? else { return Ok(()) };
    let (repositories, name) = (repositories.clone(), repository.name.clone());
    blocking(move || repositories.set_default_branch(&name, &branch)).await
}

/// Ends when the repository is larger than it may be.
async fn outgrown(repository: &Repository) -> MirrorError {
    let Some(quota) = repository.settings.quota else { return std::future::pending().await };
    loop {
        sleep(MEASURE).await;
        let measured = repository.clone();
        if blocking(move || measured.measure()).await.is_ok_and(|bytes| bytes > quota) {
            return MirrorError::Quota(quota);
        }
    }
}

type Refs = BTreeMap<String, ObjectId>;

async fn refs(repository: &Repository) -> Result<Refs, MirrorError> {
    let repository = repository.clone();
    blocking(move || {
        let failed =
            |error: gix::Error| RepositoryError::Refs(repository.name.clone(), error.into());
        let opened = repository.open()?;
        let mut refs = Refs::new();
        let all = opened.references().map_err(failed)?;
        for reference in all.all().map_err(failed)?.filter_map(Result::ok) {
            if let Some(id) = reference.try_id() {
                refs.insert(reference.name().as_bstr().to_string(), id.detach());
            }
        }
        Ok(refs)
    })
    .await
}

fn changes(before: &Refs, after: &Refs) -> Vec<RefChange> {
    let gone = before.keys().filter(|name| !after.contains_key(*name));
    let names = after.keys().chain(gone);
    let change = |name: &String| {
        let (old, new) = (before.get(name).copied(), after.get(name).copied());
        let none = || Some(ObjectId::null(old.or(new)?.kind()));
        let (old, new) = (old.or_else(none)?, new.or_else(none)?);
        (old != new).then(|| RefChange { reference: name.clone(), old, new })
    };
    names.filter_map(change).collect()
}

/// Disks may be slow, and others must not wait for them.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RepositoryError> + Send + 'static,
) -> Result<T, MirrorError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|_| MirrorError::Interrupted)??)
}
