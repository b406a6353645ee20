//! What needs no running program: format, lints, architecture, documentation, licences.

use std::path::Path;

use anyhow::Result;

use crate::{sh, steps::Steps, tidy, tools, web};

const WASM: [&str; 2] = ["--target", "wasm32-unknown-unknown"];

/// Everything, with a summary.
pub(crate) fn all(root: &Path) -> Result<()> {
    // The node embeds the web client, so not even a check of it compiles without.
    web::build(root)?;
    let mut steps = Steps::default();
    steps_of(root, &mut steps);
    steps.finish()
}

/// Adds every check to a list of steps.
pub(crate) fn steps_of(root: &Path, steps: &mut Steps) {
    steps.step("tidy", || tidy::report(root));
    steps.step("format", || format(root));
    steps.step("clippy", || {
        clippy(root, &["--workspace", "--exclude", "alknet-wasm", "--all-targets"])
    });
    steps.step("clippy, browser crate", || clippy_wasm(root, &["-p", "alknet-wasm"]));
    steps.step("clippy, contract of alknet-core alone", || {
        clippy_wasm(root, &["-p", "alknet-core", "--no-default-features"])
    });
    steps.step("clippy, xtask", || {
        clippy(root, &["--manifest-path", "xtask/Cargo.toml", "--all-targets"])
    });
    steps.step("documentation", || documentation(root));
    licences(root, steps);
}

fn format(root: &Path) -> Result<()> {
    sh::cargo(root, ["fmt", "--all", "--check"]).run()?;
    sh::cargo(root, ["fmt", "--manifest-path", "xtask/Cargo.toml", "--check"]).run()?;
    sh::cargo(root, ["fmt", "--manifest-path", "benches/call/Cargo.toml", "--check"]).run()
}

fn clippy(root: &Path, what: &[&str]) -> Result<()> {
    sh::cargo(root, ["clippy", "--quiet", "--locked"])
        .args(what)
        .args(["--", "-D", "warnings"])
        .run()
}

fn clippy_wasm(root: &Path, what: &[&str]) -> Result<()> {
    let args: Vec<&str> = WASM.iter().chain(what).copied().collect();
    clippy(root, &args)
}

fn documentation(root: &Path) -> Result<()> {
    sh::cargo(root, ["doc", "--quiet", "--locked", "--no-deps", "--workspace"])
        .args(["--exclude", "alknet-wasm", "--document-private-items"])
        .env("RUSTDOCFLAGS", "-D warnings")
        .run()
}

/// cargo-deny takes long to build, so it is used where it is installed; what it checks
/// against the network (advisories) is not part of a build.
fn licences(root: &Path, steps: &mut Steps) {
    const NAME: &str = "licences and sources";
    if tools::has_cargo("deny") {
        steps.step(NAME, || {
            sh::cargo(root, ["deny", "--offline", "check", "licenses", "bans", "sources"]).run()
        });
    } else {
        steps.left_out(NAME, "cargo-deny is not installed (cargo install cargo-deny --locked)");
    }
}
