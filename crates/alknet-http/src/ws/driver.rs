//! Carries messages between a WebSocket and its halves.

use std::{
    fmt, future, io,
    ops::Deref,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use alknet_core::Stream;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _, stream::FusedStream as _};
use tokio::{
    io::AsyncWriteExt as _,
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        error::ProtocolError,
        protocol::{CloseFrame, WebSocketConfig},
    },
};

use super::{
    Role, close,
    heard::Heard,
    link::{Ended, Link},
};

/// How long the closing handshake may take.
const CLOSING: Duration = Duration::from_secs(5);
/// The most that a peer's message may hold, in bytes.
const MAX_MESSAGE: usize = 1 << 20;
/// How much is read at once, and how much is gathered before it is written, in bytes.
const BUFFER: usize = 64 * 1024;
/// The most that may wait for a transport that takes nothing, in bytes: a message and pongs.
const MAX_UNSENT: usize = 4 * BUFFER;

/// How often a peer is pinged, and how many pings in a row it may leave without any byte.
///
/// A peer that does not read answers none, and its own pings are what is heard of it: a client
/// pings well within the time that a server waits, and waits for longer than a server is
/// silent.
const fn pace(role: Role) -> (Duration, u32) {
    match role {
        Role::Server => (Duration::from_secs(30), 1),
        Role::Client => (Duration::from_secs(20), 3),
    }
}

/// The background part of a WebSocket: polled to its end by whoever owns the connection.
#[must_use = "a WebSocket stalls when its driver is not polled"]
pub(crate) struct Driver {
    stream: Stream,
    head: Bytes,
    role: Role,
    link: Attached,
}

impl Driver {
    pub(super) fn new(stream: Stream, head: Bytes, role: Role, link: Arc<Link>) -> Self {
        Self { stream, head, role, link: Attached(link) }
    }

    /// Runs until the WebSocket is closed, at most a few seconds after both halves are
    /// dropped. Both halves fail when this is dropped before.
    pub(crate) async fn run(self) {
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER)
            .write_buffer_size(BUFFER)
            .max_write_buffer_size(MAX_UNSENT)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let (stream, head) = (Heard::new(self.stream), self.head.into());
        let socket =
            WebSocketStream::from_partially_read(stream, head, self.role, Some(config)).await;
        let mut pump = Pump {
            socket,
            link: self.link,
            next: None,
            ping_due: false,
            unflushed: false,
            unanswered: 0,
        };
        let ended = pump.serve(self.role).await;
        if timeout(CLOSING, pump.close(ended)).await.is_err() {
            tracing::debug!("the WebSocket's peer did not close in time");
        }
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("role", &self.role).finish_non_exhaustive()
    }
}

/// The driver's hold on the link: without it the halves would wait for ever.
struct Attached(Arc<Link>);

impl Deref for Attached {
    type Target = Link;

    fn deref(&self) -> &Link {
        &self.0
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.0.end(Ended::Lost);
    }
}

struct Pump {
    socket: WebSocketStream<Heard>,
    link: Attached,
    /// A message that the transport had no room for.
    next: Option<Message>,
    ping_due: bool,
    unflushed: bool,
    /// Pings since which nothing came although there was room for it.
    unanswered: u32,
}

