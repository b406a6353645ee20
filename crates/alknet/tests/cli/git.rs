//! `alknet git …` on a state folder, and beside a node.

mod crash;

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use crate::machine::Machine;

/// The real git, which reads no configuration of whoever runs the tests.
fn git(folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command.current_dir(folder).args(arguments).env("GIT_CONFIG_GLOBAL", "/dev/null");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "A").env(format!("GIT_{who}_EMAIL"), "a@b.c");
    }
    let done = command.output().unwrap();
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

/// Runs a command that needs the programs of the machine.
#[track_caller]
fn with_path(machine: &Machine, arguments: &[&str]) -> String {
    let mut command = machine.command(arguments);
    let done = command.env("PATH", std::env::var_os("PATH").unwrap()).output().unwrap();
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

#[test]
fn a_repository_is_made_described_moved_and_removed() {
    let machine = Machine::new();
    let made = machine.json(&[
        "git",
        "create",
        "team/notes",
        "--description",
        "What we know",
        "--public",
        "--default-branch",
        "trunk",
        "--json",
    ]);
    assert_eq!(made["name"], "team/notes");
    assert_eq!(made["default_branch"], "trunk");
    assert_eq!((&made["public"], &made["empty"]), (&true.into(), &true.into()));
    let path = machine.home().join("repos/team/notes.git");
    assert_eq!(git(&path, &["symbolic-ref", "HEAD"]), "refs/heads/trunk");
    let table = machine.ok(&["git", "list"]);
    assert!(table.contains("team/notes") && table.contains("everybody"), "{table}");
    let set = machine.json(&[
        "git",
        "configure",
        "team/notes",
        "--private",
        "--protect",
        "main",
        "--protect",
        "release/*",
        "--quota",
        "2GiB",
        "--no-lfs",
        "--json",
    ]);
    assert_eq!(set["protected"], serde_json::json!(["refs/heads/main", "refs/heads/release/*"]));
    assert_eq!((&set["public"], &set["quota"]), (&false.into(), &(2_u64 << 30).into()));
    assert_eq!((&set["lfs"], &set["description"]), (&false.into(), &"What we know".into()));
    let set = machine.json(&[
        "git",
        "configure",
        "team/notes",
        "--unprotect",
        "main",
        "--no-quota",
        "--json",
    ]);
    assert_eq!(set["protected"], serde_json::json!(["refs/heads/release/*"]));
    assert_eq!(set["quota"], serde_json::Value::Null);
    machine.ok(&["git", "rename", "team/notes", "notes"]);
    assert!(!machine.home().join("repos/team").exists());
    let shown = machine.ok(&["git", "show", "notes"]);
    assert!(shown.contains("What we know") && shown.contains("refs/heads/release/*"), "{shown}");
    machine.ok(&["git", "delete", "notes", "--yes"]);
    assert_eq!(machine.json(&["git", "list", "--json"]), serde_json::json!([]));
    // All of it is in the audit log.
    let log = fs::read_to_string(machine.home().join("audit.log")).unwrap();
    for event in ["git-create", "git-configure", "git-rename", "git-delete"] {
        assert!(log.contains(&format!("\"{event}\"")), "{event}: {log}");
    }
}

#[test]
fn wrong_use_is_told_from_failure() {
    let machine = Machine::new();
    for bad in ["../x", "A", "x.git", "-x", "a//b", ".work"] {
        let message = machine.fails(2, &["git", "create", "--", bad]);
        assert!(message.contains("repository"), "{bad}: {message}");
    }
    machine.ok(&["git", "create", "a"]);
    let message = machine.fails(1, &["git", "create", "a"]);
    assert!(message.contains("there already is a repository a"), "{message}");
    for verb in [&["show", "b"][..], &["rename", "b", "c"], &["delete", "b", "--yes"]] {
        let message = machine.fails(1, &[&["git"], verb].concat());
        assert!(message.contains("there is no repository b"), "{message}");
        assert!(message.contains("hint: `alknet git list`"), "{message}");
    }
    assert!(machine.fails(2, &["git", "configure", "a"]).contains("--description"));
    assert!(machine.fails(2, &["git", "configure", "a", "--protect", "x..y"]).contains("x..y"));
    let two_lines = machine.fails(2, &["git", "configure", "a", "--description", "one\ntwo"]);
    assert!(two_lines.contains("one line"), "{two_lines}");
    machine.fails(2, &["git", "configure", "a", "--default-branch", "-x"]);
    machine.fails(2, &["git", "gc"]);
    // Nobody is there to be asked: a session of its own has no terminal.
    let mut alone = Command::new("setsid");
    alone.args(["--wait", env!("CARGO_BIN_EXE_alknet"), "git", "delete", "a"]);
    let done = alone.env("ALKNET_HOME", machine.home()).output().unwrap();
    assert_eq!(done.status.code(), Some(2), "{done:?}");
    assert!(String::from_utf8(done.stderr).unwrap().contains("hint: --yes"));
    machine.ok(&["git", "show", "a"]);
}

#[test]
fn garbage_is_collected_of_one_or_of_all() {
    let machine = Machine::new();
    let work = machine.folder().join("work");
    git(machine.folder(), &["init", "-q", "-b", "main", "work"]);
    for name in ["a", "b/c"] {
        machine.ok(&["git", "create", name]);
        let path = machine.home().join(format!("repos/{name}.git"));
        git(&work, &["commit", "-q", "--allow-empty", "-m", name]);
        git(&work, &["push", "-q", path.to_str().unwrap(), "main"]);
    }
    // Git runs it at each change of a ref, unless it is told where hooks are.
    let hook = machine.home().join("repos/a.git/hooks/reference-transaction");
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    fs::write(&hook, "#!/bin/sh\n: > ran\n").unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o700)).unwrap();
    let table = with_path(&machine, &["git", "gc", "a"]);
    assert!(table.contains("BEFORE"), "{table}");
    assert!(!machine.home().join("repos/a.git/ran").exists());
    let all = with_path(&machine, &["git", "gc", "--all", "--json"]);
    let all: serde_json::Value = serde_json::from_str(&all).unwrap();
    assert_eq!((&all[0]["name"], &all[1]["name"]), (&"a".into(), &"b/c".into()));
    let path = machine.home().join("repos/b/c.git");
    git(&path, &["fsck", "--strict"]);
    let packs = path.join("objects/pack").read_dir().unwrap();
    let bitmaps = packs
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".bitmap"));
    assert_eq!(bitmaps.count(), 1);
}

