//! What a JSON Schema says of the shape of a value, as far as a URL is concerned.
//!
//! Whether a value fits is not decided here: the registry checks every input.

use std::{collections::BTreeSet, ptr};

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

/// How many schemas are looked at for one value.
const PARTS: usize = 256;
const SCALARS: [&str; 5] = ["boolean", "integer", "null", "number", "string"];

/// The schemas that all have a say about one value.
pub(super) type Parts<'a> = Vec<&'a Map<String, Value>>;

/// A schema, and what it refers to within itself.
pub(super) struct Shape<'a> {
    root: &'a Value,
}

/// A member of an object.
pub(super) struct Member<'a> {
    pub(super) name: &'a str,
    /// What is said of it, in one or in several places.
    pub(super) schemas: Vec<&'a Value>,
    pub(super) required: bool,
}

impl<'a> Shape<'a> {
    pub(super) fn new(root: &'a Value) -> Self {
        Self { root }
    }

    /// What is said of the whole.
    pub(super) fn whole(&self) -> Parts<'a> {
        self.parts([self.root], &["allOf", "anyOf", "oneOf"])
    }

    /// What is said of a value that these are about.
    pub(super) fn all(&self, schemas: impl IntoIterator<Item = &'a Value>) -> Parts<'a> {
        self.parts(schemas, &["allOf", "anyOf", "oneOf"])
    }

    /// The members that are known by name, in order.
    pub(super) fn members(&self) -> Vec<Member<'a>> {
        let mut members: Vec<Member<'a>> = Vec::new();
        for part in self.whole() {
            let properties = part.get("properties").and_then(Value::as_object);
            for (name, schema) in properties.into_iter().flatten() {
                match members.iter_mut().find(|member| member.name == name) {
                    Some(member) => member.schemas.push(schema),
                    None => members.push(Member { name, schemas: vec![schema], required: false }),
                }
            }
        }
        // What only one of several alternatives wants is not required.
        for part in self.parts([self.root], &["allOf"]) {
            let required = part.get("required").and_then(Value::as_array).into_iter().flatten();
            for name in required.filter_map(Value::as_str) {
                let known = members.iter_mut().find(|member| member.name == name);
                known.into_iter().for_each(|member| member.required = true);
            }
        }
        members
    }

    /// What is said of the member of this name.
    pub(super) fn member(&self, name: &str) -> Parts<'a> {
        let whole = self.whole();
        let named = whole.iter().filter_map(|part| part.get("properties")?.get(name));
        let named: Vec<&'a Value> = named.collect();
        match named.is_empty() {
            false => self.all(named),
            true => self.all(whole.iter().filter_map(|part| part.get("additionalProperties"))),
        }
    }

    /// What is said of the elements of an array.
    pub(super) fn elements(&self, array: &Parts<'a>) -> Parts<'a> {
        self.all(array.iter().filter_map(|part| part.get("items")))
    }

    /// Follows references and the keywords that put schemas together. Bounded, also where
    /// references go in circles.
    fn parts(&self, schemas: impl IntoIterator<Item = &'a Value>, keywords: &[&str]) -> Parts<'a> {
        let mut parts: Parts<'a> = Vec::new();
        let mut next: Vec<&'a Value> = schemas.into_iter().collect();
        next.reverse();
        while let Some(schema) = next.pop() {
            let Some(part) = schema.as_object() else { continue };
            if parts.len() == PARTS || parts.iter().any(|known| ptr::eq(*known, part)) {
                continue;
            }
            parts.push(part);
            let reference = part.get("$ref").and_then(Value::as_str);
            next.extend(reference.and_then(|reference| self.resolve(reference)));
            let lists = keywords.iter().filter_map(|keyword| part.get(*keyword)?.as_array());
            next.extend(lists.flatten());
        }
        parts
    }

    fn resolve(&self, reference: &str) -> Option<&'a Value> {
        let pointer = percent_decode_str(reference.strip_prefix('#')?).decode_utf8().ok()?;
        self.root.pointer(&pointer)
    }
}

/// The types that a value may have.
#[derive(Debug)]
pub(super) enum Types<'a> {
    /// Nothing is said of them.
    Any,
    /// These and no others.
    Of(BTreeSet<&'a str>),
}

impl<'a> Types<'a> {
    pub(super) fn of(parts: &Parts<'a>) -> Self {
        let mut types: BTreeSet<&'a str> = BTreeSet::new();
        for part in parts {
            match part.get("type") {
                Some(Value::String(name)) => drop(types.insert(name.as_str())),
                Some(Value::Array(names)) => types.extend(names.iter().filter_map(Value::as_str)),
                _ => {}
            }
            types.extend(choices(part).map(|choice| -> &'a str { name_of(choice) }));
        }
        if types.is_empty() { Self::Any } else { Self::Of(types) }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Of(types) => types.contains(name),
        }
    }

    /// Whether a value is of one of them.
    pub(super) fn admit(&self, value: &Value) -> bool {
        self.has(name_of(value))
            || (value.is_number() && (self.has("integer") || self.has("number")))
    }

    /// Whether there is nothing but text, numbers and the like.
    pub(super) fn are_scalar(&self) -> bool {
        match self {
            Self::Any => false,
            Self::Of(types) => types.iter().all(|name| SCALARS.contains(name)),
        }
    }
}

/// The values that a schema names one by one.
pub(super) fn choices(part: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    let listed = part.get("enum").and_then(Value::as_array).into_iter().flatten();
    listed.chain(part.get("const"))
}

fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
