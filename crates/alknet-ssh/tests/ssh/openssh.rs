//! OpenSSH's client against the handler on a socket.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use alknet_core::NodeIdentity;
use alknet_ssh::known_hosts_line;
use russh::keys::{PrivateKey, ssh_key::LineEnding};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, Command},
    task::JoinSet,
    time::sleep,
};

use crate::node::{Node, new_key, soon};

/// A node on a port, and what an OpenSSH client of it needs.
pub(crate) struct Setup {
    pub(crate) node: Node,
    pub(crate) port: u16,
    files: TempDir,
    _listener: JoinSet<()>,
}

impl Setup {
    pub(crate) async fn new() -> Self {
        Self::of(Node::new()).await
    }

    pub(crate) async fn of(node: Node) -> Self {
        let (port, listener) = node.listen().await;
        let files = tempfile::tempdir().unwrap();
        let setup = Self { node, port, files, _listener: listener };
        setup.key_file("id", &setup.node.user("alice", &["ssh"]));
        let line = known_hosts_line("*", setup.node.id).unwrap();
        fs::write(setup.path("known_hosts"), line + "\n").unwrap();
        setup
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    pub(crate) fn key_file(&self, name: &str, key: &PrivateKey) {
        let path = self.path(name);
        fs::write(&path, key.to_openssh(LineEnding::LF).unwrap().as_bytes()).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        let public = key.public_key().to_openssh().unwrap();
        fs::write(self.path(&format!("{name}.pub")), public + "\n").unwrap();
    }

    /// `ssh`, with nothing of the machine's own configuration, for a user of the node.
    pub(crate) fn ssh_as(&self, user: &str, options: &[&str]) -> Command {
        let mut command = Command::new("ssh");
        command
            .args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"])
            .args(["-o", "StrictHostKeyChecking=yes", "-o", "GlobalKnownHostsFile=none"])
            .arg(format!("-oUserKnownHostsFile={}", self.path("known_hosts").display()))
            .arg(format!("-oIdentityFile={}", self.path("id").display()))
            .arg(format!("-oHostKeyAlias={}", self.node.id))
            .arg(format!("-p{}", self.port))
            .args(options)
            .arg(format!("{user}@127.0.0.1"))
            .env_remove("SSH_AUTH_SOCK")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    pub(crate) fn ssh(&self, options: &[&str]) -> Command {
        self.ssh_as(&self.node.account.name, options)
    }

    pub(crate) async fn run(&self, command: &str) -> Output {
        finish(self.ssh(&[]).arg(command)).await
    }
}

pub(crate) async fn finish(command: &mut Command) -> Output {
    let output = soon("ssh", command.output()).await;
    output.expect("this test needs ssh (Debian: openssh-client)")
}

pub(crate) fn start(command: &mut Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("this test needs ssh (Debian: openssh-client)")
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn commands_run_and_tell_how_they_ended() {
    let setup = Setup::new().await;
    assert!(setup.run("true").await.status.success());
    let output = setup.run("echo out; echo err >&2; exit 7").await;
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("out\n", "err\n"));
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(setup.run("kill -TERM $$").await.status.code(), Some(255));
}

#[tokio::test]
async fn the_node_s_id_is_enough_to_trust_the_host_key() {
    let setup = Setup::new().await;
    let other = NodeIdentity::from_seed(&[9; 32]).unwrap();
    let line = known_hosts_line("*", other.id()).unwrap();
    fs::write(setup.path("known_hosts"), line + "\n").unwrap();
    let output = setup.run("true").await;
    assert_eq!(output.status.code(), Some(255));
    assert!(text(&output.stderr).contains("Host key verification failed"));
}

#[tokio::test]
async fn wrong_keys_and_names_are_refused() {
    let setup = Setup::new().await;
    let output = finish(setup.ssh_as("somebody", &[]).arg("true")).await;
    assert!(text(&output.stderr).contains("Permission denied (publickey)"));
    setup.key_file("id", &new_key());
    let output = setup.run("true").await;
    assert!(text(&output.stderr).contains("Permission denied (publickey)"));
    let reasons = ["login name \"somebody\" is not the node's account", "unknown key"];
    assert_eq!(setup.node.audit.refusals(), reasons);
}

#[tokio::test]
async fn every_cipher_and_key_exchange_works() {
    let setup = Setup::new().await;
    for option in [
        "-oCiphers=aes128-gcm@openssh.com",
        "-oCiphers=aes256-gcm@openssh.com",
        "-oCiphers=chacha20-poly1305@openssh.com",
        "-oKexAlgorithms=curve25519-sha256",
        "-oKexAlgorithms=curve25519-sha256@libssh.org",
        "-oHostKeyAlgorithms=ssh-ed25519-cert-v01@openssh.com",
    ] {
        let output = finish(setup.ssh(&[option]).arg("true")).await;
        assert!(output.status.success(), "{option}: {}", text(&output.stderr));
    }
    let output = finish(setup.ssh(&["-oCiphers=aes256-ctr"]).arg("true")).await;
    assert!(text(&output.stderr).contains("no matching cipher found"));
}

#[tokio::test]
async fn user_keys_of_every_accepted_type_log_in() {
    let setup = Setup::new().await;
    for kind in [&["ed25519"][..], &["ecdsa"], &["rsa", "-b", "2048"]] {
        let (private, public) = (setup.path("id"), setup.path("id.pub"));
        fs::remove_file(&private).unwrap();
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-N", "", "-t"]).args(kind).arg("-f").arg(&private);
        assert!(finish(&mut keygen).await.status.success());
        let line = fs::read_to_string(&public).unwrap();
        let key = russh::keys::PublicKey::from_openssh(&line).unwrap();
        setup.node.authorise(&key, "alice", &["ssh"]);
        let output = setup.run("true").await;
        assert!(output.status.success(), "{kind:?}: {}", text(&output.stderr));
        fs::remove_file(&public).unwrap();
    }
}

#[tokio::test]
async fn the_environment_is_sent_as_far_as_it_may() {
    let setup = Setup::new().await;
    let options = ["-oSendEnv=LC_ALKNET", "-oSetEnv=COLORTERM=truecolor"];
    let mut ssh = setup.ssh(&options);
    let output =
        finish(ssh.env("LC_ALKNET", "here").arg("echo $LC_ALKNET $COLORTERM $SSH_CLIENT")).await;
    let words: Vec<&str> = text(&output.stdout).split_whitespace().collect();
    assert_eq!(words[..3], ["here", "truecolor", "127.0.0.1"]);
}

/// Starts `ssh` on a terminal of its own, of 24 lines and 80 columns.
fn on_terminal(mut ssh: Command) -> (Child, tty::Terminal) {
    let (terminal, mut end) = tty::open(24, 80);
    ssh.stdin(end()).stdout(end()).stderr(end());
    (ssh.spawn().unwrap(), terminal)
}

#[tokio::test]
async fn a_terminal_is_resized_with_the_client_s() {
    let setup = Setup::new().await;
    let mut ssh = setup.ssh(&["-tt"]);
    ssh.arg("trap 'stty size; exit 0' WINCH; stty size; while :; do sleep 0.05; done");
    let (mut child, mut terminal) = on_terminal(ssh);
    terminal.wait_for("24 80").await;
    terminal.resize(43, 132);
    let pid = rustix::process::Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::WINCH).unwrap();
    terminal.wait_for("43 132").await;
    assert!(soon("ssh", child.wait()).await.unwrap().success());
}

#[tokio::test]
async fn a_shell_is_interactive() {
    let setup = Setup::new().await;
    let (mut child, mut terminal) = on_terminal(setup.ssh(&["-tt"]));
    terminal.send("echo $((6 * 7)) $0\r");
    terminal.wait_for("42 -bash").await;
    // What is typed is echoed, so the word to wait for must not stand in it.
    terminal.send("sh -c 'echo sta''rted; exec sleep 1000'\r");
    terminal.wait_for("started").await;
    terminal.send("\x03");
    terminal.wait_for("^C").await;
    terminal.send("exit 5\r");
    assert_eq!(soon("ssh", child.wait()).await.unwrap().code(), Some(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_megabytes_come_back_unchanged() {
    const LEN: usize = 300 * 1024 * 1024;
    let setup = Setup::new().await;
    let mut ssh = start(setup.ssh(&[]).arg("cat"));
    let (mut input, mut output) = (ssh.stdin.take().unwrap(), ssh.stdout.take().unwrap());
    let send = async move {
        let mut pattern = Pattern::default();
        let mut left = LEN;
        while left > 0 {
            let piece = pattern.next(left.min(1024 * 1024));
            left -= piece.len();
            input.write_all(&piece).await.unwrap();
        }
    };
    let receive = async move {
        let (mut pattern, mut received) = (Pattern::default(), 0);
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match output.read(&mut buffer).await.unwrap() {
                0 => return received,
                len => {
                    assert!(buffer[..len] == pattern.next(len)[..], "a wrong byte");
                    received += len;
                }
            }
        }
    };
    let ((), received) = soon("the echo", async { tokio::join!(send, receive) }).await;
    assert_eq!(received, LEN);
    assert!(soon("ssh", ssh.wait()).await.unwrap().success());
}

/// Bytes that do not repeat soon.
#[derive(Default)]
struct Pattern(u64, Vec<u8>);

impl Pattern {
    fn next(&mut self, len: usize) -> Vec<u8> {
        while self.1.len() < len {
            self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            self.1.extend_from_slice(&self.0.to_le_bytes());
        }
        let rest = self.1.split_off(len);
        std::mem::replace(&mut self.1, rest)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_channel_beside_a_busy_one_on_one_connection() {
    let setup = Setup::new().await;
    let control = format!("-oControlPath={}", setup.path("control").display());
    let mut master = start(&mut setup.ssh(&["-M", "-N", &control]));
    soon("the control socket", async {
        while !setup.path("control").exists() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // Its output is not read: the pipe, then the windows fill up.
    let mut stalled = start(setup.ssh(&[&control]).arg("head -c 100M /dev/zero"));
    let busy = finish(setup.ssh(&[&control]).arg("head -c 100M /dev/zero; exit 3")).await;
    assert_eq!((busy.stdout.len(), busy.status.code()), (100 * 1024 * 1024, Some(3)));
    let mut rest = Vec::new();
    let mut output = stalled.stdout.take().unwrap();
    soon("the stalled channel", output.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest.len(), 100 * 1024 * 1024);
    assert!(soon("ssh", stalled.wait()).await.unwrap().success());
    master.kill().await.unwrap();
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_programs_along() {
    let setup = Setup::new().await;
    let pids = setup.node.file("pids");
    let script = "sleep 1000 & echo $$ $! >pids.new; mv pids.new pids; wait";
    let mut ssh = start(setup.ssh(&[]).arg(script));
    soon("the program", async {
        while !pids.exists() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let pids = fs::read_to_string(pids).unwrap();
    ssh.kill().await.unwrap();
    let runs = |pid: &str| Path::new("/proc").join(pid).exists();
    soon("the end of the processes", async {
        while pids.split_whitespace().any(runs) {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn rekeying_under_load_loses_nothing() {
    let setup = Setup::new().await;
    let command = "head -c 20M /dev/zero; cat";
    let mut ssh = start(setup.ssh(&["-oRekeyLimit=1M"]).arg(command));
    let mut input = ssh.stdin.take().unwrap();
    let mut output = ssh.stdout.take().unwrap();
    let send = async move { input.write_all(&vec![0; 20 << 20]).await.unwrap() };
    let mut received = Vec::new();
    let both = async { tokio::join!(send, output.read_to_end(&mut received)) };
    soon("the echo", both).await.1.unwrap();
    assert_eq!(received.len(), 40 << 20);
}

#[tokio::test]
async fn the_server_changes_keys_as_often_as_it_is_told() {
    const BYTES: usize = 4 << 20;
    let setup = Setup::of(Node::with_limits(|limits| limits.rekey_bytes = 64 << 10)).await;
    let output = finish(setup.ssh(&["-v"]).arg(format!("head -c {BYTES} /dev/zero"))).await;
    assert!(output.status.success());
    assert_eq!(output.stdout.len(), BYTES);
    let changes = text(&output.stderr).matches("SSH2_MSG_NEWKEYS sent").count();
    assert!(changes > 5, "{changes} in {BYTES} bytes");
}

/// What a client sends while it has not yet seen that the server begins a change of keys is
/// legal (RFC 4253, section 7.1), and can be a whole window on each channel.
#[tokio::test]
async fn what_is_on_its_way_when_the_server_changes_keys_arrives() {
    const BYTES: usize = 128 << 20;
    let setup = Setup::of(Node::with_limits(|limits| limits.rekey_bytes = 4 << 20)).await;
    let mut ssh = start(setup.ssh(&["-v"]).arg("wc -c"));
    let mut input = ssh.stdin.take().unwrap();
    let send = async move { input.write_all(&vec![0; BYTES]).await };
    let (sent, output) =
        soon("the count", async { tokio::join!(send, ssh.wait_with_output()) }).await;
    let output = output.unwrap();
    let said = text(&output.stderr);
    sent.unwrap_or_else(|error| panic!("{error}: {said}"));
    assert_eq!(text(&output.stdout).trim(), BYTES.to_string(), "{said}");
    let changes = said.matches("SSH2_MSG_NEWKEYS sent").count();
    assert!(changes > 5, "{changes} in {BYTES} bytes");
}

#[tokio::test]
async fn a_banner_comes_before_the_login() {
    let setup = Setup::of(Node::with_banner("For members only.\n")).await;
    setup.key_file("id", &new_key());
    let output = setup.run("true").await;
    let said = text(&output.stderr);
    assert!(said.starts_with("For members only.\n") && said.contains("denied"), "{said}");
}

/// The local end of a terminal for `ssh`.
mod tty {
    use std::{
        fs::File,
        io::{Read as _, Write as _},
        os::fd::OwnedFd,
        process::Stdio,
    };

    use rustix::{
        pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
        termios::{Winsize, tcsetwinsize},
    };

    use crate::node::soon;

    pub(super) struct Terminal {
        master: OwnedFd,
        seen: tokio::sync::mpsc::UnboundedReceiver<Vec<u8>>,
        text: String,
    }

    /// A terminal, and a source of its other end.
    pub(super) fn open(rows: u16, columns: u16) -> (Terminal, impl FnMut() -> Stdio) {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let end = File::options().read(true).write(true).open(name).unwrap();
        let (sender, seen) = tokio::sync::mpsc::unbounded_channel();
        let mut reader = File::from(master.try_clone().unwrap());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..len].to_vec()).is_err() {
                    return;
                }
            }
        });
        let terminal = Terminal { master, seen, text: String::new() };
        terminal.resize(rows, columns);
        (terminal, move || end.try_clone().unwrap().into())
    }

    impl Terminal {
        pub(super) fn resize(&self, rows: u16, columns: u16) {
            let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
            tcsetwinsize(&self.master, size).unwrap();
        }

        pub(super) fn send(&self, keys: &str) {
            File::from(self.master.try_clone().unwrap()).write_all(keys.as_bytes()).unwrap();
        }

        /// Reads until a text appears; it and what came before it are then forgotten.
        pub(super) async fn wait_for(&mut self, text: &str) {
            let reading = async {
                loop {
                    if let Some(at) = self.text.find(text) {
                        self.text.drain(..at + text.len());
                        return;
                    }
                    let more = self.seen.recv().await.expect("the terminal is closed");
                    self.text.push_str(&String::from_utf8_lossy(&more));
                }
            };
            soon(text, reading).await;
        }
    }
}
