//! The input of a query as the parameters of a URL.
//!
//! Each member of the input object is a parameter. Its text is read by the types that the
//! schema gives it: as one of the values that are listed, as a string, else as a number, a
//! boolean or `null`. An array of such is a parameter that repeats, and everything else is
//! JSON in one parameter.

use alknet_call::CallError;
use serde_json::{Map, Value, json};

use super::{
    Problem,
    shape::{Member, Parts, Shape, Types, choices},
};

/// How many parameters a request may have.
const PARAMETERS: usize = 256;

/// How a member is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As plain text.
    Scalar,
    /// As plain text, once for each element.
    Repeated,
    /// As JSON text.
    Json,
}

/// Whether an input of this schema can be written as parameters: it is an object, and no
/// member that it has to have is a secret.
pub(super) fn hold(schema: &Value) -> bool {
    let shape = Shape::new(schema);
    let types = Types::of(&shape.whole());
    let secret =
        |member: &Member<'_>| member.required && is_secret(&shape.all(member.schemas.clone()));
    (types.has("object") || types.has("null")) && !shape.members().iter().any(secret)
}

/// Whether what is said of a member makes it a secret, which has no place in a URL: those
/// end up in histories and logs.
pub(super) fn is_secret(parts: &Parts<'_>) -> bool {
    parts.iter().any(|part| {
        part.get("writeOnly") == Some(&Value::Bool(true))
            || part.get("format").and_then(Value::as_str) == Some("password")
    })
}

/// How a member is written, of which this is said.
pub(super) fn form<'a>(shape: &Shape<'a>, parts: &Parts<'a>) -> Form {
    let types = Types::of(parts);
    if types.are_scalar() {
        return Form::Scalar;
    }
    let elements = Types::of(&shape.elements(parts));
    let structured = matches!(types, Types::Any) || types.has("object");
    if !structured && elements.are_scalar() { Form::Repeated } else { Form::Json }
}

/// The input that the parameters spell; no parameters are no input.
pub(super) fn input(schema: &Value, query: Option<&str>) -> Result<Value, Problem> {
    let pairs = pairs(query.unwrap_or_default())?;
    if pairs.is_empty() {
        return Ok(Value::Null);
    }
    let shape = Shape::new(schema);
    let mut input = Map::new();
    for (name, texts) in pairs {
        let value = value(&shape, &name, &texts).map_err(|fault| invalid(&name, fault))?;
        input.insert(name, value);
    }
    Ok(Value::Object(input))
}

/// The parameters in order, those of one name together.
fn pairs(query: &str) -> Result<Vec<(String, Vec<String>)>, Problem> {
    let mut all: Vec<(String, Vec<String>)> = Vec::new();
    for (count, (name, text)) in form_urlencoded::parse(query.as_bytes()).enumerate() {
        if count == PARAMETERS {
            return Err(Problem::invalid(format!("{PARAMETERS} parameters at most")));
        }
        match all.iter_mut().find(|(known, _)| *known == name) {
            Some((_, texts)) => texts.push(text.into_owned()),
            None => all.push((name.into_owned(), vec![text.into_owned()])),
        }
    }
    // The parser puts this in the place of what is not UTF-8.
    let lost = |text: &String| text.contains(char::REPLACEMENT_CHARACTER);
    let any_lost = all.iter().any(|(name, texts)| lost(name) || texts.iter().any(lost));
    if any_lost && !query.to_ascii_lowercase().contains("%ef%bf%bd") {
        return Err(Problem::invalid("the parameters are not UTF-8"));
    }
    Ok(all)
}

/// Why a parameter cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Fault {
    #[error("is a secret, which has no place in a URL: it goes into the body of a POST")]
    Secret,
    #[error("stands more than once")]
    Repeated,
    #[error("is of another type")]
    Type,
}

fn invalid(name: &str, fault: Fault) -> Problem {
    let at = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
    let faults = json!({ "faults": [{ "at": at, "message": fault.to_string() }] });
    CallError::invalid_input(format!("the parameter at {at} {fault}")).with_details(faults).into()
}

fn value(shape: &Shape<'_>, name: &str, texts: &[String]) -> Result<Value, Fault> {
    let parts = shape.member(name);
    if is_secret(&parts) {
        return Err(Fault::Secret);
    }
    match (form(shape, &parts), texts) {
        (Form::Repeated, texts) => {
            let elements = shape.elements(&parts);
            texts.iter().map(|text| scalar(&elements, text)).collect::<Result<_, _>>()
        }
        (Form::Scalar, [text]) => scalar(&parts, text),
        (Form::Json, [text]) => structured(&parts, text),
        _ => Err(Fault::Repeated),
    }
}

fn scalar(parts: &Parts<'_>, text: &str) -> Result<Value, Fault> {
    let mut listed = parts.iter().flat_map(|part| choices(part));
    let spelled = |choice: &&Value| match *choice {
        Value::String(choice) => choice == text,
        choice => serde_json::from_str::<Value>(text).is_ok_and(|value| value == *choice),
    };
    if let Some(choice) = listed.find(spelled) {
        return Ok(choice.clone());
    }
    let types = Types::of(parts);
    if types.has("string") {
        return Ok(text.into());
    }
    json_of(&types, text).ok_or(Fault::Type)
}

/// What is no JSON of a type that is wanted is a string, where one may be.
fn structured(parts: &Parts<'_>, text: &str) -> Result<Value, Fault> {
    let types = Types::of(parts);
    match json_of(&types, text) {
        Some(value) => Ok(value),
        None if types.has("string") => Ok(text.into()),
        None => Err(Fault::Type),
    }
}

fn json_of(types: &Types<'_>, text: &str) -> Option<Value> {
    serde_json::from_str(text).ok().filter(|value| types.admit(value))
}
