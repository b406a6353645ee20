//! Which nodes this machine has met, under which identity.
//!
//! The file `known_nodes` has a line for each: `HOST:PORT ID` for an address that was
//! pinned, `NAME ID HOST:PORT` for a name that was saved. `#` begins a comment.

use std::{fmt::Write as _, net::Ipv6Addr, path::PathBuf};

use alknet_core::NodeId;

use crate::{
    config::DEFAULT_PORT,
    home::{Home, HomeError},
};

/// The name of the file in the state folder.
const FILE: &str = "known_nodes";
/// The port of a link that names none.
const HTTPS: u16 = 443;
/// The longest name or host.
const MAX_LABEL: usize = 255;

/// Where a node is, and who it has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// `host:port`, an IPv6 address in brackets.
    pub(crate) address: String,
    /// The identity that was pinned; `None`: this would be the first meeting.
    pub(crate) id: Option<NodeId>,
}

/// What pinning did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pinned {
    /// The address was unknown: this identity is expected from now on.
    New,
    /// It is the one that was expected.
    Known,
}

/// A node is not what it was, or not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum KnownNodesError {
    /// The state folder failed.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// A line makes no sense.
    #[error("{path}, line {line}: this is not NAME ID HOST:PORT or HOST:PORT ID")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// The text names no node.
    #[error("{0:?} is not a saved name, a node id or HOST[:PORT]")]
    NoNode(String),
    /// A URL that is no link to a node. It is not shown: it may hold a secret.
    #[error("this is not a link to a node: it has to end in #ed25519:…, as alknet serve prints it")]
    NoLink,
    /// A node id alone does not tell where the node is.
    #[error("no address is known for the node {0}")]
    NoAddress(NodeId),
    /// Somebody else answers at the address.
    #[error("the identity of {label} has changed: it was {known} and is now {presented}")]
    Changed {
        /// The address or name.
        label: String,
        /// Who was expected.
        known: NodeId,
        /// Who is there.
        presented: NodeId,
        /// The file that pins.
        path: PathBuf,
    },
}

impl KnownNodesError {
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Home(error) => error.hint(),
            Self::NoAddress(_) => Some("give HOST:PORT and pin it with --pin ID".into()),
            Self::Changed { label, path, .. } => Some(format!(
                "somebody may be listening in; if the node was set up anew, remove the line of \
                 {label} from {}",
                path.display()
            )),
            Self::Malformed { .. } | Self::NoNode(_) | Self::NoLink => None,
        }
    }
}

/// One line of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    label: String,
    id: NodeId,
    /// Of a name. An address is its own label.
    address: Option<String>,
}

impl Entry {
    fn address(&self) -> &str {
        self.address.as_deref().unwrap_or(&self.label)
    }
}

/// Finds what the user calls a node: a saved name, a node id, `HOST[:PORT]`, or a link to
/// it that names its id in the fragment, as `alknet serve` prints.
pub(crate) fn resolve(home: &Home, node: &str) -> Result<Target, KnownNodesError> {
    let entries = parse(home, home.read(FILE)?.as_deref())?;
    if node.starts_with("https://") {
        let (address, id) = link(node).ok_or(KnownNodesError::NoLink)?;
        let known = entries.iter().find(|entry| entry.label == address && entry.id != id);
        return match known {
            None => Ok(Target { address, id: Some(id) }),
            Some(Entry { id: known, .. }) => {
                let (known, path) = (*known, home.path(FILE));
                Err(KnownNodesError::Changed { label: address, known, presented: id, path })
            }
        };
    }
    if node.starts_with("ed25519:") {
        let id = node.parse().map_err(|_| KnownNodesError::NoNode(node.into()))?;
        let entry = entries.iter().rfind(|entry| entry.id == id);
        let address = entry.ok_or(KnownNodesError::NoAddress(id))?.address().to_owned();
        return Ok(Target { address, id: Some(id) });
    }
    if let Some(entry) = entries.iter().find(|entry| entry.label == node) {
        return Ok(Target { address: entry.address().to_owned(), id: Some(entry.id) });
    }
    let address = address(node).ok_or_else(|| KnownNodesError::NoNode(node.into()))?;
    let id = entries.iter().find(|entry| entry.label == address).map(|entry| entry.id);
    Ok(Target { address, id })
}

