//! What `alknet serve` prints when it stands.

use std::net::SocketAddr;

use alknet_host::Accounts;
use serde::Serialize;

use crate::{failure::Failure, links::Hosts, node::Node, output};

/// How to reach the node.
#[derive(Debug, Serialize)]
struct Banner {
    node: String,
    listen: SocketAddr,
    /// The same one-time secret for each name or address of the node.
    sign_in: Vec<String>,
    ssh: String,
    #[serde(skip)]
    cover: bool,
    /// Whether peers need an account to be mapped to.
    #[serde(skip)]
    mapped: bool,
}

/// Prints how to reach the node; the sign-in link goes nowhere but to this process's stdout.
pub(super) async fn print(
    node: &Node,
    hosts: &Hosts,
    cover: bool,
    json: bool,
) -> Result<(), Failure> {
    let host = hosts.first();
    // By itself `dial` would ask for the service in the open first.
    let via = if cover { " --via webtransport" } else { "" };
    let banner = Banner {
        node: node.id.to_string(),
        listen: node.address(),
        sign_in: hosts.sign_in_links(&node.store, node.id).await?,
        ssh: format!(
            "ssh -o ProxyCommand='alknet dial {} ssh{via}' {}@{}",
            hosts.authority(host),
            node.account,
            host.trim_matches(['[', ']'])
        ),
        cover,
        mapped: Accounts::is_privileged(),
    };
    if json { print_line(&banner) } else { print_text(&banner) }
}

fn print_line(banner: &Banner) -> Result<(), Failure> {
    Ok(output::line(serde_json::to_string(banner)?)?)
}

fn print_text(banner: &Banner) -> Result<(), Failure> {
    output::line(format_args!("node     {}", banner.node))?;
    output::line(format_args!("listens  {} (UDP and TCP)", banner.listen))?;
    for (i, link) in banner.sign_in.iter().enumerate() {
        let label = if i == 0 { "browser" } else { "     or" };
        output::line(format_args!("{label}  {link}"))?;
    }
    output::line(
        "         (works once, within 15 minutes; the browser warns of the self-signed certificate)",
    )?;
    output::line(format_args!("ssh      {}", banner.ssh))?;
    if banner.cover {
        output::line(
            "         (with both keys from `alknet peer add NAME --key FILE --key ID --scope ssh`: \
             FILE is an SSH key, ID what `alknet id` prints on that machine)",
        )?;
    } else {
        output::line("         (with a key from `alknet peer add NAME --key FILE --scope ssh`)")?;
    }
    if banner.mapped {
        output::line(
            "         (this node runs as root: who may not do everything uses the accounts that \
             `accounts` in alknet.toml or --account PEER=ACCOUNT gives them, and else none)",
        )?;
    }
    Ok(())
}

/// What this machine calls itself.
pub(super) fn host_name() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".into())
}
