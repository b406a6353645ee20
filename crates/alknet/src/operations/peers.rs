//! `peers/…`: who may use the node.
//!
//! Nobody gives more than they have, nor changes a peer that may do more than they: the
//! store holds every change against the caller's scopes. Nor does anybody come to an account
//! of the machine by a peer that they add or change.

use std::sync::Arc;

use alknet_call::{CallError, Context, Nothing, Operation};
use alknet_core::{Credential, Identity, KeyFingerprint, ProviderError, Scopes};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Made, Parts, by, holds_accounts, on, parsed_scopes, recorder, scopes};
use crate::{
    config::Config,
    failure::Failure,
    peer_key::{InvalidKey, PeerKey},
    roster::{
        ChangeError,
        explain::{Question, Report},
        peers::{self, Removal},
    },
    store::{Authority, Peer, PeerChange, PeerError},
    words::{parse_action, parse_name, parse_principal},
};

/// There is no such peer, key or authority.
const NO_SUCH_PEER: &str = "NO_SUCH_PEER";
/// The name, the key or the principal is another's.
const TAKEN: &str = "TAKEN";
/// It cannot be told who may do what.
const NOT_EXPLAINED: &str = "NOT_EXPLAINED";

/// The operations on peers.
pub(super) fn operations(parts: &Arc<Parts>) -> Made {
    let fails = |operation: Operation| {
        operation
            .error(NO_SUCH_PEER, "There is no such peer, or it has no such key or authority.")
            .error(TAKEN, "The name, a key or a principal belongs to another peer.")
    };
    Ok(vec![
        Operation::query("peers/list", on(parts, list))?
            .describe("The peers with their keys and authorities, by name."),
        fails(Operation::mutation("peers/add", on(parts, add))?)
            .describe("Adds a peer. Nobody gives more than they may do themselves; holds at once."),
        fails(Operation::mutation("peers/update", on(parts, update))?).describe(
            "Changes a peer that may do no more than the caller: what it may do, its keys, its \
             authorities. First everything is added, then removed; holds at once.",
        ),
        fails(Operation::mutation("peers/remove", on(parts, remove))?).describe(
            "Removes a peer that may do no more than the caller, with its keys and tokens; its \
             sessions end at once.",
        ),
        Operation::query("peers/explain", on(parts, explain))?
            .describe("Whether a peer may do something, and by which rule.")
            .error(NOT_EXPLAINED, "There is no such peer, or the credential is another's."),
    ])
}

/// The peers.
#[derive(Debug, Serialize, JsonSchema)]
struct List {
    /// By name.
    peers: Vec<Peer>,
}

async fn list(parts: Arc<Parts>, _: Context, _: Nothing) -> Result<List, CallError> {
    let peers = parts.store.peers().await.map_err(CallError::internal)?;
    Ok(List { peers })
}

/// An authority whose certificates are good for a peer.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Trusted {
    /// The authority's OpenSSH public key.
    key: String,
    /// What a certificate must name: one of these.
    #[schemars(length(min = 1, max = 64))]
    principals: Vec<String>,
}

/// A peer to be.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Add {
    /// What to call it.
    name: String,
    /// What it may do: services or parts of them, such as ssh or git:read:notes.
    #[schemars(length(min = 1, max = 256))]
    scopes: Vec<String>,
    /// Its keys: OpenSSH public keys, `ed25519:` or `x509:` and 64 hexadecimal digits, or
    /// certificates in PEM.
    #[serde(default)]
    #[schemars(length(max = 64))]
    keys: Vec<String>,
    /// The authorities whose certificates are good for it.
    #[serde(default)]
    #[schemars(length(max = 64))]
    authorities: Vec<Trusted>,
}

/// What was changed.
#[derive(Debug, Serialize, JsonSchema)]
struct Changed {
    /// The peer.
    name: String,
    /// How many keys are new.
    new_keys: usize,
    /// How many principals of authorities are new.
    new_principals: usize,
}

