//! The architecture, as a test.

mod sources;

use std::path::Path;

use anyhow::{Result, bail};

use crate::files;

/// Every crate and the crates of ours that it may depend on. A new crate starts here.
const EDGES: &[(&str, &[&str])] = &[
    ("alknet-core", &[]),
    ("alknet-call", &["alknet-core"]),
    ("alknet-http", &["alknet-call", "alknet-core"]),
    ("alknet-host", &["alknet-core"]),
    ("alknet-forward", &["alknet-core", "alknet-host"]),
    ("alknet-git", &["alknet-core", "alknet-host"]),
    ("alknet-sftp", &["alknet-core", "alknet-host"]),
    ("alknet-shell", &["alknet-core", "alknet-host"]),
    ("alknet-ssh", &["alknet-core", "alknet-host"]),
    ("alknet-wasm", &["alknet-core"]),
    ("alknet-testing", &["alknet-core"]),
    ("alknet-vault", &[]),
    (
        "alknet",
        &[
            "alknet-call",
            "alknet-core",
            "alknet-forward",
            "alknet-git",
            "alknet-host",
            "alknet-http",
            "alknet-sftp",
            "alknet-shell",
            "alknet-ssh",
            "alknet-vault",
        ],
    ),
];

/// What tests may use besides, in every crate.
const FOR_TESTS: &str = "alknet-testing";

/// Prints every violation; an error if there are any.
pub(crate) fn report(root: &Path) -> Result<()> {
    let mut found = Vec::new();
    manifests(root, &mut found)?;
    sources::check(root, &mut found)?;
    for violation in &found {
        eprintln!("tidy: {violation}");
    }
    if !found.is_empty() {
        bail!("{} violation(s)", found.len());
    }
    Ok(())
}

fn manifests(root: &Path, found: &mut Vec<String>) -> Result<()> {
    let mut seen = Vec::new();
    for path in files::own(root, "crates")? {
        if path.ends_with("/Cargo.toml") {
            let manifest = files::toml(&root.join(&path))?;
            seen.push(manifest_name(&manifest));
            found.extend(manifest_faults(&manifest).into_iter().map(|it| format!("{path}: {it}")));
        }
    }
    let gone = EDGES.iter().filter(|(name, _)| !seen.iter().any(|seen| seen == name));
    found.extend(gone.map(|(name, _)| format!("tidy lists {name}, and there is no such crate")));
    Ok(())
}

fn manifest_name(manifest: &toml::Table) -> String {
    let name = manifest.get("package").and_then(|package| package.get("name"));
    name.and_then(toml::Value::as_str).unwrap_or_default().to_owned()
}

fn manifest_faults(manifest: &toml::Table) -> Vec<String> {
    let name = manifest_name(manifest);
    let mut faults = Vec::new();
    if !inherits(manifest.get("lints")) {
        faults.push("does not inherit the workspace's lints".to_owned());
    }
    for field in ["license", "edition", "rust-version", "version", "publish"] {
        if !inherits(manifest.get("package").and_then(|package| package.get(field))) {
            faults.push(format!("does not inherit the workspace's {field}"));
        }
    }
    let Some((_, allowed)) = EDGES.iter().find(|(crate_name, _)| *crate_name == name) else {
        faults.push(format!("the crate {name} has no place in tidy's table of edges"));
        return faults;
    };
    for (kind, dependency) in dependencies(manifest) {
        let for_tests = kind == "dev-dependencies" && dependency == FOR_TESTS;
        if dependency.starts_with("alknet") && !allowed.contains(&&*dependency) && !for_tests {
            faults.push(format!("{name} must not depend on {dependency}"));
        }
    }
    faults
}

fn inherits(value: Option<&toml::Value>) -> bool {
    value.and_then(|value| value.get("workspace")).and_then(toml::Value::as_bool) == Some(true)
}

/// Every dependency with the kind of its table, those of single targets included.
fn dependencies(manifest: &toml::Table) -> Vec<(&'static str, String)> {
    let targets = manifest.get("target").and_then(toml::Value::as_table);
    let targets =
        targets.into_iter().flat_map(toml::Table::values).filter_map(toml::Value::as_table);
    let mut found = Vec::new();
    for table in std::iter::once(manifest).chain(targets) {
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let names = table.get(kind).and_then(toml::Value::as_table);
            found.extend(
                names.into_iter().flat_map(toml::Table::keys).map(|name| (kind, name.clone())),
            );
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
        package = { name = \"alknet-ssh\", license.workspace = true, edition.workspace = true, \
        rust-version.workspace = true, version.workspace = true, publish.workspace = true }\n\
        lints.workspace = true\n\
        dependencies = { alknet-core.workspace = true, bytes.workspace = true }\n\
        dev-dependencies = { alknet-testing.workspace = true }\n";

    fn faults(text: &str) -> Vec<String> {
        manifest_faults(&text.parse().unwrap_or_default())
    }

    #[test]
    fn the_allowed_edges_pass() {
        assert_eq!(faults(GOOD), Vec::<String>::new());
    }

    #[test]
    fn a_forbidden_edge_is_found_in_every_table() {
        for table in ["dependencies", "build-dependencies", "target.'cfg(unix)'.dependencies"] {
            let text = format!(
                "{}\n[{table}.alknet-http]\nworkspace = true\n",
                GOOD.replace(
                    "dependencies = { alknet-core.workspace = true, bytes.workspace = true }\n",
                    ""
                )
            );
            assert_eq!(faults(&text), ["alknet-ssh must not depend on alknet-http"], "{table}");
        }
    }

    #[test]
    fn own_lints_and_unknown_crates_are_found() {
        let text = GOOD.replace("lints.workspace = true\n", "");
        assert_eq!(faults(&text), ["does not inherit the workspace's lints"]);
        let text = GOOD.replace("alknet-ssh", "alknet-new");
        assert_eq!(faults(&text).len(), 1);
    }
}
