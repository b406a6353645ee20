//! Links to the node: under which hosts it is reached, and one-time sign-in links.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use alknet_core::NodeId;

use crate::{
    home::{Home, HomeError},
    store::{Store, StoreError},
    web::SIGN_IN,
};

/// The hosts of a node that serves, a line each, for the commands beside it.
const FILE: &str = "run/hosts";

/// The hosts under which a node is reached, the one for links to show first at the head.
#[derive(Debug)]
pub(crate) struct Hosts {
    names: Vec<String>,
    port: u16,
}

impl Hosts {
    /// The names that were given, else what the listening address tells.
    pub(crate) fn new(names: &[String], listen: SocketAddr) -> Self {
        let names = if names.is_empty() { reachable(listen) } else { names.to_vec() };
        Self { names, port: listen.port() }
    }

    /// Of the node that serves `home` at `listen`.
    pub(crate) fn of_running(home: &Home, listen: SocketAddr) -> Result<Self, HomeError> {
        let content = home.read(FILE)?.unwrap_or_default();
        let names: Vec<String> =
            String::from_utf8_lossy(&content).lines().map(String::from).collect();
        Ok(Self::new(&names, listen))
    }

    /// Tells the commands beside this process.
    pub(crate) fn publish(&self, home: &Home) -> Result<(), HomeError> {
        home.write(FILE, self.names.join("\n").as_bytes())
    }

    /// The one to show where there is room for one.
    pub(crate) fn first(&self) -> &str {
        self.names.first().map_or("localhost", String::as_str)
    }

    /// With the port.
    pub(crate) fn authority(&self, host: &str) -> String {
        format!("{host}:{}", self.port)
    }

    /// A new one-time secret as a link for each host. The fragment names the node, so that
    /// the page knows whom to trust; it is never sent.
    pub(crate) async fn sign_in_links(
        &self,
        store: &Store,
        node: NodeId,
    ) -> Result<Vec<String>, StoreError> {
        let secret = store.create_signin().await?;
        let link = |host: &String| {
            format!("https://{}{SIGN_IN}{}#{node}", self.authority(host), secret.expose())
        };
        Ok(self.names.iter().map(link).collect())
    }
}

/// Hosts under which this machine's clients, and others, reach a listening address. A name
/// only where both address families are served: browsers try IPv6 first for a name, and do
/// not fall back for WebTransport.
fn reachable(listen: SocketAddr) -> Vec<String> {
    if !listen.ip().is_unspecified() {
        return vec![url_host(listen.ip())];
    }
    let own =
        if listen.is_ipv6() { "localhost".into() } else { url_host(Ipv4Addr::LOCALHOST.into()) };
    std::iter::once(own).chain(outward_address().map(url_host)).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_names_come_first_and_are_passed_on() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(Some(folder.path().join("home"))).unwrap();
        let listen: SocketAddr = "127.0.0.1:443".parse().unwrap();
        assert_eq!(Hosts::of_running(&home, listen).unwrap().first(), "127.0.0.1");
        Hosts::new(&["a.example".into(), "b.example".into()], listen).publish(&home).unwrap();
        let hosts = Hosts::of_running(&home, listen).unwrap();
        assert_eq!(hosts.authority(hosts.first()), "a.example:443");
    }

    #[test]
    fn a_bound_address_is_its_own_host() {
        let of = |listen: &str| reachable(listen.parse().unwrap());
        assert_eq!(of("127.0.0.1:1"), ["127.0.0.1"]);
        assert_eq!(of("192.0.2.7:1"), ["192.0.2.7"]);
        assert_eq!(of("[2001:db8::7]:1"), ["[2001:db8::7]"]);
        assert_eq!(of("[::]:1").first().unwrap(), "localhost");
        assert_eq!(of("0.0.0.0:1").first().unwrap(), "127.0.0.1");
    }
}
