//! Which git there is.

use std::{
    env,
    io::{self, Read as _},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::SetupError;

/// The oldest git that is used. One before 2.32 does not read the file of configuration that it
/// is given, one before 2.34 does not know how to begin smart HTTP, one before 2.36 does not sync
/// what it is told to, and one before 2.37 does not keep apart what waits to be dropped.
const OLDEST: (u32, u32) = (2, 37);
/// How long it may take to say its version, and how often it is looked whether it has.
const PATIENCE: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_millis(5);
/// How much of what it says is read, in bytes.
const SAID: u64 = 256;

/// Refuses a git that is too old. Waits for it.
pub(super) fn check(program: &Path) -> Result<(), SetupError> {
    let found = ask(program).map_err(SetupError::Run)?;
    match parse(&found) {
        Some(version) if version >= OLDEST => Ok(()),
        _ => Err(SetupError::Old { found }),
    }
}

fn ask(program: &Path) -> io::Result<String> {
    let mut git = Command::new(program)
        .arg("version")
        .env_clear()
        .env("PATH", env::var_os("PATH").unwrap_or_default())
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let begun = Instant::now();
    while git.try_wait()?.is_none() {
        if begun.elapsed() > PATIENCE {
            git.kill()?;
            git.wait()?;
            return Err(io::ErrorKind::TimedOut.into());
        }
        thread::sleep(STEP);
    }
    let mut said = Vec::new();
    let stdout = git.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    stdout.take(SAID).read_to_end(&mut said)?;
    Ok(String::from_utf8_lossy(&said).trim().to_owned())
}

/// The first two numbers of `git version 2.47.3`, behind which there may be anything.
fn parse(said: &str) -> Option<(u32, u32)> {
    let mut numbers = said.strip_prefix("git version ")?.split('.');
    let mut number = || numbers.next()?.parse().ok();
    Some((number()?, number()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_git_says_them() {
        for (said, version) in [
            ("git version 2.47.3", Some((2, 47))),
            ("git version 2.39.5 (Apple Git-154)", Some((2, 39))),
            ("git version 2.37.GIT", Some((2, 37))),
            ("git version 3.0.0.windows.1", Some((3, 0))),
            ("git version two", None),
            ("hub version 2.14", None),
            ("", None),
        ] {
            assert_eq!(parse(said), version, "{said}");
        }
        assert!((2, 36) < OLDEST && (3, 0) > OLDEST);
    }
}
