//! Which sessions are recorded.

use std::{borrow::Cow, num::NonZeroU32};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Size, Span};
use crate::recordings::{Limits, Rules};

/// Recordings of terminals, in the folder recordings of the state folder; see alknet
/// recordings. Without who and accounts nothing is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Recordings {
    /// Whose terminals are recorded: a list of names or ids of peers, or "all".
    #[schemars(extend("x-live" = true), example = Who::example())]
    pub(crate) who: Who,
    /// The accounts of the machine whose terminals are recorded, whoever uses them.
    #[schemars(extend("x-live" = true), example = ["root"])]
    pub(crate) accounts: Vec<String>,
    /// Record what is typed as well. That has passwords in it.
    #[schemars(extend("x-live" = true))]
    pub(crate) input: bool,
    /// How many recordings are kept; the oldest of whoever has most go first.
    #[schemars(extend("x-live" = true))]
    pub(crate) keep: NonZeroU32,
    /// How long recordings are kept; 0s is for ever.
    #[schemars(extend("x-live" = true))]
    pub(crate) max_age: Span,
    /// How large recordings may be together; one may have a sixteenth of it. What is in
    /// progress or younger than a day is not removed for it: further sessions are refused.
    #[schemars(extend("x-live" = true))]
    pub(crate) max_size: Size,
}

impl Default for Recordings {
    fn default() -> Self {
        Self {
            who: Who::default(),
            accounts: Vec::new(),
            input: false,
            keep: super::count(10_000),
            max_age: Span::seconds(90 * 24 * 60 * 60),
            max_size: Size::mebibytes(4 << 10),
        }
    }
}

/// Everybody, or some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Who {
    All,
    Some(Vec<String>),
}

/// The word for everybody.
const ALL: &str = "all";

impl Who {
    fn example() -> Self {
        Self::Some(vec!["alice".into()])
    }
}

impl Default for Who {
    fn default() -> Self {
        Self::Some(Vec::new())
    }
}

impl Serialize for Who {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => ALL.serialize(to),
            Self::Some(names) => names.serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for Who {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected \"all\" or a list of names")]
        enum Written {
            Word(String),
            Names(Vec<String>),
        }
        match Written::deserialize(from)? {
            Written::Word(word) if word == ALL => Ok(Self::All),
            Written::Word(_) => Err(de::Error::custom("expected \"all\" or a list of names")),
            Written::Names(names) => Ok(Self::Some(names)),
        }
    }
}

impl JsonSchema for Who {
    fn schema_name() -> Cow<'static, str> {
        "Who".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["array", "string"],
            "items": { "type": "string" }
        })
    }
}

impl Recordings {
    /// As the recorder takes them.
    pub(crate) fn rules(&self) -> Rules {
        let who = match &self.who {
            Who::All => Vec::new(),
            Who::Some(names) => names.clone(),
        };
        let keep = std::num::NonZeroUsize::try_from(self.keep);
        let limits = Limits {
            keep: keep.unwrap_or(std::num::NonZeroUsize::MAX),
            max_age: (!self.max_age.is_zero()).then(|| self.max_age.into()),
            max_size: self.max_size.bytes(),
        };
        Rules {
            all: self.who == Who::All,
            who: who.into_iter().collect(),
            accounts: self.accounts.iter().cloned().collect(),
            input: self.input,
            limits,
        }
    }
}
