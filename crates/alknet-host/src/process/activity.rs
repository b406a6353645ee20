//! Whether processes do anything (proc(5)).

use std::{fs, io};

use rustix::process::Pid;

use super::Process;

/// Looks at what a process group has done so far.
#[derive(Debug, Clone, Copy)]
pub struct Activity(Pid);

impl Process {
    /// For a look at what its group does.
    pub fn activity(&self) -> Activity {
        Activity(self.group)
    }
}

impl Activity {
    /// A number that is another one once a member of the group has read, written or computed
    /// something: what stays the same does nothing but wait. Looks at every process of the
    /// machine, and waits for that.
    pub fn read(self) -> io::Result<u64> {
        let mut done = 0_u64;
        for entry in fs::read_dir("/proc")? {
            let entry = entry?;
            let name = entry.file_name();
            if !name.as_encoded_bytes().iter().all(u8::is_ascii_digit) {
                continue;
            }
            // One that cannot be read has ended.
            let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
            let Some((group, ticks)) = parse(&stat) else { continue };
            if group == self.0.as_raw_nonzero().get() {
                let io = fs::read_to_string(entry.path().join("io")).unwrap_or_default();
                done = done.wrapping_add(ticks).wrapping_add(carried(&io));
            }
        }
        Ok(done)
    }
}

/// The group of a process, and how many ticks it has computed.
fn parse(stat: &str) -> Option<(i32, u64)> {
    // Its name, which may be anything, is in brackets.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let group = fields.nth(2)?.parse().ok()?;
    let user: u64 = fields.nth(8)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((group, user.wrapping_add(system)))
}

/// How many bytes it has read and written, from whatever.
fn carried(io: &str) -> u64 {
    let count = |line: &str| {
        let (_, count) = line.split_once("char: ")?;
        count.parse().ok()
    };
    io.lines().filter_map(count).fold(0, u64::wrapping_add)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::Account;

    #[test]
    fn numbers_are_read_as_the_kernel_writes_them() {
        let stat = "7 (a) b ( c)) S 1 42 42 0 -1 4194560 1 2 3 4 50 6 7 8 20 0 1 0 9 10 11";
        assert_eq!(parse(stat), Some((42, 56)));
        assert_eq!((parse(""), parse("7 (a) S 1")), (None, None));
        assert_eq!(carried("rchar: 5\nwchar: 7\nsyscr: 100\nread_bytes: 9\n"), 12);
    }

    #[tokio::test]
    async fn who_works_is_told_from_who_waits() {
        // What is read and written is so by another process than the leader.
        let command = Account::current().unwrap().shell("cat; :".as_ref());
        let (process, mut pipes) = Process::with_pipes(command).unwrap();
        let activity = process.activity();
        let (mut stdin, mut stdout) = (pipes.stdin.take().unwrap(), pipes.stdout.take().unwrap());
        let mut echoed = async || {
            stdin.write_all(b"x").await.unwrap();
            stdout.read_u8().await.unwrap();
        };
        echoed().await;
        let waiting = loop {
            let before = activity.read().unwrap();
            if activity.read().unwrap() == before {
                break before;
            }
        };
        echoed().await;
        assert_ne!(activity.read().unwrap(), waiting);
        assert_ne!(waiting, 0);
    }
}
