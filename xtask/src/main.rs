//! Everything this repository can do to itself, behind one command: `cargo xtask VERB`.

mod bench;
mod check;
mod conformance;
mod files;
mod fuzz;
mod netpath;
mod prepare;
mod programs;
mod sh;
mod steps;
mod suites;
mod test;
mod tidy;
mod tools;
mod wasm;
mod web;

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};

const HELP: &str = "\
cargo xtask VERB [ARGS]

  run [ARGS]      build the web client and the node, then `alknet serve ARGS`
  test [FILTERS]  every check and every test; FILTERS narrow the Rust tests and leave
                  the rest out
  check           formatting, clippy, tidy, documentation, licences
  tidy            the architecture, as a test
  e2e             the browser tests alone
  conformance [call|ssh-audit|openssh [TESTS]]
                  the test suites of others alone, against a live node
  fuzz [SECONDS] [TARGETS]
                  run the fuzz targets, a minute each
  bench [ssh|git|call]
                  measure and rewrite docs/benchmarks.md, or a section of it alone
  bench ssh|git PART [ROUNDS [BINARY…]]
                  print a part of it, with several binaries side by side
  netpath [RTT in ms] [LOSS in %] [RATE in Mbit/s]
                  two network namespaces with a bad path between them, until it is ended
  web             build the web client alone, into web/app/dist
  prepare         make .patched/, which every cargo command needs
  help            this text
";

fn main() -> ExitCode {
    let mut args = env::args().skip(1);
    let verb = args.next().unwrap_or_default();
    let args: Vec<String> = args.collect();
    match root().and_then(|root| dispatch(&root, &verb, &args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(root: &Path, verb: &str, args: &[String]) -> Result<()> {
    if matches!(verb, "" | "help" | "-h" | "--help") {
        print!("{HELP}");
        return Ok(());
    }
    let takes_args = matches!(verb, "run" | "test" | "conformance" | "fuzz" | "bench" | "netpath");
    if !takes_args && !args.is_empty() {
        bail!("`cargo xtask {verb}` takes no arguments");
    }
    prepare::patched_crates(root)?;
    match verb {
        "prepare" => Ok(()),
        "run" => run(root, args),
        "test" if args.is_empty() => test::everything(root),
        "test" => test::filtered(root, args),
        "check" => check::all(root),
        "tidy" => tidy::report(root),
        "e2e" => test::browser(root),
        "conformance" => conformance::run(root, args),
        "fuzz" => fuzz::run(root, args),
        "bench" => bench::run(root, args),
        "netpath" => netpath::run(root, args),
        "web" => web::build(root),
        _ => bail!("unknown verb {verb:?}; `cargo xtask help` lists them"),
    }
}

/// Builds what a user runs and becomes it.
fn run(root: &Path, args: &[String]) -> Result<()> {
    web::build(root)?;
    sh::cargo(root, ["build", "--release", "-p", "alknet"]).run()?;
    let node = sh::target_dir(root)?.join("release/alknet");
    sh::Cmd::new(root, node).arg("serve").args(args).exec()
}

/// The repository: the folder above this crate.
fn root() -> Result<PathBuf> {
    let manifest = env::var_os("CARGO_MANIFEST_DIR").context("start me as `cargo xtask`")?;
    let root = Path::new(&manifest).parent().context("xtask has no parent folder")?;
    Ok(root.to_owned())
}
