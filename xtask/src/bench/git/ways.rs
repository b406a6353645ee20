//! The ways to a repository, and what is measured of them.

use std::{
    io::{Read, Write as _},
    net::{Ipv4Addr, Shutdown, TcpStream},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{
    super::{
        report::Named,
        servers::{Keys, Node, Sshd},
        ways::{Running, options, timed},
    },
    data::{Data, PUSHES, copy, git},
    servers::{Daemon, Web},
};

/// The repositories of the servers.
pub(super) const HISTORY: &str = "history";
pub(super) const MANY: &str = "many";
const PUSHED: &str = "pushed";
/// What the small exchanges end with that read until the server has nothing more to say.
const FLUSH: &[u8] = b"0000";

/// A way to a server's repositories.
pub(super) struct Way {
    name: String,
    /// What stands before the name of a repository in its URL.
    url: String,
    /// What git is told in its environment.
    env: Vec<(String, String)>,
    raw: Raw,
}

/// How to come to git's protocol without git's client.
enum Raw {
    /// The request line on TCP.
    Daemon(u16),
    /// The remote helper (gitremote-helpers(7)).
    Helper,
    /// A command by SSH, for a path.
    Ssh(Vec<String>, String),
    /// A request by curl with these options.
    Http(Vec<String>),
}

impl Named for Way {
    fn name(&self) -> &str {
        &self.name
    }
}

impl Way {
    pub(super) fn daemon(daemon: &Daemon) -> Self {
        let url = format!("git://{}:{}/", Ipv4Addr::LOCALHOST, daemon.port);
        Self { name: "git daemon".into(), url, env: Vec::new(), raw: Raw::Daemon(daemon.port) }
    }

    pub(super) fn http(web: &Web) -> Self {
        let url = format!("http://{}:{}/", Ipv4Addr::LOCALHOST, web.http);
        let raw = Raw::Http(Vec::new());
        Self { name: "git http-backend, HTTP".into(), url, env: Vec::new(), raw }
    }

    pub(super) fn https(web: &Web) -> Self {
        let url = format!("https://{}:{}/", Ipv4Addr::LOCALHOST, web.https);
        let (env, raw) = (unverified(&[]), Raw::Http(vec!["--insecure".into()]));
        Self { name: "git http-backend, HTTPS".into(), url, env, raw }
    }

    pub(super) fn sshd(keys: &Keys, sshd: &Sshd, repositories: &Path) -> Self {
        let known_hosts = keys.client.with_file_name("known_hosts-git-sshd");
        let mut ssh = vec!["ssh".to_owned()];
        ssh.extend(options(keys));
        ssh.extend(host_key_options(&known_hosts));
        let url = format!("ssh://{}:{}{}/", Ipv4Addr::LOCALHOST, sshd.port, repositories.display());
        ssh.extend(["-p".to_owned(), sshd.port.to_string()]);
        let env = ssh_command(&ssh);
        ssh.push(Ipv4Addr::LOCALHOST.to_string());
        let raw = Raw::Ssh(ssh, format!("{}/", repositories.display()));
        Self { name: "sshd".into(), url, env, raw }
    }

    /// `alknet/git` by the remote helper.
    pub(super) fn native(via: &str, label: &str, node: &Node) -> Self {
        let path = std::env::var("PATH").unwrap_or_default();
        let env = [
            ("ALKNET_HOME", node.client_home.display().to_string()),
            ("ALKNET_VIA", via.to_owned()),
            ("PATH", format!("{}:{path}", node.helpers.display())),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value)).to_vec();
        let url = format!("alknet://{}/", node.address);
        Self { name: format!("alknet, {via}{label}"), url, env, raw: Raw::Helper }
    }

    /// OpenSSH's client through `alknet dial`.
    pub(super) fn ssh(label: &str, keys: &Keys, node: &Node) -> Self {
        let known_hosts = keys.client.with_file_name("known_hosts-git-node");
        let mut ssh = vec!["ssh".to_owned()];
        ssh.extend(options(keys));
        ssh.extend(host_key_options(&known_hosts));
        let proxy = format!("ProxyCommand={}", node.dial("ssh", "tls"));
        ssh.extend(["-o".to_owned(), proxy]);
        let env = ssh_command(&ssh);
        ssh.push("git@node".to_owned());
        let raw = Raw::Ssh(ssh, String::new());
        Self {
            name: format!("alknet, ssh over tls{label}"),
            url: "ssh://git@node/".into(),
            env,
            raw,
        }
    }

    pub(super) fn smart_http(label: &str, node: &Node, token: &str) -> Self {
        let url = format!("https://{}/alknet/git/", node.address);
        let header = format!("Authorization: Bearer {token}");
        let raw = ["--insecure", "--header", &header].map(str::to_owned).to_vec();
        let env = unverified(&[("http.extraHeader", &header)]);
        Self { name: format!("alknet, HTTPS{label}"), url, env, raw: Raw::Http(raw) }
    }

    fn git(&self, args: &[&str]) -> Command {
        let mut git = git();
        git.envs(self.env.iter().cloned()).args(args);
        git
    }

    fn url(&self, repository: &str) -> String {
        format!("{}{repository}.git", self.url)
    }
}

