//! Who is at the other end, and what they may do.

use std::{collections::BTreeSet, error::Error, fmt, net::SocketAddr, str::FromStr, sync::Arc};

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{Alpn, TransportKind, connection::BoxFuture};

/// The public half of a node's or a client's Ed25519 key, written `ed25519:<64 hex digits>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId([u8; 32]);

/// The text is not `ed25519:` and 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key is written as \"ed25519:\" and 64 hexadecimal digits")]
pub struct InvalidNodeId;

impl NodeId {
    /// From the 32 bytes of RFC 8032.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of RFC 8032.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first digits: enough for a person to tell two apart, not enough to trust.
    pub fn short(&self) -> String {
        hex::encode(self.0).chars().take(10).collect()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ed25519:{}", hex::encode(self.0))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for NodeId {
    type Err = InvalidNodeId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix("ed25519:").ok_or(InvalidNodeId)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| InvalidNodeId)?;
        Ok(Self(bytes))
    }
}

/// What identifies a key of a peer in the store. One peer has any number of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum KeyFingerprint {
    /// An Ed25519 key proven in a TLS handshake or by Concealed HTTP authentication.
    Ed25519(NodeId),
    /// SHA-256 of an OpenSSH public key blob, as `ssh-keygen -l` prints it.
    OpenSsh([u8; 32]),
}

impl KeyFingerprint {
    /// The fingerprint of an OpenSSH public key blob (the base64 part, decoded).
    pub fn of_openssh_blob(blob: &[u8]) -> Self {
        Self::OpenSsh(Sha256::digest(blob).into())
    }
}

impl fmt::Display for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
        match self {
            Self::Ed25519(id) => write!(f, "{id}"),
            Self::OpenSsh(hash) => write!(f, "SHA256:{}", STANDARD_NO_PAD.encode(hash)),
        }
    }
}

impl FromStr for KeyFingerprint {
    type Err = InvalidNodeId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
        let Some(hash) = text.strip_prefix("SHA256:") else {
            return text.parse().map(Self::Ed25519);
        };
        let bytes = STANDARD_NO_PAD.decode(hash).map_err(|_| InvalidNodeId)?;
        Ok(Self::OpenSsh(bytes.try_into().map_err(|_| InvalidNodeId)?))
    }
}

/// What an identity may do: names such as `ssh` or `git`, and `*` for everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scopes(BTreeSet<String>);

impl Scopes {
    /// Everything.
    pub fn all() -> Self {
        Self([String::from("*")].into())
    }

    /// Whether `scope` is granted.
    pub fn allow(&self, scope: &str) -> bool {
        self.0.contains("*") || self.0.contains(scope)
    }

    /// Whether every scope of `self` is granted by `other` too.
    pub fn within(&self, other: &Self) -> bool {
        self.0.iter().all(|scope| other.allow(scope))
    }

    /// The names in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Whether nothing is granted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<S: Into<String>> FromIterator<S> for Scopes {
    fn from_iter<I: IntoIterator<Item = S>>(names: I) -> Self {
        Self(names.into_iter().map(Into::into).filter(|name: &String| !name.is_empty()).collect())
    }
}

/// Comma-separated, as on the command line and in the store.
impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, scope) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            f.write_str(scope)?;
        }
        Ok(())
    }
}

/// Somebody the node knows. The id stays when keys change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Stable and unique on this node.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What it may do.
    pub scopes: Scopes,
}

/// How somebody proved who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AuthMethod {
    /// Not at all.
    None,
    /// A client key whose possession the TLS handshake proved.
    TlsKey,
    /// A signature over a TLS exporter (RFC 9729).
    Concealed,
    /// A bearer token (RFC 6750).
    Bearer,
    /// A session cookie from a sign-in.
    Cookie,
    /// A single-use ticket.
    Ticket,
}

impl AuthMethod {
    /// The name in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::TlsKey => "tls-key",
            Self::Concealed => "concealed",
            Self::Bearer => "bearer",
            Self::Cookie => "cookie",
            Self::Ticket => "ticket",
        }
    }
}

/// Everything known of the other end of a connection when its handler starts.
#[derive(Debug, Clone)]
pub struct AuthContext {
    /// Who it is, if they are known.
    pub identity: Option<Arc<Identity>>,
    /// The protocol that was negotiated, by handshake or by CONNECT path.
    pub alpn: Alpn,
    /// What carries the connection.
    pub transport: TransportKind,
    /// The peer's address at the start.
    pub remote_addr: Option<SocketAddr>,
    /// The client key whose possession was proven, known or not.
    pub client_key: Option<KeyFingerprint>,
    /// How it was authenticated.
    pub method: AuthMethod,
}

impl AuthContext {
    /// Of somebody unknown.
    pub fn anonymous(
        alpn: Alpn,
        transport: TransportKind,
        remote_addr: Option<SocketAddr>,
    ) -> Self {
        Self {
            identity: None,
            alpn,
            transport,
            remote_addr,
            client_key: None,
            method: AuthMethod::None,
        }
    }

