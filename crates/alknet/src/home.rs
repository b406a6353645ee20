//! The state folder: who may read it, how its files change, and that one node serves it.

mod files;
mod lock;
mod socket;

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use etcetera::BaseStrategy as _;
use zeroize::Zeroizing;

pub(crate) use lock::ServeLock;
pub(crate) use socket::is_own;

/// The longest file of ours that is read whole.
const MAX_FILE: u64 = 4 << 20;

/// The folder that holds everything a node or a client remembers. It is the user's alone:
/// folders are made with mode 0700, files with 0600.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    root: PathBuf,
}

/// The state folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum HomeError {
    /// The platform names no folder for data.
    #[error("there is no home folder to keep the state in")]
    NoFolder(#[from] etcetera::HomeDirError),
    /// A file or folder in it could not be used.
    #[error("{path}")]
    File {
        /// Which one.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// Others may change what is in it.
    #[error("{path} can be written by others than its owner")]
    Exposed {
        /// The folder.
        path: PathBuf,
    },
    /// Somebody else may have read a secret.
    #[error("the secrets in {path} can be read by others (mode {mode:03o})")]
    Readable {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It belongs to somebody else.
    #[error("{path} belongs to another user")]
    Foreign {
        /// The folder.
        path: PathBuf,
    },
    /// Another process serves it.
    #[error("a node already serves the state folder {path}{}", pid_note(.pid))]
    Served {
        /// The folder.
        path: PathBuf,
        /// The process, if it could be read.
        pid: Option<u32>,
    },
}

fn pid_note(pid: &Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

impl HomeError {
    fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        |source| Self::File { path, source }
    }

    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::NoFolder(_) => Some("set ALKNET_HOME to a folder for alknet's state".into()),
            Self::Exposed { path } => Some(format!("chmod go-w {}", path.display())),
            Self::Readable { path, .. } => Some(format!(
                "if nobody has read it: chmod 600 {}; else replace what is in it",
                path.display()
            )),
            Self::Served { .. } => {
                Some("stop that node, or give this one another folder with --home".into())
            }
            Self::File { .. } | Self::Foreign { .. } => None,
        }
    }
}

impl Home {
    /// The folder `root`, else the platform's data folder; made if it is not there.
    pub(crate) fn open(root: Option<PathBuf>) -> Result<Self, HomeError> {
        let root = match root.filter(|root| !root.as_os_str().is_empty()) {
            Some(root) => root,
            None => etcetera::choose_base_strategy()?.data_dir().join("alknet"),
        };
        let root = std::path::absolute(&root).map_err(HomeError::at(&root))?;
        private_folder(&root)?;
        private_folder(&root.join("run"))?;
        Ok(Self { root })
    }

