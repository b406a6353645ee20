//! Who is at the other end, and what they may do.

use std::{error::Error, fmt, net::SocketAddr, str::FromStr, sync::Arc, time::SystemTime};

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

#[cfg(feature = "endpoint")]
use crate::SessionHandle;
use crate::{Action, Alpn, Scopes, TransportKind, connection::BoxFuture};

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
    /// SHA-256 of an X.509 certificate (DER) whose key was proven in a TLS handshake,
    /// written `x509:<64 hex digits>`. An Ed25519 key counts by itself instead, so that
    /// its certificate can be replaced.
    X509([u8; 32]),
}

/// The text is no fingerprint of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a fingerprint is \"ed25519:\" or \"x509:\" and 64 hexadecimal digits, or \"SHA256:\" and base64"
)]
pub struct InvalidFingerprint;

impl KeyFingerprint {
    /// The fingerprint of an OpenSSH public key blob (the base64 part, decoded).
    pub fn of_openssh_blob(blob: &[u8]) -> Self {
        Self::OpenSsh(Sha256::digest(blob).into())
    }

    /// The fingerprint of an X.509 certificate in DER.
    pub fn of_certificate(der: &[u8]) -> Self {
        Self::X509(Sha256::digest(der).into())
    }
}

impl fmt::Display for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
        match self {
            Self::Ed25519(id) => write!(f, "{id}"),
            Self::OpenSsh(hash) => write!(f, "SHA256:{}", STANDARD_NO_PAD.encode(hash)),
            Self::X509(hash) => write!(f, "x509:{}", hex::encode(hash)),
        }
    }
}

impl FromStr for KeyFingerprint {
    type Err = InvalidFingerprint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
        if let Some(digits) = text.strip_prefix("x509:") {
            let mut hash = [0; 32];
            hex::decode_to_slice(digits, &mut hash).map_err(|_| InvalidFingerprint)?;
            return Ok(Self::X509(hash));
        }
        let Some(hash) = text.strip_prefix("SHA256:") else {
            return text.parse().map(Self::Ed25519).map_err(|_| InvalidFingerprint);
        };
        let bytes = STANDARD_NO_PAD.decode(hash).map_err(|_| InvalidFingerprint)?;
        Ok(Self::OpenSsh(bytes.try_into().map_err(|_| InvalidFingerprint)?))
    }
}

/// What somebody was recognised by: what has to hold for their sessions to go on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Credential {
    /// A key of theirs.
    Key(KeyFingerprint),
    /// A bearer token or the session of a browser, by the id that the store revokes it by.
    /// A ticket stands for what it was issued to.
    Token(String),
    /// A certificate for one of their principals, by an authority they are trusted through.
    Authority {
        /// The authority's key.
        key: KeyFingerprint,
        /// The principal that the store knows.
        principal: String,
    },
}

/// As [`FromStr`] reads it: for stores and logs.
impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(f, "key {key}"),
            Self::Token(id) => write!(f, "token {id}"),
            Self::Authority { key, principal } => write!(f, "authority {key} {principal}"),
        }
    }
}

/// The text is no credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a credential")]
pub struct InvalidCredential;

impl FromStr for Credential {
    type Err = InvalidCredential;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let key = |text: &str| text.parse::<KeyFingerprint>().map_err(|_| InvalidCredential);
        match text.split_once(' ').ok_or(InvalidCredential)? {
            ("key", text) => key(text).map(Self::Key),
            ("token", id) => Ok(Self::Token(id.into())),
            ("authority", rest) => {
                let (text, principal) = rest.split_once(' ').ok_or(InvalidCredential)?;
                Ok(Self::Authority { key: key(text)?, principal: principal.into() })
            }
            _ => Err(InvalidCredential),
        }
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
    /// What it was recognised by.
    pub credential: Credential,
    /// When that ends by itself; `None`: when it is revoked.
    pub valid_until: Option<SystemTime>,
}

impl Identity {
    /// Somebody recognised by `credential`, which does not end by itself.
    pub fn new(
        id: impl Into<String>,
        name: impl Into<String>,
        scopes: Scopes,
        credential: Credential,
    ) -> Self {
        Self { id: id.into(), name: name.into(), scopes, credential, valid_until: None }
    }
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
    /// A key of the protocol's own, proven inside it.
    PublicKey,
    /// A certificate of the protocol's own, proven inside it.
    Certificate,
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
            Self::PublicKey => "publickey",
            Self::Certificate => "certificate",
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
    /// The node's account of the session, for whoever authenticates inside it.
    #[cfg(feature = "endpoint")]
    pub session: SessionHandle,
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
            #[cfg(feature = "endpoint")]
            session: SessionHandle::default(),
        }
    }

    /// Whether the caller is known and may do this.
    pub fn allows<'a>(&self, action: impl Into<Action<'a>>) -> bool {
        self.identity.as_ref().is_some_and(|identity| identity.scopes.allow(action))
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
    /// Issued for a credential that does not hold any more.
    #[error("ticket of a credential that was revoked")]
    Revoked,
}

