//! An SFTP server over any byte stream: the handler of `alknet/sftp`, and what serves the
//! subsystem `sftp` of SSH sessions.
//!
//! ```no_run
//! # use alknet_sftp::*;
//! # async fn run(stream: tokio::net::UnixStream) -> Result<(), Box<dyn std::error::Error>> {
//! let notes = Export::new("notes", "/srv/notes".as_ref())?.with_quota(10 << 30);
//! let view = View::exports(Grant::new(&notes, true, false));
//! let (input, output) = stream.into_split();
//! Session::new(view, Shared::default()).serve(input, output).await?;
//! # Ok(())
//! # }
//! ```
//!
//! On a node, [`SftpServer`] settles who sees what, and [`SftpAdapter`] serves it.
//! `examples/sftp_server.rs` serves standard input and output.
//!
//! # Model
//!
//! The protocol is version 3 (draft-ietf-secsh-filexfer-02) with OpenSSH's extensions:
//! `posix-rename`, `statvfs`, `fstatvfs`, `hardlink`, `fsync`, `lsetstat`, `limits`,
//! `expand-path`, `copy-data`, `home-directory` and `users-groups-by-id`. Where the draft and
//! OpenSSH's server differ, this is as OpenSSH's: the order of SYMLINK's arguments, the status
//! of each error, the order in which attributes are set. A [`View`] is either all that the
//! account of the process can reach, or a folder for each [`Export`] that somebody has a grant
//! for, and nothing else.
//!
//! From russh-sftp come the format of numbers, strings and lists (its serde format), the
//! attributes, flags, status codes, and the types of STATUS, ATTRS and two extensions' answers.
//! Requests, NAME and HANDLE are types of our own, because names and handles are bytes and
//! russh-sftp has `String` there, and DATA is filled where it is sent from. Its server loop is
//! not used: it does one request at a time.
//!
//! Requests run beside one another as far as nobody can tell: what touches the same file keeps
//! its order, under whatever handles; a request that changes names waits for all before it.
//! What is queued for a file is done in one go, on a thread that may wait for the disk. What the
//! kernel has in its caches (`RESOLVE_CACHED`, `RWF_NOWAIT`) is done without one.
//!
//! # Invariants
//!
//! - What a session has in memory is bounded, requests and answers together: a client that
//!   reads no answers is read from no more. So are open handles, of a session, of an identity and
//!   of all, and what an identity brings into the audit log.
//! - A length is checked before anything is reserved for it. A packet that is too long ends
//!   the session: where the next one begins is not guessed. A request whose fields are not
//!   whole is answered, and the next one served.
//! - In an export every path is resolved by the kernel beneath a descriptor of the folder
//!   (`openat2`), and what is then done to a name is done to that folder's descriptor. Nothing
//!   is checked by one look-up and used by another.
//! - With atomic uploads a file has its name when it was closed with all writes done, and a
//!   session that breaks off leaves nothing of it. A file that is gone on with (opened without
//!   truncation, to resume or append) is changed in place.
//! - A request never waits for the other end of a named pipe.
//!
//! # Limits of what it protects
//!
//! Exports are read and written with the rights of the process, and hold what other programs
//! put there: a hard link that somebody on the machine has made, or a file system mounted
//! within, is part of the folder. Setuid, setgid and sticky bits are not set in one, owners are
//! not changed, and links are made that lead down alone; those that are there already are shown
//! and not followed where they lead out, but can be moved, so nothing else should follow links in
//! an export that clients write to. Quotas count the sizes of files as they are seen from here,
//! with those that are open and have no name; what others write is noticed within a minute, or
//! ten times as long as counting takes. The number of files is not bounded. The process that serves another account is that
//! account's: what it reports for the audit log, the account could forge. A process that is
//! killed may leave an unfinished upload as `.alknet-upload-*` where the file system has no
//! files without a name.

mod adapter;
mod attributes;
mod change;
mod export;
mod fault;
mod file;
mod flags;
mod folder;
mod half;
mod handles;
mod helper;
mod path;
mod perform;
mod quick;
mod quota;
mod schedule;
mod server;
mod session;
mod share;
mod trail;
mod upload;
mod view;
mod wire;

pub use adapter::SftpAdapter;
pub use export::{Export, ExportError, Grant};
pub use server::{Helper, Reach, SftpConfig, SftpError, SftpServer};
pub use session::{Rules, Session, SessionError, SftpLimits, Shared};
pub use trail::Trail;
pub use view::View;
pub use wire::{PacketError, REQUESTS};
