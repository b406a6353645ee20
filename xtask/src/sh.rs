//! Child processes: every command is shown before it runs, and every wait has an end.

use std::{
    ffi::OsStr,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use wait_timeout::ChildExt as _;

/// Nothing this tool starts takes longer on two cores.
const DEADLINE: Duration = Duration::from_secs(40 * 60);

/// A command to run.
pub(crate) struct Cmd {
    inner: Command,
    shown: String,
}

impl Cmd {
    pub(crate) fn new(dir: &Path, program: impl AsRef<OsStr>) -> Self {
        let program = program.as_ref();
        let mut inner = Command::new(program);
        inner.current_dir(dir).stdin(Stdio::null());
        let name = Path::new(program).file_name().unwrap_or(program);
        Self { inner, shown: name.to_string_lossy().into_owned() }
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.shown.push(' ');
        self.shown.push_str(&arg.as_ref().to_string_lossy());
        self.inner.arg(arg);
        self
    }

    pub(crate) fn args(self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        args.into_iter().fold(self, Self::arg)
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.inner.env(name, value);
        self
    }

    /// Runs it to its end; a status other than 0 is an error.
    pub(crate) fn run(mut self) -> Result<()> {
        eprintln!("$ {}", self.shown);
        // A group of its own, so that a wedged grandchild goes with it.
        let mut child = self.inner.process_group(0).spawn().with_context(|| self.failed())?;
        let Some(status) = child.wait_timeout(DEADLINE)? else {
            let group = format!("-{}", child.id());
            Command::new("kill").args(["-KILL", "--", &group]).status()?;
            child.wait()?;
            bail!("`{}` did not end in {} s", self.shown, DEADLINE.as_secs());
        };
        if !status.success() {
            bail!("`{}` failed: {status}", self.shown);
        }
        Ok(())
    }

    /// Runs it quietly; what it printed, or an error with what it complained of.
    pub(crate) fn read(mut self) -> Result<String> {
        let output = self.inner.output().with_context(|| self.failed())?;
        if !output.status.success() {
            let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            bail!("`{}` failed: {}\n{complaint}", self.shown, output.status);
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Becomes the command, with the caller's standard input.
    pub(crate) fn exec(mut self) -> Result<()> {
        eprintln!("$ {}", self.shown);
        let error = self.inner.stdin(Stdio::inherit()).exec();
        Err(error).with_context(|| self.failed())
    }

    fn failed(&self) -> String {
        format!("`{}` could not be started", self.shown)
    }
}

/// Cargo, of the toolchain this tool was built with. Without what it keeps for quick
/// rebuilds, which takes several times the room of what is built.
pub(crate) fn cargo(root: &Path, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Cmd {
    Cmd::new(root, "cargo").args(args).env("CARGO_INCREMENTAL", "0")
}

/// Where cargo puts what the main workspace builds.
pub(crate) fn target_dir(root: &Path) -> Result<PathBuf> {
    let text = cargo(root, ["metadata", "--format-version=1", "--no-deps"]).read()?;
    let metadata: serde_json::Value = serde_json::from_str(&text)?;
    let dir = metadata.get("target_directory").and_then(serde_json::Value::as_str);
    Ok(dir.context("cargo metadata names no target folder")?.into())
}
