//! Native clients: both ends prove themselves.

use alknet_core::{
    Alpn, AuditEvent, AuthContext, Code, Connection, NodeId, Pin, StreamReset, TransportKind,
    WrongIdentity,
};
use alknet_http::{ProofError, Tunnel, TunnelError, tunnel};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{HOST, Node, alpn, key, tls_pair};

async fn dial(
    node: &Node,
    protocol: &str,
    service: &str,
    seed: u8,
    pin: Pin,
) -> Result<Tunnel, TunnelError> {
    tunnel(node.connect(protocol), HOST, &alpn(service), &key(seed), pin).await
}

async fn echoes(connection: &Connection, data: &[u8]) {
    let stream = connection.open_bi().await.unwrap();
    let (mut send, mut recv) = stream.split();
    let mut echo = Vec::new();
    let (sent, received) = tokio::join!(
        async {
            send.write_all(data).await?;
            send.shutdown().await
        },
        recv.read_to_end(&mut echo),
    );
    sent.unwrap();
    received.unwrap();
    assert!(echo == data);
}

#[tokio::test]
async fn a_known_key_gets_through_by_either_way() {
    let node = Node::new();
    let data = vec![7; 1 << 20];
    for (protocol, kind) in
        [("h3", TransportKind::WebTransport), ("http/1.1", TransportKind::WebSocket)]
    {
        let pin = Pin::Expect(node.identity.id());
        let tunnel = dial(&node, protocol, "alknet/echo", 1, pin).await.unwrap();
        assert_eq!((tunnel.connection.kind(), tunnel.node), (kind, node.identity.id()));
        echoes(&tunnel.connection, &data).await;
        let session =
            node.log.events().into_iter().rev().find(|e| e.event == AuditEvent::SESSION_START);
        let session = session.unwrap();
        assert_eq!(session.transport, Some(kind.name()));
        assert_eq!(session.method, Some("concealed"));
        assert_eq!(session.identity.as_deref(), Some("id-alice"));
        assert_eq!(session.key, Some(key(1).id().to_string()));
    }
}

