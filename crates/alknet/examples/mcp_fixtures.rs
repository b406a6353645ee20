//! The whole program with the operations that the official MCP conformance suite calls:
//! `cargo xtask conformance` runs the suite against it, so that what it tests is the node
//! itself, over its own TLS.
//!
//! The suite wants tools such as `test_simple_text`, which here is the operation
//! `test/simple_text`.

use std::process::ExitCode;

use alknet::{AdditionError, Additions};
use alknet_call::{
    CallError, Context, Handler, InvalidOperation, Items, Kind, Nothing, Operation, Output, Schema,
    Spec,
};
use alknet_core::BoxFuture;
use serde_json::{Value, json};

fn main() -> ExitCode {
    alknet::main_with(add)
}

fn add(node: &mut Additions) -> Result<(), AdditionError> {
    node.operation(simple_text())?;
    node.operation(error_handling())?;
    node.operation(progress("test/tool_with_progress"))?;
    // Whatever an operation streams, no requests and no log messages are among it.
    node.operation(progress("test/streaming_elicitation"))?;
    node.operation(progress("test/logging_tool"))?;
    node.operation(taking("json/schema_2020_12_tool", address()))?;
    node.operation(taking("test/headers", region()))
}

fn simple_text() -> Result<Operation, InvalidOperation> {
    Operation::query("test/simple_text", async |_: Context, Nothing {}| {
        Ok("This is a simple text response for testing.")
    })
}

fn error_handling() -> Result<Operation, InvalidOperation> {
    let fail = async |_: Context, Nothing {}| {
        let message = "This tool intentionally returns an error for testing";
        Err::<(), _>(CallError::declared("INTENTIONAL", message))
    };
    Ok(Operation::query("test/error_handling", fail)?.error("INTENTIONAL", "Always."))
}

fn progress(name: &str) -> Result<Operation, InvalidOperation> {
    Operation::subscription(name, async |_: Context, Nothing {}, items: Items<u8>| {
        for percent in [0, 50, 100] {
            items.send(percent).await?;
        }
        Ok(())
    })
}

/// An operation with an input schema from elsewhere, which gives back what it takes.
fn taking(name: &str, input: Value) -> Result<Operation, InvalidOperation> {
    let schemas = (Schema::new(input)?, Schema::new(json!({ "type": "object" }))?);
    Ok(Operation::raw(Spec::new(name, Kind::Query, schemas.0, schemas.1)?, Back))
}

struct Back;

impl Handler for Back {
    fn run(&self, _: Context, input: Value, _: Items) -> BoxFuture<'_, Result<Output, CallError>> {
        Box::pin(
            async move { serde_json::value::to_raw_value(&input).map_err(CallError::internal) },
        )
    }
}

/// With a parameter that clients repeat in a header.
fn region() -> Value {
    json!({
        "type": "object",
        "properties": { "region": { "type": "string", "x-mcp-header": "Region" } },
    })
}

/// With the keywords of JSON Schema 2020-12 that have to survive.
fn address() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {
            "address": {
                "$anchor": "addressDef",
                "type": "object",
                "properties": { "street": { "type": "string" }, "city": { "type": "string" } },
            },
        },
        "properties": {
            "name": { "type": "string" },
            "address": { "$ref": "#/$defs/address" },
            "contactMethod": { "type": "string", "enum": ["phone", "email"] },
            "phone": { "type": "string" },
            "email": { "type": "string" },
        },
        "allOf": [{ "anyOf": [{ "required": ["phone"] }, { "required": ["email"] }] }],
        "if": { "properties": { "contactMethod": { "const": "phone" } }, "required": ["contactMethod"] },
        "then": { "required": ["phone"] },
        "else": { "required": ["email"] },
        "additionalProperties": false,
    })
}
