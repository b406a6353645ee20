//! Who is turned away, how it looks to them, and what the owner's record says.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Command,
    sync::Arc,
};

use alknet_core::{NodeId, NodeIdentity};
use alknet_http::h3::ConnectError;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
};
use serde_json::Value;
use sqlx::{Connection as _, SqliteConnection};

use crate::{
    client::{Client, WAYS},
    https::{http3, raw, request, shown, upgrade},
    node::{Home, Node},
    process::{eventually, first_bytes, output, stdout, text},
};

#[test]
fn an_unregistered_protocol_fails_in_the_handshake() {
    let home = Home::new();
    let node = Node::start(&home, &[]);
    let client = Client::new();
    for via in ["quic", "tls"] {
        let address = node.address().to_string();
        let failed = output(&mut client.home.alknet(&["dial", &address, "nonesuch", "--via", via]));
        let said = text(&failed);
        assert_eq!(failed.status.code(), Some(1), "{said}");
        assert!(said.contains("does not offer alknet/nonesuch"), "{said}");
    }
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-alpn", "alknet/nonesuch", "-connect", &node.address().to_string()]);
    let said = text(&output(&mut openssl));
    assert!(said.contains("no application protocol"), "{said}");
}

#[test]
fn a_wrong_identity_ends_dial() {
    let home = Home::new();
    let node = Node::start(&home, &[]);
    let client = Client::new();
    let other = Home::new().id();
    for via in WAYS {
        let address = node.address().to_string();
        let args = ["dial", &address, "ssh", "--via", via, "--pin", &other];
        let failed = output(&mut client.home.alknet(&args));
        let said = text(&failed);
        assert_eq!(failed.status.code(), Some(1), "{said}");
        if via == "quic" || via == "tls" {
            assert!(said.contains("identity") && said.contains(&other), "{said}");
            assert!(said.contains("--pin") && !said.contains("known_nodes"), "{said}");
        }
        assert!(failed.stdout.is_empty(), "{said}");
    }
}

#[test]
fn a_changed_identity_is_not_trusted_again() {
    let (first, second) = (Home::new(), Home::new());
    let node = Node::start(&first, &[]);
    let client = Client::known_to(&first, "tester", "ssh");
    let address = node.address().to_string();
    let dial = |via: &str| client.home.alknet(&["dial", &address, "ssh", "--via", via]);
    assert_eq!(first_bytes(&mut dial("tls")), *b"SSH-2.0-");
    drop(node);
    let _impostor = Node::start_at(&second, &address, &[]);
    for via in ["quic", "tls"] {
        let failed = output(&mut dial(via));
        assert_eq!(failed.status.code(), Some(1), "{}", text(&failed));
        assert!(
            failed.stdout.is_empty() && text(&failed).contains("identity"),
            "{}",
            text(&failed)
        );
    }
}

#[test]
fn ssh_refuses_unknown_keys_other_accounts_and_lost_scopes() {
    let home = Home::new();
    let node = Node::start(&home, &[]);
    let known = Client::known_to(&home, "known", "ssh");
    let stranger = Client::new();
    let lacking = Client::known_to(&home, "lacking", "call");
    let refused = |command: &mut Command| {
        let output = output(command.arg("true"));
        assert_eq!(output.status.code(), Some(255), "{}", text(&output));
        text(&output)
    };
    assert!(refused(&mut stranger.ssh(&node, "tls")).contains("Permission denied"));
    assert!(
        refused(&mut known.ssh_as(&node, "tls", "somebody-else")).contains("Permission denied")
    );
    assert!(refused(&mut lacking.ssh(&node, "quic")).contains("Permission denied"));
    stdout(&output(known.ssh(&node, "quic").arg("true")));
    for reason in ["unknown key", "account", "scope"] {
        home.audited(reason, |event| {
            event["event"] == "refused"
                && event["reason"].as_str().is_some_and(|it| it.contains(reason))
        });
    }
    // A change of the peers holds at once.
    stdout(&output(&mut home.alknet(&["peer", "remove", "known"])));
    assert!(refused(&mut known.ssh(&node, "quic")).contains("Permission denied"));
}

