//! `alknet call` against the operations of a node.

mod running;

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::{
    client::{Client, WAYS},
    node::{Home, Node},
    process::{output, output_with, stdout, text},
};

/// `alknet call` to a node.
pub(super) fn call(client: &Client, node: &Node, args: &[&str]) -> Command {
    let (address, id) = (node.address().to_string(), node.id().to_string());
    let mut all = vec!["call", &address, "--pin", &id];
    all.extend(args);
    client.home.alknet(&all)
}

/// The output of a call that succeeds.
#[track_caller]
fn called(client: &Client, node: &Node, args: &[&str]) -> Value {
    let printed = stdout(&output(&mut call(client, node, args)));
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"))
}

/// What a call that fails says.
#[track_caller]
fn refused(client: &Client, node: &Node, args: &[&str]) -> String {
    let done = output(&mut call(client, node, args));
    assert_eq!(done.status.code(), Some(1), "{args:?}: {}", text(&done));
    String::from_utf8(done.stderr).unwrap()
}

fn lines(done: &Output) -> Vec<Value> {
    stdout(done).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn operations_are_called_over_every_transport() {
    let home = Home::new();
    let node = Node::start(&home, &[]);
    let client = Client::known_to(&home, "operator", "call,exec:run");
    for via in WAYS {
        let status = called(&client, &node, &["--via", via, "node/status"]);
        assert_eq!(status["node"], node.id().to_string(), "{via}");
        assert_eq!(status["address"], node.address().to_string(), "{via}");
        let sessions = called(&client, &node, &["--via", via, "node/sessions"]);
        let own: Vec<_> = sessions["sessions"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|it| it["own"] == true)
            .collect();
        assert_eq!(own.len(), 1, "{via}: {sessions}");
        assert_eq!((&own[0]["transport"], &own[0]["alpn"]), (&json!(via), &json!("alknet/call")));
        assert_eq!(own[0]["identity"]["name"], "operator", "{via}");
        let command = r#"{"command": "cat; echo err >&2; exit 7", "stdin": "hello"}"#;
        let mut run = call(&client, &node, &["--via", via, "exec/run", "-"]);
        let items = lines(&output_with(&mut run, command.as_bytes()));
        assert!(
            items.contains(&json!({ "stream": "stdout", "data": "hello" })),
            "{via}: {items:?}"
        );
        assert!(
            items.contains(&json!({ "stream": "stderr", "data": "err\n" })),
            "{via}: {items:?}"
        );
        assert_eq!(items.last().unwrap(), &json!({ "exit": { "code": 7 } }), "{via}");
    }
}

#[test]
fn what_is_not_allowed_is_not_there() {
    let home = Home::new();
    let node = Node::start(&home, &[]);
    let client = Client::known_to(&home, "reader", "call:node/*");
    for via in WAYS {
        let list = output(&mut call(&client, &node, &["--via", via, "--list", "--json"]));
        let list: Vec<Value> = serde_json::from_str(&stdout(&list)).unwrap();
        let own = |it: &Value| it["name"].as_str().unwrap().split('/').next().unwrap().to_owned();
        assert!(list.iter().all(|it| ["node", "services"].contains(&own(it).as_str())), "{list:?}");
        let said = |name| refused(&client, &node, &["--via", via, name]);
        let unknown = said("no/such");
        assert!(unknown.contains("(NOT_FOUND)"), "{unknown}");
        assert!(unknown.contains("hint: what this machine may not use"), "{unknown}");
        for name in ["exec/run", "peers/list", "audit/tail", "config/show"] {
            assert_eq!(said(name), unknown, "{name} over {via}");
        }
    }
    // Under cover and without the service's scope there is not even a service.
    let stranger = Client::known_to(&home, "stranger", "ssh");
    let said = refused(&stranger, &node, &["--via", "quic", "node/status"]);
    assert!(said.contains("refused the connection") && said.contains("alknet id"), "{said}");
}

#[test]
fn an_error_has_its_code_and_a_hint() {
    let home = Home::new();
    let node = Node::start(&home, &[]);
    let client = Client::known_to(&home, "operator", "call,exec:run");
    let said = refused(&client, &node, &["exec/run", "comand=ls"]);
    assert!(said.contains("(INVALID_INPUT)") && said.contains("--schema"), "{said}");
    let said = refused(&client, &node, &["exec/run", "command=sleep 600", "--timeout", "1s"]);
    assert!(said.contains("(TIMEOUT)") && said.contains("--timeout"), "{said}");
    let ended = ["node/end-session", "session=999999", "--json"];
    let done = output(&mut call(&client, &node, &ended));
    assert_eq!(done.status.code(), Some(1), "{}", text(&done));
    let printed: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(printed["error"]["code"], "NO_SUCH_SESSION");
    let schema = called(&client, &node, &["exec/run", "--schema"]);
    assert_eq!((&schema["type"], &schema["name"]), (&json!("subscription"), &json!("exec/run")));
    assert!(schema["input"]["properties"]["command"].is_object(), "{schema}");
}

#[test]
fn the_status_of_another_node_is_shown() {
    let home = Home::new();
    let node = Node::start(&home, &[]);
    let client = Client::known_to(&home, "reader", "call:node/status");
    let (address, id) = (node.address().to_string(), node.id().to_string());
    for via in WAYS {
        let args = ["status", &address, "--pin", &id, "--via", via];
        let shown = stdout(&output(&mut client.home.alknet(&args)));
        assert!(shown.contains("state        running for ") && shown.contains(&id), "{shown}");
        let json = stdout(&output(&mut client.home.alknet(&[&args[..], &["--json"]].concat())));
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["node"], id, "{json}");
    }
}

