//! QUIC's TLS session, begun only when the ClientHello is whole.
//!
//! rustls fixes the certificate type and client authentication per configuration, and
//! quinn starts a session at the first packet. A ClientHello may span several, so the
//! session buffers until it can choose.

use std::{any::Any, sync::Arc};

use quinn::crypto::{
    ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, ServerConfig, Session,
    UnsupportedVersion,
    rustls::{NoInitialCipherSuite, QuicServerConfig},
};
use quinn_proto::{ConnectionId, Side, TransportError, transport_parameters::TransportParameters};

use super::select::{Configs, Peek, peek};

/// A [`ServerConfig`] that chooses between two by ClientHello.
pub(crate) struct Lazy {
    configs: Configs,
    native: Arc<QuicServerConfig>,
    web: Arc<QuicServerConfig>,
}

impl Lazy {
    pub(crate) fn new(configs: Configs) -> Result<Self, NoInitialCipherSuite> {
        let native = Arc::new(QuicServerConfig::try_from(configs.native.clone())?);
        let web = Arc::new(QuicServerConfig::try_from(configs.web.clone())?);
        Ok(Self { configs, native, web })
    }
}

impl ServerConfig for Lazy {
    fn initial_keys(
        &self,
        version: u32,
        dst_cid: &ConnectionId,
    ) -> Result<Keys, UnsupportedVersion> {
        self.web.initial_keys(version, dst_cid)
    }

    fn retry_tag(&self, version: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.web.retry_tag(version, orig_dst_cid, packet)
    }

    fn start_session(
        self: Arc<Self>,
        version: u32,
        params: &TransportParameters,
    ) -> Box<dyn Session> {
        let unread = self.web.clone().start_session(version, params);
        Box::new(LazySession {
            config: self,
            version,
            params: *params,
            hello: Vec::new(),
            session: unread,
            begun: false,
        })
    }
}

struct LazySession {
    config: Arc<Lazy>,
    version: u32,
    params: TransportParameters,
    hello: Vec<u8>,
    /// Before `begun`, a web session that has read nothing: it answers what does not
    /// depend on the choice.
    session: Box<dyn Session>,
    begun: bool,
}

impl LazySession {
    fn begin(&mut self, native: bool) -> Result<bool, TransportError> {
        if native {
            self.session = self.config.native.clone().start_session(self.version, &self.params);
        }
        self.begun = true;
        self.session.read_handshake(&std::mem::take(&mut self.hello))
    }
}

impl Session for LazySession {
    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        self.session.initial_keys(dst_cid, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.session.handshake_data()
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.session.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.session.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.session.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        if self.begun {
            return self.session.read_handshake(buf);
        }
        // quinn bounds the CRYPTO stream, and `peek` decides as soon as a length is bad.
        self.hello.extend_from_slice(buf);
        match peek(&self.config.configs, &self.hello) {
            Peek::More => Ok(false),
            Peek::Hello(native) => self.begin(native),
            Peek::Bad => self.begin(false),
        }
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.session.transport_parameters()
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        if self.begun { self.session.write_handshake(buf) } else { None }
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.session.next_1rtt_keys()
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.session.is_valid_retry(orig_dst_cid, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.session.export_keying_material(output, label, context)
    }
}
