//! Requests that nginx turns away before it looks for a site.

use http::{HeaderValue, Method, Request, StatusCode, Version, header};

/// nginx's `client_max_body_size`, in bytes.
const MAX_BODY: u64 = 1024 * 1024;
/// The longest line that fits into one of nginx's `large_client_header_buffers`.
const MAX_LINE: usize = 8 * 1024;
/// What a request line has beside method and target.
const LINE_REST: usize = "  HTTP/1.1\r\n".len();

/// The status that nginx answers by itself, if it does.
pub(super) fn status<B>(request: &Request<B>) -> Option<StatusCode> {
    if request.version() <= Version::HTTP_11
        && let Some(status) = of_lines(request)
    {
        return Some(status);
    }
    let named = |b: &u8| b.is_ascii_uppercase() || matches!(b, b'_' | b'-');
    let method = request.method();
    if *method == Method::CONNECT || !method.as_str().as_bytes().iter().all(named) {
        return Some(StatusCode::BAD_REQUEST);
    }
    let path = request.uri().path();
    if !path.starts_with('/') || climbs_out(path) {
        return Some(StatusCode::BAD_REQUEST);
    }
    (*method == Method::TRACE).then_some(StatusCode::METHOD_NOT_ALLOWED)
}

/// Whether the body is longer than nginx takes for a site of its own.
pub(super) fn is_too_long<B>(request: &Request<B>) -> bool {
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    length.is_some_and(|length| length > MAX_BODY)
}

/// What only HTTP/1 can get wrong.
fn of_lines<B>(request: &Request<B>) -> Option<StatusCode> {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if request.method().as_str().len() + target + LINE_REST > MAX_LINE {
        return Some(StatusCode::URI_TOO_LONG);
    }
    let headers = request.headers();
    let long = |(name, value): (&header::HeaderName, &HeaderValue)| {
        name.as_str().len() + value.len() + 4 > MAX_LINE
    };
    if headers.iter().any(long) {
        return Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    let bad_host = match (hosts.next(), hosts.next()) {
        (None, _) => request.version() == Version::HTTP_11,
        (Some(host), None) => host.as_bytes().iter().any(|b| *b <= b' ' || *b == b'/'),
        (Some(_), Some(_)) => true,
    };
    bad_host.then_some(StatusCode::BAD_REQUEST)
}

/// Whether `..` leads above the root.
fn climbs_out(path: &str) -> bool {
    let mut depth = 0_usize;
    for segment in path.to_ascii_lowercase().replace("%2e", ".").replace("%2f", "/").split('/') {
        match segment {
            "" | "." => {}
            ".." => match depth.checked_sub(1) {
                Some(above) => depth = above,
                None => return true,
            },
            _ => depth += 1,
        }
    }
    false
}
