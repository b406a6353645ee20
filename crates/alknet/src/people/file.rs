//! The file itself: what it may say, and who is found in it by what.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    fmt,
    hash::Hash,
    ops::Range,
    path::{Path, PathBuf},
    str::FromStr,
    time::SystemTime,
};

use alknet_core::{Credential, Identity, KeyFingerprint, NodeId, Scope, Scopes};
use serde::{Deserialize, Deserializer, de};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use toml::{Spanned, value::Datetime};

use crate::{
    peer_key::{InvalidKey, PeerKey},
    trusted_file::TrustError,
    words::{parse_name, parse_principal, parse_scope},
};

/// The file of people cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum PeopleError {
    /// It cannot be read, or must not be trusted.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// There is none.
    #[error("{path} is not there")]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// What it says cannot be used.
    #[error("{path}, line {line}: {wrong}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong there.
        wrong: Wrong,
    },
}

/// What is wrong in the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Wrong {
    /// It is not UTF-8.
    #[error("this is not UTF-8 text")]
    NotText,
    /// It is not TOML, or not of this form.
    #[error("{}", .0.message())]
    Form(Box<toml::de::Error>),
    /// It is no key that a person or an authority can have.
    #[error(transparent)]
    Key(InvalidKey),
    /// What identifies one cannot identify another, nor the same one twice.
    #[error("{what} is that of {one} and of {other}")]
    Taken {
        /// A key, a principal or a token.
        what: String,
        /// Who comes first in the order of names.
        one: String,
        /// Who comes second.
        other: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    people: BTreeMap<Name, Described>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Described {
    scopes: Vec<Granted>,
    #[serde(default)]
    keys: Vec<Spanned<String>>,
    #[serde(default)]
    authorities: Vec<Authority>,
    #[serde(default)]
    tokens: Vec<Spanned<Token>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Authority {
    key: Spanned<String>,
    principals: Vec<Spanned<Principal>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    name: Name,
    sha256: Hash256,
    key: Option<Ed25519>,
    scopes: Option<Vec<Granted>>,
    expires: Option<Expires>,
}

/// Text of one kind, read by a function that says what is wrong with it.
macro_rules! text {
    ($name:ident($inner:ty) = $read:expr) => {
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
        struct $name($inner);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                $read(&text).map(Self).map_err(de::Error::custom)
            }
        }
    };
}

text!(Name(String) = parse_name);
text!(Principal(String) = parse_principal);
text!(Granted(Scope) = parse_scope);
text!(Ed25519(NodeId) = NodeId::from_str);
text!(Hash256([u8; 32]) = sha256);

fn sha256(text: &str) -> Result<[u8; 32], &'static str> {
    let mut hash = [0; 32];
    match hex::decode_to_slice(text, &mut hash) {
        Ok(()) => Ok(hash),
        Err(_) => Err("a SHA-256 is written as 64 hexadecimal digits"),
    }
}

struct Expires(SystemTime);

impl<'de> Deserialize<'de> for Expires {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = Datetime::deserialize(from)?.to_string();
        let moment = OffsetDateTime::parse(&text, &Rfc3339).map_err(|_| {
            de::Error::custom("a moment is written with its zone: 2027-01-01T00:00:00Z")
        })?;
        Ok(Self(moment.into()))
    }
}

/// Somebody in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Person {
    /// `people.` and the name: no id of the store looks so.
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) scopes: Scopes,
}

/// A token of a person.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    person: usize,
    /// Of the person, the token, and the token's hash: another one of that name is not it.
    id: String,
    scopes: Scopes,
    expires: Option<SystemTime>,
}

/// Everybody, and what they are found by.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Directory {
    people: Vec<Person>,
    keys: HashMap<KeyFingerprint, usize>,
    principals: HashMap<(KeyFingerprint, String), usize>,
    tokens: Vec<Held>,
    hashes: HashMap<[u8; 32], usize>,
    derived: HashMap<KeyFingerprint, usize>,
    ids: HashMap<String, usize>,
}

