//! A real endpoint on loopback: what each kind of client gets in its handshake.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "../examples/echo/handler.rs"]
mod echo;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use alknet_core::{
    Access, Alpn, Audit, AuthContext, AuthMethod, ClosedBy, Code, Connection, Dial, DialError,
    Dispatcher, Endpoint, EndpointConfig, HandlerError, HandlerRegistry, KeyFingerprint, Limits,
    NodeIdentity, Pin, ProtocolHandler, ResetKey, SelfSigned, WebCertificates,
};
use alknet_testing::identities::{Identities, identity};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Writes who the caller is on the first stream.
struct Whoami(&'static [&'static str]);

impl ProtocolHandler for Whoami {
    fn name(&self) -> &'static str {
        "whoami"
    }

    fn alpns(&self) -> Vec<Alpn> {
        self.0.iter().map(|name| Alpn::new(name).unwrap()).collect()
    }

    async fn handle(&self, connection: Connection, auth: AuthContext) -> Result<(), HandlerError> {
        let mut stream = connection.accept_bi().await?;
        let name = auth.identity.as_ref().map_or("nobody", |identity| &identity.name);
        stream.write_all(format!("{name} by {}", auth.method.name()).as_bytes()).await?;
        stream.shutdown().await?;
        drop(stream);
        connection.closed().await;
        Ok(())
    }
}

/// Panics when it has a stream.
struct Panics;

impl ProtocolHandler for Panics {
    fn name(&self) -> &'static str {
        "panics"
    }

    fn alpns(&self) -> Vec<Alpn> {
        vec![Alpn::new("alknet/panics").unwrap()]
    }

    async fn handle(&self, connection: Connection, _: AuthContext) -> Result<(), HandlerError> {
        let stream = connection.accept_bi().await?;
        panic!("as the test asks, holding {stream:?}");
    }
}

struct Node {
    endpoint: Endpoint,
    identity: Arc<NodeIdentity>,
}

fn node(identities: Identities, limits: Limits, hide_services: bool) -> Node {
    serve(HandlerRegistry::new(), identities, limits, hide_services)
}

/// A node with one handler more.
fn node_with(handler: impl ProtocolHandler, identities: Identities, limits: Limits) -> Node {
    let mut registry = HandlerRegistry::new();
    registry.register(handler, Access::Public).unwrap();
    serve(registry, identities, limits, false)
}

fn serve(
    registry: HandlerRegistry,
    identities: Identities,
    limits: Limits,
    hide_services: bool,
) -> Node {
    serve_on(0, registry, identities, limits, hide_services)
}

fn serve_on(
    port: u16,
    mut registry: HandlerRegistry,
    identities: Identities,
    limits: Limits,
    hide_services: bool,
) -> Node {
    registry.register(echo::Echo, Access::Public).unwrap();
    registry.register(Whoami(&["alknet/open", "web"]), Access::Public).unwrap();
    registry.register(Whoami(&["alknet/private"]), Access::Scope).unwrap();
    registry.register(Panics, Access::Public).unwrap();
    let identity = Arc::new(NodeIdentity::from_seed(&[1; 32]).unwrap());
    let web = SelfSigned::generate(&["localhost".into()], time::OffsetDateTime::now_utc()).unwrap();
    let config = EndpointConfig {
        listen: (std::net::Ipv6Addr::UNSPECIFIED, port).into(),
        identity: identity.clone(),
        web: WebCertificates::new(web.current().unwrap()),
        hide_services,
        fallback: None,
        resets: Some(ResetKey::new(&[9; 32])),
    };
    let dispatcher = Dispatcher::new(registry, limits, Audit::to_log());
    Node { endpoint: Endpoint::bind(&config, dispatcher, Arc::new(identities)).unwrap(), identity }
}

fn plain_node() -> Node {
    node(Identities::new(), Limits::default(), false)
}

