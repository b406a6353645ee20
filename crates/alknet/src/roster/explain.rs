//! Whether somebody may do something, and by which rule.

use std::fmt::Write as _;

use alknet_core::{Credential, Identity, IdentityProvider, Scope, Scopes};
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    chain::ChainProvider,
    config::Config,
    failure::Failure,
    node::providers,
    output,
    people::People,
    store::{Revocation, Store},
};

/// What is asked.
#[derive(Debug)]
pub(crate) struct Question<'a> {
    /// A peer, or somebody in the file of people: their name or id.
    pub(crate) name: &'a str,
    /// What they want to do.
    pub(crate) action: &'a str,
    /// By what they are recognised, which may do less.
    pub(crate) credential: Option<Credential>,
}

/// The answer.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Report {
    /// Who was asked about.
    pub(crate) name: String,
    /// Their id.
    pub(crate) id: String,
    /// What they want to do.
    pub(crate) action: String,
    /// Whether they may.
    pub(crate) allowed: bool,
    /// The scope that covers the action.
    pub(crate) scope: Option<String>,
    /// All that count.
    pub(crate) scopes: Vec<String>,
    /// The rule in words.
    pub(crate) reason: String,
    /// The id of somebody of the same name in the file of people, who does not count.
    #[serde(skip)]
    pub(crate) also: Option<String>,
}

/// Somebody as they are asked about.
struct Subject {
    id: String,
    name: String,
    scopes: Scopes,
}

/// Says whether somebody may do something, and by which rule.
pub(crate) async fn explain(
    question: &Question<'_>,
    config: &Config,
    store: &Store,
) -> Result<Report, Failure> {
    let action = question.action;
    let (subject, also) = subject(question.name, config, store).await?;
    let verdict = match &question.credential {
        None => of_peer(&subject, action),
        Some(credential) => {
            let chain = ChainProvider::new(providers(store, config)?);
            let holder = chain.by_credential(credential).await?;
            let id = credential_id(credential);
            let gone = if holder.is_none() { store.revocation(&id).await? } else { None };
            of_credential(&subject, action, &named(credential), holder, gone)?
        }
    };
    Ok(Report {
        name: subject.name,
        id: subject.id,
        action: action.to_owned(),
        allowed: verdict.scope.is_some(),
        scope: verdict.scope.as_ref().map(ToString::to_string),
        scopes: verdict.scopes.iter().map(ToString::to_string).collect(),
        reason: verdict.reason,
        also,
    })
}

/// The store comes first, as it does for a node.
async fn subject(
    name: &str,
    config: &Config,
    store: &Store,
) -> Result<(Subject, Option<String>), Failure> {
    let people = config.identities.as_ref().map(|path| People::open(path.to_path_buf()));
    let person = match people.transpose()? {
        Some(people) => people.person(name).await,
        None => None,
    };
    if let Some(peer) = store.peer(name).await? {
        let also = person.map(|person| person.id);
        return Ok((Subject { id: peer.id, name: peer.name, scopes: peer.scopes }, also));
    }
    if let Some(person) = person {
        let subject = Subject { id: person.id, name: person.name, scopes: person.scopes };
        return Ok((subject, None));
    }
    let mut message = format!("there is no peer {name}");
    if let Some(gone) = store.revocation(name).await?.filter(|gone| gone.kind == "peer") {
        let _ = write!(message, ": {}", removed(&gone));
    }
    Err(Failure::new(message).hint("see alknet peer list"))
}

/// How the sentence names it.
fn named(credential: &Credential) -> String {
    match credential {
        Credential::Token(id) => format!("the token {id}"),
        Credential::Key(key) => format!("the key {key}"),
        other => other.to_string(),
    }
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
