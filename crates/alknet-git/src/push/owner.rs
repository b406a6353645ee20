//! The hooks of the node's owner.

use std::{
    env,
    ffi::OsString,
    fs, io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use alknet_host::{Pipes, Process};
use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
    time::timeout,
};

use super::{Push, RefChange, Say};
use crate::{name::RepositoryName, server::Caller};

/// How much of what a hook says the pusher sees, in bytes.
const SAID: usize = 1 << 20;
/// How much of it is passed on at once.
const PIECE: usize = 8 << 10;
/// How long a hook may take, where nothing else is said.
const DEADLINE: Duration = Duration::from_secs(5 * 60);
/// How long a hook that is told to end may take for it.
const GRACE: Duration = Duration::from_secs(2);
/// The bits of a mode: who may write, who may start it, and that each removes only their own.
const OTHERS_WRITE: u32 = 0o022;
const EXECUTABLE: u32 = 0o111;
const STICKY: u32 = 0o1000;
/// How many links a way to a hook may have, as Linux has it.
const MOST_LINKS: usize = 40;

/// The hooks of the node's owner: programs `pre-receive`, `update` and `post-receive` in a
/// folder for all repositories, and then in the folder of the repository's name within it.
///
/// They are called as git calls its own (githooks(5)), in the repository, with git's variables
/// and `ALKNET_REPOSITORY`, `ALKNET_IDENTITY` and `ALKNET_IDENTITY_NAME`; nothing else of the
/// node's environment but `PATH` and `HOME`. No other file is ever run. A file that is not
/// executable is no hook. A hook that somebody else could change refuses the push.
#[derive(Debug, Clone)]
pub struct OwnerHooks {
    folder: PathBuf,
    deadline: Duration,
}

/// Somebody other than the node's account or root could change a hook.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UntrustedHook {
    /// By itself, or by a folder on its way.
    #[error("others than the owner of the node can change {0}")]
    Exposed(PathBuf),
    /// It cannot be looked at.
    #[error("{path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Which hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    PreReceive,
    Update,
    PostReceive,
}

impl When {
    fn name(self) -> &'static str {
        match self {
            Self::PreReceive => "pre-receive",
            Self::Update => "update",
            Self::PostReceive => "post-receive",
        }
    }
}

/// A push as hooks see it.
pub(super) struct View<'a> {
    pub(super) name: &'a RepositoryName,
    pub(super) repository: &'a Path,
    pub(super) caller: &'a Caller,
    pub(super) push: &'a Push,
}

impl OwnerHooks {
    /// Those in a folder, each of which may take five minutes.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), deadline: DEADLINE }
    }

    /// With another time that each may take.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// The hooks for a moment of a push to this repository, in their order. Waits for the
    /// disk.
    pub(super) fn find(
        &self,
        when: When,
        repository: &RepositoryName,
    ) -> Result<Vec<PathBuf>, UntrustedHook> {
        let folders = [self.folder.clone(), self.folder.join(repository.as_str())];
        let found = folders.into_iter().map(|folder| trusted(&folder.join(when.name())));
        found.filter_map(Result::transpose).collect()
    }

    /// Runs a hook; whether it agrees.
    pub(super) async fn run(
        &self,
        hook: &Path,
        arguments: &[String],
        input: &[RefChange],
        view: &View<'_>,
        say: &Say,
    ) -> bool {
        let mut command = Command::new(hook);
        command.args(arguments).current_dir(view.repository).env_clear();
        command.envs(variables(view));
        let lines: String = input.iter().map(|change| change.to_line() + "\n").collect();
        let (mut process, pipes) = match Process::with_pipes(command) {
            Ok(started) => started,
            Err(error) => {
                tracing::warn!(hook = %hook.display(), %error, "a hook cannot be started");
                return false;
            }
        };
        let talk = talk(&mut process, pipes, lines, say);
        match timeout(self.deadline, talk).await {
            Ok(Ok(agrees)) => return agrees,
            Ok(Err(error)) => tracing::warn!(hook = %hook.display(), %error, "a hook failed"),
            Err(_) => {
                tracing::warn!(hook = %hook.display(), "a hook took too long");
                say.line("a hook took too long").await;
            }
        }
        process.hang_up(GRACE).await;
        false
    }
}

async fn talk(process: &mut Process, pipes: Pipes, lines: String, say: &Say) -> io::Result<bool> {
    let Pipes { stdin: Some(mut stdin), stdout: Some(stdout), stderr: Some(stderr) } = pipes else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    let feed = async {
        // A hook need not read.
        let _ = stdin.write_all(lines.as_bytes()).await;
        drop(stdin);
    };
    let ((), out, complaints) = tokio::join!(feed, pass_on(stdout, say), pass_on(stderr, say));
    out.and(complaints)?;
    Ok(process.exited().await?.success())
}

/// Passes on what a hook says; what is too much is read and forgotten.
async fn pass_on(mut from: impl AsyncRead + Unpin, say: &Say) -> io::Result<()> {
    let mut left = SAID;
    let mut buffer = vec![0; PIECE];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        let piece = buffer.get(..count.min(left)).unwrap_or_default();
        left -= piece.len();
        if !piece.is_empty() {
            say.bytes(Bytes::copy_from_slice(piece)).await;
        }
    }
}

