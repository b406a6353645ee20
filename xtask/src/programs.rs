//! The programs that tests and suites run.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::{sh, web};

/// Builds the node and every example, and tells which folder they are in. The features of
/// dependencies are those of the whole workspace with its tests: a package alone has others,
/// and most of what is there would be compiled again.
pub(crate) fn build(root: &Path) -> Result<PathBuf> {
    web::build(root)?;
    sh::cargo(root, ["build", "--workspace", "--bins", "--examples"]).run()?;
    Ok(sh::target_dir(root)?.join("debug"))
}
