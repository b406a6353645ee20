//! The node's web certificate: from files, or self-signed and rotated ahead of time.

use std::{fs, io, path::PathBuf, time::Duration};

use alknet_core::{SelfSigned, WebCertificate, WebCertificateError, WebCertificates};
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
pub(crate) struct Certificates {
    pub(crate) tls: WebCertificates,
    pub(crate) published: watch::Receiver<Vec<Certificate>>,
    rotation: Option<Rotation>,
}

struct Rotation {
    home: Home,
    names: Vec<String>,
    pair: SelfSigned,
    tls: WebCertificates,
    publish: watch::Sender<Vec<Certificate>>,
}

impl Certificates {
    /// Reads or makes the certificate.
    pub(crate) fn open(home: &Home, source: Source) -> Result<Self, CertificateError> {
        match source {
            Source::Files { certificate, key } => {
                let read = |path: PathBuf| {
                    fs::read(&path).map_err(|source| CertificateError::File { path, source })
                };
                let certificate = WebCertificate::from_pem(&read(certificate)?, &read(key)?)?;
                let (_, published) = watch::channel(Vec::new());
                Ok(Self { tls: WebCertificates::new(certificate), published, rotation: None })
            }
            Source::SelfSigned { names } => {
                let pair = stored_or_new(home, &names)?;
                let tls = WebCertificates::new(pair.current()?);
                let (publish, published) = watch::channel(hashes(&pair)?);
                let rotation =
                    Rotation { home: home.clone(), names, pair, tls: tls.clone(), publish };
                Ok(Self { tls, published, rotation: Some(rotation) })
            }
        }
    }

    /// Rotates a self-signed certificate when its time comes; never ends. Handshakes from
    /// then on get the next one, and sessions go on undisturbed.
    pub(crate) async fn keep_fresh(self) {
        let Some(mut rotation) = self.rotation else { return std::future::pending().await };
        loop {
            tokio::time::sleep(LOOK).await;
            if OffsetDateTime::now_utc() < rotation.pair.rotates_at() {
                continue;
            }
            match rotation.turn() {
                Ok(()) => tracing::info!("rotated the web certificate"),
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "rotating the web certificate"
                    );
                }
            }
        }
    }
}

impl Rotation {
    fn turn(&mut self) -> Result<(), CertificateError> {
        let pair = self.pair.rotated(&self.names, OffsetDateTime::now_utc())?;
        self.home.write(FILE, pair.to_text().as_bytes())?;
        self.publish.send_replace(hashes(&pair)?);
        self.tls.replace(pair.current()?);
        self.pair = pair;
        Ok(())
    }
}

fn stored_or_new(home: &Home, names: &[String]) -> Result<SelfSigned, CertificateError> {
    let now = OffsetDateTime::now_utc();
    let stored = home.read(FILE)?.and_then(|bytes| {
        let text = zeroize::Zeroizing::new(String::from_utf8(bytes).ok()?);
        SelfSigned::from_text(&text).ok()
    });
    let pair = match stored {
        Some(pair) => pair.rotated(names, now)?,
        None => SelfSigned::generate(names, now)?,
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
    use super::*;

    fn open(home: &Home) -> Certificates {
        Certificates::open(home, Source::SelfSigned { names: vec!["localhost".into()] }).unwrap()
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
        let names = vec!["localhost".to_owned()];
        let old = SelfSigned::generate(&names, now - time::Duration::days(9)).unwrap();
        let next = hex::encode(old.published().unwrap()[1].0);
        let tls = WebCertificates::new(old.current().unwrap());
        let (publish, published) = watch::channel(hashes(&old).unwrap());
        let mut rotation =
            Rotation { home: home.clone(), names, pair: old, tls: tls.clone(), publish };
        rotation.turn().unwrap();
        assert_eq!(published.borrow()[0].sha256, next);
        assert_eq!(hex::encode(tls.current().sha256()), next);
        assert_eq!(open(&home).published.borrow()[0].sha256, next);
    }
}
