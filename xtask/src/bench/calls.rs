//! The section on calls, by the workspace in `benches/call`, which has what they are compared
//! with.

use std::path::Path;

use anyhow::Result;

use crate::sh;

/// The document's heading of this section.
pub(super) const HEADING: &str = "## Calls\n";

/// Measures, and gives the section.
pub(super) fn section(root: &Path) -> Result<String> {
    let target = sh::target_dir(root)?.join("bench-call");
    let run = ["run", "--quiet", "--release", "--locked", "--manifest-path"];
    let text = sh::cargo(root, run)
        .arg("benches/call/Cargo.toml")
        .env("CARGO_TARGET_DIR", target)
        .read()?;
    Ok(format!("{HEADING}\n{}\n", text.trim()))
}
