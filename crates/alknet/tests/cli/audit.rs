//! The audit log, as a user reads and checks it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::machine::Machine;

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ laptop";
const FINGERPRINT: &str = "SHA256:T7SvZ2cslqpPj6nKzitCBHHlpVF3r3MvLwmFL0fk0IE";
/// Enough for anything here on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A process whose lines are read as they come; killed with the value.
struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = channel();
        thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| send.send(line))
        });
        Self { child, lines }
    }

    fn node(machine: &Machine) -> Self {
        let node = Self::start(machine.command(&["serve", "--listen", "127.0.0.1:0", "--json"]));
        node.line();
        node
    }

    #[track_caller]
    fn line(&self) -> String {
        self.lines.recv_timeout(LIMIT).unwrap()
    }

    #[track_caller]
    fn ends_on(&mut self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The entries as `alknet audit tail` gives them.
fn entries(machine: &Machine) -> Vec<Value> {
    let lines = machine.ok(&["audit", "tail", "-n", "1000000", "--json"]);
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn verified(machine: &Machine) -> Value {
    let report = machine.json(&["audit", "verify", "--json"]);
    assert_eq!(report["ok"], true, "{report}");
    report
}

#[test]
fn changes_on_the_command_line_stand_in_the_log() {
    let machine = Machine::new();
    assert_eq!(verified(&machine)["entries"], 0);
    machine.ok(&["peer", "add", "alice", "--key", KEY, "--scope", "ssh"]);
    machine.ok(&["peer", "add", "alice", "--key", KEY]);
    machine.ok(&["peer", "add", "alice", "--scope", "git,ssh"]);
    let token = machine.json(&["token", "create", "--name", "ci", "--peer", "alice", "--json"]);
    let id = token["id"].as_str().unwrap();
    machine.ok(&["token", "revoke", id]);
    machine.ok(&["peer", "remove", "alice", "--key", KEY]);
    machine.ok(&["peer", "remove", "alice"]);
    machine.fails(1, &["peer", "remove", "alice"]);
    let entries = entries(&machine);
    let names: Vec<_> = entries.iter().map(|entry| entry["event"].as_str().unwrap()).collect();
    let expected = [
        "log-started",
        "peer-added",
        "key-added",
        "peer-changed",
        "token-created",
        "token-revoked",
        "key-removed",
        "peer-removed",
    ];
    assert_eq!(names, expected);
    let alice = &entries[1]["subject"];
    for i in [1, 2, 3, 6, 7] {
        assert_eq!((&entries[i]["name"], &entries[i]["subject"]), (&"alice".into(), alice));
        assert_eq!(entries[i]["transport"], "local");
    }
    assert_eq!((&entries[1]["scopes"], &entries[3]["scopes"]), (&"ssh".into(), &"git,ssh".into()));
    assert_eq!(
        (&entries[2]["key"], &entries[6]["key"]),
        (&FINGERPRINT.into(), &FINGERPRINT.into())
    );
    for entry in &entries[4..6] {
        assert_eq!((&entry["subject"], &entry["name"]), (&id.into(), &"ci".into()));
        assert_eq!(entry["identity"], "alice");
    }
    let log = fs::read_to_string(machine.home().join("audit.log")).unwrap();
    assert!(!log.contains(token["token"].as_str().unwrap()));
    assert_eq!(verified(&machine)["entries"], entries.len());
}

#[test]
fn a_broken_chain_is_an_error_with_its_place() {
    let machine = Machine::new();
    for name in ["alice", "bob", "carol", "dave"] {
        machine.ok(&["peer", "add", name, "--scope", "ssh"]);
    }
    let text = machine.ok(&["audit", "verify"]);
    let head = text.lines().find_map(|line| line.strip_prefix("head      ")).unwrap().to_owned();
    assert!(head.starts_with("5:") && head.len() == 66, "{text}");
    assert!(text.contains("entries   5 in 1 files"), "{text}");
    machine.ok(&["audit", "verify", "--expect", &head]);

    let path = machine.home().join("audit.log");
    let log = fs::read_to_string(&path).unwrap();
    fs::write(&path, log.replace("bob", "eve")).unwrap();
    let done = machine.run(&["audit", "verify"]);
    assert_eq!(done.code, Some(1));
    assert!(done.stderr.contains("audit.log, line 3: the line was changed"), "{done:?}");
    let done = machine.run(&["audit", "verify", "--json"]);
    assert_eq!(done.code, Some(1));
    let report: Value = serde_json::from_str(&done.stdout).unwrap();
    let fault = &report["fault"];
    assert_eq!((&report["ok"], &fault["problem"]), (&false.into(), &"changed".into()), "{report}");
    assert_eq!((&fault["file"], &fault["line"]), (&"audit.log".into(), &3.into()));
    assert_eq!(report["head"], Value::Null, "nobody is to note it");

    // The last entry alone can be taken back without a trace in the chain.
    let kept: String = log.split_inclusive('\n').take(4).collect();
    fs::write(&path, kept).unwrap();
    machine.ok(&["audit", "verify"]);
    let done = machine.run(&["audit", "verify", "--expect", &head]);
    assert_eq!(done.code, Some(1));
    assert!(done.stderr.contains("the log ends before entry 5"), "{done:?}");
    machine.fails(2, &["audit", "verify", "--expect", "4"]);
}

#[test]
fn the_tail_is_made_for_people() {
    let machine = Machine::new();
    machine.ok(&["peer", "add", "alice", "--key", KEY, "--scope", "ssh"]);
    let shown = machine.ok(&["audit", "tail", "-n", "1"]);
    assert!(shown.contains(" key-added ") && shown.contains(" alice "), "{shown}");
    assert!(shown.contains(FINGERPRINT) && !shown.contains('{'), "{shown}");
    assert_eq!(machine.ok(&["audit", "tail"]).lines().count(), 3);
    assert_eq!(machine.ok(&["audit", "tail", "-n", "0"]), "");
}

/// Commands change things while a node runs, and all stands in one chain, which the tail
/// follows from file to file.
#[test]
fn commands_beside_a_node_keep_one_chain() {
    let machine = Machine::new();
    machine.ok(&["id"]);
    let config = "[audit]\nmax_size = \"4KiB\"\nkeep = 1000\n";
    fs::write(machine.home().join("alknet.toml"), config).unwrap();
    let mut node = Running::node(&machine);
    let mut tail = Running::start(machine.command(&["audit", "tail", "--follow", "--json"]));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| (0..8).for_each(|_| drop(machine.ok(&["token", "create"]))));
        }
        scope.spawn(|| {
            let address =
                machine.json(&["status", "--json"])["address"].as_str().unwrap().to_owned();
            (0..60).for_each(|_| refused(&address));
        });
    });
    node.ends_on(Signal::SIGTERM);
    let report = verified(&machine);
    let last = report["last"]["seq"].as_u64().unwrap();
    assert!(report["files"].as_u64().unwrap() > 1, "{report}");
    let all = entries(&machine);
    let count = |name| all.iter().filter(|entry| entry["event"] == name).count();
    assert_eq!(count("token-created"), 24);
    assert!(count("refused") + count("session-start") >= 60, "{report}");
    let mut seen = Vec::new();
    while seen.last() != Some(&last) {
        let line: Value = serde_json::from_str(&tail.line()).unwrap();
        seen.push(line["seq"].as_u64().unwrap());
    }
    assert!(seen.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{seen:?}");
    tail.ends_on(Signal::SIGINT);
}

