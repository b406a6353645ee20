//! The two servers that are compared, each with a configuration of its own.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{files, sh::Cmd, tools};

/// Where Debian's package has it.
const SFTP_SERVER: &str = "/usr/lib/openssh/sftp-server";
const START: Duration = Duration::from_secs(20);

/// The client's SSH key and the server's host key.
pub(super) struct Keys {
    pub(super) client: PathBuf,
    host: PathBuf,
    authorized: PathBuf,
}

impl Keys {
    pub(super) fn make(dir: &Path) -> Result<Self> {
        let keys = Self {
            client: dir.join("client"),
            host: dir.join("host"),
            authorized: dir.join("authorized_keys"),
        };
        for key in [&keys.client, &keys.host] {
            Cmd::new(dir, "ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(key)
                .run()?;
        }
        fs::copy(keys.client.with_extension("pub"), &keys.authorized)?;
        Ok(keys)
    }
}

/// Ends with its owner.
pub(super) struct Server(pub(super) Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// OpenSSH's server on a TCP port.
pub(super) struct Sshd {
    pub(super) address: Ipv4Addr,
    pub(super) port: u16,
    _server: Server,
}

impl Sshd {
    /// At an address of the namespace that the caller is in.
    pub(super) fn start(dir: &Path, keys: &Keys, address: Ipv4Addr) -> Result<Self> {
        let program = tools::find("sshd").context("no sshd")?;
        let port = TcpListener::bind((address, 0))?.local_addr()?.port();
        let config = format!(
            "Port {port}\nListenAddress {address}\nHostKey {}\nAuthorizedKeysFile {}\n\
             StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n\
             PrintMotd no\nPrintLastLog no\nAcceptEnv GIT_PROTOCOL\nSubsystem sftp {SFTP_SERVER}\n\
             PidFile none\nLogLevel ERROR\nMaxStartups 100\n",
            keys.host.display(),
            keys.authorized.display(),
        );
        let file = dir.join(format!("sshd_config-{address}"));
        files::write(&file, config.as_bytes())?;
        // Where Debian's sshd, started as root, drops its privileges to.
        let _ = fs::create_dir_all("/run/sshd");
        let child = Command::new(program).args(["-D", "-e", "-f"]).arg(&file).spawn()?;
        let server = Server(child);
        wait("sshd", || TcpStream::connect((address, port)).ok())?;
        Ok(Self { address, port, _server: server })
    }
}

/// `alknet serve` on a port of its own, and the program to dial it with.
pub(super) struct Node {
    pub(super) address: String,
    binary: PathBuf,
    /// The state folder.
    home: PathBuf,
    /// That of the client.
    pub(super) client_home: PathBuf,
    /// Where git finds the program as its helper.
    pub(super) helpers: PathBuf,
    _server: Server,
}

impl Node {
    /// At an address of the namespace that the caller is in.
    pub(super) fn start(dir: &Path, binary: &Path, keys: &Keys, at: Ipv4Addr) -> Result<Self> {
        let home = Self::home(dir, at);
        let file = home.join("run/address");
        // That of a node which a part before this one had here, and which was killed.
        if file.exists() {
            fs::remove_file(&file)?;
        }
        let log = fs::File::create(dir.join(format!("node-{at}.log")))?;
        let child = Command::new(binary)
            .args(["serve", "--listen", &format!("{at}:0")])
            // Run by root, a node lets nobody but its owner use an account without a mapping.
            .arg("--account")
            .arg(format!("bench={}", Cmd::new(dir, "id").arg("-un").read()?.trim()))
            .env("ALKNET_HOME", &home)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let server = Server(child);
        let address = wait("alknet serve", || {
            fs::read_to_string(&file).ok().filter(|text| text.ends_with('\n'))
        })?;
        let address = address.lines().next().unwrap_or_default().trim().to_owned();
        let client_home = dir.join(format!("client-{at}"));
        // Inside HTTPS the machine's key has to be known too.
        let id = Cmd::new(dir, binary).arg("id").env("ALKNET_HOME", &client_home).read()?;
        let ssh_key = keys.client.with_extension("pub").display().to_string();
        let add = ["peer", "add", "bench", "--scope", "ssh,sftp,shell,git"];
        let keys = ["--key", id.trim(), "--key", &ssh_key];
        Cmd::new(dir, binary).args(add).args(keys).env("ALKNET_HOME", &home).run()?;
        let helpers = dir.join("helpers");
        fs::create_dir_all(&helpers)?;
        let helper = helpers.join("git-remote-alknet");
        if !helper.exists() {
            symlink(fs::canonicalize(binary)?, helper)?;
        }
        let binary = binary.to_owned();
        Ok(Self { address, binary, home, client_home, helpers, _server: server })
    }

    /// The state folder of the node at an address.
    pub(super) fn home(dir: &Path, at: Ipv4Addr) -> PathBuf {
        dir.join(format!("node-{at}"))
    }

    /// A token for everything about git.
    pub(super) fn token(&self) -> Result<String> {
        let create = Cmd::new(&self.home, &self.binary).args(["token", "create", "--scope", "git"]);
        Ok(create.env("ALKNET_HOME", &self.home).read()?.trim().to_owned())
    }

    /// A command of the client.
    pub(super) fn command(&self, args: &[&str]) -> Vec<String> {
        let home = format!("ALKNET_HOME={}", self.client_home.display());
        let program = ["env".to_owned(), home, self.binary.display().to_string()];
        program.into_iter().chain(args.iter().map(|arg| (*arg).to_owned())).collect()
    }

    /// The command that joins a program to a service of the node by a transport.
    pub(super) fn dial(&self, service: &str, via: &str) -> String {
        self.command(&["dial", &self.address, service, "--via", via]).join(" ")
    }
}

/// Asks until there is an answer.
pub(super) fn wait<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> Result<T> {
    let start = Instant::now();
    while start.elapsed() < START {
        if let Some(value) = ready() {
            return Ok(value);
        }
        thread::sleep(Duration::from_millis(20));
    }
    bail!("{what} did not start in {} s", START.as_secs())
}
