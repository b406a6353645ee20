//! Unix sockets by a path that a client names.
//!
//! Links are followed, but what they lead to has to be allowed as well. It is pinned first (a
//! descriptor that only stands for it), checked, and then used through the descriptor, so
//! that nobody can exchange it in between.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use alknet_core::Identity;
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};
use tokio::net::{UnixListener, UnixStream};

use super::{
    Settings,
    error::{NetworkError, Refusal},
    rules::{Verb, check_path, is_plain_path},
    stream::Connected,
};

/// The longest path of a Unix socket, in bytes.
const MAX_PATH: usize = 107;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// A socket that the caller may connect to.
pub(super) struct Found(OwnedFd);

/// Finds what a path leads to, if the caller may connect to it.
pub(super) fn find(
    settings: &Settings,
    caller: &Identity,
    path: &Path,
) -> Result<Found, NetworkError> {
    precheck(settings, caller, Verb::Connect, path)?;
    let pinned = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    check_real(settings, caller, Verb::Connect, path, &real_path(&pinned)?)?;
    match FileType::from_raw_mode(rustix::fs::fstat(&pinned)?.st_mode) {
        FileType::Socket => Ok(Found(pinned)),
        _ => Err(io::Error::from(io::ErrorKind::ConnectionRefused).into()),
    }
}

impl Found {
    pub(super) async fn connect(&self) -> io::Result<UnixStream> {
        UnixStream::connect(by_descriptor(&self.0)).await
    }
}

/// A Unix socket that listens; its path is removed on drop, if it is still its own.
pub(super) struct UnixListening {
    socket: UnixListener,
    path: PathBuf,
    folder: OwnedFd,
    name: PathBuf,
    /// The device and number of the socket's file.
    file: (u64, u64),
}

/// Listens on a path, if the caller may.
pub(super) fn listen(
    settings: &Settings,
    caller: &Identity,
    path: &Path,
) -> Result<UnixListening, NetworkError> {
    precheck(settings, caller, Verb::Listen, path)?;
    let (folder, name) = folder_of(path)?;
    check_real(settings, caller, Verb::Listen, path, &real_path(&folder)?.join(&name))?;
    match is_safe(&folder)? {
        true => bind(path, folder, name),
        false => Err(Refusal::Folder.into()),
    }
}

/// Listens on a path, whoever asks.
pub(super) fn listen_unchecked(path: &Path) -> Result<UnixListening, NetworkError> {
    let (folder, name) = folder_of(path)?;
    bind(path, folder, name)
}

fn folder_of(path: &Path) -> Result<(OwnedFd, PathBuf), NetworkError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Refusal::Path.into());
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok((rustix::fs::open(parent, flags, Mode::empty())?, name.into()))
}

/// Listens for the node's own account alone (mode 0600). A file that is there stays there,
/// and is an error.
fn bind(path: &Path, folder: OwnedFd, name: PathBuf) -> Result<UnixListening, NetworkError> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Linux gives the file the mode of its socket: there is no moment at which others
    // could connect.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    let address = SocketAddrUnix::new(by_descriptor(&folder).join(&name))?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    let file = rustix::fs::statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW)?;
    let file = (file.st_dev, file.st_ino);
    let socket = UnixListener::from_std(socket.into())?;
    Ok(UnixListening { socket, path: path.to_owned(), folder, name, file })
}

impl UnixListening {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) async fn accept(&self) -> io::Result<Connected> {
        let (stream, _) = self.socket.accept().await?;
        Ok(Connected::accepted_unix(stream, self.path.clone()))
    }
}

impl Drop for UnixListening {
    fn drop(&mut self) {
        let there = rustix::fs::statat(&self.folder, &self.name, AtFlags::SYMLINK_NOFOLLOW);
        if there.is_ok_and(|file| (file.st_dev, file.st_ino) == self.file)
            && let Err(error) = rustix::fs::unlinkat(&self.folder, &self.name, AtFlags::empty())
        {
            tracing::warn!(path = %self.path.display(), %error, "a socket stays behind");
        }
    }
}

/// All that can be said without looking at the file system.
fn precheck(
    settings: &Settings,
    caller: &Identity,
    verb: Verb,
    path: &Path,
) -> Result<(), Refusal> {
    let plain = path.to_str().is_some_and(|text| text.len() <= MAX_PATH && is_plain_path(text));
    if !plain {
        return Err(Refusal::Path);
    }
    check_path(&settings.rules, caller, verb, path)
}

fn check_real(
    settings: &Settings,
    caller: &Identity,
    verb: Verb,
    asked: &Path,
    real: &Path,
) -> Result<(), Refusal> {
    if real == asked {
        return Ok(());
    }
    let elsewhere = |_| Refusal::Elsewhere(real.to_owned());
    check_path(&settings.rules, caller, verb, real).map_err(elsewhere)
}

/// Nobody but the node's account and the system's may exchange what is in the folder.
fn is_safe(folder: &OwnedFd) -> io::Result<bool> {
    let stat = rustix::fs::fstat(folder)?;
    let mode = Mode::from_raw_mode(stat.st_mode);
    let own = [0, rustix::process::geteuid().as_raw()].contains(&stat.st_uid);
    Ok(own && (!mode.intersects(Mode::WGRP | Mode::WOTH) || mode.contains(Mode::SVTX)))
}

/// A path by which the system finds what a descriptor stands for, and nothing else.
fn by_descriptor(descriptor: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", descriptor.as_fd().as_raw_fd()).into()
}

/// Where what a descriptor stands for is, without links.
fn real_path(descriptor: &OwnedFd) -> io::Result<PathBuf> {
    std::fs::read_link(by_descriptor(descriptor))
}
