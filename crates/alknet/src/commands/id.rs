//! `alknet id`.

use serde::Serialize;

use crate::{failure::Failure, home::Home, keys::Keys, output};

/// Print the public key of this machine
///
/// It is the node id under which others reach a node here, and the key that
/// `alknet peer add` on another node takes.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  alknet id\n  alknet peer add laptop --key $(alknet id) --scope ssh"
)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Id {
    id: String,
}

pub(crate) async fn run(args: &Args, home: &Home) -> Result<(), Failure> {
    let id = Keys::open(home).await?.identity()?.id().to_string();
    let printed = if args.json { output::json(&Id { id }) } else { output::line(id) };
    Ok(printed?)
}
