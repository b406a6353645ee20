//! Standard input and output that wait without a thread of their own, where what they are
//! allows it.
//!
//! Whoever started this process may use the same pipe or socket elsewhere, so that it must not
//! become non-blocking for all: a pipe is opened once more, and a socket is asked not to block
//! at each call.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustix::{
    fs::{FileType, fstat},
    net::{RecvFlags, SendFlags, recv, send},
    pipe::fcntl_setpipe_size,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, unix::AsyncFd},
    net::unix::pipe,
};

use super::sys::watch;

/// How much a pipe may hold, in bytes: what the system allows to anybody.
const PIPE: usize = 1 << 20;

/// Input or output of this process.
pub(crate) type Input = Box<dyn AsyncRead + Send + Unpin>;
/// See [`Input`].
pub(crate) type Output = Box<dyn AsyncWrite + Send + Unpin>;

/// This process's input. Must be called within a tokio runtime.
pub(crate) fn input() -> Input {
    let stdin = io::stdin();
    fast_input(stdin.as_fd()).unwrap_or_else(|_| Box::new(tokio::io::stdin()))
}

/// This process's output. Must be called within a tokio runtime.
pub(crate) fn output() -> Output {
    let stdout = io::stdout();
    fast_output(stdout.as_fd()).unwrap_or_else(|_| Box::new(tokio::io::stdout()))
}

fn fast_input(fd: BorrowedFd<'_>) -> io::Result<Input> {
    match kind(fd)? {
        FileType::Socket => Ok(Box::new(Socket::new(fd)?)),
        FileType::Fifo => {
            widen(fd);
            Ok(Box::new(pipe::OpenOptions::new().open_receiver(path(fd))?))
        }
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

fn fast_output(fd: BorrowedFd<'_>) -> io::Result<Output> {
    match kind(fd)? {
        FileType::Socket => Ok(Box::new(Socket::new(fd)?)),
        FileType::Fifo => {
            widen(fd);
            Ok(Box::new(pipe::OpenOptions::new().open_sender(path(fd))?))
        }
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

fn kind(fd: BorrowedFd<'_>) -> io::Result<FileType> {
    Ok(FileType::from_raw_mode(fstat(fd)?.st_mode))
}

/// Makes room for more, so that both ends of a pipe take turns less often.
fn widen(fd: BorrowedFd<'_>) {
    // A user has a limit for all pipes together; with less it is only slower.
    let _ = fcntl_setpipe_size(fd, PIPE);
}

fn path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// A stream socket of whatever family.
struct Socket(AsyncFd<OwnedFd>);

impl Socket {
    fn new(fd: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self(watch(fd.try_clone_to_owned()?)?))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            let received =
                ready.try_io(|fd| Ok(recv(fd, buf.initialize_unfilled(), RecvFlags::DONTWAIT)?.0));
            if let Ok(received) = received {
                return Poll::Ready(received.map(|len| buf.advance(len)));
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(cx))?;
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            if let Ok(sent) = ready.try_io(|fd| Ok(send(fd, bytes, flags)?)) {
                return Poll::Ready(sent);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The end of this process ends it.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use rustix::fs::{OFlags, fcntl_getfl};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// More than a pipe or a socket holds, so that both ends have to wait.
    const LEN: usize = 3 << 20;

    fn blocks(fd: impl AsFd) -> bool {
        !fcntl_getfl(fd).unwrap().contains(OFlags::NONBLOCK)
    }

    async fn passes_all(mut output: Output, mut input: Input) {
        let bytes = Vec::from_iter((0..LEN).map(|at| at.to_le_bytes()[0]));
        let sent = async {
            output.write_all(&bytes).await.unwrap();
            output
        };
        let mut received = vec![0; LEN];
        let (output, read) = tokio::join!(sent, input.read_exact(&mut received));
        read.unwrap();
        assert!(received == bytes);
        drop(output);
    }

    #[tokio::test]
    async fn a_pipe_carries_all_and_stays_as_it_was_for_others() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        passes_all(fast_output(write.as_fd()).unwrap(), fast_input(read.as_fd()).unwrap()).await;
        assert!(blocks(&read) && blocks(&write));
    }

    #[tokio::test]
    async fn a_socket_carries_all_and_stays_as_it_was_for_others() {
        let (near, far) = UnixStream::pair().unwrap();
        passes_all(fast_output(near.as_fd()).unwrap(), fast_input(far.as_fd()).unwrap()).await;
        assert!(blocks(&near) && blocks(&far));
    }

    #[tokio::test]
    async fn the_end_is_read_once_all_writers_are_gone() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let mut input = fast_input(read.as_fd()).unwrap();
        let output = fast_output(write.as_fd()).unwrap();
        drop((output, write));
        assert_eq!(input.read_u8().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn a_file_is_left_to_a_thread() {
        let file = tempfile::tempfile().unwrap();
        assert!(fast_input(file.as_fd()).is_err());
        assert!(fast_output(file.as_fd()).is_err());
    }
}
