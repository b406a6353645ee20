//! An SSH server over any byte stream: the handler of `alknet/ssh`.
//!
//! ```no_run
//! # use std::{error::Error, sync::Arc};
//! # use alknet_core::*;
//! # use alknet_host::{Account, Accounts, network};
//! # use alknet_ssh::*;
//! # async fn serve(
//! #     node: NodeIdentity, seed: [u8; 32], people: Arc<dyn IdentityProvider>, web: WebCertificates,
//! # ) -> Result<Endpoint, Box<dyn Error>> {
//! let ssh = SshAdapter::new(SshConfig {
//!     host_key: HostKey::from_seed(&seed, &node)?,
//!     identities: people.clone(),
//!     audit: Audit::to_log(),
//!     accounts: Accounts::own(Account::current()?),
//!     limits: SshLimits::default(),
//!     key_exchange: KeyExchange::default(),
//!     accept_env: Vec::new(),
//!     set_env: Vec::new(),
//!     banner: None,
//!     revoked_keys: RevokedKeys::default(),
//!     recorder: None,
//!     services: Vec::new(),
//!     network: network::Policy::new(network::Settings::default()),
//! });
//! let mut handlers = HandlerRegistry::new();
//! handlers.register(ssh, Access::Protocol)?;
//! let dispatcher = Dispatcher::new(handlers, Limits::default(), Audit::to_log());
//! let config = EndpointConfig {
//!     listen: "[::]:4433".parse()?,
//!     identity: Arc::new(node),
//!     web,
//!     hide_services: false,
//!     fallback: None,
//!     resets: None,
//! };
//! Ok(Endpoint::bind(&config, dispatcher, people)?)
//! # }
//! ```
//!
//! On a listener of one's own that knows nothing of ALPNs it is as short: see
//! `examples/sshd.rs`.
//!
//! # Model
//!
//! Every stream that a peer opens on a connection is an independent SSH transport, with a
//! login of its own. Sessions run as the account that [`Accounts`](alknet_host::Accounts)
//! gives the identity under the login name, and the key must be known to the
//! [`IdentityProvider`] as that of an identity with a scope of `ssh`, `forward` or a service, or certified by an
//! authority that somebody is trusted through. That an identity was already proven for the connection (a
//! token, a TLS client key) neither replaces the SSH key nor is replaced by it.
//!
//! A login lasts until its transport ends, or its credential: a key or an authority that is
//! taken away, a certificate that expires or is listed among the [`RevokedKeys`] ends the
//! transport and what runs on it.
//!
//! Certificates are OpenSSH's (`PROTOCOL.certkeys`), for users. `source-address` (checked at
//! the login) and `force-command` are honoured and any other critical option refuses the login,
//! `verify-required` among them. Without `permit-pty` there is no terminal. One without
//! principals is refused; and the principal says who it is, never as which account they
//! log in.
//!
//! The host key is certified by the node's identity ([`HostKey`]), so a client that knows
//! the node's id needs no trust on first use.
//!
//! There are shells and commands, with a terminal or without (`ssh:shell`). A subsystem or a
//! command that a [`ChannelService`] takes is served by that instead. A forced command stands
//! in the place of whatever is asked for, and is the only one that services are then offered.
//! A service may have a login name of its own, such as `git`, which takes no account of the
//! machine: who has none there gets that service, and neither programs nor a terminal.
//! Who has no account at all may log in for what a service has for them without one, and gets
//! nothing else: no programs, no terminal, no forwarding.
//!
//! Connections are forwarded both ways (RFC 4254, section 7, and OpenSSH's for Unix sockets)
//! as far as the [`Policy`](alknet_host::network::Policy) and the caller's grants
//! (`forward:connect:…`, `forward:listen:…`) allow; without a rule none is. To be listened on
//! there are addresses, `localhost` and `*`, no names. The client's agent is forwarded with a
//! grant of `forward:agent`, through a socket that only the account reaches. A certificate
//! needs `permit-port-forwarding` and `permit-agent-forwarding` for these. X11, tunnels and
//! unknown channels and requests are refused as RFC 4254 has it.
//!
//! # Invariants
//!
//! - The SSH session loop waits for nothing but the next event: not for a write to the
//!   network, not for a program that reads slowly, not for one client channel on behalf of
//!   another.
//! - What is queued in either direction is bounded: by the windows of the channels towards
//!   programs, and by a limit on the unsent bytes towards the client.
//! - A program's process group does not outlive its channel. When the channel or the
//!   transport goes first, the group is told to hang up, and killed after a grace. What a
//!   program left in the background when it exited is no longer its group's business, as
//!   with OpenSSH.
//! - All of a program's output is sent before its exit status.
//! - Programs get a clean environment and default signal dispositions: nothing of the node's
//!   own is passed on.
//! - Whatever a login is refused for is in the audit log, and what somebody is refused who has
//!   logged in as well, at a bounded rate, however fast they ask. A transport on which logins were
//!   tried and none succeeded counts as one failure of its address.
//!
//! # Limits of what it protects
//!
//! A session as the node's own account can do what that can do, the node's own files
//! included. What a program has left in the background survives the end of its login. `utmp`
//! is not written.
//!
//! [`IdentityProvider`]: alknet_core::IdentityProvider

mod agent;
mod algorithms;
mod auth;
mod carry;
mod certificate;
mod channel;
mod chunks;
mod client;
mod forward;
mod greeting;
mod handler;
mod host_key;
mod modes;
mod opened;
mod queue;
mod revoked;
mod run;
mod service;
mod session;
mod signal;
mod start;
mod tasks;
mod transport;
mod user_key;
mod window;

pub use algorithms::KeyExchange;
pub use handler::{SshAdapter, SshConfig, SshLimits};
pub use host_key::{HostKey, HostKeyError, known_hosts_line, node_key_line};
pub use revoked::{RevokedKeys, RevokedKeysError};
pub use service::{Asker, ChannelService, Request, ServiceChannel};
pub use user_key::{UserKey, UserKeyError};