/// Looks up who holds a credential. One shared implementation; every handler is given it.
///
/// Look-ups are by fingerprint or hash, never by comparing secrets. A change in the store
/// holds for the next look-up.
///
/// What an implementation leaves out it knows nobody by.
pub trait IdentityProvider: fmt::Debug + Send + Sync + 'static {
    /// Who has this key. The caller has seen proof of possession.
    fn by_key<'a>(
        &'a self,
        _key: &'a KeyFingerprint,
    ) -> BoxFuture<'a, Result<Option<Identity>, ProviderError>> {
        Box::pin(async { Ok(None) })
    }

    /// Who holds this bearer token, with the token's scopes.
    fn by_token<'a>(
        &'a self,
        _token: &'a Secret,
    ) -> BoxFuture<'a, Result<Option<Identity>, ProviderError>> {
        Box::pin(async { Ok(None) })
    }

    /// Who is trusted through this authority for one of these principals. The caller has
    /// checked the certificate that names them: its signature, its dates, its options.
    /// Where several are, the first of `principals` that anybody is trusted for counts.
    fn by_authority<'a>(
        &'a self,
        _authority: &'a KeyFingerprint,
        _principals: &'a [String],
    ) -> BoxFuture<'a, Result<Option<Identity>, ProviderError>> {
        Box::pin(async { Ok(None) })
    }

    /// Whether anybody is trusted through this authority, for whatever principal: a refusal
    /// says so in the audit log, and nothing else hangs on it.
    fn knows_authority<'a>(
        &'a self,
        _authority: &'a KeyFingerprint,
    ) -> BoxFuture<'a, Result<bool, ProviderError>> {
        Box::pin(async { Ok(false) })
    }

    /// Who a credential stands for now; `None` once it does not hold any more. Live
    /// sessions are checked by it.
    ///
    /// As it stands it asks for keys and authorities again; who knows tokens by an id
    /// answers for those too.
    fn by_credential<'a>(
        &'a self,
        credential: &'a Credential,
    ) -> BoxFuture<'a, Result<Option<Identity>, ProviderError>> {
        match credential {
            Credential::Key(key) => self.by_key(key),
            Credential::Authority { key, principal } => {
                self.by_authority(key, std::slice::from_ref(principal))
            }
            Credential::Token(_) => Box::pin(async { Ok(None) }),
        }
    }

    /// A number that is another one when what is known may have changed. Asked several
    /// times a second, so it has to be cheap; see [`Dispatcher::watch`].
    ///
    /// [`Dispatcher::watch`]: crate::Dispatcher::watch
    fn version(&self) -> BoxFuture<'_, Result<u64, ProviderError>> {
        Box::pin(async { Ok(0) })
    }

    /// Uses up a ticket for `alpn`: the second try is refused, even at the same moment.
    fn redeem_ticket<'a>(
        &'a self,
        _ticket: &'a Secret,
        _alpn: &'a Alpn,
    ) -> BoxFuture<'a, Result<Result<Identity, TicketRefusal>, ProviderError>> {
        Box::pin(async { Ok(Err(TicketRefusal::Unknown)) })
    }

    /// Issues a ticket for `alpn` to somebody authenticated: single use, 30 seconds. It
    /// stands for the credential that the identity was recognised by.
    fn issue_ticket<'a>(
        &'a self,
        _identity: &'a Identity,
        _alpn: &'a Alpn,
    ) -> BoxFuture<'a, Result<Secret, ProviderError>> {
        Box::pin(async { Err(ProviderError::new(NoTickets)) })
    }
}

/// The provider keeps no tickets.
#[derive(Debug, thiserror::Error)]
#[error("this store of identities has no tickets")]
struct NoTickets;

/// Knows nobody: for nodes with public services alone, and for examples.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoIdentities;

impl IdentityProvider for NoIdentities {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_round_trip_as_text() {
        let id = NodeId::from_bytes([0xab; 32]);
        assert_eq!(id.to_string().parse::<NodeId>(), Ok(id));
        let key = KeyFingerprint::of_openssh_blob(b"blob");
        assert_eq!(key.to_string().parse::<KeyFingerprint>(), Ok(key));
        let key = KeyFingerprint::of_certificate(b"der");
        assert_eq!(key.to_string().parse::<KeyFingerprint>(), Ok(key));
        for bad in ["", "ed25519:", "ed25519:zz", "SHA256:AA", "x509:ab", "ab"] {
            assert!(bad.parse::<KeyFingerprint>().is_err(), "{bad}");
        }
    }

    #[test]
    fn credentials_round_trip_as_text() {
        let key = KeyFingerprint::of_openssh_blob(b"blob");
        for credential in [
            Credential::Key(key),
            Credential::Token("5f2a".into()),
            Credential::Authority { key, principal: "a team".into() },
        ] {
            assert_eq!(credential.to_string().parse::<Credential>(), Ok(credential));
        }
        for bad in ["", "key", "key x", "token", "authority x y", "other x"] {
            assert!(bad.parse::<Credential>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_secret_is_not_printed() {
        assert!(!format!("{:?}", Secret::new("alk_planted")).contains("planted"));
    }
}
