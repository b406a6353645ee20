//! `alknet sessions`

use std::{io, time::Duration};

use alknet_core::{Alpn, Closed, Code, Connection, ConnectionError};
use alknet_shell::{
    Id, Name,
    client::{self, RequestError},
    wire::{Listed, Which},
};
use tokio::time::timeout;

use super::{
    attach::{self, Attachment},
    dial::Reach,
};
use crate::{connect, failure::Failure, home::Home, output};

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(30);

/// Shells on a node that go on without a connection
///
/// Examples:
///   alknet sessions list example.org
///   alknet sessions attach example.org build
///   alknet sessions end example.org build
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    List(List),
    Attach(Attach),
    End(End),
}

/// List the sessions of this machine's identity on a node
///
/// Example:
///   alknet sessions list example.org --json
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
struct List {
    /// HOST[:PORT], a saved name, a node id, or a link to the node
    node: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

/// Look at a session, and start it if there is none
///
/// A connection that is lost is made again, and the session goes on where it was. The keys
/// ~. after the beginning of a line leave; the session runs on.
///
/// Examples:
///   alknet sessions attach example.org
///   alknet sessions attach example.org build -- make -j4
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
struct Attach {
    /// [USER@]NODE, where NODE is HOST[:PORT], a saved name, a node id, or a link
    node: String,
    /// The session; without it the one that was attached last
    name: Option<Name>,
    /// What a new session runs instead of the login shell
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
    /// Fail if there is no such session
    #[arg(long)]
    existing: bool,
    #[command(flatten)]
    looks: Looks,
    #[command(flatten)]
    reach: Reach,
}

/// How a session is looked at.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Looks {
    /// Only look on: nothing that is typed gets there
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Give a node up that is out of reach for so long: 30s, 5m [default: never]
    #[arg(long, value_name = "TIME", value_parser = attach::parse_patience)]
    pub(crate) timeout: Option<Duration>,
}

/// End a session
///
/// Its program is told to hang up, and killed if it does not.
///
/// Example:
///   alknet sessions end example.org build
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
struct End {
    /// HOST[:PORT], a saved name, a node id, or a link to the node
    node: String,
    /// Its name, or its id as `list --json` prints it
    name: String,
    #[command(flatten)]
    reach: Reach,
}

pub(crate) async fn run(args: Args, home: &Home) -> Result<(), Failure> {
    match args.verb {
        Verb::List(args) => list(args, home).await,
        Verb::Attach(args) => {
            // As ssh joins its arguments: the shell there splits them.
            let command = (!args.command.is_empty()).then(|| args.command.join(" "));
            let what = Attachment {
                node: args.node,
                name: args.name,
                create: !args.existing,
                command,
                read_only: args.looks.read_only,
                patience: args.looks.timeout,
                reach: args.reach,
            };
            attach::attach(home, what).await
        }
        Verb::End(args) => end(args, home).await,
    }
}

async fn list(args: List, home: &Home) -> Result<(), Failure> {
    let ask = async |connection: Connection| client::list(&connection).await;
    let sessions = request(home, &args.node, &args.reach, ask).await?;
    if args.json {
        return Ok(output::json(&sessions)?);
    }
    Ok(table(&sessions)?)
}

async fn end(args: End, home: &Home) -> Result<(), Failure> {
    let which = match (args.name.parse::<Id>(), args.name.parse::<Name>()) {
        (Ok(session), _) => Which { session: Some(session), name: None },
        (_, Ok(name)) => Which { session: None, name: Some(name) },
        (_, Err(error)) => return Err(Failure::usage(error.to_string())),
    };
    let ask = async |connection: Connection| client::end(&connection, which).await;
    let name = request(home, &args.node, &args.reach, ask).await?;
    Ok(output::note(format!("ended {name}"))?)
}

/// Connects, asks and ends the connection.
async fn request<T>(
    home: &Home,
    node: &str,
    reach: &Reach,
    ask: impl AsyncFnOnce(Connection) -> Result<T, RequestError>,
) -> Result<T, Failure> {
    let alpn = Alpn::service(attach::SERVICE)?;
    let connected = connect::reach(home, node, reach.pin, alpn, reach.via).await?;
    let answer = timeout(ANSWER, ask(connected.connection.clone())).await;
    connected.end(Code::NORMAL).await;
    match answer {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(RequestError::Connection(ConnectionError::Closed(Closed { code, .. })))) => {
            Err(attach::closed_for_good(code))
        }
        Ok(Err(RequestError::NoAnswer)) => Err(attach::closed_for_good(Code::REFUSED)),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Failure::new("the node does not answer")),
    }
}

fn table(sessions: &[Listed]) -> io::Result<()> {
    let rows: Vec<[String; 5]> = sessions
        .iter()
        .map(|session| {
            let here = session.viewers.iter().filter(|viewer| !viewer.away).count();
            [
                session.name.to_string(),
                here.to_string(),
                format!("{}x{}", session.columns, session.rows),
                output::minute(session.created),
                super::plain(session.command.as_deref().unwrap_or("(login shell)")),
            ]
        })
        .collect();
    output::table(["NAME", "VIEWERS", "SIZE", "CREATED", "COMMAND"], &rows)
}