/// Configuration in the environment: not in arguments, which everybody sees.
fn unverified(more: &[(&str, &str)]) -> Vec<(String, String)> {
    let all = Vec::from_iter([("http.sslVerify", "false")].iter().chain(more));
    let mut env = vec![("GIT_CONFIG_COUNT".to_owned(), all.len().to_string())];
    for (index, (key, value)) in all.into_iter().enumerate() {
        env.push((format!("GIT_CONFIG_KEY_{index}"), (*key).to_owned()));
        env.push((format!("GIT_CONFIG_VALUE_{index}"), (*value).to_owned()));
    }
    env
}

fn ssh_command(words: &[String]) -> Vec<(String, String)> {
    let quoted = Vec::from_iter(words.iter().map(|word| format!("'{word}'")));
    vec![("GIT_SSH_COMMAND".to_owned(), quoted.join(" "))]
}

fn host_key_options(known_hosts: &Path) -> Vec<String> {
    let file = format!("UserKnownHostsFile={}", known_hosts.display());
    let options = ["-o", "StrictHostKeyChecking=accept-new", "-o", &file];
    options.map(str::to_owned).to_vec()
}

/// A clone of the long history, in seconds.
pub(super) fn clone(way: &Way, data: &Data) -> Result<Option<f64>> {
    let mut git = way.git(&["clone", "--quiet", "--bare", &way.url(HISTORY)]);
    git.arg(data.fresh()?);
    Ok(Some(timed(git, b"")?.as_secs_f64()))
}

/// Its pack alone, thrown away as it comes, in MB/s.
pub(super) fn pack(way: &Way, data: &Data) -> Result<Option<f64>> {
    let start = Instant::now();
    let length = way.drain(&data.tip)?;
    let took = start.elapsed();
    ensure!(length > data.pack, "{}: {length} bytes are no such pack", way.name);
    Ok(Some(rate(length, took)))
}

/// A fetch that brings nothing new, in milliseconds.
pub(super) fn nothing_new(way: &Way, data: &Data) -> Result<Option<f64>> {
    fetch(way, data, HISTORY, "refs/heads/main", "clone")
}

/// A fetch of one branch of many that brings nothing new, in milliseconds.
pub(super) fn one_of_many(way: &Way, data: &Data) -> Result<Option<f64>> {
    let into = data.folder("one");
    if !into.exists() {
        copy(&data.served.join("many.git"), &into)?;
    }
    fetch(way, data, MANY, "refs/heads/one", "one")
}

fn fetch(
    way: &Way,
    data: &Data,
    repository: &str,
    reference: &str,
    into: &str,
) -> Result<Option<f64>> {
    let mut git = way.git(&["fetch", "--quiet", &way.url(repository), reference]);
    git.current_dir(data.folder(into));
    Ok(Some(milliseconds(timed(git, b"")?)))
}

/// All of many branches, by a prefix (`git ls-remote --heads`), in milliseconds.
pub(super) fn all_of_many(way: &Way, _: &Data) -> Result<Option<f64>> {
    let mut git = way.git(&["ls-remote", "--heads", &way.url(MANY)]);
    git.stdout(Stdio::null());
    Ok(Some(milliseconds(timed(git, b"")?)))
}

/// A push of a thousand objects, in milliseconds.
pub(super) fn push_small(way: &Way, data: &Data) -> Result<Option<f64>> {
    push(way, data, PUSHES[0])
}

