//! The schemas within a JSON Schema.

use serde_json::{Map, Value};

/// Keywords whose value is a schema, an array of schemas, and an object of schemas.
const ONE: [&str; 12] = [
    "additionalItems",
    "additionalProperties",
    "contains",
    "contentSchema",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
];
const LISTS: [&str; 5] = ["allOf", "anyOf", "items", "oneOf", "prefixItems"];
const NAMED: [&str; 5] =
    ["$defs", "definitions", "dependentSchemas", "patternProperties", "properties"];

/// Calls `found` with a schema and all within it. What is data and no schema (`const`,
/// `default`) is not looked at.
pub(super) fn each(schema: &mut Value, found: &mut dyn FnMut(&mut Map<String, Value>)) {
    let Some(schema) = schema.as_object_mut() else { return };
    found(schema);
    for (keyword, value) in schema {
        let keyword = keyword.as_str();
        match value {
            Value::Array(list) if LISTS.contains(&keyword) => {
                list.iter_mut().for_each(|schema| each(schema, found));
            }
            Value::Object(named) if NAMED.contains(&keyword) => {
                named.values_mut().for_each(|schema| each(schema, found));
            }
            Value::Object(_) if ONE.contains(&keyword) => each(value, found),
            _ => {}
        }
    }
}
