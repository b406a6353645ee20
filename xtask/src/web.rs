//! The web client and the npm package that it stands on: WebAssembly, npm packages, and Vite's
//! output in `web/app/dist`, which the node embeds.

use std::{fs, path::Path};

use anyhow::Result;

use crate::{
    files,
    sh::Cmd,
    tools::{self, need, need_wasm_target},
    wasm,
};

const APP: &str = "web/app";
const CLIENT: &str = "web/client";
pub(crate) const E2E: &str = "web/e2e";

/// Builds what has changed.
pub(crate) fn build(root: &Path) -> Result<()> {
    need(root, tools::BUILD)?;
    need(root, tools::WEB)?;
    need_wasm_target(root)?;
    // wasm-opt comes with the npm packages, so they go first.
    install(root, APP)?;
    wasm::build(root)?;
    // Before the app, which is made from its sources.
    install(root, CLIENT)?;
    build_changed(root, CLIENT, "dist/index.js", client_digest)?;
    build_changed(root, APP, "dist/index.html", app_digest)
}

/// Builds a package unless what it is made from is what its product was made from.
fn build_changed(
    root: &Path,
    package: &str,
    product: &str,
    digest: fn(&Path) -> Result<String>,
) -> Result<()> {
    let inputs = digest(root)?;
    let stamp = root.join("target/xtask").join(package.replace('/', "-"));
    let built = root.join(package).join(product).exists();
    if built && fs::read_to_string(&stamp).is_ok_and(|text| text == inputs) {
        return Ok(());
    }
    npm(root, package)?.args(["run", "build"]).run()?;
    // Once more: the build may leave something beside what it was given.
    files::write(&stamp, digest(root)?.as_bytes())
}

/// Unit tests of the web client and of its package.
pub(crate) fn test(root: &Path) -> Result<()> {
    for package in [CLIENT, APP] {
        install(root, package)?;
        npm(root, package)?.arg("test").run()?;
    }
    Ok(())
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

fn client_digest(root: &Path) -> Result<String> {
    files::own_digest(root, &[CLIENT])
}

/// What Vite's output depends on: the sources, and the WebAssembly built from the crate.
fn app_digest(root: &Path) -> Result<String> {
    let sources = files::own_digest(root, &[APP, "web/client/src"])?;
    let wasm = files::read_tree(&root.join(APP).join("src/wasm"))?;
    let wasm = wasm.values().map(Vec::as_slice);
    Ok(files::digest(std::iter::once(sources.as_bytes()).chain(wasm)))
}