impl Node {
    fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.endpoint.local_addr().port()))
    }

    fn dial(&self, alpn: &str) -> Dial {
        Dial {
            server_name: "localhost".into(),
            alpn: Alpn::new(alpn).unwrap(),
            pin: Pin::Expect(self.identity.id()),
            key: None,
            // Enough for a busy machine, and for the first packet to be sent a few times.
            timeout: Duration::from_secs(60),
        }
    }

    /// The same dial over both transports.
    async fn both(&self, dial: &Dial) -> [Result<Connection, DialError>; 2] {
        let [quic, tls] = [dial.quic(self.addr()).await, dial.tls(self.addr()).await];
        [quic.map(|d| d.connection), tls.map(|d| d.connection)]
    }
}

async fn ask(connection: &Connection) -> std::io::Result<String> {
    let mut stream = connection.open_bi().await.map_err(std::io::Error::other)?;
    stream.write_all(b"?").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn one_port_serves_quic_and_tls_on_both_address_families() {
    let node = plain_node();
    let dial = node.dial("alknet/echo");
    for addr in [node.addr(), SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, node.addr().port()))]
    {
        for dialled in [dial.quic(addr).await.unwrap(), dial.tls(addr).await.unwrap()] {
            assert_eq!(dialled.node, Some(node.identity.id()));
            let mut stream = dialled.connection.open_bi().await.unwrap();
            stream.write_all(b"hello").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert_eq!(answer, "hello");
        }
    }
}

#[tokio::test]
async fn a_megabyte_comes_back_whole_on_many_streams_at_once() {
    let node = plain_node();
    let connection = node.dial("alknet/echo").quic(node.addr()).await.unwrap().connection;
    let mut streams = tokio::task::JoinSet::new();
    for i in 0..20u8 {
        let (mut send, mut recv) = connection.open_bi().await.unwrap().split();
        streams.spawn(async move {
            let data = vec![i; 1 << 20];
            let copy = data.clone();
            let write = async move {
                send.write_all(&copy).await.unwrap();
                send.shutdown().await.unwrap();
            };
            let mut back = Vec::new();
            let (_, read) = tokio::join!(write, recv.read_to_end(&mut back));
            read.unwrap();
            assert!(back == data);
        });
    }
    while let Some(done) = streams.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn a_wrong_pin_is_refused_before_anything_is_sent() {
    let node = plain_node();
    let other = NodeIdentity::from_seed(&[2; 32]).unwrap().id();
    let dial = Dial { pin: Pin::Expect(other), ..node.dial("alknet/echo") };
    for result in node.both(&dial).await {
        match result.unwrap_err() {
            DialError::WrongIdentity(wrong) => {
                assert_eq!((wrong.expected, wrong.actual), (other, node.identity.id()));
            }
            error => panic!("{error:?}"),
        }
    }
}

#[tokio::test]
async fn an_unregistered_alpn_fails_in_the_handshake() {
    let node = plain_node();
    for alpn in ["alknet/nothing", "unheard-of"] {
        for result in node.both(&node.dial(alpn)).await {
            assert!(matches!(result, Err(DialError::NoSuchProtocol(_))), "{alpn}: {result:?}");
        }
    }
}

#[tokio::test]
async fn hidden_services_are_not_offered() {
    let node = node(Identities::new(), Limits::default(), true);
    for result in node.both(&node.dial("alknet/echo")).await {
        assert!(matches!(result, Err(DialError::NoSuchProtocol(_))), "{result:?}");
    }
    for result in node.both(&node.dial("web")).await {
        assert_eq!(ask(&result.unwrap()).await.unwrap(), "nobody by none");
    }
}

#[tokio::test]
async fn a_proven_key_is_an_identity_and_an_unknown_one_is_not() {
    let key = Arc::new(NodeIdentity::from_seed(&[3; 32]).unwrap());
    let known = Identities::new()
        .with_key(KeyFingerprint::Ed25519(key.id()), identity("ann", &["private"]));
    let node = node(known, Limits::default(), false);
    let with_key = Dial { key: Some(key), ..node.dial("alknet/private") };
    for result in node.both(&with_key).await {
        assert_eq!(
            ask(&result.unwrap()).await.unwrap(),
            format!("ann by {}", AuthMethod::TlsKey.name())
        );
    }
    let stranger = Arc::new(NodeIdentity::from_seed(&[4; 32]).unwrap());
    let as_stranger = Dial { key: Some(stranger), ..node.dial("alknet/private") };
    for dial in [as_stranger, node.dial("alknet/private")] {
        let quic = dial.quic(node.addr()).await.unwrap().connection;
        assert_eq!(quic.closed().await.code, Code::REFUSED);
        let tls = dial.tls(node.addr()).await.unwrap().connection;
        assert!(ask(&tls).await.unwrap_or_default().is_empty());
    }
}

/// A certificate that names one key and signs with another.
fn stolen_config(victim: &CertificateDer<'static>, alpn: &str) -> rustls::ClientConfig {
    let own = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    client_config(victim, &own, alpn)
}

/// A client that presents a certificate and signs with a key.
fn client_config(
    certificate: &CertificateDer<'static>,
    own: &rcgen::KeyPair,
    alpn: &str,
) -> rustls::ClientConfig {
    #[derive(Debug)]
    struct Anything;
    impl rustls::client::danger::ServerCertVerifier for Anything {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: rustls::pki_types::UnixTime,
        ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
            Ok(rustls::client::danger::ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            vec![rustls::SignatureScheme::ED25519, rustls::SignatureScheme::ECDSA_NISTP256_SHA256]
        }
    }
    let der = PrivatePkcs8KeyDer::from(own.serialize_der()).into();
    let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&der).unwrap();
    let certified = rustls::sign::CertifiedKey::new(vec![certificate.clone()], signer);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anything))
        .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![alpn.into()];
    config
}