    /// Whether the caller is known and has `scope`.
    pub fn allows(&self, scope: &str) -> bool {
        self.identity.as_ref().is_some_and(|identity| identity.scopes.allow(scope))
    }
}

/// A bearer secret: a token, a ticket, a session. Zeroised, and never shown by `Debug`.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps a secret that came from outside.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The secret itself: for sending or showing it once, not for logs.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What the store keeps instead. The secrets hold 128 random bits or more, so a plain
    /// hash is enough; and a look-up by hash leaks no timing of the secret.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_bytes()).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The store of identities failed; the caller is refused, and the log has the cause.
#[derive(Debug, thiserror::Error)]
#[error("the identity store failed")]
pub struct ProviderError(#[source] Box<dyn Error + Send + Sync>);

impl ProviderError {
    /// Wraps the store's own error.
    pub fn new(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(source.into())
    }
}

/// Why a ticket does not admit. For the audit log: the caller is told nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketRefusal {
    /// Never issued, or so long ago that it is forgotten.
    #[error("unknown ticket")]
    Unknown,
    /// Already used.
    #[error("used ticket")]
    Used,
    /// Too old.
    #[error("expired ticket")]
    Expired,
    /// Issued for another ALPN.
    #[error("ticket for another ALPN")]
    WrongAlpn,
}

/// Looks up who holds a credential. One shared implementation; every handler is given it.
///
/// Look-ups are by fingerprint or hash, never by comparing secrets. A change in the store
/// holds for the next look-up.
pub trait IdentityProvider: fmt::Debug + Send + Sync + 'static {
    /// Who has this key. The caller has seen proof of possession.
    fn by_key<'a>(
        &'a self,
        key: &'a KeyFingerprint,
    ) -> BoxFuture<'a, Result<Option<Identity>, ProviderError>>;

    /// Who holds this bearer token, with the token's scopes.
    fn by_token<'a>(
        &'a self,
        token: &'a Secret,
    ) -> BoxFuture<'a, Result<Option<Identity>, ProviderError>>;

    /// Uses up a ticket for `alpn`: the second try is refused, even at the same moment.
    fn redeem_ticket<'a>(
        &'a self,
        ticket: &'a Secret,
        alpn: &'a Alpn,
    ) -> BoxFuture<'a, Result<Result<Identity, TicketRefusal>, ProviderError>>;

    /// Issues a ticket for `alpn` to somebody authenticated: single use, 30 seconds.
    fn issue_ticket<'a>(
        &'a self,
        identity: &'a Identity,
        alpn: &'a Alpn,
    ) -> BoxFuture<'a, Result<Secret, ProviderError>>;
}

/// Knows nobody: for nodes with public services alone, and for examples.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoIdentities;

/// Nobody is known who could hold a ticket.
#[derive(Debug, thiserror::Error)]
#[error("this node knows no identities")]
struct Nobody;

impl IdentityProvider for NoIdentities {
    fn by_key<'a>(
        &'a self,
        _key: &'a KeyFingerprint,
    ) -> BoxFuture<'a, Result<Option<Identity>, ProviderError>> {
        Box::pin(async { Ok(None) })
    }

    fn by_token<'a>(
        &'a self,
        _token: &'a Secret,
    ) -> BoxFuture<'a, Result<Option<Identity>, ProviderError>> {
        Box::pin(async { Ok(None) })
    }

    fn redeem_ticket<'a>(
        &'a self,
        _ticket: &'a Secret,
        _alpn: &'a Alpn,
    ) -> BoxFuture<'a, Result<Result<Identity, TicketRefusal>, ProviderError>> {
        Box::pin(async { Ok(Err(TicketRefusal::Unknown)) })
    }

    fn issue_ticket<'a>(
        &'a self,
        _identity: &'a Identity,
        _alpn: &'a Alpn,
    ) -> BoxFuture<'a, Result<Secret, ProviderError>> {
        Box::pin(async { Err(ProviderError::new(Nobody)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_round_trip_as_text() {
        let id = NodeId::from_bytes([0xab; 32]);
        assert_eq!(id.to_string().parse::<NodeId>(), Ok(id));
        let key = KeyFingerprint::of_openssh_blob(b"blob");
        assert_eq!(key.to_string().parse::<KeyFingerprint>(), Ok(key));
        for bad in ["", "ed25519:", "ed25519:zz", "SHA256:AA", "ab"] {
            assert!(bad.parse::<KeyFingerprint>().is_err(), "{bad}");
        }
    }

    #[test]
    fn scopes_are_exact_but_for_the_star() {
        let some: Scopes = ["ssh", "git"].into_iter().collect();
        assert!(some.allow("ssh") && !some.allow("ss") && !some.allow("*"));
        assert!(Scopes::all().allow("anything"));
        assert!(some.within(&Scopes::all()) && !Scopes::all().within(&some));
        assert!(!Scopes::default().allow(""));
        assert_eq!(some.to_string(), "git,ssh");
    }

    #[test]
    fn a_secret_is_not_printed() {
        assert!(!format!("{:?}", Secret::new("alk_planted")).contains("planted"));
    }
}
