//! The configuration: its reference, and what is said of a wrong one.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Stdio},
};

use crate::machine::Machine;

/// The document that holds the reference.
fn document() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md")
}

const FENCE: [&str; 2] = ["```toml\n", "\n```\n"];

#[test]
fn the_document_holds_the_reference() {
    let reference = Machine::new().ok(&["config", "reference"]);
    let text = fs::read_to_string(document()).unwrap();
    let (before, rest) = text.split_once(FENCE[0]).unwrap();
    let (held, after) = rest.split_once(FENCE[1]).unwrap();
    if held == reference {
        return;
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let text = [before, FENCE[0], &reference, FENCE[1], after].concat();
        return fs::write(document(), text).unwrap();
    }
    panic!(
        "docs/configuration.md does not hold what `alknet config reference` prints; write it \
         anew: UPDATE_DOCS=1 cargo nextest run -p alknet the_document_holds_the_reference"
    );
}

#[test]
fn the_reference_is_a_configuration_and_a_schema() {
    let machine = Machine::new();
    let reference = machine.ok(&["config", "reference"]);
    let file = machine.folder().join("reference.toml");
    fs::write(&file, reference).unwrap();
    let valid = machine.ok(&["config", "check", file.to_str().unwrap()]);
    assert!(valid.ends_with("reference.toml is valid"), "{valid}");
    let schema = machine.json(&["config", "reference", "--json"]);
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let properties = &schema["properties"];
    assert_eq!(properties["drain"]["default"], "10s");
    assert_eq!(properties["drain"]["x-live"], true);
    assert_eq!(properties["listen"]["x-live"], serde_json::Value::Null);
    assert_eq!(properties["limits"]["properties"]["sessions"]["minimum"], 1);
    assert_eq!(properties["limits"]["additionalProperties"], false);
}

#[test]
fn a_check_names_all_problems_at_once() {
    let machine = Machine::new();
    assert!(machine.ok(&["config", "check"]).ends_with("alknet.toml is valid"));
    let file = machine.home().join("alknet.toml");
    fs::write(&file, "listne = 1\ndecoy = 'no-such-folder'\n[limits]\nsessions = 0\n").unwrap();
    let message = machine.fails(1, &["config", "check"]);
    for words in [
        "alknet.toml has 3 problems",
        "line 1: there is no key \"listne\"",
        "line 2: decoy: ",
        "line 4: limits.sessions: ",
        "hint: did you mean \"listen\"?",
    ] {
        assert!(message.contains(words), "{words}: {message}");
    }
    let done = machine.run(&["config", "check", "--json"]);
    assert_eq!(done.code, Some(1), "{done:?}");
    let report: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(report["valid"], false);
    assert_eq!(report["problems"].as_array().unwrap().len(), 3, "{report}");
    assert_eq!(report["problems"][0]["key"], "listne");
    assert_eq!(report["problems"][0]["line"], 1);
    assert_eq!(report["problems"][0]["hint"], "did you mean \"listen\"?");
    // The same file keeps a node from starting, for the same reasons.
    let refused = machine.fails(1, &["serve", "--listen", "127.0.0.1:0"]);
    assert!(refused.contains("alknet.toml has 3 problems"), "{refused}");
}

#[test]
fn a_check_is_of_any_file_and_paths_start_there() {
    let machine = Machine::new();
    let folder = machine.folder().join("elsewhere");
    fs::create_dir_all(folder.join("site")).unwrap();
    let file = folder.join("a.toml");
    fs::write(&file, "decoy = 'site'").unwrap();
    let report = machine.json(&["config", "check", file.to_str().unwrap(), "--json"]);
    assert_eq!((&report["valid"], &report["problems"]), (&true.into(), &serde_json::json!([])));
    let missing = machine.fails(1, &["config", "check", "/no/such/file"]);
    assert!(missing.contains("/no/such/file: No such file"), "{missing}");
    machine.fails(2, &["config"]);
}

#[test]
fn a_reload_needs_a_node() {
    let message = Machine::new().fails(1, &["reload"]);
    assert!(message.contains("no node serves this state folder"), "{message}");
    assert!(message.contains("hint: start one with `alknet serve`"), "{message}");
}

#[test]
fn a_listening_address_is_named_as_needing_a_restart() {
    let machine = Machine::new();
    machine.ok(&["id"]);
    let configure = |text: &str| fs::write(machine.home().join("alknet.toml"), text).unwrap();
    configure("listen = '127.0.0.1:0'");
    let mut node =
        Node(machine.command(&["serve", "--json"]).stdout(Stdio::piped()).spawn().unwrap());
    let mut banner = String::new();
    BufReader::new(node.0.stdout.take().unwrap()).read_line(&mut banner).unwrap();
    assert!(banner.contains("\"listen\":\"127.0.0.1:"), "{banner}");
    assert_eq!(machine.ok(&["reload"]), "nothing changed");
    configure("listen = '127.0.0.1:1'\ndrain = '1s'");
    assert_eq!(machine.ok(&["reload"]), "drain: changed\nlisten: needs a restart");
    // As long as it does.
    assert_eq!(machine.ok(&["reload"]), "listen: needs a restart");
}

/// Ended with the value.
struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_wrong_flag_is_a_wrong_use() {
    let machine = Machine::new();
    let message = machine.fails(2, &["serve", "--decoy", "https://secure.example"]);
    assert!(message.contains("--decoy"), "{message}");
}
