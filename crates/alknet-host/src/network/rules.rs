//! Rules: destinations and the grant that each takes.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
    path::Path,
    str::FromStr,
};

use alknet_core::{Action, Identity};
use ipnet::{IpNet, Ipv4Net};

use super::{
    error::{InvalidHost, Refusal},
    host::Host,
    special,
};

/// What is done with a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Connect,
    Listen,
    Udp,
}

impl Verb {
    fn grant(self) -> &'static str {
        match self {
            Self::Connect => "forward:connect",
            Self::Listen => "forward:listen",
            Self::Udp => "forward:udp",
        }
    }
}

/// One rule: destinations, and what a caller needs to have them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// What may be connected to.
    pub connect: Vec<Destination>,
    /// What may be listened on.
    pub listen: Vec<Destination>,
    /// Where datagrams may be sent.
    pub udp: Vec<Destination>,
    /// The action that a grant of the caller has to cover, such as `forward:db`. Without
    /// it, it is `forward:connect:HOST:PORT` (or `listen`, `udp`) as the caller asks.
    pub scope: Option<String>,
}

impl Rule {
    fn destinations(&self, verb: Verb) -> &[Destination] {
        match verb {
            Verb::Connect => &self.connect,
            Verb::Listen => &self.listen,
            Verb::Udp => &self.udp,
        }
    }

    fn permit(&self, caller: &Identity, needed: Action<'_>) -> Result<(), Refusal> {
        let needed = self.scope.as_deref().map_or(needed, Action::from);
        match caller.scopes.allow(needed.clone()) {
            true => Ok(()),
            false => Err(Refusal::NoGrant(needed.to_string())),
        }
    }
}

/// Something of the network that is asked for, in its one form.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) verb: Verb,
    pub(super) host: &'a Host,
    pub(super) port: u16,
}

impl Asked<'_> {
    fn action(self, host: &dyn fmt::Display) -> Action<'static> {
        Action::from(self.verb.grant()).word(host.to_string()).word(self.port.to_string())
    }

    /// Whether any rule could allow it, whatever the name resolves to: a name that none
    /// could is not looked up.
    pub(super) fn precheck(self, rules: &[Rule], caller: &Identity) -> Result<(), Refusal> {
        let could = |place: &Destination| place.could_cover(self);
        let mut verdict = Err(Refusal::NoRule);
        for rule in rules.iter().filter(|rule| rule.destinations(self.verb).iter().any(could)) {
            verdict = rule.permit(caller, self.action(self.host));
            if verdict.is_ok() {
                break;
            }
        }
        verdict
    }

    /// Whether the first rule whose destination is this lets the caller have it, at an
    /// address (in canonical form) that the host stands for.
    pub(super) fn check(
        self,
        rules: &[Rule],
        caller: &Identity,
        address: IpAddr,
    ) -> Result<(), Refusal> {
        let special = special::special(address).is_some() && self.verb != Verb::Listen;
        let covers = |place: &Destination| place.covers(self, address);
        let Some(rule) = rules.iter().find(|rule| rule.destinations(self.verb).iter().any(covers))
        else {
            return Err(if special { Refusal::Special(address) } else { Refusal::NoRule });
        };
        rule.permit(caller, self.action(self.host))?;
        // Whoever owns a name must not give its users an address that they have no grant of.
        if special && matches!(self.host, Host::Name(_)) && !self.host.is_localhost() {
            rule.permit(caller, self.action(&address))?;
        }
        Ok(())
    }
}

/// Whether the first rule with this path lets the caller have it.
pub(super) fn check_path(
    rules: &[Rule],
    caller: &Identity,
    verb: Verb,
    path: &Path,
) -> Result<(), Refusal> {
    let text = path.to_str().ok_or(Refusal::Path)?;
    let covers = |place: &Destination| place.covers_path(text);
    let rule = rules.iter().find(|rule| rule.destinations(verb).iter().any(covers));
    rule.ok_or(Refusal::NoRule)?.permit(caller, Action::from(verb.grant()).word(text))
}

