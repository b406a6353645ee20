//! What the flags of OPEN ask for.

use russh_sftp::protocol::OpenFlags;
use rustix::fs::OFlags;

/// The flags of the system for those of the protocol, as OpenSSH translates them. Nothing
/// waits for the other end of a named pipe, and no terminal becomes the node's.
pub(crate) fn system_flags(flags: OpenFlags) -> OFlags {
    let (read, write) = (flags.contains(OpenFlags::READ), flags.contains(OpenFlags::WRITE));
    let mut system = match (read, write) {
        (true, true) => OFlags::RDWR,
        (false, true) => OFlags::WRONLY,
        _ => OFlags::RDONLY,
    };
    for (wire, flag) in [
        (OpenFlags::APPEND, OFlags::APPEND),
        (OpenFlags::CREATE, OFlags::CREATE),
        (OpenFlags::TRUNCATE, OFlags::TRUNC),
        (OpenFlags::EXCLUDE, OFlags::EXCL),
    ] {
        if flags.contains(wire) {
            system |= flag;
        }
    }
    system | OFlags::NONBLOCK | OFlags::NOCTTY
}

/// Whether a file that is opened so may be changed by it.
pub(crate) fn opens_for_writing(flags: OpenFlags) -> bool {
    flags.intersects(OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::TRUNCATE | OpenFlags::APPEND)
}

/// Whether a file that is opened so can be read by it.
pub(crate) fn reads_file(flags: OpenFlags) -> bool {
    flags.contains(OpenFlags::READ) || !flags.contains(OpenFlags::WRITE)
}
