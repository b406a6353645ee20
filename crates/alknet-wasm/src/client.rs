//! How this client speaks SSH: algorithms, and what it makes of the server's answers.

use std::{borrow::Cow, sync::Arc};

use alknet_core::NodeId;
use russh::{
    Names, Preferred, SshId, cipher,
    client::{Config, DisconnectReason, Handler, Session},
    compression, kex,
    keys::{Algorithm, PublicKeyOrCertificate},
    mac,
};
use tokio::sync::oneshot;

use crate::{HostError, SshError, host, timer};

/// Bytes the server may send on a channel before the page has taken them.
const WINDOW: u32 = 2 * 1024 * 1024;

/// AEAD ciphers, strict key exchange, post-quantum first. ChaCha20-Poly1305 comes before
/// AES because WebAssembly has no AES instructions.
const ALGORITHMS: Preferred = Preferred {
    kex: Cow::Borrowed(&[
        kex::MLKEM768X25519_SHA256,
        kex::CURVE25519,
        kex::CURVE25519_PRE_RFC_8731,
        kex::EXTENSION_SUPPORT_AS_CLIENT,
        kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
    ]),
    // No bare host keys: only a certificate says which node signed it.
    key: Cow::Borrowed(&[]),
    host_key_certificates: Cow::Borrowed(&[Algorithm::Ed25519]),
    cipher: Cow::Borrowed(&[cipher::CHACHA20_POLY1305, cipher::AES_256_GCM, cipher::AES_128_GCM]),
    mac: Cow::Borrowed(&[mac::HMAC_SHA512_ETM, mac::HMAC_SHA256_ETM]),
    compression: Cow::Borrowed(&[compression::NONE]),
};

pub(crate) fn config() -> Arc<Config> {
    Arc::new(Config {
        client_id: SshId::Standard(Cow::Borrowed("SSH-2.0-alknet")),
        preferred: ALGORITHMS,
        window_size: WINDOW,
        // tokio's timers do not exist in a browser.
        inactivity_timeout: None,
        keepalive_interval: None,
        ..Config::default()
    })
}

/// How a session ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// The server said goodbye with these words.
    Server(String),
    /// The connection ended or failed.
    Lost(SshError),
}

/// Watches one session: who the server is, and how it ends.
pub(crate) struct Watch {
    node: NodeId,
    ended: Option<oneshot::Sender<Ending>>,
}

impl Watch {
    pub(crate) fn new(node: NodeId) -> (Self, oneshot::Receiver<Ending>) {
        let (ended, ending) = oneshot::channel();
        (Self { node, ended: Some(ended) }, ending)
    }
}

impl Handler for Watch {
    type Error = SshError;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, SshError> {
        let certificate = key.certificate().ok_or(HostError::NoCertificate)?;
        host::verify(certificate, self.node, timer::now())?;
        Ok(true)
    }

    async fn kex_done(
        &mut self,
        _: Option<&[u8]>,
        names: &Names,
        _: &mut Session,
    ) -> Result<(), SshError> {
        if names.strict_kex() { Ok(()) } else { Err(SshError::NotStrict) }
    }

    async fn disconnected(&mut self, reason: DisconnectReason<SshError>) -> Result<(), SshError> {
        let ending = match reason {
            DisconnectReason::ReceivedDisconnect(info) => Ending::Server(info.message),
            DisconnectReason::Error(error) => Ending::Lost(error),
        };
        if let Some(ended) = self.ended.take() {
            // Nobody waits any more: the page has dropped the session.
            let _ = ended.send(ending);
        }
        Ok(())
    }
}
