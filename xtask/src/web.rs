//! The web client: WebAssembly, npm packages, and Vite's output in `web/app/dist`, which
//! the node embeds.

use std::{fs, path::Path};

use anyhow::Result;

use crate::{
    files,
    sh::Cmd,
    tools::{self, need, need_wasm_target},
    wasm,
};

const APP: &str = "web/app";
pub(crate) const E2E: &str = "web/e2e";

/// Builds what has changed.
pub(crate) fn build(root: &Path) -> Result<()> {
    need(root, tools::BUILD)?;
    need(root, tools::WEB)?;
    need_wasm_target(root)?;
    // wasm-opt comes with the npm packages, so they go first.
    install(root, APP)?;
    wasm::build(root)?;
    let inputs = inputs_digest(root)?;
    let stamp = root.join("target/xtask/web-app");
    let built = root.join(APP).join("dist/index.html").exists();
    if built && fs::read_to_string(&stamp).is_ok_and(|text| text == inputs) {
        return Ok(());
    }
    npm(root, APP)?.args(["run", "build"]).run()?;
    // Once more: the build leaves a smaller module beside the one it was given.
    files::write(&stamp, inputs_digest(root)?.as_bytes())
}

/// Type checks and unit tests of the web client.
pub(crate) fn test(root: &Path) -> Result<()> {
    install(root, APP)?;
    npm(root, APP)?.arg("test").run()
}

/// Brings a package's dependencies to what its lock says.
pub(crate) fn install(root: &Path, package: &str) -> Result<()> {
    let dir = root.join(package);
    let lock = fs::read(dir.join("package-lock.json"))?;
    let wanted = files::digest([lock.as_slice()]);
    let stamp = dir.join("node_modules/.xtask-stamp");
    if fs::read_to_string(&stamp).is_ok_and(|text| text == wanted) {
        return Ok(());
    }
    npm(root, package)?.args(["ci", "--no-audit", "--no-fund"]).run()?;
    files::write(&stamp, wanted.as_bytes())
}

/// `npm` in a package's folder.
pub(crate) fn npm(root: &Path, package: &str) -> Result<Cmd> {
    let path = tools::node_path(root)?;
    Ok(Cmd::new(&root.join(package), "npm").env("PATH", path))
}

/// What Vite's output depends on: the sources, and the WebAssembly built from the crate.
fn inputs_digest(root: &Path) -> Result<String> {
    let sources = files::own_digest(root, &[APP])?;
    let wasm = files::read_tree(&root.join(APP).join("src/wasm"))?;
    let wasm = wasm.values().map(Vec::as_slice);
    Ok(files::digest(std::iter::once(sources.as_bytes()).chain(wasm)))
}
