//! Schemas of a document, each made to stand by itself.

use std::collections::BTreeMap;

use alknet_call::Schema;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use super::document::LeftOut;
use crate::api::walk;

/// How many definitions one schema may need, and how long it may get, in bytes.
const DEFINITIONS: usize = 256;
const LENGTH: usize = 256 * 1024;

/// Where schemas are looked up.
pub(super) struct Schemas<'a> {
    pub(super) root: &'a Value,
    /// Whether they are written as OpenAPI 3.0 has them, which is not JSON Schema.
    pub(super) old: bool,
}

impl<'a> Schemas<'a> {
    /// What a reference within the document leads to.
    pub(super) fn resolve(&self, reference: &str) -> Option<&'a Value> {
        let pointer = reference.strip_prefix('#')?;
        self.root.pointer(&percent_decode_str(pointer).decode_utf8().ok()?)
    }

    /// The schema with all that it refers to.
    pub(super) fn alone(&self, mut schema: Value) -> Result<Schema, LeftOut> {
        let mut names: BTreeMap<String, String> = BTreeMap::new();
        let mut definitions = Map::new();
        let mut length = 0_usize;
        let mut waiting = self.rewrite(&mut schema, &mut names)?;
        while let Some(reference) = waiting.pop() {
            let Some(name) = names.get(&reference).cloned() else { continue };
            let found = self.resolve(&reference).ok_or(LeftOut::Reference)?;
            let mut definition = found.clone();
            waiting.extend(self.rewrite(&mut definition, &mut names)?);
            length = length.saturating_add(definition.to_string().len());
            if definitions.len() == DEFINITIONS || length > LENGTH {
                return Err(LeftOut::Length);
            }
            definitions.insert(name, definition);
        }
        if let (Some(object), false) = (schema.as_object_mut(), definitions.is_empty()) {
            object.insert("$defs".into(), definitions.into());
        }
        compiled(schema)
    }

    /// Lets references lead to definitions; those that are new.
    fn rewrite(
        &self,
        schema: &mut Value,
        names: &mut BTreeMap<String, String>,
    ) -> Result<Vec<String>, LeftOut> {
        let (mut fresh, mut inside) = (Vec::new(), true);
        walk::each(schema, &mut |schema| {
            if self.old {
                modernise(schema);
            }
            // A base of its own would change what the references mean.
            for keyword in ["$id", "$anchor", "$dynamicAnchor", "$defs"] {
                schema.remove(keyword);
            }
            inside &= !schema.contains_key("$dynamicRef");
            let Some(Value::String(reference)) = schema.get_mut("$ref") else { return };
            inside &= reference.starts_with("#/");
            let count = names.len();
            let name = names.entry(reference.clone()).or_insert_with_key(|reference| {
                fresh.push(reference.clone());
                let last = reference.rsplit('/').next().unwrap_or_default();
                let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
                // The number tells apart what differs elsewhere.
                format!("{}.{count}", last.chars().map(plain).collect::<String>())
            });
            *reference = format!("#/$defs/{name}");
        });
        if inside { Ok(fresh) } else { Err(LeftOut::Reference) }
    }
}

/// The schema, without patterns where one of them cannot be run in linear time: the API
/// checks them by itself.
fn compiled(mut schema: Value) -> Result<Schema, LeftOut> {
    if let Ok(schema) = Schema::new(schema.clone()) {
        return Ok(schema);
    }
    walk::each(&mut schema, &mut |schema| {
        schema.remove("pattern");
        schema.remove("patternProperties");
    });
    Schema::new(schema).map_err(LeftOut::Schema)
}

/// A schema of OpenAPI 3.0 as JSON Schema has it.
fn modernise(schema: &mut Map<String, Value>) {
    if let Some(reference) = schema.remove("$ref") {
        schema.clear();
        schema.insert("$ref".into(), reference);
        return;
    }
    for (bound, exclusive) in [("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")] {
        match schema.get(exclusive) {
            Some(Value::Bool(true)) => {
                let value = schema.remove(bound);
                schema.remove(exclusive);
                schema.extend(value.map(|value| (exclusive.to_owned(), value)));
            }
            Some(Value::Bool(false)) => drop(schema.remove(exclusive)),
            _ => {}
        }
    }
    if schema.remove("nullable") == Some(Value::Bool(true)) {
        if let Some(Value::String(name)) = schema.get("type") {
            let types = json!([name, "null"]);
            schema.insert("type".into(), types);
        }
        if let Some(Value::Array(choices)) = schema.get_mut("enum") {
            choices.push(Value::Null);
        }
    }
}
