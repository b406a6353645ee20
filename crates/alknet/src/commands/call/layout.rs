//! JSON of a node on the terminal: order and numbers stay as they came, and nothing in a
//! text moves the cursor.

use std::fmt::Write as _;

use serde_json::value::RawValue;

/// How far an indented level is set in.
const STEP: usize = 2;

/// How JSON is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// In one line.
    Line,
    /// A line for each member.
    Indented,
}

/// The same value, laid out anew.
pub(super) fn laid_out(json: &RawValue, layout: Layout) -> String {
    let mut out = Writer { text: String::new(), layout, depth: 0, opened: false };
    let mut chars = json.get().chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => out.string(&mut chars),
            '{' | '[' => out.open(c),
            '}' | ']' => out.close(c),
            ',' => {
                out.text.push(c);
                out.new_line();
            }
            ':' => out.text.push_str(if layout == Layout::Line { ":" } else { ": " }),
            ' ' | '\t' | '\n' | '\r' => {}
            other => {
                out.begin();
                out.text.push(other);
            }
        }
    }
    out.text
}

/// How deep the indentation goes.
const DEEPEST: usize = 64;

/// Text of a node for a line of its own.
pub(crate) fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    text.chars().for_each(|c| push(&mut shown, c));
    shown
}

struct Writer {
    text: String,
    layout: Layout,
    depth: usize,
    /// Nothing has followed the last bracket yet.
    opened: bool,
}

impl Writer {
    fn string(&mut self, chars: &mut std::str::Chars<'_>) {
        self.begin();
        self.text.push('"');
        let mut escaped = false;
        for c in chars.by_ref() {
            push(&mut self.text, c);
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => return,
                _ => {}
            }
        }
    }

    fn open(&mut self, bracket: char) {
        self.begin();
        self.text.push(bracket);
        self.depth += 1;
        self.opened = true;
    }

    fn close(&mut self, bracket: char) {
        self.depth = self.depth.saturating_sub(1);
        if !std::mem::take(&mut self.opened) {
            self.new_line();
        }
        self.text.push(bracket);
    }

    /// Something stands between the brackets.
    fn begin(&mut self) {
        if std::mem::take(&mut self.opened) {
            self.new_line();
        }
    }

    fn new_line(&mut self) {
        if self.layout == Layout::Indented {
            let width = self.depth.min(DEEPEST) * STEP;
            // Writing to a string does not fail.
            let _ = write!(self.text, "\n{:width$}", "");
        }
    }
}

/// As it is, or escaped where it would move the cursor or turn the order of the text. In
/// JSON such a character stands in a string, and this is how JSON writes it.
fn push(text: &mut String, c: char) {
    let turns =
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if c.is_control() || turns {
        let _ = write!(text, "\\u{:04x}", u32::from(c));
    } else {
        text.push(c);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn laid(json: &str, layout: Layout) -> String {
        laid_out(&RawValue::from_string(json.into()).unwrap(), layout)
    }

    #[test]
    fn order_and_numbers_stay() {
        let json =
            r#"{ "b" : [ ], "a":[1e400, 123456789012345678901234567890,{ } ],"c":"x\"{,y" }"#;
        let line = r#"{"b":[],"a":[1e400,123456789012345678901234567890,{}],"c":"x\"{,y"}"#;
        assert_eq!(laid(json, Layout::Line), line);
        let indented = "{\n  \"b\": [],\n  \"a\": [\n    1e400,\n    \
                        123456789012345678901234567890,\n    {}\n  ],\n  \"c\": \"x\\\"{,y\"\n}";
        assert_eq!(laid(json, Layout::Indented), indented);
    }

    #[test]
    fn nothing_moves_the_cursor() {
        let shown = laid("\"a\u{9b}2J\u{7f}\u{202e}b\"", Layout::Line);
        assert_eq!(shown, r#""a\u009b2J\u007f\u202eb""#);
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".*".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(".*", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_is_the_same_value(value in value()) {
            for layout in [Layout::Line, Layout::Indented] {
                let text = laid(&value.to_string(), layout);
                prop_assert_eq!(&serde_json::from_str::<Value>(&text).unwrap(), &value);
            }
        }
    }
}
