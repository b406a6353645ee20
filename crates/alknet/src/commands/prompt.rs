//! Reading a secret: from a pipe, or from the terminal without showing it.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, IsTerminal as _, Write as _},
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use alknet_core::Secret;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroizing;

use crate::output;

/// The longest secret that is read.
const MAX: u64 = 4096;
/// The terminal of this process, whatever its input and output are.
const TERMINAL: &str = "/dev/tty";

/// The first line of stdin. At a terminal `prompt` is shown and the typing is not; ^C
/// leaves the terminal as it was.
pub(crate) async fn secret(prompt: &str) -> io::Result<Secret> {
    let stdin = io::stdin();
    let line = if stdin.is_terminal() {
        let terminal = stdin.as_fd().try_clone_to_owned()?;
        hidden(terminal, || output::note(prompt), || first_line(io::stdin().lock(), MAX)).await?
    } else {
        first_line(stdin.lock(), MAX)?
    };
    Ok(Secret::new(line.trim()))
}

/// A line that is typed at the terminal of this process and not shown; `None` if there is
/// no terminal. ^C leaves the terminal as it was.
pub(crate) async fn at_terminal(prompt: &str) -> io::Result<Option<Zeroizing<String>>> {
    let Some(terminal) = terminal()? else { return Ok(None) };
    let input = BufReader::new(terminal.try_clone()?);
    let shown = || tell(prompt);
    hidden(terminal.into(), shown, || first_line(input, MAX)).await.map(Some)
}

/// Shows a text on the terminal of this process and nowhere else.
pub(crate) fn tell(text: &str) -> io::Result<()> {
    match terminal()? {
        Some(mut terminal) => terminal.write_all(format!("{text}\n").as_bytes()),
        None => Ok(()),
    }
}

/// The terminal of this process, if it has one.
pub(crate) fn terminal() -> io::Result<Option<File>> {
    match OpenOptions::new().read(true).write(true).open(Path::new(TERMINAL)) {
        Ok(terminal) => Ok(Some(terminal)),
        Err(error) if error.raw_os_error() == Some(nix::libc::ENXIO) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The first line, without its end.
pub(crate) fn first_line(input: impl BufRead, max: u64) -> io::Result<Zeroizing<String>> {
    // As large as it becomes: a buffer that moves leaves what it held behind.
    let mut line = Zeroizing::new(Vec::with_capacity(usize::try_from(max).unwrap_or(0)));
    input.take(max).read_until(b'\n', &mut line)?;
    let text = std::str::from_utf8(&line).map_err(io::Error::other)?;
    Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
}

async fn hidden(
    terminal: OwnedFd,
    show: impl FnOnce() -> io::Result<()>,
    read: impl FnOnce() -> io::Result<Zeroizing<String>> + Send + 'static,
) -> io::Result<Zeroizing<String>> {
    // Both before the prompt: whoever sees it can type, or interrupt.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let _hidden = Hidden::new(terminal)?;
    show()?;
    let line = tokio::task::spawn_blocking(read);
    tokio::select! {
        line = line => line.map_err(io::Error::other)?,
        _ = interrupt.recv() => Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted")),
    }
}

/// The terminal does not show what is typed until this is dropped.
struct Hidden {
    terminal: OwnedFd,
    before: Termios,
}

impl Hidden {
    fn new(terminal: OwnedFd) -> io::Result<Self> {
        let before = tcgetattr(terminal.as_fd())?;
        let mut hidden = before.clone();
        hidden.local_flags.remove(LocalFlags::ECHO);
        hidden.local_flags.insert(LocalFlags::ECHONL);
        tcsetattr(terminal.as_fd(), SetArg::TCSAFLUSH, &hidden)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // Nothing more can be done for the terminal.
        let _ = tcsetattr(self.terminal.as_fd(), SetArg::TCSAFLUSH, &self.before);
    }
}
