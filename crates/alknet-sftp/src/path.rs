//! Paths as bytes.

use rustix::{
    fs::{AtFlags, FileType, readlinkat, statat},
    io::Errno,
};
use std::os::fd::{AsFd, BorrowedFd};

/// How many symbolic links a path may lead through, as the kernel has it.
const LINKS: usize = 40;
/// The longest path, as the kernel has it, in bytes.
pub(crate) const LONGEST: usize = 4096;

/// The components of a path from the root, with `.` and `..` resolved by their text alone.
/// There is nothing above the root.
pub(crate) fn normal(path: &[u8]) -> Vec<&[u8]> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts
}

/// An absolute path of these components.
pub(crate) fn absolute(parts: &[&[u8]]) -> Vec<u8> {
    let mut path = Vec::new();
    for part in parts {
        path.push(b'/');
        path.extend_from_slice(part);
    }
    if path.is_empty() {
        path.push(b'/');
    }
    path
}

/// A path that starts at `base` unless it is absolute.
pub(crate) fn join(base: &[u8], path: &[u8]) -> Vec<u8> {
    match path {
        [b'/', ..] => path.to_vec(),
        _ => [base, b"/", path].concat(),
    }
}

/// The absolute path of a file with no symbolic link in it, as OpenSSH's server tells it: what
/// the last component names need not exist. `path` is absolute; `at` is not looked at then.
pub(crate) fn real(at: BorrowedFd<'_>, path: &[u8]) -> Result<Vec<u8>, Errno> {
    let mut resolved: Vec<u8> = Vec::new();
    let mut left: Vec<Vec<u8>> = components(path);
    let mut links = 0;
    while let Some(part) = left.pop() {
        match part.as_slice() {
            b"" | b"." => continue,
            b".." => {
                resolved.truncate(resolved.iter().rposition(|b| *b == b'/').unwrap_or(0));
                continue;
            }
            _ => {}
        }
        let parent = resolved.len();
        resolved.push(b'/');
        resolved.extend_from_slice(&part);
        if resolved.len() > LONGEST || left.len() > LONGEST {
            return Err(Errno::NAMETOOLONG);
        }
        let stat = match statat(at.as_fd(), resolved.as_slice(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) if left.iter().all(Vec::is_empty) => return Ok(resolved),
            Err(errno) => return Err(errno),
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            links += 1;
            if links > LINKS {
                return Err(Errno::LOOP);
            }
            let target = readlinkat(at.as_fd(), resolved.as_slice(), Vec::new())?.into_bytes();
            resolved.truncate(if target.starts_with(b"/") { 0 } else { parent });
            left.extend(components(&target));
        } else if !left.is_empty() && FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Err(Errno::NOTDIR);
        }
    }
    Ok(if resolved.is_empty() { b"/".to_vec() } else { resolved })
}

/// The components of a path, the first one last.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec).collect()
}

/// Whether a link leads down from where it is, wherever that may come to be: `..` after a name
/// that is itself a link leads anywhere.
pub(crate) fn leads_down(target: &[u8]) -> bool {
    !target.starts_with(b"/") && target.split(|byte| *byte == b'/').all(|part| part != b"..")
}

#[cfg(test)]
mod tests {
    use rustix::fs::CWD;

    use super::*;

    #[test]
    fn nothing_is_above_the_root() {
        for (path, normal_path) in [
            ("", "/"),
            ("/", "/"),
            ("../../etc", "/etc"),
            ("/a/./b//../c/", "/a/c"),
            ("/a/../../..", "/"),
        ] {
            assert_eq!(absolute(&normal(path.as_bytes())), normal_path.as_bytes());
        }
    }

    #[test]
    fn links_lead_down_alone() {
        assert!(leads_down(b"a/b") && leads_down(b".") && leads_down(b"..a/b.."));
        for target in ["..", "a/..", "a/../b", "/etc", "./../b"] {
            assert!(!leads_down(target.as_bytes()), "{target}");
        }
    }

    #[test]
    fn real_paths_have_no_links_and_may_name_what_is_to_come() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let text = |path: &str| root.join(path).into_os_string().into_encoded_bytes();
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(root.join("file"), "").unwrap();
        std::os::unix::fs::symlink("a/b", root.join("link")).unwrap();
        std::os::unix::fs::symlink("loop", root.join("loop")).unwrap();
        let real = |path: &str| real(CWD, &text(path));
        assert_eq!(real("link"), Ok(text("a/b")));
        assert_eq!(real("link/.."), Ok(text("a")));
        assert_eq!(real("link/new"), Ok(text("a/b/new")));
        assert_eq!(real("new/"), Ok(text("new")));
        assert_eq!(real("new/more"), Err(Errno::NOENT));
        assert_eq!(real("file/more"), Err(Errno::NOTDIR));
        assert_eq!(real("loop"), Err(Errno::LOOP));
        assert_eq!(super::real(CWD, b"/../.."), Ok(b"/".to_vec()));
    }
}
