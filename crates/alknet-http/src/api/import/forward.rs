//! A call as a request to the API.

use std::{sync::Arc, time::Duration};

use alknet_call::{CallError, Context, Handler, Items, Output};
use alknet_core::{BoxFuture, Secret};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Uri, header, uri::PathAndQuery};
use http_body_util::Full;
use percent_encoding::{percent_decode_str, utf8_percent_encode};
use serde_json::{Map, Value};
use tokio::time::timeout;

use super::{answer, document::LeftOut};
use crate::outbound::{Client, UNRESERVED, bearer};

/// How long an answer may take where the call has no deadline.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest address, in bytes: what most servers take.
const ADDRESS: usize = 8 * 1024;
const AGENT: HeaderValue = HeaderValue::from_static(concat!("alknet/", env!("CARGO_PKG_VERSION")));

/// An API elsewhere.
pub(super) struct Api {
    pub(super) client: Client,
    pub(super) base: Uri,
    pub(super) token: Option<Secret>,
}

/// Where a parameter goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Path,
    Query,
    Header,
}

/// How its value is written (OpenAPI 3.1, section 4.8.12.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Elements and members with a separator between them.
    Joined { by: char, explode: bool },
    /// Each element and member as a parameter of its own.
    Exploded,
    /// Each member as `name[member]`.
    Deep,
    /// As JSON text.
    Json,
}

impl Style {
    /// The style of this name; `None` if there is no such style at that place.
    pub(super) fn of(name: &str, explode: Option<bool>, place: Place) -> Option<Self> {
        let explode_or = |default| explode.unwrap_or(default);
        match (name, place) {
            ("" | "simple", Place::Path | Place::Header) => {
                Some(Self::Joined { by: ',', explode: explode_or(false) })
            }
            ("" | "form", Place::Query) if explode_or(true) => Some(Self::Exploded),
            ("" | "form", Place::Query) => Some(Self::Joined { by: ',', explode: false }),
            ("spaceDelimited", Place::Query) => Some(Self::Joined { by: ' ', explode: false }),
            ("pipeDelimited", Place::Query) => Some(Self::Joined { by: '|', explode: false }),
            ("deepObject", Place::Query) => Some(Self::Deep),
            _ => None,
        }
    }
}

/// One parameter of a request.
#[derive(Debug)]
pub(super) struct Parameter {
    /// What it is called in the input.
    pub(super) member: String,
    /// What it is called in the request.
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) style: Style,
}

/// A piece of a path.
#[derive(Debug)]
enum Piece {
    Text(String),
    /// The parameter of this name.
    Parameter(String),
}

/// What the requests of one operation have in common.
#[derive(Debug)]
pub(super) struct Template {
    method: Method,
    path: Vec<Piece>,
    parameters: Vec<Parameter>,
    body: bool,
}

impl Template {
    pub(super) fn new(
        method: Method,
        path: &str,
        parameters: Vec<Parameter>,
        body: bool,
    ) -> Result<Self, LeftOut> {
        let mut pieces = Vec::new();
        let mut rest = path.strip_prefix('/').ok_or(LeftOut::Path)?;
        while let Some((text, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or(LeftOut::Path)?;
            let known = |p: &Parameter| p.place == Place::Path && p.name == name;
            if !parameters.iter().any(known) {
                return Err(LeftOut::Path);
            }
            pieces.push(Piece::Text(text.to_owned()));
            pieces.push(Piece::Parameter(name.to_owned()));
            rest = after;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Ok(Self { method, path: pieces, parameters, body })
    }

    /// The address of a request with this input.
    fn address(&self, base: &Uri, input: &Map<String, Value>) -> Result<Uri, CallError> {
        let mut address = format!("{}/", base.path().trim_end_matches('/'));
        let begin = address.len();
        for piece in &self.path {
            match piece {
                Piece::Text(text) => address.push_str(text),
                Piece::Parameter(name) => address.push_str(&self.in_path(name, input)?),
            }
        }
        // A caller chooses what is below the path of the operation, not where that is.
        let steps = address.get(begin..).unwrap_or_default().split('/');
        let climbs = |step: &str| {
            // Servers in front may decode before they look for steps upwards.
            let plain = percent_decode_str(step).decode_utf8_lossy();
            plain.split(['/', '\\']).any(|step| step == "." || step == "..")
        };
        if steps.into_iter().any(climbs) {
            return Err(CallError::invalid_input("a parameter of the path cannot be . or .."));
        }
        let mut pairs = Vec::new();
        for parameter in self.parameters.iter().filter(|p| p.place == Place::Query) {
            pairs.extend(parameter.in_query(input));
        }
        if !pairs.is_empty() {
            address.push('?');
            address.push_str(&pairs.join("&"));
        }
        if address.len() > ADDRESS {
            return Err(CallError::invalid_input("the parameters are too long"));
        }
        let mut parts = base.clone().into_parts();
        let path = PathAndQuery::try_from(address).map_err(CallError::internal)?;
        parts.path_and_query = Some(path);
        Uri::from_parts(parts).map_err(CallError::internal)
    }

    fn in_path(&self, name: &str, input: &Map<String, Value>) -> Result<String, CallError> {
        let known = |p: &&Parameter| p.place == Place::Path && p.name == name;
        let parameter = self.parameters.iter().find(known);
        let text = parameter.and_then(|parameter| parameter.joined(input, encoded));
        text.filter(|text| !text.is_empty()).ok_or_else(|| {
            CallError::invalid_input(format!("the parameter {name} of the path cannot be empty"))
        })
    }

    /// The whole request, without a credential.
    fn request(
        &self,
        base: &Uri,
        mut input: Map<String, Value>,
    ) -> Result<Request<Full<Bytes>>, CallError> {
        let address = self.address(base, &input)?;
        let mut request = Request::builder().method(self.method.clone()).uri(address);
        for parameter in self.parameters.iter().filter(|p| p.place == Place::Header) {
            let Some(text) = parameter.joined(&input, str::to_owned) else { continue };
            let value = HeaderValue::try_from(text).map_err(|_| {
                CallError::invalid_input(format!("{} cannot be in a header", parameter.name))
            })?;
            let name = HeaderName::try_from(&parameter.name).map_err(CallError::internal)?;
            request = request.header(name, value);
        }
        request = request
            .header(header::USER_AGENT, AGENT)
            .header(header::ACCEPT, "application/json, text/*;q=0.5");
        let body = input.remove("body").filter(|_| self.body);
        let body = match body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        request.body(Full::new(body)).map_err(CallError::internal)
    }
}

impl Parameter {
    fn value<'a>(&self, input: &'a Map<String, Value>) -> Option<&'a Value> {
        input.get(&self.member).filter(|value| !value.is_null())
    }