impl Directory {
    /// Reads the content of `path`.
    pub(super) fn parse(path: &Path, content: &[u8]) -> Result<Self, PeopleError> {
        let wrong = |at: usize, wrong| PeopleError::Invalid {
            path: path.into(),
            line: content.iter().take(at).filter(|byte| **byte == b'\n').count() + 1,
            wrong,
        };
        let text = std::str::from_utf8(content)
            .map_err(|error| wrong(error.valid_up_to(), Wrong::NotText))?;
        let document: Document = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            wrong(at, Wrong::Form(Box::new(error)))
        })?;
        let mut directory = Self::default();
        for (Name(name), entry) in document.people {
            directory.add(name, entry).map_err(|(at, taken)| wrong(at.start, taken))?;
        }
        Ok(directory)
    }

    fn add(&mut self, name: String, entry: Described) -> Result<(), (Range<usize>, Wrong)> {
        let index = self.people.len();
        let id = format!("people.{name}");
        let scopes: Scopes = entry.scopes.into_iter().map(|scope| scope.0).collect();
        self.people.push(Person { id, name, scopes });
        for key in entry.keys {
            let (at, key) = (key.span(), PeerKey::parse(key.get_ref()));
            let claimed = key.map_err(Wrong::Key).and_then(|key| self.key(key.fingerprint, index));
            claimed.map_err(|wrong| (at, wrong))?;
        }
        for authority in entry.authorities {
            let key = PeerKey::parse(authority.key.get_ref()).and_then(PeerKey::into_authority);
            let key = key.map_err(|wrong| (authority.key.span(), Wrong::Key(wrong)))?.fingerprint;
            for principal in authority.principals {
                let (at, Principal(principal)) = (principal.span(), principal.into_inner());
                self.principal(key, &principal, index).map_err(|taken| (at, taken))?;
            }
        }
        for token in entry.tokens {
            let at = token.span();
            self.token(token.into_inner(), index).map_err(|taken| (at, taken))?;
        }
        Ok(())
    }

    fn key(&mut self, key: KeyFingerprint, person: usize) -> Result<(), Wrong> {
        let other = self.derived.get(&key).and_then(|token| self.tokens.get(*token));
        match other.map(|token| token.person).or_else(|| claim(&mut self.keys, key, person)) {
            Some(other) => Err(self.taken(format_args!("the key {key}"), other, person)),
            None => Ok(()),
        }
    }

    fn principal(
        &mut self,
        key: KeyFingerprint,
        principal: &str,
        person: usize,
    ) -> Result<(), Wrong> {
        match claim(&mut self.principals, (key, principal.to_owned()), person) {
            Some(other) => {
                let what = format_args!("the principal {principal:?} of the authority {key}");
                Err(self.taken(what, other, person))
            }
            None => Ok(()),
        }
    }

    fn token(&mut self, token: Token, person: usize) -> Result<(), Wrong> {
        let Some(Person { id, scopes: limit, .. }) = self.people.get(person) else {
            return Ok(());
        };
        let (name, hash) = (token.name.0, token.sha256.0);
        let start: String = hex::encode(hash).chars().take(12).collect();
        let scopes = match token.scopes {
            Some(scopes) => limit.common(&scopes.into_iter().map(|scope| scope.0).collect()),
            None => limit.clone(),
        };
        let id = format!("{id}/{name}/{start}");
        let expires = token.expires.map(|expires| expires.0);
        let index = self.tokens.len();
        self.tokens.push(Held { person, id: id.clone(), scopes, expires });
        let other = claim(&mut self.hashes, hash, index)
            .or_else(|| claim(&mut self.ids, id, index))
            .and_then(|token| self.tokens.get(token).map(|token| token.person));
        if let Some(other) = other {
            return Err(self.taken(format_args!("the token {name}"), other, person));
        }
        let Some(Ed25519(key)) = token.key else { return Ok(()) };
        let key = KeyFingerprint::Ed25519(key);
        let other = claim(&mut self.derived, key, index)
            .and_then(|token| self.tokens.get(token).map(|token| token.person))
            .or_else(|| self.keys.get(&key).copied());
        match other {
            Some(other) => Err(self.taken(format_args!("the key {key}"), other, person)),
            None => Ok(()),
        }
    }

    fn taken(&self, what: fmt::Arguments<'_>, one: usize, other: usize) -> Wrong {
        let name = |index: usize| self.people.get(index).map(|person| person.name.clone());
        let (one, other) = (name(one).unwrap_or_default(), name(other).unwrap_or_default());
        Wrong::Taken { what: what.to_string(), one, other }
    }

    /// Somebody by their name or id.
    pub(super) fn person(&self, name: &str) -> Option<&Person> {
        self.people.iter().find(|person| person.name == name || person.id == name)
    }

    pub(super) fn by_key(&self, key: &KeyFingerprint) -> Option<Identity> {
        match self.keys.get(key) {
            Some(person) => self.identity(*person, Credential::Key(*key)),
            None => self.derived.get(key).and_then(|token| self.holder(*token)),
        }
    }

    pub(super) fn by_token(&self, hash: &[u8; 32]) -> Option<Identity> {
        self.hashes.get(hash).and_then(|token| self.holder(*token))
    }

    pub(super) fn by_authority(
        &self,
        authority: &KeyFingerprint,
        principals: &[String],
    ) -> Option<Identity> {
        principals.iter().find_map(|principal| {
            let person = self.principals.get(&(*authority, principal.clone()))?;
            let credential =
                Credential::Authority { key: *authority, principal: principal.clone() };
            self.identity(*person, credential)
        })
    }

    pub(super) fn knows_authority(&self, authority: &KeyFingerprint) -> bool {
        self.principals.keys().any(|(key, _)| key == authority)
    }

    pub(super) fn by_credential(&self, credential: &Credential) -> Option<Identity> {
        match credential {
            Credential::Key(key) => self.by_key(key),
            Credential::Token(id) => self.ids.get(id).and_then(|token| self.holder(*token)),
            Credential::Authority { key, principal } => {
                self.by_authority(key, std::slice::from_ref(principal))
            }
            _ => None,
        }
    }

    fn identity(&self, person: usize, credential: Credential) -> Option<Identity> {
        let Person { id, name, scopes } = self.people.get(person)?;
        Some(Identity::new(id, name, scopes.clone(), credential))
    }

    /// Of a token that has not expired.
    fn holder(&self, token: usize) -> Option<Identity> {
        let token = self.tokens.get(token)?;
        let over = token.expires.is_some_and(|end| end <= SystemTime::now());
        let credential = Credential::Token(token.id.clone());
        let identity = self.identity(token.person, credential).filter(|_| !over)?;
        Some(Identity { scopes: token.scopes.clone(), valid_until: token.expires, ..identity })
    }
}

/// Enters something that one alone can have; gives who has it already.
fn claim<K: Eq + Hash>(map: &mut HashMap<K, usize>, key: K, by: usize) -> Option<usize> {
    match map.entry(key) {
        Entry::Occupied(taken) => Some(*taken.get()),
        Entry::Vacant(free) => {
            free.insert(by);
            None
        }
    }
}
