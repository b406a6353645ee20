//! `alknet token hash`: what a file of people says of a token.

use alknet_core::Secret;
use serde::Serialize;

use super::super::{login::is_token, parse_name, prompt};
use crate::{
    failure::Failure,
    keys, output,
    store::{TOKEN_PREFIX, fresh_token},
};

/// Print what a file of people has to say of a token
///
/// Reads the token from stdin, and keeps it nowhere. The line goes into the tokens of
/// somebody in the file that the configuration names as identities.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  alknet token hash --name ci < token.txt\n  alknet token hash --name ci --new"
)]
pub(super) struct Args {
    /// What to call it
    #[arg(long, default_value = "token", value_parser = parse_name)]
    name: String,
    /// Make a token, and print it before the line, this once
    #[arg(long)]
    new: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    name: &'a str,
    sha256: String,
    key: String,
}

pub(super) async fn run(args: &Args) -> Result<(), Failure> {
    let token = if args.new { fresh_token()? } else { read().await? };
    let shown = args.new.then(|| token.expose());
    let (sha256, key) = (hex::encode(token.hash()), keys::token_identity(&token)?.id().to_string());
    let report = Report { token: shown, name: &args.name, sha256, key };
    if args.json {
        output::json(&report)?;
        return Ok(());
    }
    shown.into_iter().try_for_each(output::line)?;
    let Report { name, sha256, key, .. } = report;
    output::line(format_args!("{{ name = {name:?}, sha256 = \"{sha256}\", key = \"{key}\" }}"))?;
    Ok(())
}

async fn read() -> Result<Secret, Failure> {
    let token = prompt::secret("token:").await?;
    if is_token(&token) {
        return Ok(token);
    }
    Err(Failure::new("this is not a token")
        .hint(format!("a token begins with {TOKEN_PREFIX}: --new makes one")))
}