async fn add(parts: Arc<Parts>, context: Context, add: Add) -> Result<Changed, CallError> {
    let name = parse_name(&add.name).map_err(CallError::invalid_input)?;
    if is_there(&parts, &name).await? {
        return Err(CallError::declared(TAKEN, format!("there is a peer {name}")));
    }
    let granted = parsed_scopes(&add.scopes)?;
    put(&parts, &context, &name, Some(&granted), &add.keys, &add.authorities).await
}

async fn is_there(parts: &Parts, name: &str) -> Result<bool, CallError> {
    let found = parts.store.peer(name).await.map_err(CallError::internal)?;
    Ok(found.is_some_and(|peer| peer.name == name))
}

async fn put(
    parts: &Parts,
    context: &Context,
    name: &str,
    granted: Option<&Scopes>,
    new_keys: &[String],
    trusted: &[Trusted],
) -> Result<Changed, CallError> {
    let keys: Vec<PeerKey> = new_keys.iter().map(|text| key(text)).collect::<Result<_, _>>()?;
    let authorities: Vec<Authority> = trusted.iter().map(authority).collect::<Result<_, _>>()?;
    holds_accounts(parts, context.auth(), name).await?;
    let limit = scopes(context.auth());
    for key in &keys {
        free(parts.identities.by_key(&key.fingerprint).await, &limit)?;
    }
    for authority in &authorities {
        for principal in &authority.principals {
            let one = std::slice::from_ref(principal);
            free(parts.identities.by_authority(&authority.key.fingerprint, one).await, &limit)?;
        }
    }
    let by = by(context.auth(), &limit);
    let change = PeerChange { by, keys: &keys, authorities: &authorities, scopes: granted };
    let added = peers::add(&parts.store, name, change, recorder(context)).await;
    let added = added.map_err(failed)?;
    Ok(Changed { name: name.into(), new_keys: added.keys, new_principals: added.principals })
}

/// Whoever is known by it already, in the store or elsewhere, may do no more than the caller:
/// the store is asked first, and so would take the key over.
fn free(holder: Result<Option<Identity>, ProviderError>, limit: &Scopes) -> Result<(), CallError> {
    match holder.map_err(CallError::internal)? {
        Some(holder) if !holder.scopes.within(limit) => {
            Err(CallError::declared(TAKEN, "the key or principal is somebody else's"))
        }
        _ => Ok(()),
    }
}

/// The text of a key. What is no key is never taken for the name of a file here.
fn key(text: &str) -> Result<PeerKey, CallError> {
    PeerKey::parse(text).map_err(|error| wrong_key(&error))
}

fn authority(trusted: &Trusted) -> Result<Authority, CallError> {
    let principal = |text: &String| parse_principal(text).map_err(CallError::invalid_input);
    let principals = trusted.principals.iter().map(principal).collect::<Result<_, _>>()?;
    let key = key(&trusted.key)?.into_authority().map_err(|error| wrong_key(&error))?;
    Ok(Authority { key, principals })
}

fn wrong_key(error: &InvalidKey) -> CallError {
    CallError::invalid_input(format!("a key: {error}"))
}

/// Of a key as it was added, or itself.
fn fingerprint(text: &str) -> Result<KeyFingerprint, CallError> {
    match text.parse() {
        Ok(fingerprint) => Ok(fingerprint),
        Err(_) => Ok(key(text)?.fingerprint),
    }
}

/// What to change of a peer.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Update {
    /// The peer's name.
    name: String,
    /// What it may do from now on; left out, that stays.
    #[schemars(length(min = 1, max = 256))]
    scopes: Option<Vec<String>>,
    /// Keys to add, as `peers/add` takes them.
    #[serde(default)]
    #[schemars(length(max = 64))]
    add_keys: Vec<String>,
    /// Authorities to add.
    #[serde(default)]
    #[schemars(length(max = 64))]
    add_authorities: Vec<Trusted>,
    /// Keys to remove: as they were added, or their fingerprints.
    #[serde(default)]
    #[schemars(length(max = 64))]
    remove_keys: Vec<String>,
    /// Authorities to remove, with all their principals: as they were added, or their
    /// fingerprints.
    #[serde(default)]
    #[schemars(length(max = 64))]
    remove_authorities: Vec<String>,
}

