//! An OpenAPI document as operations.

use std::{collections::HashMap, sync::Arc};

use alknet_call::{InvalidOperation, InvalidSchema, Kind, Operation, OperationName, Schema, Spec};
use http::{HeaderName, Method};
use serde_json::{Map, Value, json};

use super::{
    answer,
    forward::{Api, Forward, Parameter, Place, Style, Template},
    schema::Schemas,
};

/// How many operations are taken from one document, and how many parameters of each.
const OPERATIONS: usize = 512;
const PARAMETERS: usize = 64;
/// How much of a description is taken over, in characters.
const DESCRIPTION: usize = 2000;
/// The longest part of a name, in bytes.
const NAME: usize = 64;
/// The member of the input that is the request's body.
const BODY: &str = "body";
const METHODS: [(&str, Method); 5] = [
    ("get", Method::GET),
    ("put", Method::PUT),
    ("post", Method::POST),
    ("delete", Method::DELETE),
    ("patch", Method::PATCH),
];
/// Fields that are not for a caller to choose: OpenAPI has no parameters of the first three,
/// and the others are about the connection or about who asks.
const FIELDS: [&str; 18] = [
    "accept",
    "authorization",
    "content-type",
    "connection",
    "content-length",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-forwarded-for",
];

/// The text is no document that can be imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidDocument {
    /// Not JSON.
    #[error("the document is not JSON")]
    Json(#[from] serde_json::Error),
    /// Of another version of OpenAPI, or of something else.
    #[error("the document is not one of OpenAPI 3.0 or 3.1")]
    Version,
    /// It has too many operations.
    #[error("the document has more than {OPERATIONS} operations")]
    Length,
}

/// Why an operation of the document is none here.
#[derive(Debug, thiserror::Error)]
pub(super) enum LeftOut {
    #[error("its name is that of another")]
    Taken,
    #[error("a reference that leads out of the document or nowhere")]
    Reference,
    #[error("a schema that is too long")]
    Length,
    #[error("a schema that is none")]
    Schema(#[source] InvalidSchema),
    #[error("a parameter that it has to have and that cannot be sent")]
    Parameter,
    #[error("a path that does not fit its parameters")]
    Path,
    #[error("a body that is not JSON")]
    Body,
    #[error(transparent)]
    Operation(#[from] InvalidOperation),
}

/// The operations of a document, as far as they can be called.
pub(super) fn operations(
    text: &[u8],
    namespace: &str,
    api: &Arc<Api>,
) -> Result<Vec<Operation>, InvalidDocument> {
    let root: Value = serde_json::from_slice(text)?;
    let version = root.get("openapi").and_then(Value::as_str).unwrap_or_default();
    let old = version.starts_with("3.0.");
    if !old && !version.starts_with("3.1.") {
        return Err(InvalidDocument::Version);
    }
    let reader = Reader { schemas: Schemas { root: &root, old } };
    let mut operations: HashMap<String, Operation> = HashMap::new();
    for found in reader.found()? {
        let (method, path, _, item) = &found;
        let made = reader.operation(&found, namespace, api).and_then(|operation| match operations
            .contains_key(operation.spec().name.name())
        {
            true => Err(LeftOut::Taken),
            false => Ok(operation),
        });
        match made {
            Ok(operation) => {
                operations.insert(operation.spec().name.name().to_owned(), operation);
            }
            Err(error) => {
                let path: String = path.chars().take(100).collect();
                let id = item.get("operationId").and_then(Value::as_str).unwrap_or_default();
                let id: String = id.chars().take(100).collect();
                let error = &error as &dyn std::error::Error;
                tracing::warn!(namespace, %method, path, id, error, "an operation is left out");
            }
        }
    }
    Ok(operations.into_values().collect())
}

/// An operation: its method, its path, and the objects of both.
type Found<'a> = (Method, &'a str, &'a Map<String, Value>, &'a Map<String, Value>);

struct Reader<'a> {
    schemas: Schemas<'a>,
}

