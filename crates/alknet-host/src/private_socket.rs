//! A Unix socket for the programs of one account alone.

use std::{
    fmt,
    fs::{self, Permissions},
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::{PermissionsExt as _, chown},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use nix::unistd::{geteuid, mkdtemp};
use rustix::fs::{AtFlags, Mode, OFlags};
use tokio::{
    net::{UnixListener, UnixStream},
    time::sleep,
};

use crate::{Account, account::Switch};

/// Where the folders are made: every account can reach it, and takes away only its own.
const PARENT: &str = "/tmp";
const NAME: &str = "socket";
/// How long accepting rests when the node is out of descriptors.
const REST: Duration = Duration::from_millis(100);

/// A listening Unix socket that only one account reaches, by its folder's mode (0700) and
/// by who the kernel says is at the other end; both are removed when it is dropped.
pub struct PrivateSocket {
    listener: UnixListener,
    /// Whose programs may connect.
    uid: u32,
    folder: Folder,
}

/// A new folder below [`PARENT`], removed on drop.
struct Folder {
    path: PathBuf,
    /// The folder itself. Its owner can put something else in its place.
    handle: OwnedFd,
}

impl PrivateSocket {
    /// Listens for the programs of this account.
    pub fn listen(account: &Account) -> io::Result<Self> {
        Self::open(account.switch.as_ref())
    }

    /// Listens for the programs of this process's own account.
    pub fn own() -> io::Result<Self> {
        Self::open(None)
    }

    fn open(owner: Option<&Switch>) -> io::Result<Self> {
        let folder = Folder::new()?;
        let listener = UnixListener::bind(folder.by_handle())?;
        fs::set_permissions(folder.by_handle(), Permissions::from_mode(0o600))?;
        if let Some(owner) = owner {
            // The folder still is the node's: nobody else can have changed what is in it.
            let (uid, gid) = (owner.uid.as_raw(), owner.gid.as_raw());
            chown(folder.by_handle(), Some(uid), Some(gid))?;
            rustix::fs::fchown(&folder.handle_to_change()?, Some(owner.uid), Some(owner.gid))?;
        }
        let uid = owner.map_or_else(|| geteuid().as_raw(), |owner| owner.uid.as_raw());
        Ok(Self { listener, uid, folder })
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.folder.path.join(NAME)
    }

    /// Waits for a program of the account, or of root, to connect. Cancel safe.
    pub async fn accept(&self) -> UnixStream {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) if self.admits(&stream) => return stream,
                Ok(_) => tracing::warn!("another account connected to a private socket"),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept on a private socket");
                    sleep(REST).await;
                }
            }
        }
    }

    fn admits(&self, stream: &UnixStream) -> bool {
        stream.peer_cred().is_ok_and(|peer| [0, self.uid].contains(&peer.uid()))
    }
}

impl fmt::Debug for PrivateSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PrivateSocket").field(&self.path()).finish()
    }
}

impl Folder {
    fn new() -> io::Result<Self> {
        let path = mkdtemp(&Path::new(PARENT).join("alknet-XXXXXX"))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = rustix::fs::open(&path, flags, Mode::empty())?;
        Ok(Self { path, handle })
    }

    /// The socket in this very folder.
    fn by_handle(&self) -> PathBuf {
        format!("/proc/self/fd/{}/{NAME}", self.handle.as_raw_fd()).into()
    }

    fn handle_to_change(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.handle, ".", flags, Mode::empty())?)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // `rmdir` follows no link, and what the owner may have put in its place stays.
        let _ = rustix::fs::unlinkat(&self.handle, NAME, AtFlags::empty());
        if let Err(error) = rustix::fs::rmdir(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "a folder stays behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn socket() -> PrivateSocket {
        PrivateSocket::listen(&Account::current().unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_program_of_the_account_connects() {
        let socket = socket();
        let (client, mut served) =
            tokio::join!(UnixStream::connect(socket.path()), socket.accept());
        client.unwrap().write_all(b"hello").await.unwrap();
        let mut text = String::new();
        served.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello");
    }

    #[tokio::test]
    async fn the_folder_is_for_its_owner_alone_and_goes_with_the_socket() {
        let socket = socket();
        let path = socket.path();
        let folder = path.parent().unwrap();
        assert_eq!(fs::metadata(folder).unwrap().permissions().mode() & 0o7777, 0o700);
        assert!(path.exists());
        drop(socket);
        assert!(!folder.exists());
    }

    #[tokio::test]
    async fn what_was_put_in_the_folder_s_place_is_left_alone() {
        let socket = socket();
        let folder = socket.path().parent().unwrap().to_owned();
        let victim = tempfile::tempdir().unwrap();
        fs::write(victim.path().join(NAME), "kept").unwrap();
        let aside = folder.with_extension("aside");
        fs::rename(&folder, &aside).unwrap();
        std::os::unix::fs::symlink(victim.path(), &folder).unwrap();
        drop(socket);
        assert_eq!(fs::read_to_string(victim.path().join(NAME)).unwrap(), "kept");
        fs::remove_file(&folder).unwrap();
        assert!(fs::read_dir(&aside).unwrap().next().is_none());
        fs::remove_dir(&aside).unwrap();
    }

    #[tokio::test]
    async fn the_name_of_the_folder_is_not_to_be_guessed() {
        assert_ne!(socket().path(), socket().path());
    }
}
