//! The section on calls, by the workspace in `benches/call`, which has what they are compared
//! with.

use std::path::Path;

use anyhow::Result;

use crate::sh;

const HEADING: &str = "## Calls\n";
const NEXT: &str = "\n## ";

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

/// The document with this section in place of the one it has.
pub(super) fn replaced(document: &str, section: &str) -> String {
    let (before, old) = document.split_once(HEADING).unwrap_or((document, ""));
    let after = old.find(NEXT).and_then(|next| old.get(next..)).unwrap_or_default();
    format!("{}\n\n{section}{after}", before.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_replaced_wherever_it_stands() {
        let section = "## Calls\n\nnew\n";
        assert_eq!(replaced("# A\n\nx\n", section), "# A\n\nx\n\n## Calls\n\nnew\n");
        let between = "# A\n\n## Calls\n\nold\n\n### more\n\n## B\n\nx\n";
        assert_eq!(replaced(between, section), "# A\n\n## Calls\n\nnew\n\n## B\n\nx\n");
        assert_eq!(replaced("# A\n\n## Calls\n\nold\n", section), "# A\n\n## Calls\n\nnew\n");
    }
}
