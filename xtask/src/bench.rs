//! SSH through this node beside SSH through a real sshd, in one run; and calls beside those of
//! others.

mod calls;
mod report;
mod servers;

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use self::{
    report::Samples,
    servers::{Keys, Node, Sshd},
};
use crate::{files, sh, tools, web};

/// What one transfer moves.
const BYTES: u64 = 1 << 30;
const TRANSFERS: usize = 5;
const LOGINS: usize = 21;

/// The same for both servers: otherwise their preferences are what is measured.
const ALGORITHMS: [&str; 2] = ["Ciphers=aes128-gcm@openssh.com", "KexAlgorithms=curve25519-sha256"];

/// The ways to a shell, the baseline first.
const WAYS: [&str; 5] = ["sshd", "tls", "quic", "webtransport", "websocket"];

/// One way to a shell: the OpenSSH client with its options.
struct Way {
    name: &'static str,
    args: Vec<String>,
}

/// The document.
const REPORT: &str = "docs/benchmarks.md";

/// Measures everything, or what is named, and rewrites that in the document.
pub(crate) fn run(root: &Path, args: &[String]) -> Result<()> {
    let text = match args {
        [] => shells(root)? + "\n" + &calls::section(root)?,
        [name] if name == "call" => {
            let document = fs::read_to_string(root.join(REPORT))?;
            calls::replaced(&document, &calls::section(root)?)
        }
        _ => bail!("`cargo xtask bench` measures everything, `cargo xtask bench call` calls alone"),
    };
    files::write(&root.join(REPORT), text.as_bytes())?;
    print!("{text}");
    Ok(())
}

/// All but the calls.
fn shells(root: &Path) -> Result<String> {
    tools::need(root, tools::BENCH)?;
    web::build(root)?;
    sh::cargo(root, ["build", "--release", "-p", "alknet"]).run()?;
    let binary = sh::target_dir(root)?.join("release/alknet");
    let dir = root.join("target/xtask/bench");
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    let keys = Keys::make(&dir)?;
    let sshd = Sshd::start(&dir, &keys)?;
    let node = Node::start(&dir, &binary, &keys)?;
    let ways: Vec<Way> = WAYS.iter().map(|name| way(name, &dir, &keys, &sshd, &node)).collect();
    let samples = measure(&ways)?;
    let identities = sh::cargo(root, ["bench", "-p", "alknet", "--bench", "identities"]).read()?;
    Ok(report::markdown(&samples, &report::machine(root)?) + &report::identities(&identities))
}

fn way(name: &'static str, dir: &Path, keys: &Keys, sshd: &Sshd, node: &Node) -> Way {
    let known_hosts = dir.join(format!("known_hosts-{name}"));
    let mut args: Vec<String> = ["-F", "none", "-T", "-i"].map(str::to_owned).into();
    args.push(keys.client.display().to_string());
    let options = [
        "BatchMode=yes",
        "IdentitiesOnly=yes",
        "StrictHostKeyChecking=accept-new",
        &format!("UserKnownHostsFile={}", known_hosts.display()),
    ];
    let proxy = format!("ProxyCommand={}", node.dial(name));
    let route: &[&str] = if name == "sshd" { &[] } else { &[&proxy] };
    for option in options.iter().chain(&ALGORITHMS).chain(route) {
        args.extend(["-o".to_owned(), (*option).to_owned()]);
    }
    args.extend(["-p".to_owned(), sshd.port.to_string(), "127.0.0.1".to_owned()]);
    Way { name, args }
}

/// Every round goes through all the ways, so that whatever else the machine does meets
/// them alike.
fn measure(ways: &[Way]) -> Result<Vec<Samples>> {
    let mut samples: Vec<Samples> = ways.iter().map(|way| Samples::new(way.name)).collect();
    for way in ways {
        way.login().with_context(|| format!("the first login by {}", way.name))?;
    }
    for round in 1..=LOGINS {
        for (way, samples) in ways.iter().zip(&mut samples) {
            samples.login.push(way.login()?.as_secs_f64() * 1e3);
        }
        eprintln!("logins: {round}/{LOGINS}");
    }
    for round in 1..=TRANSFERS {
        for (way, samples) in ways.iter().zip(&mut samples) {
            samples.out.push(rate(way.receive()?));
            samples.into.push(rate(way.send()?));
        }
        eprintln!("transfers: {round}/{TRANSFERS}");
    }
    Ok(samples)
}

/// In megabytes (10^6 bytes) per second.
#[expect(clippy::cast_precision_loss, reason = "the size is a power of two")]
fn rate(took: Duration) -> f64 {
    BYTES as f64 / 1e6 / took.as_secs_f64()
}

impl Way {
    fn login(&self) -> Result<Duration> {
        timed(self.ssh("true"))
    }

    /// From the server to the client.
    fn receive(&self) -> Result<Duration> {
        timed(self.ssh(&format!("head -c {BYTES} /dev/zero")))
    }

    /// From the client to the server.
    fn send(&self) -> Result<Duration> {
        let mut source = Command::new("head")
            .args(["-c", &BYTES.to_string(), "/dev/zero"])
            .stdout(Stdio::piped())
            .spawn()?;
        let pipe = source.stdout.take().context("head has no output")?;
        let mut ssh = self.ssh("cat > /dev/null");
        let took = timed({
            ssh.stdin(pipe);
            ssh
        })?;
        source.wait()?;
        Ok(took)
    }

    fn ssh(&self, command: &str) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.args(&self.args).arg(command).stdin(Stdio::null()).stdout(Stdio::null());
        ssh
    }
}

fn timed(mut command: Command) -> Result<Duration> {
    let start = Instant::now();
    let status = command.status()?;
    ensure!(status.success(), "ssh failed: {status}");
    Ok(start.elapsed())
}
