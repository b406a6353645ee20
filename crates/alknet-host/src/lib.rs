//! What sessions use of the machine that a node runs on: its accounts, processes and terminals.
//!
//! ```no_run
//! # use alknet_host::*;
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let account = Account::current()?;
//! let (mut process, pipes) = Process::with_pipes(account.shell("echo hello".as_ref()))?;
//! drop(pipes.stdin);
//! process.exited().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Invariants
//!
//! - Programs get a clean environment and default signal dispositions: nothing of the node's
//!   own is passed on.
//! - A program has the limit of descriptors that this process was started with.
//! - A process that is dropped before it has exited is killed, and its group with it.
//! - Programs of an account that is not this process's give up its rights before they start,
//!   for good, and get no descriptor but the standard streams.
//! - A terminal that is to be recorded shows nothing that was not taken for the recording.
//! - What starts a program of another account with the rights of root has no environment, and
//!   neither enters a folder nor runs a file of that account before it has given them up.
//! - No module of PAM runs in this process.

mod account;
mod accounts;
pub mod descriptors;
mod leader;
pub mod network;
mod pam;
mod private_socket;
mod process;
mod record;
mod rest;
mod sys;
mod terminal;

pub use account::{Account, AccountError};
pub use accounts::{AccountMap, AccountRefusal, Accounts, Closed, EVERYBODY};
pub use leader::{Leader, hand_over, lead};
pub use private_socket::PrivateSocket;
pub use process::{Activity, Pipes, Process};
pub use record::{End, Event, RecordError, Recorder, Recording, Session, Sink};
pub use rest::Rest;
pub use terminal::{Size, Terminal, WeakTerminal};
