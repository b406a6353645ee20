//! The packets of SFTP version 3 (draft-ietf-secsh-filexfer-02) and OpenSSH's extensions to it.
//!
//! Numbers, strings and attributes are read and written by russh-sftp's serde format. The
//! requests are types of our own: where russh-sftp has a `String`, names are bytes here, and
//! the data of a WRITE stays where it arrived.

use std::{fmt, io};

use bytes::{Buf as _, Bytes, BytesMut};
use russh_sftp::{
    de,
    extensions::{LimitsExtension, Statvfs},
    protocol::{Attrs, FileAttributes, OpenFlags, Status, StatusCode},
    ser,
};
use serde::Serialize;
use serde_bytes::{ByteBuf, Bytes as Text};

use crate::fault::Fault;

/// The longest packet, in bytes without its length, as OpenSSH has it.
pub(crate) const MAX_PACKET: usize = 256 * 1024;
/// The most that is read or written at once, in bytes, as OpenSSH has it.
pub(crate) const MAX_DATA: usize = MAX_PACKET - 1024;
/// The version that is spoken.
const VERSION: u32 = 3;

/// The numbers of packets.
mod kind {
    pub(super) const INIT: u8 = 1;
    pub(super) const VERSION: u8 = 2;
    pub(super) const OPEN: u8 = 3;
    pub(super) const CLOSE: u8 = 4;
    pub(super) const READ: u8 = 5;
    pub(super) const WRITE: u8 = 6;
    pub(super) const LSTAT: u8 = 7;
    pub(super) const FSTAT: u8 = 8;
    pub(super) const SETSTAT: u8 = 9;
    pub(super) const FSETSTAT: u8 = 10;
    pub(super) const OPENDIR: u8 = 11;
    pub(super) const READDIR: u8 = 12;
    pub(super) const REMOVE: u8 = 13;
    pub(super) const MKDIR: u8 = 14;
    pub(super) const RMDIR: u8 = 15;
    pub(super) const REALPATH: u8 = 16;
    pub(super) const STAT: u8 = 17;
    pub(super) const RENAME: u8 = 18;
    pub(super) const READLINK: u8 = 19;
    pub(super) const SYMLINK: u8 = 20;
    pub(super) const STATUS: u8 = 101;
    pub(super) const HANDLE: u8 = 102;
    pub(super) const DATA: u8 = 103;
    pub(super) const NAME: u8 = 104;
    pub(super) const ATTRS: u8 = 105;
    pub(super) const EXTENDED: u8 = 200;
    pub(super) const EXTENDED_REPLY: u8 = 201;
}

/// The peer does not speak the protocol: there is no telling where its next packet begins.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PacketError {
    /// More than is read.
    #[error("a packet of {0} bytes: the longest has {MAX_PACKET}")]
    TooLong(u32),
    /// Less than every packet has.
    #[error("a packet without a request number")]
    TooShort,
    /// Something came before the client named its version, or it did so twice.
    #[error("the session does not begin with the client's version")]
    NoVersion,
}

