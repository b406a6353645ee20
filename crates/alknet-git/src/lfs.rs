//! Large files: what Git LFS keeps beside the objects of a repository.
//!
//! Objects are named by the SHA-256 of their content and lie in `lfs/objects` of the
//! repository, locks in `lfs/locks.json`. Nothing that a push refers to is looked at, so an
//! object stays until its repository goes. Whoever was let into a repository stays in its
//! folder: what they send or lock is where that is, and nowhere when it is gone.

pub(crate) mod locks;
pub(crate) mod objects;
mod pace;
pub(crate) mod root;
mod transfer;

use std::{
    collections::HashMap,
    fs,
    fs::File,
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use locks::Locks;
use objects::{Incoming, Objects, Oid};
use pace::Pace;
use root::Root;

use crate::{
    admission::Admitted,
    name::RepositoryName,
    request::{Request, Service},
    server::{Caller, GitError, GitServer},
};

pub use transfer::{InvalidOperation, LfsOperation};

/// The folder of large files in a repository.
const FOLDER: &str = "lfs";
/// What the audit log calls it that somebody has sent an object, or got one.
const UPLOADED: &str = "git-lfs-upload";
const DOWNLOADED: &str = "git-lfs-download";
/// The most objects of one batch. git-lfs asks for 100 at a time.
pub(crate) const MAX_BATCH: usize = 1000;
/// The longest object, in bytes, where no quota is less.
const MAX_OBJECT: u64 = 1 << 40;
/// How much room an object takes at first, in bytes. Later it is as much again as has come of
/// it: whoever only says that much will come keeps nobody else out.
const STEP: u64 = 8 << 20;

/// Large files could not be kept or given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LfsError {
    /// What came is not what its name says.
    #[error("the content is not that of the object")]
    Content,
    /// More or fewer bytes came than were announced.
    #[error("the object has another size")]
    Size,
    /// The repository holds no more.
    #[error("the repository may not grow by so much")]
    Full,
    /// Nobody locks a file of such a name.
    #[error("no file has such a path")]
    Path,
    /// The repository has been removed.
    #[error("the repository is gone")]
    Gone,
    /// The owner wants none here.
    #[error("large files are not kept here")]
    Off,
    /// The repository has all the locks that it can have.
    #[error("the repository has too many locks")]
    Locks,
    /// The client breaks the protocol.
    #[error("the client said nothing that can be understood")]
    Protocol,
    /// It sends or takes next to nothing for too long.
    #[error("the client stalled")]
    Stalled,
    /// All of it took too long.
    #[error("it took longer than {}s", .0.as_secs())]
    Late(Duration),
    /// A file could not be read or written, or the stream failed.
    #[error("large files could not be read or written")]
    Io(#[from] io::Error),
}

/// The large files of one repository, for somebody who may read them, or write them if it was
/// opened so.
#[derive(Debug)]
pub(crate) struct Lfs {
    pub(crate) objects: Objects,
    pub(crate) locks: Locks,
    server: GitServer,
    caller: Caller,
    /// While it is here, nobody takes a repository away that a push has made.
    repository: Admitted,
}

/// What becomes of an object that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is here.
    There,
    /// It is not.
    Missing,
    /// It is here, and longer or shorter.
    OtherSize,
    /// There is no room for it.
    Full,
}

impl GitServer {
    /// The large files of a repository, if the caller may read them, or, to `write`, push.
    pub(crate) async fn lfs(
        &self,
        name: &RepositoryName,
        write: bool,
        caller: &Caller,
    ) -> Result<Lfs, GitError> {
        let service = if write { Service::ReceivePack } else { Service::UploadPack };
        let repository = self.admit(&Request::new(service, name.clone()), caller).await?;
        if write && !repository.settings.lfs {
            return Err(LfsError::Off.into());
        }
        let root = Root::new(self.repositories().clone(), repository.folder());
        let (objects, locks) = (Objects::new(root.clone()), Locks::new(root));
        Ok(Lfs { objects, locks, server: self.clone(), caller: caller.clone(), repository })
    }
}

impl AsRef<Admitted> for Lfs {
    fn as_ref(&self) -> &Admitted {
        &self.repository
    }
}

