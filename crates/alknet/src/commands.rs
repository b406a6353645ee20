//! The command line. Each command has a file; the doc of its arguments is its help.

pub(crate) mod dial;
mod id;
mod login;
mod peer;
mod prompt;
pub(crate) mod serve;
pub(crate) mod ssh;
mod status;
mod token;

use std::path::PathBuf;

use alknet_core::Scopes;
use clap::{Parser, Subcommand};

use crate::{Services, failure::Failure, home::Home};

/// One port, many protocols, reachable from a browser
///
/// Exit codes: 0 done, 1 failed, 2 used wrongly.
#[derive(Debug, Parser)]
#[command(
    name = "alknet",
    version,
    disable_help_subcommand = true,
    after_help = "Example:\n  alknet serve            run a node and print how to reach it\n  alknet ssh example.org  a shell on a node"
)]
pub(crate) struct Cli {
    /// The folder that holds identity, peers and tokens [default: the platform's data folder]
    #[arg(long, global = true, env = "ALKNET_HOME", value_name = "DIR", hide_env_values = true)]
    pub(crate) home: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Serve(serve::Args),
    Id(id::Args),
    Login(login::Args),
    Dial(dial::Args),
    Ssh(ssh::Args),
    Token(token::Args),
    Peer(peer::Args),
    Status(status::Args),
}

impl Command {
    /// What is logged unless `ALKNET_LOG` says otherwise.
    pub(crate) fn log_level(&self) -> &'static str {
        if matches!(self, Self::Serve(_)) { "info" } else { "warn" }
    }

    /// Does it.
    pub(crate) async fn run(self, home: &Home, more: Services) -> Result<(), Failure> {
        match self {
            Self::Serve(args) => serve::run(args, home, more).await,
            Self::Id(args) => id::run(&args, home),
            Self::Login(args) => login::run(args, home).await,
            Self::Dial(args) => dial::run(args, home).await,
            Self::Ssh(args) => ssh::run(args, home).await,
            Self::Token(args) => token::run(args, home).await,
            Self::Peer(args) => peer::run(args, home).await,
            Self::Status(args) => status::run(&args, home).await,
        }
    }
}

/// `ssh,git` on the command line; `alknet/ssh` means `ssh`.
fn parse_scopes(text: &str) -> Result<Scopes, String> {
    let names: Vec<&str> = text
        .split(',')
        .map(str::trim)
        .map(|name| name.strip_prefix(alknet_core::SERVICE_PREFIX).unwrap_or(name))
        .collect();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./*".contains(&b);
    match names.iter().find(|name| name.is_empty() || !name.bytes().all(plain)) {
        Some(bad) => Err(format!("{bad:?} is not the name of a scope")),
        None => Ok(names.into_iter().collect()),
    }
}

/// What people call a peer or a token.
fn parse_name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_alphanumeric() || "-_.@ ".contains(c);
    if text.trim() != text || text.is_empty() || text.chars().count() > 64 {
        return Err("a name has 1 to 64 characters and no space at its ends".into());
    }
    match text.chars().find(|c| !plain(*c)) {
        Some(bad) => Err(format!("a name has no {bad:?}")),
        None => Ok(text.into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_tree_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_explains_itself_with_an_example() {
        fn check(command: &clap::Command) {
            let help = command.clone().render_long_help().to_string();
            let example =
                help.split_once("Example").is_some_and(|(_, text)| text.contains("  alknet "));
            assert!(example, "{}: {help}", command.get_name());
            assert!(command.get_about().is_some(), "{}", command.get_name());
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn scopes_and_names_are_checked() {
        assert_eq!(parse_scopes("git, alknet/ssh").unwrap().to_string(), "git,ssh");
        assert_eq!(parse_scopes("*").unwrap(), Scopes::all());
        assert!(parse_scopes("").is_err() && parse_scopes("ssh,").is_err());
        assert!(parse_scopes("a b").is_err());
        assert!(parse_name("alice@laptop").is_ok());
        for bad in ["", " a", "a\n", "a\u{1b}[0m", &"x".repeat(65)] {
            assert!(parse_name(bad).is_err(), "{bad:?}");
        }
    }
}
