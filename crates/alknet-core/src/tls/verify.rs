//! Who is at the other end of a TLS session: any key may come, none without proof.

use std::sync::{Arc, OnceLock};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};

use super::{IdentityError, NodeIdentity, select::provider};
use crate::{Alpn, KeyFingerprint, NodeId};

/// The DER encoding of an Ed25519 SubjectPublicKeyInfo up to the key (RFC 8410).
const ED25519_SPKI: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// What a client expects of a node's identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pin {
    /// This identity and no other.
    Expect(NodeId),
    /// Whichever it is: the caller remembers it (trust on first use).
    Learn,
}

impl Pin {
    /// Whether a proven identity is the expected one.
    pub fn check(self, actual: NodeId) -> Result<NodeId, WrongIdentity> {
        match self {
            Self::Expect(expected) if expected != actual => Err(WrongIdentity { expected, actual }),
            Self::Expect(_) | Self::Learn => Ok(actual),
        }
    }
}

/// The node is not the one that was pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the node's identity is {actual}, not the pinned {expected}")]
pub struct WrongIdentity {
    /// The pinned identity.
    pub expected: NodeId,
    /// The identity the node proved.
    pub actual: NodeId,
}

/// The Ed25519 key inside a peer's certificate. Its signature, names and dates mean
/// nothing here; possession is proven by the handshake.
pub(crate) fn peer_id(certificate: &CertificateDer<'_>) -> Result<NodeId, Error> {
    let bad = |_| Error::InvalidCertificate(CertificateError::BadEncoding);
    let parsed = webpki::EndEntityCert::try_from(certificate).map_err(bad)?;
    let spki = parsed.subject_public_key_info();
    let key = spki.as_ref().strip_prefix(&ED25519_SPKI).and_then(|key| key.try_into().ok());
    key.map(NodeId::from_bytes).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))
}

/// What a client's certificate is known by: its key if that is Ed25519, else the certificate.
pub(crate) fn fingerprint(certificate: &CertificateDer<'_>) -> Result<KeyFingerprint, Error> {
    match peer_id(certificate) {
        Ok(id) => Ok(KeyFingerprint::Ed25519(id)),
        Err(_) => webpki::EndEntityCert::try_from(certificate)
            .map(|_| KeyFingerprint::of_certificate(certificate))
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding)),
    }
}

impl KeyFingerprint {
    /// What a handshake knows a client with this X.509 certificate (in DER) by: its key if
    /// that is Ed25519, else the certificate. `None`: no handshake takes it.
    pub fn of_client_certificate(der: &[u8]) -> Option<Self> {
        fingerprint(&CertificateDer::from(der)).ok()
    }
}

/// Lets any key in and none without a signature over the handshake. Whether the key may do
/// anything is decided later, by the `Dispatcher`.
#[derive(Debug)]
pub(super) struct AnyClientKey(pub(super) Arc<CryptoProvider>);

impl ClientCertVerifier for AnyClientKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        fingerprint(end_entity).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("native clients speak TLS 1.3".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A client's view of the certificate a node presents.
#[derive(Debug)]
enum ServerCheck {
    /// An identity certificate with this pin; the key that came is noted.
    Identity { pin: Pin, presented: Arc<OnceLock<NodeId>> },
    /// Any certificate. The session authenticates nobody by itself: the caller proves both
    /// ends over the TLS exporter before it sends anything else.
    Channel,
}

#[derive(Debug)]
struct NodeVerifier {
    check: ServerCheck,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for NodeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let ServerCheck::Identity { pin, presented } = &self.check {
            let id = peer_id(end_entity)?;
            // TLS 1.3 presents a certificate once.
            let _ = presented.set(id);
            let wrong = |error| {
                Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
            };
            pin.check(id).map_err(wrong)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A client's TLS configuration for one ALPN, and where the identity that the node presents
/// for a service will stand: proven once the handshake has succeeded, and a mere claim when
/// it has failed. For any other ALPN the node answers with its web certificate, and the
/// handshake proves nothing.
pub(crate) fn client_config(
    alpn: &Alpn,
    pin: Pin,
    key: Option<&NodeIdentity>,
) -> Result<(ClientConfig, Arc<OnceLock<NodeId>>), IdentityError> {
    let provider = provider();
    let presented = Arc::new(OnceLock::new());
    let check = if alpn.is_service() {
        ServerCheck::Identity { pin, presented: presented.clone() }
    } else {
        ServerCheck::Channel
    };
    let verifier = Arc::new(NodeVerifier { check, provider: provider.clone() });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match key {
        Some(key) if alpn.is_service() => {
            let certified = Arc::new(key.certified_key()?);
            builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(
                certified,
            )))
        }
        Some(_) | None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok((config, presented))
}
