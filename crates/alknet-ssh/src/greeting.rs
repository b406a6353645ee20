//! How a client has to begin (RFC 4253, section 4.2).

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What every client says first.
const BEGINNING: &[u8] = b"SSH-";
/// What whoever speaks something else is told, in OpenSSH's words.
const REFUSAL: &[u8] = b"Invalid SSH identification string.\r\n";

/// A stream whose writes never wait, read from by a server of SSH. Its reads fail at the first
/// byte that does not belong to SSH, and the other end is told.
pub(crate) struct Greeted<S> {
    stream: S,
    /// What is still to come of the beginning.
    rest: &'static [u8],
}

impl<S: AsyncWrite + Unpin> Greeted<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, rest: BEGINNING }
    }

    fn check(&mut self, read: &[u8], cx: &mut Context<'_>) -> io::Result<()> {
        let here = self.rest.len().min(read.len());
        let (expected, rest) = self.rest.split_at(here);
        if !read.starts_with(expected) {
            let _ = Pin::new(&mut self.stream).poll_write(cx, REFUSAL)?;
            return Err(io::Error::new(io::ErrorKind::InvalidData, "this is not SSH"));
        }
        self.rest = rest;
        Ok(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Greeted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let read = buf.filled().get(before..).unwrap_or_default();
        Poll::Ready(self.check(read, cx))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Greeted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    /// What a server reads of these pieces, and what the client is told.
    async fn said(pieces: &[&[u8]]) -> (io::Result<Vec<u8>>, Vec<u8>) {
        let (mut client, server) = duplex(1024);
        let mut server = Greeted::new(server);
        let (mut read, mut failed) = (Vec::new(), None);
        for piece in pieces {
            client.write_all(piece).await.unwrap();
            let mut buffer = vec![0; piece.len()];
            match server.read_exact(&mut buffer).await {
                Ok(_) => read.extend(buffer),
                Err(error) => failed = Some(error),
            }
        }
        drop(server);
        let mut told = Vec::new();
        client.read_to_end(&mut told).await.unwrap();
        (failed.map_or(Ok(read), Err), told)
    }

    #[tokio::test]
    async fn who_speaks_ssh_is_read_and_others_are_told() {
        for pieces in [&[&b"SSH-2.0-x\r\nmore"[..]][..], &[b"S", b"SH", b"-2.0-x\r\nmore"]] {
            let (read, told) = said(pieces).await;
            assert_eq!(
                (read.unwrap().as_slice(), told.as_slice()),
                (&b"SSH-2.0-x\r\nmore"[..], &[][..])
            );
        }
        for pieces in
            [&[&b"\n"[..]][..], &[b"GET / HTTP/1.1\r\n"], &[b"SS", b"L"], &[b"SSH-", b"2"]]
        {
            let (read, told) = said(pieces).await;
            let ssh = pieces.concat().starts_with(BEGINNING);
            assert_eq!((read.is_ok(), told == REFUSAL), (ssh, !ssh), "{pieces:?}");
        }
    }
}
