//! What uses SSH unchanged once `alknet ssh-config` has said how to reach a node, and clients
//! other than OpenSSH's.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use nix::sys::signal::Signal;

use crate::{
    client::{Client, WAYS, account},
    node::{Home, Node},
    process::{Deadline, SOON, eventually, output, output_of, output_with, signal, stdout, text},
};

/// Everything on the loopback interface, to whoever has a grant.
const FORWARDING: &str = r#"
[[forward.allow]]
connect = ["localhost:*", "127.0.0.0/8:*"]
listen = ["localhost:*"]
"#;

/// A node, a client of it, and the client's configuration for ssh.
struct Setup {
    node: Node,
    server: Home,
    client: Client,
    config: PathBuf,
}

impl Setup {
    fn new(via: &str) -> Self {
        let server = Home::new();
        fs::write(server.path().join("alknet.toml"), FORWARDING).unwrap();
        let node = Node::start(&server, &[]);
        let client = Client::known_to(&server, "tester", "ssh,forward");
        let address = node.address().to_string();
        let pin = node.id().to_string();
        let user = account();
        let arguments =
            ["ssh-config", "--name", "lab", "--user", &user, "--via", via, "--pin", &pin, &address];
        let block = stdout(&output(&mut client.home.alknet(&arguments)));
        let config = client.home.path().join("ssh_config");
        // What a user has besides: a key.
        let key = client.key().display();
        let own = format!("    IdentityFile {key}\n    IdentitiesOnly yes\n    BatchMode yes\n");
        fs::write(&config, block + &own).unwrap();
        Self { node, server, client, config }
    }

    /// A program of OpenSSH's with the configuration.
    fn run(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-F").arg(&self.config);
        self.settle(&mut command);
        command
    }

    /// Nothing of the caller's own takes part: not even the state folder is named.
    fn settle(&self, command: &mut Command) {
        let shell = format!("ssh -F {}", self.config.display());
        command
            .env("HOME", self.client.home.path())
            .env("SHELL", "/bin/sh")
            .env("RSYNC_RSH", &shell)
            .env("GIT_SSH_COMMAND", &shell)
            .env_remove("SSH_AUTH_SOCK")
            .env_remove("ALKNET_LOG");
    }

    /// The folder of the account on the node.
    fn there(&self, name: &str) -> PathBuf {
        self.server.path().join("account").join(name)
    }

    fn here(&self, name: &str) -> PathBuf {
        self.client.home.path().join(name)
    }
}

/// A process that ends with its owner.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        signal(self.0.id(), Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// A folder with more than one kind of file; what is in them is different in each.
fn fill(folder: &Path) {
    fs::create_dir_all(folder.join("empty")).unwrap();
    fs::write(folder.join("small"), "small\n").unwrap();
    let bulk: Vec<u8> =
        (0..3_000_000_u32).map(|n| u8::try_from(n.wrapping_mul(n) % 251).unwrap()).collect();
    fs::write(folder.join("bulk"), bulk).unwrap();
    fs::write(folder.join("name with spaces"), "x").unwrap();
    std::os::unix::fs::symlink("small", folder.join("link")).unwrap();
}

fn assert_same(a: &Path, b: &Path) {
    let diff = output(Command::new("diff").arg("-r").arg("--no-dereference").arg(a).arg(b));
    assert!(diff.status.success(), "{}", text(&diff));
}

#[test]
fn the_block_is_all_that_ssh_needs_on_every_transport() {
    for via in WAYS {
        let setup = Setup::new(via);
        let ran = output(setup.run("ssh").args(["lab", "echo there; exit 3"]));
        assert_eq!((ran.stdout.as_slice(), ran.status.code()), (&b"there\n"[..], Some(3)), "{via}");
    }
}

#[test]
fn the_block_trusts_one_node_alone() {
    let setup = Setup::new("auto");
    let other = Home::new();
    let other = Node::start(&other, &[]);
    let text = fs::read_to_string(&setup.config).unwrap();
    let moved = text.replace(&setup.node.port(), &other.port());
    assert_ne!(text, moved);
    fs::write(&setup.config, moved).unwrap();
    let refused = output(setup.run("ssh").args(["lab", "true"]));
    assert_eq!(refused.status.code(), Some(255));
}