    /// The folder itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A folder in it, made if it is not there.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf, HomeError> {
        let path = self.path(name);
        private_folder(&path)?;
        Ok(path)
    }

    /// Where a file of it is.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The content of a file, `None` if there is none.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, HomeError> {
        let path = self.path(name);
        files::read(&path, MAX_FILE).map_err(HomeError::at(&path))
    }

    /// The content of a file that others must not be able to read.
    pub(crate) fn read_secret(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, HomeError> {
        let Some(content) = self.read(name)?.map(Zeroizing::new) else { return Ok(None) };
        let path = self.path(name);
        let mode = fs::metadata(&path).map_err(HomeError::at(&path))?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(HomeError::Readable { path, mode });
        }
        Ok(Some(content))
    }

    /// Replaces a file: after a crash it has the old content or the new one, never a part.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> Result<(), HomeError> {
        let path = self.path(name);
        files::replace(&path, content).map_err(HomeError::at(&path))
    }

    /// Makes a file unless it is there, whole or not at all; of several processes at the
    /// same moment one wins. Tells whether it was this one.
    pub(crate) fn create(&self, name: &str, content: &[u8]) -> Result<bool, HomeError> {
        let path = self.path(name);
        files::create(&path, content).map_err(HomeError::at(&path))
    }

    /// Reads a file, changes it and writes it back while no other process does.
    pub(crate) fn update<T, E: From<HomeError>>(
        &self,
        name: &str,
        change: impl FnOnce(Option<Vec<u8>>) -> Result<(Option<Vec<u8>>, T), E>,
    ) -> Result<T, E> {
        let _lock = self.lock(name)?;
        let (content, result) = change(self.read(name)?)?;
        if let Some(content) = content {
            self.write(name, &content)?;
        }
        Ok(result)
    }

    /// Keeps other processes from what `name` stands for until the value is dropped. For
    /// moments: whoever waits gives up after ten seconds.
    pub(crate) fn lock(&self, name: &str) -> Result<fs::File, HomeError> {
        let path = self.root.join("run").join(format!("{name}.lock"));
        lock::exclusive(&path).map_err(HomeError::at(&path))
    }

    /// Like [`lock`](Self::lock), without waiting; `None` if another process has it.
    pub(crate) fn try_lock(&self, name: &str) -> Result<Option<fs::File>, HomeError> {
        let path = self.root.join("run").join(format!("{name}.lock"));
        lock::at_once(&path).map_err(HomeError::at(&path))
    }

    /// Removes what is left of a file that a process was writing when it was killed. Nobody
    /// else may write it meanwhile.
    pub(crate) fn sweep(&self, name: &str) -> Result<(), HomeError> {
        files::sweep(&self.path(name)).map_err(HomeError::at(&self.root))
    }

    /// Claims the folder for a node that serves; held until the value is dropped or the
    /// process ends, however it ends.
    pub(crate) fn serve_lock(&self) -> Result<ServeLock, HomeError> {
        let path = self.path("run/lock");
        match lock::claim(&path).map_err(HomeError::at(&path))? {
            Ok(lock) => Ok(lock),
            Err(pid) => Err(HomeError::Served { path: self.root.clone(), pid }),
        }
    }

    /// The process that serves the folder now: `Some(None)` is one whose number is unknown.
    pub(crate) fn served_by(&self) -> Result<Option<Option<u32>>, HomeError> {
        let path = self.path("run/lock");
        lock::holder(&path).map_err(HomeError::at(&path))
    }

    /// Tells other processes where the node listens.
    pub(crate) fn write_address(&self, address: SocketAddr) -> Result<(), HomeError> {
        self.write("run/address", format!("{address}\n").as_bytes())
    }

    /// Where the node listens, or listened last.
    pub(crate) fn address(&self) -> Result<Option<SocketAddr>, HomeError> {
        let content = self.read("run/address")?;
        let text = content.and_then(|bytes| String::from_utf8(bytes).ok());
        Ok(text.and_then(|text| text.trim().parse().ok()))
    }

    /// Forgets where the node listened: part of an orderly end.
    pub(crate) fn remove_address(&self) -> Result<(), HomeError> {
        let path = self.path("run/address");
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(HomeError::at(&path)(error))
            }
            _ => Ok(()),
        }
    }
}

/// The folder that the environment names, if any.
pub(crate) fn of_environment() -> Option<PathBuf> {
    std::env::var_os("ALKNET_HOME").filter(|home| !home.is_empty()).map(PathBuf::from)
}

/// Replaces any file as [`Home::write`] does. The new one has owner, group and mode of the
/// old; where that cannot be the old one stays.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), HomeError> {
    files::replace_alike(path, content).map_err(HomeError::at(path))
}

/// Makes a folder of mode 0700, or checks that nobody else can put files into one that is
/// there.
fn private_folder(path: &Path) -> Result<(), HomeError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(HomeError::at(path))?;
    let metadata = fs::metadata(path).map_err(HomeError::at(path))?;
    if metadata.uid() != nix::unistd::geteuid().as_raw() {
        return Err(HomeError::Foreign { path: path.into() });
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(HomeError::Exposed { path: path.into() });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
