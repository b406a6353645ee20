//! How many descriptors this process may have open.

use std::{io, sync::OnceLock};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What was in force before [`raise`].
static ORIGINAL: OnceLock<Rlimit> = OnceLock::new();

/// Lets this process open as many descriptors as it may: raises the soft limit to the hard
/// one (getrlimit(2)), and gives the soft limit that holds then. Programs that are started as
/// a [`Process`](crate::Process) have the limits that were in force before.
///
/// The usual soft limit, 1024, is for programs that use select(2).
pub fn raise() -> io::Result<u64> {
    let now = getrlimit(Resource::Nofile);
    ORIGINAL.get_or_init(|| now);
    setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum })?;
    Ok(limit())
}

/// How many descriptors this process may have open, the soft limit.
pub fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Puts back what was in force before [`raise`], for a child that is about to become a
/// program. One look at an atomic and one system call: async-signal-safe.
pub(crate) fn restore() -> io::Result<()> {
    match ORIGINAL.get() {
        Some(original) => Ok(setrlimit(Resource::Nofile, *original)?),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;
    use crate::{Account, Process};

    /// Every test has a process of its own under nextest; elsewhere a limit that is higher
    /// does no harm.
    #[tokio::test]
    async fn programs_have_the_limits_of_before() {
        let hard = getrlimit(Resource::Nofile).maximum;
        let low = 200.min(hard.unwrap_or(u64::MAX));
        setrlimit(Resource::Nofile, Rlimit { current: Some(low), maximum: hard }).unwrap();
        assert_eq!(raise().unwrap(), hard.unwrap_or(u64::MAX));
        assert_eq!(raise().unwrap(), hard.unwrap_or(u64::MAX), "the second time");
        let command = Account::current().unwrap().shell("ulimit -n".as_ref());
        let (mut process, pipes) = Process::with_pipes(command).unwrap();
        let mut said = String::new();
        pipes.stdout.unwrap().read_to_string(&mut said).await.unwrap();
        process.exited().await.unwrap();
        assert_eq!(said.trim(), low.to_string());
    }
}
