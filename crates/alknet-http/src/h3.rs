//! HTTP/3 (RFC 9114) with WebTransport on the same connection, both sides of it, over any
//! [`Connection`](alknet_core::Connection) that numbers its streams as QUIC does.
//!
//! [`serve`] answers requests and accepts sessions; [`connect`] asks for a session. A
//! session is a [`Connection`](alknet_core::Connection) again: its streams are the QUIC
//! streams themselves, with nothing in between that copies.
//!
//! # How a stream finds its way
//! The first bytes of a stream say what it is. The demultiplexer reads them, hands the
//! streams of WebTransport to the hub, which knows the sessions, and everything else to
//! the h3 crate. h3 sees frames only behind a gate that bounds them.
//!
//! # Bounds
//! Every wait for a peer has a deadline; undecided streams, streams and datagrams without
//! a session, queues, header sections and capsules have a limit. Nothing is remembered of
//! a session that is over.
//!
//! # Dialects
//! Sessions are those of draft 02 to draft 14 of WebTransport over HTTP/3, without the flow
//! control that draft 13 brought. h3 knows no other `:protocol` than `webtransport` and
//! `connect-udp`: a request with another one, such as the `webtransport-h3` of draft 15, is
//! malformed to it and ends with H3_MESSAGE_ERROR.

mod adapter;
mod body;
mod capsule;
mod client;
mod codes;
mod demux;
mod drive;
mod exchange;
mod gate;
mod hub;
mod message;
mod server;
mod session;
mod settings;
mod stream;
mod varint;

pub use client::{Client, ConnectError, connect};
pub use server::{App, Connect, ServeError, Start, serve};

/// The largest field section that is taken, in bytes as RFC 9114, section 4.2.2 counts
/// them.
const MAX_FIELD_SECTION: u64 = 64 * 1024;
/// Sessions at a time on one connection.
const MAX_SESSIONS: usize = 64;
