//! The SSH handler against russh's client over in-memory connections, and against OpenSSH's
//! over a socket.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails panics, in its helpers too"
)]

mod accountless;
mod certificates;
mod ending;
mod flow;
mod forwarding;
mod login;
mod node;
mod openssh;
mod revocation;
mod services;
mod sessions;
mod start;
mod stock_forwarding;
