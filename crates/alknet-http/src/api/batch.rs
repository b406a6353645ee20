//! Several calls in one request.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use alknet_call::{CallError, Kind, Output, Request as Call};
use axum::{
    body::Body,
    response::{IntoResponse as _, Response},
};
use futures_util::{StreamExt as _, stream};
use http::{StatusCode, header, request::Parts};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Api, Caller, Methods, Problem, Refusal, body};

/// How many calls one request may make, and how many of them run at the same time.
pub(super) const CALLS: usize = 64;
const CONCURRENT: usize = 8;
/// How much the outputs may come to, in bytes.
const OUTPUT: usize = 16 * 1024 * 1024;

/// A call among others.
#[derive(Deserialize)]
struct Asked {
    id: Option<Value>,
    operation: String,
    #[serde(default)]
    input: Value,
}

/// What became of it.
#[derive(Serialize)]
struct Answered {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Value>,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<Output>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Problem>,
}

impl Api {
    /// Runs calls next to each other, and answers in their order. One that fails is no
    /// failure of the others.
    pub(super) async fn batch(
        &self,
        caller: &Caller,
        parts: &Parts,
        body: Body,
    ) -> Result<Response, Refusal> {
        if let Some(options) = Methods::Write.check(parts)? {
            return Ok(options);
        }
        let timeout = body::deadline(&parts.headers)?;
        // Before the body is waited for: what is revoked meanwhile must not run any more.
        let login = caller.login()?;
        let asked = tokio::select! {
            biased;
            () = login.revoked() => return Err(Refusal::Conceal),
            asked = body::json(parts, body, self.settings.max_body) => asked?,
        };
        let asked = calls(asked)?;
        if asked.len() > CALLS {
            return Err(Problem::invalid(format!("a batch has {CALLS} calls at most")).into());
        }
        let room = AtomicUsize::new(OUTPUT);
        let running = stream::iter(asked)
            .map(|asked| self.one_of(caller, asked, timeout, &room))
            .buffered(CONCURRENT)
            .collect::<Vec<Answered>>();
        tokio::select! {
            biased;
            () = login.revoked() => Err(Refusal::Conceal),
            answered = running => Ok(answer(&answered)),
        }
    }

    async fn one_of(
        &self,
        caller: &Caller,
        mut asked: Asked,
        timeout: Option<Duration>,
        room: &AtomicUsize,
    ) -> Answered {
        let id = asked.id.take();
        let outcome = match self.called(caller, asked, timeout).await {
            Ok(output) => within(room, output),
            Err(problem) => Err(problem),
        };
        match outcome {
            Ok(output) => {
                Answered { id, status: StatusCode::OK.as_u16(), output: Some(output), error: None }
            }
            Err(problem) => Answered {
                id,
                status: problem.status().as_u16(),
                output: None,
                error: Some(problem),
            },
        }
    }

    async fn called(
        &self,
        caller: &Caller,
        asked: Asked,
        timeout: Option<Duration>,
    ) -> Result<Output, Problem> {
        let operation = self.find(caller, &asked.operation)?;
        let spec = operation.spec();
        if spec.kind == Kind::Subscription {
            return Err(Problem::invalid("a subscription cannot be in a batch"));
        }
        let mut call = Call::new(asked.operation, caller.auth.clone()).input(asked.input);
        call.timeout = timeout;
        let execution = self.start(call, spec)?;
        execution.output().await.map_err(|error| Problem::failed(error, spec))
    }
}

fn calls(asked: Value) -> Result<Vec<Asked>, Problem> {
    // An array would do for a call as well, its members in order.
    let all = serde_json::from_value::<Vec<Map<String, Value>>>(asked);
    let calls =
        all.and_then(|all| all.into_iter().map(|one| serde_json::from_value(one.into())).collect());
    calls.map_err(|error| Problem::invalid(format!("not an array of calls: {error}")))
}

/// The output, if there is still room for it.
fn within(room: &AtomicUsize, output: Output) -> Result<Output, Problem> {
    let length = output.get().len();
    let taken =
        room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(length));
    match taken {
        Ok(_) => Ok(output),
        Err(_) => {
            let message = format!("the outputs of a batch have {OUTPUT} bytes at most");
            Err(CallError::unavailable(message).into())
        }
    }
}

fn answer(answered: &[Answered]) -> Response {
    match serde_json::to_vec(answered) {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(error) => Problem::from(CallError::internal(error)).into_response(),
    }
}
