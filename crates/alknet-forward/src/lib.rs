//! Connections from the network of a node: the handler of `alknet/forward`, its client, and
//! SOCKS5 in front of that.
//!
//! ```
//! # use alknet_core::*;
//! # use alknet_forward::{Client, ForwardAdapter, Place, Request};
//! # use alknet_host::network::{Policy, Rule, Settings};
//! # use alknet_testing::{identities::identity, memory};
//! # use std::sync::Arc;
//! # use tokio::io::{AsyncReadExt, AsyncWriteExt};
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let web = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let port = web.local_addr()?.port();
//!
//! // The node: what may be connected to, and by whom.
//! let rule = Rule { connect: vec!["localhost:*".parse()?], ..Rule::default() };
//! let policy = Policy::new(Settings { rules: vec![rule], ..Settings::default() });
//! let adapter = ForwardAdapter::new(policy, Audit::to_log());
//! let (near, far) = memory::pair();
//! let mut auth = AuthContext::anonymous(Alpn::service("forward")?, TransportKind::Memory, None);
//! auth.identity = Some(Arc::new(identity("anna", &["forward:connect:localhost"])));
//! let node = async move { adapter.handle(far, auth).await };
//!
//! // The client: one stream, one connection.
//! let client = async {
//!     let request = Request::Connect(Place::tcp("localhost", port));
//!     let mut opened = alknet_forward::open(&near, &request).await?;
//!     opened.stream.write_all(b"hello").await?;
//!     let (mut accepted, _) = web.accept().await?;
//!     let mut heard = [0; 5];
//!     accepted.read_exact(&mut heard).await?;
//!     assert_eq!(&heard, b"hello");
//!     Ok::<_, Box<dyn std::error::Error>>(())
//! };
//! tokio::select! { done = client => done?, ended = node => ended.map_err(|e| e.to_string())? }
//! # Ok(())
//! # }
//! ```
//!
//! # The model
//!
//! Each stream begins with a [`Request`] and its answer, and is then one connection, one
//! listener, or datagrams: `docs/forwarding.md` has the format. QUIC and WebTransport carry
//! each connection on a stream of its own, with flow control of its own, so that one whose
//! reader stalls holds up no other. TLS and WebSocket have one stream, so that there each
//! connection is a connection of its own.
//!
//! [`Client`] keeps one connection to the node and makes it anew when it is gone. What was
//! open is broken off then, never taken up silently. [`socks`] and [`local`] are what a client
//! machine listens with.
//!
//! # Invariants
//!
//! - The node reaches nothing that its [`Policy`](alknet_host::network::Policy) has not
//!   checked, and a datagram is passed back only from where one was sent to.
//! - The end of one direction is passed on as such; a failure is a reset, so that nobody takes
//!   a part for the whole.
//! - What a client is refused is recorded at a bounded rate, however fast it asks.
//! - A connection that has come in is given out once, to the identity that listens.
//! - Names are resolved by the node, never by the client.
//!
//! # Security limits
//!
//! Whoever can connect to what a client machine listens on uses its identity: it listens on
//! loopback unless told otherwise, which SOCKS5 never does, and other users of the machine
//! reach loopback too. A SOCKS5 password goes over loopback in the clear.

mod address;
mod backoff;
mod client;
mod datagram;
mod handler;
mod join;
mod listen;
pub mod local;
pub mod socks;
mod udp;
mod waiting;
mod wire;

pub use address::{Address, InvalidAddress};
pub use client::{Client, Dial, DialError, Incoming, OpenError, OpenStream, State, open};
pub use datagram::{Datagram, DatagramReceiver, DatagramSender};
pub use handler::ForwardAdapter;
pub use wire::{
    Answer, ErrorCode, HeaderError, Id, InvalidId, MAX_HEADER, Opened, Place, Refused, Request,
    TcpPlace, Told, UnixPlace,
};
