//! One WebSocket is one byte stream (RFC 6455).
//!
//! Wire format, both ways alike:
//! - The bytes of binary messages are the stream; where messages begin and end means
//!   nothing. A message holds at most 1 MiB; a longer one ends the WebSocket with close
//!   code 1009.
//! - An empty binary message ends the stream in its direction; the other one stays open.
//! - A text message breaks the protocol (close code 1003, or 1007 where it is not UTF-8).
//! - Close code 1000 is [`Code::NORMAL`](alknet_core::Code::NORMAL), and 4000 + n is code n: see [`close`].
//! - The server pings every 30 seconds, and a peer that sends no byte for as long after a ping
//!   is gone. Our client pings every 20 seconds, and gives up a server that sends no byte after
//!   three pings; a page cannot ping.
//! - A length in more bytes than it needs is taken for what it says, although senders must not
//!   do that (section 5.2).
//!
//! tungstenite does the framing. The driver owns it and carries messages to and from the
//! two halves, which are independent as on any other transport. Each direction has a bounded
//! queue, and a peer that outruns the reader is not read from.

pub(crate) mod close;
mod driver;
mod halves;
pub(crate) mod handshake;
mod heard;
mod link;

use std::sync::Arc;

use alknet_core::{Connection, RecvStream, SendStream, SingleStream, Stream, TransportKind};
use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;

use crate::wire::Wire;
pub(crate) use driver::Driver;
use halves::{Receiver, Sender};
use link::Link;
pub(crate) use tokio_tungstenite::tungstenite::protocol::Role;

/// Makes a connection of an upgraded stream, of which `head` was read already. The driver
/// must be polled to the end: it answers pings and closes what the handler has left.
/// `outer` is the connection that carries the WebSocket.
pub(crate) fn connection(
    stream: Stream,
    head: Bytes,
    role: Role,
    outer: &Connection,
) -> (Connection, Driver) {
    let link = Arc::new(Link::default());
    let send = SendStream::new(Sender(link.clone()), None);
    let recv = RecvStream::new(Receiver(link.clone()), None);
    let halves = Stream::new(send, recv);
    let single = match role {
        Role::Client => SingleStream::dialled(TransportKind::WebSocket, halves),
        Role::Server => SingleStream::accepted(TransportKind::WebSocket, halves),
    };
    let exporter = outer.clone();
    let single = single.with_remote_addr(outer.remote_addr()).with_exporter(Box::new(
        move |out, label, context| exporter.export_keying_material(out, label, context).is_ok(),
    ));
    (Connection::new(single), Driver::new(stream, head, role, link))
}

/// The stream under an upgraded HTTP connection, and what was read of it too early. On
/// HTTP/1.1 that is the transport's own stream, with nothing of HTTP left in between.
pub(crate) fn unwrap(upgraded: Upgraded) -> (Stream, Bytes) {
    match upgraded.downcast::<TokioIo<Wire>>() {
        Ok(parts) => (parts.io.into_inner().into_inner(), parts.read_buf),
        Err(upgraded) => (Stream::from_bistream(TokioIo::new(upgraded)), Bytes::new()),
    }
}

#[cfg(test)]
mod tests;
