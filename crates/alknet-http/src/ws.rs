//! One WebSocket is one byte stream (RFC 6455).
//!
//! Wire format, both ways alike:
//! - The bytes of binary messages are the stream; where messages begin and end means
//!   nothing. They are handed on as they arrive, so a message may be of any length.
//! - An empty binary message ends the stream in its direction; the other one stays open.
//! - A text message breaks the protocol (close code 1003).
//! - Close code 1000 is [`Code::NORMAL`], and 4000 + n is code n: see [`close`].
//! - The server pings every 30 seconds, and a peer that is silent for as long after a ping
//!   is gone.
//!
//! The framing stands here rather than on a message-oriented library because a stream needs
//! no messages: nothing is assembled, the two directions are independent halves as on any
//! other transport, and what a peer can make us hold is two fixed buffers.

pub(crate) mod close;
mod driver;
mod frame;
pub(crate) mod handshake;
mod inbound;
mod link;
mod outbound;

use std::sync::Arc;

use alknet_core::{Code, Connection, RecvStream, SendStream, SingleStream, Stream, TransportKind};
use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;

use crate::wire::Wire;
pub(crate) use driver::Driver;
use inbound::{Inbound, Receiver};
use link::Shared;
use outbound::{Outbound, Sender};

/// Which end of a WebSocket this is: the client masks what it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Server,
}

/// Makes a connection of an upgraded stream, of which `head` was read already. The driver
/// must be polled to the end: it answers pings and closes what the handler has left.
/// `outer` is the connection that carries the WebSocket.
pub(crate) fn connection(
    stream: Stream,
    head: Bytes,
    role: Role,
    outer: &Connection,
) -> (Connection, Driver) {
    let (send, recv) = stream.split();
    let shared = Arc::new(Shared::new(Outbound::new(send, role)));
    let sender = SendStream::new(Sender::new(shared.clone()), None);
    let inbound = Inbound::new(recv, head, role);
    let receiver = RecvStream::new(Receiver::new(inbound, shared.clone()), None);
    let stream = Stream::new(sender, receiver);
    let single = match role {
        Role::Client => SingleStream::dialled(TransportKind::WebSocket, stream),
        Role::Server => SingleStream::accepted(TransportKind::WebSocket, stream),
    };
    let exporter = outer.clone();
    let single = single.with_remote_addr(outer.remote_addr()).with_exporter(Box::new(
        move |out, label, context| exporter.export_keying_material(out, label, context).is_ok(),
    ));
    (Connection::new(single), Driver::new(shared, role))
}

/// The stream under an upgraded HTTP connection, and what was read of it too early. On
/// HTTP/1.1 that is the transport's own stream, with nothing of HTTP left in between.
pub(crate) fn unwrap(upgraded: Upgraded) -> (Stream, Bytes) {
    match upgraded.downcast::<TokioIo<Wire>>() {
        Ok(parts) => (parts.io.into_inner().into_inner(), parts.read_buf),
        Err(upgraded) => (Stream::from_bistream(TokioIo::new(upgraded)), Bytes::new()),
    }
}

/// Why a WebSocket ended, as a code of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// The peer closed it.
    Peer(Code),
    /// It was closed here, for a fault of the peer or by reset.
    Local(Code),
    /// The peer is gone.
    Lost,
}

#[cfg(test)]
mod tests;
