//! Datagrams on a stream: a length of 2 bytes, big endian, then an address and the payload.

use std::io;

use alknet_core::{Connection, RecvStream, SendStream};
use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::Address;

/// A datagram with its address: where it goes to, or comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// The other end.
    pub address: Address,
    /// What it says.
    pub payload: Bytes,
}

impl Datagram {
    /// As it stands on a stream; `None` if it is too long for one.
    pub(crate) fn frame(&self) -> Option<Bytes> {
        let length = u16::try_from(self.address.len() + self.payload.len()).ok()?;
        let mut frame = BytesMut::with_capacity(2 + usize::from(length));
        frame.put_u16(length);
        self.address.write(&mut frame);
        frame.put_slice(&self.payload);
        Some(frame.freeze())
    }

    fn parse(frame: &[u8]) -> io::Result<Self> {
        let mut rest = frame;
        let address = Address::parse(&mut rest)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(Self { address, payload: Bytes::copy_from_slice(rest) })
    }
}

/// Writes datagrams to a stream.
#[derive(Debug)]
pub struct DatagramSender {
    pub(crate) stream: SendStream,
    /// Keeps a connection with a single stream.
    _connection: Option<Connection>,
}

impl DatagramSender {
    pub(crate) fn new(stream: SendStream, connection: Option<Connection>) -> Self {
        Self { stream, _connection: connection }
    }

    /// Sends one; one too long for a stream is lost, as the network would lose it. Not cancel
    /// safe: what is cut off in the middle spoils the stream.
    pub async fn send(&mut self, datagram: &Datagram) -> io::Result<()> {
        let Some(frame) = datagram.frame() else { return Ok(()) };
        self.stream.write_all(&frame).await?;
        self.stream.flush().await
    }

    /// Ends the direction.
    pub async fn finish(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }
}

/// Reads datagrams from a stream.
#[derive(Debug)]
pub struct DatagramReceiver {
    stream: RecvStream,
    /// What has been read of the next one.
    buffer: BytesMut,
    /// Keeps a connection with a single stream.
    _connection: Option<Connection>,
}

impl DatagramReceiver {
    pub(crate) fn new(stream: RecvStream, connection: Option<Connection>) -> Self {
        Self { stream, buffer: BytesMut::new(), _connection: connection }
    }

    /// Waits for the next one; `None` at the end. Cancel safe.
    pub async fn recv(&mut self) -> io::Result<Option<Datagram>> {
        loop {
            if let Some((head, rest)) = self.buffer.split_first_chunk::<2>() {
                let length = usize::from(u16::from_be_bytes(*head));
                if let Some(frame) = rest.get(..length) {
                    let datagram = Datagram::parse(frame)?;
                    drop(self.buffer.split_to(2 + length));
                    return Ok(Some(datagram));
                }
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
        }
    }
}
