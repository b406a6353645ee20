//! `alknet socks`

use std::{net::SocketAddr, path::PathBuf};

use alknet_forward::socks::{Credentials, Server};
use serde::Serialize;
use zeroize::Zeroizing;

use super::{
    dial::{Reach, told_to_end},
    prompt,
};
use crate::{failure::Failure, forward, home::Home, output};

/// Run a SOCKS5 proxy whose connections leave from a node
///
/// It listens on this machine alone. Names are resolved by the node, whose alknet.toml says
/// what may be connected to. Each connection has a stream of its own; when the connection to
/// the node is lost it is made again.
///
/// Examples:
///   alknet socks example.org
///   curl --proxy socks5h://127.0.0.1:1080 intranet.example.org
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// HOST[:PORT], a saved name, a node id, or a link to the node
    node: String,
    /// Where to listen: a loopback address; port 0 picks a free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:1080")]
    listen: SocketAddr,
    /// Have programs present this name and a password, which is asked for
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Read the password from the first line of a file instead
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
    /// Print where it listens as one line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

#[derive(Serialize)]
struct Ready {
    listen: SocketAddr,
}

pub(crate) async fn run(args: Args, home: &Home) -> Result<(), Failure> {
    if !args.listen.ip().to_canonical().is_loopback() {
        return Err(Failure::usage(format!("{} is not a loopback address", args.listen))
            .hint("whoever reaches the proxy acts as this machine; others can run their own"));
    }
    // Before anything can be seen to listen: a signal that comes early must not be lost.
    let told_to_end = told_to_end()?;
    let credentials = match &args.user {
        Some(user) => Some(credentials(user, args.password_file.as_deref()).await?),
        None => None,
    };
    let client = forward::client(home, &args.node, &args.reach).await?;
    let server = Server::bind(args.listen, client.clone(), credentials).await?;
    let ready = Ready { listen: server.local_addr()? };
    match args.json {
        true => output::line(serde_json::to_string(&ready)?)?,
        false => output::line(format!("SOCKS5 on {}", ready.listen))?,
    }
    let outcome = tokio::select! {
        ended = server.serve() => ended.map_err(Failure::from),
        failure = forward::keep(&client, &args.node) => Err(failure),
        () = told_to_end => Ok(()),
    };
    client.close().await;
    outcome
}

async fn credentials(user: &str, file: Option<&std::path::Path>) -> Result<Credentials, Failure> {
    let password = match file {
        Some(file) => {
            let failed = |error| Failure::from(error).context(file.display().to_string());
            prompt::first_line(std::fs::File::open(file).map_err(failed)?).map_err(failed)?
        }
        None => Zeroizing::new(prompt::secret("password for the proxy: ").await?.expose().into()),
    };
    Credentials::new(user, password).map_err(|error| Failure::usage(error.to_string()))
}
