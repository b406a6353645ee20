//! `alknet reload`.

use crate::{
    control::{self, ControlError, Reloaded, Request},
    failure::Failure,
    home::Home,
    output,
};

/// Have a running node read its configuration again
///
/// No session is dropped. What cannot change while it runs is named, and needs a restart.
/// If the file is wrong in any way, the node goes on with the configuration that it has.
/// SIGHUP does the same, and the answer goes to the node's log.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  alknet reload\n  alknet reload --json")]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: &Args, home: &Home) -> Result<(), Failure> {
    let reloaded: Reloaded = match control::ask(home, Request::Reload {}).await {
        Ok(reloaded) => reloaded,
        Err(error @ ControlError::Refused { .. }) => {
            return Err(Failure::from(error).hint("the node goes on as it was"));
        }
        Err(error) => return Err(error.into()),
    };
    let printed = if args.json { output::json(&reloaded) } else { output::line(&reloaded) };
    Ok(printed?)
}
