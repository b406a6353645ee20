//! A vault that is sealed with a passphrase: what opens it, and for how long.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    time::{Duration, Instant},
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
    succeeds(&machine, &["vault", "unlock", "--for", "1s", "--passphrase-file", text(&file)], "");
    let start = Instant::now();
    while without_terminal(&machine, &["id"], "").code == Some(0) {
        assert!(start.elapsed() < Duration::from_secs(60));
    }
    assert!(start.elapsed() >= Duration::from_millis(500));
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

#[test]
fn status_of_a_locked_vault_asks_nobody() {
    let (machine, _) = sealed_with_passphrase();
    assert!(succeeds(&machine, &["status"], "").contains("the vault is locked"));
}
