//! The recovery phrase: shown once, and what it brings back.

use std::fs;

use super::{
    ID, PHRASE, passphrase, refused, succeeds, terminal::Terminal, text, without_terminal,
};
use crate::machine::Machine;

/// Shows the phrase at a terminal and confirms; the words, and the id that was printed.
fn shown(machine: &Machine, args: &[&str]) -> (Vec<String>, String) {
    let mut terminal = Terminal::run(&machine.command(args));
    let screen = terminal.expect("Press Enter").to_owned();
    terminal.type_line("");
    let (code, stdout, all) = terminal.end();
    assert_eq!(code, Some(0), "{all}");
    let mut words = screen.split_whitespace().skip_while(|word| *word != "1.").peekable();
    let mut phrase = Vec::new();
    while words.next_if_eq(&format!("{}.", phrase.len() + 1).as_str()).is_some() {
        phrase.push(words.next().unwrap().to_owned());
    }
    for word in stdout.split_whitespace() {
        assert!(!phrase.contains(&word.to_owned()), "{stdout}");
    }
    (phrase, stdout.trim_end().to_owned())
}

#[test]
fn a_phrase_is_shown_once_and_brings_node_and_host_key_back() {
    let machine = Machine::new();
    let (phrase, id) = shown(&machine, &["vault", "init", "--words", "24", "--seal", "key-file"]);
    assert_eq!(phrase.len(), 24, "{phrase:?}");
    assert_eq!(succeeds(&machine, &["id"], ""), id);
    let mut again = Terminal::run(&machine.command(&["vault", "init"]));
    again.expect("has been shown");
    let (code, _, screen) = again.end();
    assert_eq!(code, Some(1));
    assert!(!screen.contains("1. "), "{screen}");

    let host = ["vault", "show-path", "ssh-host"];
    let other = Machine::new();
    let import = ["vault", "import", "--seal", "key-file"];
    assert_eq!(succeeds(&other, &import, &phrase.join("\n")), id);
    assert_eq!(succeeds(&other, &host, ""), succeeds(&machine, &host, ""));
    assert_eq!(succeeds(&other, &["id"], ""), id);
}

#[test]
fn the_phrase_of_an_unattended_vault_can_still_be_written_down() {
    let machine = Machine::new();
    let id = succeeds(&machine, &["id"], "");
    let (phrase, printed) = shown(&machine, &["vault", "init"]);
    assert_eq!((phrase.len(), printed), (12, id.clone()));
    let other = Machine::new();
    let import = ["vault", "import", "--seal", "key-file"];
    assert_eq!(succeeds(&other, &import, &phrase.join(" ")), id);
}

#[test]
fn an_unconfirmed_phrase_is_not_lost() {
    let machine = Machine::new();
    let init = ["vault", "init", "--seal", "key-file"];
    let mut terminal = Terminal::run(&machine.command(&init));
    terminal.expect("Press Enter");
    // ^D: the end of input.
    terminal.type_line("\u{4}");
    assert_eq!(terminal.end().0, Some(1));
    let mut terminal = Terminal::run(&machine.command(&["vault", "init"]));
    let screen = terminal.expect("Press Enter").to_owned();
    assert!(screen.contains("12. "), "{screen}");
    terminal.type_line("\u{4}");
    assert_eq!(terminal.end().0, Some(1));
}

#[test]
fn without_a_terminal_no_phrase_is_shown_and_no_vault_is_made() {
    let machine = Machine::new();
    let done = without_terminal(&machine, &["vault", "init", "--seal", "key-file"], "");
    assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""), "{done:?}");
    assert!(done.stderr.contains("terminal"), "{done:?}");
    assert!(!machine.home().join("vault").exists());
}

#[test]
fn a_phrase_is_typed_without_being_shown() {
    let machine = Machine::new();
    let mut terminal = Terminal::run(&machine.command(&["vault", "import", "--seal", "key-file"]));
    terminal.expect("recovery phrase");
    terminal.type_line(PHRASE);
    let (code, stdout, screen) = terminal.end();
    assert_eq!((code, stdout.trim_end()), (Some(0), ID), "{screen}");
    assert!(!screen.contains("abandon"), "{screen}");
}

#[test]
fn a_wrong_phrase_makes_nothing_and_is_not_repeated() {
    let machine = Machine::new();
    for (phrase, words) in [
        ("planted words", "12, 15, 18, 21 or 24 words"),
        (&PHRASE.replace("about", "planted"), "word 12"),
        (&PHRASE.replace("about", "abandon"), "checksum"),
        (&"abandon ".repeat(10_000), "words"),
    ] {
        let done = without_terminal(&machine, &["vault", "import", "--seal", "key-file"], phrase);
        assert_eq!(done.code, Some(1), "{done:?}");
        assert!(done.stderr.contains(words) && !done.stderr.contains("planted"), "{done:?}");
    }
    assert!(!machine.home().join("vault").exists());
}

#[test]
fn a_passphrase_beside_the_phrase_is_another_vault() {
    let machine = Machine::new();
    let extra = passphrase(&machine, "beside");
    let import =
        ["vault", "import", "--seal", "key-file", "--phrase-passphrase-file", text(&extra)];
    assert_ne!(succeeds(&machine, &import, PHRASE), ID);
}

#[test]
fn an_import_never_replaces_a_vault() {
    let machine = Machine::new();
    succeeds(&machine, &["id"], "");
    let before = fs::read(machine.home().join("vault")).unwrap();
    refused(&machine, &["vault", "import", "--seal", "key-file"], "there is a vault already");
    assert_eq!(fs::read(machine.home().join("vault")).unwrap(), before);
}
