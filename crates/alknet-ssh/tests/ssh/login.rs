//! Who may log in, and what the audit log says of it.

use std::{sync::Arc, time::Duration};

use alknet_core::{AuditEvent, KeyFingerprint};
use alknet_ssh::UserKey;
use russh::{
    Preferred, client,
    keys::{
        Algorithm, Certificate, PrivateKey, PrivateKeyWithHashAlg,
        key::safe_rng,
        ssh_key::{
            HashAlg,
            certificate::{Builder, CertType},
            private::RsaKeypair,
        },
    },
};

use crate::node::{Node, new_key, run, soon};

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
async fn another_login_name_is_refused() {
    let node = Node::new();
    let key = PrivateKeyWithHashAlg::new(node.user("alice", &["ssh"]), None);
    let mut client = node.client().await;
    assert!(!client.authenticate_publickey("somebody", key).await.unwrap().success());
    assert_eq!(node.audit.refusals(), ["login name \"somebody\" is not the node's account"]);
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
    assert_eq!(node.audit.refusals(), ["certificates are not accepted"]);
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