fn variables(view: &View<'_>) -> Vec<(OsString, OsString)> {
    let View { name, repository, caller, push } = view;
    let mut variables: Vec<(OsString, OsString)> = Vec::new();
    let mut set = |name: &str, value: OsString| variables.push((name.into(), value));
    for inherited in ["PATH", "HOME"] {
        env::var_os(inherited).into_iter().for_each(|value| set(inherited, value));
    }
    set("LC_ALL", "C.UTF-8".into());
    set("GIT_DIR", repository.into());
    set("ALKNET_REPOSITORY", name.as_str().into());
    if let Some(identity) = &caller.identity {
        set("ALKNET_IDENTITY", identity.id.as_str().into());
        set("ALKNET_IDENTITY_NAME", identity.name.as_str().into());
    }
    if let Some(quarantine) = &push.quarantine {
        set("GIT_QUARANTINE_PATH", quarantine.into());
        set("GIT_OBJECT_DIRECTORY", quarantine.into());
        set("GIT_ALTERNATE_OBJECT_DIRECTORIES", repository.join("objects").into());
    }
    set("GIT_PUSH_OPTION_COUNT", push.options.len().to_string().into());
    for (nth, option) in push.options.iter().enumerate() {
        set(&format!("GIT_PUSH_OPTION_{nth}"), option.into());
    }
    for (name, value) in push.certificate.iter().flat_map(|it| it.variables()) {
        set(name, value.into());
    }
    variables
}

/// The program behind a path; `None` if there is none. Its whole way has to be the owner's,
/// links and what they stand in included: whoever can change where a name leads chooses the
/// program, or that there is none.
fn trusted(path: &Path) -> Result<Option<PathBuf>, UntrustedHook> {
    let failed = |source| UntrustedHook::File { path: path.into(), source };
    let absolute = std::path::absolute(path).map_err(failed)?;
    let mut steps = steps(&absolute);
    let (mut at, mut links) = (PathBuf::from("/"), 0);
    while let Some(step) = steps.pop() {
        match step.as_os_str().as_bytes() {
            b".." => drop(at.pop()),
            b"/" => at = step,
            _ => at.push(&step),
        }
        let it = match fs::symlink_metadata(&at) {
            Ok(it) => it,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(source) => return Err(failed(source)),
        };
        if it.is_file() && it.mode() & EXECUTABLE == 0 {
            return Ok(None);
        }
        let ours = it.uid() == 0 || it.uid() == rustix::process::geteuid().as_raw();
        // The mode of a link says nothing: what counts is the folder that it stands in.
        let closed = it.is_symlink()
            || it.mode() & OTHERS_WRITE == 0
            || (it.is_dir() && it.mode() & STICKY != 0);
        if !ours || !closed {
            return Err(UntrustedHook::Exposed(at));
        }
        if it.is_symlink() {
            links += 1;
            if links > MOST_LINKS {
                return Err(failed(io::ErrorKind::QuotaExceeded.into()));
            }
            let target = fs::read_link(&at).map_err(failed)?;
            at.pop();
            steps.extend(self::steps(&target));
        }
    }
    Ok(fs::symlink_metadata(&at).map_err(failed)?.is_file().then_some(at))
}

/// The parts of a path, the first one last.
fn steps(path: &Path) -> Vec<PathBuf> {
    path.components().rev().map(|part| PathBuf::from(part.as_os_str())).collect()
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use super::*;

    #[tokio::test]
    async fn of_a_hook_that_says_too_much_the_beginning_is_passed_on() {
        let (say, mut said) = Say::channel();
        let speaks = async move {
            let much = tokio::io::repeat(b'x').take(3 * SAID as u64);
            pass_on(much, &say).await.unwrap();
        };
        let hears = async {
            let mut heard = 0;
            while let Some(text) = said.recv().await {
                heard += text.len();
            }
            heard
        };
        assert_eq!(tokio::join!(speaks, hears).1, SAID);
    }

    #[test]
    fn a_way_to_a_hook_that_others_can_change_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let open = folder.path().join("open");
        let closed = folder.path().join("closed");
        for dir in [&open, &closed] {
            fs::create_dir(dir).unwrap();
        }
        symlink("/bin/sh", open.join("update")).unwrap();
        symlink("../open", closed.join("by")).unwrap();
        symlink("../open/update", closed.join("update")).unwrap();
        symlink("loop", closed.join("loop")).unwrap();
        let exposed =
            |path: PathBuf| matches!(trusted(&path), Err(UntrustedHook::Exposed(it)) if it == open);
        mode(&open, 0o755);
        let shell = fs::canonicalize("/bin/sh").unwrap();
        for way in ["open/update", "closed/update", "closed/by/update", "closed/../open/update"] {
            assert_eq!(trusted(&folder.path().join(way)).unwrap().as_ref(), Some(&shell), "{way}");
        }
        mode(&open, 0o775);
        for way in ["open/update", "closed/update", "closed/by/update"] {
            assert!(exposed(folder.path().join(way)), "{way}");
        }
        // Whoever can take a hook away decides as well.
        assert!(exposed(open.join("pre-receive")));
        assert!(trusted(&closed.join("pre-receive")).unwrap().is_none());
        assert!(matches!(trusted(&closed.join("loop")), Err(UntrustedHook::File { .. })));
    }

    #[test]
    fn a_hook_is_the_owner_s_alone() {
        let folder = tempfile::tempdir().unwrap();
        let hook = folder.path().join("update");
        fs::write(&hook, "").unwrap();
        let mode = |mode| {
            fs::set_permissions(&hook, fs::Permissions::from_mode(mode)).unwrap();
            trusted(&hook)
        };
        assert!(mode(0o755).unwrap().is_some() && mode(0o644).unwrap().is_none());
        // That others may not remove it does not keep them from writing to it.
        for open in [0o775, 0o757, 0o1777] {
            assert!(matches!(mode(open), Err(UntrustedHook::Exposed(_))), "{open:o}");
        }
        assert!(mode(0o755).unwrap().is_some());
        // Only root can give something away.
        if chown(&hook, Some(12345), None).is_ok() {
            assert!(matches!(trusted(&hook), Err(UntrustedHook::Exposed(_))));
        }
    }
}