impl Lfs {
    /// What is to be said of each object of a batch; `upload` asks for room for those that
    /// are missing as well.
    pub(crate) async fn judge(
        &self,
        wanted: Vec<(Oid, u64)>,
        upload: bool,
    ) -> Result<Vec<Verdict>, LfsError> {
        let (objects, rooms, quota) = (self.objects.clone(), self.rooms(), self.quota());
        blocking(move || {
            let mut room = if upload { rooms.left(&objects, quota)? } else { 0 };
            let verdict = |(oid, size): &(Oid, u64)| {
                Ok(match objects.size_of(oid)? {
                    Some(there) if there == *size => Verdict::There,
                    Some(_) => Verdict::OtherSize,
                    None if upload && *size > room => Verdict::Full,
                    None => {
                        room = room.saturating_sub(*size);
                        Verdict::Missing
                    }
                })
            };
            wanted.iter().map(verdict).collect()
        })
        .await
    }

    /// An object's content and size; `None` if it is not there. That somebody gets it is in the
    /// audit log.
    pub(crate) async fn open(&self, oid: &Oid) -> Result<Option<(File, u64)>, LfsError> {
        let found = self.objects.open(oid).await?;
        if let Some((_, size)) = &found {
            self.record(DOWNLOADED, oid, *size);
        }
        Ok(found)
    }

    /// Begins to receive an object, if there is room for it now.
    pub(crate) async fn receive(&self, oid: &Oid, size: u64) -> Result<Upload<'_>, LfsError> {
        let taken = size.min(STEP);
        let room = vec![self.room(taken, size.saturating_sub(taken)).await?];
        let incoming = self.objects.receive(oid, size).await?;
        let (oid, pace) = (oid.clone(), Pace::default());
        Ok(Upload { lfs: self, oid, size, came: 0, incoming, room, pace })
    }

    /// Takes room, if there is some for what is to come as well.
    async fn room(&self, bytes: u64, to_come: u64) -> Result<Room, LfsError> {
        let (objects, rooms, quota) = (self.objects.clone(), self.rooms(), self.quota());
        blocking(move || rooms.take(&objects, quota, bytes, to_come)).await
    }

    fn quota(&self) -> Option<u64> {
        self.repository.settings.quota
    }

    fn rooms(&self) -> Rooms {
        self.server.0.rooms.clone()
    }

    fn record(&self, event: &'static str, oid: &Oid, size: u64) {
        let (record, name) = (&self.server.0.record, &self.repository.name);
        record.large_file(event, &self.caller, name, oid.to_string(), size);
    }
}

/// An object that is on its way here, and the room for what has come of it.
#[derive(Debug)]
pub(crate) struct Upload<'a> {
    lfs: &'a Lfs,
    oid: Oid,
    size: u64,
    came: u64,
    incoming: Incoming,
    room: Vec<Room>,
    pace: Pace,
}

impl Upload<'_> {
    /// Waits for the next bytes, and fails where they come too slowly. As cancel safe as that.
    pub(crate) async fn wait<T>(&mut self, next: impl Future<Output = T>) -> Result<T, LfsError> {
        self.pace.wait(next).await
    }

    /// Takes the next bytes. Not cancel safe.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), LfsError> {
        let count = bytes.len() as u64;
        self.pace.came(count);
        self.came = self.came.saturating_add(count);
        if self.came > self.size {
            return Err(LfsError::Size);
        }
        let room: u64 = self.room.iter().map(|room| room.bytes).sum();
        if self.came > room {
            let wanted = self.came.saturating_mul(2).min(self.size);
            let (more, to_come) = (wanted.saturating_sub(room), self.size.saturating_sub(wanted));
            self.room.push(self.lfs.room(more, to_come).await?);
        }
        self.incoming.write(bytes).await
    }

    /// See [`Incoming::finish`]. That somebody has sent it is in the audit log.
    pub(crate) async fn finish(self) -> Result<(), LfsError> {
        self.incoming.finish().await?;
        self.lfs.record(UPLOADED, &self.oid, self.size);
        Ok(())
    }
}

