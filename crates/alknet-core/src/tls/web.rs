//! The X.509 certificate for browsers and other stock clients.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use aws_lc_rs::{
    agreement, hkdf,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair},
};
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::{
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use sha2::{Digest as _, Sha256};
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

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
    /// A stored pair is malformed, or was made from another seed.
    #[error("the stored certificates are damaged or of another node")]
    Damaged,
    /// The cryptographic library failed.
    #[error("the cryptographic library failed")]
    Crypto,
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
        Self::new(chain, &PrivateKeyDer::from_pem_slice(key)?)
    }

    fn new(
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'_>,
    ) -> Result<Self, WebCertificateError> {
        let certified = CertifiedKey::new(chain, any_supported_type(key)?);
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
///
/// Every key comes from one seed by the number of the day on which its certificate is taken
/// into use, so that what is stored holds no private key.
#[derive(Clone)]
pub struct SelfSigned {
    current: Pem,
    next: Pem,
    seed: Zeroizing<[u8; 32]>,
}

#[derive(Clone)]
struct Pem {
    certificate: String,
    not_before: OffsetDateTime,
}

impl SelfSigned {
    /// A fresh pair for these host names and addresses, the present one valid from `now`,
    /// with keys that nobody can make again.
    pub fn generate(names: &[String], now: OffsetDateTime) -> Result<Self, WebCertificateError> {
        let mut seed = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(&mut *seed).map_err(|_| WebCertificateError::Crypto)?;
        Self::from_seed(&seed, names, now)
    }

    /// A fresh pair whose keys come from `seed`: 32 uniformly random bytes.
    pub fn from_seed(
        seed: &[u8; 32],
        names: &[String],
        now: OffsetDateTime,
    ) -> Result<Self, WebCertificateError> {
        let current = Pem::generate(seed, names, now)?;
        let next = Pem::generate(seed, names, current.retires())?;
        Ok(Self { current, next, seed: Zeroizing::new(*seed) })
    }

    /// When the next certificate takes over.
    pub fn rotates_at(&self) -> OffsetDateTime {
        self.current.retires()
    }

    /// Whether the present certificate is the one to use at `now`. Afterwards it is not, nor
    /// before its validity begins: then the clock was wrong when it was made.
    pub fn is_in_time(&self, now: OffsetDateTime) -> bool {
        self.current.is_in_time(now)
    }

    /// The pair as it should be at `now`: itself, or with the next certificate in use and a
    /// new one after it, or a fresh pair if it is the time of neither.
    pub fn rotated(
        &self,
        names: &[String],
        now: OffsetDateTime,
    ) -> Result<Self, WebCertificateError> {
        if self.is_in_time(now) {
            return Ok(self.clone());
        }
        if self.next.is_in_time(now) {
            let next = Pem::generate(&self.seed, names, self.next.retires())?;
            return Ok(Self { current: self.next.clone(), next, seed: self.seed.clone() });
        }
        Self::from_seed(&self.seed, names, now)
    }

    /// The certificate to use now.
    pub fn current(&self) -> Result<WebCertificate, WebCertificateError> {
        self.current.load(&self.seed)
    }

    /// Hash and end of validity of the present and of the next certificate.
    pub fn published(&self) -> Result<[([u8; 32], OffsetDateTime); 2], WebCertificateError> {
        let of = |pem: &Pem| {
            Ok::<_, WebCertificateError>((pem.load(&self.seed)?.sha256(), pem.not_after()))
        };
        Ok([of(&self.current)?, of(&self.next)?])
    }

    /// As text for the state folder. It holds no private keys.
    pub fn to_text(&self) -> String {
        [&self.current, &self.next]
            .map(|pem| {
                format!("not-before {}\n{}", pem.not_before.unix_timestamp(), pem.certificate)
            })
            .concat()
    }

    /// From the text of [`to_text`](Self::to_text) and the seed of its keys; a pair of
    /// another seed is an error.
    pub fn from_text(text: &str, seed: &[u8; 32]) -> Result<Self, WebCertificateError> {
        let mut parts = text.split("not-before ").skip(1).map(|part| Pem::parse(part, seed));
        match (parts.next(), parts.next(), parts.next()) {
            (Some(current), Some(next), None) => {
                Ok(Self { current: current?, next: next?, seed: Zeroizing::new(*seed) })
            }
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
        seed: &[u8; 32],
        names: &[String],
        in_use_from: OffsetDateTime,
    ) -> Result<Self, WebCertificateError> {
        let not_before = (in_use_from - CLOCK_MARGIN).replace_nanosecond(0).unwrap_or(in_use_from);
        let mut pem = Self { certificate: String::new(), not_before };
        let key = pem.key(seed)?;
        let key = PrivatePkcs8KeyDer::from(key.as_slice());
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(names.to_vec())?;
        params.not_before = not_before;
        params.not_after = not_before + VALIDITY;
        params
            .distinguished_name
            .push(DnType::CommonName, names.first().map_or("localhost", String::as_str));
        pem.certificate = params.self_signed(&key)?.pem();
        Ok(pem)
    }

    fn parse(part: &str, seed: &[u8; 32]) -> Result<Self, WebCertificateError> {
        let (seconds, certificate) = part.split_once('\n').ok_or(WebCertificateError::Damaged)?;
        let seconds = seconds.parse().map_err(|_| WebCertificateError::Damaged)?;
        let not_before = OffsetDateTime::from_unix_timestamp(seconds)
            .map_err(|_| WebCertificateError::Damaged)?;
        // So that every moment that is counted from it exists.
        if not_before.checked_add(CLOCK_MARGIN + IN_USE + VALIDITY).is_none() {
            return Err(WebCertificateError::Damaged);
        }
        let pem = Self { certificate: certificate.into(), not_before };
        pem.load(seed)?;
        Ok(pem)
    }

    fn load(&self, seed: &[u8; 32]) -> Result<WebCertificate, WebCertificateError> {
        let chain = CertificateDer::pem_slice_iter(self.certificate.as_bytes())
            .collect::<Result<Vec<_>, _>>()?;
        if chain.len() != 1 {
            return Err(WebCertificateError::Damaged);
        }
        let key = self.key(seed)?;
        WebCertificate::new(chain, &PrivatePkcs8KeyDer::from(key.as_slice()).into())
            .map_err(|_| WebCertificateError::Damaged)
    }

    /// The private key as PKCS#8, by the day on which the certificate is taken into use.
    fn key(&self, seed: &[u8; 32]) -> Result<Zeroizing<Vec<u8>>, WebCertificateError> {
        let day = (self.not_before + CLOCK_MARGIN).unix_timestamp().div_euclid(24 * 60 * 60);
        p256_key(seed, day)
    }

    fn is_in_time(&self, now: OffsetDateTime) -> bool {
        self.not_before <= now && now < self.retires()
    }

    fn retires(&self) -> OffsetDateTime {
        self.not_before + CLOCK_MARGIN + IN_USE
    }

    fn not_after(&self) -> OffsetDateTime {
        self.not_before + VALIDITY
    }
}

/// The P-256 key with a number, as PKCS#8: the first of HKDF-SHA256(seed, no salt, info
/// "alknet v1 web certificate p256" ‖ number (8 bytes) ‖ attempt (1)) that is a private key.
/// That is the generation by testing candidates of FIPS 186-5, appendix A.2.2; one attempt
/// in 2^32 fails.
fn p256_key(seed: &[u8; 32], number: i64) -> Result<Zeroizing<Vec<u8>>, WebCertificateError> {
    let keys = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(seed);
    for attempt in 0..=u8::MAX {
        let info = [&b"alknet v1 web certificate p256"[..], &number.to_be_bytes(), &[attempt]];
        let mut candidate = Zeroizing::new([0; 32]);
        keys.expand(&info, hkdf::HKDF_SHA256)
            .and_then(|key| key.fill(&mut *candidate))
            .map_err(|_| WebCertificateError::Crypto)?;
        if let Some(key) = p256_of_scalar(&candidate) {
            return Ok(key);
        }
    }
    Err(WebCertificateError::Crypto)
}

/// `None` if the number is zero or not below the order of the group.
fn p256_of_scalar(scalar: &[u8; 32]) -> Option<Zeroizing<Vec<u8>>> {
    let private = agreement::PrivateKey::from_private_key(&agreement::ECDH_P256, scalar).ok()?;
    let public = private.compute_public_key().ok()?;
    let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
    let pair = EcdsaKeyPair::from_private_key_and_public_key(algorithm, scalar, public.as_ref());
    Some(Zeroizing::new(pair.ok()?.to_pkcs8v1().ok()?.as_ref().to_vec()))
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

    /// A clock that was wrong at the first start, and is set right.
    #[test]
    fn a_pair_from_the_future_is_replaced() {
        let pair = SelfSigned::generate(&names(), start()).unwrap();
        let slow = start() - CLOCK_MARGIN;
        let same = pair.rotated(&names(), slow).unwrap();
        assert_eq!(same.published().unwrap(), pair.published().unwrap());
        let before = slow - Duration::SECOND;
        assert!(pair.is_in_time(slow) && !pair.is_in_time(before));
        assert_eq!(pair.rotated(&names(), before).unwrap().rotates_at(), before + IN_USE);
        // The next one alone is from the future.
        let far = SelfSigned::from_seed(&pair.seed, &names(), start() + Duration::days(100));
        let gap = SelfSigned { next: far.unwrap().current, ..pair };
        let now = gap.rotates_at();
        assert_eq!(gap.rotated(&names(), now).unwrap().rotates_at(), now + IN_USE);
    }

    #[test]
    fn no_stored_date_is_too_much() {
        let text = SelfSigned::from_seed(&[7; 32], &names(), start()).unwrap().to_text();
        let last = OffsetDateTime::new_utc(time::Date::MAX, time::Time::MIDNIGHT);
        for seconds in [i64::MAX, i64::MIN, last.unix_timestamp()] {
            let (_, rest) = text.split_once('\n').unwrap();
            let text = format!("not-before {seconds}\n{rest}");
            let error = SelfSigned::from_text(&text, &[7; 32]).unwrap_err();
            assert!(matches!(error, WebCertificateError::Damaged), "{error}");
        }
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
    fn the_stored_text_round_trips_without_keys_and_damage_is_an_error() {
        let pair = SelfSigned::from_seed(&[7; 32], &names(), start()).unwrap();
        let text = pair.to_text();
        assert!(!text.contains("PRIVATE"), "{text}");
        let read = SelfSigned::from_text(&text, &[7; 32]).unwrap();
        assert_eq!(read.published().unwrap(), pair.published().unwrap());
        assert_eq!(read.current().unwrap().sha256(), pair.current().unwrap().sha256());
        assert!(SelfSigned::from_text(&text, &[8; 32]).is_err());
        assert!(SelfSigned::from_text(&text[..text.len() / 2], &[7; 32]).is_err());
        assert!(SelfSigned::from_text("", &[7; 32]).is_err());
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let [one, other] = [0, 1].map(|_| KeyPair::generate().unwrap());
        let certificate = CertificateParams::new(names()).unwrap().self_signed(&one).unwrap().pem();
        let with = |key: &KeyPair| {
            WebCertificate::from_pem(certificate.as_bytes(), key.serialize_pem().as_bytes())
        };
        assert!(with(&one).is_ok() && with(&other).is_err());
    }

    /// The same seed brings the same key for a day, and no other day's. The expected number
    /// is RFC 5869 by Python's `hmac`.
    #[test]
    fn a_key_comes_from_the_seed_and_the_day() {
        let key = |seed, day| p256_key(&[seed; 32], day).unwrap();
        assert_eq!(key(7, 20_000), key(7, 20_000));
        assert_ne!(key(7, 20_000), key(7, 20_001));
        assert_ne!(key(7, 20_000), key(8, 20_000));
        let scalar = "c4003b5947a286d118a55083c0d92b2e14bcee38469e407471bba25eccddadca";
        let scalar: [u8; 32] = hex::decode(scalar).unwrap().try_into().unwrap();
        assert_eq!(key(0x2a, 20_000), p256_of_scalar(&scalar).unwrap());
    }

    /// The ends of the range, SEC 2, section 2.4.2.
    #[test]
    fn only_numbers_of_the_group_are_keys() {
        let order = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
        let mut number: [u8; 32] = hex::decode(order).unwrap().try_into().unwrap();
        for bad in [[0; 32], number, [0xff; 32]] {
            assert!(p256_of_scalar(&bad).is_none(), "{}", hex::encode(bad));
        }
        number[31] -= 1;
        assert!(p256_of_scalar(&number).is_some());
    }
}
