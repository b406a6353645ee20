//! The one thing that tokio trusts its caller with.
#![expect(unsafe_code, reason = "tokio's AsyncFd trusts its caller")]

use std::{io, os::fd::OwnedFd};

use tokio::io::unix::AsyncFd;

/// Tells when a descriptor can be read or written. Must be called within a tokio runtime.
pub(super) fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned by the `AsyncFd`, which gives out shared references
    // alone, so that it stays open and the same for as long as it is watched.
    Ok(unsafe { AsyncFd::register(descriptor) }?)
}