/// Presents a peer's public key without having its private half.
#[test]
fn a_stolen_public_key_is_refused() {
    let home = Home::new();
    let node = Node::start(&home, &[]);
    let victim = Client::known_to(&home, "victim", "ssh");
    let victim_id: NodeId = victim.home.id().parse().unwrap();
    let said = present(&node, victim_id).unwrap_err();
    assert!(said.contains("DecryptError") || said.contains("BadSignature"), "{said}");
    let own = NodeIdentity::from_seed(&THIEF).unwrap().id();
    present(&node, own).unwrap();
    // Beside the command that added it.
    let mut seen = home.audit().into_iter().filter(|event| event["transport"] != "local");
    assert!(seen.all(|event| event["key"] != victim_id.to_string()));
}

const THIEF: [u8; 32] = [7; 32];

/// A TLS client for `alknet/ssh` that shows `id` and signs with the thief's key; what the
/// node then says first.
fn present(node: &Node, id: NodeId) -> Result<String, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    present_key(node, certified(&provider, id))
}

/// The same with any certificate, and a key that need not be the certificate's own.
pub(crate) fn present_certificate(
    node: &Node,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
) -> Result<String, String> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let key = provider.key_provider.load_private_key(key).unwrap();
    present_key(node, rustls::sign::CertifiedKey::new(vec![certificate], key))
}

fn present_key(node: &Node, key: rustls::sign::CertifiedKey) -> Result<String, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer))
        .with_client_cert_resolver(Arc::new(Shows(key)));
    config.alpn_protocols = vec![b"alknet/ssh".to_vec()];
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut tcp = TcpStream::connect(node.address()).unwrap();
    let mut stream = rustls::Stream::new(&mut tls, &mut tcp);
    let mut first = [0; 8];
    stream.write_all(b"SSH-2.0-thief\r\n").map_err(|error| error.to_string())?;
    stream.read_exact(&mut first).map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&first).into_owned())
}

/// A self-signed certificate of the thief's key with another key written over it.
fn certified(provider: &rustls::crypto::CryptoProvider, id: NodeId) -> rustls::sign::CertifiedKey {
    let thief = NodeIdentity::from_seed(&THIEF).unwrap().id();
    // RFC 8410, section 7: version 0, the algorithm, the seed.
    let mut pkcs8 = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    pkcs8.extend(THIEF);
    let der = rustls::pki_types::PrivatePkcs8KeyDer::from(pkcs8);
    let key = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ED25519).unwrap();
    let certificate = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap();
    let mut bytes = certificate.der().to_vec();
    let at = bytes.windows(32).position(|window| window == thief.as_bytes()).unwrap();
    bytes[at..at + 32].copy_from_slice(id.as_bytes());
    let signer = provider.key_provider.load_private_key(PrivateKeyDer::Pkcs8(der)).unwrap();
    rustls::sign::CertifiedKey::new(vec![CertificateDer::from(bytes)], signer)
}

#[derive(Debug)]
struct Shows(rustls::sign::CertifiedKey);

