//! `node/sessions` and what is done with a session.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use alknet_call::{
    CallError, CallOptions, Context, ErrorCode, InvalidOperation, Kind, Nothing, Operation, Peer,
};
use alknet_core::{AuditEvent, Scopes, Session};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Parts, json::Raw, on, scopes};
use crate::store;

/// How long a session's peer may take, unless the caller waits less: somebody may have to
/// be asked there.
const PATIENCE: Duration = Duration::from_secs(600);

/// There is no such session.
const NO_SUCH_SESSION: &str = "NO_SUCH_SESSION";
/// The session's peer does not serve the operation.
const NOT_SERVED: &str = "NOT_SERVED";
/// The session's peer answered with an error.
const PEER_FAILED: &str = "PEER_FAILED";

/// The operations on sessions.
pub(super) fn operations(parts: &Arc<Parts>) -> Result<[Operation; 3], InvalidOperation> {
    let unknown = |operation: Operation| {
        operation.error(NO_SUCH_SESSION, "No session with this number is live.")
    };
    Ok([
        Operation::query("node/sessions", on(parts, list))?
            .describe("The live sessions, the oldest first, and what their peers serve."),
        unknown(Operation::mutation("node/end-session", on(parts, end))?)
            .describe("Ends a live session. Not one of somebody who may do more than the caller."),
        unknown(Operation::mutation("node/call-session", on(parts, call))?)
            .describe(
                "Calls a query or a mutation that the peer of a live session serves. Not of \
                 somebody who may do more than the caller.",
            )
            .error(NOT_SERVED, "The session's peer serves no such query or mutation.")
            .error(PEER_FAILED, "The session's peer answered with the error in the details.")
            .deadline(Some(PATIENCE)),
    ])
}

/// The live sessions.
#[derive(Debug, Serialize, JsonSchema)]
struct List {
    /// The oldest first.
    sessions: Vec<Listed>,
}

/// A live session.
#[derive(Debug, Serialize, JsonSchema)]
struct Listed {
    /// Its number, unique while the node runs.
    session: u64,
    /// The protocol.
    alpn: String,
    /// What carries it.
    transport: &'static str,
    /// The address of the other end at the start.
    #[schemars(with = "Option<String>")]
    remote: Option<SocketAddr>,
    /// Who it is, if they are known.
    identity: Option<Who>,
    /// How they proved it.
    method: &'static str,
    /// When it began, in seconds since 1970.
    since: i64,
    /// Whether the call came by it.
    own: bool,
    /// What the other end serves, for `node/call-session`.
    operations: Vec<Served>,
}

/// Somebody the node knows.
#[derive(Debug, Serialize, JsonSchema)]
struct Who {
    /// Stays when names and keys change.
    id: String,
    /// What the owner calls them.
    name: String,
}

/// An operation that the other end of a session serves, in its own words.
#[derive(Debug, Serialize, JsonSchema)]
struct Served {
    /// What it is called.
    name: String,
    /// What kind of operation it is.
    #[serde(rename = "type")]
    kind: Kind,
    /// What it does.
    description: String,
}

async fn list(parts: Arc<Parts>, context: Context, _: Nothing) -> Result<List, CallError> {
    let own = context.auth().session.id();
    let sessions = parts.dispatcher.sessions();
    let listed = |session: Session| {
        let served = parts.peers.of(session.id).map(|peer| served(&peer)).unwrap_or_default();
        Listed { own: own == Some(session.id), operations: served, ..Listed::of(&session) }
    };
    Ok(List { sessions: sessions.into_iter().map(listed).collect() })
}

impl Listed {
    fn of(session: &Session) -> Self {
        let auth = &session.auth;
        let who = |id: &str, name: &str| Who { id: id.into(), name: name.into() };
        Self {
            session: session.id,
            alpn: auth.alpn.to_string(),
            transport: auth.transport.name(),
            remote: auth.remote_addr,
            identity: auth.identity.as_ref().map(|identity| who(&identity.id, &identity.name)),
            method: auth.method.name(),
            since: store::now().saturating_sub_unsigned(session.since.elapsed().as_secs()),
            own: false,
            operations: Vec::new(),
        }
    }
}

