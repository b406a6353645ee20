//! The whole program: real clients against a real `alknet serve`.
//!
//! Every test starts a node of its own on a free port with a state folder of its own, and
//! nothing waits for time to pass: only for something to happen, with a deadline.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "helpers of tests"
)]

mod accounts;
mod call;
mod certificates;
mod client;
mod forward;
mod git;
mod hostile;
mod http;
mod https;
mod lifecycle;
mod limits;
mod node;
mod openssh;
mod own_service;
mod process;
mod recordings;
mod refusals;
mod reload;
mod revocation;
mod secrets;
mod session;
mod sftp;
mod shell;
mod socks;
mod ssh_clients;
mod terminal;
