//! The command line. Each command has a file; the doc of its arguments is its help.

pub(crate) mod attach;
mod audit;
mod call;
mod config;
pub(crate) mod dial;
mod forward;
mod git;
mod id;
pub(crate) mod login;
mod peer;
pub(crate) mod prompt;
mod recordings;
mod reload;
pub(crate) mod serve;
pub(crate) mod sessions;
pub(crate) mod sftp_server;
mod socks;
pub(crate) mod ssh;
mod ssh_config;
mod status;
mod token;
mod vault;

pub(crate) use call::plain;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::{
    Services,
    failure::Failure,
    home::Home,
    words::{parse_name, parse_scopes},
};

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
    /// The folder that holds identity, peers and tokens [default: $ALKNET_HOME, or the
    /// platform's data folder]
    // clap takes an empty variable for an empty flag, which is an error.
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Serve(serve::Args),
    Reload(reload::Args),
    Config(config::Args),
    Id(id::Args),
    Login(login::Args),
    Dial(dial::Args),
    Ssh(ssh::Args),
    SshConfig(ssh_config::Args),
    Sessions(sessions::Args),
    Socks(socks::Args),
    Forward(forward::Args),
    Git(git::Args),
    Call(call::Args),
    Token(token::Args),
    Peer(peer::Args),
    Status(status::Args),
    Vault(vault::Args),
    Audit(audit::Args),
    Recordings(recordings::Args),
    SftpServer(sftp_server::Args),
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
            Self::Reload(args) => reload::run(&args, home).await,
            Self::Config(args) => config::run(args, home).await,
            Self::Id(args) => id::run(&args, home).await,
            Self::Login(args) => login::run(args, home).await,
            Self::Dial(args) => dial::run(args, home).await,
            Self::Ssh(args) => ssh::run(args, home).await,
            Self::SshConfig(args) => ssh_config::run(args, home).await,
            Self::Sessions(args) => sessions::run(args, home).await,
            Self::Socks(args) => socks::run(args, home).await,
            Self::Forward(args) => forward::run(args, home).await,
            Self::Git(args) => git::run(args, home).await,
            Self::Call(args) => call::run(args, home).await,
            Self::Token(args) => token::run(args, home).await,
            Self::Peer(args) => peer::run(args, home).await,
            Self::Status(args) => status::run(args, home).await,
            Self::Vault(args) => vault::run(args, home).await,
            Self::Audit(args) => audit::run(args, home).await,
            Self::Recordings(args) => recordings::run(args, home).await,
            Self::SftpServer(args) => sftp_server::run(args).await,
        }
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
}
