//! `alknet vault lock` and `unlock`, and the agent behind them.

use std::time::Duration;

use crate::{
    config::Span,
    failure::Failure,
    home::Home,
    output,
    vault::{Given, VaultError, agent},
};

/// The longest time that an agent holds a key: a forgotten one ends with the week.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Forget the key that `alknet vault unlock` keeps
///
/// A node that runs has its keys and keeps them until it ends.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  alknet vault lock")]
pub(super) struct Lock {}

/// Keep the vault open for a time
///
/// A process in the background holds the key that opens the vault, and gives it to the
/// commands of the same user, so that none of them asks for the passphrase.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  alknet vault unlock --for 8h\n  alknet vault unlock --passphrase-file /dev/fd/3 3< passphrase"
)]
pub(super) struct Unlock {
    /// How long: 90s, 10m, 8h, 7d at most
    #[arg(long = "for", value_name = "TIME", default_value = "1h", value_parser = lifetime)]
    lifetime: Duration,
    #[command(flatten)]
    given: Given,
}

/// The process that `alknet vault unlock` starts
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  alknet vault unlock --for 8h")]
pub(super) struct Agent {
    /// In seconds
    lifetime: u64,
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let time = Duration::from(text.parse::<Span>().map_err(|error| error.to_string())?);
    if time.is_zero() || time > LONGEST {
        return Err("between 1s and 7d".into());
    }
    Ok(time)
}

pub(super) async fn unlock(args: Unlock, home: &Home) -> Result<(), Failure> {
    let opened = super::open(home, &args.given).await?;
    agent::start(home, &opened.key, args.lifetime).await.map_err(VaultError::Agent)?;
    let left = agent::remaining(home).await.map_err(VaultError::Agent)?.unwrap_or_default();
    Ok(output::note(format!("unlocked for {} minutes", left.as_secs().div_ceil(60)))?)
}

pub(super) async fn lock(home: &Home) -> Result<(), Failure> {
    let was = agent::lock(home).await.map_err(VaultError::Agent)?;
    Ok(output::note(if was { "locked" } else { "it was not unlocked" })?)
}

pub(super) async fn agent(args: &Agent, home: &Home) -> Result<(), Failure> {
    Ok(agent::run(home, Duration::from_secs(args.lifetime).min(LONGEST)).await?)
}