impl<'a> Reader<'a> {
    fn found(&self) -> Result<Vec<Found<'a>>, InvalidDocument> {
        let mut found = Vec::new();
        let paths = self.schemas.root.get("paths").and_then(Value::as_object);
        for (path, item) in paths.into_iter().flatten() {
            let Some(item) = self.object(item) else { continue };
            for (name, method) in METHODS {
                let Some(operation) = item.get(name).and_then(Value::as_object) else { continue };
                found.push((method, path.as_str(), item, operation));
            }
        }
        if found.len() > OPERATIONS { Err(InvalidDocument::Length) } else { Ok(found) }
    }

    /// An object, or the one that it refers to.
    fn object(&self, value: &'a Value) -> Option<&'a Map<String, Value>> {
        let object = value.as_object()?;
        match object.get("$ref").and_then(Value::as_str) {
            Some(reference) => self.schemas.resolve(reference)?.as_object(),
            None => Some(object),
        }
    }

    fn operation(
        &self,
        (method, path, item, operation): &Found<'a>,
        namespace: &str,
        api: &Arc<Api>,
    ) -> Result<Operation, LeftOut> {
        let mut input = Input::default();
        let declared = [*operation, *item].map(|object| object.get("parameters"));
        let declared = declared.into_iter().flatten().filter_map(Value::as_array).flatten();
        let declared = declared.take(PARAMETERS).map(|parameter| self.object(parameter));
        let mut declared: Vec<_> = declared.collect::<Option<_>>().ok_or(LeftOut::Reference)?;
        // What is in the path keeps its name, where another parameter has the same.
        declared.sort_by_key(|parameter| parameter.get("in").is_none_or(|place| place != "path"));
        for parameter in declared {
            input.parameter(parameter)?;
        }
        let body = match operation.get("requestBody") {
            Some(body) => self.body(self.object(body).ok_or(LeftOut::Reference)?, &mut input)?,
            None => false,
        };
        let id = operation.get("operationId").and_then(Value::as_str);
        let name = id.map_or_else(|| slug(&format!("{method} {path}")), slug);
        let name = format!("{namespace}/{name}");
        let kind = if *method == Method::GET { Kind::Query } else { Kind::Mutation };
        let output = self.output(operation)?;
        let (schema, parameters) = input.finish();
        let template = Template::new(method.clone(), path, parameters, body)?;
        let spec = Spec::new(&name, kind, self.schemas.alone(schema)?, output)?;
        let forward = Forward::new(api.clone(), template);
        let operation = Operation::raw(spec, forward).describe(&description(operation));
        Ok(answer::DECLARED
            .iter()
            .fold(operation, |operation, (code, about)| operation.error(code, about)))
    }

    /// Adds the body to the input; whether there may be one.
    fn body(&self, body: &'a Map<String, Value>, input: &mut Input) -> Result<bool, LeftOut> {
        let required = body.get("required") == Some(&Value::Bool(true));
        match body.get("content").and_then(json_content) {
            Some(media) => {
                let schema = media.get("schema").cloned().unwrap_or(json!(true));
                input.member(BODY, schema, required);
                Ok(true)
            }
            None if required => Err(LeftOut::Body),
            None => Ok(false),
        }
    }

    /// What all answers fit that are no failures.
    fn output(&self, operation: &'a Map<String, Value>) -> Result<Schema, LeftOut> {
        let mut schemas = Vec::new();
        let responses = operation.get("responses").and_then(Value::as_object);
        let good = responses.into_iter().flatten().filter(|(status, _)| status.starts_with('2'));
        for (_, response) in good {
            let response = self.object(response).ok_or(LeftOut::Reference)?;
            let content = response
                .get("content")
                .filter(|content| content.as_object().is_some_and(|content| !content.is_empty()));
            schemas.push(match (content, content.and_then(json_content)) {
                (_, Some(media)) => media.get("schema").cloned().unwrap_or(json!(true)),
                (Some(_), None) => json!({ "type": "string" }),
                (None, None) => json!({ "type": "null" }),
            });
        }
        let schema = match schemas.len() {
            0 => return Ok(Schema::anything()),
            1 => schemas.remove(0),
            _ => json!({ "anyOf": schemas }),
        };
        self.schemas.alone(schema)
    }
}

/// The JSON among the kinds of content.
fn json_content(content: &Value) -> Option<&Value> {
    let is_json = |kind: &str| {
        let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        essence == "application/json" || essence.ends_with("+json") || essence == "*/*"
    };
    content.as_object()?.iter().find(|(kind, _)| is_json(kind)).map(|(_, media)| media)
}

/// What a call takes: the schema, and where each member goes.
#[derive(Default)]
struct Input {
    properties: Map<String, Value>,
    required: Vec<String>,
    parameters: Vec<Parameter>,
}