#[tokio::test]
async fn an_unknown_node_is_learnt_and_another_one_named() {
    let node = Node::new();
    let expected = NodeId::from_bytes([9; 32]);
    for protocol in ["h3", "http/1.1"] {
        let tunnel = dial(&node, protocol, "alknet/echo", 1, Pin::Learn).await.unwrap();
        assert_eq!(tunnel.node, node.identity.id());
        match dial(&node, protocol, "alknet/echo", 1, Pin::Expect(expected)).await {
            Err(TunnelError::Proof(error)) => {
                let actual = node.identity.id();
                assert_eq!(error, ProofError::OtherNode(WrongIdentity { expected, actual }));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn an_unknown_key_or_service_is_refused() {
    let node = Node::new();
    for protocol in ["h3", "http/1.1"] {
        for (service, seed) in [("alknet/echo", 2), ("alknet/nothere", 1)] {
            match dial(&node, protocol, service, seed, Pin::Learn).await {
                Err(TunnelError::Refused(status)) => assert!(status.is_client_error()),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_revoked_key_is_refused_at_the_next_request() {
    let node = Node::new();
    let known = alknet_core::KeyFingerprint::Ed25519(key(1).id());
    dial(&node, "http/1.1", "alknet/echo", 1, Pin::Learn).await.unwrap();
    node.identities.revoke_key(&known);
    let refused = dial(&node, "http/1.1", "alknet/echo", 1, Pin::Learn).await;
    assert!(matches!(refused, Err(TunnelError::Refused(_))), "{refused:?}");
    assert_eq!(node.log.refusals(), [format!("unknown key {known}"), "no credential".into()]);
}

/// Somebody in between ends the client's TLS and has a session of their own with the node.
/// They can hand every byte on, and neither proof fits.
#[tokio::test]
async fn in_between_nobody_gets_through() {
    let node = Node::new();
    let (client, middle) = tls_pair();
    let mut tasks = tokio::task::JoinSet::new();
    let onward = node.connect("http/1.1");
    tasks.spawn(async move {
        let mut here = middle.accept_bi().await.unwrap();
        let mut there = onward.open_bi().await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut here, &mut there).await;
    });
    let pin = Pin::Expect(node.identity.id());
    let refused = tunnel(client, HOST, &alpn("alknet/echo"), &key(1), pin).await;
    assert!(matches!(refused, Err(TunnelError::Refused(_))), "{refused:?}");
    assert_eq!(
        node.log.refusals(),
        ["Concealed credential of another TLS session", "no credential"]
    );
}

/// A server that lets everybody in but has not the node's key.
#[tokio::test]
async fn a_server_without_the_nodes_key_gets_no_byte() {
    for proof in ["", "Alknet-Node-Proof: junk\r\n"] {
        let (client, server) = tls_pair();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            let mut stream = server.accept_bi().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            let request = String::from_utf8(request).unwrap();
            let (_, rest) = request.split_once("sec-websocket-key: ").unwrap();
            let key = rest.split_once("\r\n").unwrap().0;
            let accept =
                tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
                 Upgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n{proof}\r\n"
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
            let mut more = Vec::new();
            let _ = stream.read_to_end(&mut more).await;
            more
        });
        let refused = tunnel(client, HOST, &alpn("alknet/echo"), &key(1), Pin::Learn).await;
        let missing = if proof.is_empty() { ProofError::Missing } else { ProofError::Malformed };
        assert!(matches!(&refused, Err(TunnelError::Proof(e)) if *e == missing), "{refused:?}");
        drop(refused);
        assert_eq!(tasks.join_next().await.unwrap().unwrap(), b"");
    }
}

/// A probe that knows neither key sees no proof, whatever it offers.
#[tokio::test]
async fn only_callers_with_a_proven_key_see_the_proof() {
    let node = Node::new();
    let ticket = node.identities.ticket(&crate::harness::alice(), &alpn("alknet/echo"));
    let request = format!(
        "GET /alknet/echo?ticket={} HTTP/1.1\r\nHost: {HOST}\r\n{}\r\n",
        ticket.expose(),
        crate::harness::UPGRADE
    );
    let mut stream = node.connect("http/1.1").open_bi().await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    assert!(!answer.to_ascii_lowercase().contains("proof"), "{answer}");
}

#[tokio::test]
async fn a_reset_by_the_service_reaches_the_client() {
    let node = Node::new();
    for protocol in ["h3", "http/1.1"] {
        let tunnel = dial(&node, protocol, "alknet/abrupt", 1, Pin::Learn).await.unwrap();
        let mut stream = tunnel.connection.open_bi().await.unwrap();
        stream.write_all(&[1]).await.unwrap();
        stream.flush().await.unwrap();
        let error = stream.read_u8().await.unwrap_err();
        assert_eq!(StreamReset::code_of(&error), Some(Code::new(77)), "{protocol} {error:?}");
    }
}

#[tokio::test]
async fn many_at_once_on_one_node() {
    let node = std::sync::Arc::new(Node::new());
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..20 {
        let node = node.clone();
        tasks.spawn(async move {
            let protocol = if i % 2 == 0 { "h3" } else { "http/1.1" };
            let tunnel = dial(&node, protocol, "alknet/echo", 1, Pin::Learn).await.unwrap();
            echoes(&tunnel.connection, &vec![i; 300_000]).await;
        });
    }
    tasks.join_all().await;
}

/// A shutdown ends idle connections, and sessions in progress at their own pace.
#[tokio::test]
async fn a_shutdown_waits_for_tunnels_and_not_for_idle_connections() {
    let node = Node::new();
    let idle = node.connect("http/1.1");
    let tunnel = dial(&node, "http/1.1", "alknet/echo", 1, Pin::Learn).await.unwrap();
    let mut stream = tunnel.connection.open_bi().await.unwrap();
    stream.write_all(b"before").await.unwrap();
    stream.read_exact(&mut [0; 6]).await.unwrap();
    let dispatcher = node.dispatcher.clone();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move { dispatcher.shutdown(std::time::Duration::from_secs(30)).await });
    idle.open_bi().await.unwrap().read_to_end(&mut Vec::new()).await.unwrap();
    stream.write_all(b"after").await.unwrap();
    stream.read_exact(&mut [0; 5]).await.unwrap();
    let auth = AuthContext::anonymous(alpn("h2"), TransportKind::Tls, None);
    assert!(node.dispatcher.admit(auth).is_err());
    stream.shutdown().await.unwrap();
    drop(stream);
    assert_eq!(tasks.join_next().await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn an_authority_must_be_one() {
    let node = Node::new();
    let echo = Alpn::service("echo").unwrap();
    let outcome = tunnel(node.connect("h3"), "a b", &echo, &key(1), Pin::Learn).await;
    assert!(matches!(outcome, Err(TunnelError::Authority(_))), "{outcome:?}");
}
