//! Reading a secret: from a pipe, or from the terminal without showing it.

use std::{
    io::{self, BufRead as _, IsTerminal as _, Read as _, Stdin},
    os::fd::AsFd as _,
};

use alknet_core::Secret;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroizing;

use crate::output;

/// The longest secret that is read.
const MAX: u64 = 4096;

/// The first line of stdin. At a terminal `prompt` is shown and the typing is not; ^C
/// leaves the terminal as it was.
pub(crate) async fn secret(prompt: &str) -> io::Result<Secret> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return read_line();
    }
    // Both before the prompt: whoever sees it can type, or interrupt.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let _hidden = Hidden::new(stdin)?;
    output::note(prompt)?;
    let line = tokio::task::spawn_blocking(read_line);
    tokio::select! {
        line = line => line.map_err(io::Error::other)?,
        _ = interrupt.recv() => Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted")),
    }
}

fn read_line() -> io::Result<Secret> {
    let mut line = Zeroizing::new(Vec::with_capacity(256));
    io::stdin().lock().take(MAX).read_until(b'\n', &mut line)?;
    let text = std::str::from_utf8(&line).map_err(io::Error::other)?;
    Ok(Secret::new(text.trim()))
}

/// The terminal does not show what is typed until this is dropped.
struct Hidden {
    stdin: Stdin,
    before: Termios,
}

impl Hidden {
    fn new(stdin: Stdin) -> io::Result<Self> {
        let before = tcgetattr(stdin.as_fd())?;
        let mut hidden = before.clone();
        hidden.local_flags.remove(LocalFlags::ECHO);
        hidden.local_flags.insert(LocalFlags::ECHONL);
        tcsetattr(stdin.as_fd(), SetArg::TCSAFLUSH, &hidden)?;
        Ok(Self { stdin, before })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // Nothing more can be done for the terminal.
        let _ = tcsetattr(self.stdin.as_fd(), SetArg::TCSAFLUSH, &self.before);
    }
}