/// Destinations of a rule: `db.internal:5432`, `*.internal:443`, `10.0.0.0/8:1-1024`,
/// `[2001:db8::/32]:*`, `localhost:8080`, `public:443`, `*:*`, or a path such as
/// `/run/postgresql/*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination(Place);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Hosts(Hosts, RangeInclusive<u16>),
    /// Exactly this path.
    Path(String),
    /// Paths that begin like this and have no slash after it.
    Paths(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Hosts {
    /// Every address that is not special.
    All,
    /// Every address of the public Internet.
    Public,
    /// `localhost`, 127.0.0.1 and ::1.
    Localhost,
    /// This name.
    Name(String),
    /// Names that end in a dot and this.
    Below(String),
    Network(IpNet),
}

/// The text is no destination.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidDestination {
    /// No colon with ports after it.
    #[error("write a destination as HOST:PORT, NETWORK:PORT-PORT, *:* or /PATH")]
    Shape,
    /// Ports that are none.
    #[error("write ports as 443, 8000-8999 or *")]
    Ports,
    /// A host that is none.
    #[error("{0}")]
    Host(InvalidHost),
    /// A network with bits after its prefix.
    #[error("the network has bits beyond its prefix: write {0}")]
    Network(IpNet),
    /// A `*` where none can be.
    #[error("a * stands for all hosts, for the beginning of a name (*.internal), or ends a path")]
    Star,
    /// A path with `.`, `..` or empty parts.
    #[error("write a path without . or .. or double slashes")]
    Path,
}

impl FromStr for Destination {
    type Err = InvalidDestination;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with('/') {
            return path(text).map(Self);
        }
        let (host, ports) = text.rsplit_once(':').ok_or(InvalidDestination::Shape)?;
        Ok(Self(Place::Hosts(hosts(host)?, port_range(ports)?)))
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hosts, ports) = match &self.0 {
            Place::Path(path) => return f.write_str(path),
            Place::Paths(beginning) => return write!(f, "{beginning}*"),
            Place::Hosts(hosts, ports) => (hosts, ports),
        };
        match hosts {
            Hosts::All => f.write_str("*")?,
            Hosts::Public => f.write_str("public")?,
            Hosts::Localhost => f.write_str("localhost")?,
            Hosts::Name(name) => f.write_str(name)?,
            Hosts::Below(domain) => write!(f, "*.{domain}")?,
            Hosts::Network(IpNet::V4(net)) => write!(f, "{net}")?,
            Hosts::Network(IpNet::V6(net)) => write!(f, "[{net}]")?,
        }
        match (*ports.start(), *ports.end()) {
            (0, u16::MAX) => f.write_str(":*"),
            (first, last) if first == last => write!(f, ":{first}"),
            (first, last) => write!(f, ":{first}-{last}"),
        }
    }
}

fn path(text: &str) -> Result<Place, InvalidDestination> {
    let beginning = text.strip_suffix('*');
    let plain = beginning.unwrap_or(text);
    if plain.contains('*') {
        return Err(InvalidDestination::Star);
    }
    // The star may stand for a whole part; everything before it is as a path has it.
    let parts = match beginning {
        Some(beginning) => beginning.strip_suffix('/').unwrap_or(beginning),
        None => text,
    };
    if !parts.is_empty() && !is_plain_path(parts) {
        return Err(InvalidDestination::Path);
    }
    Ok(match beginning {
        Some(beginning) => Place::Paths(beginning.into()),
        None => Place::Path(text.into()),
    })
}

/// Whether a path is absolute and each of its parts a name.
pub(super) fn is_plain_path(text: &str) -> bool {
    let name = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(name))
}

fn port_range(text: &str) -> Result<RangeInclusive<u16>, InvalidDestination> {
    if text == "*" {
        return Ok(0..=u16::MAX);
    }
    // Digits alone: `parse` would take a sign.
    let port = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u16>().ok()).flatten().filter(|port| *port > 0)
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        _ => Err(InvalidDestination::Ports),
    }
}

