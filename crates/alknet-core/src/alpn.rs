//! Protocol names and where they stand in a URL path.

use std::{fmt, str::FromStr, sync::Arc};

/// What the names of our own services begin with.
pub const SERVICE_PREFIX: &str = "alknet/";

/// An ALPN protocol name (RFC 7301): 1 to 255 bytes of visible ASCII.
///
/// Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Alpn(Arc<str>);

/// The text is no ALPN this toolkit accepts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an ALPN is 1 to 255 visible ASCII characters, and this is not: {0:?}")]
pub struct InvalidAlpn(pub String);

impl Alpn {
    /// Parses a full protocol name such as `h3` or `alknet/echo`.
    pub fn new(name: &str) -> Result<Self, InvalidAlpn> {
        let visible = name.bytes().all(|b| b.is_ascii_graphic());
        if name.is_empty() || name.len() > 255 || !visible {
            return Err(InvalidAlpn(name.chars().take(64).collect()));
        }
        Ok(Self(name.into()))
    }

    /// The service a user means by a name: `echo` is short for `alknet/echo`, and a name
    /// with a slash, or a registered standard name given in full, stands for itself.
    pub fn service(name: &str) -> Result<Self, InvalidAlpn> {
        if name.contains('/') {
            Self::new(name)
        } else {
            Self::new(&format!("{SERVICE_PREFIX}{name}"))
        }
    }

    /// From the bytes a handshake negotiated.
    pub fn from_wire(bytes: &[u8]) -> Result<Self, InvalidAlpn> {
        let name = std::str::from_utf8(bytes)
            .map_err(|_| InvalidAlpn(String::from_utf8_lossy(bytes).into_owned()))?;
        Self::new(name)
    }

    /// The service a URL path names: `/alknet/echo` is `alknet/echo`. Only lower-case
    /// letters, digits, `-` and `.` may follow the prefix, so a path has one spelling.
    pub fn from_path(path: &str) -> Option<Self> {
        let name = path.strip_prefix('/')?.strip_prefix(SERVICE_PREFIX)?;
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
        if name.is_empty() || !name.bytes().all(plain) {
            return None;
        }
        Self::service(name).ok()
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as it stands in a handshake.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Whether this is one of our own services rather than a standard protocol.
    pub fn is_service(&self) -> bool {
        self.0.starts_with(SERVICE_PREFIX)
    }

    /// The name without our prefix: also the scope that admits to the service.
    pub fn short(&self) -> &str {
        self.0.strip_prefix(SERVICE_PREFIX).unwrap_or(&self.0)
    }

    /// Where the service is reached inside HTTPS.
    pub fn path(&self) -> String {
        format!("/{}", self.0)
    }
}

impl fmt::Display for Alpn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Alpn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl FromStr for Alpn {
    type Err = InvalidAlpn;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::new(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_and_paths_round_trip() {
        let echo = Alpn::service("echo").unwrap();
        assert_eq!(echo.as_str(), "alknet/echo");
        assert_eq!(echo.path(), "/alknet/echo");
        assert_eq!(Alpn::from_path("/alknet/echo"), Some(echo));
    }

    #[test]
    fn a_path_has_one_spelling() {
        for path in [
            "/alknet/",
            "/alknet/Echo",
            "/alknet/echo/",
            "/alknet/a/b",
            "/alknet/%65cho",
            "alknet/echo",
            "/ALKNET/echo",
            "/alknet/echo?x",
        ] {
            assert_eq!(Alpn::from_path(path), None, "{path}");
        }
    }

    #[test]
    fn bad_names_are_refused() {
        assert!(Alpn::new("").is_err());
        assert!(Alpn::new("a b").is_err());
        assert!(Alpn::new(&"a".repeat(256)).is_err());
        assert!(Alpn::from_wire(&[0xff]).is_err());
    }
}