/// Takes away what a crash has left of uploads to a repository, while there are none. Waits for
/// the disk.
pub(crate) fn sweep(repository: &Path) {
    match fs::remove_dir_all(repository.join(objects::INCOMING)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            let path = repository.display();
            tracing::warn!(%path, %error, "large files that did not arrive stay behind");
        }
        _ => {}
    }
}

/// Whether a repository has large files or locks of them.
pub(crate) fn has_any(repository: &Path) -> bool {
    let locks = repository.join(FOLDER).join(locks::FILE);
    repository.join(objects::FOLDER).exists() || locks.exists()
}

/// What uploads in progress will take of the quotas of their repositories, by the files that
/// their folders are. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rooms(Arc<Mutex<HashMap<(u64, u64), u64>>>);

/// A part of a quota, until it is dropped.
#[derive(Debug)]
struct Room {
    rooms: Rooms,
    folder: (u64, u64),
    bytes: u64,
}

impl Rooms {
    /// How many bytes more a repository may have. Waits for the disk.
    fn left(&self, objects: &Objects, quota: Option<u64>) -> Result<u64, LfsError> {
        let Some(quota) = quota else { return Ok(MAX_OBJECT) };
        let used = self.used(objects)?;
        Ok(quota.saturating_sub(used))
    }

    /// Takes so many of them, if there are `to_come` as well, which are left to others.
    fn take(
        &self,
        objects: &Objects,
        quota: Option<u64>,
        bytes: u64,
        to_come: u64,
    ) -> Result<Room, LfsError> {
        if bytes.saturating_add(to_come) > MAX_OBJECT {
            return Err(LfsError::Full);
        }
        let folder = objects.root().id()?;
        // Taken before it is looked, so that of two at once not both find the same room.
        *self.lock().entry(folder).or_default() += bytes;
        let room = Room { rooms: self.clone(), folder, bytes };
        let Some(quota) = quota else { return Ok(room) };
        let fits = self.used(objects)?.saturating_add(to_come) <= quota;
        if fits { Ok(room) } else { Err(LfsError::Full) }
    }

    /// What a repository has, with what is on its way.
    fn used(&self, objects: &Objects) -> Result<u64, LfsError> {
        let root = objects.root();
        let there = root.size()?;
        // What has arrived of an upload is among what it has taken.
        let there = there.saturating_sub(objects.incoming()?);
        let taken = self.lock().get(&root.id()?).copied().unwrap_or_default();
        Ok(there.saturating_add(taken))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(u64, u64), u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut all = self.rooms.lock();
        if let Some(taken) = all.get_mut(&self.folder) {
            *taken = taken.saturating_sub(self.bytes);
            if *taken == 0 {
                all.remove(&self.folder);
            }
        }
    }
}

