//! Pages and header fields as nginx writes them with `server_tokens off`.

use std::time::SystemTime;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::ext::ReasonPhrase;

const SERVER: HeaderValue = HeaderValue::from_static("nginx");

/// What nginx adds to short error pages for browsers that would replace them.
const PADDING: &str = "<!-- a padding to disable MSIE and Chrome friendly error page -->\r\n";

/// What of a request shapes the answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    version: Version,
    keep_alive: bool,
    padded: bool,
}

impl Asked {
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        let agent = request.headers().get(header::USER_AGENT).map(HeaderValue::as_bytes);
        let padded =
            agent.is_some_and(|agent| contains(agent, b"MSIE ") || contains(agent, b"Chrome/"));
        Self { version: request.version(), keep_alive: keeps_alive(request), padded }
    }

    /// When the connection ends with the answer.
    pub(super) fn closing(self) -> Self {
        Self { keep_alive: false, ..self }
    }

    /// One of nginx's own pages.
    pub(super) fn page(&self, status: StatusCode) -> Response<Body> {
        let page = Page::of(status);
        let html = page.html(self.padded);
        let mut response = Response::new(Body::empty());
        *response.status_mut() = page.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(html.len()));
        response.extensions_mut().insert(ReasonPhrase::from_static(page.phrase.as_bytes()));
        self.dress(response.map(|_| Body::from(html)))
    }

    /// The fields that nginx writes on every answer, in its order.
    pub(super) fn dress(&self, mut response: Response<Body>) -> Response<Body> {
        let mut rest = std::mem::take(response.headers_mut());
        let mut headers = HeaderMap::with_capacity(rest.len() + 3);
        headers.insert(header::SERVER, SERVER);
        headers.insert(header::DATE, date());
        rest.remove(header::SERVER);
        rest.remove(header::DATE);
        for name in [header::CONTENT_TYPE, header::CONTENT_LENGTH, header::LAST_MODIFIED] {
            if let Some(value) = rest.remove(&name) {
                headers.insert(name, value);
            }
        }
        if self.version <= Version::HTTP_11 {
            let value = if self.keep_alive { "keep-alive" } else { "close" };
            headers.insert(header::CONNECTION, HeaderValue::from_static(value));
        }
        headers.extend(rest);
        *response.headers_mut() = headers;
        response
    }
}

/// Now, as a `Date` field has it.
pub(crate) fn date() -> HeaderValue {
    let now = httpdate::fmt_http_date(SystemTime::now());
    HeaderValue::try_from(now).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// A complete answer over HTTP/1.1 that ends the connection.
pub(crate) fn closing_page(status: StatusCode) -> Bytes {
    let page = Page::of(status);
    let html = page.html(false);
    let (code, date) = (page.status.as_u16(), httpdate::fmt_http_date(SystemTime::now()));
    let text = format!(
        "HTTP/1.1 {code} {}\r\nServer: nginx\r\nDate: {date}\r\nContent-Type: text/html\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{html}",
        page.phrase,
        html.len()
    );
    Bytes::from(text)
}

/// A status as nginx words it.
struct Page {
    status: StatusCode,
    phrase: &'static str,
    /// What the page says instead of the phrase in its title, and in a line of its own.
    detail: Option<&'static str>,
}

impl Page {
    fn of(status: StatusCode) -> Self {
        let phrase = match status.as_u16() {
            302 => "Moved Temporarily",
            405 => "Not Allowed",
            413 => "Request Entity Too Large",
            414 => "Request-URI Too Large",
            416 => "Requested Range Not Satisfiable",
            431 => {
                let detail = Some("Request Header Or Cookie Too Large");
                return Self { detail, ..Self::of(StatusCode::BAD_REQUEST) };
            }
            503 => "Service Temporarily Unavailable",
            504 => "Gateway Time-out",
            _ => status.canonical_reason().unwrap_or("Error"),
        };
        Self { status, phrase, detail: None }
    }

    fn html(&self, padded: bool) -> String {
        let (code, phrase) = (self.status.as_u16(), self.phrase);
        let title = self.detail.unwrap_or(phrase);
        let line = self.detail.map(|detail| format!("<center>{detail}</center>\r\n"));
        let padding = if padded && code >= 400 { PADDING.repeat(6) } else { String::new() };
        format!(
            "<html>\r\n<head><title>{code} {title}</title></head>\r\n<body>\r\n\
             <center><h1>{code} {phrase}</h1></center>\r\n{}\
             <hr><center>nginx</center>\r\n</body>\r\n</html>\r\n{padding}",
            line.unwrap_or_default()
        )
    }
}

/// Whether an HTTP/1 connection stays open after the answer.
fn keeps_alive<B>(request: &Request<B>) -> bool {
    let asked = |token: &str| {
        let fields = request.headers().get_all(header::CONNECTION).iter();
        fields
            .filter_map(|field| field.to_str().ok())
            .flat_map(|field| field.split(','))
            .any(|found| found.trim().eq_ignore_ascii_case(token))
    };
    match request.version() {
        Version::HTTP_11 => !asked("close"),
        _ => asked("keep-alive"),
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
