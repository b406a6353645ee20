//! The operations that tell of the others.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Access, CallError, Context, DeclaredError, InvalidOperation, Kind, Operation, OperationName,
    registry::SERVICE,
};

/// How many operations one end of a connection may say that it serves.
const MAX_SERVED: usize = 256;

/// No input.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
pub struct Nothing {}

/// An operation in a list.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
struct Listed {
    name: String,
    #[serde(rename = "type")]
    kind: Kind,
    #[serde(default)]
    description: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct List {
    operations: Vec<Listed>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Which {
    /// The name of an operation.
    name: String,
}

/// All that is told of an operation.
#[derive(Debug, Serialize, JsonSchema)]
struct Described {
    #[serde(flatten)]
    listed: Listed,
    /// A JSON Schema.
    input: Value,
    /// A JSON Schema.
    output: Value,
    errors: Vec<DeclaredError>,
}

/// An operation that a peer serves.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Served {
    /// What it is called.
    pub name: String,
    /// What kind of operation it is.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// What it does, in the peer's words.
    #[serde(default)]
    pub description: String,
    /// What it takes: a JSON Schema, which the peer checks by itself.
    #[serde(default)]
    pub input: Value,
    /// What it gives: a JSON Schema.
    #[serde(default)]
    pub output: Value,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Register {
    operations: Vec<Served>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Registered {
    operations: Vec<String>,
}

/// The operations of every node.
pub(crate) fn operations() -> Vec<Operation> {
    let all = [
        Operation::query("services/list", async |context: Context, Nothing {}| list(&context))
            .map(|list| list.describe("What the caller may use.").access(Access::Public)),
        Operation::query("services/schema", async |context: Context, which: Which| {
            schema(&context, &which)
        })
        .map(|schema| {
            schema.describe("What one operation takes and gives.").access(Access::Public)
        }),
        Operation::mutation("services/register", async |context: Context, asked: Register| {
            register(&context, asked)
        })
        .map(|register| register.describe("Says what the caller itself serves on this connection."))
        // What it names shows up at the node and may be called there.
        .map(|register| register.access(Access::Service(SERVICE))),
    ];
    let all: Result<Vec<Operation>, InvalidOperation> = all.into_iter().collect();
    match all {
        Ok(all) => all,
        Err(error) => {
            debug_assert!(false, "{error}");
            Vec::new()
        }
    }
}

fn listed(operation: &Operation) -> Listed {
    let spec = operation.spec();
    Listed { name: spec.name.to_string(), kind: spec.kind, description: spec.description.clone() }
}

fn list(context: &Context) -> Result<List, CallError> {
    let all = context.registry().visible(context.auth());
    Ok(List { operations: all.iter().map(|operation| listed(operation)).collect() })
}

fn schema(context: &Context, which: &Which) -> Result<Described, CallError> {
    let operation = context.registry().find(&which.name, context.auth());
    let operation = operation.ok_or_else(CallError::not_found)?;
    let spec = operation.spec();
    Ok(Described {
        listed: listed(&operation),
        input: spec.input.json().clone(),
        output: spec.output.json().clone(),
        errors: spec.errors.clone(),
    })
}

fn register(context: &Context, asked: Register) -> Result<Registered, CallError> {
    let Some(peer) = context.peer() else {
        return Err(CallError::forbidden("only a connection can serve operations"));
    };
    if asked.operations.len() > MAX_SERVED {
        return Err(CallError::invalid_input(format!("{MAX_SERVED} operations at most")));
    }
    for served in &asked.operations {
        let name = served.name.parse::<OperationName>();
        name.map_err(|error| CallError::invalid_input(error.to_string()))?;
        // Whether the node has it is told only of what the caller may use; the others are
        // looked for first anyway.
        if context.registry().find(&served.name, context.auth()).is_some() {
            return Err(CallError::invalid_input(format!("{} is the node's own", served.name)));
        }
    }
    let names = asked.operations.iter().map(|served| served.name.clone()).collect();
    peer.set_served(asked.operations);
    Ok(Registered { operations: names })
}
