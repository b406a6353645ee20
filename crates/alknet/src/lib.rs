//! `alknet`: a self-hostable networking toolkit. This crate assembles the others into one
//! program and keeps the state: identity, peers, tokens.

#![allow(
    rustdoc::bare_urls,
    rustdoc::broken_intra_doc_links,
    rustdoc::invalid_html_tags,
    reason = "the docs of arguments are the text of --help, where brackets mark what is optional and addresses stand as they are typed"
)]

mod additions;
mod audit;
mod authorized_keys;
#[doc(hidden)]
pub mod bench;
mod certificates;
mod chain;
mod commands;
mod config;
mod connect;
mod control;
mod credentials;
mod failure;
mod forward;
mod git;
mod home;
mod imports;
mod keys;
mod known_nodes;
mod links;
mod live;
mod node;
mod operations;
mod output;
mod peer_key;
mod people;
mod recordings;
mod remote;
mod roster;
mod routes;
mod sftp;
mod shells;
mod stdio;
mod store;
mod trusted_file;
mod vault;
mod web;
mod words;

use std::{io::IsTerminal as _, process::ExitCode};

use clap::Parser as _;

pub use crate::additions::{AdditionError, Additions};
use crate::{commands::Cli, failure::Failure, home::Home};

/// The parsers of what comes from outside, for the fuzz targets.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing {
    /// Reads a configuration.
    pub fn config(text: &str) {
        crate::config::any(text);
    }

    /// Reads the body of a request to authorise a key.
    pub fn key(body: &[u8]) {
        crate::web::any_key(body);
    }

    /// Whether a text is a token; if it is, nothing of it is lost on the way.
    pub fn token(text: &str) -> bool {
        crate::commands::login::is_token(&alknet_core::Secret::new(text))
    }
}

/// What an addition to the node looks like: it registers handlers and operations.
pub type Services = fn(&mut Additions) -> Result<(), AdditionError>;

/// The whole program: reads the command line, does what it says, and gives the exit code.
///
/// `more` registers services beside the node's own, so that a protocol of yours is one type
/// and one line. Native clients, WebTransport and WebSocket all reach it:
///
/// ```no_run
/// use alknet_core::{Access, Alpn, AuthContext, Connection, HandlerError, ProtocolHandler};
///
/// struct Greet;
///
/// impl ProtocolHandler for Greet {
///     fn name(&self) -> &'static str { "greet" }
///     fn alpns(&self) -> Vec<Alpn> { Vec::from_iter(Alpn::service("greet")) }
///     async fn handle(&self, connection: Connection, _: AuthContext) -> Result<(), HandlerError> {
///         let mut stream = connection.accept_bi().await?;
///         tokio::io::AsyncWriteExt::write_all(&mut stream, b"hello").await?;
///         tokio::io::AsyncWriteExt::shutdown(&mut stream).await?;
///         connection.closed().await;
///         Ok(())
///     }
/// }
///
/// fn main() -> std::process::ExitCode {
///     alknet::main_with(|services| services.register(Greet, Access::Scope))
/// }
/// ```
///
/// `examples/own_service.rs` is a whole one, to be copied.
pub fn main_with(more: Services) -> ExitCode {
    // Sessions of other accounts begin as this program.
    if let Some(code) = alknet_host::lead() {
        return code;
    }
    // So do the hooks of pushes.
    if let Some(code) = alknet_git::hook::main() {
        return code;
    }
    // So does git's way to a node.
    if let Some(code) = git::remote_helper::run_as_named() {
        return code;
    }
    let cli = Cli::parse();
    if let commands::Command::SftpServer(args) = cli.command {
        return commands::sftp_server::main(args);
    }
    log_to_stderr(cli.command.log_level());
    match run(cli, more) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(cli: Cli, more: Services) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let home = Home::open(cli.home.or_else(home::of_environment))?;
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
    // They log whole frames and messages, and one of them the ids of sessions: what passes
    // through the node stays out of the log.
    let quiet = ["tungstenite=info", "rmcp=error"].into_iter().filter_map(|it| it.parse().ok());
    let filter = quiet.fold(filter, EnvFilter::add_directive);
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        // To say on stderr that stderr is gone would panic.
        .log_internal_errors(false)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}
