//! The ways to a server, and what is measured of them.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use wait_timeout::ChildExt as _;

use super::{
    report::Named,
    servers::{Keys, Node, Sshd},
};
use crate::files::write;

/// The same for both servers: otherwise their preferences are what is measured.
pub(super) const ALGORITHMS: [&str; 2] =
    ["Ciphers=aes128-gcm@openssh.com", "KexAlgorithms=curve25519-sha256"];
/// What one transfer moves.
pub(super) const BYTES: u64 = 1 << 30;
/// How many files make a tree, and how many of them a folder.
pub(super) const FILES: usize = 10_000;
const FILES_OF_A_FOLDER: usize = 100;
/// The sizes of a tree's files run through this many, from 1 byte.
const SIZES: usize = 4096;
/// A shell whose start takes the same time everywhere, and little.
const SHELL: &str = "exec bash --noprofile --norc";
/// How long a transfer goes on over a path that loses packets.
pub(super) const LOSSY: Duration = Duration::from_secs(6);
/// No single measurement takes longer.
const DEADLINE: Duration = Duration::from_secs(120);

/// A way to commands and files.
pub(super) struct Way {
    name: String,
    reach: Reach,
}

enum Reach {
    /// OpenSSH's clients with these options and this destination.
    OpenSsh { options: Vec<String>, host: String },
    /// OpenSSH's sftp over a program that ends at the server's SFTP, with no SSH.
    Sftp(String),
    /// A command of ours. A shell's command may follow, or, of some, any other.
    Own { command: Vec<String>, takes_commands: bool },
}

impl Named for Way {
    fn name(&self) -> &str {
        &self.name
    }
}

impl Way {
    pub(super) fn to_sshd(keys: &Keys, sshd: &Sshd) -> Self {
        Self::open_ssh("sshd".to_owned(), keys, sshd, None)
    }

    /// OpenSSH's client through `alknet dial`.
    pub(super) fn through(
        transport: &str,
        label: &str,
        keys: &Keys,
        sshd: &Sshd,
        node: &Node,
    ) -> Self {
        let proxy = node.dial("ssh", transport);
        Self::open_ssh(format!("{transport}{label}"), keys, sshd, Some(proxy))
    }

    /// OpenSSH's sftp on `alknet/sftp`.
    pub(super) fn sftp(transport: &str, label: &str, node: &Node) -> Self {
        let name = format!("alknet/sftp, {transport}{label}");
        Self { name, reach: Reach::Sftp(node.dial("sftp", transport)) }
    }

    /// `alknet ssh`, which runs OpenSSH's client.
    pub(super) fn alknet_ssh(label: &str, keys: &Keys, node: &Node) -> Self {
        let mut command = node.command(&["ssh", &node.address]);
        command.extend(options(keys));
        let name = format!("`alknet ssh`{label}");
        Self { name, reach: Reach::Own { command, takes_commands: true } }
    }

    /// `alknet sessions attach`, a shell without SSH.
    pub(super) fn attached(label: &str, node: &Node) -> Self {
        let command = node.command(&["sessions", "attach", &node.address, "prompt", "--"]);
        let name = format!("`alknet sessions attach`{label}");
        Self { name, reach: Reach::Own { command, takes_commands: false } }
    }

    fn open_ssh(name: String, keys: &Keys, sshd: &Sshd, proxy: Option<String>) -> Self {
        let mut options = options(keys);
        // Whoever is asked for by that address depends on the way.
        let known_hosts = format!("known_hosts {} {name}", sshd.address).replace(' ', "-");
        let known_hosts = keys.client.with_file_name(known_hosts);
        let mut option = |text: String| options.extend(["-o".to_owned(), text]);
        option("StrictHostKeyChecking=accept-new".to_owned());
        option(format!("UserKnownHostsFile={}", known_hosts.display()));
        option(format!("Port={}", sshd.port));
        if let Some(proxy) = proxy {
            option(format!("ProxyCommand={proxy}"));
        }
        let host = sshd.address.to_string();
        Self { name, reach: Reach::OpenSsh { options, host } }
    }

