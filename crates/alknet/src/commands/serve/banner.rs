//! What `alknet serve` prints when it stands.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use serde::Serialize;

use crate::{failure::Failure, node::Node, output, web::SIGN_IN};

/// How to reach the node.
#[derive(Debug, Serialize)]
struct Banner {
    node: String,
    listen: SocketAddr,
    /// The same one-time secret for each name or address of the node.
    sign_in: Vec<String>,
    ssh: String,
}

/// Prints how to reach the node; the sign-in link goes nowhere but to this process's stdout.
pub(super) async fn print(node: &Node, hosts: &[String], json: bool) -> Result<(), Failure> {
    let listen = node.address();
    let secret = node.store.create_signin().await?;
    let hosts = if hosts.is_empty() { reachable(listen) } else { hosts.to_vec() };
    let authority = |host: &String| format!("{host}:{}", listen.port());
    let link =
        |host| format!("https://{}{SIGN_IN}{}#{}", authority(host), secret.expose(), node.id);
    let host = hosts.first().cloned().unwrap_or_else(|| "localhost".into());
    let banner = Banner {
        node: node.id.to_string(),
        listen,
        sign_in: hosts.iter().map(link).collect(),
        ssh: format!(
            "ssh -o ProxyCommand='alknet dial {} ssh' {}@{}",
            authority(&host),
            node.account,
            host.trim_matches(['[', ']'])
        ),
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
    output::line("         (with a key from `alknet peer add NAME --key FILE --scope ssh`)")?;
    Ok(())
}

/// Hosts under which this machine's clients, and others, reach a listening address.
fn reachable(listen: SocketAddr) -> Vec<String> {
    if !listen.ip().is_unspecified() {
        let loopback = listen.ip().is_loopback();
        return vec![if loopback { "localhost".into() } else { url_host(listen.ip()) }];
    }
    let outward = outward_address().map(url_host);
    std::iter::once("localhost".into()).chain(outward).collect()
}

fn url_host(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// The address this machine has towards others. Connecting a UDP socket sends nothing; the
/// addresses are those of RFC 5737 and RFC 3849, which belong to nobody.
fn outward_address() -> Option<IpAddr> {
    let towards = |bind: &str, to: &str| -> Option<IpAddr> {
        let socket = UdpSocket::bind(bind).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
    };
    towards("0.0.0.0:0", "192.0.2.1:9").or_else(|| towards("[::]:0", "[2001:db8::1]:9"))
}

/// What this machine calls itself.
pub(super) fn host_name() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".into())
}
