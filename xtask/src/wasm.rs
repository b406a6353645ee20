//! The browser's WebAssembly module: compiled by cargo, given its JavaScript by
//! wasm-bindgen's library (the same as the `wasm-bindgen` command, without installing one).

use std::path::Path;

use anyhow::{Context as _, Result};
use wasm_bindgen_cli_support::Bindgen;

use crate::{files, sh};

const TARGET: &str = "wasm32-unknown-unknown";

/// Where the web client imports the module from. npm's build script shrinks it from there.
const OUT: &str = "web/app/src/wasm";

/// Builds `alknet-wasm` and writes the module, its JavaScript and its types.
pub(crate) fn build(root: &Path) -> Result<()> {
    // A target folder of its own, so that a build of the node does not wait for this one.
    let target = sh::target_dir(root)?.join("wasm");
    sh::cargo(root, ["build", "-p", "alknet-wasm", "--profile", "wasm", "--target", TARGET])
        .arg("--target-dir")
        .arg(&target)
        .run()?;
    let made = target.join("bindgen");
    bind(&target.join(TARGET).join("wasm/alknet_wasm.wasm"), &made)?;
    // A file that stays as it is keeps its time, by which npm's script sees what is new.
    for (name, content) in files::read_tree(&made)? {
        files::write_if_changed(&root.join(OUT).join(name), &content)?;
    }
    Ok(())
}

fn bind(module: &Path, out: &Path) -> Result<()> {
    Bindgen::new()
        .input_path(module)
        .web(true)?
        .omit_default_module_path(true)
        .typescript(true)
        .ts_typed_array_buffers(true)
        .remove_name_section(true)
        .remove_producers_section(true)
        .generate(out)
        .with_context(|| format!("wasm-bindgen cannot read {}", module.display()))
}
