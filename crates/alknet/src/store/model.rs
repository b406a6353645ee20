//! What the store holds and how changing it fails, whichever database it is in.

use std::time::Duration;

use alknet_core::{Identity, KeyFingerprint, Scopes, Secret};
use schemars::JsonSchema;
use serde::Serialize;

use super::{OWNER, StoreError};
use crate::peer_key::PeerKey;

/// How many keys one peer may have.
pub(super) const MAX_KEYS: i64 = 64;
/// How many principals of authorities one peer may have.
pub(super) const MAX_AUTHORITIES: i64 = 64;
/// How long a sign-in link is good for.
pub(super) const LINK_LIFETIME: Duration = Duration::from_secs(15 * 60);
/// How long a session is good for.
pub(super) const SESSION_LIFETIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A peer with its keys and authorities.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Peer {
    /// Stays when keys and name change.
    pub(crate) id: String,
    /// What the owner calls it.
    pub(crate) name: String,
    /// What it may do.
    #[serde(serialize_with = "as_list")]
    #[schemars(with = "Vec<String>")]
    pub(crate) scopes: Scopes,
    /// When it was added, in seconds since 1970.
    pub(crate) created_at: i64,
    /// Its keys, the oldest first.
    pub(crate) keys: Vec<StoredKey>,
    /// The authorities whose certificates are good for it, the oldest first.
    pub(crate) authorities: Vec<StoredAuthority>,
}

/// One key of a peer.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct StoredKey {
    /// `ed25519:<hex>`, `x509:<hex>` or `SHA256:<base64>`.
    pub(crate) fingerprint: String,
    /// Its algorithm.
    pub(crate) kind: String,
    /// Where it comes from.
    pub(crate) comment: String,
    /// What it may do, where that is less than what its peer may.
    #[serde(serialize_with = "as_list")]
    #[schemars(with = "Vec<String>")]
    pub(crate) scopes: Scopes,
    /// The OpenSSH line, if it is such a key.
    pub(crate) openssh: Option<String>,
    /// When it was added, in seconds since 1970.
    pub(crate) created_at: i64,
}

/// An authority that a peer is trusted through, for one principal.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct StoredAuthority {
    /// Of its key, `SHA256:<base64>`.
    pub(crate) fingerprint: String,
    /// What a certificate must name.
    pub(crate) principal: String,
    /// Where it comes from.
    pub(crate) comment: String,
    /// What its certificates are good for, where that is less than what its peer may.
    #[serde(serialize_with = "as_list")]
    #[schemars(with = "Vec<String>")]
    pub(crate) scopes: Scopes,
    /// The OpenSSH line of its key.
    pub(crate) openssh: String,
    /// When it was added, in seconds since 1970.
    pub(crate) created_at: i64,
}

fn as_list<S: serde::Serializer>(scopes: &Scopes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(scopes.iter().map(ToString::to_string))
}

/// An authority that a peer is to be trusted through.
#[derive(Debug, Clone)]
pub(crate) struct Authority {
    /// Its key, an OpenSSH one.
    pub(crate) key: PeerKey,
    /// What its certificates must name: one of these.
    pub(crate) principals: Vec<String>,
}

/// Who makes a change. Nobody gives to others what they may not do themselves, nor changes
/// what belongs to somebody who may do more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct By<'a> {
    /// The id of their peer.
    pub(crate) id: &'a str,
    /// Their name.
    pub(crate) name: &'a str,
    /// What they may do; `None`: everything, as whoever has the state folder.
    pub(crate) limit: Option<&'a Scopes>,
}

impl By<'_> {
    /// Whoever has the state folder.
    pub(crate) const OWNER: Self = Self { id: OWNER, name: OWNER, limit: None };

    /// Whether they may do all of this themselves.
    pub(crate) fn may_all(&self, scopes: &Scopes) -> bool {
        self.limit.is_none_or(|limit| scopes.within(limit))
    }
}

impl Default for By<'_> {
    fn default() -> Self {
        Self::OWNER
    }
}

/// What is to be added to a peer, or what a new one is to have.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PeerChange<'a> {
    pub(crate) by: By<'a>,
    pub(crate) keys: &'a [PeerKey],
    pub(crate) authorities: &'a [Authority],
    /// Replaces what the peer may do. A new peer needs it.
    pub(crate) scopes: Option<&'a Scopes>,
}

/// What adding a peer did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Added {
    /// The peer is new.
    pub(crate) new: bool,
    /// So many keys are new.
    pub(crate) keys: usize,
    /// So many principals of authorities are new.
    pub(crate) principals: usize,
}

