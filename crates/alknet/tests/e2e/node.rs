//! A node under test.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::channel,
    thread,
    time::Duration,
};

use alknet_core::NodeId;
use nix::sys::signal::Signal;
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    client::account,
    process::{Deadline, Log, SOON, eventually, output, signal, stdout},
};

/// A state folder, of a node or of a client.
pub(crate) struct Home(TempDir);

impl Home {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// The program, with this state folder and nothing of the caller's environment that
    /// would change what it does.
    pub(crate) fn alknet(&self, args: &[&str]) -> Command {
        self.program(Path::new(env!("CARGO_BIN_EXE_alknet")), args)
    }

    /// One of this crate's examples, each of which is the whole program and something more.
    pub(crate) fn example(&self, name: &str, args: &[&str]) -> Command {
        // cargo names the folder to nobody: the examples are built beside the program.
        let program = Path::new(env!("CARGO_BIN_EXE_alknet"));
        let example = program.parent().unwrap().join("examples").join(name);
        assert!(example.exists(), "not built: cargo build -p alknet --examples");
        self.program(&example, args)
    }

    fn program(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).env("ALKNET_HOME", self.path()).env_remove("ALKNET_LOG");
        command
    }

    /// This folder's own key, as `alknet id` prints it.
    pub(crate) fn id(&self) -> String {
        stdout(&output(&mut self.alknet(&["id"]))).trim().to_owned()
    }

    /// The audit log so far.
    pub(crate) fn audit(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path().join("audit.log")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits until an entry of the audit log fits.
    #[track_caller]
    pub(crate) fn audited(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("{what} in the audit log"), || {
            self.audit().into_iter().find(|event| fits(event))
        })
    }
}

/// What `alknet serve --json` prints.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Banner {
    pub(crate) node: String,
    pub(crate) listen: SocketAddr,
    pub(crate) sign_in: Vec<String>,
    pub(crate) ssh: String,
}

/// A running node. It is stopped when it is dropped, and what it logged is shown if that
/// happens in a failing test.
pub(crate) struct Node {
    child: Child,
    banner: Banner,
    log: Log,
    audit: PathBuf,
}

impl Node {
    /// `alknet serve` on a free port, with further arguments, when it is ready.
    #[track_caller]
    pub(crate) fn start(home: &Home, args: &[&str]) -> Self {
        Self::start_at(home, "127.0.0.1:0", args)
    }

    /// `alknet serve` on an address.
    #[track_caller]
    pub(crate) fn start_at(home: &Home, listen: &str, args: &[&str]) -> Self {
        let drain: &[&str] = if args.contains(&"--drain") { &[] } else { &["--drain", "1"] };
        let mut serve = home.alknet(&["serve", "--listen", listen, "--json"]);
        serve.args(drain).args(args);
        Self::run(home, serve)
    }

    /// The same of one of this crate's examples.
    #[track_caller]
    pub(crate) fn start_example(home: &Home, name: &str) -> Self {
        const SERVE: [&str; 6] = ["serve", "--listen", "127.0.0.1:0", "--json", "--drain", "1"];
        Self::run(home, home.example(name, &SERVE))
    }

    /// A command that serves this state folder and prints how to reach it as JSON. Run by
    /// root it lets everybody use the account that the tests are about.
    #[track_caller]
    pub(crate) fn run(home: &Home, mut serve: Command) -> Self {
        serve.arg("--account").arg(format!("*={}", account()));
        Self::run_unmapped(home, serve)
    }

    /// The same with the accounts that the command itself says.
    #[track_caller]
    pub(crate) fn run_unmapped(home: &Home, mut serve: Command) -> Self {
        let log = Log::new();
        let mut child = serve
            .envs(account_of(home.path()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.end())
            .spawn()
            .unwrap();
        let (send, line) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| send.send(line))
        });
        let Ok(line) = line.recv_timeout(SOON) else {
            let _ = child.kill();
            panic!("the node did not start: {}", log.text());
        };
        let banner = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        Self { child, banner, log, audit: home.path().join("audit.log") }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.banner.listen
    }

    pub(crate) fn port(&self) -> String {
        self.banner.listen.port().to_string()
    }

    pub(crate) fn banner(&self) -> &Banner {
        &self.banner
    }

    pub(crate) fn id(&self) -> NodeId {
        self.banner.node.parse().unwrap()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Memory that is resident now, in bytes.
    pub(crate) fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    pub(crate) fn log(&self) -> String {
        self.log.text()
    }

    pub(crate) fn signal(&self, it: Signal) {
        signal(self.pid(), it);
    }

    /// Waits for the end.
    #[track_caller]
    pub(crate) fn wait(&mut self, limit: Duration) -> ExitStatus {
        let guard = Deadline::kill(self.pid(), limit);
        let status = self.child.wait().unwrap();
        assert!(!guard.passed(), "the node did not end in {limit:?}");
        status
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // An end that clients hear of: left behind, they would wait for their timeout.
            self.signal(Signal::SIGTERM);
            let guard = Deadline::kill(self.pid(), SOON);
            let _ = self.child.wait();
            guard.passed();
        }
        if thread::panicking() {
            let audit = fs::read_to_string(&self.audit).unwrap_or_default();
            eprintln!("the node's log:\n{}\nand its audit log:\n{audit}", self.log());
        }
    }
}

/// Gives the node's account a home folder of its own and a shell that reads no files of
/// the user's (libnss-wrapper, a stand-in for the account database).
fn account_of(home: &Path) -> [(&'static str, PathBuf); 3] {
    let (passwd, folder) = (home.join("passwd"), home.join("account"));
    fs::create_dir_all(&folder).unwrap();
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    let line = format!("{}:x:{uid}:{gid}::{}:/bin/sh\n", account(), folder.display());
    fs::write(&passwd, line).unwrap();
    [
        ("LD_PRELOAD", "libnss_wrapper.so".into()),
        ("NSS_WRAPPER_PASSWD", passwd),
        ("NSS_WRAPPER_GROUP", "/etc/group".into()),
    ]
}