#[test]
fn a_mirror_has_no_secret_and_no_way_around_the_network_policy() {
    let machine = Machine::new();
    for bad in [
        "/srv/git/a",
        "file:///srv/git/a",
        "host:a",
        "ext::sh -c id",
        "--upload-pack=id",
        "https://anna:secret@example.org/a",
        "https://token@example.org/a",
    ] {
        let message = machine.fails(2, &["git", "mirror", "copy", "--", bad]);
        assert!(!message.contains("secret"), "{message}");
    }
    assert_eq!(machine.json(&["git", "list", "--json"]), serde_json::json!([]));
    let made = machine.json(&[
        "git",
        "mirror",
        "copy",
        "https://127.0.0.1:1/a",
        "--every",
        "6h",
        "--json",
    ]);
    assert_eq!(made["mirror"]["url"], "https://127.0.0.1:1/a");
    assert_eq!(made["mirror"]["every"], 6 * 60 * 60);
    let mut command = machine.command(&["git", "mirror", "copy", "--now"]);
    let done = command.env("PATH", std::env::var_os("PATH").unwrap()).output().unwrap();
    let message = String::from_utf8(done.stderr).unwrap();
    assert!(message.contains("127.0.0.1 cannot be found, or this node fetches"), "{message}");
    let shown = machine.ok(&["git", "show", "copy"]);
    assert!(shown.contains("last error") && shown.contains("127.0.0.1"), "{shown}");
    assert!(machine.ok(&["git", "list"]).contains("failed"));
    let stopped = machine.json(&["git", "mirror", "copy", "--stop", "--json"]);
    assert_eq!(stopped["mirror"], serde_json::Value::Null);
    let message = machine.fails(1, &["git", "mirror", "copy", "--now"]);
    assert!(message.contains("copy is no mirror") || message.contains("install git"), "{message}");
}