impl Pump {
    /// Carries messages until it is time to close.
    async fn serve(&mut self, role: Role) -> Ended {
        let (period, patience) = pace(role);
        let mut pings = interval_at(Instant::now() + period, period);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                ended = future::poll_fn(|cx| self.poll_serve(cx)) => return ended,
                // Whoever only waits would not notice, behind a proxy, that nobody is there.
                _ = pings.tick() => self.beat(patience),
            }
        }
    }

    /// Pings, and gives up a peer that has not been heard of since the last pings although
    /// there is room for what it sends.
    fn beat(&mut self, patience: u32) {
        let heard = self.socket.get_mut().take();
        let listening = self.link.is_receiving();
        if heard || !listening {
            self.unanswered = 0;
        }
        if self.unanswered >= patience {
            tracing::debug!("the WebSocket's peer is silent");
            return self.link.end(Ended::Lost);
        }
        self.ping_due = true;
        self.unanswered += u32::from(listening);
    }

    /// Takes turns between the directions, so that neither waits for the other.
    fn poll_serve(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        self.link.register_driver(cx);
        loop {
            if let Some(ended) = self.link.ended() {
                return Poll::Ready(ended);
            }
            let sent = self.poll_send(cx).map_err(|error| self.fail(&error));
            let received = self.poll_receive(cx);
            if sent.is_pending() && received.is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn next_message(&mut self) -> Option<Message> {
        if self.next.is_some() {
            return self.next.take();
        }
        let ping = std::mem::take(&mut self.ping_due).then(|| Message::Ping(Bytes::new()));
        ping.or_else(|| self.link.next_message())
    }

    /// Sends one message, or flushes when there is none; pending when all is sent.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Some(message) = self.next_message() else {
            return self.poll_flush(cx);
        };
        if self.socket.poll_ready_unpin(cx)?.is_pending() {
            self.next = Some(message);
            return Poll::Pending;
        }
        self.unflushed = true;
        match self.socket.start_send_unpin(message) {
            // Pongs that the peer does not read have filled the buffer.
            Err(Error::WriteBufferFull(message)) => {
                self.next = Some(*message);
                self.socket.poll_flush_unpin(cx)
            }
            sent => Poll::Ready(sent),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if !self.unflushed {
            return Poll::Pending;
        }
        let flushed = self.socket.poll_flush_unpin(cx)?;
        if flushed.is_ready() {
            self.unflushed = false;
            self.link.flushed();
        }
        flushed.map(Ok)
    }

    /// Receives one message, if there is room for it.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.link.is_receiving() || self.socket.is_terminated() {
            return Poll::Pending;
        }
        self.socket.poll_next_unpin(cx).map(|message| match message {
            Some(Ok(message)) => self.receive(message),
            Some(Err(error)) => self.fail(&error),
            None => self.link.end(Ended::Lost),
        })
    }

    fn receive(&self, message: Message) {
        match message {
            Message::Binary(data) => {
                if !self.link.deliver(data) {
                    tracing::debug!("the WebSocket's peer sent data after the end");
                    self.link.end(Ended::Local(close::PROTOCOL_ERROR));
                }
            }
            Message::Text(_) => self.link.end(Ended::Local(close::UNSUPPORTED_DATA)),
            Message::Close(frame) => {
                let code = close::from_wire(frame.map(|frame| frame.code.into()));
                self.link.end(Ended::Peer(code));
            }
            // The library answers pings.
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }

    fn fail(&self, error: &Error) {
        tracing::debug!(%error, "a WebSocket failed");
        self.link.end(match error {
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Ended::Lost,
            Error::Protocol(_) => Ended::Local(close::PROTOCOL_ERROR),
            Error::Capacity(_) => Ended::Local(close::TOO_BIG),
            Error::Utf8(_) => Ended::Local(close::INVALID_PAYLOAD),
            _ => Ended::Lost,
        });
    }

    /// Goes through the closing handshake and ends the transport.
    async fn close(&mut self, ended: Ended) -> Result<(), Error> {
        match ended {
            Ended::Lost => return Ok(()),
            // What answers the peer's close frame waits in the library.
            Ended::Peer(_) => self.socket.flush().await?,
            Ended::Local(code) => self.close_locally(code).await?,
        }
        self.socket.get_mut().shutdown().await?;
        if self.socket.is_terminated() && matches!(ended, Ended::Local(_)) {
            self.linger().await?;
        }
        Ok(())
    }

    /// Sends what is queued and a close frame, and reads on for the peer's.
    async fn close_locally(&mut self, code: u16) -> Result<(), Error> {
        while let Some(message) = self.next_message() {
            self.socket.flush().await?;
            self.socket.feed(message).await?;
        }
        // Only an empty buffer is sure to take the close frame.
        self.socket.flush().await?;
        let frame = CloseFrame { code: code.into(), reason: "".into() };
        self.socket.close(Some(frame)).await?;
        while let Some(Ok(message)) = self.socket.next().await {
            if message.is_close() {
                break;
            }
        }
        Ok(())
    }

    /// Reads on without looking: a transport that is dropped with bytes unread may take
    /// the close frame with it.
    async fn linger(&mut self) -> io::Result<()> {
        tokio::io::copy(self.socket.get_mut(), &mut tokio::io::sink()).await.map(drop)
    }
}
