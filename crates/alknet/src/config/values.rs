//! The kinds of values, each with the one way to write it.

use std::{
    borrow::Cow,
    fmt,
    net::IpAddr,
    ops::Deref,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use alknet_http::DecoyError;
use http::Uri;
use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A length of time in whole seconds, written as `90s`, `10m`, `12h` or `30d`. In the file a
/// bare number counts seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span(u64);

/// The units of a [`Span`], the longest first.
const SPANS: [(&str, u64); 4] = [("d", 24 * 60 * 60), ("h", 60 * 60), ("m", 60), ("s", 1)];

/// A text is no length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write a time as 90s, 10m, 12h or 30d")]
pub(crate) struct InvalidSpan;

impl Span {
    /// So many seconds.
    pub(crate) const fn seconds(seconds: u64) -> Self {
        Self(seconds)
    }

    /// Whether it is no time at all.
    pub(crate) fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        Self::from_secs(span.0)
    }
}

impl FromStr for Span {
    type Err = InvalidSpan;

    fn from_str(text: &str) -> Result<Self, InvalidSpan> {
        counted(text, &SPANS).map(Self).ok_or(InvalidSpan)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_counted(f, self.0, &SPANS)
    }
}

/// A number of bytes, written as `64MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size(u64);

/// The units of a [`Size`], the largest first.
const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// A text is no size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write a size of one byte or more as 512KiB, 64MiB or 1GiB")]
pub(crate) struct InvalidSize;

impl Size {
    /// So many times 2^20 bytes.
    pub(crate) const fn mebibytes(count: u64) -> Self {
        Self(count << 20)
    }

    /// In bytes.
    pub(crate) fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = InvalidSize;

    fn from_str(text: &str) -> Result<Self, InvalidSize> {
        counted(text, &SIZES).filter(|bytes| *bytes > 0).map(Self).ok_or(InvalidSize)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_counted(f, self.0, &SIZES)
    }
}

/// A number of digits alone and a unit, multiplied. The number is a `u32`, so that no unit
/// can overflow.
fn counted(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = text.split_at_checked(digits)?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    Some(u64::from(count.parse::<u32>().ok()?) * factor)
}

/// In the largest unit that leaves no rest.
fn write_counted(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)]) -> fmt::Result {
    let fits = |(_, factor): &&(&str, u64)| value != 0 && value.is_multiple_of(*factor);
    match units.iter().find(fits).or_else(|| units.last()) {
        Some((name, factor)) => write!(f, "{}{name}", value / factor),
        None => Ok(()),
    }
}

/// What strangers see, as one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decoy(alknet_http::Decoy);

/// A text is no decoy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidDecoy {
    /// An address was meant, and this is none.
    #[error("not a URL: {0}")]
    Uri(String),
    /// It cannot be served.
    #[error(transparent)]
    Decoy(#[from] DecoyError),
}

impl Decoy {
    /// The folder that is shown, if it is one.
    pub(crate) fn folder(&self) -> Option<&Path> {
        match &self.0 {
            alknet_http::Decoy::Folder(folder) => Some(folder),
            _ => None,
        }
    }

    /// Without the name and the password that its address may have.
    pub(super) fn without_userinfo(self) -> Self {
        use alknet_http::Decoy as Site;
        let plain = |uri: Uri| {
            let host = uri.authority()?.as_str().rsplit_once('@')?.1.to_owned();
            let mut parts = uri.into_parts();
            parts.authority = Some(host.parse().ok()?);
            Uri::from_parts(parts).ok()
        };
        Self(match self.0 {
            Site::Proxy(uri) => Site::Proxy(plain(uri.clone()).unwrap_or(uri)),
            Site::Redirect(uri) => Site::Redirect(plain(uri.clone()).unwrap_or(uri)),
            other => other,
        })
    }

    pub(super) fn settle(&mut self, root: &Path) {
        if let alknet_http::Decoy::Folder(folder) = &mut self.0 {
            *folder = root.join(&*folder);
        }
    }
}

impl From<Decoy> for alknet_http::Decoy {
    fn from(decoy: Decoy) -> Self {
        decoy.0
    }
}

impl FromStr for Decoy {
    type Err = InvalidDecoy;

    fn from_str(text: &str) -> Result<Self, InvalidDecoy> {
        use alknet_http::Decoy as Site;
        let uri = |text: &str| Uri::from_str(text).map_err(|_| InvalidDecoy::Uri(text.into()));
        let site = match text.strip_prefix("redirect:") {
            Some(target) => Site::Redirect(uri(target)?),
            None if text == "404" => Site::NotFound,
            None if text.contains("://") => Site::Proxy(uri(text)?),
            None => Site::Folder(text.into()),
        };
        site.check()?;
        Ok(Self(site))
    }
}

impl fmt::Display for Decoy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use alknet_http::Decoy as Site;
        match &self.0 {
            Site::Folder(folder) => write!(f, "{}", folder.display()),
            Site::Redirect(uri) => write!(f, "redirect:{uri}"),
            Site::Proxy(uri) => write!(f, "{uri}"),
            _ => f.write_str("404"),
        }
    }
}

/// The origin of a page (RFC 6454), as `https://example.org`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin(String);

