//! `alknet serve`

mod banner;

use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use alknet_http::Decoy;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    Services, authorized_keys,
    certificates::Source,
    config::{self, Config, DEFAULT_PORT},
    failure::Failure,
    home::Home,
    links::Hosts,
    node::{Node, Settings},
    output,
};

/// How long sessions get to end by themselves, in seconds.
const DRAIN: u64 = 10;

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
    /// Where to listen, UDP and TCP; port 0 takes a free one [default: [::]:4433]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// A name by which clients reach the node; the first one stands in the links
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
    /// Offer HTTPS alone and hide every service in it
    #[arg(long)]
    cover: bool,
    /// What strangers see: 404, a folder, http://UPSTREAM, or redirect:URL
    #[arg(long, value_name = "WHAT")]
    decoy: Option<String>,
    /// The certificate chain for browsers (PEM); without it a self-signed one is made
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// Let the keys of an authorized_keys file use SSH [default FILE: ~/.ssh/authorized_keys]
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    authorized_keys: Option<Option<PathBuf>>,
    /// How long a shutdown waits for sessions to end [default: 10]
    #[arg(long, value_name = "SECONDS")]
    drain: Option<u64>,
    /// Print how to reach the node as one line of JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args, home: &Home, more: Services) -> Result<(), Failure> {
    let config = Config::load(home)?;
    let drain = Duration::from_secs(args.drain.or(config.drain).unwrap_or(DRAIN));
    let json = args.json;
    let hosts = args.hosts.clone();
    // Before the node stands: a signal that comes early must not be lost.
    let mut signals = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
    let node = Node::start(home, settings(args, config)?, more).await?;
    let hosts = Hosts::new(&hosts, node.address());
    hosts.publish(home)?;
    banner::print(&node, &hosts, json).await?;
    let [terminate, interrupt] = &mut signals;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("shutting down");
    // A second signal means now.
    let stop = node.stop(drain);
    tokio::pin!(stop);
    let closed = tokio::select! {
        closed = &mut stop => closed?,
        _ = interrupt.recv() => return Err(Failure::new("ended before the sessions were")),
    };
    if closed > 0 {
        output::note(format!("{closed} sessions were closed at the deadline"))?;
    }
    Ok(())
}

fn settings(args: Args, config: Config) -> Result<Settings, Failure> {
    let any = SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, DEFAULT_PORT));
    let files = config.certificate.map(|files| (files.chain, files.key));
    let certificate = match args.certificate.zip(args.key).or(files) {
        Some((certificate, key)) => Source::Files { certificate, key },
        None => Source::SelfSigned { names: certificate_names(&args.hosts) },
    };
    Ok(Settings {
        listen: args.listen.or(config.listen).unwrap_or(any),
        cover: args.cover || config.cover,
        decoy: args.decoy.or(config.decoy).map(|text| decoy(&text)).transpose()?,
        certificate,
        origins: config.origins,
        authorized_keys: authorized_keys_file(args.authorized_keys, config.authorized_keys)?,
        name: args.hosts.first().cloned().unwrap_or_else(banner::host_name),
    })
}

/// Names for a self-signed certificate: no client checks them, but a page that shows the
/// certificate shows them.
fn certificate_names(hosts: &[String]) -> Vec<String> {
    if hosts.is_empty() { vec!["localhost".into()] } else { hosts.to_vec() }
}

fn decoy(text: &str) -> Result<Decoy, Failure> {
    let uri = |text: &str| {
        FromStr::from_str(text).map_err(|_| Failure::usage(format!("--decoy: not a URL: {text}")))
    };
    match text.strip_prefix("redirect:") {
        Some(target) => Ok(Decoy::Redirect(uri(target)?)),
        None if text == "404" => Ok(Decoy::NotFound),
        None if text.contains("://") => Ok(Decoy::Proxy(uri(text)?)),
        None => Ok(Decoy::Folder(text.into())),
    }
}

fn authorized_keys_file(
    flag: Option<Option<PathBuf>>,
    configured: config::AuthorizedKeys,
) -> Result<Option<PathBuf>, Failure> {
    match (flag, configured) {
        (Some(Some(file)), _) | (None, config::AuthorizedKeys::File(file)) => Ok(Some(file)),
        (Some(None), _) | (None, config::AuthorizedKeys::Default(true)) => {
            Ok(Some(authorized_keys::AuthorizedKeys::default_path()?))
        }
        (None, config::AuthorizedKeys::Default(false)) => Ok(None),
    }
}
