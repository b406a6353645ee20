//! `alknet vault`, as a user runs it.

mod data;
mod kill;
mod locked;
mod phrase;
mod status;
mod terminal;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::machine::{Done, Machine};

/// A phrase that everybody knows (BIP-0039's first test vector).
const PHRASE: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon \
                      abandon abandon about";
/// What comes of it by Python's `hashlib`, `hmac` and `cryptography`.
const ID: &str = "ed25519:e78c2766a792f09bfccb51493968ac322283e8d021a30063784d806929762ecc";

/// Runs a command that has no terminal, whatever the terminal of the tests is.
fn without_terminal(machine: &Machine, args: &[&str], input: &str) -> Done {
    let command = machine.command(args);
    let mut session = in_session(&command, &[]);
    session.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = session.spawn().unwrap();
    // A command that reads no input may have closed its end.
    let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes());
    child.wait_with_output().unwrap().into()
}

/// The command in a session of its own.
fn in_session(command: &Command, options: &[&str]) -> Command {
    let mut session = Command::new("setsid");
    session.args(options).arg("--wait").arg(command.get_program()).args(command.get_args());
    session.env_clear();
    session.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    // What setsid itself is found by.
    session.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    session
}

#[track_caller]
fn succeeds(machine: &Machine, args: &[&str], input: &str) -> String {
    let done = without_terminal(machine, args, input);
    assert_eq!(done.code, Some(0), "{args:?}: {done:?}");
    done.stdout.trim_end().to_owned()
}

#[track_caller]
fn refused(machine: &Machine, args: &[&str], words: &str) {
    let done = without_terminal(machine, args, "");
    assert_eq!(done.code, Some(1), "{args:?}: {done:?}");
    assert!(done.stderr.contains(words), "{args:?}: {done:?}");
}

