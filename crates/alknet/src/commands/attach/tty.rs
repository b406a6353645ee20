//! This process's terminal.

use std::io::{self, IsTerminal as _};

use alknet_shell::wire::Size;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::failure::Failure;

/// The size of the terminal; `None` if input and output are not both one.
pub(super) fn size() -> Option<Size> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return None;
    }
    let size = tcgetwinsize(io::stdout()).ok()?;
    // A serial line says 0.
    let or = |cells: u16, default| if cells == 0 { default } else { cells };
    Some(Size {
        columns: or(size.ws_col, super::NO_TERMINAL.columns),
        rows: or(size.ws_row, super::NO_TERMINAL.rows),
        width: size.ws_xpixel,
        height: size.ws_ypixel,
    })
}

/// The terminal passes everything on as it is typed, until this is dropped: on whatever way
/// the command ends, a panic among them.
#[derive(Debug)]
pub(super) struct Raw(Termios);

impl Raw {
    /// Enters that state if there is a terminal.
    pub(super) fn enter(there: bool) -> Result<Option<Self>, Failure> {
        if !there {
            return Ok(None);
        }
        let before = tcgetattr(io::stdin()).map_err(|e| super::at_terminal(e.into()))?;
        let mut raw = before.clone();
        raw.make_raw();
        let guard = Self(before);
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)
            .map_err(|e| super::at_terminal(e.into()))?;
        Ok(Some(guard))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // What was typed and not read is not for the shell that comes back.
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}