impl rustls::client::ResolvesClientCert for Shows {
    fn resolve(
        &self,
        _: &[&[u8]],
        _: &[SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(Arc::new(self.0.clone()))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519, SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// A covered node, and somebody with a token for `ssh` and one for another service.
struct Covered {
    home: Home,
    node: Node,
    token: String,
    other: String,
}

impl Covered {
    fn start() -> Self {
        let home = Home::new();
        let node = Node::start(&home, &["--cover"]);
        let token = |scope| {
            let create = ["token", "create", "--scope", scope, "--json"];
            let created: Value =
                serde_json::from_str(&stdout(&output(&mut home.alknet(&create)))).unwrap();
            created["token"].as_str().unwrap().to_owned()
        };
        let (token, other) = (token("ssh"), token("git"));
        Self { home, node, token, other }
    }

    async fn ticket(&self) -> String {
        let body = br#"{"alpn":"alknet/ssh"}"#;
        let headers = format!(
            "Connection: close\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n",
            self.token,
            body.len()
        );
        let answer = raw(&self.node, "POST /alknet/ticket", &headers, body).await;
        let (_, json) = answer.split_once("\r\n\r\n").unwrap();
        let issued: Value = serde_json::from_str(json).unwrap_or_else(|_| panic!("{answer}"));
        issued["ticket"].as_str().unwrap().to_owned()
    }

    /// Changes every ticket in the store, as nothing but time and other services can.
    async fn change_tickets(&self, sql: &'static str) {
        let file = format!("sqlite://{}", self.home.path().join("node.db").display());
        let mut store = SqliteConnection::connect(&file).await.unwrap();
        sqlx::query(sql).execute(&mut store).await.unwrap();
        store.close().await.unwrap();
    }
}

/// A way to ask for a session that must fail.
struct Attempt {
    path: &'static str,
    /// `authorization`, `origin`, or the subprotocols under the name `protocols`.
    headers: Vec<(&'static str, String)>,
    /// What the audit log says, in part.
    reason: &'static str,
}

async fn attempts(covered: &Covered) -> Vec<Attempt> {
    let bearer = |token: &str| ("authorization", format!("Bearer {token}"));
    let protocols = |ticket: &str| ("protocols", format!("ticket.{ticket}"));
    let used = covered.ticket().await;
    let accepted = upgrade(
        &covered.node,
        "/alknet/ssh",
        &format!("Sec-WebSocket-Protocol: alknet.ssh, ticket.{used}\r\n"),
    )
    .await;
    assert!(accepted.starts_with("HTTP/1.1 101 "), "{accepted}");
    let expired = covered.ticket().await;
    covered
        .change_tickets("UPDATE tickets SET expires_at = unixepoch() - 5 WHERE used_at IS NULL")
        .await;
    let elsewhere = covered.ticket().await;
    covered
        .change_tickets(
            "UPDATE tickets SET alpn = 'alknet/git' WHERE used_at IS NULL AND expires_at > unixepoch()",
        )
        .await;
    let attempt = |path, headers, reason| Attempt { path, headers, reason };
    vec![
        attempt("/alknet/ssh", vec![], "no credential"),
        attempt("/alknet/nil", vec![bearer(&covered.token)], "no such service"),
        attempt("/alknet/ssh", vec![bearer(&covered.other)], "outside the caller's scopes"),
        attempt("/alknet/ssh", vec![bearer("alk_unknown")], "token"),
        attempt("/alknet/ssh", vec![protocols(&used)], "used ticket"),
        attempt("/alknet/ssh", vec![protocols(&expired)], "expired ticket"),
        attempt("/alknet/ssh", vec![protocols(&elsewhere)], "another ALPN"),
        attempt("/alknet/ssh", vec![protocols("bm90aGluZw")], "unknown ticket"),
        attempt(
            "/alknet/ssh",
            vec![bearer(&covered.token), ("origin", "https://evil.example".into())],
            "origin",
        ),
    ]
}

#[tokio::test]
async fn refused_websockets_look_like_the_decoy() {
    let covered = Covered::start();
    for attempt in attempts(&covered).await {
        let mut headers = String::from("Connection: close\r\n");
        for (name, value) in &attempt.headers {
            let line = match *name {
                "protocols" => format!("Sec-WebSocket-Protocol: alknet.ssh, {value}\r\n"),
                name => format!("{name}: {value}\r\n"),
            };
            headers.push_str(&line);
        }
        let refused = upgrade(&covered.node, attempt.path, &headers).await;
        let decoy = upgrade(&covered.node, "/images/cat", &headers).await;
        assert!(decoy.starts_with("HTTP/1.1 404 Not Found\r\nServer: nginx"), "{decoy}");
        assert_eq!(refused, decoy, "{}", attempt.reason);
        said_in_audit(&covered.home, attempt.reason);
    }
}

#[tokio::test]
async fn refused_webtransport_looks_like_the_decoy() {
    let covered = Covered::start();
    for attempt in attempts(&covered).await {
        let owned: Vec<(&str, String)> = attempt
            .headers
            .iter()
            .map(|(name, value)| match *name {
                "protocols" => ("wt-available-protocols", format!("\"alknet/ssh\", \"{value}\"")),
                name => (name, value.clone()),
            })
            .collect();
        let headers: Vec<(&str, &str)> =
            owned.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let client = http3(&covered.node).await;
        let mut answers = Vec::new();
        for path in [attempt.path, "/images/cat"] {
            match client.connect(request(&covered.node, path, &headers, ())).await {
                Err(ConnectError::Refused(response)) => answers.push(shown(&response)),
                other => panic!("{path}: {other:?}"),
            }
        }
        assert_eq!(answers[0], answers[1], "{}", attempt.reason);
        said_in_audit(&covered.home, attempt.reason);
    }
}

#[track_caller]
fn said_in_audit(home: &Home, reason: &str) {
    home.audited(reason, |event| {
        event["event"] == "refused"
            && event["reason"]
                .as_str()
                .is_some_and(|it| it.to_lowercase().contains(&reason.to_lowercase()))
    });
}

#[test]
fn a_covered_node_has_no_service_of_its_own() {
    let covered = Covered::start();
    let client = Client::known_to(&covered.home, "tester", "ssh");
    let address = covered.node.address().to_string();
    let dial = |via: &str| client.home.alknet(&["dial", &address, "ssh", "--via", via]);
    for via in ["quic", "tls"] {
        let said = text(&output(&mut dial(via)));
        assert!(said.contains("does not offer alknet/ssh"), "{said}");
        assert!(said.contains("--via webtransport"), "{said}");
    }
    for via in ["webtransport", "websocket"] {
        assert_eq!(stdout(&output(client.ssh(&covered.node, via).arg("echo inside"))), "inside\n");
    }
    let stranger = Client::new();
    for via in ["webtransport", "websocket"] {
        let failed = output(stranger.ssh(&covered.node, via).arg("true"));
        assert_eq!(failed.status.code(), Some(255), "{}", text(&failed));
    }
    // Once it was reached inside HTTPS the service is not asked for in the open again.
    for _ in 0..2 {
        assert_eq!(first_bytes(&mut dial("auto")), *b"SSH-2.0-");
    }
    let winner = std::fs::read_to_string(client.home.path().join("via.json")).unwrap();
    // Where the first is slow the other may be ahead.
    assert!(winner.contains("webtransport") || winner.contains("websocket"), "{winner}");
}

/// Whoever is not let in says so to the node before the process ends: a session that nobody
/// is left in would stay for its idle timeout.
#[test]
fn a_refused_dial_leaves_no_session_behind() {
    let covered = Covered::start();
    let stranger = Client::new();
    let address = covered.node.address().to_string();
    // One that ends without a word is sometimes quick enough all the same.
    for via in ["webtransport", "websocket", "auto"].repeat(4) {
        let failed = output(&mut stranger.home.alknet(&["dial", &address, "ssh", "--via", via]));
        let said = text(&failed);
        assert_eq!(failed.status.code(), Some(1), "{said}");
        assert!(said.contains("not let in") && said.contains("alknet id"), "{said}");
    }
    let sessions = |event: &str| {
        let audit = covered.home.audit();
        audit.iter().filter(|entry| entry["event"] == event).count()
    };
    eventually("the end of every session", || {
        let started = sessions("session-start");
        (started > 0 && started == sessions("session-end")).then_some(())
    });
}

#[test]
fn the_banner_of_a_covered_node_is_true() {
    let covered = Covered::start();
    let banner = covered.node.banner();
    assert!(banner.ssh.contains("ssh --via webtransport'"), "{}", banner.ssh);
    let client = Client::known_to(&covered.home, "tester", "ssh");
    let (_, rest) = banner.ssh.split_once("='alknet ").unwrap();
    let (dial, _) = rest.split_once('\'').unwrap();
    let mut dial = client.home.alknet(&dial.split(' ').collect::<Vec<_>>());
    assert_eq!(first_bytes(&mut dial), *b"SSH-2.0-");
}
