//! PAM: what a machine wants done around a session, such as limits, the audit id, or a
//! registration with the login manager.
//!
//! PAM's modules change the process that they run in, so none ever runs in the node: a
//! session's leader asks. A keeper, forked before the leader becomes the program, waits for
//! the end of that and closes the session.

mod library;

use std::{
    ffi::OsString,
    fs::File,
    io::{self, IsTerminal as _},
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{PidfdFlags, WaitOptions, getpid, pidfd_open, waitpid},
};

use self::library::{Library, Transaction};
use crate::{account::Switch, sys};

/// Where services are described.
const SERVICES: [&str; 2] = ["/etc/pam.d", "/usr/lib/pam.d"];

/// Whether the machine describes a service.
pub(crate) fn describes(service: &str) -> bool {
    let plain = service.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    plain && SERVICES.iter().any(|folder| Path::new(folder).join(service).is_file())
}

/// Whether the machine has PAM.
pub(crate) fn is_there() -> bool {
    Library::open().is_ok()
}

/// Whether an account may be used now.
pub(crate) fn check(service: &str, account: &str) -> io::Result<()> {
    Transaction::start(Library::open()?, service, account)?.check_account()
}

/// Asks PAM, and leaves a keeper behind; the variables that PAM sets.
pub(crate) fn open_session(
    service: &str,
    account: &str,
    switch: &Switch,
    environment: &[(OsString, OsString)],
) -> io::Result<Vec<(OsString, OsString)>> {
    let library = Library::open()?;
    let mut pam = Transaction::start(library, service, account)?;
    pam.set_terminal(terminal().as_deref().unwrap_or("ssh"))?;
    let client = environment.iter().find(|(name, _)| name == "SSH_CLIENT");
    let host = client.and_then(|(_, value)| value.to_str()?.split(' ').next());
    host.map_or(Ok(()), |host| pam.set_host(host))?;
    pam.check_account()?;
    // PAM's modules for credentials go on from the groups that the account has.
    rustix::thread::set_thread_groups(&switch.groups)?;
    rustix::thread::set_thread_res_gid(switch.gid, switch.gid, switch.gid)?;
    // PAM did not authenticate anybody, so it may have no credentials: no reason to refuse,
    // as with OpenSSH.
    let _ = pam.establish();
    pam.open()?;
    let variables = pam.variables();
    keep(pam)?;
    Ok(variables)
}

fn terminal() -> Option<String> {
    let input = rustix::stdio::stdin();
    let name = input.is_terminal().then(|| rustix::termios::ttyname(input, Vec::new()))?.ok()?;
    name.into_string().ok()
}

/// Forks what closes the session once this process has ended, whatever it is by then. It is
/// no child of this process: a program has none that it did not start.
fn keep(pam: Transaction) -> io::Result<()> {
    let leader = pidfd_open(getpid(), PidfdFlags::empty())?;
    if let Some(between) = sys::fork()? {
        // The keeper has the session now: here it is not to be closed.
        pam.leave();
        waitpid(Some(between), WaitOptions::empty())?;
        return Ok(());
    }
    // In a session of its own, what is sent to the program's terminal or group is not for it.
    let apart = rustix::process::setsid().map_err(io::Error::from).and_then(|_| sys::fork());
    match apart {
        Ok(None) => {}
        Ok(Some(_)) => sys::exit_now(0),
        Err(_) => {
            pam.close();
            sys::exit_now(1);
        }
    }
    if let Err(error) = wait_for(leader.as_fd()) {
        tracing::debug!(%error, "a session's end could not be waited for");
    }
    pam.close();
    sys::exit_now(0);
}

/// Waits for the end of the leader, with nothing of its own open: the node waits for the
/// pipes' ends.
fn wait_for(leader: BorrowedFd<'_>) -> io::Result<()> {
    nix::sys::signal::SigSet::all().thread_block()?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    poll(&mut [PollFd::new(&leader, PollFlags::IN)], None)?;
    Ok(())
}
