//! A QUIC connection as a [`Transport`]. The one place that names quinn's connection.

use std::{
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use quinn::{ReadError, VarInt, WriteError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    Closed, ClosedBy, Code, ConnectionError, RecvHalf, RecvStream, SendHalf, SendStream, Stream,
    StreamReset, Transport, TransportKind,
};

/// A quinn connection; the dialling side also keeps its endpoint alive.
#[derive(Debug)]
pub(crate) struct Quic {
    connection: quinn::Connection,
    endpoint: Option<quinn::Endpoint>,
}

impl Quic {
    pub(crate) fn accepted(connection: quinn::Connection) -> Self {
        Self { connection, endpoint: None }
    }

    pub(crate) fn dialled(connection: quinn::Connection, endpoint: quinn::Endpoint) -> Self {
        Self { connection, endpoint: Some(endpoint) }
    }
}

impl Transport for Quic {
    fn kind(&self) -> TransportKind {
        TransportKind::Quic
    }

    fn accept_bi(&self) -> BoxFuture<'_, Result<Stream, ConnectionError>> {
        Box::pin(async move { self.connection.accept_bi().await.map(stream).map_err(closed_error) })
    }

    fn open_bi(&self) -> BoxFuture<'_, Result<Stream, ConnectionError>> {
        Box::pin(async move { self.connection.open_bi().await.map(stream).map_err(closed_error) })
    }

    fn accept_uni(&self) -> BoxFuture<'_, Result<RecvStream, ConnectionError>> {
        Box::pin(async move {
            self.connection.accept_uni().await.map(recv_stream).map_err(closed_error)
        })
    }

    fn open_uni(&self) -> BoxFuture<'_, Result<SendStream, ConnectionError>> {
        Box::pin(
            async move { self.connection.open_uni().await.map(send_stream).map_err(closed_error) },
        )
    }

    fn read_datagram(&self) -> BoxFuture<'_, Result<Bytes, ConnectionError>> {
        Box::pin(async move { self.connection.read_datagram().await.map_err(closed_error) })
    }

    fn send_datagram(&self, datagram: Bytes) -> Result<(), ConnectionError> {
        self.connection.send_datagram(datagram).map_err(|error| match error {
            quinn::SendDatagramError::TooLarge => ConnectionError::TooLarge,
            quinn::SendDatagramError::ConnectionLost(error) => closed_error(error),
            quinn::SendDatagramError::UnsupportedByPeer | quinn::SendDatagramError::Disabled => {
                ConnectionError::Unsupported(TransportKind::Quic, "datagrams with this peer")
            }
        })
    }

    fn max_datagram_size(&self) -> Option<usize> {
        self.connection.max_datagram_size()
    }

    fn close(&self, code: Code, reason: &str) {
        self.connection.close(varint(code), reason.as_bytes());
    }

    fn closed(&self) -> BoxFuture<'_, Closed> {
        Box::pin(async move { closed(self.connection.closed().await) })
    }

    fn export_keying_material(
        &self,
        out: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ConnectionError> {
        self.connection.export_keying_material(out, label, context).map_err(|_| {
            ConnectionError::Unsupported(TransportKind::Quic, "keying material of this length")
        })
    }

    fn remote_addr(&self) -> Option<SocketAddr> {
        Some(canonical(self.connection.remote_address()))
    }

    fn drained(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Some(endpoint) = &self.endpoint {
                endpoint.wait_idle().await;
            }
        })
    }
}

/// An IPv4 address as such, also where the dual-stack socket saw it mapped into IPv6.
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

fn varint(code: Code) -> VarInt {
    VarInt::from_u64(code.value()).unwrap_or(VarInt::MAX)
}

fn code(varint: VarInt) -> Code {
    Code::new(varint.into_inner())
}

fn closed(error: quinn::ConnectionError) -> Closed {
    use quinn::ConnectionError as E;
    let lost = |reason: String| Closed { by: ClosedBy::Lost, code: Code::NORMAL, reason };
    match error {
        E::ApplicationClosed(close) => Closed {
            by: ClosedBy::Peer,
            code: code(close.error_code),
            reason: String::from_utf8_lossy(&close.reason).into_owned(),
        },
        E::LocallyClosed => {
            Closed { by: ClosedBy::Local, code: Code::NORMAL, reason: String::new() }
        }
        E::TimedOut => {
            Closed { by: ClosedBy::Lost, code: Code::TIMEOUT, reason: "timed out".into() }
        }
        other => lost(other.to_string()),
    }
}

fn closed_error(error: quinn::ConnectionError) -> ConnectionError {
    ConnectionError::Closed(closed(error))
}

fn lost(error: quinn::ConnectionError) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, closed_error(error))
}

fn id(stream: quinn::StreamId) -> Option<u64> {
    Some(VarInt::from(stream).into_inner())
}

fn stream((send, recv): (quinn::SendStream, quinn::RecvStream)) -> Stream {
    Stream::new(send_stream(send), recv_stream(recv))
}

fn send_stream(stream: quinn::SendStream) -> SendStream {
    let id = id(stream.id());
    SendStream::new(Send { stream, ended: false }, id)
}

fn recv_stream(stream: quinn::RecvStream) -> RecvStream {
    let id = id(stream.id());
    RecvStream::new(Recv(stream), id)
}

struct Send {
    stream: quinn::SendStream,
    ended: bool,
}

impl SendHalf for Send {
    fn reset(&mut self, code: Code) {
        self.ended = true;
        // A stream that is already over has nothing left to abandon.
        let _ = self.stream.reset(varint(code));
    }

    fn stopped(&self) -> BoxFuture<'static, Option<Code>> {
        let stopped = self.stream.stopped();
        Box::pin(async move { stopped.await.ok().flatten().map(code) })
    }
}

/// quinn finishes a dropped stream; a peer could then not tell a truncated one.
impl Drop for Send {
    fn drop(&mut self) {
        if !self.ended {
            self.reset(Code::CANCELLED);
        }
    }
}

impl AsyncWrite for Send {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf).map_err(|error| match error {
            WriteError::Stopped(stopped) => StreamReset(code(stopped)).into(),
            WriteError::ConnectionLost(error) => lost(error),
            other @ (WriteError::ClosedStream | WriteError::ZeroRttRejected) => {
                io::Error::new(io::ErrorKind::BrokenPipe, other)
            }
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ended = true;
        // Finishing twice, or after the peer stopped the stream, changes nothing.
        let _ = self.stream.finish();
        Poll::Ready(Ok(()))
    }
}

struct Recv(quinn::RecvStream);

fn read_error(error: ReadError) -> io::Error {
    match error {
        ReadError::Reset(reset) => StreamReset(code(reset)).into(),
        ReadError::ConnectionLost(error) => lost(error),
        other @ (ReadError::ClosedStream
        | ReadError::IllegalOrderedRead
        | ReadError::ZeroRttRejected) => io::Error::new(io::ErrorKind::BrokenPipe, other),
    }
}

impl AsyncRead for Recv {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.poll_read_buf(cx, buf).map_err(read_error)
    }
}

impl RecvHalf for Recv {
    fn stop(&mut self, code: Code) {
        // A stream that is already over cannot be stopped, and need not be.
        let _ = self.0.stop(varint(code));
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<io::Result<Option<Bytes>>> {
        let chunk = ready!(pin!(self.0.read_chunk(max, true)).poll(cx)).map_err(read_error)?;
        Poll::Ready(Ok(chunk.map(|chunk| chunk.bytes)))
    }
}
