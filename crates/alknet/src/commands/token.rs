//! `alknet token create|list|revoke|hash|link`.

mod hash;

use std::time::Duration;

use alknet_core::{AuditEvent, Scopes};
use clap::Subcommand;
use serde::Serialize;

use super::{audit::unrecorded, parse_name, parse_scopes};
use crate::{
    audit,
    config::{InvalidSpan, Span},
    failure::Failure,
    home::Home,
    keys::Keys,
    links::Hosts,
    output,
    roster::{ChangeError, tokens},
    store::{By, NewToken, OWNER, Revoked, Store, Token, TokenError},
};

/// Make, list and revoke bearer tokens
///
/// A token admits whoever has it. A change holds at once, also for a node that is running.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  alknet token create --name ci --scope git --expires 30d")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Create(Create),
    List(List),
    Revoke(Revoke),
    Hash(hash::Args),
    Link(Link),
}

/// Make a token and print it, this once
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  alknet token create --name phone --expires 30d\n  alknet token create --peer alice --scope ssh | ssh laptop alknet login example.org"
)]
struct Create {
    /// What to call it
    #[arg(long, default_value = "token", value_parser = parse_name)]
    name: String,
    /// What it may do: services or parts of them with commas between, such as ssh or
    /// git:read:notes [default: what its peer may]
    #[arg(long = "scope", value_name = "SCOPES", value_parser = parse_scopes)]
    scopes: Option<Scopes>,
    /// How long it is good for: 90m, 12h, 30d, or never
    #[arg(long, value_name = "TIME", default_value = "never", value_parser = parse_lifetime)]
    expires: Lifetime,
    /// The peer that it stands for
    #[arg(long, default_value = OWNER)]
    peer: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// List the tokens and the sessions of browsers
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  alknet token list --json\n  alknet token list --all")]
struct List {
    /// List those that have expired or were revoked as well, as far as they are remembered
    #[arg(long)]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// End tokens or sessions at once
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  alknet token revoke 5f2a90c1d3e4")]
struct Revoke {
    /// As `alknet token list` shows it
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

/// Print a new sign-in link for a browser
///
/// As `alknet serve` does when it starts: it works once, within 15 minutes, for the owner.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  alknet token link")]
struct Link {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// `None` is for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lifetime(Option<Duration>);

fn parse_lifetime(text: &str) -> Result<Lifetime, String> {
    if text == "never" {
        return Ok(Lifetime(None));
    }
    let span: Span = text.parse().map_err(|error: InvalidSpan| error.to_string())?;
    if span.is_zero() {
        return Err("a token that has expired is no use".into());
    }
    Ok(Lifetime(Some(span.into())))
}

pub(crate) async fn run(args: Args, home: &Home) -> Result<(), Failure> {
    let store = Store::open(home).await?;
    let result = match args.action {
        Action::Hash(args) => hash::run(&args).await,
        Action::Create(args) => create(&args, home, &store).await,
        Action::List(args) => list(&args, &store).await,
        Action::Revoke(args) => revoke(&args, home, &store).await,
        Action::Link(args) => link(&args, home, &store).await,
    };
    store.close().await;
    result
}

#[derive(Serialize)]
struct Created<'a> {
    token: &'a str,
    #[serde(flatten)]
    about: &'a Token,
}

async fn create(args: &Create, home: &Home, store: &Store) -> Result<(), Failure> {
    let new = NewToken {
        by: By::OWNER,
        name: &args.name,
        peer: &args.peer,
        scopes: args.scopes.as_ref(),
        lifetime: args.expires.0,
    };
    let mut recorded = Ok(());
    let record = |events: Vec<AuditEvent>| {
        recorded = audit::append_all(home, events);
        Ok(())
    };
    let created = tokens::create(store, new, record).await;
    let (secret, about) = created.map_err(failed)?;
    // It is there and shown this once, whether it could be recorded or not.
    if args.json {
        output::json(&Created { token: secret.expose(), about: &about })?;
    } else {
        output::line(secret.expose())?;
        output::note(format_args!("made token {}; it is shown this once", about.id))?;
    }
    recorded.map_err(unrecorded)
}

async fn list(args: &List, store: &Store) -> Result<(), Failure> {
    let mut tokens = store.tokens().await?;
    if args.all {
        tokens.extend(store.ended_tokens().await?);
    }
    if args.json {
        output::json(&tokens)?;
        return Ok(());
    }
    let moment = |unix: Option<i64>| unix.map_or_else(|| "never".into(), output::minute);
    let rows: Vec<_> = tokens
        .into_iter()
        .map(|token| {
            let used = moment(token.last_used_at);
            let expires = match token.revoked {
                Some(Revoked { at, by }) => format!("revoked {} by {by}", output::minute(at)),
                None => moment(token.expires_at),
            };
            [token.id, token.kind, token.name, token.peer, token.scopes.to_string(), expires, used]
        })
        .collect();
    let heading = ["ID", "KIND", "NAME", "PEER", "SCOPES", "EXPIRES", "LAST USED"];
    output::table(heading, &rows)?;
    Ok(())
}

async fn revoke(args: &Revoke, home: &Home, store: &Store) -> Result<(), Failure> {
    for id in &args.ids {
        let record = |events: Vec<AuditEvent>| audit::append_all(home, events);
        tokens::revoke(store, By::OWNER, id, record).await.map_err(failed)?;
    }
    Ok(())
}

fn failed(error: ChangeError<TokenError>) -> Failure {
    match error {
        ChangeError::Refused(error) => wrong_token(error),
        ChangeError::Unrecorded(error) => unrecorded(error),
    }
}

fn wrong_token(error: TokenError) -> Failure {
    let hint = match &error {
        TokenError::UnknownPeer(_) => "see alknet peer list",
        TokenError::Unknown(_) => "see alknet token list",
        TokenError::Exceeds { .. } => "give the peer more, or the token less",
        TokenError::Store(_) | TokenError::Beyond(_) | TokenError::GrantsMore => {
            return error.into();
        }
    };
    Failure::from(error).hint(hint)
}

async fn link(args: &Link, home: &Home, store: &Store) -> Result<(), Failure> {
    let none =
        || Failure::new("no node serves this state folder").hint("start one with `alknet serve`");
    if home.served_by()?.is_none() {
        return Err(none());
    }
    let listen = home.address()?.ok_or_else(none)?;
    let hosts = Hosts::of_running(home, listen)?;
    let links = hosts.sign_in_links(store, Keys::open(home).await?.identity()?.id()).await?;
    if args.json {
        output::json(&links)?;
    } else {
        links.iter().try_for_each(output::line)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_have_units() {
        let seconds = |text| parse_lifetime(text).unwrap().0.map(|time| time.as_secs());
        assert_eq!(seconds("90m"), Some(5400));
        assert_eq!(seconds("30d"), Some(2_592_000));
        assert_eq!(seconds("never"), None);
        for bad in ["", "30", "d", "0d", "-1d", "1w", "1dd", "é", "99999999999d"] {
            assert!(parse_lifetime(bad).is_err(), "{bad}");
        }
    }
}
