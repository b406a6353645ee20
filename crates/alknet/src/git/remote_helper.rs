//! `git-remote-alknet`: git's way to the repositories of a node, by `alknet://NODE/REPOSITORY`
//! (gitremote-helpers(7)). It is this program under another name, and joins git to a stream
//! of `alknet/git`, on which both then speak git's own protocol.

mod address;
mod dialogue;
mod settings;

use std::{env, io, path::Path, process::ExitCode, time::Duration};

use alknet_core::{Alpn, Code, Connection};
use alknet_git::Request;
use tokio::{io::AsyncWriteExt as _, time::timeout};

use crate::{
    commands::dial::{explained, told_to_end},
    connect::{self, Connected},
    failure::Failure,
    home::{self, Home},
    stdio,
};
use address::Address;
use dialogue::Wanted;
use settings::{Ask, Settings};

/// What git calls the program.
pub(crate) const NAME: &str = "git-remote-alknet";
/// How long the word of the end may take to leave this machine once all has been said. Nobody
/// waits for an answer: git waits for this process.
const PARTING: Duration = Duration::from_millis(10);

/// Does what git asks for, if this process was started under the helper's name.
pub(crate) fn run_as_named() -> Option<ExitCode> {
    let name = env::args_os().next()?;
    if Path::new(&name).file_name()? != NAME {
        return None;
    }
    crate::log_to_stderr("warn");
    Some(match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    })
}

fn run() -> Result<(), Failure> {
    // The second argument is the URL; the first is what the remote is called.
    let url = env::args_os().nth(2).ok_or_else(|| {
        Failure::usage("git runs this program by itself").hint("git clone alknet://NODE/REPOSITORY")
    })?;
    let url = url.to_str().ok_or_else(|| Failure::usage("the URL is no text"))?;
    let address: Address = url.parse()?;
    // They are read while git says what it wants.
    let settings = Ask::git();
    let Wanted::Exchange(service) = dialogue::hold(&mut stdio::Unbuffered, &mut io::stdout())?
    else {
        return Ok(());
    };
    let settings = settings.answered()?;
    let version = settings.version_of(service);
    let request = Request::new(service, address.repository.clone()).version(version);
    // One thread is enough for one stream, and the quickest to start.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(exchange(&address.node, &request, &settings));
    // A read that cannot be cancelled is not waited for.
    runtime.shutdown_background();
    outcome
}

async fn exchange(node: &str, request: &Request, settings: &Settings) -> Result<(), Failure> {
    let home = Home::open(home::of_environment())?;
    let alpn = Alpn::service("git")?;
    let connected = connect::reach(&home, node, None, alpn, settings.via).await?;
    let outcome = tokio::select! {
        outcome = carry(&connected.connection, node, request) => outcome,
        () = told_to_end()? => Err(Failure::silent()),
    };
    match &outcome {
        Ok(()) => part(&connected).await,
        Err(_) => connected.abandon(Code::CANCELLED).await,
    }
    outcome
}

/// Joins git to one exchange.
async fn carry(connection: &Connection, node: &str, request: &Request) -> Result<(), Failure> {
    let mut stream = connection.open_bi().await?;
    stream.write_all(&request.to_line(node)).await?;
    stream.flush().await?;
    let mut output = stdio::output();
    dialogue::established(&mut output).await?;
    let joined = stdio::join(stream, stdio::input(), output).await;
    joined.map_err(explained)
}

async fn part(connected: &Connected) {
    connected.connection.close(Code::NORMAL, "");
    let _ = timeout(PARTING, connected.connection.drained()).await;
}
