//! A program at a terminal of its own.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    os::fd::OwnedFd,
    process::{Child, Command},
    sync::{Arc, Condvar, Mutex},
    thread,
};

use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

use crate::process::SOON;

pub(crate) struct Terminal {
    child: Child,
    master: File,
    screen: Arc<(Mutex<String>, Condvar)>,
}

impl Terminal {
    /// Starts a command with the terminal as its controlling one.
    pub(crate) fn run(command: &Command, rows: u16, columns: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let slave = || OpenOptions::new().read(true).write(true).open(&name).unwrap();
        resize(&master, rows, columns);
        // Only the kernel's own session leader gets SIGWINCH, and setsid makes one.
        let mut session = Command::new("setsid");
        session.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => session.env(name, value),
                None => session.env_remove(name),
            };
        }
        let child = session.stdin(slave()).stdout(slave()).stderr(slave()).spawn().unwrap();
        let master = File::from(master);
        let screen = Arc::new((Mutex::new(String::new()), Condvar::new()));
        read(master.try_clone().unwrap(), screen.clone());
        Self { child, master, screen }
    }

    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        resize(&self.master.try_clone().unwrap().into(), rows, columns);
    }

    pub(crate) fn type_line(&mut self, line: &str) {
        self.master.write_all(format!("{line}\r").as_bytes()).unwrap();
    }

    /// Waits until the screen has shown a text.
    #[track_caller]
    pub(crate) fn expect(&self, text: &str) {
        let (screen, changed) = &*self.screen;
        let shown = screen.lock().unwrap();
        let (shown, late) =
            changed.wait_timeout_while(shown, SOON, |shown| !shown.contains(text)).unwrap();
        assert!(!late.timed_out(), "{text:?} is not on the screen: {}", *shown);
    }

    /// All that the screen has shown so far.
    pub(crate) fn shown(&self) -> String {
        self.screen.0.lock().unwrap().clone()
    }

    /// Waits for the end; the exit status.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn resize(master: &OwnedFd, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(master, size).unwrap();
}

fn read(mut master: File, screen: Arc<(Mutex<String>, Condvar)>) {
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = master.read(&mut buffer) {
            let (shown, changed) = &*screen;
            shown.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
            changed.notify_all();
        }
    });
}
