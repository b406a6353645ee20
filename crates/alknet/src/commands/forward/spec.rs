//! What is forwarded where, as OpenSSH writes it.

use std::str::FromStr;

use alknet_forward::{Address, Place};

/// `[BIND:]PORT:HOST:HOSTPORT`, where either side may be the path of a Unix socket instead:
/// listen on the one, connect to the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spec {
    pub(super) listen: Place,
    pub(super) connect: Place,
}

/// `[BIND:]PORT:HOST:HOSTPORT` of datagrams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UdpSpec {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) target: Address,
}

/// A text says nothing that can be forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidSpec {
    #[error("write [BIND:]PORT:HOST:HOSTPORT or a /PATH on either side, with IPv6 in [brackets]")]
    Shape,
    #[error("write a port as a number up to 65535")]
    Port,
    #[error("there are no datagrams on a Unix socket: write [BIND:]PORT:HOST:HOSTPORT")]
    Path,
}

/// Where a port is listened on unless something else is said, as in OpenSSH.
const LOCALHOST: &str = "localhost";

impl FromStr for Spec {
    type Err = InvalidSpec;

    fn from_str(text: &str) -> Result<Self, InvalidSpec> {
        let parts = parts(text)?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let (listen, connect) = match parts.as_slice() {
            [listen, connect] if is_path(listen) && is_path(connect) => {
                (Place::unix(*listen), Place::unix(*connect))
            }
            [listen, host, port] if is_path(listen) => {
                (Place::unix(*listen), Place::tcp(*host, target_port(port)?))
            }
            [here, connect] if is_path(connect) => {
                (Place::tcp(LOCALHOST, port(here)?), Place::unix(*connect))
            }
            [bind, here, connect] if is_path(connect) => {
                (Place::tcp(bound(bind), port(here)?), Place::unix(*connect))
            }
            [here, host, there] => {
                (Place::tcp(LOCALHOST, port(here)?), Place::tcp(*host, target_port(there)?))
            }
            [bind, here, host, there] => {
                (Place::tcp(bound(bind), port(here)?), Place::tcp(*host, target_port(there)?))
            }
            _ => return Err(InvalidSpec::Shape),
        };
        match &connect {
            Place::Tcp(tcp) if tcp.host.is_empty() => Err(InvalidSpec::Shape),
            _ => Ok(Self { listen, connect }),
        }
    }
}

impl FromStr for UdpSpec {
    type Err = InvalidSpec;

    fn from_str(text: &str) -> Result<Self, InvalidSpec> {
        let Spec { listen, connect } = text.parse()?;
        let (Place::Tcp(listen), Place::Tcp(connect)) = (listen, connect) else {
            return Err(InvalidSpec::Path);
        };
        let target = match connect.host.parse() {
            Ok(ip) => Address::Ip(std::net::SocketAddr::new(ip, connect.port)),
            Err(_) if connect.host.len() > 255 => return Err(InvalidSpec::Shape),
            Err(_) => Address::Name(connect.host, connect.port),
        };
        // All addresses, in the spelling of whoever binds.
        let host = if listen.host == "*" { "::".into() } else { listen.host };
        Ok(Self { host, port: listen.port, target })
    }
}

fn is_path(part: &str) -> bool {
    part.starts_with('/')
}

/// Nothing and `*` are all addresses.
fn bound(bind: &str) -> &str {
    if bind.is_empty() { "*" } else { bind }
}

fn port(part: &str) -> Result<u16, InvalidSpec> {
    let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| part.parse().ok()).flatten().ok_or(InvalidSpec::Port)
}

fn target_port(part: &str) -> Result<u16, InvalidSpec> {
    port(part).and_then(|port| if port == 0 { Err(InvalidSpec::Port) } else { Ok(port) })
}

/// The parts between the colons; those in brackets are one, without them.
fn parts(text: &str) -> Result<Vec<String>, InvalidSpec> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let (part, after) = match rest.strip_prefix('[') {
            Some(inner) => inner.split_once(']').ok_or(InvalidSpec::Shape)?,
            None => rest.split_at(rest.find(':').unwrap_or(rest.len())),
        };
        parts.push(part.to_owned());
        if after.is_empty() {
            return Ok(parts);
        }
        rest = after.strip_prefix(':').ok_or(InvalidSpec::Shape)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwards_are_written_as_for_ssh() {
        let tcp = |host: &str, port| Place::tcp(host, port);
        let cases = [
            ("8080:db:5432", tcp("localhost", 8080), tcp("db", 5432)),
            ("0:db:5432", tcp("localhost", 0), tcp("db", 5432)),
            ("127.0.0.1:8080:db:5432", tcp("127.0.0.1", 8080), tcp("db", 5432)),
            (":8080:db:5432", tcp("*", 8080), tcp("db", 5432)),
            ("*:8080:db:5432", tcp("*", 8080), tcp("db", 5432)),
            ("[::1]:8080:[2001:db8::1]:80", tcp("::1", 8080), tcp("2001:db8::1", 80)),
            ("8080:[::1]:80", tcp("localhost", 8080), tcp("::1", 80)),
            ("/tmp/a:db:5432", Place::unix("/tmp/a"), tcp("db", 5432)),
            ("/tmp/a:[::1]:80", Place::unix("/tmp/a"), tcp("::1", 80)),
            ("/tmp/a:/run/b", Place::unix("/tmp/a"), Place::unix("/run/b")),
            ("8080:/run/b", tcp("localhost", 8080), Place::unix("/run/b")),
            ("[::1]:8080:/run/b", tcp("::1", 8080), Place::unix("/run/b")),
        ];
        for (text, listen, connect) in cases {
            assert_eq!(text.parse(), Ok(Spec { listen, connect }), "{text}");
        }
    }

    #[test]
    fn what_is_no_forward_is_refused() {
        for text in [
            "",
            "8080",
            "8080:db",
            "8080:db:",
            "8080:db:0",
            "8080:db:x",
            "8080:db:70000",
            "x:db:1",
            "-1:db:1",
            "+1:db:1",
            "a:b:c:d:e",
            "8080::1:80:90:1",
            "[::1:8080:db:1",
            "[::1]8080:db:1",
            "8080::80",
            ":/tmp",
            "a:/tmp",
            "8080:db:5432:",
        ] {
            assert!(text.parse::<Spec>().is_err(), "{text}");
        }
        assert_eq!("/tmp/a:db:53".parse::<UdpSpec>(), Err(InvalidSpec::Path));
        assert_eq!("53:/tmp/a".parse::<UdpSpec>(), Err(InvalidSpec::Path));
        let spec: UdpSpec = ":5353:dns.internal:53".parse().unwrap();
        assert_eq!((spec.host.as_str(), spec.port), ("::", 5353));
        assert_eq!(spec.target, Address::Name("dns.internal".into(), 53));
    }
}
