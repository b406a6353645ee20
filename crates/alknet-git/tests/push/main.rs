//! Pushes and fetches by the real git, over TCP, to a server in this process; and by clients
//! that are hostile.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    clippy::disallowed_methods,
    reason = "helpers of tests"
)]

mod broken;
mod hooks;
mod hostile;
mod installed;
mod leaving;
mod limits;
mod meanwhile;
mod policy;
mod record;
mod rig;
mod signed;
