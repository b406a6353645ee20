//! The node's web certificate: from files, or self-signed and rotated ahead of time.

use std::{
    fs, io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use alknet_core::{SelfSigned, WebCertificate, WebCertificateError, WebCertificates};
use alknet_vault::SecretKey;
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::{
    home::{Home, HomeError},
    web::Certificate,
};

/// The self-signed pair in the state folder.
const FILE: &str = "web-certificate";
/// How often the clock is looked at: a timer alone would sleep through a suspend.
const LOOK: Duration = Duration::from_secs(600);

/// The certificate could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    /// The state folder failed.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// A named file cannot be read.
    #[error("{path}")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// It is not usable.
    #[error("the web certificate")]
    Certificate(#[from] WebCertificateError),
}

/// Where the certificate comes from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// PEM files: the chain and its key.
    Files { certificate: PathBuf, key: PathBuf },
    /// Made by the node for these names.
    SelfSigned { names: Vec<String> },
}

/// The certificate in use, and what browsers are told of it.
#[derive(Debug)]
pub(crate) struct Certificates {
    pub(crate) tls: WebCertificates,
    pub(crate) published: watch::Receiver<Vec<Certificate>>,
    publish: watch::Sender<Vec<Certificate>>,
    home: Home,
    /// What the keys of self-signed certificates come from.
    seed: SecretKey,
    rotation: Mutex<Option<Rotation>>,
}

/// A certificate that can take the place of the one in use.
#[derive(Debug)]
pub(crate) struct Loaded {
    certificate: WebCertificate,
    /// What browsers are told: nothing of certificates from files.
    published: Vec<Certificate>,
    rotation: Option<Rotation>,
}

/// The self-signed pair in use.
#[derive(Debug)]
struct Rotation {
    names: Vec<String>,
    pair: SelfSigned,
}

impl Certificates {
    /// Reads or makes the certificate; the keys of self-signed ones come from `seed`.
    pub(crate) fn open(
        home: &Home,
        source: Source,
        seed: SecretKey,
    ) -> Result<Self, CertificateError> {
        let Loaded { certificate, published, rotation } = Loaded::new(home, source, &seed)?;
        let (publish, published) = watch::channel(published);
        Ok(Self {
            tls: WebCertificates::new(certificate),
            published,
            publish,
            home: home.clone(),
            seed,
            rotation: Mutex::new(rotation),
        })
    }

    /// Reads or makes what is to be used instead; `None` if it is the self-signed
    /// certificate and that is in use. Blocks for the disk.
    pub(crate) fn load(&self, source: Source) -> Result<Option<Loaded>, CertificateError> {
        match source {
            Source::SelfSigned { .. } if self.rotation().is_some() => Ok(None),
            source => Loaded::new(&self.home, source, &self.seed).map(Some),
        }
    }

    /// Uses a certificate for every handshake from now on; whether it is another one than
    /// before. Sessions go on undisturbed.
    pub(crate) fn replace(&self, loaded: Loaded) -> bool {
        let mut rotation = self.rotation();
        let changed = loaded.certificate.sha256() != self.tls.current().sha256();
        self.publish.send_replace(loaded.published);
        self.tls.replace(loaded.certificate);
        *rotation = loaded.rotation;
        changed
    }

    /// Rotates a self-signed certificate when its time comes; never ends. Handshakes from
    /// then on get the next one, and sessions go on undisturbed.
    pub(crate) async fn keep_fresh(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            match self.turn(OffsetDateTime::now_utc()) {
                Ok(false) => {}
                Ok(true) => tracing::info!("rotated the web certificate"),
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "rotating the web certificate"
                    );
                }
            }
        }
    }

    /// Rotates if it is time to; whether it was.
    fn turn(&self, now: OffsetDateTime) -> Result<bool, CertificateError> {
        let mut rotation = self.rotation();
        let Some(Rotation { names, pair }) = &mut *rotation else { return Ok(false) };
        if pair.is_in_time(now) {
            return Ok(false);
        }
        let next = pair.rotated(names, now)?;
        self.home.write(FILE, next.to_text().as_bytes())?;
        self.publish.send_replace(hashes(&next)?);
        self.tls.replace(next.current()?);
        *pair = next;
        Ok(true)
    }

    fn rotation(&self) -> MutexGuard<'_, Option<Rotation>> {
        self.rotation.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Loaded {
    fn new(home: &Home, source: Source, seed: &SecretKey) -> Result<Self, CertificateError> {
        match source {
            Source::Files { certificate, key } => {
                let read = |path: PathBuf| {
                    fs::read(&path).map_err(|source| CertificateError::File { path, source })
                };
                let key = read(key).map(zeroize::Zeroizing::new)?;
                let certificate = WebCertificate::from_pem(&read(certificate)?, &key)?;
                Ok(Self { certificate, published: Vec::new(), rotation: None })
            }
            Source::SelfSigned { names } => {
                let pair = stored_or_new(home, &names, seed)?;
                let (certificate, published) = (pair.current()?, hashes(&pair)?);
                Ok(Self { certificate, published, rotation: Some(Rotation { names, pair }) })
            }
        }
    }
}

