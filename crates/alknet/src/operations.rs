//! What can be called on every node: how it is, who may use it, and commands to run.
//!
//! One file for each namespace. The types of inputs and outputs are the interface: their
//! documentation becomes the schemas that clients see.

mod audit;
mod config;
mod exec;
mod git;
mod json;
mod node;
mod peers;
mod sessions;
mod tokens;

use std::{net::SocketAddr, sync::Arc, time::Instant};

use alknet_call::{
    CallError, Context, InvalidOperation, Items, Operation, OperationRegistry, Peers,
};
use alknet_core::{
    AuditEvent, AuthContext, Dispatcher, Identity, IdentityProvider, NodeId, Scopes,
};
use alknet_git::{GitServer, Keeper};
use alknet_host::Accounts;
use tokio::task::JoinError;

use crate::{
    certificates::Certificates,
    commands::serve::Reloader,
    failure::Failure,
    home::Home,
    roster::Record,
    store::{By, Store},
    words::parse_scope,
};

/// What the operations of a node work on.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) home: Home,
    pub(crate) store: Store,
    pub(crate) identities: Arc<dyn IdentityProvider>,
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) dispatcher: Dispatcher,
    /// Whom operations can be called on.
    pub(crate) peers: Peers,
    /// Who may use which account of the machine.
    pub(crate) accounts: Accounts,
    /// The repositories.
    pub(crate) git: GitServer,
    /// What looks after them.
    pub(crate) keeper: Keeper,
    pub(crate) id: NodeId,
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pub(crate) started: Instant,
}

/// Makes the operations of a node callable.
pub(crate) fn mount(registry: &OperationRegistry, parts: Parts) -> Result<(), Failure> {
    let parts = Arc::new(parts);
    registry.mount("node", node::operations(&parts)?)?;
    registry.mount("audit", audit::operations(&parts)?)?;
    registry.mount("exec", exec::operations(&parts)?)?;
    registry.mount("git", git::operations(&parts)?)?;
    registry.mount("peers", peers::operations(&parts)?)?;
    registry.mount("tokens", tokens::operations(&parts)?)?;
    Ok(())
}

/// Makes the configuration of a node callable.
pub(crate) fn mount_config(
    registry: &OperationRegistry,
    reloader: &Arc<Reloader>,
) -> Result<(), Failure> {
    registry.mount("config", config::operations(reloader)?)?;
    Ok(())
}

type Made = Result<Vec<Operation>, InvalidOperation>;

/// A function of a part of the node as one of an operation.
fn on<P, I, R>(
    part: &Arc<P>,
    run: fn(Arc<P>, Context, I) -> R,
) -> impl Fn(Context, I) -> R + use<P, I, R> {
    let part = part.clone();
    move |context, input| run(part.clone(), context, input)
}

/// The same for a subscription.
fn on_items<P, I, O, R>(
    part: &Arc<P>,
    run: fn(Arc<P>, Context, I, Items<O>) -> R,
) -> impl Fn(Context, I, Items<O>) -> R + use<P, I, O, R> {
    let part = part.clone();
    move |context, input, items| run(part.clone(), context, input, items)
}

/// What the caller may do, as they are here: with a token, no more than it grants.
fn scopes(auth: &AuthContext) -> Scopes {
    auth.identity.as_ref().map(|identity| identity.scopes.clone()).unwrap_or_default()
}

/// Who calls, as one who makes a change.
fn by<'a>(auth: &'a AuthContext, scopes: &'a Scopes) -> By<'a> {
    let (id, name) = match &auth.identity {
        Some(identity) => (identity.id.as_str(), identity.name.as_str()),
        None => ("", ""),
    };
    By { id, name, limit: Some(scopes) }
}

/// Refuses a caller who would have a way to accounts of the machine that are not theirs: by a
/// peer of this name, as it is or as it would be.
async fn holds_accounts(parts: &Parts, auth: &AuthContext, name: &str) -> Result<(), CallError> {
    let Some(caller) = auth.identity.as_deref() else {
        return Err(CallError::forbidden("nobody gives what they do not have"));
    };
    if Scopes::all().within(&caller.scopes) {
        return Ok(());
    }
    let there = parts.store.peer(name).await.map_err(CallError::internal)?;
    let id = there.filter(|peer| peer.name == name).map(|peer| peer.id).unwrap_or_default();
    // What it may do gives it no account: only with everything, which the caller has not.
    let target = Identity::new(id, name, Scopes::default(), caller.credential.clone());
    let theirs = parts.accounts.names(caller);
    if parts.accounts.names(&target).iter().all(|account| theirs.contains(account)) {
        return Ok(());
    }
    let message = format!("{name} has accounts of the machine that are not yours");
    Err(CallError::forbidden(message))
}

/// Writes what was changed to the node's audit log, with the caller as who did it.
fn recorder(context: &Context) -> impl Record + use<> {
    let context = context.clone();
    move |events: Vec<AuditEvent>| {
        for event in events {
            context.registry().audit().record(attributed(event, context.auth()));
        }
        Ok(())
    }
}

fn attributed(event: AuditEvent, auth: &AuthContext) -> AuditEvent {
    let AuditEvent { alpn, transport, peer, identity, method, .. } =
        AuditEvent::about(event.event, auth);
    // A token's own peer would stand where the caller does.
    let whose = event.identity.as_ref().map(|whose| format!("of the peer {whose}"));
    let reason = event.reason.clone().or(whose);
    AuditEvent { alpn, transport, peer, identity, method, reason, ..event }
}

/// What several operations are told: scopes as people write them.
fn parsed_scopes(texts: &[String]) -> Result<Scopes, CallError> {
    let scope = |text: &String| {
        let invalid = |error| CallError::invalid_input(format!("{text:?}: {error}"));
        parse_scope(text).map_err(invalid)
    };
    texts.iter().map(scope).collect()
}

/// Disks may be slow, and other calls must not wait for them. What was begun goes on when
/// the future is dropped.
async fn blocking<T, E>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, CallError>
where
    T: Send + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    let done: Result<Result<T, E>, JoinError> = tokio::task::spawn_blocking(work).await;
    done.map_err(CallError::internal)?.map_err(CallError::internal)
}

#[cfg(test)]
mod tests;
