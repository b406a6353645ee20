//! The JSON Schema of the file, and what is read off it.

use schemars::{Schema, generate::SchemaSettings};
use serde_json::{Map, Value};

use super::Config;

/// The mark of a key that a running node takes over.
const LIVE: &str = "x-live";

/// The JSON Schema of `alknet.toml` (draft 2020-12), in one piece. `x-live` marks the keys
/// that `alknet reload` changes in a running node.
pub(crate) fn schema() -> Schema {
    let settings = SchemaSettings::draft2020_12().with(|it| it.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<Config>()
}

/// A key that stands for itself: a value, or a table whose keys need each other.
#[derive(Debug)]
pub(super) struct Key<'a> {
    /// With the tables it is in.
    pub(super) name: String,
    pub(super) schema: &'a Value,
}

impl Key<'_> {
    /// Whether a running node takes it over.
    pub(super) fn is_live(&self) -> bool {
        self.schema.get(LIVE) == Some(&Value::Bool(true))
    }

    /// Its value in a configuration.
    fn of<'v>(&self, config: &'v Value) -> Option<&'v Value> {
        self.name.split('.').try_fold(config, |value, part| value.get(part))
    }
}

/// The keys of a table.
pub(super) fn properties(schema: &Value) -> Option<&Map<String, Value>> {
    schema.get("properties")?.as_object()
}

/// Whether it is a table of keys that each stand for itself.
pub(super) fn is_table(schema: &Value) -> bool {
    properties(schema).is_some() && schema.get("required").is_none()
}

/// Every key that stands for itself, with `prefix` before its name.
pub(super) fn keys<'a>(schema: &'a Value, prefix: &str) -> Vec<Key<'a>> {
    let mut found = Vec::new();
    for (name, schema) in properties(schema).into_iter().flatten() {
        let name = format!("{prefix}{name}");
        if is_table(schema) {
            found.extend(keys(schema, &format!("{name}.")));
        } else {
            found.push(Key { name, schema });
        }
    }
    found
}

/// The name of every key and table.
fn names(schema: &Value, prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (name, schema) in properties(schema).into_iter().flatten() {
        let name = format!("{prefix}{name}");
        found.extend(names(schema, &format!("{name}.")));
        found.push(name);
    }
    found
}

/// The key that was probably meant by one that does not exist: spelt alike, or in another
/// table.
pub(super) fn nearest(schema: &Value, key: &str) -> Option<String> {
    let key = key.replace('-', "_").to_lowercase();
    let names = names(schema, "");
    let distance = |name: &String| strsim::damerau_levenshtein(&key, name);
    let alike = names
        .iter()
        .map(|name| (distance(name), name))
        .min()
        .filter(|(distance, name)| distance * 3 <= name.chars().count());
    let last = |name: &str| name.rsplit('.').next().map(String::from);
    let elsewhere = || names.iter().find(|name| last(name) == last(&key));
    alike.map(|(_, name)| name).or_else(elsewhere).cloned()
}

/// Where two configurations differ.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Keys that a running node takes over.
    pub(crate) live: Vec<String>,
    /// Keys that need a restart.
    pub(crate) fixed: Vec<String>,
}

impl Config {
    /// The keys that this configuration changes in a node that started with `started` and
    /// last took over `applied`.
    pub(crate) fn difference(
        &self,
        started: &Self,
        applied: &Self,
    ) -> Result<Difference, serde_json::Error> {
        let schema = schema().to_value();
        let (new, started, applied) = (value(self)?, value(started)?, value(applied)?);
        let mut difference = Difference::default();
        for key in keys(&schema, "") {
            let (old, list) = if key.is_live() {
                (&applied, &mut difference.live)
            } else {
                (&started, &mut difference.fixed)
            };
            if key.of(old) != key.of(&new) {
                list.push(key.name);
            }
        }
        Ok(difference)
    }
}

impl Config {
    /// What holds in a node that started with `started` and last took over this: a key that
    /// needs a restart is as it was then.
    pub(crate) fn in_effect(&self, started: &Self) -> Result<Self, serde_json::Error> {
        let schema = schema().to_value();
        let (mut held, started) = (value(self)?, value(started)?);
        for key in keys(&schema, "").iter().filter(|key| !key.is_live()) {
            let pointer = format!("/{}", key.name.replace('.', "/"));
            if let (Some(place), Some(was)) = (held.pointer_mut(&pointer), key.of(&started)) {
                was.clone_into(place);
            }
        }
        serde_json::from_value(held)
    }
}

fn value(config: &Config) -> Result<Value, serde_json::Error> {
    serde_json::to_value(config)
}
