//! Requests of the node's own to servers elsewhere.

use std::{net::IpAddr, sync::Arc, time::Duration};

use alknet_core::Secret;
use bytes::Bytes;
use http::{HeaderValue, Uri};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};
use rustls::{ClientConfig, RootCertStore};

/// Encodes all but the unreserved characters of a URL (RFC 3986, section 2.3).
pub(crate) const UNRESERVED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// How long a connection may take to open.
const CONNECT: Duration = Duration::from_secs(10);

/// HTTP/1.1 and HTTP/2 over TLS, or in plain text. It follows no redirects.
pub(crate) type Client = legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A server cannot be asked like this.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutboundError {
    /// The address is not one of HTTP.
    #[error("the address has to be https://HOST/PATH, and this is not: {0}")]
    Url(Uri),
    /// Anybody on the way could read and change what is said.
    #[error("{0} is neither https:// nor on this machine")]
    Plain(Uri),
    /// An authority is no certificate.
    #[error("an authority that is no certificate")]
    Authority(#[source] rustls::Error),
    /// The cryptographic library has no version of TLS.
    #[error("there is no TLS")]
    Tls(#[source] rustls::Error),
}

/// Whether an address may be asked: over TLS, on this machine, or `allow_plain`.
pub(crate) fn check(url: &Uri, allow_plain: bool) -> Result<(), OutboundError> {
    let Some(authority) = url.authority() else { return Err(OutboundError::Url(url.clone())) };
    if authority.as_str().contains('@') {
        return Err(OutboundError::Url(url.clone()));
    }
    match url.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if allow_plain || is_loopback(authority.host()) => Ok(()),
        Some("http") => Err(OutboundError::Plain(url.clone())),
        _ => Err(OutboundError::Url(url.clone())),
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse();
    host == "localhost" || address.is_ok_and(|address: IpAddr| address.is_loopback())
}

/// A client that trusts the authorities of the system and these.
pub(crate) fn client(authorities: Vec<Vec<u8>>) -> Result<Client, OutboundError> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(CONNECT));
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls(authorities)?)
        .https_or_http()
        .enable_http1()
        .enable_http2()
        .wrap_connector(tcp);
    Ok(legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .build(connector))
}

fn tls(authorities: Vec<Vec<u8>>) -> Result<ClientConfig, OutboundError> {
    let mut roots = RootCertStore::empty();
    // An authority of the system that cannot be used vouches for nobody.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for authority in authorities {
        roots.add(authority.into()).map_err(OutboundError::Authority)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(OutboundError::Tls)?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// The token as the value of an `Authorization` field.
pub(crate) fn bearer(token: &Secret) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_stays_on_this_machine() {
        let may = |url: &str, allow| check(&url.parse().unwrap(), allow).is_ok();
        for url in
            ["https://a.example/x", "http://127.0.0.1:1/", "http://[::1]/", "http://localhost"]
        {
            assert!(may(url, false), "{url}");
        }
        for url in ["http://a.example/", "http://127.0.0.1.example/", "http://10.0.0.1/"] {
            assert!(!may(url, false) && may(url, true), "{url}");
        }
        for url in ["ftp://a.example/", "/path", "https://user@a.example/"] {
            assert!(!may(url, true), "{url}");
        }
    }
}
