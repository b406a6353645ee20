//! `tokens/…`: bearer tokens and the sessions of browsers.
//!
//! A token never may do more than who made it, and acts for a peer that may do no more
//! either, or for its maker's own. A secret is in the answer that makes it, and nowhere
//! else.

use std::{sync::Arc, time::Duration};

use alknet_call::{CallError, Context, Operation};
use alknet_core::Scopes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Made, Parts, by, holds_accounts, on, parsed_scopes, recorder, scopes};
use crate::{
    links::Hosts,
    roster::{ChangeError, tokens},
    store::{NewToken, Token, TokenError},
    words::parse_name,
};

/// There is no such token.
const NO_SUCH_TOKEN: &str = "NO_SUCH_TOKEN";
/// There is no such peer.
const NO_SUCH_PEER: &str = "NO_SUCH_PEER";

/// The operations on tokens.
pub(super) fn operations(parts: &Arc<Parts>) -> Made {
    Ok(vec![
        Operation::query("tokens/list", on(parts, list))?
            .describe("The tokens and the sessions of browsers, without their secrets."),
        Operation::mutation("tokens/create", on(parts, create))?
            .describe(
                "Makes a bearer token, which the answer shows this once. It never may do more \
                 than the caller; without a time it is good until it is revoked.",
            )
            .error(NO_SUCH_PEER, "There is no such peer."),
        Operation::mutation("tokens/revoke", on(parts, revoke))?
            .describe("Ends a token or a session that may do no more than the caller, at once.")
            .error(NO_SUCH_TOKEN, "There is no such token or session."),
        Operation::mutation("tokens/link", on(parts, link))?.describe(
            "Makes a link that signs a browser in as the owner: once, within 15 minutes. For \
             callers who may do everything.",
        ),
    ])
}

/// Which tokens.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Which {
    /// Whether to list those as well that have expired or were revoked, as far as they are
    /// remembered.
    #[serde(default)]
    all: bool,
}

/// Tokens.
#[derive(Debug, Serialize, JsonSchema)]
struct List {
    /// The oldest first, those that are over behind the others.
    tokens: Vec<Token>,
}

async fn list(parts: Arc<Parts>, _: Context, which: Which) -> Result<List, CallError> {
    let mut tokens = parts.store.tokens().await.map_err(CallError::internal)?;
    if which.all {
        tokens.extend(parts.store.ended_tokens().await.map_err(CallError::internal)?);
    }
    Ok(List { tokens })
}

/// A token to be.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Create {
    /// What to call it.
    #[serde(default = "unnamed")]
    name: String,
    /// What it may do; left out, what its peer may, as far as the caller may that.
    #[schemars(length(min = 1, max = 256))]
    scopes: Option<Vec<String>>,
    /// How long it is good for, in seconds; left out, until it is revoked.
    #[schemars(range(min = 1))]
    lifetime_s: Option<u64>,
    /// The name of the peer that it stands for; left out, the caller's own.
    peer: Option<String>,
}

fn unnamed() -> String {
    "token".into()
}

/// A token that was made.
#[derive(Serialize, JsonSchema)]
struct Created {
    /// The token itself, this once: whoever has it may use it.
    token: String,
    /// What is known of it.
    #[serde(flatten)]
    about: Token,
}

async fn create(parts: Arc<Parts>, context: Context, create: Create) -> Result<Created, CallError> {
    let limit = scopes(context.auth());
    let by = by(context.auth(), &limit);
    let name = parse_name(&create.name).map_err(CallError::invalid_input)?;
    let peer = create.peer.as_deref().unwrap_or(by.name);
    holds_accounts(&parts, context.auth(), peer).await?;
    let granted = create.scopes.as_deref().map(parsed_scopes).transpose()?;
    let new = NewToken {
        by,
        name: &name,
        peer,
        scopes: granted.as_ref(),
        lifetime: create.lifetime_s.map(Duration::from_secs),
    };
    let created = tokens::create(&parts.store, new, recorder(&context)).await;
    let (secret, about) = created.map_err(failed)?;
    Ok(Created { token: secret.expose().into(), about })
}

/// Which token.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Revoke {
    /// Its id, from `tokens/list`.
    id: String,
}

/// What was ended.
#[derive(Debug, Serialize, JsonSchema)]
struct Revoked {
    /// The id of the token or session.
    id: String,
}

async fn revoke(parts: Arc<Parts>, context: Context, revoke: Revoke) -> Result<Revoked, CallError> {
    let limit = scopes(context.auth());
    let by = by(context.auth(), &limit);
    tokens::revoke(&parts.store, by, &revoke.id, recorder(&context)).await.map_err(failed)?;
    Ok(Revoked { id: revoke.id })
}

fn failed(error: ChangeError<TokenError>) -> CallError {
    let error = match error {
        ChangeError::Refused(error) => error,
        ChangeError::Unrecorded(error) => return CallError::internal(error),
    };
    let message = error.to_string();
    match error {
        TokenError::Store(error) => CallError::internal(error),
        TokenError::UnknownPeer(_) => CallError::declared(NO_SUCH_PEER, message),
        TokenError::Unknown(_) => CallError::declared(NO_SUCH_TOKEN, message),
        TokenError::Exceeds { .. } | TokenError::Beyond(_) | TokenError::GrantsMore => {
            CallError::forbidden(message)
        }
    }
}

/// How to make a link.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NoChoice {}

/// A sign-in link.
#[derive(Serialize, JsonSchema)]
struct Links {
    /// The same secret for each name or address of the node.
    links: Vec<String>,
}

async fn link(parts: Arc<Parts>, context: Context, _: NoChoice) -> Result<Links, CallError> {
    if !Scopes::all().within(&scopes(context.auth())) {
        return Err(CallError::forbidden("a link signs in as the owner, who may do more"));
    }
    let hosts = Hosts::of_running(&parts.home, parts.address).map_err(CallError::internal)?;
    let links = hosts.sign_in_links(&parts.store, parts.id).await;
    Ok(Links { links: links.map_err(CallError::internal)? })
}
