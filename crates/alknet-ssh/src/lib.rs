//! An SSH server over any byte stream.

mod account;
mod algorithms;
mod auth;
mod chunks;
mod client;
mod handler;
mod host_key;
mod modes;
mod process;
mod queue;
mod run;
mod session;
mod signal;
mod sys;
mod tasks;
mod terminal;
mod transport;
mod user_key;

pub use account::{Account, AccountError};
pub use handler::{SshAdapter, SshConfig, SshLimits};
pub use host_key::{HostKey, HostKeyError, known_hosts_line, node_key_line};
pub use user_key::{UserKey, UserKeyError};