#[tokio::test]
async fn somebody_elses_public_key_is_refused() {
    let victim = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let certificate = rcgen::CertificateParams::new(Vec::new())
        .unwrap()
        .self_signed(&victim)
        .unwrap()
        .der()
        .clone();
    let id = alknet_core::NodeId::from_bytes(victim.public_key_raw().try_into().unwrap());
    let known = Identities::new().with_key(KeyFingerprint::Ed25519(id), identity("victim", &["*"]));
    let node = node(known, Limits::default(), false);
    let config = stolen_config(&certificate, "alknet/private");

    let connector = tokio_rustls::TlsConnector::from(Arc::new(config.clone()));
    let tcp = TcpStream::connect(node.addr()).await.unwrap();
    let mut answer = Vec::new();
    // A TLS 1.3 client learns of the refusal when it first reads.
    let outcome = match connector.connect(ServerName::try_from("localhost").unwrap(), tcp).await {
        Ok(mut stream) => stream.read_to_end(&mut answer).await.map(drop),
        Err(error) => Err(error),
    };
    assert!(
        outcome.unwrap_err().to_string().contains("DecryptError"),
        "the signature is what fails"
    );
    assert!(answer.is_empty());

    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(config).unwrap();
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let connecting = endpoint
        .connect_with(quinn::ClientConfig::new(Arc::new(crypto)), node.addr(), "localhost")
        .unwrap();
    let error = match connecting.await {
        Ok(connection) => connection.closed().await,
        Err(error) => error,
    };
    match error {
        quinn::ConnectionError::ConnectionClosed(close) => {
            assert_eq!(
                close.error_code,
                quinn::TransportErrorCode::crypto(51),
                "decrypt_error: {close:?}"
            );
        }
        error => panic!("{error:?}"),
    }
}

/// What a stock TLS client reads from `alknet/private`.
async fn ask_by_tls(node: &Node, config: rustls::ClientConfig) -> std::io::Result<String> {
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let tcp = TcpStream::connect(node.addr()).await?;
    let mut stream = connector.connect(ServerName::try_from("localhost").unwrap(), tcp).await?;
    stream.write_all(b"?").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn an_x509_certificate_of_any_kind_is_a_key_and_a_stolen_one_is_not() {
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384] {
        let own = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["ann".into()])
            .unwrap()
            .self_signed(&own)
            .unwrap()
            .der()
            .clone();
        let fingerprint = KeyFingerprint::of_certificate(&certificate);
        let known = Identities::new().with_key(fingerprint, identity("ann", &["private"]));
        let node = node(known, Limits::default(), false);
        let config = client_config(&certificate, &own, "alknet/private");
        assert_eq!(ask_by_tls(&node, config).await.unwrap(), "ann by tls-key");

        let other = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let stolen = client_config(&certificate, &other, "alknet/private");
        let error = ask_by_tls(&node, stolen).await.unwrap_err();
        assert!(error.to_string().contains("DecryptError"), "{error}");
    }
}

