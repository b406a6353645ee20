//! `alknet peer explain`: whether somebody may do something, and by which rule.

use std::fmt::Write as _;

use alknet_core::{Credential, Identity, IdentityProvider, KeyFingerprint, Scope, Scopes};
use serde::Serialize;

use crate::{
    chain::ChainProvider,
    config::Config,
    failure::Failure,
    home::Home,
    node::providers,
    output,
    people::People,
    store::{Revocation, Store},
    words::parse_action,
};

/// Say whether a peer may do something, and by which rule
///
/// There are no rules but the scopes that somebody has: what none of them covers is denied.
/// Exit code 0 if it is allowed, else 1.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  alknet peer explain alice ssh:forward:db.internal:5432\n  alknet peer explain alice git:write:notes --token 5f2a90c1d3e4"
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

#[derive(Serialize)]
struct Report<'a> {
    name: &'a str,
    id: &'a str,
    action: &'a str,
    allowed: bool,
    /// The one that covers the action.
    scope: Option<String>,
    /// All that count.
    scopes: Vec<String>,
    reason: String,
}

/// Somebody as they are asked about.
struct Subject {
    id: String,
    name: String,
    scopes: Scopes,
}

pub(super) async fn run(args: &Args, home: &Home, store: &Store) -> Result<(), Failure> {
    let config = Config::load(home)?;
    let subject = subject(&args.name, &config, store).await?;
    let verdict = match credential(args)? {
        None => of_peer(&subject, &args.action),
        Some((what, credential)) => {
            let chain = ChainProvider::new(providers(store, &config)?);
            let holder = chain.by_credential(&credential).await?;
            let id = credential_id(&credential);
            let gone = if holder.is_none() { store.revocation(&id).await? } else { None };
            of_credential(&subject, &args.action, &what, holder, gone)?
        }
    };
    let report = Report {
        name: &subject.name,
        id: &subject.id,
        action: &args.action,
        allowed: verdict.scope.is_some(),
        scope: verdict.scope.as_ref().map(ToString::to_string),
        scopes: verdict.scopes.iter().map(ToString::to_string).collect(),
        reason: verdict.reason,
    };
    let word = if report.allowed { "allowed" } else { "denied" };
    if args.json {
        output::json(&report)?;
    } else {
        output::line(format_args!("{word}: {}", report.reason))?;
    }
    if report.allowed { Ok(()) } else { Err(Failure::silent()) }
}

/// The store comes first, as it does for a node.
async fn subject(name: &str, config: &Config, store: &Store) -> Result<Subject, Failure> {
    let people = config.identities.as_ref().map(|path| People::open(path.to_path_buf()));
    let person = match people.transpose()? {
        Some(people) => people.person(name).await,
        None => None,
    };
    if let Some(peer) = store.peer(name).await? {
        if let Some(person) = person {
            output::note(format_args!("the file of people has a {name} as well: {}", person.id))?;
        }
        return Ok(Subject { id: peer.id, name: peer.name, scopes: peer.scopes });
    }
    if let Some(person) = person {
        return Ok(Subject { id: person.id, name: person.name, scopes: person.scopes });
    }
    let mut message = format!("there is no peer {name}");
    if let Some(gone) = store.revocation(name).await?.filter(|gone| gone.kind == "peer") {
        let _ = write!(message, ": {}", removed(&gone));
    }
    Err(Failure::new(message).hint("see alknet peer list"))
}

/// How the sentence names it, and what it is.
fn credential(args: &Args) -> Result<Option<(String, Credential)>, Failure> {
    if let Some(id) = &args.token {
        return Ok(Some((format!("the token {id}"), Credential::Token(id.clone()))));
    }
    let Some(key) = &args.key else { return Ok(None) };
    let key: KeyFingerprint = super::fingerprint(key)?;
    Ok(Some((format!("the key {key}"), Credential::Key(key))))
}

/// What the store remembers its revocation by.
fn credential_id(credential: &Credential) -> String {
    match credential {
        Credential::Token(id) => id.clone(),
        Credential::Key(key) => key.to_string(),
        other => other.to_string(),
    }
}

/// What was found.
struct Verdict {
    scope: Option<Scope>,
    scopes: Scopes,
    reason: String,
}

fn of_peer(subject: &Subject, action: &str) -> Verdict {
    let (name, scopes) = (&subject.name, subject.scopes.clone());
    let scope = scopes.covering(action).cloned();
    let reason = match &scope {
        Some(scope) => format!("by scope {scope} of the peer {name}"),
        None => format!("nothing {name} has covers {action} ({})", has(&scopes)),
    };
    Verdict { scope, scopes, reason }
}

fn of_credential(
    subject: &Subject,
    action: &str,
    what: &str,
    holder: Option<Identity>,
    gone: Option<Revocation>,
) -> Result<Verdict, Failure> {
    let name = &subject.name;
    let Some(holder) = holder else {
        let why = gone.map_or_else(|| "it is unknown or has expired".into(), |gone| removed(&gone));
        let (scope, scopes) = (None, Scopes::default());
        return Ok(Verdict { scope, scopes, reason: format!("{what} admits nobody: {why}") });
    };
    if holder.id != subject.id {
        return Err(Failure::new(format!("{what} is not {name}'s but {}'s", holder.name)));
    }
    let scopes = holder.scopes;
    let scope = scopes.covering(action).cloned();
    let reason = match (&scope, subject.scopes.covering(action)) {
        (Some(scope), _) => format!("by scope {scope} of {what} of {name}"),
        (None, Some(wider)) => format!(
            "{name} has {wider}, but nothing that {what} has covers {action} ({})",
            has(&scopes)
        ),
        (None, None) => format!("nothing {name} has covers {action} ({})", has(&subject.scopes)),
    };
    Ok(Verdict { scope, scopes, reason })
}

fn has(scopes: &Scopes) -> String {
    if scopes.is_empty() { "has nothing".into() } else { format!("has: {scopes}") }
}

fn removed(gone: &Revocation) -> String {
    format!("it was revoked at {} UTC by {}", output::minute(gone.revoked.at), gone.revoked.by)
}
