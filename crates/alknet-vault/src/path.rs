//! Where a key stands in the tree that grows from the seed, and what it is for.

use std::{fmt, str::FromStr};

/// The first index of every path of ours.
const ROOT: u32 = 74;
/// The bit that marks an index as hardened (BIP-0032).
const HARDENED: u32 = 1 << 31;
/// The depth of a node is one byte in BIP-0032.
const MAX_DEPTH: usize = 255;

/// A path of hardened indices from the master key, written `m/74'/0'/0'/0'`.
///
/// SLIP-0010 defines no other for Ed25519, so that an index without its mark is an error
/// and is never hardened silently: the same text must not mean two keys to two programs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Path(Vec<u32>);

/// A text is no path that a key can be derived for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPath {
    /// It does not begin with `m`.
    #[error("a path begins with m, as m/74'/0'/0'/0'")]
    NoRoot,
    /// An index is no number below 2^31.
    #[error("{0:?} is no index of a path: a number below 2147483648 and an apostrophe")]
    Index(String),
    /// An index is not hardened.
    #[error("the index {0} is not hardened, and Ed25519 has no other: write {0}'")]
    Unhardened(u32),
    /// It has more than 255 indices.
    #[error("a path has at most 255 indices")]
    TooDeep,
}

impl Path {
    /// The path of these indices, each below 2^31 and meant as hardened.
    pub fn hardened(indices: &[u32]) -> Result<Self, InvalidPath> {
        if indices.len() > MAX_DEPTH {
            return Err(InvalidPath::TooDeep);
        }
        match indices.iter().find(|index| **index >= HARDENED) {
            Some(index) => Err(InvalidPath::Index(index.to_string())),
            None => Ok(Self(indices.to_vec())),
        }
    }

    /// The indices as SLIP-0010 serialises them, with the bit of hardened ones set.
    pub(crate) fn indices(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().map(|index| index | HARDENED)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("m")?;
        self.0.iter().try_for_each(|index| write!(f, "/{index}'"))
    }
}

impl FromStr for Path {
    type Err = InvalidPath;

    /// Takes `'`, `h` and `H` as the mark of a hardened index, as other programs write it.
    fn from_str(text: &str) -> Result<Self, InvalidPath> {
        let mut parts = text.split('/');
        if parts.next() != Some("m") {
            return Err(InvalidPath::NoRoot);
        }
        if text.len() > MAX_DEPTH * 12 {
            return Err(InvalidPath::TooDeep);
        }
        Self::hardened(&parts.map(index).collect::<Result<Vec<_>, _>>()?)
    }
}

fn index(part: &str) -> Result<u32, InvalidPath> {
    let digits = part.strip_suffix(['\'', 'h', 'H']);
    let number = number(digits.unwrap_or(part)).ok_or_else(|| InvalidPath::Index(part.into()))?;
    if digits.is_none() { Err(InvalidPath::Unhardened(number)) } else { Ok(number) }
}

/// A decimal number below 2^31 in its shortest form.
fn number(digits: &str) -> Option<u32> {
    let number: u32 = digits.parse().ok().filter(|number| *number < HARDENED)?;
    (number.to_string() == digits).then_some(number)
}

/// What a key is for. Each has a path of its own, so that knowing one key tells nothing of
/// another; a path never changes its meaning.
///
/// | purpose | path | what comes of the 32 bytes |
/// |---|---|---|
/// | `identity` | `m/74'/0'/0'/0'` | the Ed25519 seed of the node's identity |
/// | `device-N`, N ≥ 1 | `m/74'/0'/0'/N'` | the same for a further device |
/// | `ssh-host` | `m/74'/0'/1'/0'` | the Ed25519 seed of the SSH host key |
/// | `web-certificate` | `m/74'/0'/2'/0'` | the seed that the P-256 keys of web certificates come from, by HKDF-SHA256 |
/// | `quic-tokens` | `m/74'/0'/3'/0'` | the secret behind QUIC's stateless resets and connection ids |
/// | `data-N`, N ≥ 1 | `m/74'/2'/0'/N'` | the AES-256 key for data, version N |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Purpose {
    /// The Ed25519 key that names this node or client.
    Identity,
    /// The same for a further device, from 1.
    Device(u32),
    /// The Ed25519 host key of the SSH server.
    SshHost,
    /// The seed of the P-256 keys of self-signed web certificates.
    WebCertificate,
    /// The secret behind QUIC's stateless resets and connection ids.
    QuicTokens,
    /// The key that data is encrypted with, by its version, from 1.
    Data(u32),
}

/// A text names no purpose.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no key for {0:?}")]
pub struct UnknownPurpose(String);

