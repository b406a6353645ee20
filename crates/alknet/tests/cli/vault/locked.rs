//! A vault that is sealed with a passphrase: what opens it, and for how long.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    ID, passphrase, refused, sealed_with_passphrase, succeeds, terminal::Terminal, text,
    without_terminal,
};

#[test]
fn unlocked_for_a_time_and_locked_again() {
    let (machine, file) = sealed_with_passphrase();
    refused(&machine, &["id"], "hint: alknet vault unlock");
    let wrong = passphrase(&machine, "wrong");
    refused(&machine, &["vault", "unlock", "--passphrase-file", text(&wrong)], "does not open");
    let unlock = ["vault", "unlock", "--for", "1h", "--passphrase-file", text(&file)];
    succeeds(&machine, &unlock, "");
    assert_eq!(succeeds(&machine, &["id"], ""), ID);
    // Once more: the new agent takes the place of the first.
    succeeds(&machine, &unlock, "");
    assert_eq!(succeeds(&machine, &["id"], ""), ID);
    let socket = machine.home().join("run/vault.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    succeeds(&machine, &["vault", "lock"], "");
    assert!(!socket.exists());
    refused(&machine, &["id"], "the vault is locked");
    succeeds(&machine, &["vault", "lock"], "");
}

#[test]
fn the_time_ends_by_itself() {
    let (machine, file) = sealed_with_passphrase();
    // The agent's time begins somewhere within the command.
    let start = Instant::now();
    succeeds(&machine, &["vault", "unlock", "--for", "3s", "--passphrase-file", text(&file)], "");
    while without_terminal(&machine, &["id"], "").code == Some(0) {
        assert!(start.elapsed() < Duration::from_secs(60));
    }
    assert!(start.elapsed() >= Duration::from_secs(3));
    machine.fails(2, &["vault", "unlock", "--for", "0s"]);
    machine.fails(2, &["vault", "unlock", "--for", "8d"]);
}

/// Whoever holds connections open or talks nonsense keeps nobody else from the key, and
/// learns nothing.
#[test]
fn the_agent_survives_whoever_talks_to_it() {
    let (machine, file) = sealed_with_passphrase();
    succeeds(&machine, &["vault", "unlock", "--passphrase-file", text(&file)], "");
    let socket = machine.home().join("run/vault.sock");
    let silent: Vec<_> = (0..8).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    for nonsense in [&b"x"[..], b"\0", &[b'q'; 100_000]] {
        let mut stream = UnixStream::connect(&socket).unwrap();
        // It hangs up after the first byte.
        let _ = stream.write_all(nonsense);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert_eq!(answer, b"");
    }
    assert_eq!(succeeds(&machine, &["id"], ""), ID);
    drop(silent);
    succeeds(&machine, &["vault", "lock"], "");
}

#[test]
fn an_agent_that_was_killed_is_replaced() {
    let (machine, file) = sealed_with_passphrase();
    // What a killed one leaves.
    drop(std::os::unix::net::UnixListener::bind(machine.home().join("run/vault.sock")).unwrap());
    refused(&machine, &["id"], "the vault is locked");
    succeeds(&machine, &["vault", "unlock", "--passphrase-file", text(&file)], "");
    assert_eq!(succeeds(&machine, &["id"], ""), ID);
    succeeds(&machine, &["vault", "lock"], "");
}

#[test]
fn the_passphrase_is_asked_for_and_not_shown() {
    let (machine, _) = sealed_with_passphrase();
    let mut terminal = Terminal::run(&machine.command(&["id"]));
    terminal.expect("passphrase of the vault:");
    terminal.type_line("mistyped");
    terminal.expect("that does not open the vault");
    // What is typed before the prompt is thrown away.
    terminal.expect("passphrase of the vault:");
    terminal.type_line("correct horse");
    let (code, stdout, screen) = terminal.end();
    assert_eq!((code, stdout.trim_end()), (Some(0), ID), "{screen}");
    assert!(!screen.contains("horse") && !screen.contains("mistyped"), "{screen}");
}

#[test]
fn a_changed_passphrase_takes_over() {
    let (machine, old) = sealed_with_passphrase();
    succeeds(&machine, &["vault", "unlock", "--passphrase-file", text(&old)], "");
    let new = passphrase(&machine, "the next one");
    let change =
        ["vault", "change-passphrase", "--new-passphrase-file", text(&new), "--passphrase-file"];
    succeeds(&machine, &[&change[..], &[text(&old)]].concat(), "");
    refused(&machine, &["id"], "the vault is locked");
    refused(&machine, &[&change[..], &[text(&old)]].concat(), "does not open");
    let path = ["vault", "show-path", "identity", "--passphrase-file", text(&new)];
    assert!(succeeds(&machine, &path, "").contains(ID));
}

/// More connections than it serves at once: they come to their deadline before who locks it.
#[test]
fn a_busy_agent_is_locked_all_the_same() {
    let (machine, file) = sealed_with_passphrase();
    succeeds(&machine, &["vault", "unlock", "--passphrase-file", text(&file)], "");
    let socket = machine.home().join("run/vault.sock");
    let silent: Vec<_> = (0..20).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    let done = without_terminal(&machine, &["vault", "lock"], "");
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), "locked\n"));
    assert!(!socket.exists());
    drop(silent);
}