#[test]
fn a_node_is_administered_from_afar() {
    let home = Home::new();
    let node = Node::start(&home, &[]);
    let admin = Client::known_to(&home, "admin", "call,git");
    let other = Client::new();
    let new = json!({ "name": "new", "scopes": ["call:node/*", "git"], "keys": [other.home.id()] });
    let added = called(&admin, &node, &["peers/add", &new.to_string()]);
    assert_eq!(added["new_keys"], 1);
    called(&other, &node, &["node/status"]);
    let wider = json!({ "name": "new", "scopes": ["*"] }).to_string();
    assert!(refused(&admin, &node, &["peers/update", &wider]).contains("(FORBIDDEN)"));
    // A token is as good as a key, and as little.
    let made =
        called(&admin, &node, &["tokens/create", "peer=new", r#"scopes=["call:node/status"]"#]);
    let holder = Client::new();
    let login = ["login", &node.address().to_string(), "--pin", &node.id().to_string()];
    let token = made["token"].as_str().unwrap();
    stdout(&output_with(&mut holder.home.alknet(&login), token.as_bytes()));
    called(&holder, &node, &["node/status"]);
    assert!(refused(&holder, &node, &["node/sessions"]).contains("(NOT_FOUND)"));
    called(&admin, &node, &["tokens/revoke", &format!("id={}", made["id"].as_str().unwrap())]);
    refused(&holder, &node, &["node/status"]);
    called(&admin, &node, &["peers/remove", "name=new"]);
    refused(&other, &node, &["node/status"]);
    let admin_id =
        home.audited("the peer", |it| it["event"] == "peer-added" && it["name"] == "new");
    assert!(admin_id["identity"].is_string() && admin_id["transport"] != "local", "{admin_id}");
    let log = std::fs::read_to_string(home.path().join("audit.log")).unwrap();
    assert!(!log.contains(token) && !node.log().contains(token), "the token is in a log");
}

#[test]
fn the_configuration_is_shown_checked_and_reloaded() {
    let home = Home::new();
    let file = home.path().join("alknet.toml");
    std::fs::write(&file, "decoy = \"http://user:secret@127.0.0.1:8080\"\n").unwrap();
    let node = Node::start(&home, &[]);
    let client = Client::known_to(&home, "operator", "call:config/*");
    let shown = called(&client, &node, &["config/show"]);
    assert_eq!(shown["config"]["decoy"], "http://127.0.0.1:8080/", "{shown}");
    // A flag stands before the file.
    let (flag, listen) = (&shown["config"]["drain"], &shown["config"]["listen"]);
    assert_eq!((flag, listen), (&json!("1s"), &json!("127.0.0.1:0")));
    let checked = called(&client, &node, &["config/check", "text=decoi = \"404\""]);
    assert_eq!((&checked["valid"], &checked["problems"][0]["line"]), (&json!(false), &json!(1)));
    let fine = called(&client, &node, &["config/check", "text=identities = \"/etc/passwd\""]);
    assert_eq!(fine, json!({ "valid": true, "problems": [] }), "a file was looked at");
    std::fs::write(&file, "decoy = \"404\"\n[limits]\nsessions = 77\n").unwrap();
    let reloaded = called(&client, &node, &["config/reload"]);
    let changes = (&reloaded["changed"], &reloaded["restart"]);
    assert_eq!(changes, (&json!(["decoy"]), &json!(["limits.sessions"])));
    let shown = called(&client, &node, &["config/show"]);
    assert_eq!((&shown["config"]["decoy"], &shown["restart"]), (&json!("404"), changes.1));
    assert_ne!(shown["config"]["limits"]["sessions"], 77);
    std::fs::write(&file, "decoi = 1\n").unwrap();
    assert!(refused(&client, &node, &["config/reload"]).contains("(NOT_RELOADED)"));
    let reference = called(&client, &node, &["config/reference"]);
    assert!(reference["text"].as_str().unwrap().contains("#cover = false"));
}