impl Input {
    /// Adds a parameter, unless it is there already: those of the operation come before
    /// those of the path.
    fn parameter(&mut self, parameter: &Map<String, Value>) -> Result<(), LeftOut> {
        let text = |key: &str| parameter.get(key).and_then(Value::as_str).unwrap_or_default();
        let flag = |key: &str| parameter.get(key).and_then(Value::as_bool);
        let name = text("name").to_owned();
        let place = match text("in") {
            "path" => Place::Path,
            "query" => Place::Query,
            "header" => Place::Header,
            _ if flag("required") == Some(true) => return Err(LeftOut::Parameter),
            _ => return Ok(()),
        };
        if self.parameters.iter().any(|known| known.name == name && known.place == place) {
            return Ok(());
        }
        let required = place == Place::Path || flag("required") == Some(true);
        let style = Style::of(text("style"), flag("explode"), place);
        if (place == Place::Header && !is_free(&name)) || style.is_none() {
            return if required { Err(LeftOut::Parameter) } else { Ok(()) };
        }
        let json = parameter.get("content").and_then(json_content);
        if json.is_none() && parameter.contains_key("content") {
            return if required { Err(LeftOut::Parameter) } else { Ok(()) };
        }
        let style = if json.is_some() { Some(Style::Json) } else { style };
        let schema = json.map_or_else(|| parameter.get("schema"), |media| media.get("schema"));
        let schema = described(schema.cloned().unwrap_or(json!(true)), text("description"));
        let taken = name == BODY || self.properties.contains_key(&name);
        let member = if taken { format!("{}_{name}", text("in")) } else { name.clone() };
        self.member(&member, schema, required);
        self.parameters.extend(style.map(|style| Parameter { member, name, place, style }));
        Ok(())
    }

    fn member(&mut self, name: &str, schema: Value, required: bool) {
        self.properties.insert(name.to_owned(), schema);
        if required {
            self.required.push(name.to_owned());
        }
    }

    fn finish(self) -> (Value, Vec<Parameter>) {
        let Self { properties, required, parameters } = self;
        let schema = json!({
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": false,
        });
        (schema, parameters)
    }
}

/// Whether a caller may choose the field.
fn is_free(name: &str) -> bool {
    let known = HeaderName::from_bytes(name.as_bytes());
    known.is_ok_and(|name| !FIELDS.contains(&name.as_str()))
}

fn described(mut schema: Value, description: &str) -> Value {
    if let Some(object) = schema.as_object_mut()
        && !description.is_empty()
        && !object.contains_key("$ref")
    {
        let description: String = description.chars().take(DESCRIPTION).collect();
        object.entry("description").or_insert(description.into());
    }
    schema
}

fn description(operation: &Map<String, Value>) -> String {
    let text = |key: &str| operation.get(key).and_then(Value::as_str).unwrap_or_default().trim();
    let text = match (text("summary"), text("description")) {
        ("", text) | (text, "") => text.to_owned(),
        (summary, description) => format!("{summary}\n\n{description}"),
    };
    text.chars().take(DESCRIPTION).collect()
}

/// A text as a part of a name: `listPets` is `list-pets`.
fn slug(text: &str) -> String {
    let mut slug = String::new();
    let mut before = ' ';
    for c in text.chars() {
        let plain = c.is_ascii_alphanumeric() || c == '_';
        let begins =
            c.is_ascii_uppercase() && (before.is_ascii_lowercase() || before.is_ascii_digit());
        if (begins || !plain) && !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
        if plain {
            slug.push(c.to_ascii_lowercase());
        }
        before = c;
    }
    slug.truncate(NAME);
    let slug = slug.trim_end_matches('-').to_owned();
    if OperationName::is_part(&slug) { slug } else { "unnamed".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_brought_into_form() {
        for (text, name) in [
            ("listPets", "list-pets"),
            ("Pets.List All", "pets-list-all"),
            ("GET /pets/{petId}", "get-pets-pet-id"),
            ("getHTTPStatus2Go", "get-httpstatus2-go"),
            ("__a__", "__a__"),
            ("äöü", "unnamed"),
            ("", "unnamed"),
        ] {
            assert_eq!(slug(text), name, "{text}");
        }
        assert_eq!(slug(&"x".repeat(100)).len(), NAME);
    }
}
