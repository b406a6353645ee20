//! Who may log in, and what the audit log says of it.

use std::{sync::Arc, time::Duration};

use alknet_core::{AuditEvent, Code, Connection, KeyFingerprint, StreamReset};
use alknet_ssh::UserKey;
use russh::{
    Preferred, client,
    keys::{
        Algorithm, Certificate, PrivateKey, PrivateKeyWithHashAlg, PublicKey,
        agent::AgentIdentity,
        key::safe_rng,
        signature::Signer as _,
        ssh_key::{
            HashAlg, Signature,
            certificate::{Builder, CertType},
            private::RsaKeypair,
            public::{KeyData, SkEd25519},
        },
    },
};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::node::{Node, new_key, outcome as outcome_of, run, soon};

fn fingerprint(key: &PrivateKey) -> KeyFingerprint {
    UserKey::parse(&key.public_key().to_openssh().unwrap()).unwrap().fingerprint()
}

#[tokio::test]
async fn a_known_key_with_the_scope_logs_in() {
    let node = Node::new();
    let key = node.user("alice", &["ssh"]);
    let mut client = node.client().await;
    assert!(node.log_in(&mut client, key.clone()).await);
    assert_eq!(run(&client, "echo hello").await.text(), "hello\n");

    let events = node.audit.events();
    let login = events.iter().find(|e| e.event == AuditEvent::AUTHENTICATED).unwrap();
    assert_eq!(login.identity.as_deref(), Some("id-alice"));
    assert_eq!(login.method, Some("publickey"));
    assert_eq!(login.key, Some(fingerprint(&key).to_string()));
    assert!(node.audit.refusals().is_empty());
}

#[tokio::test]
async fn an_unknown_key_is_refused() {
    let node = Node::new();
    let mut client = node.client().await;
    assert!(!node.log_in(&mut client, new_key()).await);
    assert_eq!(node.audit.refusals(), ["unknown key"]);
}

#[tokio::test]
async fn an_identity_without_the_scope_is_refused() {
    let node = Node::new();
    let mut client = node.client().await;
    assert!(!node.log_in(&mut client, node.user("bob", &["git"])).await);
    assert_eq!(node.audit.refusals(), ["outside the identity's scopes"]);
}

#[tokio::test]
async fn to_run_something_takes_a_scope_of_its_own() {
    let node = Node::new();
    for (scope, may) in [("ssh:shell", true), ("ssh:forward", false)] {
        let mut client = node.client().await;
        assert!(node.log_in(&mut client, node.user("bob", &[scope])).await, "{scope}");
        let outcome = run(&client, "echo hello").await;
        assert_eq!((outcome.text() == "hello\n", outcome.refused), (may, !may), "{scope}");
        let channel = client.channel_open_session().await.unwrap();
        channel.request_shell(true).await.unwrap();
        let (mut read, write) = channel.split();
        write.eof().await.unwrap();
        assert_eq!(outcome_of(&mut read).await.refused, !may, "{scope}");
    }
    let refusals = ["outside the identity's scopes: ssh:shell"; 2];
    assert_eq!(node.audit.refusals(), refusals);
}

#[tokio::test]
async fn another_login_name_is_refused() {
    let node = Node::new();
    let key = PrivateKeyWithHashAlg::new(node.user("alice", &["ssh"]), None);
    let mut client = node.client().await;
    assert!(!client.authenticate_publickey("somebody", key).await.unwrap().success());
    assert_eq!(node.audit.refusals(), ["login name \"somebody\" is not the node's account"]);
}

#[tokio::test]
async fn a_style_after_the_login_name_means_nothing() {
    let node = Node::new();
    for (name, may) in [("{}:style", true), ("{}:", true), (":{}", false), ("somebody:{}", false)] {
        let name = name.replace("{}", &node.account.name);
        let key = PrivateKeyWithHashAlg::new(node.user("alice", &["ssh"]), None);
        let mut client = node.client().await;
        let answer = client.authenticate_publickey(&name, key).await.unwrap();
        assert_eq!(answer.success(), may, "{name}");
    }
}

#[tokio::test]
async fn only_public_keys_are_offered_as_a_method() {
    let node = Node::new();
    let mut client = node.client().await;
    let name = node.account.name.clone();
    let client::AuthResult::Failure { remaining_methods, .. } =
        client.authenticate_none(&name).await.unwrap()
    else {
        panic!("no authentication at all was enough");
    };
    assert_eq!(format!("{:?}", &*remaining_methods), "[PublicKey]");
    assert!(!client.authenticate_password(&name, "secret").await.unwrap().success());
    let interactive = client.authenticate_keyboard_interactive_start(&name, None).await;
    assert!(!matches!(interactive, Ok(client::KeyboardInteractiveAuthResponse::Success)));
}

