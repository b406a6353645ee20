//! A program at a terminal that it controls.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    process::{Child, Command, Stdio},
};

use nix::pty::{OpenptyResult, openpty};

use super::in_session;

pub(super) struct Terminal {
    child: Child,
    ends: OpenptyResult,
    screen: String,
    /// How much of the screen has been looked for already.
    seen: usize,
}

impl Terminal {
    /// Starts a command with a terminal for its messages, and with stdout for us.
    pub(super) fn run(command: &Command) -> Self {
        let ends = openpty(None, None).unwrap();
        let slave = || Stdio::from(ends.slave.try_clone().unwrap());
        let mut session = in_session(command, &["--ctty"]);
        session.stdin(slave()).stderr(slave()).stdout(Stdio::piped());
        let child = session.spawn().unwrap();
        Self { child, ends, screen: String::new(), seen: 0 }
    }

    /// Reads until the screen has shown a text, after what was expected before.
    pub(super) fn expect(&mut self, text: &str) -> &str {
        let mut screen = File::from(self.ends.master.try_clone().unwrap());
        let mut chunk = [0; 1024];
        loop {
            if let Some(at) = self.screen[self.seen..].find(text) {
                self.seen += at + text.len();
                return &self.screen;
            }
            let read = screen.read(&mut chunk).unwrap();
            self.screen.push_str(&String::from_utf8_lossy(&chunk[..read]));
        }
    }

    pub(super) fn type_line(&self, line: &str) {
        let mut keyboard = File::from(self.ends.master.try_clone().unwrap());
        keyboard.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// The exit code, what was on stdout, and all that was on the screen.
    pub(super) fn end(self) -> (Option<i32>, String, String) {
        let Self { child, ends, mut screen, .. } = self;
        let output = child.wait_with_output().unwrap();
        drop(ends.slave);
        let mut rest = Vec::new();
        // A terminal whose other end is closed ends with an error, after what it has shown.
        let _ = File::from(ends.master).read_to_end(&mut rest);
        screen.push_str(&String::from_utf8_lossy(&rest));
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), screen)
    }
}
