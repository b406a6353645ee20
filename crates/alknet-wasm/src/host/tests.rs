use russh::keys::{
    Algorithm, PrivateKey,
    key::safe_rng,
    ssh_key::certificate::{Builder, CertType},
};

use super::*;

const NOW: u64 = 1_800_000_000;

struct Draft {
    kind: CertType,
    valid: std::ops::Range<u64>,
    principal: &'static str,
    option: Option<&'static str>,
}

impl Default for Draft {
    fn default() -> Self {
        Self { kind: CertType::Host, valid: NOW - 60..NOW + 60, principal: "*", option: None }
    }
}

fn key() -> PrivateKey {
    PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap()
}

fn node_id(key: &PrivateKey) -> NodeId {
    NodeId::from_bytes(key.public_key().key_data().ed25519().unwrap().0)
}

fn certificate(authority: &PrivateKey, draft: &Draft) -> Certificate {
    let subject = key();
    let mut builder = Builder::new_with_random_nonce(
        &mut safe_rng(),
        subject.public_key().key_data().clone(),
        draft.valid.start,
        draft.valid.end,
    )
    .unwrap();
    builder.cert_type(draft.kind).unwrap();
    builder.valid_principal(draft.principal).unwrap();
    if let Some(option) = draft.option {
        builder.critical_option(option, "").unwrap();
    }
    builder.sign(authority).unwrap()
}

fn check(draft: &Draft) -> Result<(), HostError> {
    let node = key();
    verify(&certificate(&node, draft), node_id(&node), NOW)
}

#[test]
fn the_nodes_certificate_is_accepted() {
    assert_eq!(check(&Draft::default()), Ok(()));
}

#[test]
fn another_authority_is_named() {
    let (node, other) = (key(), key());
    let certificate = certificate(&other, &Draft::default());
    let found = verify(&certificate, node_id(&node), NOW);
    assert_eq!(found, Err(HostError::OtherNode(node_id(&other).to_string())));
}

#[test]
fn a_user_certificate_is_refused() {
    let found = check(&Draft { kind: CertType::User, ..Draft::default() });
    assert_eq!(found, Err(HostError::NotForHosts));
}

#[test]
fn validity_is_half_open() {
    let at = |valid| check(&Draft { valid, ..Draft::default() });
    assert_eq!(at(NOW..NOW + 1), Ok(()));
    assert_eq!(at(NOW - 1..NOW), Err(HostError::Expired));
    assert_eq!(at(NOW + 1..NOW + 2), Err(HostError::Expired));
}

#[test]
fn another_principal_is_refused() {
    let found = check(&Draft { principal: "example.org", ..Draft::default() });
    assert_eq!(found, Err(HostError::Principal));
}

#[test]
fn critical_options_are_refused() {
    let found = check(&Draft { option: Some("verify-required"), ..Draft::default() });
    assert_eq!(found, Err(HostError::Options));
}

#[test]
fn a_changed_certificate_is_refused() {
    let node = key();
    let mut blob = certificate(&node, &Draft::default()).to_bytes().unwrap();
    // The nonce follows the algorithm name: two 4-byte lengths and 32 letters.
    blob[4 + 32 + 4] ^= 1;
    let changed = Certificate::from_bytes(&blob);
    let found = changed.map(|certificate| verify(&certificate, node_id(&node), NOW));
    assert_eq!(found.unwrap(), Err(HostError::Signature));
}
