//! `alknet status` makes nothing, asks nobody and fails for no vault.

use std::fs;

use super::{ID, sealed_with_passphrase, succeeds, terminal::Terminal, text};
use crate::machine::Machine;

/// What it says of the node.
#[track_caller]
fn node(machine: &Machine) -> String {
    let status = succeeds(machine, &["status", "--json"], "");
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    status["node"].as_str().unwrap().to_owned()
}

#[test]
fn it_makes_no_vault() {
    let machine = Machine::new();
    assert_eq!(node(&machine), "unknown: there is no vault yet");
    assert!(!machine.home().join("vault").exists() && !machine.home().join("vault.key").exists());
}

#[test]
fn it_asks_nobody_for_a_passphrase() {
    let (machine, file) = sealed_with_passphrase();
    let terminal = Terminal::run(&machine.command(&["status"]));
    let (code, stdout, screen) = terminal.end();
    assert_eq!((code, screen.as_str()), (Some(0), ""));
    assert!(stdout.contains("unknown: the vault is locked"), "{stdout}");
    succeeds(&machine, &["vault", "unlock", "--passphrase-file", text(&file)], "");
    assert_eq!(node(&machine), ID);
    succeeds(&machine, &["vault", "lock"], "");
}

#[test]
fn it_says_why_a_vault_does_not_open() {
    let machine = Machine::new();
    succeeds(&machine, &["id"], "");
    let key = machine.folder().join("key");
    fs::write(&key, [7; 32]).unwrap();
    let seal = ["vault", "change-passphrase", "--seal", "credential=c", "--new-key-file"];
    succeeds(&machine, &[&seal[..], &[text(&key)]].concat(), "");
    assert!(node(&machine).starts_with("unknown: the vault is sealed with the credential c"));
    let vault = machine.home().join("vault");
    let good = fs::read(&vault).unwrap();
    fs::write(&vault, &good[..good.len() - 1]).unwrap();
    assert!(node(&machine).contains("cut off"), "{}", node(&machine));
}

#[test]
fn a_damaged_web_certificate_is_none() {
    let machine = Machine::new();
    let id = succeeds(&machine, &["id"], "");
    let certificate = machine.home().join("web-certificate");
    for damaged in ["", "rubbish", "not-before 253402300799\nx\nnot-before 0\n"] {
        fs::write(&certificate, damaged).unwrap();
        assert_eq!(node(&machine), id);
        let status = machine.json(&["status", "--json"]);
        assert_eq!(status["certificate"]["kind"], "none");
    }
}
