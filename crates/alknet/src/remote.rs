//! Calling operations of another node, for the commands.

use std::time::Duration;

use alknet_call::{CallError, CallLimits, ErrorCode, OperationRegistry, Peer};
use alknet_core::{Alpn, Audit, AuthContext, Closed, Code, Connection};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{
    commands::dial::{Reach, told_to_end},
    connect,
    failure::Failure,
    home::Home,
};

/// The service that is called.
const SERVICE: &str = "call";
/// How long the end of a connection may come behind that of its streams.
const SETTLING: Duration = Duration::from_millis(500);

/// Connects to what the user calls a node, calls it, and ends the connection. A signal that
/// asks the process to end aborts what is called, and the node hears of it.
pub(crate) async fn call<T>(
    home: &Home,
    node: &str,
    reach: &Reach,
    work: impl AsyncFnOnce(Peer) -> Result<T, Failure>,
) -> Result<T, Failure> {
    // Before anything is called: a signal that comes early must not be lost.
    let interrupted = told_to_end()?;
    let alpn = Alpn::service(SERVICE)?;
    let connected = connect::reach(home, node, reach.pin, alpn.clone(), reach.via).await?;
    let connection = connected.connection.clone();
    let auth = AuthContext::anonymous(alpn, connection.kind(), connection.remote_addr());
    // Nothing is served to the node.
    let registry = OperationRegistry::new(Audit::to_log(), [])?;
    let (limits, draining) = (CallLimits::default(), CancellationToken::new());
    let (peer, driver) = Peer::new(connection.clone(), registry, auth, limits, draining);
    let outcome = tokio::select! {
        biased;
        outcome = work(peer) => outcome,
        () = driver.run() => Err(CallError::unavailable("the connection is over").into()),
        () = interrupted => Err(Failure::new("the call was aborted")),
    };
    let ended = match &outcome {
        Err(failure) if is_lost(failure) => ended(&connection).await,
        _ => None,
    };
    connected.end(if outcome.is_ok() { Code::NORMAL } else { Code::CANCELLED }).await;
    // How the connection ended says more than that it did.
    match ended {
        Some(closed) => Err(explained(&closed)),
        None => outcome,
    }
}

/// How the connection ended, if it has: its streams may have said so first.
async fn ended(connection: &Connection) -> Option<Closed> {
    timeout(SETTLING, connection.closed()).await.ok()
}

fn is_lost(failure: &Failure) -> bool {
    failure.cause::<CallError>().is_some_and(|error| error.code == ErrorCode::Unavailable)
}

/// What the end of the connection means for a call.
fn explained(closed: &Closed) -> Failure {
    let refused = "the node has to know this machine and let it call: add what `alknet id` prints \
                   here to a peer there, with a scope such as call:node/*";
    match closed.code {
        Code::REFUSED => Failure::new("the node refused the connection").hint(refused),
        Code::REVOKED => Failure::new("the node has revoked the access"),
        Code::SHUTTING_DOWN => Failure::new("the node is shutting down"),
        Code::NORMAL => Failure::new("the node has ended the connection")
            .hint(refused)
            .hint("--via quic tells more"),
        _ => Failure::new(format!("the connection is {closed}")),
    }
}
