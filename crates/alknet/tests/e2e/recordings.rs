//! Recordings of terminals, read by asciinema as well.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    client::{Client, account},
    node::{Home, Node},
    process::{SOON, eventually, output, stdout, text},
    terminal::Terminal,
};

const ALICE: &str = "[recordings]\nwho = [\"alice\"]\n";

fn node(config: &str) -> (Home, Node) {
    let home = Home::new();
    fs::write(home.path().join("alknet.toml"), config).unwrap();
    let node = Node::start(&home, &[]);
    (home, node)
}

/// A shell of somebody on a node.
fn shell(client: &Client, node: &Node) -> Terminal {
    let mut ssh = client.ssh(node, "tls");
    ssh.args(["-tt", "sh"]);
    Terminal::run(&ssh, 24, 80)
}

/// Says a word and leaves.
fn say(client: &Client, node: &Node, word: &str) {
    let mut terminal = shell(client, node);
    terminal.type_line(&format!("printf '{word}:%s\\n' $((6 * 7)) grüße"));
    terminal.expect(&format!("{word}:42"));
    terminal.type_line("exit 3");
    assert_eq!(terminal.wait(), Some(3));
}

fn list(home: &Home) -> Vec<Value> {
    let listed = stdout(&output(&mut home.alknet(&["recordings", "list", "--json"])));
    serde_json::from_str(&listed).unwrap()
}

/// The entry of a recording, once nothing is written any more.
fn ended(home: &Home) -> Value {
    let entry = home.audited("the recording", |event| event["event"] == "recording");
    eventually("the end of the recording", || {
        list(home).iter().all(|one| one["state"] != "live").then_some(())
    });
    entry
}

/// The one recording that there is.
#[track_caller]
fn only(home: &Home) -> (String, PathBuf) {
    let all = list(home);
    assert_eq!(all.len(), 1, "{all:?}");
    let id = all[0]["id"].as_str().unwrap().to_owned();
    let path = home.path().join("recordings").join(format!("{id}.cast"));
    (id, path)
}

