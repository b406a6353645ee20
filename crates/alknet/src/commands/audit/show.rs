//! Entries as people read them.

use std::fmt::Write as _;

use serde_json::{Map, Value};
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

/// One line of the log: when, what, who, by what service, from where, why, and the rest.
pub(super) fn line(json: &[u8]) -> String {
    let Ok(Value::Object(mut entry)) = serde_json::from_slice(json) else {
        return clean(&String::from_utf8_lossy(json));
    };
    let mut take = |name| taken(&mut entry, name);
    let (time, event) = (take("time").unwrap_or_default(), take("event").unwrap_or_default());
    for chain in ["seq", "prev", "torn"] {
        take(chain);
    }
    let who = take("name").or_else(|| take("identity")).or_else(|| take("key"));
    let mut text = format!("{}  {event:<15}  {}", moment(&time), who.as_deref().unwrap_or("-"));
    for (word, name) in [("", "alpn"), ("from ", "peer"), ("by ", "transport")] {
        if let Some(value) = take(name) {
            let _ = write!(text, "  {word}{value}");
        }
    }
    let reason = take("reason");
    for name in entry.keys().cloned().collect::<Vec<_>>() {
        if let Some(value) = taken(&mut entry, &name) {
            let _ = write!(text, "  {}={value}", clean(&name));
        }
    }
    if let Some(reason) = reason {
        let _ = write!(text, "  ({reason})");
    }
    text
}

fn taken(entry: &mut Map<String, Value>, name: &str) -> Option<String> {
    Some(match entry.remove(name)? {
        Value::String(text) => clean(&text),
        other => clean(&other.to_string()),
    })
}

/// To the second, in UTC.
fn moment(text: &str) -> String {
    let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
    OffsetDateTime::parse(text, &Rfc3339)
        .ok()
        .and_then(|moment| moment.checked_to_offset(UtcOffset::UTC)?.format(&format).ok())
        .unwrap_or_else(|| text.to_owned())
}

/// Without what would move a terminal's cursor or turn the order of its text: some of it
/// comes from strangers.
pub(super) fn clean(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || turns {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_one_readable_line() {
        let json = br#"{"seq":3,"time":"2026-11-22T08:43:32.123456789Z","prev":"00","event":"refused",
            "session":7,"alpn":"alknet/ssh","transport":"quic","peer":"192.0.2.1:5","key":"SHA256:x",
            "reason":"unknown key"}"#;
        assert_eq!(
            line(json),
            "2026-11-22 08:43:32  refused          SHA256:x  alknet/ssh  from 192.0.2.1:5  by quic  \
             session=7  (unknown key)"
        );
    }

    #[test]
    fn nothing_reaches_the_terminal_but_text() {
        for value in ["\u{1b}[2J", "a\nb", "\u{9b}1m", "x\u{202e}y"] {
            let json = serde_json::json!({
                "time": value, "event": value, "reason": value, "name": value, value: value,
            });
            let shown = line(json.to_string().as_bytes());
            let odd = |c: char| c.is_control() || c == '\u{202e}';
            assert!(!shown.contains(odd), "{shown:?}");
        }
        assert!(!line(b"\x1b[2J").contains('\u{1b}'));
    }
}