/// A text is no origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write an origin as https://HOST or https://HOST:PORT, with nothing behind it")]
pub(crate) struct InvalidOrigin;

impl From<Origin> for String {
    fn from(origin: Origin) -> Self {
        origin.0
    }
}

impl FromStr for Origin {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let uri = Uri::from_str(text).map_err(|_| InvalidOrigin)?;
        let scheme = matches!(uri.scheme_str(), Some("https" | "http"));
        let alone = uri.path() == "/" && uri.query().is_none();
        let host = uri.authority().is_some_and(|it| !it.as_str().contains('@'));
        (scheme && alone && host).then(|| Self(text.into())).ok_or(InvalidOrigin)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An address, or a network of addresses in CIDR notation (RFC 4632).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network(IpNet);

/// A text is no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write an address as 192.0.2.7 or 2001:db8::7, and a network as 192.0.2.0/24")]
pub(crate) struct InvalidNetwork;

impl From<IpNet> for Network {
    fn from(network: IpNet) -> Self {
        Self(network)
    }
}

impl From<Network> for IpNet {
    fn from(network: Network) -> Self {
        network.0
    }
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let address = || text.parse::<IpAddr>().map(IpNet::from);
        text.parse().or_else(|_| address()).map(Self).map_err(|_| InvalidNetwork)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A variable of an environment, written as `NAME=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variable {
    name: String,
    value: String,
}

/// A text sets no variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write a variable as NAME=value, with letters, digits and _ in its name")]
pub(crate) struct InvalidVariable;

impl From<Variable> for (String, String) {
    fn from(variable: Variable) -> Self {
        (variable.name, variable.value)
    }
}

impl FromStr for Variable {
    type Err = InvalidVariable;

    fn from_str(text: &str) -> Result<Self, InvalidVariable> {
        let (name, value) = text.split_once('=').ok_or(InvalidVariable)?;
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let begins = name.starts_with(|c: char| !c.is_ascii_digit());
        match plain && begins && !value.contains('\0') {
            true => Ok(Self { name: name.into(), value: value.into() }),
            false => Err(InvalidVariable),
        }
    }
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.value)
    }
}

/// The path of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FilePath(PathBuf);

impl FilePath {
    pub(super) fn settle(&mut self, root: &Path) {
        self.0 = root.join(&self.0);
    }
}

impl Deref for FilePath {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl<P: Into<PathBuf>> From<P> for FilePath {
    fn from(path: P) -> Self {
        Self(path.into())
    }
}

/// For people, and to compare: a path that is no Unicode loses what is not.
impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.display())
    }
}

/// `true` is the file that OpenSSH uses; a path is that file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum AuthorizedKeys {
    /// None, or `~/.ssh/authorized_keys`.
    Default(bool),
    /// This one.
    File(FilePath),
}

impl AuthorizedKeys {
    /// The file that is meant.
    pub(crate) fn file(&self) -> Result<Option<PathBuf>, etcetera::HomeDirError> {
        match self {
            Self::Default(false) => Ok(None),
            Self::Default(true) => crate::authorized_keys::AuthorizedKeys::default_path().map(Some),
            Self::File(path) => Ok(Some(path.to_path_buf())),
        }
    }
}

impl Default for AuthorizedKeys {
    fn default() -> Self {
        Self::Default(false)
    }
}

impl<'de> Deserialize<'de> for FilePath {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        PathBuf::deserialize(from).map(Self)
    }
}

impl<'de> Deserialize<'de> for AuthorizedKeys {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = AuthorizedKeys;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or a path")
            }

            fn visit_bool<E: de::Error>(self, on: bool) -> Result<AuthorizedKeys, E> {
                Ok(AuthorizedKeys::Default(on))
            }

            fn visit_str<E: de::Error>(self, path: &str) -> Result<AuthorizedKeys, E> {
                Ok(AuthorizedKeys::File(path.into()))
            }
        }

        from.deserialize_any(Visitor)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a time as 90s, 10m, 12h or 30d")
            }

            fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Span, E> {
                let seconds = u32::try_from(seconds).map_err(|_| E::custom(InvalidSpan))?;
                Ok(Span(seconds.into()))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                text.parse().map_err(E::custom)
            }
        }

        from.deserialize_any(Visitor)
    }
}

/// Values that are one text: `serde` and the schema go by `FromStr` and `Display`.
macro_rules! text {
    ($type:ident, $format:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }
        text!(@schema $type, { "type": "string", "format": $format });
    };
    (@deserialize $type:ident) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                Cow::<'de, str>::deserialize(from)?.parse().map_err(de::Error::custom)
            }
        }
    };
    (@schema $type:ident, $schema:tt) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

text!(Decoy, "decoy");
text!(@deserialize Decoy);
text!(FilePath, "path");
text!(Network, "network");
text!(@deserialize Network);
text!(Variable, "variable");
text!(@deserialize Variable);
text!(Origin, "origin");
text!(@deserialize Origin);
text!(Size, "size");
text!(@deserialize Size);
text!(Span, "span");
text!(@schema AuthorizedKeys, { "type": ["boolean", "string"], "format": "path" });
