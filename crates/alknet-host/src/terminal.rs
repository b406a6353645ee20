//! A pseudo-terminal.

use std::{
    fs::OpenOptions,
    io,
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStringExt as _, fs::OpenOptionsExt as _},
    },
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use rustix::{
    fs::Mode,
    io::Errno,
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{OptionalActions, Termios, Winsize, tcgetattr, tcsetattr, tcsetwinsize},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, unix::AsyncFd};

use crate::{Account, sys};

/// A read of the kernel's terminal buffer never gives more than this.
const READ: usize = 8 * 1024;

/// The owning end of a pseudo-terminal. Reads end when the last process on the terminal is
/// gone; dropping it hangs the terminal up.
#[derive(Debug, Clone)]
pub struct Terminal(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    master: AsyncFd<OwnedFd>,
    path: PathBuf,
}

/// Rows, columns and pixels, as a client gives them.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Characters in a line.
    pub columns: u32,
    /// Lines.
    pub rows: u32,
    /// Pixels across; 0 where nobody knows.
    pub width: u32,
    /// Pixels down; 0 where nobody knows.
    pub height: u32,
}

impl Size {
    /// What nobody has told.
    pub const UNKNOWN: Self = Self { columns: 0, rows: 0, width: 0, height: 0 };
}

impl Terminal {
    /// Opens a terminal and the end of it that a child gets; `configure` sets its modes.
    pub fn open(size: Size, configure: impl FnOnce(&mut Termios)) -> io::Result<(Self, OwnedFd)> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        rustix::io::ioctl_fionbio(&master, true)?;
        let name = ptsname(&master, Vec::new())?;
        let path = PathBuf::from(std::ffi::OsString::from_vec(name.into_bytes()));
        let slave: OwnedFd = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(nix::libc::O_NOCTTY)
            .open(&path)?
            .into();
        let mut settings = tcgetattr(&slave)?;
        configure(&mut settings);
        tcsetattr(&slave, OptionalActions::Now, &settings)?;
        let terminal = Self(Arc::new(Inner { master: sys::watch(master)?, path }));
        terminal.resize(size)?;
        Ok((terminal, slave))
    }

    /// Sets the size; the processes on the terminal are told by the kernel.
    pub fn resize(&self, size: Size) -> io::Result<()> {
        let cells = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
        let size = Winsize {
            ws_row: cells(size.rows),
            ws_col: cells(size.columns),
            ws_xpixel: cells(size.width),
            ws_ypixel: cells(size.height),
        };
        Ok(tcsetwinsize(self.0.master.get_ref(), size)?)
    }

    /// Gives the device to an account that programs become, which else could not open it:
    /// theirs to read and write, and for the group `tty` to write messages to. It ends with
    /// this terminal, so nothing is to be taken back.
    pub fn give_to(&self, account: &Account) -> io::Result<()> {
        let Some(switch) = &account.switch else { return Ok(()) };
        // The path is this terminal's for as long as it is open.
        let group = switch.messages.unwrap_or(switch.gid);
        let mode = if switch.messages.is_some() { 0o620 } else { 0o600 };
        rustix::fs::chown(&self.0.path, Some(switch.uid), Some(group))?;
        Ok(rustix::fs::chmod(&self.0.path, Mode::from_raw_mode(mode))?)
    }

    /// The device in the file system.
    pub fn path(&self) -> &PathBuf {
        &self.0.path
    }

    /// A handle that does not keep the terminal open.
    pub fn downgrade(&self) -> WeakTerminal {
        WeakTerminal(Arc::downgrade(&self.0))
    }
}

/// A handle that does not keep the terminal open.
#[derive(Debug)]
pub struct WeakTerminal(std::sync::Weak<Inner>);

impl WeakTerminal {
    /// The terminal, if it is still open.
    pub fn upgrade(&self) -> Option<Terminal> {
        self.0.upgrade().map(Terminal)
    }
}

impl AsyncRead for Terminal {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.master.poll_read_ready(cx))?;
            let space = buf.initialize_unfilled_to(buf.remaining().min(READ));
            match guard.try_io(|master| Ok(rustix::io::read(master.get_ref(), &mut *space)?)) {
                Ok(Ok(len)) => {
                    buf.advance(len);
                    return Poll::Ready(Ok(()));
                }
                // How the kernel says that nobody has the other end open.
                Ok(Err(error)) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.master.poll_write_ready(cx))?;
            match guard.try_io(|master| Ok(rustix::io::write(master.get_ref(), buf)?)) {
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
