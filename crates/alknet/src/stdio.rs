//! Joining this process's input and output to a stream.

mod standard;
mod sys;

use std::io;

use alknet_core::{Code, Stream, StreamReset};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

pub(crate) use standard::{input, output};

/// How much is read at once, in bytes.
const BUFFER: usize = 256 * 1024;

/// This process's input, read as asked and never ahead: what is left is there for others.
#[derive(Debug)]
pub(crate) struct Unbuffered;

impl io::Read for Unbuffered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| rustix::io::read(io::stdin(), &mut *buffer))?)
    }
}

/// Copies input to the stream and the stream to output until the peer has ended its side.
/// The end of the input ends only the sending side.
pub(crate) async fn join(
    stream: Stream,
    input: impl AsyncRead + Unpin,
    output: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    let (mut send, mut recv) = stream.split();
    let up = async {
        match copy(input, &mut send).await {
            Ok(()) => {
                let _ = send.shutdown().await;
                Ok(())
            }
            // Whoever wrote to us is gone, and waits for no answer.
            Err(Broken::From(error)) => Err(error),
            // The peer takes no more; what it still has to say is what counts.
            Err(Broken::To(_)) => Ok(()),
        }
    };
    let down = async {
        copy(&mut recv, output).await.map_err(|(Broken::From(error) | Broken::To(error))| error)
    };
    tokio::pin!(up, down);
    tokio::select! {
        result = &mut down => result,
        outcome = &mut up => match outcome {
            Ok(()) => down.await,
            Err(error) => Err(error),
        },
    }
    .or_else(|error| {
        if StreamReset::code_of(&error) == Some(Code::NORMAL) { Ok(()) } else { Err(error) }
    })
}

/// The side of a copy that failed.
enum Broken {
    From(io::Error),
    To(io::Error),
}

/// Copies to the end, flushing whenever there is nothing to read: a key press must not wait
/// for the next one.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
) -> Result<(), Broken> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = from.read(&mut buffer).await.map_err(Broken::From)?;
        if count == 0 {
            return to.flush().await.map_err(Broken::To);
        }
        to.write_all(buffer.get(..count).unwrap_or_default()).await.map_err(Broken::To)?;
        to.flush().await.map_err(Broken::To)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_input_leaves_output_open() {
        let (near, mut far) = tokio::io::duplex(64);
        let peer = async {
            let mut heard = Vec::new();
            far.read_to_end(&mut heard).await.unwrap();
            far.write_all(b"answer").await.unwrap();
            far.shutdown().await.unwrap();
            heard
        };
        let mut output = Vec::new();
        let (joined, heard) =
            tokio::join!(join(Stream::from_bistream(near), &b"question"[..], &mut output), peer);
        joined.unwrap();
        assert_eq!((heard.as_slice(), output.as_slice()), (&b"question"[..], &b"answer"[..]));
    }

    #[tokio::test]
    async fn the_end_of_the_peer_ends_it_though_input_goes_on() {
        let (near, mut far) = tokio::io::duplex(64);
        let (input, _held) = tokio::io::duplex(64);
        far.write_all(b"bye").await.unwrap();
        far.shutdown().await.unwrap();
        let mut output = Vec::new();
        join(Stream::from_bistream(near), input, &mut output).await.unwrap();
        assert_eq!(output, b"bye");
    }
}
