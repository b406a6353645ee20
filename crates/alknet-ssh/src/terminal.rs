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

use russh::Pty;
use rustix::{
    io::Errno,
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, unix::AsyncFd};

use crate::{modes, sys};

/// A read of the kernel's terminal buffer never gives more than this.
const READ: usize = 8 * 1024;

/// The owning end of a pseudo-terminal. Reads end when the last process on the terminal is
/// gone; dropping it hangs the terminal up.
#[derive(Debug, Clone)]
pub(crate) struct Terminal(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    master: AsyncFd<OwnedFd>,
    path: PathBuf,
}

/// Rows, columns and pixels, as a client gives them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) columns: u32,
    pub(crate) rows: u32,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

impl Terminal {
    /// Opens a terminal and the end of it that a child gets.
    pub(crate) fn open(size: Size, modes: &[(Pty, u32)]) -> io::Result<(Self, OwnedFd)> {
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
        modes::apply(&mut settings, modes);
        tcsetattr(&slave, OptionalActions::Now, &settings)?;
        let terminal = Self(Arc::new(Inner { master: sys::watch(master)?, path }));
        terminal.resize(size)?;
        Ok((terminal, slave))
    }

    /// Sets the size; the processes on the terminal are told by the kernel.
    pub(crate) fn resize(&self, size: Size) -> io::Result<()> {
        let cells = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
        let size = Winsize {
            ws_row: cells(size.rows),
            ws_col: cells(size.columns),
            ws_xpixel: cells(size.width),
            ws_ypixel: cells(size.height),
        };
        Ok(tcsetwinsize(self.0.master.get_ref(), size)?)
    }

    /// The device in the file system.
    pub(crate) fn path(&self) -> &PathBuf {
        &self.0.path
    }

    /// A handle that does not keep the terminal open.
    pub(crate) fn downgrade(&self) -> WeakTerminal {
        WeakTerminal(Arc::downgrade(&self.0))
    }
}

/// A handle that does not keep the terminal open.
#[derive(Debug)]
pub(crate) struct WeakTerminal(std::sync::Weak<Inner>);

impl WeakTerminal {
    /// The terminal, if it is still open.
    pub(crate) fn upgrade(&self) -> Option<Terminal> {
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
