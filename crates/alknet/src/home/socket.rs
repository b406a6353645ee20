//! Unix sockets in the state folder, for processes of the same account.

use std::{
    fs::{self, File},
    io,
    os::{fd::AsRawFd as _, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
};

use tokio::net::{UnixListener, UnixStream};

use super::Home;

impl Home {
    /// A socket that listens under a name of the folder, for the owner alone. What a process
    /// that is gone left under the name is replaced.
    pub(crate) fn listen(&self, name: &str) -> io::Result<UnixListener> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&Address::of(&path)?.path)?;
        // Nobody else could come in between: the folder is closed to others.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    }

    /// Connects to a socket of the folder; `None` if nobody listens there.
    pub(crate) async fn connect(&self, name: &str) -> io::Result<Option<UnixStream>> {
        let address = match Address::of(&self.path(name)) {
            Ok(address) => address,
            Err(error) => return nobody(error),
        };
        UnixStream::connect(&address.path).await.map(Some).or_else(nobody)
    }
}

/// No socket, or one that a killed process left behind.
fn nobody<T>(error: io::Error) -> io::Result<Option<T>> {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
        _ => Err(error),
    }
}

/// Whether the other end is a process of this account, or of root, who could do as it likes
/// anyway. The kernel says so.
pub(crate) fn is_own(stream: &UnixStream) -> io::Result<bool> {
    let (own, peer) = (nix::unistd::geteuid().as_raw(), stream.peer_cred()?.uid());
    Ok(peer == own || peer == 0)
}

/// A name for a socket that fits into the address of one, which has room for about 100
/// bytes: where its own is longer, it goes by the open folder.
struct Address {
    path: PathBuf,
    _folder: Option<File>,
}

impl Address {
    fn of(path: &Path) -> io::Result<Self> {
        if !cfg!(target_os = "linux") || path.as_os_str().len() < 100 {
            return Ok(Self { path: path.into(), _folder: None });
        }
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidFilename.into());
        };
        let folder = File::open(folder)?;
        let path = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
        Ok(Self { path, _folder: Some(folder) })
    }
}