/// A peer cannot be changed so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum PeerError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A new peer may do nothing yet.
    #[error("the peer {0} is new and needs scopes")]
    NoScopes(String),
    /// The key identifies another peer.
    #[error("the key {key} belongs to the peer {peer}")]
    KeyTaken {
        /// The key.
        key: KeyFingerprint,
        /// Its peer.
        peer: String,
    },
    /// The authority's principal identifies another peer.
    #[error("the principal {principal:?} of the authority {authority} is the peer {peer}")]
    PrincipalTaken {
        /// The authority's key.
        authority: KeyFingerprint,
        /// The principal.
        principal: String,
        /// Its peer.
        peer: String,
    },
    /// There is no such peer.
    #[error("there is no peer {0}")]
    Unknown(String),
    /// The peer has no such key.
    #[error("the peer {0} has no such key")]
    UnknownKey(String),
    /// The peer is not trusted through it.
    #[error("the peer {0} has no such authority or principal")]
    UnknownAuthority(String),
    /// Who asks may not change it.
    #[error("the peer {0} may do more than who asks for the change")]
    Beyond(String),
    /// Who asks may not give that much.
    #[error("nobody can give more than they may do themselves")]
    GrantsMore,
    /// Only in a session, which ends, a key can be authorised by whom it is for.
    #[error("only a browser that is signed in can authorise a key")]
    NoSession,
    /// The owner can do everything, always.
    #[error("the owner can be neither removed nor given other scopes")]
    Owner,
    /// A bound against a store that grows without end.
    #[error("a peer has {MAX_KEYS} keys at most")]
    TooManyKeys,
    /// A bound against a store that grows without end.
    #[error("a peer has {MAX_AUTHORITIES} principals of authorities at most")]
    TooManyAuthorities,
}

impl From<sqlx::Error> for PeerError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// A token that is to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewToken<'a> {
    /// Who makes it.
    pub(crate) by: By<'a>,
    /// What the owner calls it.
    pub(crate) name: &'a str,
    /// The name of the peer that it stands for.
    pub(crate) peer: &'a str,
    /// What it may do: no more than its peer at any time. `None`: what its peer may.
    pub(crate) scopes: Option<&'a Scopes>,
    /// How long it is good for; `None`: until it is revoked.
    pub(crate) lifetime: Option<Duration>,
}

/// A token or a session, without its secret.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Token {
    /// What it is revoked by.
    pub(crate) id: String,
    /// `token` or `session`.
    pub(crate) kind: String,
    /// What the owner calls it.
    pub(crate) name: String,
    /// The name of the peer that it stands for.
    pub(crate) peer: String,
    /// What it may do, as far as its peer may.
    #[serde(serialize_with = "as_list")]
    #[schemars(with = "Vec<String>")]
    pub(crate) scopes: Scopes,
    /// Seconds since 1970.
    pub(crate) created_at: i64,
    /// Seconds since 1970; `None`: never.
    pub(crate) expires_at: Option<i64>,
    /// Seconds since 1970, to the minute; `None`: not yet.
    pub(crate) last_used_at: Option<i64>,
    /// When it was ended before its time, and by whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) revoked: Option<Revoked>,
}

/// When and by whom something was revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Revoked {
    /// Seconds since 1970.
    pub(crate) at: i64,
    /// The name of a peer: the owner, or who signed out.
    pub(crate) by: String,
}

/// The end of a peer, a key, an authority, a token or a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Revocation {
    /// `peer`, `key`, `authority`, `token` or `session`.
    pub(crate) kind: String,
    /// The id of a peer, token or session; the fingerprint of a key; an authority's
    /// fingerprint and its principal.
    pub(crate) id: String,
    /// The name of the peer whose it was.
    pub(crate) peer: String,
    /// When and by whom.
    #[serde(flatten)]
    pub(crate) revoked: Revoked,
}

/// A token cannot be made or revoked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TokenError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no such peer.
    #[error("there is no peer {0}")]
    UnknownPeer(String),
    /// A token may not do more than its peer.
    #[error("the peer {peer} may do no more than {scopes}")]
    Exceeds {
        /// The peer.
        peer: String,
        /// What it may do.
        scopes: Scopes,
    },
    /// Who asks may not act for this peer.
    #[error("the peer {0} may do more than who asks")]
    Beyond(String),
    /// Who asks may not give that much, or end what may do more.
    #[error("nobody can give or end more than they may do themselves")]
    GrantsMore,
    /// There is no such token.
    #[error("there is no token {0}")]
    Unknown(String),
}

impl From<sqlx::Error> for TokenError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// A session that has begun.
#[derive(Debug)]
pub(crate) struct SignIn {
    /// What the browser keeps as its cookie.
    pub(crate) session: Secret,
    /// How long it is good for.
    pub(crate) lifetime: Duration,
    /// Who signed in.
    pub(crate) identity: Identity,
}

/// Why a sign-in link does not work. For the audit log and the person who was sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.kind())]
pub(crate) enum SignInRefusal {
    /// Never issued, or so long ago that it is forgotten.
    Unknown,
    /// Already used.
    Used,
    /// Too old.
    Expired,
}

impl SignInRefusal {
    /// Its name among the kinds of refusals.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Unknown => "unknown sign-in link",
            Self::Used => "used sign-in link",
            Self::Expired => "expired sign-in link",
        }
    }
}
