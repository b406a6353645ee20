//! The test suites of others against a live node: MCP's own conformance suite and its
//! inspector, Schemathesis on the REST projection, OpenSSH's regression tests and ssh-audit.

mod node;
mod openssh;
mod scenarios;
mod schemathesis;
mod ssh_audit;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use self::{
    node::Node,
    scenarios::{APPLIES, LEFT_OUT, Scenario},
};
use crate::{programs, suites, tools};

/// Never what runs programs or changes the node: the suites call with whatever comes to them.
const SCOPES: &str = "call:test/*,call:json/*,call:node/status,call:services/*";

/// Runs all suites, or the one that is named.
pub(crate) fn run(root: &Path, args: &[String]) -> Result<()> {
    tools::need(root, tools::TEST)?;
    match args {
        [] => {
            let calls = calls(root).context("calls");
            let audit = ssh_audit::run(root).context("ssh-audit");
            let openssh = openssh::run(root, &[]).context("OpenSSH's regression tests");
            calls.and(audit).and(openssh)
        }
        [name] if name == "call" => calls(root),
        [name] if name == "ssh-audit" => ssh_audit::run(root),
        [name, tests @ ..] if name == "openssh" => openssh::run(root, tests),
        [name, ..] => bail!("no suite {name:?}: there are call, ssh-audit and openssh"),
    }
}

/// Builds the node with the operations that the suites call, and runs them all.
fn calls(root: &Path) -> Result<()> {
    let suites = suites::Node::install(root)?;
    let binary = programs::build(root)?.join("examples/mcp_fixtures");
    let dir = root.join("target/xtask/conformance");
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    let node = Node::start(&dir, &binary, SCOPES)?;
    let mut failed = Vec::new();
    if let Err(error) = inspector(&suites, &node) {
        failed.push(format!("the inspector: {error:#}"));
    }
    if let Err(error) = schemathesis::run(root, &dir.join("api")) {
        failed.push(format!("Schemathesis: {error:#}"));
    }
    every_scenario_is_known(&suites, &node)?;
    for scenario in APPLIES {
        for version in scenario.versions {
            match mcp(&suites, &node, scenario, version) {
                Ok(checks) => eprintln!("  {} ({version}): {checks} checks", scenario.name),
                Err(error) => failed.push(format!("{} ({version}): {error:#}", scenario.name)),
            }
        }
    }
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

/// The inspector lists the tools and calls one.
fn inspector(suites: &suites::Node, node: &Node) -> Result<()> {
    let inspect = |method: &[&str]| {
        let server = ["--transport", "http", "--server-url", &node.mcp];
        suites.inspector(&node.token).args(server).arg("--method").args(method).read()
    };
    let tools: Value = serde_json::from_str(&inspect(&["tools/list"])?)?;
    let names = tools.get("tools").and_then(Value::as_array).into_iter().flatten();
    let mut names = names.filter_map(|tool| tool.get("name"));
    ensure!(names.any(|name| name == "test_simple_text"), "it lists no test_simple_text");
    let called = inspect(&["tools/call", "--tool-name", "test_simple_text"])?;
    let result: Value = serde_json::from_str(&called)?;
    let text = result.pointer("/content/0/text").and_then(Value::as_str).unwrap_or_default();
    ensure!(text.starts_with("This is a simple text"), "it got {called}");
    Ok(())
}

/// Fails when the suite has a scenario that nobody has looked at.
fn every_scenario_is_known(suites: &suites::Node, node: &Node) -> Result<()> {
    let list = suites.conformance(&node.token).arg("list").read()?;
    let listed: BTreeSet<&str> = list
        .lines()
        .skip_while(|line| !line.starts_with("Server scenarios"))
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.trim().strip_prefix("- ")?.split(' ').next())
        .collect();
    ensure!(!listed.is_empty(), "the suite lists no scenarios");
    let known = |name: &str| {
        APPLIES.iter().any(|scenario| scenario.name == name)
            || LEFT_OUT.iter().any(|(names, _)| scenarios::matches(names, name))
    };
    let unknown: Vec<&str> = listed.into_iter().filter(|name| !known(name)).collect();
    ensure!(unknown.is_empty(), "scenarios that nobody has looked at: {}", unknown.join(", "));
    Ok(())
}

/// Runs one scenario; how many checks passed. Every check has to, but for those that do not
/// apply.
fn mcp(suites: &suites::Node, node: &Node, scenario: &Scenario, version: &str) -> Result<usize> {
    let results = node.dir.join("results").join(version).join(scenario.name);
    let ran = suites
        .conformance(&node.token)
        .args(["server", "--url", &node.mcp, "--scenario", scenario.name])
        .args(["--spec-version", version, "--output-dir"])
        .arg(&results)
        .read();
    // Its exit code counts the checks that do not apply.
    let checks = checks(&results).with_context(|| match ran {
        Ok(text) => text,
        Err(error) => format!("{error:#}"),
    })?;
    let mut passed = 0;
    for check in &checks {
        let field = |name| check.get(name).and_then(Value::as_str).unwrap_or_default();
        let id = field("id");
        match field("status") {
            _ if scenario.without.contains(&id) => (),
            "SUCCESS" => passed += 1,
            "INFO" | "SKIPPED" => (),
            status => bail!("{status} {id}: {}\n{check:#}", field("errorMessage")),
        }
    }
    ensure!(passed > 0, "no check passed");
    Ok(passed)
}

/// The checks of the one run below a folder.
fn checks(results: &Path) -> Result<Vec<Value>> {
    let runs: Vec<PathBuf> =
        fs::read_dir(results)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    let [run] = runs.as_slice() else { bail!("{} runs instead of one", runs.len()) };
    Ok(serde_json::from_slice(&fs::read(run.join("checks.json"))?)?)
}
