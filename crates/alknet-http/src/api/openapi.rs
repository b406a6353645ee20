//! The description of all operations that a caller may use, as an OpenAPI 3.1 document.

mod schemas;

use alknet_call::{Kind, Operation, Spec};
use axum::{
    Json,
    response::{IntoResponse as _, Response},
};
use serde_json::{Map, Value, json};

use super::{
    Api, Caller, Methods, PAGE, batch, body,
    operation::methods,
    parameters::{Form, form, is_secret},
    problem::{self, Class, DECLARED, MEDIA_TYPE},
    shape::{Member, Shape},
};
use schemas::Schemas;

const DESCRIPTION: &str = "The operations that the caller may use. \
    A call may say in `Request-Timeout` how long it waits. \
    Parameters of a URL end up in logs: what is secret goes into the body of a POST.";

pub(super) fn answer(api: &Api, caller: &Caller) -> Response {
    let operations = api.registry.visible(&caller.auth);
    let operations = operations.iter().map(|operation| &**operation);
    Json(document(operations, &api.settings.version)).into_response()
}

fn document<'a>(operations: impl Iterator<Item = &'a Operation>, version: &str) -> Value {
    let mut schemas = Schemas::default();
    schemas.own("Problem", problem_schema());
    let mut paths = Map::new();
    let mut tags: Vec<&str> = Vec::new();
    for operation in operations {
        let spec = operation.spec();
        if !tags.contains(&spec.name.namespace()) {
            tags.push(spec.name.namespace());
        }
        paths.insert(format!("{PAGE}{}", spec.name), path(spec, &mut schemas));
    }
    paths.insert(format!("{PAGE}batch"), json!({ "post": batch_operation() }));
    let tags: Vec<Value> = tags.into_iter().map(|name| json!({ "name": name })).collect();
    let responses: Map<String, Value> =
        problem::CLASSES.iter().map(|class| (class.slug.to_owned(), failure(class))).collect();
    json!({
        "openapi": "3.1.0",
        "info": { "title": "alknet", "version": version, "description": DESCRIPTION },
        "tags": tags,
        "security": [{ "bearer": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas.into_json(),
            "responses": responses,
            "parameters": { "timeout": timeout() },
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer" } },
        },
    })
}

fn path(spec: &Spec, schemas: &mut Schemas) -> Value {
    let id = format!("{}.{}", spec.name.namespace(), spec.name.name());
    let input = schemas.add(spec.input.json(), &format!("{id}.input"));
    let output = schemas.add(spec.output.json(), &format!("{id}.output"));
    let nothing = |nothing: Value| spec.input.check(&nothing).is_ok();
    let input = match nothing(Value::Null) {
        false if nothing(json!({})) => json!({ "anyOf": [input, { "type": "null" }] }),
        _ => input,
    };
    let mut post = described(spec, &id);
    post.insert("parameters".into(), common(spec).into());
    post.insert(
        "requestBody".into(),
        json!({
            "required": !nothing(Value::Null) && !nothing(json!({})),
            "content": { "application/json": { "schema": input } },
        }),
    );
    let with_body = [&problem::SLOW_BODY, &problem::TOO_LARGE, &problem::NOT_JSON];
    post.insert("responses".into(), responses(spec, &output, &with_body));
    let mut path = Map::new();
    path.insert("post".into(), post.into());
    if methods(spec) == Methods::Both {
        let mut get = described(spec, &format!("{id}.get"));
        let mut all = common(spec);
        all.extend(parameters(spec, &id, schemas));
        get.insert("parameters".into(), all.into());
        get.insert("responses".into(), responses(spec, &output, &[]));
        path.insert("get".into(), get.into());
    }
    path.into()
}

fn described(spec: &Spec, id: &str) -> Map<String, Value> {
    let mut described = Map::new();
    described.insert("operationId".into(), id.into());
    described.insert("tags".into(), json!([spec.name.namespace()]));
    let summary = spec.description.lines().next().unwrap_or_default();
    if !summary.is_empty() {
        described.insert("summary".into(), summary.into());
        described.insert("description".into(), spec.description.as_str().into());
    }
    described
}

/// The fields that every call may have.
fn common(spec: &Spec) -> Vec<Value> {
    let mut common = vec![json!({ "$ref": "#/components/parameters/timeout" })];
    if spec.resumable {
        common.push(json!({
            "name": "Last-Event-ID", "in": "header", "schema": { "type": "string" },
            "description": "The event behind which the subscription goes on.",
        }));
    }
    common
}

fn timeout() -> Value {
    json!({
        "name": body::TIMEOUT.as_str(), "in": "header",
        "description": "How long the caller will wait, in seconds.",
        "schema": { "type": "number", "exclusiveMinimum": 0, "maximum": body::MAX_TIMEOUT },
    })
}

/// The members of the input as parameters, without those that have no place there.
fn parameters(spec: &Spec, id: &str, schemas: &mut Schemas) -> Vec<Value> {
    let shape = Shape::new(spec.input.json());
    let members = shape.members();
    let plain = members.iter().filter(|member| !is_secret(&shape.all(member.schemas.clone())));
    plain.map(|member| parameter(spec, member, &shape, id, schemas)).collect()
}

fn parameter(
    spec: &Spec,
    member: &Member<'_>,
    shape: &Shape<'_>,
    id: &str,
    schemas: &mut Schemas,
) -> Value {
    let place = format!("{id}.input.{}", member.name);
    let whole = spec.input.json();
    let mut written: Vec<Value> =
        member.schemas.iter().map(|part| schemas.add_part(part, whole, &place)).collect();
    let schema = match written.len() {
        1 => written.remove(0),
        _ => json!({ "anyOf": written }),
    };
    let description = member.schemas.iter().find_map(|schema| schema.get("description"));
    let told = match form(shape, &shape.all(member.schemas.clone())) {
        Form::Scalar | Form::Repeated => ("schema", schema),
        Form::Json => ("content", json!({ "application/json": { "schema": schema } })),
    };
    let mut parameter = Map::new();
    parameter.extend(description.map(|text| ("description".to_owned(), text.clone())));
    parameter.insert("name".into(), member.name.into());
    parameter.insert("in".into(), "query".into());
    parameter.insert("required".into(), member.required.into());
    parameter.insert(told.0.into(), told.1);
    parameter.into()
}

/// Every answer that there may be.
fn responses(spec: &Spec, output: &Value, more: &[&Class]) -> Value {
    let success = match spec.kind {
        Kind::Subscription => json!({
            "description": "The items as messages, then the event `completed` or `error`.",
            "content": { "text/event-stream": { "schema": event(output) } },
        }),
        _ => json!({
            "description": "The output.",
            "content": { "application/json": { "schema": output } },
        }),
    };
    let mut responses = Map::new();
    responses.insert("200".into(), success);
    let before = [&problem::INVALID_INPUT, &problem::NOT_FOUND, &problem::UNAVAILABLE];
    let while_running = [&problem::FORBIDDEN, &problem::INTERNAL, &problem::TIMEOUT];
    let runs = spec.kind != Kind::Subscription;
    let classes = before.into_iter().chain(more.iter().copied());
    for class in classes.chain(while_running.into_iter().filter(|_| runs)) {
        let reference = format!("#/components/responses/{}", class.slug);
        responses.insert(class.status.as_str().into(), json!({ "$ref": reference }));
    }
    if runs && !spec.errors.is_empty() {
        responses.insert(DECLARED.as_str().into(), declared(spec));
    }
    Value::Object(responses)
}

/// One event of a stream, as tools take the schema of such.
fn event(item: &Value) -> Value {
    let event = |name: &str, schema: Value| {
        json!({
            "type": "object",
            "required": ["data"],
            "properties": {
                "event": { "const": name },
                "id": { "type": "string" },
                "data": {
                    "type": "string",
                    "contentMediaType": "application/json",
                    "contentSchema": schema,
                },
            },
        })
    };
    json!({ "anyOf": [
        event("message", item.clone()),
        event("error", json!({ "$ref": "#/components/schemas/Problem" })),
        event("completed", json!({})),
    ] })
}

fn declared(spec: &Spec) -> Value {
    let codes: Vec<&str> = spec.errors.iter().map(|error| error.code.as_str()).collect();
    let told = spec.errors.iter().map(|error| format!("`{}`: {}", error.code, error.description));
    json!({
        "description": told.collect::<Vec<_>>().join("\n\n"),
        "content": { MEDIA_TYPE: { "schema": {
            "allOf": [
                { "$ref": "#/components/schemas/Problem" },
                { "properties": { "code": { "enum": codes } } },
            ],
        } } },
    })
}

fn failure(class: &Class) -> Value {
    json!({
        "description": class.title,
        "content": { MEDIA_TYPE: { "schema": {
            "allOf": [
                { "$ref": "#/components/schemas/Problem" },
                { "properties": { "code": { "const": class.code } } },
            ],
        } } },
    })
}

fn problem_schema() -> Value {
    json!({
        "description": "Problem details (RFC 9457).",
        "type": "object",
        "required": ["type", "title", "status", "detail", "code", "retryable", "details"],
        "properties": {
            "type": { "type": "string", "format": "uri-reference" },
            "title": { "type": "string" },
            "status": { "type": "integer" },
            "detail": { "type": "string" },
            "code": { "type": "string", "description": "A code of the call protocol." },
            "retryable": { "type": "boolean", "description": "Whether it may succeed later." },
            "details": { "description": "More, for programs." },
        },
    })
}

fn batch_operation() -> Value {
    let problems = [
        &problem::INVALID_INPUT,
        &problem::SLOW_BODY,
        &problem::TOO_LARGE,
        &problem::NOT_JSON,
        &problem::INTERNAL,
        &problem::UNAVAILABLE,
    ];
    let mut responses: Map<String, Value> = problems
        .into_iter()
        .map(|class| {
            let reference = format!("#/components/responses/{}", class.slug);
            (class.status.as_str().to_owned(), json!({ "$ref": reference }))
        })
        .collect();
    responses.insert(
        "200".into(),
        json!({
            "description": "What became of each call, in their order.",
            "content": { "application/json": { "schema": { "type": "array", "items": {
                "type": "object",
                "required": ["status"],
                "properties": {
                    "id": { "description": "That of the call." },
                    "status": { "type": "integer", "description": "As the call alone would have." },
                    "output": {},
                    "error": { "$ref": "#/components/schemas/Problem" },
                },
            } } } },
        }),
    );
    json!({
        "operationId": "batch",
        "summary": "Several queries and mutations at once.",
        "parameters": [{ "$ref": "#/components/parameters/timeout" }],
        "requestBody": { "required": true, "content": { "application/json": { "schema": {
            "type": "array",
            "maxItems": batch::CALLS,
            "items": {
                "type": "object",
                "required": ["operation"],
                "properties": {
                    "id": { "description": "Comes back with the result." },
                    "operation": { "type": "string" },
                    "input": {},
                },
            },
        } } } },
        "responses": responses,
    })
}
