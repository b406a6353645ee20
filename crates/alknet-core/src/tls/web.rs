//! The X.509 certificate for browsers and other stock clients.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::{
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use sha2::{Digest as _, Sha256};
use time::{Duration, OffsetDateTime};

/// How long a self-signed certificate is valid, the margin for a wrong clock included.
/// `serverCertificateHashes` (W3C WebTransport, section 6.9) takes no more than 14 days.
const VALIDITY: Duration = Duration::days(13);
/// How long one is in use before the next takes over.
const IN_USE: Duration = Duration::days(9);
/// How far a client's clock may be behind.
const CLOCK_MARGIN: Duration = Duration::hours(2);

/// A web certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WebCertificateError {
    /// It could not be generated.
    #[error("the certificate could not be generated")]
    Generate(#[from] rcgen::Error),
    /// The PEM text is not what it should be.
    #[error("the PEM file is not readable")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// rustls refused key or certificate, or they do not belong together.
    #[error("the certificate and its key are not usable")]
    Tls(#[from] rustls::Error),
    /// The PEM text has no certificate.
    #[error("the PEM file has no certificate")]
    Empty,
    /// A stored pair has a malformed header.
    #[error("the stored certificates are damaged")]
    Damaged,
}

/// A certificate chain with its key, ready for TLS.
#[derive(Clone)]
pub struct WebCertificate(Arc<CertifiedKey>);

impl WebCertificate {
    /// From PEM texts: a chain, the end-entity certificate first, and its private key
    /// (PKCS#8, SEC1 or PKCS#1).
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, WebCertificateError> {
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>()?;
        if chain.is_empty() {
            return Err(WebCertificateError::Empty);
        }
        let key = any_supported_type(&PrivateKeyDer::from_pem_slice(key)?)?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match()?;
        Ok(Self(Arc::new(certified)))
    }

    /// SHA-256 of the end-entity certificate.
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(self.0.cert.first().map_or(&[][..], |der| der.as_ref())).into()
    }
}

impl fmt::Debug for WebCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebCertificate({})", hex::encode(self.sha256()))
    }
}

/// The certificate in use, to be exchanged at any time: sessions that have begun keep
/// theirs.
#[derive(Debug, Clone)]
pub struct WebCertificates(Arc<RwLock<WebCertificate>>);

impl WebCertificates {
    /// Starts with `certificate`.
    pub fn new(certificate: WebCertificate) -> Self {
        Self(Arc::new(RwLock::new(certificate)))
    }

    /// Uses `certificate` for every handshake from now on.
    pub fn replace(&self, certificate: WebCertificate) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = certificate;
    }

    /// The certificate in use.
    pub fn current(&self) -> WebCertificate {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesServerCert for WebCertificates {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current().0)
    }
}

/// A present and a next self-signed P-256 certificate. The next one exists from the start,
/// so that a client that was told both hashes lives through a rotation.
#[derive(Clone)]
pub struct SelfSigned {
    current: Pem,
    next: Pem,
}

#[derive(Clone)]
struct Pem {
    certificate: String,
    key: zeroize::Zeroizing<String>,
    not_before: OffsetDateTime,
}

impl SelfSigned {
    /// A fresh pair for these host names and addresses, the present one valid from `now`.
    pub fn generate(names: &[String], now: OffsetDateTime) -> Result<Self, WebCertificateError> {
        let current = Pem::generate(names, now)?;
        let next = Pem::generate(names, current.retires())?;
        Ok(Self { current, next })
    }

    /// When the next certificate takes over.
    pub fn rotates_at(&self) -> OffsetDateTime {
        self.current.retires()
    }

    /// The pair as it should be at `now`: itself, or with the next certificate in use and a
    /// new one after it, or a fresh pair if both are past their time.
    pub fn rotated(
        &self,
        names: &[String],
        now: OffsetDateTime,
    ) -> Result<Self, WebCertificateError> {
        if now < self.current.retires() {
            return Ok(self.clone());
        }
        if now < self.next.retires() {
            let next = Pem::generate(names, self.next.retires())?;
            return Ok(Self { current: self.next.clone(), next });
        }
        Self::generate(names, now)
    }

    /// The certificate to use now.
    pub fn current(&self) -> Result<WebCertificate, WebCertificateError> {
        self.current.load()
    }

    /// Hash and end of validity of the present and of the next certificate.
    pub fn published(&self) -> Result<[([u8; 32], OffsetDateTime); 2], WebCertificateError> {
        let of = |pem: &Pem| Ok::<_, WebCertificateError>((pem.load()?.sha256(), pem.not_after()));
        Ok([of(&self.current)?, of(&self.next)?])
    }