/// asciinema shows a file, in the terminal that it wants.
fn asciinema(path: &Path) -> Terminal {
    let mut cat = Command::new("asciinema");
    cat.arg("cat").arg(path).env("LC_ALL", "C.UTF-8");
    Terminal::run(&cat, 24, 80)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_terminal_is_recorded_and_named_in_the_audit_log() {
    let (home, node) = node(ALICE);
    let (alice, bob) =
        (Client::known_to(&home, "alice", "ssh"), Client::known_to(&home, "bob", "ssh"));
    say(&bob, &node, "unseen");
    say(&alice, &node, "seen");
    assert_eq!(stdout(&output(alice.ssh(&node, "tls").arg("echo piped"))), "piped\n");
    let entry = ended(&home);
    let (id, path) = only(&home);
    let content = fs::read(&path).unwrap();
    assert_eq!(entry["file"], *id);
    assert_eq!(entry["name"], "alice");
    assert_eq!(entry["account"], *account());
    assert_eq!(entry["bytes"], content.len());
    assert_eq!(entry["blake3"], *blake3::hash(&content).to_hex());
    assert_eq!(entry.get("reason"), None);
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    let mut shown = asciinema(&path);
    shown.expect("seen:grüße");
    assert_eq!(shown.wait(), Some(0));
    for shown in [
        stdout(&output(&mut home.alknet(&["recordings", "play", &id, "--speed", "1000"]))),
        stdout(&output(&mut home.alknet(&["recordings", "export", &id, "--text"]))),
    ] {
        assert!(shown.contains("seen:42") && shown.contains("seen:grüße"), "{shown}");
        assert!(!shown.contains("unseen") && !shown.contains("piped"), "{shown}");
    }
    let copy = home.path().join("copy.cast");
    let to = copy.to_str().unwrap();
    stdout(&output(&mut home.alknet(&["recordings", "export", &id, "--output", to])));
    assert_eq!(fs::read(&copy).unwrap(), content);
    let listed = stdout(&output(&mut home.alknet(&["recordings", "list"])));
    assert!(listed.contains(&id) && listed.contains("verified"), "{listed}");
}

#[test]
fn nothing_is_recorded_unless_it_is_asked_for() {
    let (home, node) = node("");
    say(&Client::known_to(&home, "alice", "ssh"), &node, "unseen");
    assert!(!home.path().join("recordings").exists());
    assert_eq!(list(&home).len(), 0);
    assert!(home.audit().iter().all(|event| event["event"] != "recording"));
}

#[test]
fn what_is_typed_is_recorded_only_where_that_is_asked_for() {
    for (config, recorded) in [("", false), ("input = true\n", true)] {
        let (home, node) = node(&format!("[recordings]\nwho = \"all\"\n{config}"));
        let alice = Client::known_to(&home, "alice", "ssh");
        let mut terminal = shell(&alice, &node);
        terminal.type_line("stty -echo; echo ready:$((6*7)); read secret; echo done:$((6*7))");
        terminal.expect("ready:42");
        terminal.type_line("hunter2");
        terminal.expect("done:42");
        terminal.type_line("exit");
        assert_eq!(terminal.wait(), Some(0));
        ended(&home);
        let content = fs::read_to_string(only(&home).1).unwrap();
        assert_eq!(content.contains("hunter2"), recorded, "{content}");
    }
}

#[test]
fn a_recording_that_was_changed_is_told() {
    let (home, node) = node(ALICE);
    say(&Client::known_to(&home, "alice", "ssh"), &node, "seen");
    ended(&home);
    let (id, path) = only(&home);
    let forged = fs::read_to_string(&path).unwrap().replace("seen:", "nice:");
    fs::write(&path, &forged).unwrap();
    assert_eq!(list(&home)[0]["state"], "changed");
    for args in [&["export", &id][..], &["export", &id, "--text"], &["play", &id, "--speed", "99"]]
    {
        let told = output(home.alknet(&["recordings"]).args(args));
        assert_eq!(told.status.code(), Some(1), "{}", text(&told));
        assert!(text(&told).contains("was changed"), "{}", text(&told));
        // Whoever looks into it needs what there is.
        assert!(text(&told).contains("nice:"), "{}", text(&told));
    }
    // An entry of one's own makes no difference: the log is a chain, and the first one counts.
    let unknown = output(&mut home.alknet(&["recordings", "play", "../audit"]));
    assert_eq!(unknown.status.code(), Some(1));
    assert!(text(&unknown).contains("there is no recording"), "{}", text(&unknown));
}

#[test]
fn a_recording_outlives_a_node_that_is_killed() {
    let (home, mut node) = node(ALICE);
    let alice = Client::known_to(&home, "alice", "ssh");
    let mut terminal = shell(&alice, &node);
    terminal.type_line("echo alive:$((6*7))");
    terminal.expect("alive:42");
    // What was seen is in the file.
    let (id, _) = only(&home);
    assert_eq!(list(&home)[0]["state"], "live");
    node.signal(Signal::SIGKILL);
    node.wait(SOON);
    drop(node);
    let _node = Node::start(&home, &[]);
    let entry = ended(&home);
    assert_eq!(entry["file"], *id);
    assert_eq!(entry["reason"], "the node ended before the session");
    let (_, path) = only(&home);
    assert_eq!(entry["blake3"], *blake3::hash(&fs::read(&path).unwrap()).to_hex());
    assert_eq!(list(&home)[0]["state"], "verified");
    let mut shown = asciinema(&path);
    shown.expect("alive:42");
    assert_eq!(shown.wait(), Some(0));
}

/// A session that survives its transport is one recording, by whatever it is looked at.
#[test]
fn a_surviving_shell_is_recorded() {
    let (home, node) = node(ALICE);
    let alice = Client::known_to(&home, "alice", "shell");
    let (address, pin) = (node.address().to_string(), node.banner().node.clone());
    let attach =
        ["sessions", "attach", &address, "--pin", &pin, "main", "--", "echo kept:$((6*7))"];
    let ran = output(&mut alice.home.alknet(&attach));
    assert!(text(&ran).contains("kept:42"), "{}", text(&ran));
    let entry = ended(&home);
    assert_eq!((&entry["alpn"], &entry["name"]), (&"alknet/shell".into(), &"alice".into()));
    asciinema(&only(&home).1).expect("kept:42");
    assert_eq!(list(&home)[0]["state"], "verified");
}

/// What cannot be recorded does not begin.
#[test]
fn a_session_that_cannot_be_recorded_is_refused() {
    let (home, node) = node(ALICE);
    let alice = Client::known_to(&home, "alice", "ssh");
    fs::write(home.path().join("recordings"), "in the way").unwrap();
    let mark = home.path().join("mark");
    let mut ssh = alice.ssh(&node, "tls");
    let refused = output(ssh.arg("-tt").arg(format!("touch {}", mark.display())));
    assert_eq!(refused.status.code(), Some(255), "{}", text(&refused));
    home.audited("the refusal", |event| {
        event["event"] == "refused"
            && event["reason"].as_str().is_some_and(|text| text.contains("the recording failed"))
    });
    assert!(!mark.exists());
    // What is not to be recorded goes on.
    assert_eq!(stdout(&output(alice.ssh(&node, "tls").arg("echo piped"))), "piped\n");
}

/// Nor does one that would outlive its transport.
#[test]
fn a_surviving_shell_that_cannot_be_recorded_is_refused() {
    let (home, node) = node(ALICE);
    let alice = Client::known_to(&home, "alice", "shell");
    fs::write(home.path().join("recordings"), "in the way").unwrap();
    let mark = home.path().join("mark");
    let (address, pin) = (node.address().to_string(), node.banner().node.clone());
    let command = format!("trap '' HUP; touch {}", mark.display());
    for _ in 0..3 {
        let attach = ["sessions", "attach", &address, "--pin", &pin, "main", "--", &command];
        let refused = output(&mut alice.home.alknet(&attach));
        assert!(!refused.status.success(), "{}", text(&refused));
        assert!(text(&refused).contains("the recording failed"), "{}", text(&refused));
    }
    home.audited("the refusal", |event| {
        let reason = event["reason"].as_str().unwrap_or_default();
        event["event"] == "refused"
            && event["alpn"] == "alknet/shell"
            && event["name"] == "main"
            && reason.contains("the recording failed")
    });
    assert!(!mark.exists());
    assert!(home.audit().iter().all(|event| event["event"] != "shell-started"));
}

/// A session that can no longer be recorded ends, and says why.
#[test]
fn a_full_disk_ends_what_is_recorded() {
    if !nix::unistd::geteuid().is_root() {
        // Only root can make a disk that is full.
        return;
    }
    let home = Home::new();
    fs::write(home.path().join("alknet.toml"), ALICE).unwrap();
    fs::create_dir(home.path().join("recordings")).unwrap();
    let serve = home.alknet(&["serve", "--listen", "127.0.0.1:0", "--json", "--drain", "1"]);
    let mut limited = Command::new("unshare");
    limited.args(["--mount", "--propagation", "private", "sh", "-c"]);
    limited.arg(r#"mount -t tmpfs -o size=64k,mode=700 full "$0" && exec "$@""#);
    limited.arg(home.path().join("recordings")).arg(serve.get_program()).args(serve.get_args());
    limited.env("ALKNET_HOME", home.path()).env_remove("ALKNET_LOG");
    let node = Node::run(&home, limited);
    let alice = Client::known_to(&home, "alice", "ssh");
    let mut terminal = shell(&alice, &node);
    terminal.type_line("yes");
    terminal.expect("this session is recorded, and the recording failed: No space left on device");
    assert_eq!(terminal.wait(), Some(255));
    let entry = ended(&home);
    assert!(entry["reason"].as_str().unwrap().contains("No space left"), "{entry}");
    // Nothing of it runs on.
    eventually("the end of the program", || {
        let found =
            output(Command::new("pgrep").args(["-x", "yes", "-P"]).arg(node.pid().to_string()));
        (!found.status.success()).then_some(())
    });
}
