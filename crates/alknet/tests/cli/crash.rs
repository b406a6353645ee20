//! What was printed survives `kill -9`.

use std::{
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
    thread,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::machine::Machine;

/// Two loops make tokens at the same time. After some have been printed, everything is
/// killed, wherever it is at that moment; then the database opens, and all that were
/// printed are in it.
#[test]
fn tokens_survive_a_kill() {
    let machine = Machine::new();
    machine.ok(&["id"]);
    let mut printed = Vec::new();
    for round in 1..=8 {
        let loops: Vec<_> = (0..2).map(|_| Loop::start(&machine, CREATE)).collect();
        let readers: Vec<_> =
            loops.into_iter().map(|each| thread::spawn(move || each.read(round))).collect();
        for reader in readers {
            printed.extend(reader.join().unwrap());
        }
        let listed = machine.json(&["token", "list", "--json"]);
        let listed: Vec<_> =
            listed.as_array().unwrap().iter().map(|token| token["id"].clone()).collect();
        assert!(printed.len() >= 2 * round, "{printed:?}");
        for id in &printed {
            assert!(listed.contains(id), "round {round}: {id} is lost of {printed:?}");
        }
    }
}

/// Tokens are made and revoked, and everything is killed: one that was said to be revoked
/// is gone for good.
#[test]
fn revocations_survive_a_kill() {
    let machine = Machine::new();
    machine.ok(&["id"]);
    let mut revoked = Vec::new();
    for round in 1..=4 {
        revoked.extend(Loop::start(&machine, REVOKE).read(round));
        let listed = machine.json(&["token", "list", "--json"]);
        let all = machine.json(&["token", "list", "--all", "--json"]);
        let has = |list: &serde_json::Value, id: &serde_json::Value| {
            list.as_array().unwrap().iter().any(|token| token["id"] == *id)
        };
        assert!(revoked.len() >= round, "{revoked:?}");
        for id in &revoked {
            assert!(!has(&listed, id), "round {round}: {id} is back of {revoked:?}");
            assert!(has(&all, id), "round {round}: {id} is forgotten of {revoked:?}");
        }
    }
}

/// One token after the other, each on a line.
const CREATE: &str = "\"$1\" token create --json | tr -d '\\n'; echo";
/// The same, where the line comes after the token was revoked.
const REVOKE: &str = "made=$(\"$1\" token create --json | tr -d '\\n'); \
    id=$(echo \"$made\" | sed 's/.*\"id\": *\"\\([0-9a-f]*\\)\".*/\\1/'); \
    \"$1\" token revoke \"$id\" && echo \"$made\"";

/// A shell that does the same again and again, as the leader of a process group.
struct Loop(std::process::Child);

impl Loop {
    fn start(machine: &Machine, each: &str) -> Self {
        let script = format!("while :; do {each}; done");
        let mut shell = Command::new("/bin/sh");
        let program = env!("CARGO_BIN_EXE_alknet");
        shell.args(["-c", &script, "sh", program]).env("ALKNET_HOME", machine.home());
        shell.stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        Self(shell.spawn().unwrap())
    }

    /// The ids of the tokens that were printed whole until the group was killed, `count`
    /// and what came after them.
    fn read(mut self, count: usize) -> Vec<serde_json::Value> {
        let mut lines = BufReader::new(self.0.stdout.take().unwrap()).lines();
        let mut ids = Vec::new();
        let mut killed = false;
        while let Some(Ok(line)) = lines.next() {
            let Ok(token) = serde_json::from_str::<serde_json::Value>(&line) else { continue };
            ids.push(token["id"].clone());
            if ids.len() == count && !killed {
                self.kill();
                killed = true;
            }
        }
        ids
    }

    fn kill(&mut self) {
        killpg(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGKILL).unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // Once waited for, the number may be another process's.
        if matches!(self.0.try_wait(), Ok(None)) {
            self.kill();
        }
    }
}
