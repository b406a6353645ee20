//! JSON Schemas (draft 2020-12): what an operation takes and gives.

use std::{fmt, sync::Arc};

use jsonschema::{PatternOptions, Validator};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Value, json};

use crate::CallError;

/// How many faults of an input are told.
const FAULTS: usize = 8;
/// The largest compiled regular expression of a schema, in bytes.
const MAX_PATTERN: usize = 1024 * 1024;

/// A schema, ready to check values. Cheap to clone.
#[derive(Clone)]
pub struct Schema {
    json: Arc<Value>,
    /// `None`: every value fits.
    validator: Option<Arc<Validator>>,
}

/// The value is no schema that can be checked: not one at all, or it refers to another
/// document.
#[derive(Debug, thiserror::Error)]
#[error("invalid JSON Schema: {0}")]
pub struct InvalidSchema(String);

impl Schema {
    /// The schema of a Rust type as it is read (`serde::Deserialize`).
    pub fn of_input<T: JsonSchema>() -> Result<Self, InvalidSchema> {
        Self::new(generated::<T>(SchemaSettings::draft2020_12().for_deserialize()))
    }

    /// The schema of a Rust type as it is written (`serde::Serialize`).
    pub fn of_output<T: JsonSchema>() -> Result<Self, InvalidSchema> {
        Self::new(generated::<T>(SchemaSettings::draft2020_12().for_serialize()))
    }

    /// A schema that came from elsewhere. Nothing is fetched for it, and its patterns run in
    /// linear time.
    pub fn new(json: Value) -> Result<Self, InvalidSchema> {
        let patterns = PatternOptions::regex().size_limit(MAX_PATTERN);
        let validator = jsonschema::options().with_pattern_options(patterns).build(&json);
        let validator = validator.map_err(|error| InvalidSchema(error.to_string()))?;
        Ok(Self { json: Arc::new(json), validator: Some(Arc::new(validator)) })
    }

    /// The schema that every value fits.
    pub fn anything() -> Self {
        Self { json: Arc::new(Value::Bool(true)), validator: None }
    }

    /// The schema as JSON.
    pub fn json(&self) -> &Value {
        &self.json
    }

    /// Whether the value fits; the error says where it does not.
    pub fn check(&self, value: &Value) -> Result<(), CallError> {
        let Some(validator) = self.validator.as_deref().filter(|all| !all.is_valid(value)) else {
            return Ok(());
        };
        let faults: Vec<Value> = validator
            .iter_errors(value)
            .take(FAULTS)
            .map(|fault| {
                let at = fault.instance_path().to_string();
                json!({ "at": at, "message": fault.masked().to_string() })
            })
            .collect();
        let first = faults.first();
        let text = |name| first.and_then(|fault| fault.get(name)?.as_str()).unwrap_or_default();
        let at = match text("at") {
            "" => String::new(),
            at => format!(" at {at}"),
        };
        let message = format!("the input does not fit the schema{at}: {}", text("message"));
        Err(CallError::invalid_input(message).with_details(json!({ "faults": faults })))
    }
}

fn generated<T: JsonSchema>(settings: SchemaSettings) -> Value {
    let mut json = settings.into_generator().into_root_schema_for::<T>().to_value();
    if let Some(object) = json.as_object_mut() {
        // The name of a Rust type tells a caller nothing.
        object.remove("title");
    }
    json
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schema({})", self.json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_names_its_place_and_not_the_value() {
        let schema = Schema::new(json!({
            "type": "object",
            "properties": { "secret": { "type": "string", "maxLength": 3 } },
        }))
        .unwrap();
        assert!(schema.check(&json!({ "secret": "abc" })).is_ok());
        let error = schema.check(&json!({ "secret": "hunter22" })).unwrap_err();
        assert_eq!(error.code, crate::ErrorCode::InvalidInput);
        assert!(error.message.contains("at /secret"), "{error}");
        assert!(!format!("{error:?}").contains("hunter22"), "{error:?}");
    }

    #[test]
    fn nothing_is_fetched_for_a_schema() {
        for reference in ["https://localhost:1/schema", "file:///etc/passwd", "other.json"] {
            assert!(Schema::new(json!({ "$ref": reference })).is_err(), "{reference}");
        }
    }

    #[test]
    fn a_pattern_that_could_run_for_ever_is_refused_or_linear() {
        let long = "a".repeat(50_000) + "b";
        let schema = Schema::new(json!({ "type": "string", "pattern": "^(a+)+$" })).unwrap();
        assert!(schema.check(&json!(long)).is_err());
        assert!(Schema::new(json!({ "pattern": r"(a)\1" })).is_err(), "a back-reference");
        assert!(Schema::new(json!({ "pattern": "((a{1000}){1000}){1000}" })).is_err());
    }
}
