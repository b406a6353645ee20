//! A session of the stock OpenSSH client that lasts.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::{Child, ChildStdout, Stdio},
};

use crate::{
    client::Client,
    node::Node,
    process::{Deadline, SOON},
};

/// A session whose command says that it stands and then gives its input back to its end.
pub(crate) struct Session {
    ssh: Child,
    output: BufReader<ChildStdout>,
    guard: Deadline,
}

impl Session {
    /// `after` is what the shell does once it has said `ready`.
    pub(crate) fn start(client: &Client, node: &Node, via: &str, after: &str) -> Self {
        let mut ssh = client.ssh(node, via);
        ssh.arg(format!("echo ready; {after}")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut ssh = ssh.spawn().unwrap();
        let guard = Deadline::kill(ssh.id(), SOON);
        let output = BufReader::new(ssh.stdout.take().unwrap());
        Self { ssh, output, guard }
    }

    #[track_caller]
    pub(crate) fn ready(&mut self) {
        self.hears("ready\n");
    }

    /// Sends a line and waits until it has come back.
    #[track_caller]
    pub(crate) fn echoes(&mut self, line: &str) {
        let line = format!("{line}\n");
        self.ssh.stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
        self.hears(&line);
    }

    #[track_caller]
    fn hears(&mut self, expected: &str) {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert_eq!(line, expected);
    }

    pub(crate) fn end_input(&mut self) {
        drop(self.ssh.stdin.take());
    }

    /// The exit status, when it is over.
    pub(crate) fn wait(mut self) -> Option<i32> {
        let mut rest = Vec::new();
        let _ = self.output.read_to_end(&mut rest);
        let status = self.ssh.wait().unwrap();
        assert!(!self.guard.passed(), "the session did not end");
        status.code()
    }
}
