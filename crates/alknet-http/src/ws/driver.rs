//! What goes on beside the two halves: pings, pongs and the closing handshake.

use std::{
    fmt, future, io,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::{
    Ended, Role, close,
    frame::Opcode,
    inbound::Inbound,
    link::{Shared, Waiting},
};

/// How often the server pings, and how long the peer may be silent after a ping.
const PING: Duration = Duration::from_secs(30);
/// How long the closing handshake may take.
const CLOSING: Duration = Duration::from_secs(5);

/// The background part of a WebSocket: polled to its end by whoever owns the connection.
#[must_use = "a WebSocket stalls when its driver is not polled"]
pub(crate) struct Driver {
    shared: Arc<Shared>,
    role: Role,
    inbound: Option<Inbound>,
    pinged: bool,
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>, role: Role) -> Self {
        Self { shared, role, inbound: None, pinged: false }
    }

    /// Runs until the WebSocket is closed, at most a few seconds after both halves are
    /// dropped.
    pub(crate) async fn run(mut self) {
        self.serve().await;
        if self.shared.ended() == Some(Ended::Lost) {
            return;
        }
        if timeout(CLOSING, self.close()).await.is_err() {
            tracing::debug!("the WebSocket's peer did not close in time");
        }
    }

    /// Sends control frames until it is time to close.
    async fn serve(&mut self) {
        let mut pings = interval_at(Instant::now() + PING, PING);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.take_returned();
            if self.shared.ended().is_some() || self.shared.is_abandoned() {
                return;
            }
            let shared = self.shared.clone();
            tokio::select! {
                () = shared.changed.notified() => {}
                sent = flush(&shared), if shared.is_unflushed() => if sent.is_err() {
                    shared.lost();
                },
                () = drain(&shared, &mut self.inbound) => {}
                _ = pings.tick(), if self.role == Role::Server => self.beat(),
            }
        }
    }

    /// Pings, and gives up a peer that has not been heard of since the last ping although
    /// somebody listens.
    fn beat(&mut self) {
        let heard = self.shared.heard.swap(false, Ordering::Relaxed);
        let listening = self.shared.listening.load(Ordering::Relaxed) || self.inbound.is_some();
        let silent = self.pinged && listening && !heard;
        if silent || self.shared.control(Opcode::Ping, &[]).is_err() {
            tracing::debug!("the WebSocket's peer is silent");
            self.shared.lost();
        }
        self.pinged = listening;
    }

    /// Sends the close frame, waits for the peer's, and ends the transport.
    async fn close(&mut self) -> io::Result<()> {
        let due = self.shared.state().close.unwrap_or(close::NORMAL);
        self.shared.push_close(due)?;
        flush(&self.shared).await?;
        if !matches!(self.shared.ended(), Some(Ended::Peer(_))) {
            self.await_close().await;
        }
        let shared = &self.shared;
        future::poll_fn(|cx| {
            shared.with_outbound(Waiting::Control, cx, |out, cx| out.poll_shutdown(cx))
        })
        .await
    }

    /// Reads on until the peer closes, as soon as the receiving half is done.
    async fn await_close(&mut self) {
        loop {
            self.take_returned();
            if self.inbound.is_some() {
                return drain(&self.shared, &mut self.inbound).await;
            }
            self.shared.changed.notified().await;
        }
    }

    fn take_returned(&mut self) {
        if let Some(inbound) = self.shared.state().returned.take() {
            self.inbound = Some(inbound);
        }
    }
}

async fn flush(shared: &Shared) -> io::Result<()> {
    future::poll_fn(|cx| shared.with_outbound(Waiting::Control, cx, |out, cx| out.poll_flush(cx)))
        .await
}

/// Drops what arrives for a receiving half that is gone; waits for ever while it is not.
async fn drain(shared: &Shared, inbound: &mut Option<Inbound>) {
    let Some(inbound) = inbound else { return future::pending().await };
    future::poll_fn(|cx| Pin::new(&mut *inbound).poll_drain(shared, cx)).await;
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("role", &self.role).finish_non_exhaustive()
    }
}