async fn update(parts: Arc<Parts>, context: Context, update: Update) -> Result<Changed, CallError> {
    let name = update.name.as_str();
    if !is_there(&parts, name).await? {
        return Err(failed(PeerError::Unknown(name.into()).into()));
    }
    let fingerprints = |texts: &[String]| -> Result<Vec<KeyFingerprint>, CallError> {
        texts.iter().map(|text| fingerprint(text)).collect()
    };
    let keys = fingerprints(&update.remove_keys)?;
    let authorities = fingerprints(&update.remove_authorities)?;
    let granted = update.scopes.as_deref().map(parsed_scopes).transpose()?;
    let (new_keys, trusted) = (&update.add_keys, &update.add_authorities);
    let changed = put(&parts, &context, name, granted.as_ref(), new_keys, trusted).await?;
    if !keys.is_empty() || !authorities.is_empty() {
        let what = Removal { keys: &keys, authorities: &authorities, principals: &[] };
        take(&parts, &context, name, what).await?;
    }
    Ok(changed)
}

/// Which peer.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Remove {
    /// Its name.
    name: String,
}

/// What was removed.
#[derive(Debug, Serialize, JsonSchema)]
struct Removed {
    /// The peer.
    name: String,
}

async fn remove(parts: Arc<Parts>, context: Context, remove: Remove) -> Result<Removed, CallError> {
    let what = Removal { keys: &[], authorities: &[], principals: &[] };
    take(&parts, &context, &remove.name, what).await?;
    Ok(Removed { name: remove.name })
}

async fn take(
    parts: &Parts,
    context: &Context,
    name: &str,
    what: Removal<'_>,
) -> Result<(), CallError> {
    let limit = scopes(context.auth());
    let by = by(context.auth(), &limit);
    let removed = peers::remove(&parts.store, by, name, what, recorder(context)).await;
    removed.map_err(failed)
}

fn failed(error: ChangeError<PeerError>) -> CallError {
    let error = match error {
        ChangeError::Refused(error) => error,
        ChangeError::Unrecorded(error) => return CallError::internal(error),
    };
    let message = error.to_string();
    match error {
        PeerError::Store(error) => CallError::internal(error),
        PeerError::KeyTaken { .. } | PeerError::PrincipalTaken { .. } => {
            CallError::declared(TAKEN, message)
        }
        PeerError::Unknown(_) | PeerError::UnknownKey(_) | PeerError::UnknownAuthority(_) => {
            CallError::declared(NO_SUCH_PEER, message)
        }
        PeerError::Beyond(_) | PeerError::GrantsMore | PeerError::Owner | PeerError::NoSession => {
            CallError::forbidden(message)
        }
        PeerError::NoScopes(_) | PeerError::TooManyKeys | PeerError::TooManyAuthorities => {
            CallError::invalid_input(message)
        }
    }
}

/// A question about what somebody may do.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// A peer, or somebody in the file of people: their name or id.
    name: String,
    /// What they want to do, such as ssh or git:write:notes.
    action: String,
    /// With this token or session, by its id: it may do less.
    token: Option<String>,
    /// With this key, by its fingerprint: it may do less.
    key: Option<String>,
}

async fn explain(parts: Arc<Parts>, _: Context, asked: Asked) -> Result<Report, CallError> {
    let action = parse_action(&asked.action).map_err(CallError::invalid_input)?;
    let credential = match (&asked.token, &asked.key) {
        (Some(_), Some(_)) => return Err(CallError::invalid_input("a token or a key, not both")),
        (Some(id), None) => Some(Credential::Token(id.clone())),
        (None, Some(key)) => Some(Credential::Key(fingerprint(key)?)),
        (None, None) => None,
    };
    let question = Question { name: &asked.name, action: &action, credential };
    let home = parts.home.clone();
    let config = super::blocking(move || Config::load(&home)).await?;
    let report = crate::roster::explain::explain(&question, &config, &parts.store).await;
    report.map_err(|failure: Failure| CallError::declared(NOT_EXPLAINED, failure.message()))
}
