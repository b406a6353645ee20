//! The shell handler against its own client over in-memory connections, and against bytes
//! that no client sends.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails panics, in its helpers too"
)]

mod access;
mod hostile;
mod node;
mod recording;
mod sessions;
mod survival;
