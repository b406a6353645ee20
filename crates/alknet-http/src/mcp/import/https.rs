//! HTTP to a server elsewhere.

use std::{collections::HashMap, error::Error, io, sync::Arc, time::Duration};

use alknet_core::Secret;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyDataStream, BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use rmcp::{
    model::{ClientJsonRpcMessage, ClientRequest, ErrorData, ServerJsonRpcMessage},
    transport::streamable_http_client::{
        StreamableHttpClient, StreamableHttpError, StreamableHttpPostResponse,
    },
};
use sse_stream::{Error as SseError, Sse, SseStream};
use tokio::time::timeout;

use crate::outbound::{Client, bearer};

/// The longest answer, in bytes: what an operation may give, and some more around it.
const ANSWER: usize = 5 * 1024 * 1024;
/// How long what ends a session may take.
const GOODBYE: Duration = Duration::from_secs(5);

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";
const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");

type Body = Limited<Incoming>;
type Failed = StreamableHttpError<HttpsError>;

/// A client of one server. Cheap to clone.
#[derive(Clone)]
pub(super) struct Https {
    client: Client,
    token: Option<Secret>,
}

/// A request came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpsError {
    #[error("the request cannot be written")]
    Request(#[source] http::Error),
    #[error("the message cannot be written")]
    Message(#[source] serde_json::Error),
    #[error("the server cannot be reached")]
    Reach(#[source] hyper_util::client::legacy::Error),
    #[error("the answer broke off or is too long")]
    Body(#[source] Box<dyn Error + Send + Sync>),
    #[error("the server answered with {0}")]
    Status(StatusCode),
}

impl Https {
    pub(super) fn new(client: Client, token: Option<Secret>) -> Self {
        Self { client, token }
    }

    async fn send(
        &self,
        method: Method,
        uri: &str,
        fields: HashMap<HeaderName, HeaderValue>,
        session: Option<&str>,
        body: Bytes,
    ) -> Result<Response<Body>, Failed> {
        let mut request = Request::builder()
            .method(method)
            .uri(uri)
            .header(header::CONTENT_TYPE, JSON)
            .header(header::ACCEPT, format!("{JSON}, {EVENTS}"));
        if let Some(session) = session {
            request = request.header(SESSION, session);
        }
        let mut request = request
            .body(Full::new(body))
            .map_err(|error| StreamableHttpError::Client(HttpsError::Request(error)))?;
        let headers = request.headers_mut();
        headers.extend(fields);
        if let Some(value) = self.token.as_ref().and_then(bearer) {
            headers.insert(header::AUTHORIZATION, value);
        }
        let answered = self.client.request(request).await;
        let answer = answered.map_err(|e| StreamableHttpError::Client(HttpsError::Reach(e)))?;
        Ok(answer.map(|body| Limited::new(body, ANSWER)))
    }
}

async fn collected(body: Body) -> Result<Bytes, Failed> {
    let collected = body.collect().await;
    let collected = collected.map_err(|e| StreamableHttpError::Client(HttpsError::Body(e)))?;
    Ok(collected.to_bytes())
}

fn events(body: Body) -> BoxStream<'static, Result<Sse, SseError>> {
    let bytes = BodyDataStream::new(body).map_err(io::Error::other);
    SseStream::from_bytes_stream(bytes).boxed()
}

fn is(response: &Response<Body>, kind: &str) -> bool {
    let value = response.headers().get(header::CONTENT_TYPE);
    let essence = value.and_then(|value| value.to_str().ok()?.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case(kind))
}

/// A refusal in the terms of the transport.
async fn refused(
    response: Response<Body>,
    message: &ClientJsonRpcMessage,
    in_session: bool,
) -> Result<StreamableHttpPostResponse, Failed> {
    let status = response.status();
    if status == StatusCode::NOT_FOUND && in_session {
        return Err(StreamableHttpError::SessionExpired);
    }
    let is_json = is(&response, JSON);
    // A server of an older revision may say so in any way.
    if let ClientJsonRpcMessage::Request(request) = message
        && matches!(request.request, ClientRequest::DiscoverRequest(_))
        && status.is_client_error()
        && !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
    {
        let body = collected(response.into_body()).await.unwrap_or_default();
        let error = match serde_json::from_slice(&body) {
            Ok(ServerJsonRpcMessage::Error(error)) => error.error,
            _ => ErrorData::invalid_request(format!("HTTP {status}"), None),
        };
        let answer = ServerJsonRpcMessage::error(error, Some(request.id.clone()));
        return Ok(StreamableHttpPostResponse::Json(answer, None));
    }
    if is_json
        && let Ok(body) = collected(response.into_body()).await
        && let Ok(answer @ ServerJsonRpcMessage::Error(_)) = serde_json::from_slice(&body)
    {
        return Ok(StreamableHttpPostResponse::Json(answer, None));
    }
    Err(StreamableHttpError::Client(HttpsError::Status(status)))
}

impl StreamableHttpClient for Https {
    type Error = HttpsError;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        _: Option<String>,
        fields: HashMap<HeaderName, HeaderValue>,
    ) -> Result<StreamableHttpPostResponse, Failed> {
        let body = serde_json::to_vec(&message)
            .map_err(|error| StreamableHttpError::Client(HttpsError::Message(error)))?;
        let response =
            self.send(Method::POST, &uri, fields, session.as_deref(), body.into()).await?;
        let status = response.status();
        if matches!(status, StatusCode::ACCEPTED | StatusCode::NO_CONTENT) {
            return Ok(StreamableHttpPostResponse::Accepted);
        }
        if !status.is_success() {
            return refused(response, &message, session.is_some()).await;
        }
        let session = response.headers().get(SESSION);
        let session = session.and_then(|id| id.to_str().ok()).map(str::to_owned);
        if is(&response, EVENTS) {
            return Ok(StreamableHttpPostResponse::Sse(events(response.into_body()), session));
        }
        let is_request = matches!(message, ClientJsonRpcMessage::Request(_));
        let body = collected(response.into_body()).await?;
        match serde_json::from_slice(&body) {
            Ok(answer) => Ok(StreamableHttpPostResponse::Json(answer, session)),
            Err(_) if !is_request => Ok(StreamableHttpPostResponse::Accepted),
            Err(error) => Err(StreamableHttpError::Deserialize(error)),
        }
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session: Arc<str>,
        _: Option<String>,
        fields: HashMap<HeaderName, HeaderValue>,
    ) -> Result<(), Failed> {
        let goodbye = self.send(Method::DELETE, &uri, fields, Some(&session), Bytes::new());
        // Whatever the server makes of it.
        let _ = timeout(GOODBYE, goodbye).await;
        Ok(())
    }

    /// Nothing is waited for beside the answers: the tools are listed again by themselves.
    async fn get_stream(
        &self,
        _: Arc<str>,
        _: Option<Arc<str>>,
        _: Option<String>,
        _: Option<String>,
        _: HashMap<HeaderName, HeaderValue>,
    ) -> Result<BoxStream<'static, Result<Sse, SseError>>, Failed> {
        Err(StreamableHttpError::ServerDoesNotSupportSse)
    }
}
