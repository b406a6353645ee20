//! A tool of a server elsewhere, as an operation.

use std::{pin::pin, time::Duration};

use alknet_call::{
    CallError, Context, Handler, InvalidOperation, InvalidSchema, Items, Kind, Operation, Output,
    Schema, Spec,
};
use alknet_core::BoxFuture;
use futures_util::StreamExt as _;
use rmcp::{
    RoleClient,
    model::{
        CallToolRequest, CallToolRequestParams, CallToolResult, ClientRequest, ContentBlock,
        JsonObject, ServerResult, Tool,
    },
    service::{Peer, PeerRequestOptions, RequestHandle, ServiceError},
};
use serde_json::{Value, json};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};

use super::Server;
use crate::mcp::tool::is_object;

/// How long a call may go on of which nothing is heard, and how long in all.
const SILENCE: Duration = Duration::from_secs(60);
const TOTAL: Duration = Duration::from_secs(15 * 60);
/// The longest description and the longest message of a failure, in bytes.
const TEXT: usize = 4096;
/// The longest schema, in bytes.
const SCHEMA: usize = 64 * 1024;
/// The longest name of an operation.
const NAME: usize = 64;
/// What a tool fails with that says that it has failed.
const FAILED: &str = "TOOL_FAILED";

/// A tool that is no operation.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error(transparent)]
    Operation(#[from] InvalidOperation),
    #[error(transparent)]
    Schema(#[from] InvalidSchema),
    #[error("a schema of it is longer than {SCHEMA} bytes")]
    Long,
}

/// Calls one tool.
pub(super) struct Remote {
    tool: String,
    /// Whether the output is what the tool's own schema says.
    is_structured: bool,
    server: Server,
}

impl Remote {
    pub(super) fn operation(
        namespace: &str,
        tool: Tool,
        server: &Server,
    ) -> Result<Operation, Unusable> {
        let is_read_only =
            tool.annotations.as_ref().and_then(|hints| hints.read_only_hint).unwrap_or_default();
        let kind = if is_read_only { Kind::Query } else { Kind::Mutation };
        let output = tool.output_schema.as_deref().filter(|schema| is_object(schema));
        let is_structured = output.is_some();
        let output = output.cloned().map_or_else(content, Value::Object);
        let input = Value::Object(JsonObject::clone(&tool.input_schema));
        let name = format!("{namespace}/{}", plain(&tool.name));
        let mut spec = Spec::new(&name, kind, schema(input)?, schema(output)?)?;
        spec.description = shortened(tool.description.as_deref().unwrap_or_default()).to_owned();
        let remote = Self { tool: tool.name.into_owned(), is_structured, server: server.clone() };
        Ok(Operation::raw(spec, remote).deadline(Some(TOTAL)).error(FAILED, "The tool failed."))
    }

    async fn call(&self, context: Context, input: Value) -> Result<Output, CallError> {
        let peer = self.server.peer.borrow().clone();
        let peer = peer.ok_or_else(|| CallError::unavailable("the imported server is away"))?;
        let mut params = CallToolRequestParams::new(self.tool.clone());
        params.arguments = match input {
            Value::Object(arguments) => Some(arguments),
            _ => None,
        };
        // A call that nobody waits for any more still has to be cancelled over there.
        let (answer, answered) = oneshot::channel();
        let server = self.server.clone();
        self.server.calls.spawn(async move {
            // Whoever does not wait any more is not told.
            let _ = answer.send(forward(&server, &peer, params, &context).await);
        });
        let result = answered.await.map_err(CallError::internal)??;
        self.output(result)
    }

    fn output(&self, result: CallToolResult) -> Result<Output, CallError> {
        if result.is_error == Some(true) {
            return Err(failure(&result));
        }
        let output = match result.structured_content {
            Some(structured) if self.is_structured => structured,
            _ => json!({ "content": result.content }),
        };
        serde_json::value::to_raw_value(&output).map_err(CallError::internal)
    }
}

impl Handler for Remote {
    fn run(
        &self,
        context: Context,
        input: Value,
        _: Items,
    ) -> BoxFuture<'_, Result<Output, CallError>> {
        Box::pin(self.call(context, input))
    }
}

/// Sends a call and waits for what becomes of it.
async fn forward(
    server: &Server,
    peer: &Peer<RoleClient>,
    params: CallToolRequestParams,
    context: &Context,
) -> Result<CallToolResult, CallError> {
    let request = ClientRequest::CallToolRequest(CallToolRequest::new(params));
    let sent = peer.send_cancellable_request(request, PeerRequestOptions::no_options()).await;
    let mut handle = sent.map_err(|error| lost(&error))?;
    let mut progress = server.progress.subscribe(handle.progress_token.clone()).await;
    let mut silence = pin!(sleep_until(Instant::now() + SILENCE));
    let late = loop {
        tokio::select! {
            answer = &mut handle.rx => {
                let answer = answer.map_err(|_| lost(&ServiceError::TransportClosed))?;
                return result(answer.map_err(|error| lost(&error))?);
            }
            Some(_) = progress.next() => silence.as_mut().reset(Instant::now() + SILENCE),
            () = silence.as_mut() => break "nothing was heard",
            () = context.over() => break "nobody waits",
        }
    };
    cancel(handle, late).await;
    Err(CallError::timeout())
}

async fn cancel(handle: RequestHandle<RoleClient>, reason: &str) {
    if let Err(error) = handle.cancel(Some(reason.to_owned())).await {
        tracing::debug!(%error, "an imported tool could not be cancelled");
    }
}

fn result(answer: ServerResult) -> Result<CallToolResult, CallError> {
    match answer {
        ServerResult::CallToolResult(result) => Ok(result),
        _ => Err(CallError::unavailable("the imported server wants what is not offered to it")),
    }
}

/// What the caller is told when the server gives no result.
fn lost(error: &ServiceError) -> CallError {
    tracing::debug!(error = error as &dyn std::error::Error, "an imported tool gave no result");
    match error {
        ServiceError::McpError(error) => {
            let message = shortened(&error.message);
            CallError::declared(FAILED, message)
        }
        _ => CallError::unavailable("the imported server did not answer"),
    }
}

/// The failure that a result tells of.
fn failure(result: &CallToolResult) -> CallError {
    let text = result.content.iter().find_map(ContentBlock::as_text);
    let message = text.map_or("the tool failed", |text| shortened(&text.text));
    let error = CallError::declared(FAILED, message);
    match &result.structured_content {
        Some(details) => error.with_details(details.clone()),
        None => error,
    }
}

/// The output of a tool that says nothing of it.
fn content() -> Value {
    let blocks = json!({ "type": "array", "items": { "type": "object" } });
    json!({ "type": "object", "properties": { "content": blocks }, "required": ["content"] })
}

fn schema(json: Value) -> Result<Schema, Unusable> {
    if json.to_string().len() > SCHEMA {
        return Err(Unusable::Long);
    }
    Ok(Schema::new(json)?)
}

/// The name in the form of an operation's.
fn plain(tool: &str) -> String {
    let plain = |c: char| match c.to_ascii_lowercase() {
        c @ ('a'..='z' | '0'..='9' | '-' | '_') => c,
        _ => '_',
    };
    tool.chars().map(plain).take(NAME).collect()
}

fn shortened(text: &str) -> &str {
    let end = (0..=TEXT.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}