#[test]
fn rsync_both_ways() {
    let setup = Setup::new("auto");
    let (source, back) = (setup.here("source"), setup.here("back"));
    fill(&source);
    let rsync = |from: &str, to: &str| {
        let mut rsync = Command::new("rsync");
        setup.settle(&mut rsync);
        rsync.args(["-a", "--checksum", "--stats", from, to]);
        stdout(&output(&mut rsync))
    };
    let source_text = format!("{}/", source.display());
    rsync(&source_text, "lab:copy/");
    assert_same(&source, &setup.there("copy"));
    rsync("lab:copy/", &format!("{}/", back.display()));
    assert_same(&source, &back);
    let again = rsync(&source_text, "lab:copy/");
    assert!(again.contains("Number of regular files transferred: 0\n"), "{again}");
}

#[test]
fn scp_as_before_openssh_9() {
    let setup = Setup::new("auto");
    let source = setup.here("source");
    fill(&source);
    let copied = output(setup.run("scp").args(["-O", "-r", "-q"]).arg(&source).arg("lab:copy"));
    assert!(copied.status.success(), "{}", text(&copied));
    assert_eq!(fs::read(source.join("bulk")).unwrap(), fs::read(setup.there("copy/bulk")).unwrap());
    let back = setup.here("back");
    let copied = output(setup.run("scp").args(["-O", "-q", "lab:copy/bulk"]).arg(&back));
    assert!(copied.status.success(), "{}", text(&copied));
    assert_eq!(fs::read(source.join("bulk")).unwrap(), fs::read(back).unwrap());
}

#[test]
fn git_clones_and_pushes() {
    let setup = Setup::new("auto");
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        setup.settle(&mut git);
        git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        git.args(["-c", "user.name=a", "-c", "user.email=a@example.org"]).args(arguments);
        git.current_dir(setup.client.home.path());
        stdout(&output(&mut git))
    };
    stdout(&output(setup.run("ssh").args(["lab", "git init -q --bare -b main notes.git"])));
    git(&["init", "-q", "-b", "main", "notes"]);
    fs::write(setup.here("notes/file"), "text\n").unwrap();
    git(&["-C", "notes", "add", "file"]);
    git(&["-C", "notes", "commit", "-q", "-m", "first"]);
    git(&["-C", "notes", "push", "-q", "lab:notes.git", "main"]);
    git(&["clone", "-q", "lab:notes.git", "clone"]);
    assert_eq!(fs::read_to_string(setup.here("clone/file")).unwrap(), "text\n");
}

/// VS Code and its like run a shell with a SOCKS port, have it read a script that starts a
/// server on a port of the loopback interface, and then talk to that through the port.
#[test]
fn an_editor_starts_its_server_and_talks_to_it() {
    let setup = Setup::new("auto");
    fs::create_dir_all(setup.there("site")).unwrap();
    fs::write(setup.there("site/hello"), "hello editor\n").unwrap();
    let (dynamic, server) = (free_port(), free_port());
    let mut ssh = setup.run("ssh");
    ssh.args(["-T", "-D", &dynamic.to_string(), "lab", "sh"]);
    let mut ssh = ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let script = format!(
        "cd site; python3 -m http.server --bind 127.0.0.1 {server} >/dev/null 2>&1 &\n\
         echo \"==READY== $!\"\nwait\n"
    );
    ssh.stdin.as_mut().unwrap().write_all(script.as_bytes()).unwrap();
    let _ssh = Running(ssh);
    let url = format!("http://127.0.0.1:{server}/hello");
    let proxy = format!("socks5h://127.0.0.1:{dynamic}");
    let got = eventually("the editor's server", || {
        let curl = output(Command::new("curl").args(["-sS", "--fail", "-x", &proxy, &url]));
        curl.status.success().then(|| stdout(&curl))
    });
    assert_eq!(got, "hello editor\n");
}

