//! What there is no safe interface for.
#![allow(
    unsafe_code,
    reason = "std cannot start a session in a child, and tokio's AsyncFd trusts its caller"
)]

use std::{io, os::fd::OwnedFd};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use tokio::{io::unix::AsyncFd, process::Command};

/// Makes the child the leader of a session of its own, with its standard input as the
/// controlling terminal if that is one, and with every signal as it is by default.
///
/// Without it the child could read from the terminal on which the node was started, and
/// would ignore what the node ignores: `nohup` and service managers leave such traces.
pub(crate) fn isolate(command: &mut Command, terminal: bool) {
    // SAFETY: `enter` makes async-signal-safe system calls alone; it does not allocate and
    // takes no lock.
    unsafe {
        command.pre_exec(move || enter(terminal));
    }
}

fn enter(terminal: bool) -> io::Result<()> {
    rustix::process::setsid()?;
    if terminal {
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
    }
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for signal in Signal::iterator() {
        if !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP) {
            // SAFETY: the default disposition runs no code of this process.
            unsafe { sigaction(signal, &default) }?;
        }
    }
    SigSet::empty().thread_set_mask()?;
    Ok(())
}

/// Has the runtime watch a descriptor that does not block.
pub(crate) fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned by the `AsyncFd`, which gives out shared references
    // alone, so it stays open and the same until then.
    Ok(unsafe { AsyncFd::register(descriptor) }?)
}
