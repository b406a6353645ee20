//! What callers may have of the node's network.

use std::{borrow::Cow, num::NonZeroU32, str::FromStr};

use alknet_core::Scope;
use alknet_host::network;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Connections from the node's network and listeners in it, for SSH and alknet/forward
/// alike. Nothing is allowed without a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Forward {
    /// What is allowed, in order: the first rule whose destination matches decides, and where
    /// none does the answer is no. A rule has the keys connect, listen and udp, each a list of
    /// destinations: HOST:PORT, *.DOMAIN:PORT, NETWORK/BITS:FIRST-LAST, localhost:PORT,
    /// public:PORT, *:*, and but for udp the path of a Unix socket. Names, public and * never lead to loopback,
    /// link-local or metadata addresses. Whoever asks needs a grant that covers the rule's scope or,
    /// where it has none, of forward:connect:HOST:PORT itself (listen, udp; HOST as it was
    /// asked for). Each rule may also be written as a table, `[[forward.allow]]`.
    #[schemars(extend("x-live" = true), example = Allow::examples())]
    pub(crate) allow: Vec<Allow>,
    /// Put the destinations of what is allowed in the audit log. Refusals always are.
    #[schemars(extend("x-live" = true))]
    pub(crate) audit_destinations: bool,
    /// Connections that one identity may have open at a time; an association of datagrams
    /// counts as two. Never more than a quarter of the descriptors that the node may open:
    /// half of them are for the forwarding of all.
    #[schemars(extend("x-live" = true))]
    pub(crate) connections_per_identity: NonZeroU32,
    /// Listeners that one identity may have at a time.
    #[schemars(extend("x-live" = true))]
    pub(crate) listeners_per_identity: NonZeroU32,
}

/// One rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Allow {
    /// What may be connected to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) connect: Vec<Destination>,
    /// What the node may listen on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) listen: Vec<Destination>,
    /// Where datagrams may be sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) udp: Vec<Destination>,
    /// What a grant of the caller has to cover.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) scope: Option<Needed>,
}

/// A destination as a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Destination(network::Destination);

/// A scope without a `*`: something that a grant covers or does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Needed(String);

/// A text is no scope that a rule can ask for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidNeeded {
    /// It is no scope.
    #[error(transparent)]
    Scope(#[from] alknet_core::InvalidScope),
    /// It stands for several.
    #[error("a rule asks for one scope, such as forward:db: a * belongs into grants")]
    Star,
}

impl FromStr for Destination {
    type Err = network::InvalidDestination;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl FromStr for Needed {
    type Err = InvalidNeeded;

    fn from_str(text: &str) -> Result<Self, InvalidNeeded> {
        text.parse::<Scope>()?;
        match text.contains('*') {
            true => Err(InvalidNeeded::Star),
            false => Ok(Self(text.to_owned())),
        }
    }
}

impl Serialize for Destination {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Destination {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Destination {
    fn schema_name() -> Cow<'static, str> {
        "Destination".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "destination" })
    }
}

impl Serialize for Needed {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Needed {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Needed {
    fn schema_name() -> Cow<'static, str> {
        "Needed".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "scope" })
    }
}

impl Default for Forward {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            audit_destinations: false,
            connections_per_identity: super::count(512),
            listeners_per_identity: super::count(32),
        }
    }
}

impl Allow {
    fn examples() -> Vec<Self> {
        let all = |texts: &[&str]| texts.iter().filter_map(|text| text.parse().ok()).collect();
        let database = Self {
            connect: all(&["db.internal:5432", "/run/postgresql/*"]),
            scope: "forward:db".parse().ok(),
            ..Self::default()
        };
        let web = Self { connect: all(&["public:443", "*.internal:443"]), ..Self::default() };
        vec![database, web]
    }
}

impl Forward {
    /// As the policy takes it.
    pub(crate) fn policy(&self) -> network::Settings {
        let size = |count: NonZeroU32| usize::try_from(count.get()).unwrap_or(usize::MAX);
        let places = |places: &[Destination]| places.iter().map(|it| it.0.clone()).collect();
        let rule = |allow: &Allow| network::Rule {
            connect: places(&allow.connect),
            listen: places(&allow.listen),
            udp: places(&allow.udp),
            scope: allow.scope.as_ref().map(|scope| scope.0.clone()),
        };
        network::Settings {
            rules: self.allow.iter().map(rule).collect(),
            connections: size(self.connections_per_identity),
            listeners: size(self.listeners_per_identity),
            audit_destinations: self.audit_destinations,
            ..network::Settings::default()
        }
    }
}
