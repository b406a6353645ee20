//! `kill -9` at any moment loses nothing.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::machine::Machine;

/// Runs a command over and over and kills it some time after it has been done once; the
/// moment falls anywhere in a run.
fn killed(machine: &Machine, script: &str, moment: Duration) {
    let script = script.replace("alknet", env!("CARGO_BIN_EXE_alknet"));
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &format!("while :; do {script} || exit; echo done; done")]);
    shell.env("ALKNET_HOME", machine.home()).current_dir(machine.folder());
    shell.stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
    let mut shell = shell.spawn().unwrap();
    let mut lines = BufReader::new(shell.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "done");
    thread::sleep(moment);
    killpg(Pid::from_raw(shell.id().cast_signed()), Signal::SIGKILL).unwrap();
    shell.wait().unwrap();
}

fn moments() -> impl Iterator<Item = Duration> {
    (0..12).map(|step| Duration::from_millis(step * 9))
}

#[test]
fn a_change_of_the_seal_loses_no_key() {
    let machine = Machine::new();
    let id = machine.ok(&["id"]);
    for moment in moments() {
        killed(&machine, "alknet vault change-passphrase --seal key-file", moment);
        assert_eq!(machine.ok(&["id"]), id);
    }
    machine.ok(&["vault", "change-passphrase", "--seal", "key-file"]);
    assert_eq!(machine.ok(&["id"]), id);
    assert!(!machine.home().join("vault.key.next").exists());
}

#[test]
fn a_rotation_leaves_every_file_readable() {
    let machine = Machine::new();
    let id = machine.ok(&["id"]);
    let names = ["one", "two", "three"];
    for name in names {
        let done = machine.run_with_input(&["vault", "encrypt", "--text"], name);
        fs::write(machine.folder().join(name), done.stdout).unwrap();
    }
    for moment in moments() {
        killed(&machine, "alknet vault rotate one two three", moment);
        for name in names {
            let content = fs::read_to_string(machine.folder().join(name)).unwrap();
            let done = machine.run_with_input(&["vault", "decrypt"], &content);
            assert_eq!((done.code, done.stdout.as_str()), (Some(0), name), "{done:?}");
        }
        assert_eq!(machine.ok(&["id"]), id);
    }
}

#[test]
fn a_first_start_that_is_cut_off_is_made_up_for() {
    for step in 0..12 {
        let machine = Machine::new();
        let mut first = machine.command(&["id"]);
        let mut first = first.stdout(Stdio::piped()).spawn().unwrap();
        thread::sleep(Duration::from_millis(step * 5));
        first.kill().unwrap();
        let printed: crate::machine::Done = first.wait_with_output().unwrap().into();
        let id = machine.ok(&["id"]);
        assert_eq!(machine.ok(&["id"]), id);
        assert!(printed.stdout.is_empty() || printed.stdout.trim_end() == id, "{printed:?}");
    }
}