    /// The command that runs this at the server.
    fn run(&self, remote: &str) -> Option<Command> {
        let mut command = match &self.reach {
            Reach::OpenSsh { options, host } => {
                let mut ssh = Command::new("ssh");
                ssh.args(options).args(["-T", host]);
                ssh
            }
            Reach::Own { command, takes_commands: true } => program(command),
            Reach::Own { takes_commands: false, .. } | Reach::Sftp(_) => return None,
        };
        command.arg(remote).stdin(Stdio::null()).stdout(Stdio::null());
        Some(command)
    }

    /// The command line of a shell on a terminal.
    fn shell(&self) -> Option<String> {
        let mut words = match &self.reach {
            Reach::OpenSsh { options, host } => {
                let ssh = ["ssh".to_owned(), "-t".to_owned()].into_iter();
                Vec::from_iter(ssh.chain(options.iter().cloned()).chain([host.clone()]))
            }
            Reach::Own { command, takes_commands: true } => {
                Vec::from_iter(command.iter().cloned().chain(["-t".to_owned()]))
            }
            Reach::Own { command, takes_commands: false } => command.clone(),
            Reach::Sftp(_) => return None,
        };
        words.push(SHELL.to_owned());
        Some(words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "))
    }

    fn sftp_client(&self) -> Option<Command> {
        let mut sftp = Command::new("sftp");
        match &self.reach {
            Reach::OpenSsh { options, host } => sftp.args(options).args(["-b", "-", host]),
            Reach::Sftp(program) => sftp.args(["-b", "-", "-D", program]),
            Reach::Own { .. } => return None,
        };
        sftp.stdin(Stdio::piped()).stdout(Stdio::null());
        Some(sftp)
    }

    fn scp(&self, from: &Path, to: &Path, up: bool) -> Option<Command> {
        let Reach::OpenSsh { options, host } = &self.reach else { return None };
        let remote = |path: &Path| format!("{host}:{}", path.display());
        let local = |path: &Path| path.display().to_string();
        let ends = if up { [local(from), remote(to)] } else { [remote(from), local(to)] };
        let mut scp = Command::new("scp");
        scp.arg("-rq").args(options).args(ends).stdin(Stdio::null());
        Some(scp)
    }
}

/// What OpenSSH's clients are told for every server.
pub(super) fn options(keys: &Keys) -> Vec<String> {
    let mut options = ["-F", "none", "-i"].map(str::to_owned).to_vec();
    options.push(keys.client.display().to_string());
    for option in ["BatchMode=yes", "IdentitiesOnly=yes", "LogLevel=ERROR"] {
        options.extend(["-o".to_owned(), option.to_owned()]);
    }
    for option in ALGORITHMS {
        options.extend(["-o".to_owned(), option.to_owned()]);
    }
    options
}

fn program(words: &[String]) -> Command {
    let mut words = words.iter();
    let mut command = Command::new(words.next().map_or("", String::as_str));
    command.args(words);
    command
}

/// Files to transfer, in memory where there is such a folder, so that no disk is measured.
pub(super) struct Data {
    dir: PathBuf,
}

impl Data {
    pub(super) fn make(fallback: &Path) -> Result<Self> {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory } else { fallback };
        let data = Self { dir: parent.join(format!("alknet-bench-{}", std::process::id())) };
        fs::create_dir_all(data.tree())?;
        let mut random = fastrand::Rng::with_seed(1);
        let mut block = vec![0; 1 << 20];
        random.fill(&mut block);
        let mut large = fs::File::create(data.large())?;
        for _ in 0..BYTES >> 20 {
            large.write_all(&block)?;
        }
        for file in 0..FILES {
            let folder = data.tree().join(format!("{:03}", file / FILES_OF_A_FOLDER));
            let content = block.get(..=file % SIZES).unwrap_or_default();
            write(&folder.join(format!("{file:05}")), content)?;
        }
        Ok(data)
    }

    fn large(&self) -> PathBuf {
        self.dir.join("large")
    }

    fn tree(&self) -> PathBuf {
        self.dir.join("tree")
    }