impl From<PacketError> for io::Error {
    fn from(error: PacketError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// Takes the next whole packet, without its length, from what has arrived. `None` if it is
/// not all there.
pub(crate) fn split(arrived: &mut BytesMut) -> Result<Option<Bytes>, PacketError> {
    let Some(length) = arrived.first_chunk::<4>() else { return Ok(None) };
    let announced = u32::from_be_bytes(*length);
    let length = usize::try_from(announced).unwrap_or(usize::MAX);
    if length > MAX_PACKET {
        return Err(PacketError::TooLong(announced));
    }
    if arrived.len() < 4 + length {
        return Ok(None);
    }
    arrived.advance(4);
    Ok(Some(arrived.split_to(length).freeze()))
}

/// How much of the next packet is still to come, in bytes; 4 where nobody knows.
pub(crate) fn missing(arrived: &BytesMut) -> usize {
    let length = arrived.first_chunk::<4>().map_or(0, |length| u32::from_be_bytes(*length));
    let length = usize::try_from(length).unwrap_or(MAX_PACKET).min(MAX_PACKET);
    (4 + length).saturating_sub(arrived.len())
}

/// The version in the client's first packet.
pub(crate) fn init(mut packet: Bytes) -> Result<u32, PacketError> {
    match packet.try_get_u8() {
        Ok(kind::INIT) => packet.try_get_u32().map_err(|_| PacketError::NoVersion),
        _ => Err(PacketError::NoVersion),
    }
}

/// A file or a folder that a client has open, as the client writes it.
pub(crate) type HandleText = ByteBuf;

/// What a client asks for.
#[derive(Debug)]
pub(crate) enum Request {
    Open {
        path: ByteBuf,
        flags: OpenFlags,
        attributes: FileAttributes,
    },
    Close {
        handle: HandleText,
    },
    Read {
        handle: HandleText,
        offset: u64,
        length: u32,
    },
    Write {
        handle: HandleText,
        offset: u64,
        data: Bytes,
    },
    Stat {
        path: ByteBuf,
        follow: bool,
    },
    FStat {
        handle: HandleText,
    },
    SetStat {
        path: ByteBuf,
        attributes: FileAttributes,
        follow: bool,
    },
    FSetStat {
        handle: HandleText,
        attributes: FileAttributes,
    },
    OpenDir {
        path: ByteBuf,
    },
    ReadDir {
        handle: HandleText,
    },
    Remove {
        path: ByteBuf,
    },
    MkDir {
        path: ByteBuf,
        attributes: FileAttributes,
    },
    RmDir {
        path: ByteBuf,
    },
    RealPath {
        path: ByteBuf,
    },
    Rename {
        from: ByteBuf,
        to: ByteBuf,
        replace: bool,
    },
    ReadLink {
        path: ByteBuf,
    },
    Symlink {
        target: ByteBuf,
        link: ByteBuf,
    },
    HardLink {
        from: ByteBuf,
        to: ByteBuf,
    },
    StatVfs {
        path: ByteBuf,
    },
    FStatVfs {
        handle: HandleText,
    },
    FSync {
        handle: HandleText,
    },
    Limits,
    ExpandPath {
        path: ByteBuf,
    },
    CopyData(CopyData),
    HomeDirectory {
        account: ByteBuf,
    },
    Names {
        users: ByteBuf,
        groups: ByteBuf,
    },
    /// One that no version or extension of ours has.
    Unknown,
    /// One whose fields are not those that its number promises.
    Malformed,
}

/// `copy-data`: from one open file to another.
#[derive(Debug)]
pub(crate) struct CopyData {
    pub(crate) from: HandleText,
    pub(crate) from_offset: u64,
    /// 0 is up to the end.
    pub(crate) length: u64,
    pub(crate) to: HandleText,
    pub(crate) to_offset: u64,
}

/// A request with its number.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) id: u32,
    pub(crate) request: Request,
}

impl Packet {
    /// Reads a packet without its length. Surplus bytes at its end are passed over, as
    /// OpenSSH does.
    pub(crate) fn parse(mut packet: Bytes) -> Result<Self, PacketError> {
        let kind = packet.try_get_u8().map_err(|_| PacketError::TooShort)?;
        let id = packet.try_get_u32().map_err(|_| PacketError::TooShort)?;
        if kind == kind::INIT {
            return Err(PacketError::NoVersion);
        }
        let request = Request::parse(kind, &mut packet).unwrap_or(Request::Malformed);
        Ok(Self { id, request })
    }
}

/// The fields of a packet, in order.
fn fields<T: serde::de::DeserializeOwned>(packet: &mut Bytes) -> Option<T> {
    de::from_bytes(packet).ok()
}

impl Request {
    fn parse(kind: u8, packet: &mut Bytes) -> Option<Self> {
        Some(match kind {
            kind::OPEN => {
                let (path, flags, attributes) = fields(packet)?;
                Self::Open { path, flags, attributes }
            }
            kind::CLOSE => Self::Close { handle: fields(packet)? },
            kind::READ => {
                let (handle, offset, length) = fields(packet)?;
                Self::Read { handle, offset, length }
            }
            kind::WRITE => Self::write(packet)?,
            kind::LSTAT => Self::Stat { path: fields(packet)?, follow: false },
            kind::FSTAT => Self::FStat { handle: fields(packet)? },
            kind::SETSTAT => {
                let (path, attributes) = fields(packet)?;
                Self::SetStat { path, attributes, follow: true }
            }
            kind::FSETSTAT => {
                let (handle, attributes) = fields(packet)?;
                Self::FSetStat { handle, attributes }
            }
            kind::OPENDIR => Self::OpenDir { path: fields(packet)? },
            kind::READDIR => Self::ReadDir { handle: fields(packet)? },
            kind::REMOVE => Self::Remove { path: fields(packet)? },
            kind::MKDIR => {
                let (path, attributes) = fields(packet)?;
                Self::MkDir { path, attributes }
            }
            kind::RMDIR => Self::RmDir { path: fields(packet)? },
            kind::REALPATH => Self::RealPath { path: fields(packet)? },
            kind::STAT => Self::Stat { path: fields(packet)?, follow: true },
            kind::RENAME => {
                let (from, to) = fields(packet)?;
                Self::Rename { from, to, replace: false }
            }
            kind::READLINK => Self::ReadLink { path: fields(packet)? },
            kind::SYMLINK => {
                // OpenSSH has sent them in this order from the beginning, against the
                // draft, and everybody has followed.
                let (target, link) = fields(packet)?;
                Self::Symlink { target, link }
            }
            kind::EXTENDED => {
                let name: ByteBuf = fields(packet)?;
                Self::extended(&name, packet)?
            }
            _ => Self::Unknown,
        })
    }