    /// As one text, each part of it written by `part`.
    fn joined(&self, input: &Map<String, Value>, part: fn(&str) -> String) -> Option<String> {
        let value = self.value(input)?;
        let Style::Joined { by, explode } = self.style else {
            return Some(part(&value.to_string()));
        };
        // Only the comma may stand in a URL as it is.
        let by = if by == ',' { ",".to_owned() } else { encoded(&by.to_string()) };
        let parts: Vec<String> = match value {
            Value::Array(elements) => elements.iter().map(|one| part(&plain(one))).collect(),
            Value::Object(members) => {
                let equals = if explode { "=" } else { &by };
                let pair = |(name, value): (&String, &Value)| {
                    format!("{}{equals}{}", part(name), part(&plain(value)))
                };
                members.iter().map(pair).collect()
            }
            value => vec![part(&plain(value))],
        };
        Some(parts.join(&by))
    }

    /// As pairs of a query.
    fn in_query(&self, input: &Map<String, Value>) -> Vec<String> {
        let Some(value) = self.value(input) else { return Vec::new() };
        let pair = |name: &str, text: &str| format!("{}={}", encoded(name), encoded(text));
        match (self.style, value) {
            (Style::Json, value) => vec![pair(&self.name, &value.to_string())],
            (Style::Joined { .. }, _) => {
                let text = self.joined(input, encoded).unwrap_or_default();
                vec![format!("{}={text}", encoded(&self.name))]
            }
            (Style::Deep, Value::Object(members)) => members
                .iter()
                .map(|(name, value)| pair(&format!("{}[{name}]", self.name), &plain(value)))
                .collect(),
            (Style::Exploded, Value::Object(members)) => {
                members.iter().map(|(name, value)| pair(name, &plain(value))).collect()
            }
            (_, Value::Array(elements)) => {
                elements.iter().map(|one| pair(&self.name, &plain(one))).collect()
            }
            (_, value) => vec![pair(&self.name, &plain(value))],
        }
    }
}

/// A value without the quotes of JSON.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

/// Forwards the calls of one operation.
pub(super) struct Forward {
    api: Arc<Api>,
    template: Template,
}

impl Forward {
    pub(super) fn new(api: Arc<Api>, template: Template) -> Self {
        Self { api, template }
    }

    async fn forward(&self, context: &Context, input: Value) -> Result<Output, CallError> {
        let input = match input {
            Value::Object(input) => input,
            _ => Map::new(),
        };
        let mut request = self.template.request(&self.api.base, input)?;
        if let Some(value) = self.api.token.as_ref().and_then(bearer) {
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        let asking = async {
            let answer = self.api.client.request(request).await;
            answer::output(answer.map_err(|error| answer::unreachable(&error))?).await
        };
        let patience = context.remaining().unwrap_or(PATIENCE);
        timeout(patience, asking).await.unwrap_or_else(|_| Err(CallError::timeout()))
    }
}

impl Handler for Forward {
    fn run(
        &self,
        context: Context,
        input: Value,
        _: Items,
    ) -> BoxFuture<'_, Result<Output, CallError>> {
        Box::pin(async move { self.forward(&context, input).await })
    }
}