#[tokio::test]
async fn an_address_that_fails_too_often_is_turned_away_everywhere() {
    /// Counts every caller as one who failed to authenticate.
    struct Refuses;
    impl ProtocolHandler for Refuses {
        fn name(&self) -> &'static str {
            "refuses"
        }
        fn alpns(&self) -> Vec<Alpn> {
            vec![Alpn::new("alknet/refuses").unwrap()]
        }
        async fn handle(&self, _: Connection, auth: AuthContext) -> Result<(), HandlerError> {
            auth.session.failed(&auth, &"as the test asks");
            Ok(())
        }
    }
    let mut limits = Limits::default();
    limits.failures_per_address = 2;
    limits.exempt = Vec::new();
    let node = node_with(Refuses, Identities::new(), limits);
    let dial = node.dial("alknet/refuses");
    for _ in 0..3 {
        dial.quic(node.addr()).await.unwrap().connection.closed().await;
    }
    for refused in node.both(&node.dial("alknet/echo")).await {
        assert!(matches!(refused, Err(DialError::Refused)), "{refused:?}");
    }
}

#[tokio::test]
async fn an_address_has_so_many_handshakes() {
    let mut limits = Limits::default();
    limits.handshakes_per_address = 4;
    limits.exempt = Vec::new();
    let node = node(Identities::new(), limits, false);
    let dial = node.dial("alknet/echo");
    let mut open = Vec::new();
    for _ in 0..4 {
        // The later ones of QUIC have to prove their address first, and do.
        open.push(dial.quic(node.addr()).await.unwrap());
    }
    for refused in node.both(&dial).await {
        assert!(matches!(refused, Err(DialError::Refused)), "{refused:?}");
    }
    let mut stream = open[0].connection.open_bi().await.unwrap();
    stream.write_all(b"x").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'x', "who is in stays in");
}

#[tokio::test]
async fn stock_clients_see_the_web_certificate_and_are_not_asked_for_one() {
    let node = plain_node();
    let key = Arc::new(NodeIdentity::from_seed(&[3; 32]).unwrap());
    let dial = Dial { key: Some(key), pin: Pin::Learn, ..node.dial("web") };
    for dialled in [dial.quic(node.addr()).await.unwrap(), dial.tls(node.addr()).await.unwrap()] {
        assert_eq!(dialled.node, None);
        assert_eq!(ask(&dialled.connection).await.unwrap(), "nobody by none");
    }
}

#[tokio::test]
async fn exporters_agree_at_both_ends_of_one_session_only() {
    let node = plain_node();
    let dial = node.dial("alknet/echo");
    let mut seen = Vec::new();
    for dialled in [dial.quic(node.addr()).await.unwrap(), dial.tls(node.addr()).await.unwrap()] {
        let mut material = [0; 32];
        dialled
            .connection
            .export_keying_material(&mut material, b"EXPORTER-test", b"context")
            .unwrap();
        assert_ne!(material, [0; 32]);
        seen.push(material);
    }
    assert_ne!(seen[0], seen[1]);
}