    fn write(packet: &mut Bytes) -> Option<Self> {
        let (handle, offset, length): (_, _, u32) = fields(packet)?;
        let length = usize::try_from(length).ok()?;
        let data = (length <= packet.len()).then(|| packet.split_to(length))?;
        Some(Self::Write { handle, offset, data })
    }

    fn extended(name: &[u8], packet: &mut Bytes) -> Option<Self> {
        Some(match name {
            b"posix-rename@openssh.com" => {
                let (from, to) = fields(packet)?;
                Self::Rename { from, to, replace: true }
            }
            b"statvfs@openssh.com" => Self::StatVfs { path: fields(packet)? },
            b"fstatvfs@openssh.com" => Self::FStatVfs { handle: fields(packet)? },
            b"hardlink@openssh.com" => {
                let (from, to) = fields(packet)?;
                Self::HardLink { from, to }
            }
            b"fsync@openssh.com" => Self::FSync { handle: fields(packet)? },
            b"lsetstat@openssh.com" => {
                let (path, attributes) = fields(packet)?;
                Self::SetStat { path, attributes, follow: false }
            }
            b"limits@openssh.com" => Self::Limits,
            b"expand-path@openssh.com" => Self::ExpandPath { path: fields(packet)? },
            b"copy-data" => {
                let (from, from_offset, length, to, to_offset) = fields(packet)?;
                Self::CopyData(CopyData { from, from_offset, length, to, to_offset })
            }
            b"home-directory" => Self::HomeDirectory { account: fields(packet)? },
            b"users-groups-by-id@openssh.com" => {
                let (users, groups) = fields(packet)?;
                Self::Names { users, groups }
            }
            _ => Self::Unknown,
        })
    }

    /// The handle that it is about, if that is one alone.
    pub(crate) fn handle(&self) -> Option<&HandleText> {
        match self {
            Self::Close { handle }
            | Self::Read { handle, .. }
            | Self::Write { handle, .. }
            | Self::FStat { handle }
            | Self::FSetStat { handle, .. }
            | Self::ReadDir { handle }
            | Self::FStatVfs { handle }
            | Self::FSync { handle } => Some(handle),
            _ => None,
        }
    }

    /// Whether it changes something, whatever it is about. OPEN does by its flags.
    pub(crate) fn changes(&self) -> bool {
        matches!(
            self,
            Self::Write { .. }
                | Self::SetStat { .. }
                | Self::FSetStat { .. }
                | Self::Remove { .. }
                | Self::MkDir { .. }
                | Self::RmDir { .. }
                | Self::Rename { .. }
                | Self::Symlink { .. }
                | Self::HardLink { .. }
                | Self::FSync { .. }
                | Self::CopyData(_)
        )
    }

