//! `alknet`: a self-hostable networking toolkit. This crate assembles the others into one
//! program and keeps the state: identity, peers, tokens.

#![allow(
    rustdoc::broken_intra_doc_links,
    rustdoc::invalid_html_tags,
    reason = "the docs of arguments are the text of --help, where brackets mark what is optional"
)]

mod audit;
mod authorized_keys;
mod certificates;
mod chain;
mod commands;
mod config;
mod connect;
mod credentials;
mod failure;
mod home;
mod keys;
mod known_nodes;
mod links;
mod node;
mod output;
mod peer_key;
mod stdio;
mod store;
mod web;

use std::{io::IsTerminal as _, process::ExitCode};

use alknet_core::{DuplicateAlpn, HandlerRegistry};
use clap::Parser as _;

use crate::{commands::Cli, failure::Failure, home::Home};

/// What an addition to the node's services looks like: it registers handlers, and an ALPN
/// that is taken is an error.
pub type Services = fn(&mut HandlerRegistry) -> Result<(), DuplicateAlpn>;

/// The whole program: reads the command line, does what it says, and gives the exit code.
///
/// `more` registers services beside the node's own, so that a protocol of yours is one file
/// and one line:
///
/// ```no_run
/// fn main() -> std::process::ExitCode {
///     alknet::main_with(|_services| Ok(()))
/// }
/// ```
pub fn main_with(more: Services) -> ExitCode {
    let cli = Cli::parse();
    log_to_stderr(cli.command.log_level());
    match run(cli, more) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(cli: Cli, more: Services) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let home = Home::open(cli.home)?;
        cli.command.run(&home, more).await
    });
    // A read of the terminal cannot be cancelled: the process does not wait for it.
    runtime.shutdown_background();
    result
}

/// Messages go to stderr, so that stdout holds data alone. `ALKNET_LOG` takes the filters
/// of `tracing-subscriber`.
fn log_to_stderr(default: &str) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("ALKNET_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    // At trace it logs whole frames: what passes through a tunnel stays out of the log.
    let filter = match "tungstenite=info".parse() {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => filter,
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}