#[tokio::test]
async fn half_open_handshakes_do_not_lock_anybody_out() {
    let mut limits = Limits::default();
    limits.handshakes = 16;
    let node = node(Identities::new(), limits, false);
    let mut half_open = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(node.addr()).await.unwrap();
        stream.write_all(&[0x16, 3, 1]).await.unwrap();
        half_open.push(stream);
    }
    let dialled = node.dial("alknet/echo").tls(node.addr()).await.unwrap();
    assert!(dialled.connection.open_bi().await.is_ok());
    // The oldest ones have been cut off, well before their timeout.
    let mut byte = [0];
    assert!(matches!(half_open[0].read(&mut byte).await, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_panicking_handler_ends_its_own_connections_alone() {
    let node = plain_node();
    let calm = node.dial("alknet/echo").quic(node.addr()).await.unwrap().connection;
    let mut stream = calm.open_bi().await.unwrap();
    for broken in node.both(&node.dial("alknet/panics")).await {
        // Cut off, and not ended in order: what had come might be a part.
        let error = ask(&broken.unwrap()).await.unwrap_err().to_string();
        assert!(error.contains("closed") && !error.contains("://"), "{error}");
    }
    stream.write_all(b"x").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'x');
    assert!(node.dial("alknet/echo").tls(node.addr()).await.is_ok());
}

#[tokio::test]
async fn quic_clients_that_leave_at_once_do_not_lock_anybody_out() {
    let mut limits = Limits::default();
    limits.handshakes = 16;
    let node = node(Identities::new(), limits, false);
    for _ in 0..100 {
        let dial = Dial { timeout: Duration::from_millis(5), ..node.dial("alknet/echo") };
        // Most are given up in the handshake.
        drop(dial.quic(node.addr()).await);
    }
    let dialled = node.dial("alknet/echo").quic(node.addr()).await.unwrap();
    let mut stream = dialled.connection.open_bi().await.unwrap();
    stream.write_all(b"x").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'x');
}

#[tokio::test]
async fn shutdown_closes_sessions_and_takes_no_new_ones() {
    let node = plain_node();
    let (addr, dial) = (node.addr(), node.dial("alknet/echo"));
    let connection = dial.quic(addr).await.unwrap().connection;
    let mut stream = connection.open_bi().await.unwrap();
    stream.write_all(b"x").await.unwrap();
    // The session stands once it has answered.
    stream.read_u8().await.unwrap();
    let closed = tokio::join!(connection.closed(), node.endpoint.shutdown(Duration::ZERO)).0;
    assert_eq!(closed.code, Code::SHUTTING_DOWN);
    assert!(dial.tls(addr).await.is_err());
}

/// A runtime that goes without a word is what a killed process looks like from outside.
#[test]
fn clients_of_a_killed_node_learn_of_it_from_its_successor() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (first, client) = (runtime(), runtime());
    let node = first.block_on(async { plain_node() });
    let (addr, dial) = (node.addr(), node.dial("alknet/echo"));
    let (connection, mut stream) = client.block_on(async {
        let connection = dial.quic(addr).await.unwrap().connection;
        let mut stream = connection.open_bi().await.unwrap();
        stream.write_all(b"x").await.unwrap();
        stream.read_u8().await.unwrap();
        (connection, stream)
    });
    first.shutdown_timeout(Duration::from_secs(10));
    drop(node);
    let second = runtime();
    let _node = second.block_on(async {
        let mut registry = HandlerRegistry::new();
        registry.register(Whoami(&["alknet/other"]), Access::Public).unwrap();
        serve_on(addr.port(), registry, Identities::new(), Limits::default(), false)
    });
    client.block_on(async {
        stream.write_all(&[0; 1000]).await.unwrap();
        let lost = tokio::time::timeout(Duration::from_secs(20), connection.closed()).await;
        assert_eq!(lost.unwrap().by, ClosedBy::Lost);
    });
}

#[tokio::test]
async fn key_exchange_is_post_quantum_where_the_client_can() {
    let node = plain_node();
    let victim = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let certificate =
        rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&victim).unwrap();
    // For the web ALPN no key is asked for, so what this configuration presents does not matter.
    let config = stolen_config(certificate.der(), "web");
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let tcp = TcpStream::connect(node.addr()).await.unwrap();
    let stream = connector.connect(ServerName::try_from("localhost").unwrap(), tcp).await;
    let stream = stream.unwrap();
    let group = stream.get_ref().1.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
}