/// A file with a passphrase.
fn passphrase(machine: &Machine, text: &str) -> PathBuf {
    let path = machine.folder().join(format!("passphrase-{}", text.len()));
    fs::write(&path, format!("{text}\n")).unwrap();
    path
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A machine whose vault is sealed with a passphrase, and the file that holds it.
fn sealed_with_passphrase() -> (Machine, PathBuf) {
    let machine = Machine::new();
    let file = passphrase(&machine, "correct horse");
    let id = succeeds(&machine, &["vault", "import", "--passphrase-file", text(&file)], PHRASE);
    assert_eq!(id, ID);
    (machine, file)
}

#[test]
fn the_first_start_makes_a_vault_that_opens_unattended() {
    let machine = Machine::new();
    let id = succeeds(&machine, &["id"], "");
    for name in ["vault", "vault.key"] {
        let mode = fs::metadata(machine.home().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert_eq!(succeeds(&machine, &["id"], ""), id);
    assert!(!machine.home().join("identity").exists());
}

/// Whoever lost the vault of a node learns it from the log, and what to take away with it.
#[test]
fn a_new_identity_does_not_go_unnoticed() {
    let machine = Machine::new();
    let made = |done: &Done| done.stderr.matches("made a vault").count();
    assert_eq!(made(&without_terminal(&machine, &["id"], "")), 1);
    assert_eq!(made(&without_terminal(&machine, &["id"], "")), 0);
    refused(&machine, &["vault", "import"], "stop the node");
    let key = machine.home().join("vault.key");
    refused(&machine, &["vault", "import"], text(&key));
    fs::remove_file(machine.home().join("vault")).unwrap();
    assert_eq!(made(&without_terminal(&machine, &["id"], "")), 1);
    let log = succeeds(&machine, &["audit", "tail", "--json"], "");
    assert_eq!(log.matches("vault-made").count(), 2, "{log}");
}

#[test]
fn an_early_identity_is_refused_with_what_to_do() {
    let machine = Machine::new();
    fs::create_dir(machine.home()).unwrap();
    fs::write(machine.home().join("identity"), "alknet-identity-v1\n").unwrap();
    refused(&machine, &["id"], "hint: stop the node, then move");
    assert!(!machine.home().join("vault").exists());
}

#[test]
fn a_key_file_moves_to_a_passphrase_and_to_a_credential() {
    let machine = Machine::new();
    let id = succeeds(&machine, &["id"], "");
    let file = passphrase(&machine, "first");
    let change = |args: &[&str]| {
        succeeds(&machine, &[&["vault", "change-passphrase"], args].concat(), "");
    };
    change(&["--new-passphrase-file", text(&file)]);
    assert!(!machine.home().join("vault.key").exists());
    refused(&machine, &["id"], "hint: alknet vault unlock");

    let credentials = machine.folder().join("credentials");
    fs::create_dir(&credentials).unwrap();
    let key = credentials.join("node-key");
    fs::write(&key, [7; 32]).unwrap();
    let (file, key) = (text(&file), text(&key));
    change(&["--seal", "credential=node-key", "--new-key-file", key, "--passphrase-file", file]);
    refused(&machine, &["id"], "the credential node-key");
    let mut started = machine.command(&["id"]);
    started.env("CREDENTIALS_DIRECTORY", &credentials);
    let done: Done = in_session(&started, &[]).output().unwrap().into();
    assert_eq!(done.stdout.trim_end(), id, "{done:?}");
    refused(&machine, &["vault", "change-passphrase", "--key-file", file], "32 bytes");
    change(&["--seal", "key-file", "--key-file", key]);
    assert_eq!(succeeds(&machine, &["id"], ""), id);
}

#[test]
fn a_derived_key_is_what_openssh_takes_it_for() {
    let machine = Machine::new();
    succeeds(&machine, &["vault", "import", "--seal", "key-file"], PHRASE);
    let file = machine.folder().join("host");
    let derive = ["vault", "derive", "m/74h/0h/1h/0h", "--json", "--private", text(&file)];
    let shown: serde_json::Value = serde_json::from_str(&succeeds(&machine, &derive, "")).unwrap();
    assert_eq!(shown["path"], "m/74'/0'/1'/0'");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let keygen = |args: &[&str]| -> Done {
        Command::new("ssh-keygen").args(args).arg("-f").arg(&file).output().unwrap().into()
    };
    let fingerprint = keygen(&["-l"]).stdout;
    let expected = shown["fingerprint"].as_str().unwrap();
    assert_eq!(fingerprint.split(' ').nth(1), Some(expected), "{fingerprint}");
    let public = keygen(&["-y"]).stdout;
    assert!(public.starts_with(shown["openssh"].as_str().unwrap()), "{public} {shown}");

    let by_purpose = machine.json(&["vault", "show-path", "ssh-host", "--json"]);
    assert_eq!(by_purpose, shown);
    let identity = machine.json(&["vault", "show-path", "identity", "--json"]);
    assert_eq!(identity["node"], ID);
    refused(&machine, &derive, "File exists");
    machine.fails(2, &["vault", "derive", "m/74'/0"]);
    machine.fails(2, &["vault", "show-path", "nonsense"]);
    let data = machine.json(&["vault", "show-path", "data-1", "--json"]);
    assert_eq!(data, serde_json::json!({ "path": "m/74'/2'/0'/1'" }));
}

#[test]
fn every_kind_of_damage_is_an_error_and_nothing_is_overwritten() {
    let machine = Machine::new();
    succeeds(&machine, &["id"], "");
    let path = machine.home().join("vault");
    let good = fs::read(&path).unwrap();
    let mut flipped = good.clone();
    flipped[60] ^= 1;
    for (damaged, words) in [
        (&flipped[..], "damaged"),
        (&good[..good.len() - 1], "cut off"),
        (b"", "cut off"),
        (b"rubbish", "no vault"),
    ] {
        fs::write(&path, damaged).unwrap();
        for args in [&["id"][..], &["vault", "rotate"], &["vault", "change-passphrase"]] {
            refused(&machine, args, words);
            assert_eq!(fs::read(&path).unwrap(), damaged);
        }
    }
}
