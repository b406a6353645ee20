//! ssh-audit (PyPI) on the SSH server: it warns of nothing but what older clients are let in
//! by, and of nothing at all without that.

use std::{
    collections::BTreeSet,
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};

use crate::{files, programs, sh::Cmd, suites};

/// What it warns of where older clients may connect: OpenSSH before 9.9 has no ML-KEM, and
/// no kept crate has the other post-quantum key exchange, sntrup761.
const FOR_OLDER_CLIENTS: [&str; 2] = ["curve25519-sha256", "curve25519-sha256@libssh.org"];
const START: Duration = Duration::from_secs(20);

pub(super) fn run(root: &Path) -> Result<()> {
    let audit = suites::python(root)?.join("ssh-audit");
    let server = programs::build(root)?.join("examples/regress_sshd");
    let dir = root.join("target/xtask/conformance/ssh-audit");
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    std::fs::create_dir_all(&dir)?;
    Cmd::new(&dir, "ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", "key"]).run()?;
    let strict = warnings(&audit, &dir, &server, "KexAlgorithms mlkem768x25519-sha256\n")?;
    ensure!(strict.is_empty(), "with post-quantum key exchange alone: {strict:?}");
    let compatible = warnings(&audit, &dir, &server, "")?;
    let expected: BTreeSet<String> = FOR_OLDER_CLIENTS.map(str::to_owned).into();
    ensure!(compatible == expected, "with older clients let in: {compatible:?}");
    Ok(())
}

/// The algorithms that it has a warning or worse for.
fn warnings(audit: &Path, dir: &Path, server: &Path, more: &str) -> Result<BTreeSet<String>> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let path = |name: &str| dir.join(name).display().to_string();
    let config = format!(
        "Port {port}\nHostKey {}\nAuthorizedKeysFile {}\n{more}",
        path("key"),
        path("key.pub")
    );
    files::write(&dir.join("config"), config.as_bytes())?;
    let mut command = Command::new(server);
    let _server = Running(command.arg("-Df").arg(dir.join("config")).spawn()?);
    let start = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if start.elapsed() > START {
            bail!("the server did not start");
        }
        thread::sleep(Duration::from_millis(20));
    }
    // How many connect is for the endpoint to bound, and this server has none.
    let ran = Command::new(audit)
        .args(["--skip-rate-test", "--no-colors", "--timeout", "60"])
        .args(["--port", &port.to_string(), "127.0.0.1"])
        .output()?;
    let text = String::from_utf8_lossy(&ran.stdout);
    ensure!(text.contains("mlkem768x25519-sha256"), "it says nothing of the server: {text}");
    ensure!(!text.contains("[fail]"), "{text}");
    let warned: BTreeSet<String> = text
        .lines()
        .filter(|line| line.contains("[warn]"))
        .map(|line| line.split_whitespace().nth(1).unwrap_or_default().to_owned())
        .collect();
    // 0: all is well, 2: there are warnings.
    ensure!(ran.status.code() == Some(if warned.is_empty() { 0 } else { 2 }), "{text}");
    Ok(warned)
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
