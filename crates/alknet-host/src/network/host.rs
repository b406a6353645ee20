//! A host as a client asks for it.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

use super::error::InvalidHost;

/// The longest name of a host (RFC 1035), in bytes.
const MAX_NAME: usize = 253;
/// The longest label of one.
const MAX_LABEL: usize = 63;

/// A host in the one form that rules and grants are held against.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Host {
    /// A name in lower case without the dot at the end. It is no address in any of the
    /// spellings that the C library understands.
    Name(String),
    /// An address; an IPv4-mapped one is the IPv4 address.
    Address(IpAddr),
    /// To listen on: every address of the machine.
    Any,
}

impl Host {
    /// A host to connect to.
    pub(super) fn parse(text: &str) -> Result<Self, InvalidHost> {
        if let Some(address) = address(text) {
            return Ok(Self::Address(address));
        }
        name(text).map(Self::Name)
    }

    /// A host to listen on, where nothing and `*` stand for all (RFC 4254, section 7.1).
    pub(super) fn parse_bind(text: &str) -> Result<Self, InvalidHost> {
        match text {
            "" | "*" => Ok(Self::Any),
            _ => match Self::parse(text)? {
                Self::Address(address) if address.is_unspecified() => Ok(Self::Any),
                host => Ok(host),
            },
        }
    }

    /// Whether it is the name of the machine itself (RFC 6761, section 6.3).
    pub(super) fn is_localhost(&self) -> bool {
        matches!(self, Self::Name(name) if name == "localhost")
    }
}

/// As a word of a grant.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(address) => write!(f, "{address}"),
            Self::Any => f.write_str("*"),
        }
    }
}

fn address(text: &str) -> Option<IpAddr> {
    let bracketed = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    if let Some(inner) = bracketed {
        return inner.parse::<Ipv6Addr>().ok().map(|address| address.to_canonical());
    }
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

fn name(text: &str) -> Result<String, InvalidHost> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        (1..=MAX_LABEL).contains(&label.len()) && label.bytes().all(plain)
    };
    if name.len() > MAX_NAME || !name.split('.').all(label) {
        return Err(InvalidHost::Name);
    }
    let name = name.to_ascii_lowercase();
    // "127.1", "0x7f.1", "2130706433" and "0177.0.0.1" are addresses to the C library.
    match name.rsplit('.').next().is_some_and(is_number) {
        true => Err(InvalidHost::Number),
        false => Ok(name),
    }
}

/// Whether a label is one that makes a name an IPv4 address (URL Standard, "ends in a
/// number").
fn is_number(label: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits(label) || label.strip_prefix("0x").is_some_and(hex)
}
