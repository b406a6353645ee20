//! Every test: Rust, documentation, browser.

use std::path::Path;

use anyhow::Result;

use crate::{check, conformance, files, programs, sh, steps::Steps, suites, tools, web};

/// What everything that is built and installed takes, in GiB.
const ROOM: u64 = 12;

/// Checks and tests, from nothing.
pub(crate) fn everything(root: &Path) -> Result<()> {
    files::warn_of_little_room(root, ROOM)?;
    tools::need(root, tools::TEST)?;
    suites::python(root)?;
    web::build(root)?;
    let mut steps = Steps::default();
    check::steps_of(root, &mut steps);
    steps.step("tests of xtask", || {
        sh::cargo(root, ["test", "--quiet", "--manifest-path", "xtask/Cargo.toml"]).run()
    });
    steps.step("unit tests of the web client", || web::test(root));
    steps.step("tests", || rust(root, &[]));
    steps.step("examples in the documentation", || {
        sh::cargo(root, ["test", "--workspace", "--doc"]).run()
    });
    steps.step("browser tests", || browser(root));
    steps.step("test suites of others", || conformance::run(root, &[]));
    steps.finish()
}

/// The Rust tests whose names contain one of the filters.
pub(crate) fn filtered(root: &Path, filters: &[String]) -> Result<()> {
    tools::need(root, tools::TEST)?;
    suites::python(root)?;
    web::build(root)?;
    rust(root, &filters.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The tests in a real browser against a real node.
pub(crate) fn browser(root: &Path) -> Result<()> {
    tools::need(root, tools::TEST)?;
    let node = programs::build(root)?.join("alknet");
    web::install(root, web::E2E)?;
    web::npm(root, web::E2E)?.arg("test").env("ALKNET_BIN", node).run()
}

/// Those of all packages at once, see [`programs::build`]. cargo-nextest ends a wedged test by
/// itself; without it the deadline of the whole step does.
fn rust(root: &Path, args: &[&str]) -> Result<()> {
    if tools::has_cargo("nextest") {
        return sh::cargo(root, ["nextest", "run", "--workspace", "--no-fail-fast"])
            .args(args)
            .run();
    }
    eprintln!("cargo-nextest is not installed: using `cargo test`");
    // Tests run the examples, and `--tests` does not build them.
    sh::cargo(root, ["build", "--workspace", "--examples"]).run()?;
    sh::cargo(root, ["test", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast"])
        .args(args)
        .run()
}
