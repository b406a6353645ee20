//! Test suites of others, each in a folder below `target/xtask` with the versions that
//! `xtask/suites` pins.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;

use crate::{files, sh::Cmd, tools};

/// The suites that are npm packages.
pub(crate) struct Node {
    dir: PathBuf,
    path: String,
}

impl Node {
    /// Installs them, unless they are there.
    pub(crate) fn install(root: &Path) -> Result<Self> {
        let path = tools::recent_node_path(root)?;
        let dir = root.join("target/xtask/suites");
        let files = ["package.json", "package-lock.json", ".npmrc", "authorize.mjs"];
        installed(root, &dir, &files, || {
            Cmd::new(&dir, "npm").arg("ci").arg("--ignore-scripts").env("PATH", &path).run()
        })?;
        Ok(Self { dir, path })
    }

    /// The MCP conformance suite. Its requests have the token of this file.
    pub(crate) fn conformance(&self, token: &Path) -> Cmd {
        self.authorized("@modelcontextprotocol/conformance/dist/index.js", token)
    }

    /// The MCP inspector without a browser, likewise.
    pub(crate) fn inspector(&self, token: &Path) -> Cmd {
        self.authorized("@modelcontextprotocol/inspector/clients/cli/build/index.js", token)
    }

    fn authorized(&self, script: &str, token: &Path) -> Cmd {
        Cmd::new(&self.dir, "node")
            .arg(self.dir.join("node_modules").join(script))
            .env("PATH", &self.path)
            .env("NODE_OPTIONS", format!("--import={}", self.dir.join("authorize.mjs").display()))
            .env("ALKNET_TOKEN_FILE", token)
            // The node's certificate is its own.
            .env("NODE_TLS_REJECT_UNAUTHORIZED", "0")
            .env("NODE_NO_WARNINGS", "1")
    }
}

/// The programs that are Python packages: the folder they are in. Installs them, unless
/// they are there.
pub(crate) fn python(root: &Path) -> Result<PathBuf> {
    tools::need_venv(root)?;
    let dir = root.join("target/xtask/python");
    installed(root, &dir, &["requirements.txt"], || {
        Cmd::new(&dir, "python3").args(["-m", "venv", "--clear", "venv"]).run()?;
        Cmd::new(&dir, dir.join("venv/bin/pip"))
            .args(["install", "--quiet", "--disable-pip-version-check", "-r", "requirements.txt"])
            .run()
    })?;
    Ok(dir.join("venv/bin"))
}

/// Copies what says which versions, and installs them if that is new.
fn installed(
    root: &Path,
    dir: &Path,
    names: &[&str],
    install: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let mut contents = Vec::new();
    for name in names {
        let content = fs::read(root.join("xtask/suites").join(name))?;
        files::write_if_changed(&dir.join(name), &content)?;
        contents.push(content);
    }
    let wanted = files::digest(contents.iter().map(Vec::as_slice));
    let stamp = dir.join(".stamp");
    if fs::read_to_string(&stamp).is_ok_and(|text| text == wanted) {
        return Ok(());
    }
    install()?;
    files::write(&stamp, wanted.as_bytes())
}
