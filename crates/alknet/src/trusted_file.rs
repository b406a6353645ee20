//! Files whose content decides who may enter.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How long a file has to stay as it is before sessions are ended because of it: a program
/// that rewrites it in place leaves it half-written for a moment.
const SETTLED: Duration = Duration::from_millis(150);

/// Changes when the file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version(u64, u64, i64, i64, u64, u32);

/// The file exists and must not be trusted, or cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TrustError {
    /// It cannot be read.
    #[error("{path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// Others could put their keys into it.
    #[error("{path} is ignored: others than its owner can change it")]
    Exposed {
        /// The file or its folder.
        path: PathBuf,
    },
}

/// The version of a file that only its owner can change, as sshd's StrictModes has it;
/// `None` if there is none. Blocks for the disk.
pub(crate) fn version(path: &Path) -> Result<Option<Version>, TrustError> {
    let file = match fs::metadata(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed(path, source)),
    };
    only_owner_writes(path, &file)?;
    if let Some(folder) = path.parent().filter(|folder| *folder != Path::new("")) {
        let metadata = fs::metadata(folder).map_err(|source| failed(folder, source))?;
        only_owner_writes(folder, &metadata)?;
    }
    let (inode, changed) = ((file.dev(), file.ino()), (file.ctime(), file.ctime_nsec()));
    Ok(Some(Version(inode.0, inode.1, changed.0, changed.1, file.len(), file.mode())))
}

/// The content of a file of `max` bytes at most. Blocks for the disk.
pub(crate) fn read(path: &Path, max: u64) -> Result<Vec<u8>, TrustError> {
    let mut content = Vec::new();
    let read = File::open(path).and_then(|file| file.take(max + 1).read_to_end(&mut content));
    read.map_err(|source| failed(path, source))?;
    if content.len() as u64 > max {
        return Err(failed(path, io::ErrorKind::FileTooLarge.into()));
    }
    Ok(content)
}

/// Runs one of the above, or several, where the disk may take its time.
pub(crate) async fn blocking<T: Send + 'static, E: From<TrustError> + Send + 'static>(
    path: &Path,
    look: impl FnOnce(&Path) -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    let owned = path.to_owned();
    match tokio::task::spawn_blocking(move || look(&owned)).await {
        Ok(result) => result,
        Err(error) => Err(failed(path, io::Error::other(error)).into()),
    }
}

fn failed(path: &Path, source: io::Error) -> TrustError {
    TrustError::File { path: path.into(), source }
}

fn only_owner_writes(path: &Path, file: &fs::Metadata) -> Result<(), TrustError> {
    let trusted = file.uid() == nix::unistd::geteuid().as_raw() || file.uid() == 0;
    if trusted && file.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(TrustError::Exposed { path: path.into() })
}

/// Counts the changes of what a file says, and tells of one once the file has settled.
#[derive(Debug, Default)]
pub(crate) struct Revision {
    count: u64,
    told: u64,
    /// The last change; `None`: it has been told.
    at: Option<Instant>,
}

impl Revision {
    /// Counts a change.
    pub(crate) fn changed(&mut self) {
        self.count += 1;
        self.at = Some(Instant::now());
    }

    /// The count, without a change that is too young.
    pub(crate) fn settled(&mut self) -> u64 {
        if self.at.is_none_or(|at| at.elapsed() >= SETTLED) {
            (self.told, self.at) = (self.count, None);
        }
        self.told
    }
}
