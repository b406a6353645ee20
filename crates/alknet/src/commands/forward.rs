//! `alknet forward`

mod spec;

use std::fmt::Display;

use alknet_forward::{
    Client, Place,
    local::{ListenError, LocalForward, RemoteForward, UdpForward},
};
use serde::Serialize;
use tokio::task::JoinSet;

use self::spec::{Spec, UdpSpec};
use super::{
    dial::{Reach, told_to_end},
    plain,
};
use crate::{failure::Failure, forward, home::Home, output};

/// Carry connections between this machine and a node's network
///
/// -L listens here and connects from the node, -R has the node listen and connects from
/// here, -U takes datagrams here and sends them from the node. They are written as for ssh:
/// [BIND:]PORT:HOST:HOSTPORT, or the path of a Unix socket on either side. Without BIND it
/// is localhost. The node's alknet.toml says what is allowed. When the connection to the node
/// is lost it is made again.
///
/// Examples:
///   alknet forward example.org -L 5432:db.internal:5432
///   alknet forward example.org -R 8080:localhost:3000 -U 5353:dns.internal:53
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// HOST[:PORT], a saved name, a node id, or a link to the node
    node: String,
    /// Listen here, connect from the node
    #[arg(short = 'L', value_name = "[BIND:]PORT:HOST:HOSTPORT")]
    local: Vec<Spec>,
    /// Listen on the node, connect from here
    #[arg(short = 'R', value_name = "[BIND:]PORT:HOST:HOSTPORT")]
    remote: Vec<Spec>,
    /// Take datagrams here, send them from the node
    #[arg(short = 'U', value_name = "[BIND:]PORT:HOST:HOSTPORT")]
    udp: Vec<UdpSpec>,
    /// Print where it listens as one line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

/// What listens where, in the order of the command line.
#[derive(Default, Serialize)]
struct Ready {
    local: Vec<Carried>,
    remote: Vec<Carried>,
    udp: Vec<Carried>,
}

#[derive(Serialize)]
struct Carried {
    listen: String,
    connect: String,
}

impl Carried {
    /// Where the node listens is in its own words: nothing in them moves the cursor.
    fn new(listen: impl Display, connect: impl Display) -> Self {
        Self { listen: plain(&listen.to_string()), connect: connect.to_string() }
    }
}

type Tasks = JoinSet<Result<(), Failure>>;

pub(crate) async fn run(args: Args, home: &Home) -> Result<(), Failure> {
    if args.local.is_empty() && args.remote.is_empty() && args.udp.is_empty() {
        return Err(Failure::usage("nothing to forward: give -L, -R or -U"));
    }
    // Before anything can be seen to listen: a signal that comes early must not be lost.
    let told_to_end = told_to_end()?;
    let client = forward::client(home, &args.node, &args.reach).await?;
    let mut tasks = JoinSet::new();
    let ready = start(&args, &client, &mut tasks).await?;
    print(&ready, args.json)?;
    let outcome = tokio::select! {
        Some(ended) = tasks.join_next() => ended.map_err(Failure::from).flatten(),
        failure = forward::keep(&client, &args.node) => Err(failure),
        () = told_to_end => Ok(()),
    };
    tasks.shutdown().await;
    client.close().await;
    outcome
}

async fn start(args: &Args, client: &Client, tasks: &mut Tasks) -> Result<Ready, Failure> {
    let mut ready = Ready::default();
    for Spec { listen, connect } in &args.local {
        let bound = LocalForward::bind(listen.clone(), connect.clone(), client.clone()).await;
        let forward = bound.map_err(|error| about("listening on", listen, error))?;
        ready.local.push(Carried::new(forward.bound()?, connect));
        tasks.spawn(async { Ok(forward.serve().await?) });
    }
    for Spec { listen, connect } in &args.remote {
        let bound = RemoteForward::listen(listen.clone(), connect.clone(), client.clone()).await;
        let what = format!("listening on {listen} of the node");
        let forward = bound.map_err(|error| forward::failed(error).context(&*what))?;
        ready.remote.push(Carried::new(forward.bound(), connect));
        tasks.spawn(async move {
            let ListenError(error) = forward.serve().await;
            Err(forward::failed(error).context(what))
        });
    }
    for UdpSpec { host, port, target } in &args.udp {
        let bound = UdpForward::bind((host, *port), target.clone(), client.clone()).await;
        let place = Place::tcp(host.clone(), *port);
        let forward = bound.map_err(|error| about("listening on", &place, error))?;
        ready.udp.push(Carried::new(forward.bound()?, target));
        tasks.spawn(async { Ok(forward.serve().await?) });
    }
    Ok(ready)
}

fn about(what: &str, place: &Place, error: impl Into<Failure>) -> Failure {
    error.into().context(format!("{what} {place}"))
}

fn print(ready: &Ready, json: bool) -> Result<(), Failure> {
    if json {
        return Ok(output::line(serde_json::to_string(ready)?)?);
    }
    for (kind, carried) in
        [("here", &ready.local), ("at the node", &ready.remote), ("here, UDP", &ready.udp)]
    {
        for Carried { listen, connect } in carried {
            output::line(format!("{listen} ({kind}) -> {connect}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_says_of_itself_moves_no_cursor() {
        let carried = Carried::new("\u{1b}[2J\u{9b}1A\r[::1]:80", "localhost:1");
        assert!(!carried.listen.contains(char::is_control), "{:?}", carried.listen);
        assert_eq!(Carried::new("[::1]:80", "").listen, "[::1]:80");
    }
}
