//! Commands, shells and files beside OpenSSH's server; repositories beside git's own servers;
//! looking people up; calls beside those of others.

mod calls;
mod git;
mod report;
mod servers;
mod ssh;
mod ways;

use std::{fs, path::Path};

use anyhow::{Result, bail};

use crate::{files, sh};

/// The document.
const REPORT: &str = "docs/benchmarks.md";
const INTRODUCTION: &str = "# Benchmarks\n\n\
    Written by `cargo xtask bench`; every number of a section is of one run, in which what is \
    compared takes turns.\n";
const NEXT: &str = "\n## ";

/// Measures everything, or what is named, and rewrites that in the document.
pub(crate) fn run(root: &Path, args: &[String]) -> Result<()> {
    let document = || fs::read_to_string(root.join(REPORT));
    let text = match args {
        [] => {
            let identities =
                sh::cargo(root, ["bench", "-p", "alknet", "--bench", "identities"]).read()?;
            let sections = [
                ssh::section(root)?,
                git::section(root)?,
                report::identities(&identities),
                calls::section(root)?,
            ];
            format!("{INTRODUCTION}\n{}", sections.join("\n"))
        }
        [name] if name == "call" => replaced(&document()?, calls::HEADING, &calls::section(root)?),
        [name] if name == "ssh" => replaced(&document()?, ssh::HEADING, &ssh::section(root)?),
        [name] if name == "git" => replaced(&document()?, git::HEADING, &git::section(root)?),
        [name, part @ ..] if name == "git" => {
            print!("{}", git::part(root, part)?);
            return Ok(());
        }
        [name, part @ ..] if name == "ssh" => {
            print!("{}", ssh::part(root, part)?);
            return Ok(());
        }
        _ => bail!("`cargo xtask bench` measures everything, `… ssh|git|call` a section alone"),
    };
    files::write(&root.join(REPORT), text.as_bytes())?;
    print!("{text}");
    Ok(())
}

/// The document with this section in place of the one it has.
fn replaced(document: &str, heading: &str, section: &str) -> String {
    let (before, old) = document.split_once(heading).unwrap_or((document, ""));
    let after = old.find(NEXT).and_then(|next| old.get(next..)).unwrap_or_default();
    format!("{}\n\n{section}{after}", before.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_replaced_wherever_it_stands() {
        let replaced = |document| replaced(document, "## Calls\n", "## Calls\n\nnew\n");
        assert_eq!(replaced("# A\n\nx\n"), "# A\n\nx\n\n## Calls\n\nnew\n");
        let between = "# A\n\n## Calls\n\nold\n\n### more\n\n## B\n\nx\n";
        assert_eq!(replaced(between), "# A\n\n## Calls\n\nnew\n\n## B\n\nx\n");
        assert_eq!(replaced("# A\n\n## Calls\n\nold\n"), "# A\n\n## Calls\n\nnew\n");
    }
}
