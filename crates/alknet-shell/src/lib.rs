//! Shells that outlive their transport: the handler of `alknet/shell` and its client.
//!
//! ```no_run
//! # use std::{error::Error, sync::Arc};
//! # use alknet_core::*;
//! # use alknet_host::{Account, Accounts};
//! # use alknet_shell::*;
//! # fn serve(
//! #     handlers: &mut HandlerRegistry, people: Arc<dyn IdentityProvider>,
//! # ) -> Result<(), Box<dyn Error>> {
//! let shells = Shells::new(ShellConfig {
//!     accounts: Accounts::own(Account::current()?),
//!     identities: people,
//!     audit: Audit::to_log(),
//!     recorder: None,
//!     limits: ShellLimits::default(),
//! });
//! handlers.register(ShellAdapter::new(shells), Access::Scope)?;
//! # Ok(())
//! # }
//! ```
//!
//! The other side is [`client::view`]. The wire format is in `docs/shell.md`.
//!
//! # Model
//!
//! A *session* is a program on a terminal, kept by [`Shells`], which needs nobody to look at
//! it. It belongs to an identity and an account. A *viewer* is somebody's window on it, known
//! by a random id of its own. An *attachment* is one stream of a viewer. When a transport is
//! gone the viewer attaches again, over any transport, and goes on where it was; a later
//! attachment takes over from an earlier one.
//!
//! There is no protocol inside the protocol: the handshake has proven who the caller is, so
//! the first frame asks for the session, and the prompt is one round trip behind it. On TLS
//! and WebSockets a connection carries one stream; elsewhere any number.
//!
//! A terminal emulator follows the output, so that a viewer that is new, or was away for too
//! long, is shown the screen as it is, with its modes and what has scrolled off.
//!
//! The grant `shell` covers all of it. `shell:view` lists sessions and looks on, no more.
//!
//! # Invariants
//!
//! - Output and input are numbered in bytes. While a viewer is known and not too far behind,
//!   each byte is shown and typed exactly once, in order, however its streams end. A test cuts
//!   them at every place.
//! - Input on an attachment that was taken over is not looked at, and an attempt to attach that
//!   arrives late takes nothing over.
//! - A viewer that does not read holds the program back, as flow control does; one that is away
//!   for a time; one that may only look never.
//! - What is kept for a viewer, what it may have under way, how many there are and how many
//!   sessions: all is bounded.
//! - A stream is always read. What waits for a program or for a viewer waits in a bounded buffer,
//!   so signs of life are answered whatever the program does.
//! - A session ends when none of the credentials that attached to it, and may type, holds any
//!   more or grants as much, and with the node.
//! - To anybody but its identity a session is one that does not exist.
//!
//! # Limits of what it protects
//!
//! A session can do what its account can do. All viewers of an identity see and type the same:
//! a device that is lost has to be revoked, and sessions that other devices attached to go
//! on. Answers that a terminal gives to a program's questions are sent by each viewer that types.
//! A terminal that is larger than the smallest one shows lines as the smallest wraps them.

mod attachment;
pub mod client;
mod clock;
mod handler;
mod hub;
mod name;
mod ring;
mod screen;
mod session;
mod shells;
pub mod wire;

pub use handler::ShellAdapter;
pub use name::{Id, InvalidId, InvalidName, Name};
pub use screen::Screen;
pub use shells::{ShellConfig, ShellLimits, Shells};

/// The audit event of a session that began; its `subject` is the session's id.
pub const STARTED: &str = "shell-started";
/// The audit event of a session that is over.
pub const ENDED: &str = "shell-ended";
