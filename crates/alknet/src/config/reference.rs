//! The reference of every key, generated from the schema.

use std::fmt::Write as _;

use serde_json::Value;

use super::schema::{self, Key, is_table, properties};

/// What stands above the keys, after what the file is.
const READING: &str = "\
A line that begins with \"#\" and a key shows that key with its default. What is marked as
live is taken over by `alknet reload` or SIGHUP, which drop no session; the rest needs a
restart.";

/// A complete `alknet.toml` in which every key is explained, and has its default where it
/// has one. The keys are comments: without their `#` they say what holds anyway.
pub(crate) fn reference() -> String {
    let schema = schema::schema().to_value();
    let mut text = String::new();
    prose(&mut text, description(&schema));
    text.push_str("#\n");
    prose(&mut text, READING);
    let all = || properties(&schema).into_iter().flatten();
    for (name, schema) in all().filter(|(_, schema)| !is_table(schema)) {
        key(&mut text, &Key { name: name.clone(), schema });
    }
    for (name, table) in all().filter(|(_, schema)| is_table(schema)) {
        text.push('\n');
        prose(&mut text, description(table));
        let _ = writeln!(text, "[{name}]");
        schema::keys(table, "").iter().for_each(|it| key(&mut text, it));
    }
    text
}

fn key(text: &mut String, Key { name, schema }: &Key<'_>) {
    text.push('\n');
    prose(text, description(schema));
    for (inner, schema) in properties(schema).into_iter().flatten() {
        prose(text, &format!("{name}.{inner}: {} ({})", description(schema), kind(schema)));
    }
    let live = if (Key { name: String::new(), schema }).is_live() { "live" } else { "restart" };
    let default = schema.get("default").and_then(toml_of);
    let unset = if default.is_none() { "; not set" } else { "" };
    prose(text, &format!("({}; {live}{unset})", kind(schema)));
    for example in schema.get("examples").and_then(Value::as_array).into_iter().flatten() {
        if let Some(value) = toml_of(example) {
            prose(text, &format!("Example: {name} = {value}"));
        }
    }
    if let Some(value) = default {
        let _ = writeln!(text, "#{name} = {value}");
    }
}

/// As comments, told from keys by their space.
fn prose(text: &mut String, lines: &str) {
    for line in lines.lines() {
        let _ = writeln!(text, "# {line}");
    }
}

fn description(schema: &Value) -> &str {
    schema.get("description").and_then(Value::as_str).unwrap_or_default()
}

/// As TOML, unless it is nothing.
fn toml_of(value: &Value) -> Option<toml::Value> {
    toml::Value::try_from(value).ok()
}

/// What a value may be, in words.
fn kind(schema: &Value) -> String {
    if let Some(choices) = schema.get("enum").and_then(Value::as_array) {
        let choices: Vec<String> = choices.iter().map(Value::to_string).collect();
        return choices.join(" or ");
    }
    if let Some(items) = schema.get("items") {
        return format!("a list, each {}", kind(items));
    }
    let types: Vec<&str> = match schema.get("type") {
        Some(Value::Array(types)) => types.iter().filter_map(Value::as_str).collect(),
        Some(one) => one.as_str().into_iter().collect(),
        None => Vec::new(),
    };
    let words = types.into_iter().filter(|name| *name != "null").map(|name| match name {
        "boolean" => "true or false".into(),
        "integer" => match schema.get("minimum").and_then(Value::as_u64) {
            Some(least) => format!("a whole number, {least} or more"),
            None => "a whole number".into(),
        },
        "object" => "a table".into(),
        "string" => text_kind(schema.get("format").and_then(Value::as_str)).into(),
        other => other.to_owned(),
    });
    words.collect::<Vec<String>>().join(", or ")
}

/// The formats of our own values.
fn text_kind(format: Option<&str>) -> &'static str {
    match format {
        Some("address") => "an address and a port",
        Some("network") => "an address or a network",
        Some("origin") => "an origin",
        Some("path") => "a path",
        Some("span") => "a time: 90s, 10m, 12h or 30d",
        Some("size") => "a size: 512KiB, 64MiB or 1GiB",
        _ => "text",
    }
}
