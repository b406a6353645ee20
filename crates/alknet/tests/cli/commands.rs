//! The commands that work on the state folder, as a user runs them.

use std::{fs, os::unix::fs::PermissionsExt as _};

use crate::machine::Machine;

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ laptop";
const FINGERPRINT: &str = "SHA256:T7SvZ2cslqpPj6nKzitCBHHlpVF3r3MvLwmFL0fk0IE";

#[test]
fn an_empty_variable_names_no_folder() {
    let machine = Machine::new();
    let id = machine.ok(&["id"]);
    let home = machine.home();
    let printed = |command: &mut std::process::Command| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    };
    let mut flag = machine.command(&["--home", home.to_str().unwrap(), "id"]);
    assert_eq!(printed(flag.env("ALKNET_HOME", "")), id);
    let mut default = machine.command(&["id"]);
    default.env("ALKNET_HOME", "").env("XDG_DATA_HOME", machine.folder());
    let other = printed(default.env("HOME", machine.folder()));
    assert!(other != id && machine.folder().join("alknet").is_dir(), "{other}");
    // A flag that was left empty by mistake does not lead somewhere else.
    assert!(machine.fails(2, &["--home", "", "id"]).contains("--home"));
}

#[test]
fn the_id_stays_and_is_the_same_for_all_who_ask_first() {
    let machine = Machine::new();
    let children: Vec<_> = (0..4)
        .map(|_| {
            let mut command = machine.command(&["id"]);
            command.stdout(std::process::Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let ids: Vec<String> = children
        .into_iter()
        .map(|child| String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap())
        .collect();
    let id = machine.ok(&["id"]);
    assert!(id.starts_with("ed25519:") && id.len() == 72, "{id}");
    assert!(ids.iter().all(|other| other.trim_end() == id), "{ids:?}");
    assert_eq!(machine.json(&["id", "--json"])["id"], id);
}

#[test]
fn a_key_that_others_can_read_is_refused_with_a_hint() {
    let machine = Machine::new();
    machine.ok(&["id"]);
    let path = machine.home().join("vault.key");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let message = machine.fails(1, &["id"]);
    assert!(message.starts_with("error: ") && message.contains("(mode 644)"), "{message}");
    assert!(
        message.contains(&format!("hint: if nobody has read it: chmod 600 {}", path.display()))
    );
}

#[test]
fn a_peer_has_keys_of_every_form() {
    let machine = Machine::new();
    let file = machine.folder().join("key.pub");
    fs::write(&file, KEY).unwrap();
    let node = format!("ed25519:{}", "ab".repeat(32));
    let file = file.to_str().unwrap();
    machine.ok(&["peer", "add", "alice", "--key", file, "--key", &node, "--scope", "ssh,git"]);
    let peers = machine.json(&["peer", "list", "--json"]);
    let alice = &peers[0];
    assert_eq!(alice["name"], "alice");
    assert_eq!(alice["scopes"], serde_json::json!(["git", "ssh"]));
    let keys = alice["keys"].as_array().unwrap();
    let of = |name: &str| keys.iter().map(|key| key[name].clone()).collect::<Vec<_>>();
    assert!(of("fingerprint").contains(&FINGERPRINT.into()), "{alice}");
    assert!(of("fingerprint").contains(&node.into()), "{alice}");
    assert!(of("comment").contains(&"laptop".into()), "{alice}");
    let table = machine.ok(&["peer", "list"]);
    assert!(table.contains("alice") && table.contains(FINGERPRINT), "{table}");
    machine.ok(&["peer", "remove", "alice", "--key", KEY]);
    assert!(!machine.ok(&["peer", "list"]).contains(FINGERPRINT));
    machine.ok(&["peer", "remove", "alice"]);
    assert!(!machine.ok(&["peer", "list"]).contains("alice"));
}

#[test]
fn wrong_peers_are_refused_with_a_hint() {
    let machine = Machine::new();
    for (args, words) in [
        (&["peer", "add", "bob"][..], "hint: alknet peer add bob --key"),
        (&["peer", "add", "bob", "--scope", "ssh", "--key", "nonsense key"], "neither an OpenSSH"),
        (&["peer", "add", "bob", "--scope", "ssh", "--key", "/no/such.pub"], "No such file"),
        (&["peer", "remove", "bob"], "hint: see alknet peer list"),
        (&["peer", "remove", "owner"], "owner"),
    ] {
        let message = machine.fails(1, args);
        assert!(message.contains(words), "{args:?}: {message}");
    }
    let message = machine.fails(2, &["peer", "add", "bob", "--scope", "ssh,,git"]);
    assert!(message.contains("scope"), "{message}");
    machine.fails(2, &["peer", "add", "bad\u{1b}name", "--scope", "ssh"]);
}

#[test]
fn a_token_is_shown_once_and_nowhere_else() {
    let machine = Machine::new();
    let done = machine.run(&["token", "create", "--name", "phone", "--expires", "30d"]);
    let token = done.stdout.trim_end();
    assert!(token.starts_with("alk_") && token.len() == 47, "{token}");
    assert!(!done.stderr.contains(token));
    let listed = machine.json(&["token", "list", "--json"]);
    assert_eq!(listed[0]["name"], "phone");
    let lifetime =
        listed[0]["expires_at"].as_i64().unwrap() - listed[0]["created_at"].as_i64().unwrap();
    assert_eq!(lifetime, 30 * 24 * 60 * 60);
    for entry in fs::read_dir(machine.home()).unwrap().map(Result::unwrap) {
        let content = fs::read(entry.path()).unwrap_or_default();
        let found = content.windows(token.len()).any(|window| window == token.as_bytes());
        assert!(!found, "{:?}", entry.path());
    }
    let id = listed[0]["id"].as_str().unwrap();
    machine.ok(&["token", "revoke", id]);
    assert_eq!(machine.json(&["token", "list", "--json"]), serde_json::json!([]));
    assert!(machine.fails(1, &["token", "revoke", id]).contains("hint: see alknet token list"));
}

#[test]
fn a_token_stays_within_its_peer() {
    let machine = Machine::new();
    machine.ok(&["peer", "add", "alice", "--scope", "ssh"]);
    let create = ["token", "create", "--peer", "alice", "--scope"];
    let message = machine.fails(1, &[&create[..], &["git"]].concat());
    assert!(message.contains("may do no more than ssh"), "{message}");
    let made = machine.json(&[&create[..], &["ssh", "--json"]].concat());
    assert_eq!((&made["peer"], &made["scopes"]), (&"alice".into(), &serde_json::json!(["ssh"])));
    machine.fails(2, &["token", "create", "--expires", "soon"]);
}

#[test]
fn login_takes_the_token_from_stdin_and_keeps_it_private() {
    let machine = Machine::new();
    let token = machine.ok(&["token", "create"]);
    let id = machine.ok(&["id"]);
    let pinned = ["login", "node.example", "--pin", &id, "--name", "home"];
    let bad = machine.run_with_input(&pinned, "password\n");
    assert_eq!(bad.code, Some(1), "{bad:?}");
    assert!(!bad.stderr.contains("password"));
    let done = machine.run_with_input(&pinned, &format!("{token}\n"));
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(!done.stderr.contains(&token));
    let path = machine.home().join("credentials");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(fs::read_to_string(&path).unwrap().contains(&token));
    let known = fs::read_to_string(machine.home().join("known_nodes")).unwrap();
    assert_eq!(known, format!("node.example:4433 {id}\nhome {id} node.example:4433\n"));
    let again = machine.run_with_input(&["login", "home"], &token);
    assert_eq!(again.code, Some(0), "{again:?}");
    let other = format!("ed25519:{}", "ab".repeat(32));
    let changed = machine.run_with_input(&["login", "home", "--pin", &other], &token);
    assert!(changed.code == Some(1) && changed.stderr.contains("is pinned to"), "{changed:?}");
}

#[test]
fn status_of_a_folder_that_nobody_serves() {
    let machine = Machine::new();
    machine.ok(&["peer", "add", "alice", "--key", KEY, "--scope", "ssh"]);
    machine.ok(&["token", "create"]);
    let id = machine.ok(&["id"]);
    let status = machine.json(&["status", "--json"]);
    assert_eq!(status["running"], false);
    assert_eq!(status["node"], id);
    assert_eq!(
        (&status["peers"], &status["keys"], &status["tokens"]),
        (&1.into(), &1.into(), &1.into())
    );
    assert_eq!(status["certificate"]["kind"], "none");
    assert!(machine.ok(&["status"]).contains("not running"));
}

#[test]
fn a_wrong_configuration_is_an_error_with_the_nearest_key() {
    let machine = Machine::new();
    machine.ok(&["id"]);
    fs::write(machine.home().join("alknet.toml"), "listne = \"[::]:1\"\n").unwrap();
    let message = machine.fails(1, &["status"]);
    assert!(message.contains("there is no key \"listne\""), "{message}");
    assert!(message.contains("hint: did you mean \"listen\"?"), "{message}");
}

#[test]
fn usage_errors_exit_with_2_and_help_with_0() {
    let machine = Machine::new();
    for args in [&["nonsense"][..], &[], &["peer"], &["token", "create", "--no-such-flag"]] {
        let done = machine.run(args);
        assert_eq!(done.code, Some(2), "{args:?}: {done:?}");
    }
    assert!(machine.ok(&["token", "create", "--help"]).contains("Example"));
    assert!(machine.ok(&["--version"]).starts_with("alknet "));
}

#[test]
fn a_damaged_database_is_named() {
    let machine = Machine::new();
    machine.ok(&["id"]);
    fs::write(machine.home().join("node.db"), "no database".repeat(1000)).unwrap();
    let message = machine.fails(1, &["peer", "list"]);
    assert!(message.contains("node.db could not be opened"), "{message}");
}

#[test]
fn a_folder_that_others_can_write_is_refused() {
    let machine = Machine::new();
    machine.ok(&["id"]);
    fs::set_permissions(machine.home(), fs::Permissions::from_mode(0o777)).unwrap();
    let message = machine.fails(1, &["id"]);
    assert!(message.contains("hint: chmod go-w"), "{message}");
}