/// A push of ten thousand objects, in milliseconds.
pub(super) fn push_large(way: &Way, data: &Data) -> Result<Option<f64>> {
    push(way, data, PUSHES[1])
}

fn push(way: &Way, data: &Data, count: usize) -> Result<Option<f64>> {
    let target = data.served.join(format!("{PUSHED}.git"));
    copy(&data.folder("small"), &target)?;
    let mut git = way.git(&["push", "--quiet", &way.url(PUSHED), "refs/heads/new"]);
    git.current_dir(data.folder(&format!("push-{count}")));
    let took = timed(git, b"")?;
    let mut log = self::git();
    log.arg("-C").arg(&target).args(["rev-list", "--objects", "--count", "refs/heads/new"]);
    let counted = String::from_utf8(log.output()?.stdout)?;
    ensure!(counted.trim() == count.to_string(), "{} objects arrived", counted.trim());
    Ok(Some(milliseconds(took)))
}

impl Way {
    /// Fetches all of a commit by version 2 of the protocol and counts the bytes that come.
    fn drain(&self, tip: &str) -> Result<u64> {
        let mut fetch = Vec::new();
        for line in ["command=fetch\n", "agent=bench\n", "object-format=sha1\n"] {
            packet(&mut fetch, line);
        }
        fetch.extend(b"0001");
        for line in ["ofs-delta\n", "no-progress\n", &format!("want {tip}\n"), "done\n"] {
            packet(&mut fetch, line);
        }
        fetch.extend(FLUSH);
        let mut request = Vec::new();
        packet(&mut request, &format!("git-upload-pack /{HISTORY}.git\0host=bench\0\0version=2\0"));
        // A second flush says that there is nothing more to ask for.
        let stateful = [fetch.as_slice(), FLUSH].concat();
        match &self.raw {
            Raw::Daemon(port) => {
                let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, *port))?;
                stream.write_all(&[request, stateful].concat())?;
                stream.shutdown(Shutdown::Write)?;
                counted(stream)
            }
            Raw::Helper => {
                let words = ["git-remote-alknet", "bench", &self.url(HISTORY)].map(str::to_owned);
                let connect = b"connect git-upload-pack\n";
                drained(&words, &self.env, &[connect.as_slice(), &stateful].concat())
            }
            Raw::Ssh(words, folder) => {
                let command = format!("git-upload-pack '{folder}{HISTORY}.git'");
                let mut words = words.clone();
                let host = words.pop().unwrap_or_default();
                words.extend(
                    ["-o", "SetEnv=GIT_PROTOCOL=version=2", &host, &command].map(str::to_owned),
                );
                drained(&words, &[], &stateful)
            }
            Raw::Http(options) => {
                let url = format!("{}/git-upload-pack", self.url(HISTORY));
                let fixed = [
                    "--silent",
                    "--fail",
                    "--header",
                    "Git-Protocol: version=2",
                    "--header",
                    "Content-Type: application/x-git-upload-pack-request",
                    "--data-binary",
                    "@-",
                ];
                let words = ["curl"].iter().chain(&fixed).map(|word| (*word).to_owned());
                let words = Vec::from_iter(words.chain(options.iter().cloned()).chain([url]));
                drained(&words, &[], &fetch)
            }
        }
    }
}

fn packet(into: &mut Vec<u8>, line: &str) {
    into.extend(format!("{:04x}{line}", line.len() + 4).bytes());
}

/// What a program writes after it was told this, in bytes.
fn drained(words: &[String], env: &[(String, String)], input: &[u8]) -> Result<u64> {
    let mut words = words.iter();
    let mut command = Command::new(words.next().map_or("", String::as_str));
    command.args(words).envs(env.iter().cloned()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut running = Running::start(&mut command)?;
    let mut stdin = running.child.stdin.take().context("a program without input")?;
    stdin.write_all(input)?;
    drop(stdin);
    let length = counted(running.output()?)?;
    running.ended()?;
    Ok(length)
}

fn counted(mut from: impl Read) -> Result<u64> {
    let (mut buffer, mut total) = (vec![0; 1 << 18], 0);
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(total),
            length => total += length as u64,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a few hundred megabytes")]
fn rate(length: u64, took: Duration) -> f64 {
    length as f64 / 1e6 / took.as_secs_f64()
}

fn milliseconds(took: Duration) -> f64 {
    took.as_secs_f64() * 1e3
}
