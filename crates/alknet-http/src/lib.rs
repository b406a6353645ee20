//! HTTP/1.1, HTTP/2, HTTP/3, WebTransport and WebSocket on one router, and the proxy that
//! hands their streams to any ALPN handler.
//!
//! ```
//! # use std::{sync::Arc, time::{Duration, SystemTime}};
//! # use alknet_core::{
//! #     Access, Audit, Dispatcher, Endpoint, EndpointConfig, HandlerRegistry, Limits,
//! #     NodeIdentity, SelfSigned, WebCertificates,
//! # };
//! # use alknet_http::{Decoy, HttpAdapter};
//! # use alknet_testing::identities::Identities;
//! # use axum::{Router, routing::get};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let node = Arc::new(NodeIdentity::from_seed(&[7; 32])?);
//! let identities = Arc::new(Identities::new());
//! let services = Dispatcher::new(HandlerRegistry::new(), Limits::default(), Audit::to_log());
//! let http = HttpAdapter::builder(services.clone(), identities.clone(), node.clone())
//!     .public(Router::new().route("/", get(async || "hello")))
//!     .decoy(Decoy::NotFound)
//!     .build()?;
//! let dispatcher = services.extend(http, Access::Public)?;
//!
//! let web = SelfSigned::generate(&["localhost".into()], SystemTime::now().into())?.current()?;
//! let config = EndpointConfig {
//!     listen: "[::1]:0".parse()?,
//!     identity: node,
//!     web: WebCertificates::new(web),
//!     hide_services: false,
//!     fallback: None,
//!     resets: None,
//! };
//! let endpoint = Endpoint::bind(&config, dispatcher, identities)?;
//! println!("curl --insecure https://localhost:{}/", endpoint.local_addr().port());
//! # endpoint.shutdown(Duration::from_secs(1)).await;
//! # Ok(())
//! # }
//! ```
//!
//! # The model
//! [`HttpAdapter`] is a handler like any other: the ALPNs `http/1.1`, `h2` and `h3` lead to
//! it. It is also a source of connections. A WebTransport session or a WebSocket on
//! `/alknet/<name>` becomes a [`Connection`](alknet_core::Connection) with the ALPN
//! `alknet/<name>` and goes through the same [`Dispatcher`](alknet_core::Dispatcher) as a
//! native one. A request takes this way, and the first that has an answer gives it:
//! 1. a tunnel to a service, for callers with its scope;
//! 2. `POST /alknet/ticket`, for callers with an identity;
//! 3. the private routes, for callers with an identity;
//! 4. the public routes;
//! 5. the decoy.
//!
//! # Who a caller is
//! By `Authorization: Bearer`, by the Concealed scheme (RFC 9729) with an Ed25519 key, by
//! the session cookie [`SESSION_COOKIE`] of a signed-in browser, or by a single-use ticket;
//! for some paths ([`Builder::basic`]) by the Basic scheme too, whose password is the token.
//! A cookie counts for pages of the same origin and never opens a tunnel. A credential that
//! does not hold is no credential: nothing but the audit log tells the two apart.
//!
//! # Tunnels
//! A ticket stands among the offered subprotocols, behind the service's name:
//! `["alknet/echo", "ticket.<secret>"]` for WebTransport and `["alknet.echo",
//! "ticket.<secret>"]` for a WebSocket, whose names can have no slash. The answer selects
//! the first. How a WebSocket carries a byte stream:
//! - The bytes of binary messages are the stream; where messages begin and end means
//!   nothing. A message holds at most 1 MiB; a longer one is answered with close code 1009.
//! - An empty binary message ends the stream in its direction.
//! - A text message breaks the protocol (close code 1003, or 1007 where it is not UTF-8).
//! - A caller who could have had it and whose handshake is wrong is told: 426 for another
//!   version, otherwise 400.
//! - Close code 1000 is [`Code::NORMAL`](alknet_core::Code::NORMAL), and 4000 + n is code n.
//!
//! Native clients use [`tunnel()`]: both ends prove their keys over keying material of the
//! TLS session, and the node's X.509 certificate does not matter.
//!
//! # What the decoy hides, and what it does not
//! Every refusal is the decoy's answer, byte for byte and by the same code, for the same
//! reason that a path that does not exist is: so a caller without a credential learns
//! neither which services there are nor that there are any. The settings that HTTP/3
//! announces for WebTransport do tell a node from an nginx, and so may the fingerprints of
//! TLS, HTTP/2 and QUIC, the bytes of answers to malformed HTTP, and the shape of traffic.
//! A ticket is looked up only on paths of services, so its look-up can be timed: that says
//! that tickets exist, not which ones hold.

pub mod api;
mod app;
mod auth;
mod body;
mod client;
mod concealed;
mod decoy;
mod exported;
mod frames;
pub mod h3;
mod handler;
mod linger;
mod live;
pub mod mcp;
mod origin;
mod outbound;
mod proof;
mod protocols;
mod serve;
mod ticket;
mod tunnel;
mod wire;
mod ws;

pub use app::Conceal;
pub use auth::{Refusals, SESSION_COOKIE};
pub use client::{Tunnel, TunnelError, tunnel};
pub use decoy::{Decoy, DecoyError};
pub use handler::{Builder, HttpAdapter, HttpLimits};
pub use live::Live;
pub use proof::ProofError;
