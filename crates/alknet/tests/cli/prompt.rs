//! Typing a secret at a terminal.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::{Child, Stdio},
};

use nix::{
    pty::{OpenptyResult, openpty},
    sys::{
        signal::{Signal, kill},
        termios::{LocalFlags, tcgetattr},
    },
    unistd::Pid,
};

use crate::machine::Machine;

/// `alknet login` at a terminal that has shown its prompt, and that terminal.
fn prompted(machine: &Machine) -> (Child, OpenptyResult) {
    let id = machine.ok(&["id"]);
    let terminal = openpty(None, None).unwrap();
    let mut command = machine.command(&["login", "node.example", "--pin", &id]);
    command.stdin(terminal.slave.try_clone().unwrap()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut prompt = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut prompt).unwrap();
    assert_eq!(prompt, "token for node.example:\n");
    (child, terminal)
}

fn shows_typing(terminal: &OpenptyResult) -> bool {
    tcgetattr(&terminal.slave).unwrap().local_flags.contains(LocalFlags::ECHO)
}

#[test]
fn a_typed_token_is_not_shown() {
    let machine = Machine::new();
    let token = machine.ok(&["token", "create"]);
    let (mut child, terminal) = prompted(&machine);
    assert!(!shows_typing(&terminal));
    let mut screen = File::from(terminal.master.try_clone().unwrap());
    screen.write_all(format!("{token}\n").as_bytes()).unwrap();
    child.wait().unwrap();
    assert!(shows_typing(&terminal));
    drop(terminal);
    let mut shown = Vec::new();
    // A terminal whose other end is closed ends with an error, after what it has shown.
    let _ = screen.read_to_end(&mut shown);
    assert_eq!(shown, b"\r\n");
    let saved = std::fs::read_to_string(machine.home().join("credentials")).unwrap();
    assert!(saved.contains(&token));
}

#[test]
fn an_interrupt_leaves_the_terminal_as_it_was() {
    let machine = Machine::new();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let (mut child, terminal) = prompted(&machine);
        kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(1), "{signal}");
        assert!(shows_typing(&terminal), "{signal}");
        assert!(!machine.home().join("credentials").exists());
    }
}
