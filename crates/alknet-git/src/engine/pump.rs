//! Carrying bytes between a stream and a pipe.

use std::{future::poll_fn, io, os::fd::AsFd, pin::Pin, task::Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

/// How much is carried at once, in bytes: several packets of git's side-band.
const BUFFER: usize = 256 << 10;
/// How large the kernel is asked to make a pipe, in bytes: what it allows by default.
const PIPE: usize = 1 << 20;

/// Which end failed.
#[derive(Debug)]
pub(super) enum Broken {
    From(io::Error),
    To(io::Error),
}

/// Makes a pipe as large as it gets, so that neither side waits for the other at each packet.
pub(super) fn widen(pipe: impl AsFd) {
    // A kernel that keeps pipes small is slower, and no worse.
    if let Err(error) = rustix::pipe::fcntl_setpipe_size(pipe, PIPE) {
        tracing::debug!(%error, "a pipe stays as it is");
    }
}

/// Carries everything from one to the other, and says how much. What was written is flushed
/// when there is nothing more to read at the moment, and at the end.
pub(super) async fn pump(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    carried: impl Fn(u64),
) -> Result<(), Broken> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = match read_now(from, &mut buffer).await {
            Some(count) => count,
            None => {
                to.flush().await.map_err(Broken::To)?;
                from.read(&mut buffer).await
            }
        };
        let count = count.map_err(Broken::From)?;
        if count == 0 {
            return to.flush().await.map_err(Broken::To);
        }
        to.write_all(buffer.get(..count).unwrap_or_default()).await.map_err(Broken::To)?;
        carried(u64::try_from(count).unwrap_or(u64::MAX));
    }
}

/// Reads to the end and keeps nothing.
pub(super) async fn discard(from: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    while from.read(&mut buffer).await? > 0 {}
    Ok(())
}

/// What there is to read without waiting.
async fn read_now(
    from: &mut (impl AsyncRead + Unpin),
    buffer: &mut [u8],
) -> Option<io::Result<usize>> {
    poll_fn(|context| {
        let mut into = ReadBuf::new(buffer);
        Poll::Ready(match Pin::new(&mut *from).poll_read(context, &mut into) {
            Poll::Ready(read) => Some(read.map(|()| into.filled().len())),
            Poll::Pending => None,
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use tokio::io::{duplex, split};

    use super::*;

    /// Counts flushes.
    #[derive(Default)]
    struct Sink {
        written: Vec<u8>,
        flushes: usize,
    }

    impl AsyncWrite for Sink {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.written.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(
            mut self: Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> Poll<io::Result<()>> {
            self.flushes += 1;
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(
            self: Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn everything_is_carried_and_flushed_only_when_there_is_no_more() {
        let all: Vec<u8> = (0..=255).cycle().take(5 * BUFFER + 3).collect();
        let (mut sink, carried) = (Sink::default(), std::cell::Cell::new(0));
        let count = |bytes| carried.set(carried.get() + bytes);
        pump(&mut all.as_slice(), &mut sink, count).await.unwrap();
        assert_eq!((sink.written.len(), sink.flushes), (all.len(), 1));
        assert_eq!((sink.written, carried.get()), (all.clone(), all.len() as u64));

        let (near, far) = duplex(1 << 20);
        let (mut from, _) = split(far);
        let (_, mut near) = split(near);
        let mut sink = Sink::default();
        let write = async move {
            near.write_all(b"ask").await.unwrap();
            // The reader has nothing to do and has to flush before it waits.
            tokio::task::yield_now().await;
            near.write_all(b"more").await.unwrap();
            near.shutdown().await.unwrap();
        };
        let (pumped, ()) = tokio::join!(pump(&mut from, &mut sink, |_| ()), write);
        pumped.unwrap();
        assert!(sink.flushes >= 2);
        assert_eq!(sink.written, b"askmore");
    }
}
