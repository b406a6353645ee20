//! JSON Schemas of operations as components of one document.
//!
//! A schema of an operation is a document of its own, and its references start at its own
//! root. Here they have to start at the root of the description.

use std::collections::{BTreeMap, HashMap};

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use crate::api::walk;

const COMPONENTS: &str = "#/components/schemas/";
/// Keywords that change what a reference leads to.
const ODD: [&str; 6] =
    ["$anchor", "$dynamicAnchor", "$dynamicRef", "$id", "$recursiveAnchor", "$recursiveRef"];

/// A definition together with all that it refers to: what makes two of them the same.
#[derive(Debug, PartialEq)]
struct Closure {
    name: String,
    definitions: BTreeMap<String, Value>,
}

/// The schemas of a document, by their names there.
#[derive(Debug, Default)]
pub(super) struct Schemas {
    all: Map<String, Value>,
    closures: HashMap<String, Closure>,
}

impl Schemas {
    /// A schema of our own, which refers to nothing.
    pub(super) fn own(&mut self, name: &str, schema: Value) {
        self.all.insert(name.to_owned(), schema);
    }

    /// Takes in what the schema defines; what to write in its place. Where two schemas have
    /// different definitions of one name, the later gets the name of its `place`, too.
    pub(super) fn add(&mut self, schema: &Value, place: &str) -> Value {
        let definitions = definitions(schema);
        match references(schema) {
            None => json!({ "description": "A schema that only services/schema can show." }),
            Some(all) if are_known(&all, definitions) => self.shared(schema, definitions, place),
            Some(_) => self.whole(schema, place),
        }
    }

    /// The same for a part of a schema; anything, where it refers to other parts.
    pub(super) fn add_part(&mut self, part: &Value, whole: &Value, place: &str) -> Value {
        let definitions = definitions(whole);
        match references(part) {
            Some(all) if are_known(&all, definitions) => self.shared(part, definitions, place),
            _ => json!({}),
        }
    }

    /// As `components/schemas`.
    pub(super) fn into_json(self) -> Value {
        Value::Object(self.all)
    }

    /// Every definition becomes a component.
    fn shared(
        &mut self,
        schema: &Value,
        definitions: Option<&Map<String, Value>>,
        place: &str,
    ) -> Value {
        let mut renamed = HashMap::new();
        let mut fresh = Vec::new();
        for (name, definition) in definitions.into_iter().flatten() {
            let closure = closure(name, definitions);
            let (component, is_new) = self.name_for(closure, place);
            if is_new {
                fresh.push((component.clone(), definition));
            }
            renamed.insert(name.clone(), component);
        }
        let mut rename = |reference: &mut String| {
            let component = definition(reference).and_then(|name| renamed.get(&name));
            if let Some(component) = component {
                *reference = format!("{COMPONENTS}{component}");
            }
        };
        for (component, definition) in fresh {
            let mut definition = definition.clone();
            visit(&mut definition, &mut rename);
            self.all.insert(component, definition);
        }
        let mut schema = bare(schema);
        visit(&mut schema, &mut rename);
        schema
    }

    /// References lead anywhere in the schema: it becomes a component as it is.
    fn whole(&mut self, schema: &Value, place: &str) -> Value {
        let closure = Closure {
            name: place.to_owned(),
            definitions: [(String::new(), schema.clone())].into(),
        };
        let (component, _) = self.name_for(closure, place);
        let root = format!("{COMPONENTS}{component}");
        let mut schema = schema.clone();
        visit(&mut schema, &mut |reference| {
            *reference = format!("{root}{}", reference.trim_start_matches('#'));
        });
        if let Some(object) = schema.as_object_mut() {
            object.remove("$schema");
        }
        self.all.insert(component, schema);
        json!({ "$ref": root })
    }

    /// The name of a component, and whether it is a new one.
    fn name_for(&mut self, closure: Closure, place: &str) -> (String, bool) {
        let plain = sanitized(&closure.name);
        let qualified = format!("{place}.{plain}");
        let numbered = (2_u32..).map(|number| format!("{qualified}.{number}"));
        for name in [plain, qualified.clone()].into_iter().chain(numbered) {
            if self.closures.get(&name) == Some(&closure) {
                return (name, false);
            }
            if !self.closures.contains_key(&name) && !self.all.contains_key(&name) {
                self.closures.insert(name.clone(), closure);
                return (name, true);
            }
        }
        (qualified, true)
    }
}

fn definitions(schema: &Value) -> Option<&Map<String, Value>> {
    schema.get("$defs").and_then(Value::as_object)
}

/// The references of a schema; `None` if they do not simply lead to places in it.
fn references(schema: &Value) -> Option<Vec<String>> {
    let mut all = Vec::new();
    let plain = visit(&mut schema.clone(), &mut |reference| all.push(reference.clone()));
    (plain && all.iter().all(|reference| reference.starts_with('#'))).then_some(all)
}