    /// Where there is nothing yet.
    fn copy(&self) -> Result<PathBuf> {
        let copy = self.dir.join("copy");
        if copy.is_dir() {
            fs::remove_dir_all(&copy)?;
        } else if copy.exists() {
            fs::remove_file(&copy)?;
        }
        Ok(copy)
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// `true`, in milliseconds.
pub(super) fn login(way: &Way, _: &Data) -> Result<Option<f64>> {
    way.run("true").map(|command| Ok(timed(command, b"")?.as_secs_f64() * 1e3)).transpose()
}

/// To the prompt of a shell, in milliseconds.
pub(super) fn prompt(way: &Way, _: &Data) -> Result<Option<f64>> {
    let Some(shell) = way.shell() else { return Ok(None) };
    let mut script = Command::new("script");
    script.args(["-qec", &shell, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let start = Instant::now();
    let mut running = Running::start(&mut script)?;
    let mut output = running.output()?;
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    // What bash begins to draw its prompt with, when it has a terminal.
    while !seen.ends_with(b"# ") && !seen.ends_with(b"$ ") {
        let len = output.read(&mut buffer)?;
        ensure!(len > 0, "no prompt: {}", String::from_utf8_lossy(&seen));
        seen.extend(buffer.get(..len).unwrap_or_default());
    }
    let took = start.elapsed();
    running.child.stdin.take().context("script has no input")?.write_all(b"exit\n")?;
    while output.read(&mut buffer)? > 0 {}
    running.ended()?;
    Ok(Some(took.as_secs_f64() * 1e3))
}

/// A command's output, in MB/s.
pub(super) fn receive(way: &Way, _: &Data) -> Result<Option<f64>> {
    way.run(&format!("head -c {BYTES} /dev/zero"))
        .map(|command| timed(command, b"").map(rate))
        .transpose()
}

/// A command's input, in MB/s.
pub(super) fn send(way: &Way, _: &Data) -> Result<Option<f64>> {
    let Some(mut command) = way.run("cat > /dev/null") else { return Ok(None) };
    let mut source = Command::new("head")
        .args(["-c", &BYTES.to_string(), "/dev/zero"])
        .stdout(Stdio::piped())
        .spawn()?;
    command.stdin(source.stdout.take().context("head has no output")?);
    let took = timed(command, b"")?;
    source.wait()?;
    Ok(Some(rate(took)))
}

/// What arrives in a while of a command's output without end, in MB/s.
pub(super) fn receive_for_a_while(way: &Way, _: &Data) -> Result<Option<f64>> {
    let Some(mut command) = way.run("exec cat /dev/zero") else { return Ok(None) };
    let mut running = Running::start(command.stdout(Stdio::piped()))?;
    let mut output = running.output()?;
    let mut buffer = vec![0; 1 << 20];
    let mut total = output.read(&mut buffer)?;
    let start = Instant::now();
    while start.elapsed() < LOSSY {
        let len = output.read(&mut buffer)?;
        ensure!(len > 0, "the output ended");
        total += len;
    }
    Ok(Some(per_second(total, start.elapsed())))
}

/// What arrives in a while of a command's input without end, in MB/s.
pub(super) fn send_for_a_while(way: &Way, _: &Data) -> Result<Option<f64>> {
    let counted = format!("timeout {} cat | wc -c", LOSSY.as_secs());
    let Some(mut command) = way.run(&counted) else { return Ok(None) };
    command.stdin(fs::File::open("/dev/zero")?).stdout(Stdio::piped());
    let mut running = Running::start(&mut command)?;
    let mut output = running.output()?;
    let mut seen = String::new();
    let mut buffer = [0; 64];
    while !seen.ends_with('\n') {
        let len = output.read(&mut buffer)?;
        ensure!(len > 0, "no count: {seen}");
        seen.push_str(&String::from_utf8_lossy(buffer.get(..len).unwrap_or_default()));
    }
    Ok(Some(per_second(seen.trim().parse()?, LOSSY)))
}

/// One file by sftp to the server, in MB/s.
pub(super) fn sftp_put(way: &Way, data: &Data) -> Result<Option<f64>> {
    sftp(way, "put", &data.large(), &data.copy()?).map(|took| took.map(rate))
}

/// One file by sftp from the server, in MB/s.
pub(super) fn sftp_get(way: &Way, data: &Data) -> Result<Option<f64>> {
    sftp(way, "get", &data.large(), &data.copy()?).map(|took| took.map(rate))
}

/// A tree by sftp to the server, in files a second.
pub(super) fn tree_put(way: &Way, data: &Data) -> Result<Option<f64>> {
    sftp(way, "put -r", &data.tree(), &data.copy()?).map(|took| took.map(files_per_second))
}

/// A tree by sftp from the server, in files a second.
pub(super) fn tree_get(way: &Way, data: &Data) -> Result<Option<f64>> {
    sftp(way, "get -r", &data.tree(), &data.copy()?).map(|took| took.map(files_per_second))
}

/// One file by scp to the server, in MB/s.
pub(super) fn scp_put(way: &Way, data: &Data) -> Result<Option<f64>> {
    scp(way, &data.large(), &data.copy()?, true).map(|took| took.map(rate))
}

/// One file by scp from the server, in MB/s.
pub(super) fn scp_get(way: &Way, data: &Data) -> Result<Option<f64>> {
    scp(way, &data.large(), &data.copy()?, false).map(|took| took.map(rate))
}

/// A tree by scp to the server, in files a second.
pub(super) fn tree_scp_put(way: &Way, data: &Data) -> Result<Option<f64>> {
    scp(way, &data.tree(), &data.copy()?, true).map(|took| took.map(files_per_second))
}

/// A tree by scp from the server, in files a second.
pub(super) fn tree_scp_get(way: &Way, data: &Data) -> Result<Option<f64>> {
    scp(way, &data.tree(), &data.copy()?, false).map(|took| took.map(files_per_second))
}

fn sftp(way: &Way, verb: &str, from: &Path, to: &Path) -> Result<Option<Duration>> {
    let Some(client) = way.sftp_client() else { return Ok(None) };
    let batch = format!("{verb} {} {}\n", from.display(), to.display());
    let took = timed(client, batch.as_bytes())?;
    same(from, to)?;
    Ok(Some(took))
}

fn scp(way: &Way, from: &Path, to: &Path, up: bool) -> Result<Option<Duration>> {
    let Some(client) = way.scp(from, to, up) else { return Ok(None) };
    let took = timed(client, b"")?;
    same(from, to)?;
    Ok(Some(took))
}

fn same(one: &Path, other: &Path) -> Result<()> {
    let diff = Command::new("diff").args(["-rq"]).args([one, other]).status()?;
    ensure!(diff.success(), "the copy differs");
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "the size is a power of two")]
fn rate(took: Duration) -> f64 {
    BYTES as f64 / 1e6 / took.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "a few seconds' bytes")]
fn per_second(bytes: usize, took: Duration) -> f64 {
    bytes as f64 / 1e6 / took.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "a small number")]
fn files_per_second(took: Duration) -> f64 {
    FILES as f64 / took.as_secs_f64()
}

/// How long a command takes, with this on its standard input where that is a pipe.
pub(super) fn timed(mut command: Command, input: &[u8]) -> Result<Duration> {
    let start = Instant::now();
    let mut running = Running::start(&mut command)?;
    if let Some(mut stdin) = running.child.stdin.take() {
        stdin.write_all(input)?;
    }
    running.ended()?;
    Ok(start.elapsed())
}

/// A command that ends with this, and all that it has started.
pub(super) struct Running {
    pub(super) child: Child,
    shown: String,
}

impl Running {
    pub(super) fn start(command: &mut Command) -> Result<Self> {
        let shown = format!("{command:?}");
        // A group of its own, so that its proxy command goes with it.
        let child = command.process_group(0).spawn().with_context(|| shown.clone())?;
        Ok(Self { child, shown })
    }

    pub(super) fn output(&mut self) -> Result<ChildStdout> {
        self.child.stdout.take().context("a command without output")
    }

    pub(super) fn ended(&mut self) -> Result<()> {
        match self.child.wait_timeout(DEADLINE)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("{status}: {}", self.shown),
            None => bail!("not done in {} s: {}", DEADLINE.as_secs(), self.shown),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let group = format!("-{}", self.child.id());
            let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
            let _ = self.child.wait();
        }
    }
}
