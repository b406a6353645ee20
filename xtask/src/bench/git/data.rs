//! What is transferred, and where it lies.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Result, ensure};

use super::history;

/// What is transferred, in memory where there is such a folder.
pub(super) struct Data {
    dir: PathBuf,
    /// The tip of the long history, and what its pack has to have at least.
    pub(super) tip: String,
    pub(super) pack: u64,
    /// The repositories of the servers.
    pub(super) served: PathBuf,
}

impl Data {
    /// Made once for all runs, and copied.
    pub(super) fn make(kept: &Path, served: &Path, dir: &Path) -> Result<Self> {
        let history = made(kept, "history", history::long)?;
        copy(&history, &served.join("history.git"))?;
        copy(&history, &dir.join("clone"))?;
        copy(&made(kept, "many", history::many_refs)?, &served.join("many.git"))?;
        copy(&made(kept, "small", history::small)?, &dir.join("small"))?;
        for count in PUSHES {
            let from = made(kept, &format!("push-{count}"), |repository| {
                history::objects(repository, count)
            })?;
            copy(&from, &dir.join(format!("push-{count}")))?;
        }
        let mut git = git();
        let head = git.arg("-C").arg(&history).args(["rev-parse", "refs/heads/main"]).output()?;
        let tip = String::from_utf8(head.stdout)?.trim().to_owned();
        let pack = size(&history.join("objects/pack"))? * 3 / 4;
        Ok(Self { dir: dir.to_owned(), tip, pack, served: served.to_owned() })
    }

    pub(super) fn folder(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Where there is nothing yet.
    pub(super) fn fresh(&self) -> Result<PathBuf> {
        let folder = self.folder("fresh");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        Ok(folder)
    }
}

/// How many objects are pushed.
pub(super) const PUSHES: [usize; 2] = [1_000, 10_000];

/// A repository that is kept from run to run.
fn made(kept: &Path, name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let (repository, part) = (kept.join(name), kept.join("part"));
    if !repository.exists() {
        if part.exists() {
            fs::remove_dir_all(&part)?;
        }
        make(&part)?;
        // As with git daemon, for which nobody has a name.
        let mut git = git();
        git.arg("-C").arg(&part).args(["config", "http.receivepack", "true"]);
        ensure!(git.status()?.success(), "git config failed");
        fs::rename(&part, &repository)?;
    }
    Ok(repository)
}

pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    let copied = Command::new("cp").arg("-r").args([from, to]).status()?;
    ensure!(copied.success(), "{} could not be copied", from.display());
    Ok(())
}

fn size(folder: &Path) -> Result<u64> {
    let files = fs::read_dir(folder)?.map(|file| Ok(file?.metadata()?.len()));
    files.sum()
}

/// Git with no configuration but what it is given, and without housekeeping.
pub(super) fn git() -> Command {
    let mut git = Command::new("git");
    git.env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .args(["-c", "gc.auto=0", "-c", "maintenance.auto=false"])
        .stdin(Stdio::null());
    git
}
