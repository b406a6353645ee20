//! `alknet peer explain`: whether somebody may do something, and by which rule.

use alknet_core::Credential;

use crate::{
    config::Config,
    failure::Failure,
    home::Home,
    output,
    roster::explain::{Question, explain},
    store::Store,
    words::parse_action,
};

/// Say whether a peer may do something, and by which rule
///
/// There are no rules but the scopes that somebody has: what none of them covers is denied.
/// Exit code 0 if it is allowed, else 1.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  alknet peer explain alice forward:connect:db.internal:5432\n  alknet peer explain alice git:write:notes --token 5f2a90c1d3e4"
)]
pub(super) struct Args {
    /// A peer, or somebody in the file of people: their name or id
    name: String,
    /// What they want to do, such as ssh or git:write:notes
    #[arg(value_parser = parse_action)]
    action: String,
    /// With this token or session: it may do less
    #[arg(long, value_name = "ID", conflicts_with = "key")]
    token: Option<String>,
    /// With this key: it may do less
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: &Args, home: &Home, store: &Store) -> Result<(), Failure> {
    let credential = credential(args)?;
    let question = Question { name: &args.name, action: &args.action, credential };
    let report = explain(&question, &Config::load(home)?, store).await?;
    if let Some(other) = &report.also {
        output::note(format_args!("the file of people has a {} as well: {other}", args.name))?;
    }
    let word = if report.allowed { "allowed" } else { "denied" };
    if args.json {
        output::json(&report)?;
    } else {
        output::line(format_args!("{word}: {}", report.reason))?;
    }
    if report.allowed { Ok(()) } else { Err(Failure::silent()) }
}

fn credential(args: &Args) -> Result<Option<Credential>, Failure> {
    let token = args.token.clone().map(Credential::Token);
    let key = args.key.as_ref().map(|key| super::fingerprint(key).map(Credential::Key));
    Ok(token.or(key.transpose()?))
}
