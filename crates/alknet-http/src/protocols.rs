//! Lists of subprotocols that clients offer.

use alknet_core::Secret;
use http::{HeaderMap, HeaderName, HeaderValue};

/// What marks a ticket among the offered protocols.
const TICKET: &str = "ticket.";

/// What a client offered.
#[derive(Debug, Default)]
pub(crate) struct Offer {
    /// The first protocol that is no ticket: what the answer selects.
    pub(crate) first: Option<HeaderValue>,
    pub(crate) ticket: Option<Secret>,
}

impl Offer {
    fn of<'a>(protocols: impl IntoIterator<Item = &'a str>) -> Self {
        let mut offer = Self::default();
        for protocol in protocols {
            match protocol.strip_prefix(TICKET) {
                Some(ticket) => {
                    offer.ticket.get_or_insert_with(|| Secret::new(ticket));
                }
                None if offer.first.is_none() => offer.first = HeaderValue::try_from(protocol).ok(),
                None => {}
            }
        }
        offer
    }
}

/// A comma-separated list of tokens, as `Sec-WebSocket-Protocol` has it.
///
/// A browser accepts no `/` in a token, so there `alknet/<name>` is written
/// `alknet.<name>`. The server selects whatever stands first: the path names the service.
pub(crate) fn tokens(headers: &HeaderMap, name: &HeaderName) -> Offer {
    let fields = headers.get_all(name).iter().filter_map(|field| field.to_str().ok());
    Offer::of(fields.flat_map(|f| f.split(',')).map(str::trim).filter(|token| !token.is_empty()))
}

/// A structured-field list of strings (RFC 9651, sections 3.1 and 3.3.3), as
/// `WT-Available-Protocols` has it. A list with anything else in it is ignored as a whole.
pub(crate) fn strings(headers: &HeaderMap, name: &HeaderName) -> Offer {
    let fields: Option<Vec<&str>> =
        headers.get_all(name).iter().map(|field| field.to_str().ok()).collect();
    let protocols = fields.and_then(|fields| parse_strings(&fields.join(", ")));
    Offer::of(protocols.iter().flatten().map(String::as_str))
}

/// A structured-field string.
pub(crate) fn quoted(value: &HeaderValue) -> HeaderValue {
    let text = value.to_str().unwrap_or_default().replace('\\', "\\\\").replace('"', "\\\"");
    HeaderValue::try_from(format!("\"{text}\""))
        .unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

fn parse_strings(mut rest: &str) -> Option<Vec<String>> {
    let mut strings = Vec::new();
    rest = rest.trim_matches(' ');
    while !rest.is_empty() {
        let (string, after) = parse_string(rest)?;
        strings.push(string);
        let after = skip_parameters(after)?.trim_start_matches([' ', '\t']);
        if after.is_empty() {
            break;
        }
        rest = after.strip_prefix(',')?.trim_start_matches([' ', '\t']);
        if rest.is_empty() {
            return None;
        }
    }
    Some(strings)
}

/// A quoted string at the start of `text`, and what follows it.
fn parse_string(text: &str) -> Option<(String, &str)> {
    let inner = text.strip_prefix('"')?;
    let mut string = String::new();
    let mut chars = inner.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((string, inner.get(at + 1..)?)),
            '\\' => string.push(chars.next().map(|(_, c)| c).filter(|c| matches!(c, '"' | '\\'))?),
            ' '..='~' => string.push(c),
            _ => return None,
        }
    }
    None
}

/// Parameters say nothing to us; only plain ones are stepped over.
fn skip_parameters(mut text: &str) -> Option<&str> {
    while let Some(parameter) = text.strip_prefix(';') {
        let end = parameter.find([';', ',']).unwrap_or(parameter.len());
        let (skipped, after) = parameter.split_at_checked(end)?;
        if skipped.contains('"') {
            return None;
        }
        text = after;
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELD: HeaderName = HeaderName::from_static("x");

    fn field(value: &str) -> HeaderMap {
        [(FIELD, HeaderValue::try_from(value).unwrap())].into_iter().collect()
    }

    fn shown(offer: &Offer) -> (Option<&str>, Option<&str>) {
        let first = offer.first.as_ref().map(|first| first.to_str().unwrap());
        (first, offer.ticket.as_ref().map(Secret::expose))
    }

    #[test]
    fn tokens_and_strings_say_the_same() {
        let expected = (Some("alknet/echo"), Some("abc-_1"));
        let strings = strings(&field(r#""alknet/echo", "ticket.abc-_1""#), &FIELD);
        assert_eq!(shown(&strings), expected);
        let tokens = tokens(&field("alknet/echo,ticket.abc-_1"), &FIELD);
        assert_eq!(shown(&tokens), expected);
    }

    #[test]
    fn a_ticket_is_never_selected() {
        let offer = tokens(&field("ticket.one, ticket.two"), &FIELD);
        assert_eq!(shown(&offer), (None, Some("one")));
    }

    #[test]
    fn strings_may_have_escapes_and_parameters() {
        let parsed = parse_strings(r#""a\"b";q=1;x , "c\\""#).unwrap();
        assert_eq!(parsed, [r#"a"b"#, r"c\"]);
        assert_eq!(quoted(&HeaderValue::from_static(r#"a"b"#)), r#""a\"b""#);
    }

    #[test]
    fn a_list_with_anything_else_is_ignored() {
        for bad in [
            r#""a", b"#,
            r#""a"#,
            r#""a","#,
            r#""a" "b""#,
            r#"a"#,
            r#""\n""#,
            r#""a";x="q""#,
            "(\"a\")",
        ] {
            assert_eq!(parse_strings(bad), None, "{bad}");
        }
        assert_eq!(parse_strings(""), Some(Vec::new()));
    }
}