#[test]
fn a_jump_through_the_node_to_another_sshd() {
    let setup = Setup::new("auto");
    let behind = Home::new();
    let (config, host) = (behind.path().join("sshd_config"), behind.path().join("host"));
    stdout(&output(
        Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&host),
    ));
    let port = free_port();
    let keys = setup.client.key().with_extension("pub");
    let text = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\n\
         StrictModes no\nUsePAM no\nPidFile none\n",
        host.display(),
        keys.display()
    );
    fs::write(&config, text).unwrap();
    drop(fs::create_dir_all("/run/sshd"));
    let mut sshd = Command::new("/usr/sbin/sshd");
    sshd.args(["-D", "-e", "-f"]).arg(&config).stderr(Stdio::null());
    let _sshd = Running(sshd.spawn().unwrap());
    eventually("sshd", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok());
    let mut ssh = setup.run("ssh");
    ssh.arg("-i").arg(setup.client.key());
    ssh.args(["-J", "lab", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]);
    ssh.args(["-p", &port.to_string(), &format!("{}@127.0.0.1", account()), "echo behind"]);
    assert_eq!(stdout(&output(&mut ssh)), "behind\n");
}

#[test]
fn one_connection_carries_sessions_and_forwards() {
    let setup = Setup::new("auto");
    let control = setup.here("control");
    let mut master = setup.run("ssh");
    master.args(["-M", "-N", "-S"]).arg(&control).arg("lab");
    let _master = Running(master.stdin(Stdio::null()).spawn().unwrap());
    let tell = |arguments: &[&str]| {
        let mut ssh = setup.run("ssh");
        ssh.arg("-S").arg(&control).args(arguments).arg("lab");
        output(&mut ssh)
    };
    eventually("the master", || tell(&["-O", "check"]).status.success().then_some(()));
    let echo = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let echo_port = echo.local_addr().unwrap().port();
    thread::spawn(move || {
        for socket in echo.incoming() {
            let mut socket = socket.unwrap();
            let mut back = socket.try_clone().unwrap();
            let _ = std::io::copy(&mut socket, &mut back);
        }
    });
    let local = free_port();
    stdout(&tell(&["-O", "forward", &format!("-L{local}:localhost:{echo_port}")]));
    let remote = stdout(&tell(&["-O", "forward", &format!("-R0:127.0.0.1:{echo_port}")]));
    for port in [local, remote.trim().parse().unwrap()] {
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        socket.write_all(b"over one connection").unwrap();
        let mut answer = [0; 19];
        socket.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"over one connection");
    }
    let mut ssh = setup.run("ssh");
    let said = output_with(ssh.arg("-S").arg(&control).args(["lab", "cat"]), b"and a session");
    assert_eq!(stdout(&said), "and a session");
}

/// asyncssh (PyPI), from the folder that `cargo xtask test` puts it in.
#[test]
fn asyncssh_runs_commands_and_forwards() {
    let setup = Setup::new("tls");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let python = root.join("target/xtask/python/venv/bin/python3");
    assert!(python.exists(), "asyncssh is not there: run `cargo xtask test`");
    let agent = setup.here("agent");
    let mut ssh_agent = Command::new("ssh-agent");
    ssh_agent.args(["-D", "-a"]).arg(&agent).stdout(Stdio::null());
    let _agent = Running(ssh_agent.spawn().unwrap());
    eventually("the agent", || agent.exists().then_some(()));
    let mut command = Command::new(python);
    command
        .arg(root.join("crates/alknet/tests/e2e/ssh_clients/client.py"))
        .arg(&setup.config)
        .arg(setup.client.key())
        .arg(&agent);
    setup.settle(&mut command);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let guard = Deadline::kill(child.id(), SOON);
    let output = output_of(child, SOON);
    assert!(!guard.passed());
    assert_eq!(stdout(&output), "all of it\n", "{}", text(&output));
}
