//! What an operation looks like as a tool.

use std::sync::Arc;

use alknet_call::{Kind, Operation, OperationName, Spec};
use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use serde_json::{Value, json};

/// The namespace of the operations that tell of operations: MCP has its own way.
const DISCOVERY: &str = "services";

/// The member that holds an output that is no object.
pub(super) const RESULT: &str = "result";
/// The member that holds an input that is no object.
pub(super) const INPUT: &str = "input";

/// Whether the operation is a tool at all.
pub(super) fn is_tool(operation: &Operation) -> bool {
    operation.spec().name.namespace() != DISCOVERY
}

/// The operation as a tool.
pub(super) fn tool(spec: &Spec) -> Tool {
    let description = match spec.description.as_str() {
        "" => spec.name.to_string(),
        description => description.to_owned(),
    };
    let input = match spec.input.json() {
        Value::Object(schema) if is_object(schema) => schema.clone(),
        schema => members(INPUT, schema, "/properties/input"),
    };
    Tool::new(tool_name(&spec.name), description, input)
        .with_raw_output_schema(Arc::new(output(spec)))
        .with_annotations(annotations(spec.kind))
}

/// Whether the output of the operation is a member of the tool's.
pub(super) fn is_wrapped(spec: &Spec) -> bool {
    spec.kind != Kind::Subscription && !spec.output.json().as_object().is_some_and(is_object)
}

/// Whether what fits a schema is an object.
pub(super) fn is_object(schema: &JsonObject) -> bool {
    schema.get("type").is_some_and(|kind| kind == "object")
}

fn output(spec: &Spec) -> JsonObject {
    match (spec.kind, spec.output.json()) {
        (Kind::Subscription, item) => {
            let items = moved(item, "/properties/items/items");
            let properties = json!({
                "items": { "type": "array", "items": items },
                "ended": { "type": "boolean", "description": "Whether these are all." },
            });
            object(properties, &["items", "ended"])
        }
        (_, Value::Object(schema)) if is_object(schema) => schema.clone(),
        (_, schema) => members(RESULT, schema, "/properties/result"),
    }
}

/// The schema of an object with one member.
fn members(name: &str, schema: &Value, place: &str) -> JsonObject {
    object(json!({ name: moved(schema, place) }), &[name])
}

fn object(properties: Value, required: &[&str]) -> JsonObject {
    let mut schema = JsonObject::new();
    schema.insert("type".into(), "object".into());
    schema.insert("properties".into(), properties);
    schema.insert("required".into(), required.into());
    schema
}

/// A schema at another place of its document: what it says of itself has to be found there.
fn moved(schema: &Value, place: &str) -> Value {
    match schema {
        Value::Object(members) if members.contains_key("$id") => schema.clone(),
        Value::Object(all) => {
            let members = all.iter().filter(|(name, _)| *name != "$schema");
            let moved = members.map(|(name, value)| match value {
                Value::String(to) if name == "$ref" => (name.clone(), referred(to, place).into()),
                value => (name.clone(), moved(value, place)),
            });
            Value::Object(moved.collect())
        }
        Value::Array(all) => all.iter().map(|value| moved(value, place)).collect(),
        plain => plain.clone(),
    }
}

fn referred(to: &str, place: &str) -> String {
    match to.strip_prefix('#') {
        Some(pointer) if pointer.is_empty() || pointer.starts_with('/') => {
            format!("#{place}{pointer}")
        }
        _ => to.to_owned(),
    }
}

/// What is known of all operations of a kind. Of what a mutation changes, and of what a
/// subscription does beside giving items, nothing is known: the worst has to be expected.
fn annotations(kind: Kind) -> ToolAnnotations {
    match kind {
        Kind::Query => ToolAnnotations::new().read_only(true).destructive(false).idempotent(true),
        Kind::Mutation | Kind::Subscription => {
            ToolAnnotations::new().read_only(false).destructive(true)
        }
    }
}

/// The name of the tool. No namespace has a dot, and the ones that have no underscore end at
/// the first, so that no two operations have the same.
pub(super) fn tool_name(name: &OperationName) -> String {
    let (namespace, name) = (name.namespace(), name.name());
    let between = if namespace.contains('_') { '.' } else { '_' };
    format!("{namespace}{between}{name}")
}

/// The operation that a tool of this name is.
pub(super) fn operation_name(tool: &str) -> Option<OperationName> {
    let (namespace, name) = tool.split_once('.').or_else(|| tool.split_once('_'))?;
    let name: OperationName = format!("{namespace}/{name}").parse().ok()?;
    (tool_name(&name) == tool).then_some(name)
}

#[cfg(test)]
mod tests {
    use alknet_call::Schema;

    use super::*;

    #[test]
    fn no_two_operations_have_the_same_name() {
        let names = ["a/b", "a/b_c", "a_b/c", "a/b-c", "a_/b", "a/_b", "_a/b", "a_b/c_d"];
        let mut tools = Vec::new();
        for name in names {
            let name: OperationName = name.parse().unwrap();
            let tool = tool_name(&name);
            assert_eq!(operation_name(&tool), Some(name), "{tool}");
            assert!(!tools.contains(&tool), "{tool}");
            tools.push(tool);
        }
    }

    #[test]
    fn other_spellings_name_nothing() {
        for tool in ["", "a", "a/b", "a.b", "a_b/c", "A_b", "a__b.", ".b", "_", "a_b.c.d"] {
            assert_eq!(operation_name(tool), None, "{tool}");
        }
    }

    #[test]
    fn a_moved_schema_means_the_same() {
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": ["array", "null"],
            "items": { "anyOf": [{ "$ref": "#" }, { "$ref": "#/$defs/leaf" }] },
            "$defs": { "leaf": { "type": "integer" } },
        });
        let wrapped = members(RESULT, &schema, "/properties/result");
        let (inner, outer) = (Schema::new(schema).unwrap(), Schema::new(wrapped.into()).unwrap());
        for value in [json!([[1], [[2], null]]), json!(null), json!([["x"]]), json!([[[1.5]]])] {
            let fits = inner.check(&value).is_ok();
            assert_eq!(outer.check(&json!({ RESULT: value })).is_ok(), fits, "{value}");
        }
    }

    #[test]
    fn both_schemas_of_every_tool_are_of_objects() {
        for kind in [Kind::Query, Kind::Subscription] {
            for schema in [json!(true), json!({ "type": "string" }), json!({ "type": "object" })] {
                let schema = Schema::new(schema).unwrap();
                let tool = tool(&Spec::new("a/b", kind, schema.clone(), schema).unwrap());
                assert!(is_object(&tool.input_schema));
                assert!(is_object(tool.output_schema.as_ref().unwrap()));
            }
        }
    }
}