fn stored_or_new(
    home: &Home,
    names: &[String],
    seed: &SecretKey,
) -> Result<SelfSigned, CertificateError> {
    let now = OffsetDateTime::now_utc();
    let stored = home.read(FILE)?.and_then(|bytes| {
        SelfSigned::from_text(std::str::from_utf8(&bytes).ok()?, seed.expose()).ok()
    });
    let pair = match stored {
        Some(pair) => pair.rotated(names, now)?,
        None => SelfSigned::from_seed(seed.expose(), names, now)?,
    };
    home.write(FILE, pair.to_text().as_bytes())?;
    Ok(pair)
}

fn hashes(pair: &SelfSigned) -> Result<Vec<Certificate>, WebCertificateError> {
    let published = pair.published()?;
    let of = |(hash, not_after): ([u8; 32], OffsetDateTime)| Certificate {
        sha256: hex::encode(hash),
        not_after: not_after.unix_timestamp(),
    };
    Ok(published.map(of).into())
}

#[cfg(test)]
mod tests {
    use alknet_vault::{Mnemonic, Purpose, Vault};

    use super::*;

    fn seed() -> SecretKey {
        let phrase = format!("{} about", ["abandon"; 11].join(" "));
        let vault = Vault::from_mnemonic(&Mnemonic::parse(&phrase).unwrap(), "");
        vault.key(Purpose::WebCertificate).unwrap()
    }

    fn open(home: &Home) -> Certificates {
        let source = Source::SelfSigned { names: vec!["localhost".into()] };
        Certificates::open(home, source, seed()).unwrap()
    }

    #[test]
    fn a_restart_keeps_the_certificate_and_damage_makes_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(Some(folder.path().join("home"))).unwrap();
        let first = open(&home);
        let again = open(&home);
        assert_eq!(first.tls.current().sha256(), again.tls.current().sha256());
        assert_eq!(first.published.borrow()[0].sha256, hex::encode(first.tls.current().sha256()));
        home.write(FILE, b"rubbish").unwrap();
        assert_ne!(open(&home).tls.current().sha256(), first.tls.current().sha256());
    }

    #[test]
    fn a_rotation_publishes_stores_and_uses_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(Some(folder.path().join("home"))).unwrap();
        let now = OffsetDateTime::now_utc();
        let old = now - time::Duration::days(8);
        let old = SelfSigned::from_seed(seed().expose(), &["localhost".into()], old);
        home.write(FILE, old.unwrap().to_text().as_bytes()).unwrap();
        let certificates = open(&home);
        let next = certificates.published.borrow()[1].sha256.clone();
        assert!(!certificates.turn(now).unwrap(), "it is not time yet");
        assert!(certificates.turn(now + time::Duration::days(2)).unwrap());
        assert_eq!(certificates.published.borrow()[0].sha256, next);
        assert_eq!(hex::encode(certificates.tls.current().sha256()), next);
        let stored = String::from_utf8(home.read(FILE).unwrap().unwrap()).unwrap();
        assert!(!stored.contains("PRIVATE"), "{stored}");
        let stored = SelfSigned::from_text(&stored, seed().expose());
        assert_eq!(hex::encode(stored.unwrap().published().unwrap()[0].0), next);
    }

    /// The clock was ahead when the node started, and is set right while it runs.
    #[test]
    fn a_certificate_from_the_future_is_rotated() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(Some(folder.path().join("home"))).unwrap();
        let certificates = open(&home);
        let before = OffsetDateTime::now_utc() - time::Duration::days(300);
        assert!(certificates.turn(before).unwrap());
        assert!(!certificates.turn(before).unwrap());
        assert!(
            certificates.published.borrow()[0].not_after < before.unix_timestamp() + 14 * 86_400
        );
    }

    #[test]
    fn certificates_of_files_take_over_and_are_not_published() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(Some(folder.path().join("home"))).unwrap();
        let certificates = open(&home);
        let own = certificates.tls.current().sha256();
        let pair = rcgen::generate_simple_self_signed(["node.example".into()]).unwrap();
        let (certificate, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
        fs::write(&certificate, pair.cert.pem()).unwrap();
        let files = Source::Files { certificate, key: key.clone() };
        assert!(matches!(certificates.load(files.clone()), Err(CertificateError::File { .. })));
        fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
        let load = |source| certificates.load(source).unwrap();
        assert!(certificates.replace(load(files.clone()).unwrap()));
        assert_ne!(certificates.tls.current().sha256(), own);
        assert!(certificates.published.borrow().is_empty());
        assert!(!certificates.turn(OffsetDateTime::now_utc() + time::Duration::days(90)).unwrap());
        assert!(!certificates.replace(load(files).unwrap()), "they are the same");
        // And back to the one that was, which browsers may have pinned.
        let back = Source::SelfSigned { names: vec!["localhost".into()] };
        assert!(certificates.replace(load(back.clone()).unwrap()));
        assert_eq!(certificates.tls.current().sha256(), own);
        assert!(load(back).is_none());
    }
}
