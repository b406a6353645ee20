//! Which TLS configuration a ClientHello gets.

use std::sync::Arc;

use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{Acceptor, ClientHello, ResolvesServerCert},
    sign::SingleCertAndKey,
};

use super::{IdentityError, NodeIdentity, verify::AnyClientKey};
use crate::{Alpn, SERVICE_PREFIX};

/// A TLS record carries at most this much (RFC 8446, section 5.1).
const RECORD: usize = 1 << 14;
/// The largest ClientHello that is read.
const MAX_HELLO: usize = 64 * 1024;

/// The server's TLS configurations could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The identity cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// rustls refused the combination.
    #[error("the TLS configuration is not usable")]
    Config(#[from] rustls::Error),
    /// QUIC needs a cipher suite that the provider lacks.
    #[error("the TLS provider lacks QUIC's initial cipher suite")]
    Quic(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
}

/// The cryptography of every TLS session: aws-lc-rs, X25519MLKEM768 first.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// The two configurations of one endpoint.
#[derive(Debug, Clone)]
pub(crate) struct Configs {
    /// For native clients: the identity certificate, a client key asked for, TLS 1.3.
    pub(crate) native: Arc<ServerConfig>,
    /// For everybody else: the web certificate, no client key.
    pub(crate) web: Arc<ServerConfig>,
    services: bool,
}

impl Configs {
    pub(crate) fn new<'a>(
        identity: &NodeIdentity,
        web: Arc<dyn ResolvesServerCert>,
        alpns: impl Iterator<Item = &'a Alpn>,
    ) -> Result<Self, TlsError> {
        let (services, standard): (Vec<&Alpn>, Vec<&Alpn>) =
            alpns.partition(|alpn| alpn.is_service());
        let provider = provider();

        let certified = Arc::new(identity.certified_key()?);
        let mut native = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(TlsError::Config)?
            .with_client_cert_verifier(Arc::new(AnyClientKey(provider.clone())))
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        native.alpn_protocols = names(&services);

        let mut standard_config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Config)?
            .with_no_client_auth()
            .with_cert_resolver(web);
        standard_config.alpn_protocols = names(&standard);
        // Credentials are bound to the exporter, which TLS 1.2 makes unique to a session
        // only with the extended master secret (RFC 7627; RFC 9729, section 7).
        standard_config.require_ems = true;
        Ok(Self {
            native: Arc::new(native),
            web: Arc::new(standard_config),
            services: !services.is_empty(),
        })
    }

    /// The configuration for a ClientHello. Where no service is offered, as in cover mode,
    /// nobody is treated as native.
    pub(crate) fn choose(&self, hello: &ClientHello<'_>) -> &Arc<ServerConfig> {
        if self.services && offers_services_alone(hello) { &self.native } else { &self.web }
    }
}

/// The protocol names of one configuration. rustls takes an empty list for "any", so that
/// stands as a name nobody offers.
fn names(alpns: &[&Alpn]) -> Vec<Vec<u8>> {
    if alpns.is_empty() {
        return vec![vec![0]];
    }
    alpns.iter().map(|alpn| alpn.as_bytes().to_vec()).collect()
}

fn offers_services_alone(hello: &ClientHello<'_>) -> bool {
    let Some(mut alpns) = hello.alpn() else { return false };
    alpns.all(|alpn| alpn.starts_with(SERVICE_PREFIX.as_bytes()))
}

/// The bytes of a CRYPTO stream up to now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Peek {
    /// The ClientHello is not whole yet.
    More,
    /// It is, and rustls could read it: what it decided.
    Hello(bool),
    /// It is no ClientHello: the web configuration makes the proper alert of it.
    Bad,
}

/// Whether the ClientHello at the start of `crypto` asks for the native configuration.
pub(super) fn peek(configs: &Configs, crypto: &[u8]) -> Peek {
    let [_, a, b, c, rest @ ..] = crypto else { return Peek::More };
    let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
    if length > MAX_HELLO {
        return Peek::Bad;
    }
    if rest.len() < length {
        return Peek::More;
    }
    let hello = crypto.get(..4 + length).unwrap_or(crypto);
    let mut acceptor = Acceptor::default();
    if acceptor.read_tls(&mut records(hello).as_slice()).is_err() {
        return Peek::Bad;
    }
    match acceptor.accept() {
        Ok(Some(accepted)) => {
            Peek::Hello(Arc::ptr_eq(configs.choose(&accepted.client_hello()), &configs.native))
        }
        Ok(None) | Err(_) => Peek::Bad,
    }
}

/// A handshake message in TLS records, which QUIC leaves out and `Acceptor` expects.
fn records(message: &[u8]) -> Vec<u8> {
    let mut records = Vec::with_capacity(message.len() + 16);
    for part in message.chunks(RECORD) {
        let length = u16::try_from(part.len()).unwrap_or(u16::MAX);
        records.extend_from_slice(&[0x16, 3, 1]);
        records.extend_from_slice(&length.to_be_bytes());
        records.extend_from_slice(part);
    }
    records
}