fn hosts(text: &str) -> Result<Hosts, InvalidDestination> {
    match text {
        "*" => return Ok(Hosts::All),
        "public" => return Ok(Hosts::Public),
        "localhost" => return Ok(Hosts::Localhost),
        _ => {}
    }
    let bracketed = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    // Without brackets the colons of an IPv6 address could be the one before the port.
    let numbers = bracketed.or_else(|| (!text.contains(':')).then_some(text));
    let numbers = numbers.ok_or(InvalidDestination::Shape)?;
    if let Ok(net) = numbers.parse::<IpNet>() {
        return match net.trunc() == net {
            true => Ok(Hosts::Network(unmapped(net))),
            false => Err(InvalidDestination::Network(net.trunc())),
        };
    }
    let domain = text.strip_prefix("*.");
    if domain.unwrap_or(text).contains('*') {
        return Err(InvalidDestination::Star);
    }
    match (Host::parse(domain.unwrap_or(text)).map_err(InvalidDestination::Host)?, domain) {
        (Host::Address(address), None) => Ok(Hosts::Network(address.into())),
        (Host::Name(name), None) if name == "localhost" => Ok(Hosts::Localhost),
        (Host::Name(name), None) => Ok(Hosts::Name(name)),
        (Host::Name(name), Some(_)) => Ok(Hosts::Below(name)),
        (Host::Address(_) | Host::Any, _) => Err(InvalidDestination::Star),
    }
}

/// IPv4-mapped networks as the IPv4 networks they are, because addresses are compared so.
fn unmapped(net: IpNet) -> IpNet {
    if let IpNet::V6(v6) = net
        && let Some(address) = v6.network().to_ipv4_mapped()
        && let Some(length) = v6.prefix_len().checked_sub(96)
        && let Ok(v4) = Ipv4Net::new(address, length)
    {
        return v4.into();
    }
    net
}

impl Destination {
    /// Whether some address of the host could be covered.
    fn could_cover(&self, asked: Asked<'_>) -> bool {
        let Place::Hosts(hosts, ports) = &self.0 else { return false };
        let name = match hosts {
            Hosts::Name(name) => asked.host == &Host::Name(name.clone()),
            Hosts::Below(domain) => is_below(asked.host, domain),
            Hosts::Localhost => names_localhost(asked.host),
            Hosts::All | Hosts::Public | Hosts::Network(_) => true,
        };
        name && ports.contains(&asked.port)
    }

    /// Whether this address (in canonical form), which the host resolved to, is covered.
    fn covers(&self, asked: Asked<'_>, address: IpAddr) -> bool {
        let Place::Hosts(hosts, ports) = &self.0 else { return false };
        // Nothing is reached by listening, so that all addresses are all.
        let special = special::special(address);
        let plain = special.is_none();
        let host = match hosts {
            Hosts::All => plain || asked.verb == Verb::Listen,
            Hosts::Public => special::public(address),
            Hosts::Localhost => is_localhost(address) && names_localhost(asked.host),
            Hosts::Name(name) => plain && asked.host == &Host::Name(name.clone()),
            Hosts::Below(domain) => plain && is_below(asked.host, domain),
            Hosts::Network(net) => {
                net.contains(&address) && special.is_none_or(|special| special.contains(net))
            }
        };
        host && ports.contains(&asked.port)
    }

    fn covers_path(&self, path: &str) -> bool {
        match &self.0 {
            Place::Hosts(..) => false,
            Place::Path(exact) => path == exact,
            Place::Paths(beginning) => path
                .strip_prefix(beginning)
                .is_some_and(|rest| !rest.is_empty() && !rest.contains('/')),
        }
    }
}

fn is_below(host: &Host, domain: &str) -> bool {
    matches!(host, Host::Name(name) if name
        .strip_suffix(domain)
        .and_then(|rest| rest.strip_suffix('.'))
        .is_some_and(|rest| !rest.is_empty()))
}

/// Whether it is `localhost`, or one of its addresses: no other name that leads there.
fn names_localhost(host: &Host) -> bool {
    match host {
        Host::Address(address) => is_localhost(*address),
        host => host.is_localhost(),
    }
}

fn is_localhost(address: IpAddr) -> bool {
    address == Ipv4Addr::LOCALHOST || address == Ipv6Addr::LOCALHOST
}
