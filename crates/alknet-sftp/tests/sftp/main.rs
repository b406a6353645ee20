//! SFTP sessions over in-memory streams, by clients that are hostile and by one that is not.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    clippy::needless_pass_by_value,
    reason = "helpers of tests"
)]

mod adapter;
mod client;
mod exports;
mod order;
mod packets;
mod requests;
mod uploads;
