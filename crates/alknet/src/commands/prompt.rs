//! Reading a secret: from a pipe, or from the terminal without showing it.

use std::{
    fs::{File, OpenOptions},
    io::{self, IsTerminal as _, Read, Write as _},
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use alknet_core::Secret;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroizing;

use crate::output;

/// The longest secret that is read, in bytes.
const MAX: usize = 4096;
/// The terminal of this process, whatever its input and output are.
const TERMINAL: &str = "/dev/tty";

/// The first line of stdin. At a terminal `prompt` is shown and the typing is not; a signal
/// to end leaves the terminal as it was.
pub(crate) async fn secret(prompt: &str) -> io::Result<Secret> {
    let stdin = io::stdin();
    // Past the buffer of `Stdin`, where it would stay.
    let input = File::from(stdin.as_fd().try_clone_to_owned()?);
    let line = if stdin.is_terminal() {
        let terminal = input.try_clone()?.into();
        hidden(terminal, || output::note(prompt), || first_line(input)).await?
    } else {
        first_line(input)?
    };
    Ok(Secret::new(line.trim()))
}

/// A line that is typed at the terminal of this process and not shown; `None` if there is
/// no terminal. A signal to end leaves the terminal as it was.
pub(crate) async fn at_terminal(prompt: &str) -> io::Result<Option<Zeroizing<String>>> {
    let Some(terminal) = terminal()? else { return Ok(None) };
    let input = terminal.try_clone()?;
    hidden(terminal.into(), || tell(prompt), || first_line(input)).await.map(Some)
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

/// The first line, without its end. What comes after it may have been read as well.
pub(crate) fn first_line(mut input: impl Read) -> io::Result<Zeroizing<String>> {
    // As large as it becomes: a buffer that moves leaves what it held behind. The end of the
    // longest line fits too.
    let mut buffer = Zeroizing::new([0; MAX + 2]);
    let mut length = 0;
    while let Some(rest) = buffer.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(read) if rest.iter().take(read).any(|byte| *byte == b'\n') => {
                length += read;
                break;
            }
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let read = buffer.get(..length).unwrap_or_default();
    let mut line = read.split(|byte| *byte == b'\n').next().unwrap_or_default();
    while let Some(shorter) = line.strip_suffix(b"\r") {
        line = shorter;
    }
    if line.len() > MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the line is too long"));
    }
    let text = std::str::from_utf8(line);
    let text = text.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(Zeroizing::new(text.to_owned()))
}

async fn hidden(
    terminal: OwnedFd,
    show: impl FnOnce() -> io::Result<()>,
    read: impl FnOnce() -> io::Result<Zeroizing<String>> + Send + 'static,
) -> io::Result<Zeroizing<String>> {
    // All before the prompt: whoever sees it can type, or interrupt.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let _hidden = Hidden::new(terminal)?;
    show()?;
    let line = tokio::task::spawn_blocking(read);
    tokio::select! {
        line = line => return line.map_err(io::Error::other)?,
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_whole_or_not_at_all() {
        let longest = "x".repeat(MAX);
        for end in ["", "\n", "\r\n", "\nmore", "\r\nmore"] {
            for line in ["", "correct horse", &longest] {
                let text = format!("{line}{end}");
                assert_eq!(*first_line(text.as_bytes()).unwrap(), line);
                // However it is cut.
                let parts = text.as_bytes().split_at(text.len() / 2);
                assert_eq!(*first_line(parts.0.chain(parts.1)).unwrap(), line);
            }
            let error = first_line(format!("{longest}x{end}").as_bytes()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        }
        assert!(first_line(&b"\xff\n"[..]).is_err());
    }
}