impl Purpose {
    /// Where its key is. Of a number only the lower 31 bits count, which is all there are.
    pub fn path(self) -> Path {
        let low = |number: u32| number & !HARDENED;
        Path(match self {
            Self::Identity => vec![ROOT, 0, 0, 0],
            Self::Device(number) => vec![ROOT, 0, 0, low(number)],
            Self::SshHost => vec![ROOT, 0, 1, 0],
            Self::WebCertificate => vec![ROOT, 0, 2, 0],
            Self::QuicTokens => vec![ROOT, 0, 3, 0],
            Self::Data(version) => vec![ROOT, 2, 0, low(version)],
        })
    }

    /// True if the 32 bytes are the seed of an Ed25519 key.
    pub fn is_ed25519(self) -> bool {
        matches!(self, Self::Identity | Self::Device(_) | Self::SshHost)
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity => f.write_str("identity"),
            Self::Device(number) => write!(f, "device-{number}"),
            Self::SshHost => f.write_str("ssh-host"),
            Self::WebCertificate => f.write_str("web-certificate"),
            Self::QuicTokens => f.write_str("quic-tokens"),
            Self::Data(version) => write!(f, "data-{version}"),
        }
    }
}

impl FromStr for Purpose {
    type Err = UnknownPurpose;

    fn from_str(text: &str) -> Result<Self, UnknownPurpose> {
        let unknown = || UnknownPurpose(text.into());
        match text {
            "identity" => return Ok(Self::Identity),
            "ssh-host" => return Ok(Self::SshHost),
            "web-certificate" => return Ok(Self::WebCertificate),
            "quic-tokens" => return Ok(Self::QuicTokens),
            _ => {}
        }
        let (name, digits) = text.rsplit_once('-').ok_or_else(unknown)?;
        match (name, number(digits).ok_or_else(unknown)?) {
            ("device", number @ 1..) => Ok(Self::Device(number)),
            ("data", version @ 1..) => Ok(Self::Data(version)),
            _ => Err(unknown()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_says_what_it_is() {
        let path: Path = "m/74'/0'/0'/7'".parse().unwrap();
        assert_eq!(path, Purpose::Device(7).path());
        assert_eq!(path.to_string(), "m/74'/0'/0'/7'");
        assert_eq!("m/74h/0H/0'/7'".parse(), Ok(path));
        assert_eq!("m".parse::<Path>().unwrap().to_string(), "m");
    }

    #[test]
    fn what_is_no_hardened_path_is_an_error() {
        let of = |text: &str| text.parse::<Path>().unwrap_err();
        assert_eq!(of("74'/0'"), InvalidPath::NoRoot);
        assert_eq!(of(""), InvalidPath::NoRoot);
        assert_eq!(of("m/74'/0"), InvalidPath::Unhardened(0));
        for bad in ["m/", "m/'", "m/74'/", "m/-1'", "m/+1'", "m/01'", "m/2147483648'", "m/1''"] {
            assert!(matches!(of(bad), InvalidPath::Index(_)), "{bad}");
        }
        assert_eq!(of(&format!("m{}", "/0'".repeat(256))), InvalidPath::TooDeep);
        assert_eq!(of(&format!("m/{}", "9".repeat(1 << 20))), InvalidPath::TooDeep);
        assert!(Path::hardened(&[1 << 31]).is_err());
    }

    /// Peers pin what comes of these.
    #[test]
    fn the_slots_do_not_move_or_meet() {
        let slots = [
            ("identity", "m/74'/0'/0'/0'"),
            ("device-1", "m/74'/0'/0'/1'"),
            ("ssh-host", "m/74'/0'/1'/0'"),
            ("web-certificate", "m/74'/0'/2'/0'"),
            ("quic-tokens", "m/74'/0'/3'/0'"),
            ("data-1", "m/74'/2'/0'/1'"),
        ];
        for (name, path) in slots {
            let purpose: Purpose = name.parse().unwrap();
            assert_eq!(purpose.to_string(), name);
            assert_eq!(purpose.path().to_string(), path);
        }
        assert_eq!(slots.iter().map(|slot| slot.1).collect::<HashSet<_>>().len(), slots.len());
    }

    #[test]
    fn nothing_else_is_a_purpose() {
        for bad in ["", "id", "device", "device-0", "device-01", "data-0", "data-x", "identity-1"] {
            assert!(bad.parse::<Purpose>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn paths_round_trip(indices in prop::collection::vec(0..1_u32 << 31, 0..10)) {
            let path = Path::hardened(&indices).unwrap();
            prop_assert_eq!(path.to_string().parse(), Ok(path));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = text.parse::<Path>();
            let _ = text.parse::<Purpose>();
        }
    }
}
