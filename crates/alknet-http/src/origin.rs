//! Authorities and origins of requests.

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::{HeaderMap, header, request::Parts, uri::Authority};

use crate::concealed::Target;

const HTTPS: u16 = 443;

/// The authority a request is for: `:authority`, or the one `Host` field of HTTP/1.1.
pub(crate) fn authority(parts: &Parts) -> Option<Authority> {
    let found = match parts.uri.authority() {
        Some(authority) => authority.clone(),
        None => single(&parts.headers, &header::HOST)?.parse().ok()?,
    };
    (!found.as_str().contains('@')).then_some(found)
}

/// Host and port as both ends of a connection see them.
pub(crate) fn target(authority: &Authority) -> Target<'_> {
    Target { host: authority.host(), port: authority.port_u16().unwrap_or(HTTPS) }
}

/// The value of a field that stands once, as text.
pub(crate) fn single<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// The origins whose pages may open tunnels: the request's own, and a configured list.
/// Clones share the list, which can be exchanged at any time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origins(Arc<ArcSwap<Vec<String>>>);

impl Origins {
    pub(crate) fn new(allowed: impl IntoIterator<Item = String>) -> Self {
        let origins = Self::default();
        origins.replace(allowed);
        origins
    }

    /// Allows these from the next request on.
    pub(crate) fn replace(&self, allowed: impl IntoIterator<Item = String>) {
        self.0.store(Arc::new(allowed.into_iter().map(|origin| normal(&origin)).collect()));
    }

    /// Whether the page that sent the request may: no `Origin` at all is no page.
    pub(crate) fn admit(&self, parts: &Parts) -> bool {
        if !parts.headers.contains_key(header::ORIGIN) {
            return true;
        }
        let listed = single(&parts.headers, &header::ORIGIN)
            .is_some_and(|origin| self.0.load().contains(&normal(origin)));
        listed || is_same_origin(parts)
    }
}

/// Whether the request has the `Origin` of the authority it is for.
pub(crate) fn is_same_origin(parts: &Parts) -> bool {
    let origin = single(&parts.headers, &header::ORIGIN).map(normal);
    let own = authority(parts).map(|authority| normal(&format!("https://{authority}")));
    origin.is_some() && origin == own
}

/// Lower case and without the default port, as browsers write it (RFC 6454, section 6.2).
pub(crate) fn normal(origin: &str) -> String {
    let origin = origin.trim_end_matches('/').to_ascii_lowercase();
    match origin.strip_suffix(":443") {
        Some(bare) if bare.starts_with("https://") => bare.into(),
        _ => origin,
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn parts(host: &str, origin: Option<&str>) -> Parts {
        let mut request = Request::get("/").header("host", host);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn the_own_origin_is_the_authority_over_https() {
        for (host, origin) in [
            ("node.example", "https://node.example"),
            ("Node.Example:443", "https://node.example"),
            ("node.example:4433", "https://node.example:4433"),
            ("[::1]:4433", "https://[::1]:4433"),
        ] {
            assert!(is_same_origin(&parts(host, Some(origin))), "{host} {origin}");
        }
        for (host, origin) in [
            ("node.example", "http://node.example"),
            ("node.example", "https://node.example:4433"),
            ("node.example", "https://evil.example"),
            ("node.example", "https://node.example.evil.example"),
            ("user@node.example", "https://user@node.example"),
            ("node.example", "null"),
            ("node.example", ""),
        ] {
            assert!(!is_same_origin(&parts(host, Some(origin))), "{host} {origin}");
        }
    }

    #[test]
    fn pages_of_other_origins_must_be_listed() {
        let origins = Origins::new(["https://App.example:443/".into()]);
        assert!(origins.admit(&parts("node.example", None)));
        assert!(origins.admit(&parts("node.example", Some("https://app.example"))));
        assert!(!origins.admit(&parts("node.example", Some("https://evil.example"))));
        assert!(!origins.admit(&parts("node.example", Some("null"))));
    }

    #[test]
    fn two_origins_or_two_hosts_are_none() {
        let mut twice = parts("node.example", Some("https://node.example"));
        twice.headers.append("origin", "https://node.example".parse().unwrap());
        assert!(!Origins::default().admit(&twice));
        let mut hosts = parts("node.example", None);
        hosts.headers.append("host", "other.example".parse().unwrap());
        assert_eq!(authority(&hosts), None);
    }
}