#[tokio::test]
async fn a_store_that_fails_refuses() {
    let node = Node::new();
    let key = node.user("alice", &["ssh"]);
    node.identities.set_broken(true);
    let mut client = node.client().await;
    assert!(!node.log_in(&mut client, key).await);
    assert!(node.audit.refusals().first().unwrap().starts_with("the identity store failed: "));
}

#[tokio::test]
async fn a_key_taken_away_opens_no_further_channel() {
    let node = Node::new();
    let key = node.user("alice", &["ssh"]);
    let mut client = node.client().await;
    assert!(node.log_in(&mut client, key.clone()).await);
    assert_eq!(run(&client, "true").await.status, Some(0));
    node.identities.revoke_key(&fingerprint(&key));
    assert!(client.channel_open_session().await.is_err());
    assert_eq!(node.audit.refusals(), ["unknown key"]);
}

#[tokio::test]
async fn weak_rsa_keys_and_sha1_are_refused() {
    let node = Node::new();
    let name = node.account.name.clone();
    let long = rsa(2048);
    node.authorise(long.public_key(), "alice", &["ssh"]);
    for (key, hash, reason) in [
        (rsa(1024), Some(HashAlg::Sha512), "an RSA key of 1024 bits is too short: 2048 are needed"),
        (long.clone(), None, "keys of type ssh-rsa are not accepted"),
    ] {
        let mut client = node.client().await;
        let key = PrivateKeyWithHashAlg::new(key, hash);
        assert!(!client.authenticate_publickey(&name, key).await.unwrap().success());
        assert_eq!(node.audit.refusals().last().unwrap(), reason);
    }
    let mut client = node.client().await;
    assert!(node.log_in(&mut client, long).await);
}

fn rsa(bits: usize) -> Arc<PrivateKey> {
    Arc::new(PrivateKey::from(RsaKeypair::random(&mut safe_rng(), bits).unwrap()))
}

#[tokio::test]
async fn a_certificate_is_refused_though_its_key_is_known() {
    let node = Node::new();
    let key = node.user("alice", &["ssh"]);
    let certificate = user_certificate(&key, &node.account.name);
    let mut client = node.client().await;
    let name = node.account.name.clone();
    let answer = client.authenticate_openssh_cert(&name, key, certificate).await.unwrap();
    assert!(!answer.success());
    let refusals = node.audit.refusals();
    let [reason] = refusals.as_slice() else { panic!("{refusals:?}") };
    assert!(reason.starts_with("unknown certificate authority; "), "{reason}");
}

fn user_certificate(key: &PrivateKey, principal: &str) -> Certificate {
    let mut builder = Builder::new([0; 16], key.public_key().clone(), 0, u64::MAX).unwrap();
    builder.cert_type(CertType::User).unwrap().valid_principal(principal).unwrap();
    builder.sign(&*new_key()).unwrap()
}