    /// The name by which OpenSSH's `sftp-server -p` and `-P` know it.
    pub(crate) fn name(&self) -> Option<&'static str> {
        Some(match self {
            Self::Open { .. } => "open",
            Self::Close { .. } => "close",
            Self::Read { .. } => "read",
            Self::Write { .. } => "write",
            Self::Stat { follow: false, .. } => "lstat",
            Self::FStat { .. } => "fstat",
            Self::SetStat { follow: true, .. } => "setstat",
            Self::FSetStat { .. } => "fsetstat",
            Self::OpenDir { .. } => "opendir",
            Self::ReadDir { .. } => "readdir",
            Self::Remove { .. } => "remove",
            Self::MkDir { .. } => "mkdir",
            Self::RmDir { .. } => "rmdir",
            Self::RealPath { .. } => "realpath",
            Self::Stat { follow: true, .. } => "stat",
            Self::Rename { replace: false, .. } => "rename",
            Self::ReadLink { .. } => "readlink",
            Self::Symlink { .. } => "symlink",
            Self::Rename { replace: true, .. } => "posix-rename",
            Self::StatVfs { .. } => "statvfs",
            Self::FStatVfs { .. } => "fstatvfs",
            Self::HardLink { .. } => "hardlink",
            Self::FSync { .. } => "fsync",
            Self::SetStat { follow: false, .. } => "lsetstat",
            Self::Limits => "limits",
            Self::ExpandPath { .. } => "expand-path",
            Self::CopyData(_) => "copy-data",
            Self::HomeDirectory { .. } => "home-directory",
            Self::Names { .. } => "users-groups-by-id",
            Self::Unknown | Self::Malformed => return None,
        })
    }
}

/// All names of requests, in OpenSSH's order.
pub const REQUESTS: [&str; 29] = [
    "open",
    "close",
    "read",
    "write",
    "lstat",
    "fstat",
    "setstat",
    "fsetstat",
    "opendir",
    "readdir",
    "remove",
    "mkdir",
    "rmdir",
    "realpath",
    "stat",
    "rename",
    "readlink",
    "symlink",
    "posix-rename",
    "statvfs",
    "fstatvfs",
    "hardlink",
    "fsync",
    "lsetstat",
    "limits",
    "expand-path",
    "copy-data",
    "home-directory",
    "users-groups-by-id",
];

/// The extensions that VERSION announces: those that clients look for, with their versions.
const EXTENSIONS: [(&str, &str, &str); 11] = [
    ("posix-rename", "posix-rename@openssh.com", "1"),
    ("statvfs", "statvfs@openssh.com", "2"),
    ("fstatvfs", "fstatvfs@openssh.com", "2"),
    ("hardlink", "hardlink@openssh.com", "1"),
    ("fsync", "fsync@openssh.com", "1"),
    ("lsetstat", "lsetstat@openssh.com", "1"),
    ("limits", "limits@openssh.com", "1"),
    ("expand-path", "expand-path@openssh.com", "1"),
    ("copy-data", "copy-data", "1"),
    ("home-directory", "home-directory", "1"),
    ("users-groups-by-id", "users-groups-by-id@openssh.com", "1"),
];

/// One entry of a NAME packet.
#[derive(Debug, Serialize)]
pub(crate) struct Name {
    pub(crate) name: ByteBuf,
    pub(crate) long: ByteBuf,
    pub(crate) attributes: FileAttributes,
}

impl Name {
    /// A path alone.
    pub(crate) fn path(path: impl Into<Vec<u8>>) -> Self {
        let name = ByteBuf::from(path);
        Self { long: name.clone(), name, attributes: FileAttributes::empty() }
    }
}

/// An answer to a request.
pub(crate) enum Reply {
    Done,
    Handle(u64),
    /// A whole packet of data, made by [`data`].
    Data(Vec<u8>),
    Names(Vec<Name>),
    Attributes(FileAttributes),
    Limits(LimitsExtension),
    Usage(Statvfs),
    /// The names of accounts and of groups, each a list of strings in a string.
    Accounts(Vec<u8>, Vec<u8>),
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}