/// Whether the references lead to definitions and nowhere else.
fn are_known(references: &[String], definitions: Option<&Map<String, Value>>) -> bool {
    references.iter().all(|reference| {
        definition(reference)
            .is_some_and(|name| definitions.is_some_and(|all| all.contains_key(&name)))
    })
}

/// The schema without what stands elsewhere now.
fn bare(schema: &Value) -> Value {
    let mut schema = schema.clone();
    if let Some(object) = schema.as_object_mut() {
        object.remove("$schema");
        object.remove("$defs");
    }
    schema
}

/// A definition and those that it refers to, however far.
fn closure(name: &str, definitions: Option<&Map<String, Value>>) -> Closure {
    let mut found = BTreeMap::new();
    let mut next = vec![name.to_owned()];
    while let Some(name) = next.pop() {
        let Some(schema) = definitions.and_then(|all| all.get(&name)) else { continue };
        if found.insert(name, schema.clone()).is_none() {
            visit(&mut schema.clone(), &mut |reference| next.extend(definition(reference)));
        }
    }
    Closure { name: name.to_owned(), definitions: found }
}

/// The name in a reference to a definition.
fn definition(reference: &str) -> Option<String> {
    let name = reference.strip_prefix("#/$defs/")?;
    if name.contains('/') {
        return None;
    }
    let name = percent_decode_str(name).decode_utf8().ok()?;
    Some(name.replace("~1", "/").replace("~0", "~"))
}

/// As names of components may be written (OpenAPI 3.1, section 4.8.7).
fn sanitized(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    name.chars().map(|c| if plain(c) { c } else { '_' }).collect()
}

/// Calls `found` with every reference of a schema; whether there is no keyword that changes
/// what references mean.
fn visit(schema: &mut Value, found: &mut dyn FnMut(&mut String)) -> bool {
    let mut plain = true;
    walk::each(schema, &mut |schema| {
        plain &= !ODD.iter().any(|odd| schema.contains_key(*odd));
        if let Some(Value::String(reference)) = schema.get_mut("$ref") {
            found(reference);
        }
    });
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_shared_where_they_are_the_same() {
        let schema = |kind: &str| {
            json!({
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "properties": { "a": { "$ref": "#/$defs/A" }, "$ref": { "type": "null" } },
                "$defs": { "A": { "items": { "$ref": "#/$defs/B" } }, "B": { "type": kind } },
            })
        };
        let mut schemas = Schemas::default();
        let first = schemas.add(&schema("string"), "x.input");
        assert_eq!(schemas.add(&schema("string"), "y.input"), first);
        let other = schemas.add(&schema("number"), "z.input");
        assert_eq!(first["properties"]["a"]["$ref"], "#/components/schemas/A");
        assert_eq!(other["properties"]["a"]["$ref"], "#/components/schemas/z.input.A");
        let all = schemas.into_json();
        let names: Vec<&String> = all.as_object().unwrap().keys().collect();
        assert_eq!(names, ["A", "B", "z.input.A", "z.input.B"]);
        assert_eq!(all["z.input.A"]["items"]["$ref"], "#/components/schemas/z.input.B");
        assert_eq!(all["B"]["type"], "string");
    }

    #[test]
    fn a_schema_with_references_of_another_kind_stays_whole() {
        let mut schemas = Schemas::default();
        let tree = json!({ "properties": { "next": { "$ref": "#" }, "a": { "$ref": "#/properties/b" }, "b": {} } });
        let root = "#/components/schemas/x.input";
        assert_eq!(schemas.add(&tree, "x.input"), json!({ "$ref": root }));
        let all = schemas.into_json();
        assert_eq!(all["x.input"]["properties"]["next"]["$ref"], root);
        assert_eq!(all["x.input"]["properties"]["a"]["$ref"], format!("{root}/properties/b"));
    }

    #[test]
    fn what_cannot_be_moved_is_left_out_and_data_is_left_alone() {
        let mut schemas = Schemas::default();
        for odd in [
            json!({ "$id": "https://a.example/", "$ref": "#/$defs/A" }),
            json!({ "items": { "$anchor": "a" } }),
            json!({ "$ref": "https://json-schema.org/draft/2020-12/schema" }),
        ] {
            assert!(schemas.add(&odd, "x.input").get("$ref").is_none());
        }
        let data = json!({ "const": { "$ref": "#/nowhere" }, "default": { "$id": "x" } });
        assert_eq!(schemas.add(&data, "x.input"), data);
        assert_eq!(schemas.add(&json!(true), "x.input"), json!(true));
        assert_eq!(schemas.into_json(), json!({}));
    }
}
