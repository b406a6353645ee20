//! Commands that are killed wherever they are leave repositories that are whole.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use super::git;
use crate::machine::Machine;

/// Runs a loop in a shell until it has printed so many lines, and kills all of it; gives all
/// that it has printed, once nothing of it is left.
fn killed_after(machine: &Machine, lines: usize, script: &str) -> Vec<String> {
    let mut shell = Command::new("/bin/sh");
    let program = env!("CARGO_BIN_EXE_alknet");
    shell.args(["-c", script, "sh", program]).env("ALKNET_HOME", machine.home());
    shell.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = shell.spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut printed: Vec<String> = said.by_ref().take(lines).map(Result::unwrap).collect();
    killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL).unwrap();
    child.wait().unwrap();
    printed.extend(said.map_while(Result::ok));
    // It ends with the last process that was killed: each has it, and writes a line or two.
    child.stderr.take().unwrap().read_to_end(&mut Vec::new()).unwrap();
    assert!(printed.len() >= lines, "{printed:?}");
    printed
}

fn names(machine: &Machine) -> Vec<String> {
    let all = machine.json(&["git", "list", "--json"]);
    let names = all.as_array().unwrap().iter();
    names.map(|one| one["name"].as_str().unwrap().to_owned()).collect()
}

/// Nothing of what was killed is left, and what is there is whole.
fn whole(machine: &Machine) {
    let work = machine.home().join("repos/.work");
    let left = work.read_dir().unwrap().map(Result::unwrap);
    assert_eq!(left.filter(|entry| entry.file_type().unwrap().is_dir()).count(), 0);
    for name in names(machine) {
        let path = machine.home().join(format!("repos/{name}.git"));
        git(&path, &["fsck", "--strict"]);
        git(&path, &["symbolic-ref", "HEAD"]);
        assert!(fs::read_to_string(path.join("alknet.toml")).unwrap().contains("description"));
    }
}

#[test]
fn what_was_made_is_whole_and_what_was_removed_is_gone() {
    let machine = Machine::new();
    machine.ok(&["git", "list"]);
    for round in 0..4 {
        let made = killed_after(
            &machine,
            2 + round,
            &format!(
                "i=0; while :; do i=$((i+1)); \
                 \"$1\" git create made/r{round}/$i >&2 && echo made/r{round}/$i; done"
            ),
        );
        let all = names(&machine);
        assert!(made.iter().all(|name| all.contains(name)), "{made:?} of {all:?}");
        whole(&machine);
    }
    for round in 0..4 {
        let gone = killed_after(
            &machine,
            1 + round,
            &format!(
                "i=0; while :; do i=$((i+1)); n=gone/r{round}/$i; \
                 \"$1\" git create $n >&2 && \"$1\" git delete $n --yes >&2 && echo $n; done"
            ),
        );
        let all = names(&machine);
        assert!(!gone.iter().any(|name| all.contains(name)), "{gone:?} of {all:?}");
        whole(&machine);
    }
}

#[test]
fn a_repository_has_one_name_and_whole_settings_at_any_moment() {
    let machine = Machine::new();
    machine.ok(&["git", "create", "a"]);
    for round in 1..5 {
        let script = "while :; do \
             \"$1\" git rename a deep/er/b >&2 || \"$1\" git rename deep/er/b a >&2; echo x; done";
        killed_after(&machine, round, script);
        let all = names(&machine);
        assert!(all == ["a"] || all == ["deep/er/b"], "{all:?}");
        whole(&machine);
    }
    let name = names(&machine).remove(0);
    for round in 1..5_usize {
        let printed = killed_after(
            &machine,
            round,
            &format!(
                "i=0; while :; do i=$((i+1)); \"$1\" git configure {name} --default-branch b$i \
                 --description \"{round} $i\" >&2 && echo \"{round} $i\"; done"
            ),
        );
        let shown = machine.json(&["git", "show", &name, "--json"]);
        let now = shown["description"].as_str().unwrap();
        let (mine, count) = now.split_once(' ').unwrap();
        assert_eq!(mine, round.to_string(), "{printed:?}");
        // The one that was killed may be done, and not said so.
        assert!(count.parse::<usize>().unwrap() >= printed.len(), "{now} {printed:?}");
        whole(&machine);
    }
}
