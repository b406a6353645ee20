//! The input of a call as people write it.

use serde_json::{Map, Value, value::RawValue};
use tokio::io::AsyncReadExt as _;

use crate::failure::Failure;

/// The longest input, in bytes: what one frame carries.
const MAX: u64 = 4 << 20;

/// The input that the arguments name: JSON, stdin, or members of an object.
pub(super) async fn read(words: &[String]) -> Result<Box<RawValue>, Failure> {
    match words {
        [] => Ok(RawValue::NULL.to_owned()),
        [one] if one == "-" => {
            let mut text = String::new();
            let read = tokio::io::stdin().take(MAX + 1).read_to_string(&mut text).await;
            read.map_err(|error| Failure::from(error).context("the input"))?;
            if text.len() as u64 > MAX {
                return Err(Failure::usage(format!("the input has {MAX} bytes at most")));
            }
            json(text)
        }
        [one] if !is_member(one) => json(one.clone()),
        members => {
            let members: Option<Map<_, _>> = members.iter().map(|text| member(text)).collect();
            let members = members.ok_or_else(|| {
                Failure::usage("the input is JSON, or -, or words such as follow=true")
            })?;
            json(Value::Object(members).to_string())
        }
    }
}

fn json(text: String) -> Result<Box<RawValue>, Failure> {
    RawValue::from_string(text)
        .map_err(|error| Failure::usage(format!("the input is no JSON: {error}")))
}

fn is_member(text: &str) -> bool {
    member(text).is_some()
}

/// `name=value`; a value that is no JSON is text.
fn member(text: &str) -> Option<(String, Value)> {
    let (name, value) = text.split_once('=')?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || !name.chars().all(plain) {
        return None;
    }
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
    Some((name.into(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn of(words: &[&str]) -> Result<String, String> {
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        read(&words).await.map(|json| json.get().to_owned()).map_err(|failure| failure.message())
    }

    #[tokio::test]
    async fn json_or_members() {
        assert_eq!(of(&[]).await.unwrap(), "null");
        assert_eq!(of(&[r#"{"a": 1e400}"#]).await.unwrap(), r#"{"a": 1e400}"#);
        assert_eq!(of(&[r#""a=b""#]).await.unwrap(), r#""a=b""#);
        let members = of(&["follow=true", "lines=5", "name=x=y", "list=[1]", "empty="]).await;
        let object = r#"{"empty":"","follow":true,"lines":5,"list":[1],"name":"x=y"}"#;
        assert_eq!(members.unwrap(), object);
    }

    #[tokio::test]
    async fn other_words_are_a_mistake() {
        for bad in [&["{"][..], &["hello"], &["a=1", "b"], &["=1"], &["{}", "a=1"]] {
            assert!(of(bad).await.is_err(), "{bad:?}");
        }
    }
}