/// Address and id of a link. Its path is not looked at: it may hold a secret.
fn link(text: &str) -> Option<(String, NodeId)> {
    let (url, id) = text.strip_prefix("https://")?.split_once('#')?;
    let authority = url.split(['/', '?']).next()?;
    let bare = if authority.contains(':') && !authority.ends_with(']') {
        authority.to_owned()
    } else {
        format!("{authority}:{HTTPS}")
    };
    Some((address(&bare)?, id.parse().ok()?))
}

/// Trusts who is at an address the first time; later it has to be the same.
pub(crate) fn pin(home: &Home, address: &str, id: NodeId) -> Result<Pinned, KnownNodesError> {
    insert(home, Entry { label: address.into(), id, address: None })
}

/// Saves a name for a node. The name of another node is not taken from it.
pub(crate) fn save_name(
    home: &Home,
    name: &str,
    address: &str,
    id: NodeId,
) -> Result<Pinned, KnownNodesError> {
    if !is_name(name) {
        return Err(KnownNodesError::NoNode(name.into()));
    }
    insert(home, Entry { label: name.into(), id, address: Some(address.into()) })
}

fn insert(home: &Home, new: Entry) -> Result<Pinned, KnownNodesError> {
    home.update(FILE, |content| {
        let mut entries = parse(home, content.as_deref())?;
        let Some(old) = entries.iter_mut().find(|entry| entry.label == new.label) else {
            let mut text = content.unwrap_or_default();
            if !text.is_empty() && !text.ends_with(b"\n") {
                text.push(b'\n');
            }
            text.extend_from_slice(line(&new).as_bytes());
            return Ok((Some(text), Pinned::New));
        };
        if old.id != new.id {
            let path = home.path(FILE);
            let (known, presented) = (old.id, new.id);
            return Err(KnownNodesError::Changed { label: new.label, known, presented, path });
        }
        if *old == new {
            return Ok((None, Pinned::Known));
        }
        *old = new;
        let text: String = entries.iter().map(line).collect();
        Ok((Some(text.into_bytes()), Pinned::Known))
    })
}

fn line(entry: &Entry) -> String {
    let mut line = format!("{} {}", entry.label, entry.id);
    if let Some(address) = &entry.address {
        let _ = write!(line, " {address}");
    }
    line.push('\n');
    line
}

fn parse(home: &Home, content: Option<&[u8]>) -> Result<Vec<Entry>, KnownNodesError> {
    let text = String::from_utf8_lossy(content.unwrap_or_default());
    let lines = (1..).zip(text.lines().map(str::trim));
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, text)| {
            let malformed = || KnownNodesError::Malformed { path: home.path(FILE), line: number };
            entry(text).ok_or_else(malformed)
        })
        .collect()
}

fn entry(line: &str) -> Option<Entry> {
    let mut words = line.split_whitespace();
    let label = words.next()?.to_owned();
    let id = words.next()?.parse().ok()?;
    let address = words.next().map(address);
    let complete = match &address {
        Some(address) => address.is_some() && is_name(&label),
        None => address_is_canonical(&label),
    };
    (complete && words.next().is_none()).then_some(Entry { label, id, address: address.flatten() })
}

fn address_is_canonical(label: &str) -> bool {
    address(label).as_deref() == Some(label)
}

/// What can stand for a node beside a host name: no colon, so that it is no address, and
/// nothing that a program takes for an option.
fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !text.is_empty() && !text.starts_with('-') && text.len() <= MAX_LABEL && text.bytes().all(plain)
}

/// The one spelling of `HOST[:PORT]`: lower case, with the port, IPv6 in brackets.
pub(crate) fn address(text: &str) -> Option<String> {
    if let Ok(ip) = text.parse::<Ipv6Addr>() {
        return Some(format!("[{ip}]:{DEFAULT_PORT}"));
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (ip, rest) = rest.split_once(']')?;
        let ip: Ipv6Addr = ip.parse().ok()?;
        let port = if rest.is_empty() { DEFAULT_PORT } else { port(rest.strip_prefix(':')?)? };
        return Some(format!("[{ip}]:{port}"));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, digits)) => (host, port(digits)?),
        None => (text, DEFAULT_PORT),
    };
    is_name(host).then(|| format!("{}:{port}", host.to_ascii_lowercase()))
}

