//! Standard input and output as streams that do not block.

use std::os::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    unix::net::UnixStream as StdUnixStream,
};

use rustix::{
    fs::{FileType, fstat},
    pipe::fcntl_setpipe_size,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{UnixStream, unix::pipe},
};

use super::Outcome;

/// How much a pipe may hold, in bytes.
const PIPE: usize = 1 << 20;

type Input = Box<dyn AsyncRead + Unpin>;
type Output = Box<dyn AsyncWrite + Unpin>;

/// Both, by what they are: a pipe, a socket, or something that needs a thread to wait for it.
pub(super) fn standard() -> Outcome<(Input, Output)> {
    let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
    let input: Input = match kind(stdin.as_fd())? {
        FileType::Fifo => Box::new(pipe::Receiver::from_owned_fd(wide(stdin.as_fd())?)?),
        FileType::Socket => Box::new(socket(stdin.as_fd())?),
        _ => Box::new(tokio::io::stdin()),
    };
    let output: Output = match kind(stdout.as_fd())? {
        FileType::Fifo => Box::new(pipe::Sender::from_owned_fd(wide(stdout.as_fd())?)?),
        FileType::Socket => Box::new(socket(stdout.as_fd())?),
        _ => Box::new(tokio::io::stdout()),
    };
    Ok((input, output))
}

fn kind(of: BorrowedFd<'_>) -> Outcome<FileType> {
    Ok(FileType::from_raw_mode(fstat(of)?.st_mode))
}

/// A pipe with as much room as the system gives.
fn wide(of: BorrowedFd<'_>) -> Outcome<OwnedFd> {
    let _ = fcntl_setpipe_size(of, PIPE);
    of.try_clone_to_owned()
}

fn socket(of: BorrowedFd<'_>) -> Outcome<UnixStream> {
    let socket = StdUnixStream::from(of.try_clone_to_owned()?);
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}
