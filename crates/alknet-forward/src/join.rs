//! The bytes of two connections into each other.

use std::io;

use alknet_core::{Code, Stream};
use alknet_host::network::Connected;
use tokio::{
    io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes},
    net::{TcpStream, UnixStream},
};

/// How much is read at once, in bytes.
const BUFFER: usize = 64 * 1024;

/// A socket on either side.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// Has the other end see that what it got is not all, once this is dropped.
    fn break_off(&self) -> io::Result<()>;
}

impl Socket for Connected {
    fn break_off(&self) -> io::Result<()> {
        self.reset_on_drop()
    }
}

impl Socket for TcpStream {
    fn break_off(&self) -> io::Result<()> {
        self.set_zero_linger()
    }
}

impl Socket for UnixStream {
    fn break_off(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A socket whose other end is not to take a part for the whole: dropped before both
/// directions have ended, by whatever ends this side, it is reset.
#[derive(Debug)]
pub(crate) struct ResetOnDrop<S: Socket> {
    pub(crate) socket: S,
    ended: bool,
}

impl<S: Socket> ResetOnDrop<S> {
    pub(crate) fn new(socket: S) -> Self {
        Self { socket, ended: false }
    }
}

impl<S: Socket> Drop for ResetOnDrop<S> {
    fn drop(&mut self) {
        if !self.ended
            && let Err(error) = self.socket.break_off()
        {
            tracing::debug!(%error, "a connection cannot be reset");
        }
    }
}

/// Copies both ways until both have ended. The end of one direction is passed on and leaves
/// the other open; a failure on either side is a reset on the other, and so is the end of
/// this future before its time.
pub(crate) async fn join<S: Socket>(mut stream: Stream, mut guarded: ResetOnDrop<S>) {
    let socket = &mut guarded.socket;
    match copy_bidirectional_with_sizes(&mut stream, socket, BUFFER, BUFFER).await {
        Ok(_) => guarded.ended = true,
        Err(error) => {
            tracing::debug!(%error, "a forwarded connection broke off");
            stream.reset(Code::CANCELLED);
        }
    }
}