    /// As text for the state folder. It holds private keys.
    pub fn to_text(&self) -> zeroize::Zeroizing<String> {
        let mut text = zeroize::Zeroizing::new(String::new());
        for pem in [&self.current, &self.next] {
            text.push_str(&format!("not-before {}\n", pem.not_before.unix_timestamp()));
            text.push_str(&pem.key);
            text.push_str(&pem.certificate);
        }
        text
    }

    /// From the text of [`to_text`](Self::to_text).
    pub fn from_text(text: &str) -> Result<Self, WebCertificateError> {
        let mut parts = text.split("not-before ").skip(1).map(Pem::parse);
        match (parts.next(), parts.next(), parts.next()) {
            (Some(current), Some(next), None) => Ok(Self { current: current?, next: next? }),
            _ => Err(WebCertificateError::Damaged),
        }
    }
}

impl fmt::Debug for SelfSigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SelfSigned").field("rotates_at", &self.rotates_at()).finish_non_exhaustive()
    }
}

impl Pem {
    fn generate(
        names: &[String],
        in_use_from: OffsetDateTime,
    ) -> Result<Self, WebCertificateError> {
        let not_before = (in_use_from - CLOCK_MARGIN).replace_nanosecond(0).unwrap_or(in_use_from);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(names.to_vec())?;
        params.not_before = not_before;
        params.not_after = not_before + VALIDITY;
        params
            .distinguished_name
            .push(DnType::CommonName, names.first().map_or("localhost", String::as_str));
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { certificate, key: key.serialize_pem().into(), not_before })
    }

    fn parse(part: &str) -> Result<Self, WebCertificateError> {
        let (seconds, pems) = part.split_once('\n').ok_or(WebCertificateError::Damaged)?;
        let seconds = seconds.parse().map_err(|_| WebCertificateError::Damaged)?;
        let not_before = OffsetDateTime::from_unix_timestamp(seconds)
            .map_err(|_| WebCertificateError::Damaged)?;
        let at = pems.find("-----BEGIN CERTIFICATE").ok_or(WebCertificateError::Damaged)?;
        let (key, certificate) = pems.split_at(at);
        let pem = Self { certificate: certificate.into(), key: key.to_owned().into(), not_before };
        pem.load()?;
        Ok(pem)
    }

    fn load(&self) -> Result<WebCertificate, WebCertificateError> {
        WebCertificate::from_pem(self.certificate.as_bytes(), self.key.as_bytes())
    }

    fn retires(&self) -> OffsetDateTime {
        self.not_before + CLOCK_MARGIN + IN_USE
    }

    fn not_after(&self) -> OffsetDateTime {
        self.not_before + VALIDITY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        vec!["localhost".into()]
    }

    fn start() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
    }

    #[test]
    fn a_published_hash_outlives_a_rotation() {
        let pair = SelfSigned::generate(&names(), start()).unwrap();
        let [_, (next, _)] = pair.published().unwrap();
        let later = pair.rotated(&names(), pair.rotates_at()).unwrap();
        assert_eq!(later.published().unwrap()[0].0, next);
        assert_eq!(later.current().unwrap().sha256(), next);
        assert_ne!(later.published().unwrap()[1].0, next);
    }

    #[test]
    fn nothing_changes_before_its_time_and_a_stale_pair_is_replaced() {
        let pair = SelfSigned::generate(&names(), start()).unwrap();
        let same = pair.rotated(&names(), start() + Duration::days(8)).unwrap();
        assert_eq!(same.published().unwrap(), pair.published().unwrap());
        let fresh = pair.rotated(&names(), start() + Duration::days(60)).unwrap();
        assert!(fresh.rotates_at() > start() + Duration::days(60));
        assert!(
            pair.published().unwrap().iter().all(|old| !fresh.published().unwrap().contains(old))
        );
    }

    #[test]
    fn every_certificate_is_valid_while_in_use_and_never_14_days() {
        let pair = SelfSigned::generate(&names(), start()).unwrap();
        for pem in [&pair.current, &pair.next] {
            assert!(pem.not_after() - pem.not_before < Duration::days(14));
            assert!(pem.retires() + Duration::days(3) < pem.not_after());
        }
        assert_eq!(pair.current.retires(), pair.next.not_before + CLOCK_MARGIN);
    }

    #[test]
    fn the_stored_text_round_trips_and_damage_is_an_error() {
        let pair = SelfSigned::generate(&names(), start()).unwrap();
        let text = pair.to_text();
        assert_eq!(
            SelfSigned::from_text(&text).unwrap().published().unwrap(),
            pair.published().unwrap()
        );
        assert!(SelfSigned::from_text(&text[..text.len() / 2]).is_err());
        assert!(SelfSigned::from_text("").is_err());
        assert!(!format!("{pair:?}").contains("PRIVATE"));
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let pair = SelfSigned::generate(&names(), start()).unwrap();
        let mixed =
            WebCertificate::from_pem(pair.current.certificate.as_bytes(), pair.next.key.as_bytes());
        assert!(mixed.is_err());
    }
}
