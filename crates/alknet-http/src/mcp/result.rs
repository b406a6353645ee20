//! What a call gives, as the result of a tool.

use std::{pin::pin, time::Duration};

use alknet_call::{CallError, Execution, Kind};
use rmcp::{
    RoleServer,
    model::{CallToolResult, ContentBlock, ProgressNotificationParam, ProgressToken},
    service::{Peer, RequestContext},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::tool::{RESULT, is_wrapped};

/// The most that a subscription gives as the result of a tool.
const ITEMS: usize = 256;
const BYTES: usize = 1024 * 1024;
/// How long it may take where the caller sees nothing of it before its end.
const WAIT: Duration = Duration::from_secs(60);
/// The longest output of a query or a mutation, in bytes: that of a frame of `alknet/call`.
const OUTPUT: usize = 4 * 1024 * 1024;
/// The longest text of a progress notification, in bytes.
const MESSAGE: usize = 4096;

/// Where the caller wants to be told of progress.
pub(super) struct Progress {
    peer: Peer<RoleServer>,
    token: ProgressToken,
}

impl Progress {
    /// As the request asks for it.
    pub(super) fn of(context: &RequestContext<RoleServer>) -> Option<Self> {
        let token = context.meta.get_progress_token()?;
        Some(Self { peer: context.peer.clone(), token })
    }

    /// Tells of the item that was the `count`th. A caller who is gone is noticed elsewhere.
    async fn tell(&self, count: u32, item: &str) {
        let end = (0..=MESSAGE.min(item.len())).rev().find(|&end| item.is_char_boundary(end));
        let message = item.get(..end.unwrap_or(0)).unwrap_or_default();
        let told = ProgressNotificationParam::new(self.token.clone(), f64::from(count));
        let _ = self.peer.notify_progress(told.with_message(message)).await;
    }
}

/// Runs a call to its end. Dropping the future ends the operation.
pub(super) async fn of(
    execution: Execution,
    progress: Option<Progress>,
    shutdown: &CancellationToken,
) -> CallToolResult {
    let is_wrapped = is_wrapped(execution.operation().spec());
    let outcome = match execution.kind() {
        Kind::Query | Kind::Mutation => output(execution).await,
        Kind::Subscription => items(execution, progress, shutdown).await,
    };
    match outcome {
        Ok(value) => done(value, is_wrapped),
        Err(error) => failed(&error),
    }
}

/// A failure, for models to read and for programs.
pub(super) fn failed(error: &CallError) -> CallToolResult {
    let mut result = CallToolResult::error(vec![ContentBlock::text(error.to_string())]);
    result.structured_content = serde_json::to_value(error).ok();
    result
}

fn done(value: Value, is_wrapped: bool) -> CallToolResult {
    let text = match &value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    let mut result = CallToolResult::success(vec![ContentBlock::text(text)]);
    result.structured_content = Some(if is_wrapped { json!({ RESULT: value }) } else { value });
    result
}

async fn output(execution: Execution) -> Result<Value, CallError> {
    let output = execution.output().await?;
    if output.get().len() > OUTPUT {
        return Err(CallError::internal("the output is longer than a result may be"));
    }
    serde_json::from_str(output.get()).map_err(CallError::internal)
}

async fn items(
    mut execution: Execution,
    progress: Option<Progress>,
    shutdown: &CancellationToken,
) -> Result<Value, CallError> {
    let (mut items, mut bytes, mut count) = (Vec::new(), 0, 0_u32);
    let mut late = pin!(sleep_until(Instant::now() + WAIT));
    while items.len() < ITEMS && bytes < BYTES {
        let next = tokio::select! {
            next = execution.next() => next,
            () = late.as_mut(), if progress.is_none() => break,
            () = shutdown.cancelled() => break,
        };
        let Some(item) = next else { return Ok(json!({ "items": items, "ended": true })) };
        let item = item?;
        count = count.saturating_add(1);
        let text = item.output.get();
        bytes += text.len();
        if let Some(progress) = &progress {
            progress.tell(count, text).await;
        }
        items.push(serde_json::from_str::<Value>(text).map_err(CallError::internal)?);
    }
    execution.abort().await;
    Ok(json!({ "items": items, "ended": false }))
}
