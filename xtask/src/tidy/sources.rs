//! Rules about what stands in files.

use std::{fs, path::Path};

use anyhow::Result;

use crate::files;

/// Lines of a source file, its tests aside.
const MAX_LINES: usize = 600;

/// Where a protocol's name would tie the core to it.
const CORE: &str = "crates/alknet-core/src/";
const SERVICES: &[&str] =
    &["ssh", "sftp", "git", "call", "dns", "fs", "msg", "mix", "socks", "mcp"];

/// Spelt in pieces, because this file is checked as well.
const LEFT_OVER: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")];
const MACHINE_PATHS: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/Us", "ers/"),
    concat!("C:\\", "Users"),
];
const IGNORED_TEST: &str = concat!("#[ig", "nore");

/// Checks every text file of the repository.
pub(super) fn check(root: &Path, found: &mut Vec<String>) -> Result<()> {
    for path in files::own(root, ".")? {
        let content = fs::read(root.join(&path))?;
        let Ok(text) = String::from_utf8(content) else { continue };
        let faults = faults(&path, &text);
        found.extend(faults.into_iter().map(|fault| format!("{path}: {fault}")));
        if path.ends_with(".md") {
            let broken = links(&text).into_iter().filter(|link| !target_exists(root, &path, link));
            found.extend(broken.map(|link| format!("{path}: nothing at the link {link}")));
        }
    }
    Ok(())
}

fn faults(path: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let code = without_tests(text);
    if is_source(path) && !is_test(path) && code.lines().count() > MAX_LINES {
        faults.push(format!("{} lines, of {MAX_LINES} at most", code.lines().count()));
    }
    if is_source(path) {
        let words = LEFT_OVER.iter().filter(|word| text.contains(**word));
        faults.extend(words.map(|word| format!("an unfinished thing: {word}")));
    }
    if path.ends_with(".rs") && text.contains(IGNORED_TEST) {
        faults.push("a test that never runs".to_owned());
    }
    let lock = path.ends_with(".lock") || path.ends_with("package-lock.json");
    let places = MACHINE_PATHS.iter().filter(|place| !lock && text.contains(**place));
    faults.extend(places.map(|place| format!("a path of somebody's machine: {place}")));
    if lock && text.contains(concat!("\"reso", "lved\": \"http")) {
        faults.push("the address of a registry".to_owned());
    }
    if path.starts_with(CORE) && !is_test(path) {
        faults.extend(protocol_names(code).into_iter().map(|it| format!("names a protocol: {it}")));
    }
    faults
}

fn is_source(path: &str) -> bool {
    [".rs", ".ts", ".js", ".mjs", ".css"].iter().any(|end| path.ends_with(end))
}

fn is_test(path: &str) -> bool {
    ["/tests/", "/benches/", "/e2e/"].iter().any(|dir| path.contains(dir))
        || path.ends_with("/tests.rs")
        || path.ends_with(".test.ts")
}

/// The text up to its inline tests, which stand last.
fn without_tests(text: &str) -> &str {
    let end = text.find("\n#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text.get(..end).unwrap_or(text)
}

/// Names of protocols in the code of the core, its comments aside.
fn protocol_names(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
        for name in SERVICES {
            let quoted = [format!("\"{name}\""), format!("alknet/{name}")];
            found.extend(quoted.into_iter().filter(|text| line.contains(text)));
        }
    }
    found
}

/// The targets of relative links in Markdown, without their anchors.
fn links(text: &str) -> Vec<String> {
    let starts = text.match_indices("](").map(|(at, mark)| at + mark.len());
    starts
        .filter_map(|start| text.get(start..)?.split_once(')').map(|(link, _)| link))
        .map(|link| link.split('#').next().unwrap_or_default().trim().to_owned())
        .filter(|link| !link.is_empty() && !link.contains(':') && !link.contains('\n'))
        .collect()
}

fn target_exists(root: &Path, from: &str, link: &str) -> bool {
    let from = root.join(from);
    from.parent().is_some_and(|dir| dir.join(link).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_files_are_found_and_their_tests_do_not_count() {
        let long = "x\n".repeat(MAX_LINES);
        assert!(faults("crates/a/src/a.rs", &long).is_empty());
        let tests = format!("{long}\n#[cfg(test)]\nmod tests {{\n{long}}}\n");
        assert_eq!(faults("crates/a/src/a.rs", &tests).len(), 0);
        assert_eq!(faults("crates/a/src/a.rs", &format!("{long}x\n")).len(), 1);
        assert!(faults("crates/a/tests/a.rs", &format!("{long}x\n")).is_empty());
    }

    #[test]
    fn a_protocol_in_the_core_is_found_outside_comments() {
        let path = "crates/alknet-core/src/a.rs";
        assert_eq!(faults(path, "let a = \"alknet/ssh\";\n").len(), 1);
        assert_eq!(faults(path, "scopes.allow(\"git\")\n").len(), 1);
        assert!(faults(path, "/// Such as `alknet/ssh`.\n").is_empty());
        assert!(faults("crates/alknet-ssh/src/a.rs", "\"alknet/ssh\"").is_empty());
    }

    #[test]
    fn leftovers_are_found() {
        assert_eq!(faults("a/b.rs", &format!("// {} later\n", LEFT_OVER[0])).len(), 1);
        assert_eq!(faults("a/b.rs", &format!("{IGNORED_TEST}]\n")).len(), 1);
        assert_eq!(faults("README.md", &format!("in {}me\n", MACHINE_PATHS[1])).len(), 1);
    }

    #[test]
    fn relative_links_are_taken_from_markdown() {
        let text = "[a](docs/a.md#part) [b](https://b.example/) [c](#here)";
        assert_eq!(links(text), ["docs/a.md"]);
    }
}