/// A packet, with its length.
fn packet(fields: &impl Serialize) -> Bytes {
    // The format writes all that these types have: there is no error to come.
    let mut bytes = BytesMut::from(ser::to_bytes(&(0u32, fields)).unwrap_or_default());
    seal(&mut bytes);
    bytes.freeze()
}

/// Puts the length in front.
fn seal(bytes: &mut [u8]) {
    let length = u32::try_from(bytes.len().saturating_sub(4)).unwrap_or(u32::MAX);
    if let Some(head) = bytes.first_chunk_mut::<4>() {
        *head = length.to_be_bytes();
    }
}

/// What comes before the bytes of a DATA packet.
const DATA_HEAD: usize = 4 + 1 + 4 + 4;

/// A DATA packet of what `read` appends, at most so many bytes; `None` if that is nothing.
pub(crate) fn data<E>(
    id: u32,
    length: usize,
    read: impl FnOnce(&mut Vec<u8>) -> Result<usize, E>,
) -> Result<Option<Vec<u8>>, E> {
    // Not zeroed: it is read into what is spare.
    let mut bytes = Vec::with_capacity(DATA_HEAD + length);
    bytes.extend_from_slice(&[0; DATA_HEAD]);
    let count = read(&mut bytes)?.min(length);
    bytes.truncate(DATA_HEAD + count);
    let counted = u32::try_from(count).unwrap_or(u32::MAX);
    let fields = [&[kind::DATA][..], &id.to_be_bytes(), &counted.to_be_bytes()].concat();
    if let Some(place) = bytes.get_mut(4..DATA_HEAD) {
        place.copy_from_slice(&fields);
    }
    seal(&mut bytes);
    Ok((count > 0 || length == 0).then_some(bytes))
}

/// The answer to INIT, with the extensions whose requests are `offered`.
pub(crate) fn version(offered: impl Fn(&str) -> bool) -> Bytes {
    struct Pairs<F>(F);
    impl<F: Fn(&str) -> bool> Serialize for Pairs<F> {
        fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            let pairs = EXTENSIONS.iter().filter(|(request, ..)| self.0(request));
            to.collect_map(pairs.map(|(_, name, version)| (name, version)))
        }
    }
    packet(&(kind::VERSION, VERSION, Pairs(offered)))
}

/// A STATUS packet.
pub(crate) fn status(id: u32, status_code: StatusCode, message: &str) -> Bytes {
    let language_tag = String::new();
    let status = Status { id, status_code, error_message: message.into(), language_tag };
    packet(&(kind::STATUS, status))
}

/// The packet that answers request `id`.
pub(crate) fn answer(id: u32, outcome: Result<Reply, Fault>) -> Bytes {
    match outcome {
        Ok(Reply::Done) => status(id, StatusCode::Ok, "Success"),
        Ok(Reply::Handle(handle)) => packet(&(kind::HANDLE, id, Text::new(&handle.to_be_bytes()))),
        Ok(Reply::Data(bytes)) => bytes.into(),
        Ok(Reply::Names(names)) => packet(&(kind::NAME, id, names)),
        Ok(Reply::Attributes(attrs)) => packet(&(kind::ATTRS, Attrs { id, attrs })),
        Ok(Reply::Limits(limits)) => packet(&(kind::EXTENDED_REPLY, id, limits)),
        Ok(Reply::Usage(usage)) => packet(&(kind::EXTENDED_REPLY, id, usage)),
        Ok(Reply::Accounts(users, groups)) => {
            packet(&(kind::EXTENDED_REPLY, id, Text::new(&users), Text::new(&groups)))
        }
        Err(fault) => status(id, fault.code, &fault.message),
    }
}

/// A list of strings, as bytes.
pub(crate) fn strings<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<u8> {
    texts.flat_map(|text| ser::to_bytes(text).unwrap_or_default()).collect()
}

/// The handle that a client names.
pub(crate) fn handle(text: &HandleText) -> Option<u64> {
    Some(u64::from_be_bytes(text.as_slice().try_into().ok()?))
}