/// Something that the node puts into its log: an HTTPS connection.
fn refused(address: &str) {
    let mut curl = Command::new("curl");
    curl.args(["-sk", "--max-time", "20", "-o", "/dev/null"]);
    assert!(curl.arg(format!("https://{address}/alknet/none")).status().unwrap().success());
}

/// Nobody reads what it prints any more, and nothing is printed that would tell it.
#[test]
fn following_ends_with_its_reader() {
    let machine = Machine::new();
    machine.ok(&["peer", "add", "alice", "--scope", "ssh"]);
    let mut command = machine.command(&["audit", "tail", "--follow"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 8]).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}

/// A node and commands write, and are killed at whatever they are doing.
#[test]
fn the_chain_survives_kills() {
    let machine = Machine::new();
    machine.ok(&["id"]);
    let config = "[audit]\nmax_size = \"2KiB\"\nkeep = 1000\n";
    fs::write(machine.home().join("alknet.toml"), config).unwrap();
    let mut entries = 0;
    for round in 0..6 {
        let mut node = Running::node(&machine);
        let address = machine.json(&["status", "--json"])["address"].as_str().unwrap().to_owned();
        let commands: Vec<_> =
            (0..2).map(|_| Running::start(machine.command(&["token", "create"]))).collect();
        (0..round).for_each(|_| refused(&address));
        node.child.kill().unwrap();
        node.child.wait().unwrap();
        drop(commands);
        let report = verified(&machine);
        let now = report["entries"].as_u64().unwrap();
        assert!(now >= entries, "{report}");
        entries = now;
    }
    drop(Running::node(&machine));
    assert_eq!(verified(&machine)["torn_bytes"], 0);
}
