//! The commands beside a node that runs on the same folder.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::machine::Machine;

/// A node that has said that it is ready; ended with the value.
struct Served {
    child: Child,
    banner: serde_json::Value,
}

impl Served {
    fn start(machine: &Machine) -> Self {
        let mut command = machine.command(&["serve", "--listen", "127.0.0.1:0", "--json"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, banner: serde_json::from_str(&line).unwrap() }
    }

    fn address(&self) -> &str {
        self.banner["listen"].as_str().unwrap()
    }

    fn stop(&mut self) {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

#[test]
fn a_second_node_on_the_folder_is_refused() {
    let machine = Machine::new();
    let first = Served::start(&machine);
    let message = machine.fails(1, &["serve", "--listen", "127.0.0.1:0"]);
    assert!(message.contains("already serves the state folder"), "{message}");
    assert!(message.contains(&format!("(process {})", first.child.id())), "{message}");
    assert!(message.contains("hint: "), "{message}");
}

#[test]
fn status_tells_where_the_node_is_while_it_runs() {
    let machine = Machine::new();
    let mut node = Served::start(&machine);
    let status = machine.json(&["status", "--json"]);
    assert_eq!(status["running"], true);
    assert_eq!(status["pid"], node.child.id());
    assert_eq!(status["address"], node.address());
    assert_eq!(status["node"], machine.ok(&["id"]));
    assert_eq!(status["certificate"]["kind"], "self-signed");
    node.stop();
    let status = machine.json(&["status", "--json"]);
    assert_eq!((&status["running"], &status["address"]), (&false.into(), &().into()));
    // A node that was killed leaves its address behind; it counts for nothing.
    let mut node = Served::start(&machine);
    node.child.kill().unwrap();
    node.child.wait().unwrap();
    let status = machine.json(&["status", "--json"]);
    assert_eq!((&status["running"], &status["address"]), (&false.into(), &().into()));
}

#[test]
fn login_learns_who_an_unknown_node_is() {
    let (machine, client) = (Machine::new(), Machine::new());
    let node = Served::start(&machine);
    let token = machine.ok(&["token", "create", "--scope", "ssh"]);
    let done = client.run_with_input(&["login", node.address(), "--name", "home"], &token);
    assert_eq!(done.code, Some(0), "{done:?}");
    let known = std::fs::read_to_string(client.home().join("known_nodes")).unwrap();
    let id = machine.ok(&["id"]);
    let address = node.address();
    assert_eq!(known, format!("{address} {id}\nhome {id} {address}\n"));
}

#[test]
fn a_new_sign_in_link_is_had_without_a_restart() {
    let machine = Machine::new();
    assert!(machine.fails(1, &["token", "link"]).contains("alknet serve"));
    let mut node = Served::start(&machine);
    let port = node.address().rsplit(':').next().unwrap().to_owned();
    let link = machine.ok(&["token", "link"]);
    assert!(link.starts_with(&format!("https://127.0.0.1:{port}/alknet/signin/alk_")), "{link}");
    assert!(link.ends_with(&format!("#{}", machine.ok(&["id"]))), "{link}");
    assert_ne!(node.banner["sign_in"][0], link);
    node.stop();
}