fn served(peer: &Peer) -> Vec<Served> {
    let all = peer.operations();
    let of = |operation: &Arc<Operation>| {
        let spec = operation.spec();
        let (name, description) = (spec.name.to_string(), spec.description.clone());
        Served { name, kind: spec.kind, description }
    };
    all.iter().map(of).collect()
}

/// Which session.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Which {
    /// Its number, from `node/sessions`.
    session: u64,
}

/// What was ended.
#[derive(Debug, Serialize, JsonSchema)]
struct Ended {
    /// The number of the session.
    session: u64,
}

async fn end(parts: Arc<Parts>, context: Context, which: Which) -> Result<Ended, CallError> {
    let session = touched(&parts, &context, which.session)?;
    if !parts.dispatcher.end_session(session.id) {
        return Err(gone(session.id));
    }
    record(&context, "session-ended", &session);
    Ok(Ended { session: session.id })
}

/// A call to the peer of a session.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Call {
    /// The number of the session, from `node/sessions`.
    session: u64,
    /// The name of a query or a mutation that its peer serves.
    operation: String,
    /// The input of that operation.
    #[serde(default)]
    input: Value,
}

async fn call(parts: Arc<Parts>, context: Context, call: Call) -> Result<Raw, CallError> {
    let session = touched(&parts, &context, call.session)?;
    let peer = parts.peers.of(session.id);
    let peer = peer.ok_or_else(|| CallError::declared(NOT_SERVED, "the session serves nothing"))?;
    let is_it = |operation: &Arc<Operation>| {
        operation.spec().name.as_str() == call.operation
            && operation.spec().kind != Kind::Subscription
    };
    if !peer.operations().iter().any(is_it) {
        let message = format!("session {} serves no {}", session.id, call.operation);
        return Err(CallError::declared(NOT_SERVED, message));
    }
    record(&context, "session-called", &session);
    let options = CallOptions::default().timeout(context.remaining().unwrap_or(PATIENCE));
    let output = peer.call_raw(&call.operation, &call.input, options).await;
    output.map(Raw).map_err(failed)
}

/// What the peer answered, told apart from failures of the node itself.
fn failed(error: CallError) -> CallError {
    if matches!(error.code, ErrorCode::Timeout | ErrorCode::Unavailable) {
        return error;
    }
    let details = json!({
        "code": error.code.as_str(), "message": error.message, "details": error.details,
    });
    let message = format!("the session's peer answered: {error}");
    let mut failed = CallError::declared(PEER_FAILED, message).with_details(details);
    failed.retryable = error.retryable;
    failed
}

/// A live session that the caller may do something to: nobody reaches through the node
/// what belongs to somebody who may do more.
fn touched(parts: &Parts, context: &Context, id: u64) -> Result<Session, CallError> {
    let mut sessions = parts.dispatcher.sessions().into_iter();
    let session = sessions.find(|session| session.id == id).ok_or_else(|| gone(id))?;
    // Who has logged in inside a session without an identity of its own is not known here.
    let needed = match &session.auth.identity {
        Some(identity) => identity.scopes.clone(),
        None => Scopes::all(),
    };
    if needed.within(&scopes(context.auth())) {
        Ok(session)
    } else {
        Err(CallError::forbidden(format!("session {id} is of somebody who may do more")))
    }
}

fn gone(id: u64) -> CallError {
    CallError::declared(NO_SUCH_SESSION, format!("there is no session {id}"))
}

/// Says in the audit log what was done to whose session.
fn record(context: &Context, event: &'static str, session: &Session) {
    let identity = session.auth.identity.as_ref();
    context.registry().audit().record(AuditEvent {
        subject: Some(format!("session {}", session.id)),
        name: identity.map(|identity| identity.name.clone()),
        ..AuditEvent::about(event, context.auth())
    });
}