fn port(digits: &str) -> Option<u16> {
    digits.parse().ok().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> (tempfile::TempDir, Home) {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(Some(folder.path().join("state"))).unwrap();
        (folder, home)
    }

    const A: NodeId = NodeId::from_bytes([0xaa; 32]);
    const B: NodeId = NodeId::from_bytes([0xbb; 32]);

    #[test]
    fn a_link_names_place_and_identity() {
        let (_folder, home) = home();
        for (link, address) in [
            (format!("https://a.example/alknet/signin/x#{A}"), "a.example:443"),
            (format!("https://A.example:4433#{A}"), "a.example:4433"),
            (format!("https://[2001:db8::1]:1/x#{A}"), "[2001:db8::1]:1"),
            (format!("https://[2001:db8::1]/x#{A}"), "[2001:db8::1]:443"),
        ] {
            let target = resolve(&home, &link).unwrap();
            assert_eq!((target.address.as_str(), target.id), (address, Some(A)));
        }
        let secret = resolve(&home, "https://a.example/alknet/signin/alk_planted").unwrap_err();
        assert!(!format!("{secret} {secret:?}").contains("planted"));
        pin(&home, "a.example:443", B).unwrap();
        let changed = resolve(&home, &format!("https://a.example#{A}"));
        assert!(matches!(changed, Err(KnownNodesError::Changed { .. })));
    }

    #[test]
    fn an_address_has_one_spelling() {
        for (text, canonical) in [
            ("Example.ORG", Some("example.org:4433")),
            ("example.org:443", Some("example.org:443")),
            ("127.0.0.1:1", Some("127.0.0.1:1")),
            ("::1", Some("[::1]:4433")),
            ("[0::1]:7", Some("[::1]:7")),
            ("[::1]", Some("[::1]:4433")),
            ("-Ffile", None),
            ("-oProxyCommand=x:22", None),
            ("a:b", None),
            ("a:0", None),
            ("a:70000", None),
            ("a b", None),
            ("user@host", None),
            ("", None),
            (":1", None),
        ] {
            assert_eq!(address(text).as_deref(), canonical, "{text}");
        }
    }

    #[test]
    fn the_first_identity_is_kept_and_a_change_is_an_error() {
        let (_folder, home) = home();
        let unknown = Target { address: "node.example:4433".into(), id: None };
        assert_eq!(resolve(&home, "node.example").unwrap(), unknown);
        assert_eq!(pin(&home, "node.example:4433", A).unwrap(), Pinned::New);
        assert_eq!(pin(&home, "node.example:4433", A).unwrap(), Pinned::Known);
        assert_eq!(resolve(&home, "Node.example:4433").unwrap().id, Some(A));
        let error = pin(&home, "node.example:4433", B).unwrap_err();
        assert!(matches!(error, KnownNodesError::Changed { known: A, presented: B, .. }));
        assert_eq!(resolve(&home, "node.example").unwrap().id, Some(A));
    }

    #[test]
    fn a_node_is_found_by_name_and_by_id() {
        let (_folder, home) = home();
        home.write(FILE, b"# my nodes\n").unwrap();
        save_name(&home, "home", "node.example:4433", A).unwrap();
        let found = Target { address: "node.example:4433".into(), id: Some(A) };
        assert_eq!(resolve(&home, "home").unwrap(), found);
        assert_eq!(resolve(&home, &A.to_string()).unwrap(), found);
        assert!(matches!(resolve(&home, &B.to_string()), Err(KnownNodesError::NoAddress(B))));
        assert!(save_name(&home, "home", "other.example:4433", B).is_err());
        save_name(&home, "home", "moved.example:1", A).unwrap();
        assert_eq!(resolve(&home, "home").unwrap().address, "moved.example:1");
    }

    #[test]
    fn a_damaged_line_is_not_passed_over() {
        let (_folder, home) = home();
        for damaged in ["node.example:4433", "a b c d", "home ed25519:00 x:1", "Node:1 @ID"] {
            let text = format!("\n{}\n", damaged.replace("@ID", &A.to_string()));
            home.write(FILE, text.as_bytes()).unwrap();
            let error = resolve(&home, "x").unwrap_err();
            assert!(matches!(error, KnownNodesError::Malformed { line: 2, .. }), "{damaged}");
        }
    }
}
