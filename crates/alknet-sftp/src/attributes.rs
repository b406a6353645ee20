//! What is told of a file: attributes, and a line as `ls -l` prints it.

use std::{collections::HashMap, sync::Mutex};

use chrono::{DateTime, Local, TimeDelta, Utc};
use nix::unistd::{Gid, Group, Uid, User};
use russh_sftp::protocol::FileAttributes;
use rustix::fs::{FileType, Stat};

/// How many names are remembered, of accounts and of groups each.
const NAMES: usize = 1024;

/// The attributes of a file. Times before 1970 or after 2106 have no place in the protocol.
pub(crate) fn attributes(stat: &Stat) -> FileAttributes {
    let time = |seconds: i64| u32::try_from(seconds.max(0)).unwrap_or(u32::MAX);
    FileAttributes {
        size: u64::try_from(stat.st_size).ok(),
        uid: Some(stat.st_uid),
        gid: Some(stat.st_gid),
        permissions: Some(stat.st_mode),
        atime: Some(time(stat.st_atime)),
        mtime: Some(time(stat.st_mtime)),
        ..FileAttributes::empty()
    }
}

/// The names of accounts and groups, asked for once each.
#[derive(Debug, Default)]
pub(crate) struct Names {
    users: Mutex<HashMap<u32, Option<String>>>,
    groups: Mutex<HashMap<u32, Option<String>>>,
}

impl Names {
    /// The login name of a user id, if it has one.
    pub(crate) fn user(&self, id: u32) -> Option<String> {
        cached(&self.users, id, |id| Some(User::from_uid(Uid::from_raw(id)).ok()??.name))
    }

    /// The name of a group id, if it has one.
    pub(crate) fn group(&self, id: u32) -> Option<String> {
        cached(&self.groups, id, |id| Some(Group::from_gid(Gid::from_raw(id)).ok()??.name))
    }

    /// A line as `ls -l` prints it, in the layout that clients take apart.
    pub(crate) fn long(&self, name: &[u8], stat: &Stat) -> Vec<u8> {
        let user = self.user(stat.st_uid).unwrap_or_else(|| stat.st_uid.to_string());
        let group = self.group(stat.st_gid).unwrap_or_else(|| stat.st_gid.to_string());
        let (mode, links, size) = (mode(stat.st_mode), stat.st_nlink, stat.st_size);
        let when = when(stat.st_mtime, Utc::now());
        let mut line =
            format!("{mode} {links:>3} {user:<8} {group:<8} {size:>8} {when} ").into_bytes();
        line.extend_from_slice(name);
        line
    }
}

fn cached(
    names: &Mutex<HashMap<u32, Option<String>>>,
    id: u32,
    look_up: impl FnOnce(u32) -> Option<String>,
) -> Option<String> {
    let mut names = names.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(name) = names.get(&id) {
        return name.clone();
    }
    let name = look_up(id);
    if names.len() < NAMES {
        names.insert(id, name.clone());
    }
    name
}

/// `drwxr-xr-x`, with the letters of setuid, setgid and the sticky bit.
fn mode(mode: u32) -> String {
    let kind = match FileType::from_raw_mode(mode) {
        FileType::Directory => 'd',
        FileType::Symlink => 'l',
        FileType::Fifo => 'p',
        FileType::Socket => 's',
        FileType::CharacterDevice => 'c',
        FileType::BlockDevice => 'b',
        FileType::RegularFile => '-',
        FileType::Unknown => '?',
    };
    let mut text = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 == 0 { '-' } else { 'r' });
        text.push(if bits & 2 == 0 { '-' } else { 'w' });
        text.push(match (bits & 1 != 0, mode & special != 0) {
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    // The end of the column where `ls` marks access lists.
    text.push(' ');
    text
}

/// The time of day for what changed within half a year, and else the year.
fn when(changed: i64, now: DateTime<Utc>) -> String {
    let Some(changed) = DateTime::from_timestamp(changed, 0) else { return String::new() };
    let recent = changed <= now && now - changed < TimeDelta::days(365) / 2;
    let format = if recent { "%b %e %H:%M" } else { "%b %e  %Y" };
    changed.with_timezone(&Local).format(format).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_written_as_ls_does() {
        for (bits, text) in [
            (0o100_644, "-rw-r--r-- "),
            (0o040_755, "drwxr-xr-x "),
            (0o120_777, "lrwxrwxrwx "),
            (0o104_711, "-rws--x--x "),
            (0o102_640, "-rw-r-S--- "),
            (0o041_777, "drwxrwxrwt "),
            (0o041_776, "drwxrwxrwT "),
            (0o010_600, "prw------- "),
        ] {
            assert_eq!(mode(bits), text, "{bits:o}");
        }
    }

    #[test]
    fn the_year_takes_the_place_of_the_time_after_half_a_year() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        assert!(when(now.timestamp() - 3600, now).contains(':'));
        assert!(!when(now.timestamp() - 200 * 86400, now).contains(':'));
        assert!(!when(now.timestamp() + 3600, now).contains(':'));
        assert_eq!(when(i64::MAX, now), "");
    }
}