#[test]
fn a_folder_with_a_long_name_has_an_agent_as_well() {
    let (machine, file) = sealed_with_passphrase();
    let long = machine.folder().join("n".repeat(120));
    fs::rename(machine.home(), &long).unwrap();
    let at = |args: &[&str]| succeeds(&machine, &[&["--home", text(&long)], args].concat(), "");
    at(&["vault", "unlock", "--passphrase-file", text(&file)]);
    assert_eq!(at(&["id"]), ID);
    at(&["vault", "lock"]);
    assert!(!long.join("run/vault.sock").exists());
}

/// What the caller had open is closed when the caller is gone, not when the agent is.
#[test]
fn the_agent_keeps_nothing_of_its_callers_open() {
    let (machine, file) = sealed_with_passphrase();
    let lock = machine.folder().join("lock");
    let script = format!(
        "exec 9>{} && flock 9 && exec {} vault unlock --passphrase-file {}",
        text(&lock),
        env!("CARGO_BIN_EXE_alknet"),
        text(&file),
    );
    let mut shell = std::process::Command::new("/bin/sh");
    let done = shell.args(["-c", &script]).env("ALKNET_HOME", machine.home()).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    assert_eq!(succeeds(&machine, &["id"], ""), ID);
    fs::File::open(&lock).unwrap().try_lock().unwrap();
    succeeds(&machine, &["vault", "lock"], "");
}

#[test]
fn a_passphrase_that_is_missing_or_too_long_is_named() {
    let (machine, _) = sealed_with_passphrase();
    let unlock = ["vault", "unlock", "--passphrase-file"];
    let missing = machine.folder().join("missing");
    refused(&machine, &[&unlock[..], &[text(&missing)]].concat(), "the passphrase cannot be read");
    let long = passphrase(&machine, &"x".repeat(5000));
    refused(&machine, &[&unlock[..], &[text(&long)]].concat(), "the line is too long");
}

/// A node that waits for its passphrase ends when it is told to.
#[test]
fn a_signal_ends_a_node_at_its_prompt() {
    for signal in [Signal::SIGTERM, Signal::SIGHUP] {
        let (machine, _) = sealed_with_passphrase();
        let mut terminal = Terminal::run(&machine.command(&["serve", "--listen", "127.0.0.1:0"]));
        terminal.expect("passphrase of the vault:");
        let pid = fs::read_to_string(machine.home().join("run/lock")).unwrap();
        kill(Pid::from_raw(pid.trim().parse().unwrap()), signal).unwrap();
        let (code, _, screen) = terminal.end();
        assert_eq!(code, Some(1), "{screen}");
        assert!(screen.contains("interrupted"), "{screen}");
    }
}
