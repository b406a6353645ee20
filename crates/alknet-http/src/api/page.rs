//! The operations as a page, for people.

use std::fmt;

use alknet_call::{Kind, Operation, Spec};
use axum::response::{Html, IntoResponse, Response};
use http::{HeaderValue, header};
use serde_json::{Map, Value, json};

use super::{
    Api, Caller, PAGE,
    parameters::is_secret,
    problem,
    shape::{Shape, Types, choices},
};

/// A script and a style sheet of our own, calls to this very node, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) fn style() -> Response {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("page.css")).into_response()
}

pub(super) fn script() -> Response {
    let kind = "text/javascript; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], include_str!("page.js")).into_response()
}

/// `GET /alknet/api/`: what the caller may use, and a way to try it.
pub(super) fn page(api: &Api, caller: &Caller) -> Response {
    let operations = api.registry.visible(&caller.auth);
    let page = Page { operations: operations.iter().map(|operation| &**operation).collect() };
    let headers = [
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    (headers, Html(page.to_string())).into_response()
}

/// Text where HTML is expected.
struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.0.split_inclusive(['&', '<', '>', '"', '\'']) {
            let mut plain = part.chars();
            let escaped = match plain.next_back() {
                Some('&') => "&amp;",
                Some('<') => "&lt;",
                Some('>') => "&gt;",
                Some('"') => "&quot;",
                Some('\'') => "&#39;",
                _ => {
                    f.write_str(part)?;
                    continue;
                }
            };
            write!(f, "{}{escaped}", plain.as_str())?;
        }
        Ok(())
    }
}

struct Page<'a> {
    operations: Vec<&'a Operation>,
}

impl fmt::Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n\
             <title>Operations · alknet</title>\n\
             <link rel=\"stylesheet\" href=\"{PAGE}page.css\">\n\
             <script src=\"{PAGE}page.js\" type=\"module\"></script>\n\
             <h1>Operations</h1>\n\
             <p>What you may call on this node, by <code>POST {PAGE}…</code>; as a document: \
             <a href=\"{PAGE}openapi.json\">openapi.json</a>.</p>\n"
        )?;
        let mut namespace = "";
        for operation in &self.operations {
            let spec = operation.spec();
            if spec.name.namespace() != namespace {
                namespace = spec.name.namespace();
                writeln!(f, "<h2>{namespace}</h2>")?;
            }
            write!(f, "{}", Entry(spec))?;
        }
        self.failures(f)
    }
}

impl Page<'_> {
    /// Where the `type` of a problem leads.
    fn failures(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "<h2>Failures</h2>\n<table>\n<tr><th>status<th>code<th>")?;
        for class in problem::CLASSES {
            let (slug, code, title) = (class.slug, class.code, class.title);
            let status = class.status.as_str();
            writeln!(f, "<tr id=\"{slug}\"><td>{status}<td><code>{code}</code><td>{title}")?;
        }
        let mut told: Vec<&str> = Vec::new();
        for error in self.operations.iter().flat_map(|operation| &operation.spec().errors) {
            if told.contains(&error.code.as_str()) {
                continue;
            }
            told.push(&error.code);
            let (code, description) = (Text(&error.code), Text(&error.description));
            let status = problem::DECLARED.as_str();
            let row = format_args!("<td>{status}<td><code>{code}</code><td>{description}");
            writeln!(f, "<tr id=\"{code}\">{row}")?;
        }
        writeln!(f, "</table>")
    }
}

/// One operation.
struct Entry<'a>(&'a Spec);

impl fmt::Display for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Spec { name, kind, description, .. } = self.0;
        let stop = match kind {
            Kind::Subscription => "<button type=\"button\">Stop</button>",
            _ => "",
        };
        write!(
            f,
            "<details id=\"{name}\">\n<summary><b class=\"kind {kind}\">{kind}</b>\
             <code>{name}</code><span>{about}</span></summary>\n<div>\n\
             <form action=\"{PAGE}{name}\">\n<h3>Input</h3>\n\
             <textarea spellcheck=\"false\" aria-label=\"Input\">{example}</textarea>\n\
             <button>Call</button>{stop}\n<output><pre></pre></output>\n</form>\n",
            about = Text(description),
            example = Text(&pretty(&example(self.0))),
        )?;
        for (title, schema) in
            [("Schema of the input", &self.0.input), ("Schema of the output", &self.0.output)]
        {
            writeln!(f, "<h3>{title}</h3>\n<pre>{}</pre>", Text(&pretty(schema.json())))?;
        }
        writeln!(f, "</div>\n</details>")
    }
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

/// What an input may look like: the members that it has to have.
fn example(spec: &Spec) -> Value {
    let shape = Shape::new(spec.input.json());
    let members = shape.members();
    let required = members.iter().filter(|member| member.required);
    let value = |schemas: &Vec<&Value>| {
        let parts = shape.all(schemas.iter().copied());
        if let Some(choice) = parts.iter().flat_map(|part| choices(part)).next() {
            return choice.clone();
        }
        let types = Types::of(&parts);
        match () {
            () if types.has("string") || is_secret(&parts) => json!(""),
            () if types.has("integer") || types.has("number") => json!(0),
            () if types.has("boolean") => json!(false),
            () if types.has("array") => json!([]),
            () => json!({}),
        }
    };
    let members: Map<String, Value> =
        required.map(|member| (member.name.to_owned(), value(&member.schemas))).collect();
    Value::Object(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        let text = "<script>\"a\" & 'b'</script>";
        let html = "&lt;script&gt;&quot;a&quot; &amp; &#39;b&#39;&lt;/script&gt;";
        assert_eq!(Text(text).to_string(), html);
        assert_eq!(Text("plain ü").to_string(), "plain ü");
    }
}
