//! The fields of requests and answers, as HTTP/3 has them.

use std::time::SystemTime;

use axum::body::Body;
use http::{HeaderMap, HeaderValue, header};
use http_body::Body as _;

/// Fields that belong to one HTTP/1 connection and that no HTTP/3 message carries.
const OF_CONNECTIONS: [&str; 5] =
    ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];

/// A request that contradicts itself (RFC 9114, section 4.1.2). What passes for one must
/// not reach an HTTP/1 server behind this one, which would read it differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request is malformed")]
pub(super) struct Malformed;

/// Checks a request's fields, makes one of cookies that came apart (RFC 9114, section
/// 4.2.1), and returns the length that the body is to have.
pub(super) fn check(headers: &mut HeaderMap) -> Result<Option<u64>, Malformed> {
    if OF_CONNECTIONS.iter().any(|field| headers.contains_key(*field)) {
        return Err(Malformed);
    }
    join_cookies(headers);
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else { return Ok(None) };
    if lengths.next().is_some() || !length.as_bytes().iter().all(u8::is_ascii_digit) {
        return Err(Malformed);
    }
    let length = length.to_str().ok().and_then(|length| length.parse().ok());
    length.map(Some).ok_or(Malformed)
}

fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> =
        headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() < 2 {
        return;
    }
    // Parts of valid values make a valid value.
    if let Ok(mut cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        cookie.set_sensitive(true);
        headers.insert(header::COOKIE, cookie);
    }
}

/// Makes an answer's header what it is over HTTP/2: with a date and, where it is known, a
/// length; without the fields of HTTP/1.
pub(super) fn complete(headers: &mut HeaderMap, body: &Body) {
    for field in OF_CONNECTIONS {
        headers.remove(field);
    }
    if !headers.contains_key(header::DATE) {
        let date = httpdate::fmt_http_date(SystemTime::now());
        if let Ok(date) = HeaderValue::from_str(&date) {
            headers.insert(header::DATE, date);
        }
    }
    if let Some(length) = body.size_hint().exact().filter(|_| !body.is_end_stream()) {
        headers.entry(header::CONTENT_LENGTH).or_insert_with(|| length.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn lengths_are_numbers_and_given_once() {
        assert_eq!(check(&mut headers(&[])), Ok(None));
        assert_eq!(check(&mut headers(&[("content-length", "12")])), Ok(Some(12)));
        for length in ["", "+1", "-1", "1, 1", " 1", "0x1", "99999999999999999999"] {
            let checked = check(&mut headers(&[("content-length", length)]));
            assert_eq!(checked, Err(Malformed), "{length:?}");
        }
        let twice = [("content-length", "1"), ("content-length", "2")];
        assert_eq!(check(&mut headers(&twice)), Err(Malformed));
    }

    #[test]
    fn fields_of_http1_make_a_request_malformed() {
        for field in OF_CONNECTIONS {
            assert_eq!(check(&mut headers(&[(field, "x")])), Err(Malformed), "{field}");
        }
    }

    #[test]
    fn cookies_that_came_apart_are_joined() {
        let mut split = headers(&[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")]);
        check(&mut split).unwrap();
        assert_eq!(split.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2; c=3"]);
    }

    #[test]
    fn an_answer_is_completed_and_cleaned() {
        let mut answer = headers(&[("connection", "close"), ("date", "today")]);
        complete(&mut answer, &Body::from("four"));
        assert_eq!(answer, headers(&[("date", "today"), ("content-length", "4")]));
        let mut empty = headers(&[]);
        complete(&mut empty, &Body::empty());
        assert_eq!(empty.keys().collect::<Vec<_>>(), ["date"]);
    }
}
