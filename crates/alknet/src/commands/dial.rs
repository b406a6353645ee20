//! `alknet dial`

use std::io;

use alknet_core::{Alpn, Code, Connection, NodeId, StreamReset};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};

use crate::{
    connect::{self, Via},
    failure::Failure,
    home::Home,
    stdio,
};

/// Join stdin and stdout to one stream of a service
///
/// Made for clients that run a program instead of connecting by themselves. The node's
/// identity is pinned the first time, and a changed one ends with an error.
///
/// Examples:
///   ssh -o ProxyCommand='alknet dial %h ssh' user@example.org
///   alknet dial example.org:4433 echo < request
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// HOST[:PORT], a saved name, a node id, or a link to the node
    node: String,
    /// The service, short (ssh) or in full (alknet/ssh)
    alpn: String,
    #[command(flatten)]
    reach: Reach,
}

/// How to reach the node.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Reach {
    /// What carries the connection
    #[arg(long, value_enum, default_value_t = Via::Auto)]
    pub(crate) via: Via,
    /// The identity the node must have; nothing is trusted on first use then
    #[arg(long, value_name = "ID")]
    pub(crate) pin: Option<NodeId>,
}

pub(crate) async fn run(args: Args, home: &Home) -> Result<(), Failure> {
    let alpn = Alpn::service(&args.alpn).map_err(|error| Failure::usage(error.to_string()))?;
    let connected = connect::reach(home, &args.node, args.reach.pin, alpn, args.reach.via).await?;
    let outcome = tokio::select! {
        outcome = carry(&connected.connection) => Some(outcome),
        // ssh ends its ProxyCommand so, also after a session that went well.
        () = told_to_end()? => None,
    };
    match outcome {
        Some(Ok(())) => connected.end(Code::NORMAL).await,
        Some(Err(_)) => connected.abandon(Code::CANCELLED).await,
        None => connected.abandon(Code::NORMAL).await,
    }
    outcome.unwrap_or(Ok(()))
}

/// Joins this process to one stream.
async fn carry(connection: &Connection) -> Result<(), Failure> {
    let stream = connection.open_bi().await?;
    // Beside whatever waits for the network: on the thread of `main` each packet would be told
    // of from one thread to the other.
    let mut joined = JoinSet::new();
    joined.spawn(stdio::join(stream, stdio::input(), stdio::output()));
    match joined.join_next().await {
        Some(outcome) => outcome?.map_err(explained),
        None => Ok(()),
    }
}

/// TLS ends a connection without a reason, and libraries have words of their own for that.
pub(crate) fn explained(error: io::Error) -> Failure {
    use io::ErrorKind as K;
    let cut_off = matches!(error.kind(), K::UnexpectedEof | K::ConnectionReset);
    if cut_off && StreamReset::code_of(&error).is_none() {
        return Failure::new("the node has ended the connection")
            .hint("the key may be refused or revoked, or a limit reached: --via quic tells which");
    }
    error.into()
}

/// Waits for a signal that asks the process to end.
pub(crate) fn told_to_end() -> io::Result<impl Future<Output = ()>> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = hangup.recv() => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