/// Disks may be slow, and other requests must not wait for them.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LfsError> + Send + 'static,
) -> Result<T, LfsError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use alknet_core::{Alpn, Audit, AuthContext, TransportKind};
    use alknet_testing::identities::identity;
    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::{
        engine::InstalledGit,
        repositories::{Repositories, Settings},
        server::GitConfig,
    };

    const MIB: usize = 1 << 20;
    const OID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    /// The folder of the repository `notes`.
    pub(super) fn root() -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        let repositories = Repositories::open(folder.path()).unwrap();
        let name = "notes".parse().unwrap();
        repositories.create(&name, &Settings::default()).unwrap();
        let open = repositories.folder(&name).unwrap().unwrap();
        (folder, Root::new(repositories, Arc::new(open)))
    }

    /// A server with the repository `notes`, which may have 20 MiB.
    fn server(folder: &Path) -> GitServer {
        let repositories = Repositories::open(folder).unwrap();
        let quota = Some(20 * MIB as u64);
        let settings = Settings { quota, ..Settings::default() };
        repositories.create(&"notes".parse().unwrap(), &settings).unwrap();
        GitServer::new(GitConfig::new(repositories, InstalledGit::none(), Audit::to_log()))
    }

    async fn writes(server: &GitServer, name: &str) -> Lfs {
        let alpn = Alpn::service("git").unwrap();
        let mut auth = AuthContext::anonymous(alpn, TransportKind::Quic, None);
        auth.identity = Some(Arc::new(identity("ann", &["git"])));
        server.lfs(&name.parse().unwrap(), true, &Caller::of(auth)).await.unwrap()
    }

    #[tokio::test]
    async fn what_is_on_its_way_takes_room_of_a_renamed_repository() {
        let folder = tempfile::tempdir().unwrap();
        let server = server(folder.path());
        let before = writes(&server, "notes").await;
        let begin = async |lfs: &Lfs, size: usize| {
            lfs.receive(&OID.parse().unwrap(), size as u64).await.map(drop)
        };
        let mut coming = before.receive(&OID.parse().unwrap(), 15 << 20).await.unwrap();
        coming.write(&vec![7; 15 * MIB]).await.unwrap();
        let repositories = server.repositories();
        repositories.rename(&"notes".parse().unwrap(), &"wiki".parse().unwrap()).unwrap();
        let after = writes(&server, "wiki").await;
        for lfs in [&before, &after] {
            assert!(matches!(begin(lfs, 5 * MIB).await, Err(LfsError::Full)));
            begin(lfs, 4 * MIB).await.unwrap();
        }
        drop(coming);
        begin(&after, 19 * MIB).await.unwrap();
    }

    #[tokio::test]
    async fn bundles_take_no_room() {
        let folder = tempfile::tempdir().unwrap();
        let server = server(folder.path());
        let lfs = writes(&server, "notes").await;
        let bundles = folder.path().join("notes.git/bundles");
        fs::create_dir(&bundles).unwrap();
        fs::write(bundles.join("1.bundle"), vec![7; 5 * MIB]).unwrap();
        lfs.receive(&OID.parse().unwrap(), 19 << 20).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_comes_to_its_end_while_its_repository_is_removed_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let server = server(folder.path());
        let name: RepositoryName = "notes".parse().unwrap();
        let oid: Oid = hex::encode(Sha256::digest(b"large")).parse().unwrap();
        for _ in 0..30 {
            let lfs = writes(&server, "notes").await;
            let mut upload = lfs.receive(&oid, 5).await.unwrap();
            upload.write(b"large").await.unwrap();
            let (repositories, removed) = (server.repositories().clone(), name.clone());
            let removing = tokio::task::spawn_blocking(move || repositories.delete(&removed));
            let (finished, removed) = tokio::join!(upload.finish(), removing);
            assert!(matches!(finished, Ok(()) | Err(LfsError::Gone)), "{finished:?}");
            removed.unwrap().unwrap();
            let work = fs::read_dir(folder.path().join(".work")).unwrap();
            let left = work.filter(|entry| entry.as_ref().unwrap().path().is_dir());
            assert_eq!(left.count(), 0);
            server.repositories().create(&name, &Settings::default()).unwrap();
        }
    }

    #[tokio::test]
    async fn what_is_only_announced_takes_no_room() {
        let folder = tempfile::tempdir().unwrap();
        let server = server(folder.path());
        let lfs = writes(&server, "notes").await;

        let begin = async |size: usize| lfs.receive(&OID.parse().unwrap(), size as u64).await;
        let mut announced = begin(19 * MIB).await.unwrap();
        assert!(matches!(begin(21 * MIB).await, Err(LfsError::Full)));
        let mut small = begin(10 * MIB).await.unwrap();
        small.write(&vec![7; 10 * MIB]).await.unwrap();
        // Whoever comes first has it.
        announced.write(&vec![7; 8 * MIB]).await.unwrap();
        assert!(matches!(announced.write(&[7]).await, Err(LfsError::Full)));
        drop((announced, small));
        assert!(server.0.rooms.lock().is_empty());
        let mut alone = begin(19 * MIB).await.unwrap();
        for _ in 0..19 {
            alone.write(&vec![7; MIB]).await.unwrap();
        }
        assert_eq!(server.0.rooms.lock()[&lfs.objects.root().id().unwrap()], 19 * MIB as u64);
        assert!(matches!(alone.write(&[7]).await, Err(LfsError::Size)));
    }
}