#[tokio::test]
async fn attempts_are_limited() {
    let node = Node::with_limits(|limits| limits.login_attempts = 3);
    let key = node.user("alice", &["ssh"]);
    let mut client = node.client().await;
    for _ in 0..3 {
        assert!(!node.log_in(&mut client, new_key()).await);
    }
    assert!(!node.log_in(&mut client, key).await, "a fourth attempt was allowed");
    assert_eq!(node.audit.refusals().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_log_in_is_disconnected() {
    let node = Node::with_limits(|limits| limits.login_timeout = Duration::from_secs(30));
    let mut client = node.client().await;
    assert!((&mut client).await.is_err());
    assert_eq!(node.audit.refusals(), ["no login within 30 seconds"]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_disconnected() {
    let node = Node::new();
    let connection = node.connect();
    let mut stream = connection.open_bi().await.unwrap();
    let mut received = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut received);
    drop(soon("the server", read).await);
    assert_eq!(node.audit.refusals(), ["no login within 30 seconds"]);
}

/// At once, and not when the time for a login is over.
#[tokio::test]
async fn who_speaks_something_else_is_told_and_left() {
    let node = Node::new();
    let connection = node.connect();
    let mut stream = connection.open_bi().await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let mut received = Vec::new();
    soon("the server", stream.read_to_end(&mut received)).await.unwrap();
    let received = String::from_utf8(received).unwrap();
    assert!(received.ends_with("\r\nInvalid SSH identification string.\r\n"), "{received}");
    assert!(node.audit.refusals().is_empty());
}

/// Ends a connection and waits until the node has noticed.
async fn leave(node: &Node, connection: Connection) {
    connection.close(Code::NORMAL, "");
    soon("the end of the session", async {
        while node.dispatcher.session_count() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Whether the node still talks to whoever connects.
async fn is_served(node: &Node) -> bool {
    let connection = node.connect();
    let mut stream = connection.open_bi().await.unwrap();
    let mut greeting = [0; 4];
    let read = tokio::io::AsyncReadExt::read_exact(&mut stream, &mut greeting);
    let served = soon("an answer", read).await;
    if let Err(error) = &served {
        assert_eq!(StreamReset::code_of(error), Some(Code::LIMIT));
    }
    drop(stream);
    leave(node, connection).await;
    served.is_ok()
}

#[tokio::test]
async fn logins_that_come_to_nothing_count_once_each() {
    let node = Node::with_node_limits(|limits| limits.failures_per_address = 2);
    let key = node.user("alice", &["ssh"]);
    for failure in 1..=3 {
        assert!(is_served(&node).await, "turned away after {} failures", failure - 1);
        let connection = node.connect();
        let mut client = node.client_on(connection.clone()).await;
        for _ in 0..3 {
            assert!(!node.log_in(&mut client, new_key()).await);
        }
        leave(&node, connection).await;
        if failure == 3 {
            break;
        }
        // Agents offer what they have: that a later key is the right one makes up for it.
        let connection = node.connect();
        let mut client = node.client_on(connection.clone()).await;
        assert!(!node.log_in(&mut client, new_key()).await);
        assert!(node.log_in(&mut client, key.clone()).await);
        leave(&node, connection).await;
    }
    assert!(!is_served(&node).await);
}

#[tokio::test]
async fn passwords_that_are_tried_count() {
    let node = Node::with_node_limits(|limits| limits.failures_per_address = 1);
    for _ in 0..2 {
        assert!(is_served(&node).await);
        let connection = node.connect();
        let mut client = node.client_on(connection.clone()).await;
        let answer = client.authenticate_password(&node.account.name, "secret").await;
        assert!(!answer.unwrap().success());
        leave(&node, connection).await;
    }
    assert!(!is_served(&node).await);
    assert_eq!(node.audit.refusals(), ["no password logins here"; 2]);
}

/// A security key in software: it says whether it was touched as it likes.
struct SecurityKey {
    key: Arc<PrivateKey>,
    flags: u8,
}

impl SecurityKey {
    fn public(&self) -> PublicKey {
        let KeyData::Ed25519(key) = self.key.public_key().key_data() else { panic!() };
        PublicKey::from(KeyData::SkEd25519(SkEd25519::new(*key, "ssh:")))
    }
}

impl russh::Signer for SecurityKey {
    type Error = russh::SendError;

    async fn auth_sign(
        &mut self,
        _: &AgentIdentity,
        _: Option<HashAlg>,
        mut message: Vec<u8>,
    ) -> Result<Vec<u8>, russh::SendError> {
        let trailer = [self.flags, 0, 0, 0, 1];
        let signed =
            [&Sha256::digest("ssh:")[..], &trailer, &Sha256::digest(&message)[..]].concat();
        let signature: Signature = self.key.try_sign(&signed).unwrap();
        let string =
            |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
        let name = string(b"sk-ssh-ed25519@openssh.com");
        let blob = [name, string(signature.as_bytes()), trailer.into()].concat();
        message.extend(string(&blob));
        Ok(message)
    }
}

#[tokio::test]
async fn a_security_key_counts_when_it_was_touched() {
    let node = Node::new();
    for (flags, may) in [(0, false), (4, false), (1, true), (5, true)] {
        let mut key = SecurityKey { key: new_key(), flags };
        node.authorise(&key.public(), "alice", &["ssh"]);
        let mut client = node.client().await;
        let (name, public) = (node.account.name.clone(), key.public());
        let answer = client.authenticate_publickey_with(&name, public, None, &mut key).await;
        assert_eq!(answer.unwrap().success(), may, "{flags}");
    }
    assert_eq!(node.audit.of(AuditEvent::AUTHENTICATED).len(), 2);
}

#[tokio::test]
async fn weak_algorithms_are_not_spoken() {
    let node = Node::new();
    let refused = async |change: &dyn Fn(&mut Preferred)| {
        let connection = node.connect();
        let stream = connection.open_bi().await.unwrap();
        let mut config = client::Config::default();
        config.preferred.host_key_certificates = vec![Algorithm::Ed25519].into();
        change(&mut config.preferred);
        client::connect_stream(Arc::new(config), stream, node.trust(connection)).await.is_err()
    };
    use russh::{cipher, kex};
    assert!(!refused(&|p| p.kex = vec![kex::MLKEM768X25519_SHA256].into()).await);
    assert!(!refused(&|p| p.cipher = vec![cipher::CHACHA20_POLY1305].into()).await);
    assert!(refused(&|p| p.cipher = vec![cipher::AES_256_CTR].into()).await);
    assert!(refused(&|p| p.kex = vec![kex::DH_G14_SHA256].into()).await);
    assert!(refused(&|p| p.kex = vec![kex::ECDH_SHA2_NISTP256].into()).await);
    let rsa = Algorithm::Rsa { hash: Some(HashAlg::Sha512) };
    assert!(refused(&|p| p.host_key_certificates = vec![rsa.clone()].into()).await);
}
