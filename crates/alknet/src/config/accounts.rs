//! Which accounts of the machine peers may use.

use std::{borrow::Cow, collections::BTreeMap, path::Path, str::FromStr};

use alknet_host::{AccountMap, EVERYBODY, Leader};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::problem::Wrong;
use crate::{store::OWNER, words::parse_name};

/// Peers, by name or id, and the login names of each.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Accounts(BTreeMap<Peer, Names>);

/// A peer's name or id, or `*` for everybody.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
struct Peer(String);

impl TryFrom<String> for Peer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == EVERYBODY { Ok(Self(text)) } else { parse_name(&text).map(Self) }
    }
}

/// One login name, or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
struct Names(Vec<String>);

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a login name or a list of them")]
enum Written {
    One(String),
    Several(Vec<String>),
}

impl TryFrom<Written> for Names {
    type Error = InvalidAccount;

    fn try_from(written: Written) -> Result<Self, InvalidAccount> {
        let names = match written {
            Written::One(name) => vec![name],
            Written::Several(names) => names,
        };
        names.iter().try_for_each(|name| login_name(name))?;
        Ok(Self(names))
    }
}

/// A text is no login name, or no peer with one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidAccount {
    /// Whatever a machine takes for a login name, it is none.
    #[error("{0:?} is no login name")]
    Name(String),
    /// There is no `=`.
    #[error("write PEER=ACCOUNT, where PEER is a name, an id, or * for everybody")]
    Form,
    /// The peer is none.
    #[error("{0}")]
    Peer(String),
}

fn login_name(text: &str) -> Result<(), InvalidAccount> {
    let odd = |c: char| c.is_control() || c.is_whitespace() || ":/@,".contains(c);
    let fits = !text.is_empty() && text.len() <= 256 && !text.starts_with('-');
    if fits && !text.contains(odd) { Ok(()) } else { Err(InvalidAccount::Name(text.into())) }
}

impl Accounts {
    /// From flags: each is one account of one peer, in the order of the command line.
    pub(crate) fn of_flags(flags: &[Mapped]) -> Option<Self> {
        let mut peers = BTreeMap::new();
        for Mapped { peer, account } in flags {
            peers.entry(peer.clone()).or_insert_with(|| Names(Vec::new())).0.push(account.clone());
        }
        (!peers.is_empty()).then_some(Self(peers))
    }

    pub(super) fn example() -> Self {
        let of = |peer: &str, names: &[&str]| {
            (Peer(peer.into()), Names(names.iter().copied().map(String::from).collect()))
        };
        Self([of("alice", &["alice", "www-data"]), of("bob", &["bob"])].into())
    }

    /// As sessions take it. The owner's own keys are for the node's account: the file
    /// `authorized_keys` is that account's.
    pub(crate) fn mapping(&self) -> AccountMap {
        let of = |(peer, names): (&'_ Peer, &'_ Names)| (peer.0.clone(), names.0.clone());
        self.0.iter().map(of).collect::<AccountMap>().with_owner(OWNER)
    }
}

impl JsonSchema for Accounts {
    fn schema_name() -> Cow<'static, str> {
        "Accounts".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "additionalProperties": {
                "anyOf": [
                    { "type": "string" },
                    { "type": "array", "items": { "type": "string" } }
                ]
            }
        })
    }
}

/// An account of a peer, as a flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mapped {
    peer: Peer,
    account: String,
}

impl FromStr for Mapped {
    type Err = InvalidAccount;

    fn from_str(text: &str) -> Result<Self, InvalidAccount> {
        let (peer, account) = text.split_once('=').ok_or(InvalidAccount::Form)?;
        login_name(account)?;
        let peer = Peer::try_from(peer.to_owned()).map_err(InvalidAccount::Peer)?;
        Ok(Self { peer, account: account.into() })
    }
}

/// A PAM service, or whether there is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub(crate) struct PamService(String);

impl Default for PamService {
    fn default() -> Self {
        Self(Self::AUTO.into())
    }
}

impl PamService {
    const AUTO: &str = "auto";
    const OFF: &str = "off";

    /// As sessions take it, for a node that is this program.
    pub(crate) fn leader(&self, program: &Path) -> Leader {
        let leader = Leader::new(program);
        match self.0.as_str() {
            Self::OFF => leader,
            Self::AUTO => leader.with_usual_pam(),
            service => leader.with_pam(service),
        }
    }

    /// Whether there is one. Blocks for the disk.
    pub(super) fn check(&self) -> Result<(), Wrong> {
        let word = [Self::AUTO, Self::OFF].contains(&self.0.as_str());
        if word || Leader::describes(&self.0) {
            return Ok(());
        }
        Err(Wrong::NoPamService { service: self.0.clone() })
    }
}
