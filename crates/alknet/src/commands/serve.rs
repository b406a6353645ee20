//! `alknet serve`

mod banner;
mod flags;
mod reload;

use std::sync::Arc;

use alknet_core::BoxFuture;
use alknet_git::Events;
use alknet_host::descriptors;
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::flags::Flags;
pub(crate) use self::reload::Reloader;
use crate::{
    Services,
    config::Config,
    control::{self, Pong, Request},
    failure::Failure,
    home::Home,
    links::Hosts,
    node::Node,
    operations, output,
};

/// A node that may open fewer descriptors than this says so.
const FEW: u64 = 4096;

/// Run a node
///
/// With nothing configured it makes an identity and a certificate and prints how to reach
/// it: a sign-in link for the browser, which works once, and a line for ssh. Nobody else has
/// access until a peer is added.
///
/// Examples:
///   alknet serve
///   alknet serve --listen '[::]:443' --host example.org --cover
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    #[command(flatten)]
    flags: Flags,
    /// Print how to reach the node as one line of JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args, home: &Home, more: Services) -> Result<(), Failure> {
    let Args { flags, json } = args;
    // Before the node stands: a signal that comes early must not be lost.
    let mut signals = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
    let mut hangup = signal(SignalKind::hangup())?;
    raise_descriptors();
    let config = Config::load_checked(home).await?;
    let settings = flags.settings(config.clone());
    let cover = settings.config.cover;
    let node = Node::start(home, settings, more).await?;
    let hosts = Hosts::new(&flags.hosts, node.address());
    hosts.publish(home)?;
    let control = control::Listener::bind(home, node.lock())?;
    let reloader = Arc::new(Reloader::new(home, flags, node.live().clone(), config));
    operations::mount_config(node.operations(), &reloader)?;
    banner::print(&node, &hosts, cover, json).await?;
    let [terminate, interrupt] = &mut signals;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = follow(&mut hangup, &reloader) => {}
        () = control.serve(requests(&reloader, node.git().events())) => {}
    }
    drop(control);
    tracing::info!("shutting down");
    // A second signal means now.
    let stop = node.stop(reloader.drain().await);
    tokio::pin!(stop);
    let closed = tokio::select! {
        closed = &mut stop => closed?,
        _ = interrupt.recv() => return Err(Failure::new("ended before the sessions were")),
    };
    if closed > 0 {
        let were = if closed == 1 { "connection was" } else { "connections were" };
        output::note(format!("{closed} {were} closed at the deadline"))?;
    }
    Ok(())
}

/// Makes room for connections and files: what the system gives by itself is for programs with
/// few of them.
fn raise_descriptors() {
    match descriptors::raise() {
        Ok(limit) if limit >= FEW => tracing::debug!(limit, "descriptors"),
        Ok(limit) => tracing::warn!(limit, "the node may open few descriptors: raise ulimit -Hn"),
        Err(error) => tracing::warn!(%error, "the limit of descriptors cannot be raised"),
    }
}

/// Reloads at each SIGHUP, until one says that the terminal is gone in which the node was
/// started.
async fn follow(hangup: &mut Signal, reloader: &Reloader) {
    let in_terminal = has_terminal();
    while hangup.recv().await.is_some() {
        if in_terminal && !has_terminal() {
            return;
        }
        reloader.reload_and_log().await;
    }
}

/// Whether the process has a terminal that controls it (tty(4)).
fn has_terminal() -> bool {
    std::fs::File::open("/dev/tty").is_ok()
}

/// What the node answers the commands beside it.
fn requests(
    reloader: &Arc<Reloader>,
    events: &Events,
) -> impl Fn(Request) -> BoxFuture<'static, control::Outcome> + Clone + Send + 'static {
    let (reloader, events) = (reloader.clone(), events.clone());
    move |request| {
        let (reloader, events) = (reloader.clone(), events.clone());
        Box::pin(async move {
            match request {
                Request::Ping {} => answer(&Pong::of_this_process()),
                Request::Reload {} => answer(&reloader.reload().await?),
                Request::Tell { event } => {
                    events.send(event);
                    answer(&())
                }
            }
        })
    }
}

fn answer(value: &impl Serialize) -> control::Outcome {
    Ok(serde_json::to_value(value)?)
}
