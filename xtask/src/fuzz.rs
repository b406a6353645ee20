//! The fuzz targets, by cargo-fuzz and a nightly compiler.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::{sh, tools, web};

/// How long each target runs unless told otherwise.
const SECONDS: u64 = 60;
/// The longest input, in bytes.
const MAX_LEN: usize = 4096;

/// Runs every target, or those that are named, each for so many seconds.
pub(crate) fn run(root: &Path, args: &[String]) -> Result<()> {
    if !tools::has_cargo("fuzz") {
        bail!("cargo-fuzz is not installed: cargo install cargo-fuzz --locked");
    }
    web::build(root)?;
    let (seconds, named): (Vec<&String>, Vec<&String>) =
        args.iter().partition(|arg| arg.parse::<u64>().is_ok());
    let seconds = seconds.first().map_or(Ok(SECONDS), |text| text.parse())?;
    let all = targets(root)?;
    let wanted = all.iter().filter(|target| named.is_empty() || named.contains(target));
    for target in wanted {
        // Sanitizers are of nightly compilers alone.
        sh::Cmd::new(root, "cargo")
            .env("RUSTUP_TOOLCHAIN", "nightly")
            .args(["fuzz", "run", target, "--"])
            .args([format!("-max_total_time={seconds}"), format!("-max_len={MAX_LEN}")])
            // No length of a peer is worth more than this at once.
            .arg("-malloc_limit_mb=64")
            .run()
            .with_context(|| format!("the target {target} found something"))?;
    }
    Ok(())
}

/// The names of the targets, from their files.
fn targets(root: &Path) -> Result<Vec<String>> {
    let mut names: Vec<String> = std::fs::read_dir(root.join("fuzz/fuzz_targets"))?
        .filter_map(|entry| entry.ok()?.path().file_stem()?.to_str().map(str::to_owned))
        .collect();
    names.sort();
    Ok(names)
}
