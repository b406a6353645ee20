//! What there is no safe interface for.
#![allow(
    unsafe_code,
    reason = "std cannot start a session or change users in a child, and tokio's AsyncFd trusts its caller"
)]

use std::{
    ffi::{CStr, CString},
    fs::File,
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::process::CommandExt as _,
    },
    ptr,
    time::{SystemTime, UNIX_EPOCH},
};

use nix::{
    libc,
    sys::{
        signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
        stat::{Mode, umask},
    },
    unistd::ForkResult,
};
use rustix::{
    process::{Pid, Uid, chdir, geteuid, getuid},
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};
use tokio::{io::unix::AsyncFd, process::Command};

use crate::{account::Switch, accounts::Closed};

/// The longest entry of the shadow database that is read.
const MAX_SHADOW: usize = 16 * 1024;
/// The descriptor behind the standard streams.
pub(crate) const PASSED: RawFd = 3;
/// Seconds of a day.
const DAY: u64 = 24 * 60 * 60;

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
    crate::descriptors::restore()?;
    close_others();
    Ok(())
}

/// Has every descriptor but the standard streams closed by the program's start. All that
/// this process opens is closed then by itself; what it was started with may not be.
fn close_others() {
    const FIRST: libc::c_uint = 3;
    // SAFETY: the call changes flags of descriptors alone, which nothing in this child goes
    // by. A kernel that does not know it (before 5.11) leaves them as they are.
    unsafe {
        libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
    }
}

/// Makes the child somebody else, for good.
pub(crate) fn switch(command: &mut Command, to: Switch) {
    // SAFETY: `drop_to` and `umask` make async-signal-safe system calls alone, on memory
    // that was reserved before the fork.
    unsafe {
        command.pre_exec(move || {
            usual_umask();
            drop_to(&to)?;
            // A home that cannot be entered keeps nobody out, as with OpenSSH.
            let _ = chdir(to.home.as_c_str());
            Ok(())
        });
    }
}

/// Makes this process somebody else, for good, at the moment when it becomes a program, and
/// has it enter the folder that is named as the home; `strict`: it must.
pub(crate) fn become_at_exec(command: &mut std::process::Command, to: Switch, strict: bool) {
    // SAFETY: as with `switch`; here nothing is even forked.
    unsafe {
        command.pre_exec(move || {
            drop_to(&to)?;
            let entered = chdir(to.home.as_c_str());
            if strict { Ok(entered?) } else { Ok(()) }
        });
    }
}

/// Gives the child a descriptor, as [`PASSED`], that its program finds open.
pub(crate) fn pass(command: &mut Command, descriptor: OwnedFd) {
    // SAFETY: `dup2` and `fcntl` are async-signal-safe, and the descriptor is open for as long
    // as the command is there.
    unsafe {
        command.pre_exec(move || {
            let from = descriptor.as_raw_fd();
            let done = if from == PASSED {
                libc::fcntl(from, libc::F_SETFD, 0)
            } else {
                libc::dup2(from, PASSED)
            };
            if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
        });
    }
}

/// The file that this process was [passed](pass), which it takes once, at its start.
pub(crate) fn passed() -> io::Result<File> {
    // SAFETY: the call looks at a number alone.
    if unsafe { libc::fcntl(PASSED, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and nothing of this process has opened it: whoever started the
    // process did, for it.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(PASSED) }))
}

/// Others may read what programs write, as it is where nobody says otherwise.
pub(crate) fn usual_umask() {
    umask(Mode::from_bits_truncate(0o022));
}

/// Forgets every variable of this process's environment, which must have one thread.
pub(crate) fn clear_environment() {
    // SAFETY: there is no other thread that could read the environment meanwhile.
    unsafe {
        libc::clearenv();
    }
}

/// Forks this process, which must have one thread; the child, where this is not it.
pub(crate) fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: there is no other thread whose locks or memory the child could find in the
    // middle of a change.
    Ok(match unsafe { nix::unistd::fork() }? {
        ForkResult::Child => None,
        ForkResult::Parent { child } => Pid::from_raw(child.as_raw()),
    })
}

/// Ends a forked process without what the original has to do at its end.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: the call does nothing but to end the process.
    unsafe { libc::_exit(code) }
}

/// Each call is the system call itself: it changes the one thread that a child has, and
/// takes no lock as the C library's would.
fn drop_to(to: &Switch) -> io::Result<()> {
    let Switch { uid, gid, .. } = *to;
    set_thread_groups(&to.groups)?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    let root = Uid::ROOT;
    let regained = !uid.is_root() && set_thread_res_uid(root, root, root).is_ok();
    if regained || getuid() != uid || geteuid() != uid {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(())
}

/// Why an account may not be used, by the shadow database. Blocks for it.
pub(crate) fn closed(name: &str) -> io::Result<Option<Closed>> {
    let name = CString::new(name)?;
    let mut entry = MaybeUninit::<libc::spwd>::uninit();
    let mut buffer = vec![0_u8; MAX_SHADOW];
    let mut found = ptr::null_mut();
    // SAFETY: the pointers are valid for writes of what they point to, and the length is
    // that of the buffer.
    let error = unsafe {
        libc::getspnam_r(
            name.as_ptr(),
            entry.as_mut_ptr(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            &raw mut found,
        )
    };
    if found.is_null() {
        // Accounts of directories need no entry there.
        return match error {
            0 | libc::ENOENT => Ok(None),
            error => Err(io::Error::from_raw_os_error(error)),
        };
    }
    // SAFETY: the function filled the entry, since it gave its address, and the password is
    // a C string within the buffer, which lives on.
    let (password, expires) = unsafe {
        let entry = entry.assume_init_ref();
        (CStr::from_ptr(entry.sp_pwdp).to_bytes().first().copied(), entry.sp_expire)
    };
    let locked = password == Some(b'!');
    let today = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / DAY;
    let expired = u64::try_from(expires).is_ok_and(|last| today > last);
    Ok(if expired { Some(Closed::Expired) } else { locked.then_some(Closed::Locked) })
}

/// Has the runtime watch a descriptor that does not block.
pub(crate) fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned by the `AsyncFd`, which gives out shared references
    // alone, so it stays open and the same until then.
    Ok(unsafe { AsyncFd::register(descriptor) }?)
}
