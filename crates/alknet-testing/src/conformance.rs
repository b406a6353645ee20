//! What every identity provider has to do, as tests that each runs.
//!
//! A crate with a provider implements [`Subject`] for it and writes
//! `alknet_testing::conformance!(subject().await);` in a test module.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

use std::{
    future::Future,
    time::{Duration, SystemTime},
};

use alknet_core::{
    Alpn, Credential, Identity, IdentityProvider, KeyFingerprint, ProviderError, Scopes, Secret,
    TicketRefusal,
};

/// A public key as people write it, and its fingerprint.
pub type Key = (&'static str, &'static str);

/// A key of OpenSSH's format.
pub const OPENSSH: Key = (
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ",
    "SHA256:T7SvZ2cslqpPj6nKzitCBHHlpVF3r3MvLwmFL0fk0IE",
);
/// A node's key.
pub const ED25519: Key = (
    "ed25519:abababababababababababababababababababababababababababababababab",
    "ed25519:abababababababababababababababababababababababababababababababab",
);
/// A certificate.
pub const X509: Key = (
    "x509:cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd",
    "x509:cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd",
);
/// The key of an authority.
pub const AUTHORITY: Key = (
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA6rWI3G1sz07DnfFlrouTcysQlj2P+jpNSOEWD9OJ3X",
    "SHA256:SvzqXV/w1JLsbntg1WRzuMw9vHAaDQHjIKLlxH0h1EM",
);

/// Somebody whom a provider is to know.
#[derive(Debug, Clone, Copy)]
pub struct Person {
    /// What they are called.
    pub name: &'static str,
    /// What they may do, with commas between.
    pub scopes: &'static str,
    /// Their keys.
    pub keys: &'static [Key],
    /// Their authorities, each with a principal.
    pub authorities: &'static [(Key, &'static str)],
    /// Their tokens.
    pub tokens: &'static [Token],
}

/// A token of somebody.
#[derive(Debug, Clone, Copy)]
pub struct Token {
    /// What it is called; it is one of all.
    pub name: &'static str,
    /// What it may do, where that is less than its person may.
    pub scopes: Option<&'static str>,
    /// In how many seconds it ends, or how many seconds ago it did.
    pub ends: Option<i64>,
}

/// Somebody with nothing, to take the rest from.
pub const NOBODY: Person =
    Person { name: "nobody", scopes: "ssh", keys: &[], authorities: &[], tokens: &[] };

/// A provider under test, and how a test arranges what it knows.
pub trait Subject {
    /// What is tested.
    fn provider(&self) -> &dyn IdentityProvider;

    /// From now on it knows these people and nobody else. Who was known before and still is
    /// keeps their id and their tokens.
    fn know(&mut self, people: &[Person]) -> impl Future<Output = ()>;

    /// The secret of a token that it knows.
    fn secret(&self, token: &str) -> Secret;

    /// Lets all the time go by that this ticket is good for.
    fn outlive(&mut self, ticket: &Secret) -> impl Future<Output = ()>;

    /// Makes what the provider stands on fail.
    fn break_down(&mut self) -> impl Future<Output = ()>;
}

/// Makes a test of every function of this module, for the subject that an expression gives.
#[macro_export]
macro_rules! conformance {
    ($subject:expr) => {
        $crate::conformance!(@ $subject;
            every_kind_of_key_finds_its_holder
            who_is_not_known_is_nobody
            a_token_has_no_more_than_its_scopes_and_its_persons
            a_token_ends_with_its_time
            the_first_principal_that_counts_decides
            a_credential_holds_until_it_is_revoked
            less_is_seen_at_once
            a_ticket_works_once_for_its_alpn_in_its_time
            a_ticket_ends_with_its_credential
            a_ticket_grants_no_more_than_its_credential
            a_failure_admits_nobody
        );
    };
    (@ $subject:expr; $($test:ident)*) => {$(
        #[tokio::test]
        async fn $test() {
            $crate::conformance::$test($subject).await;
        }
    )*};
}

fn fingerprint(key: Key) -> KeyFingerprint {
    key.1.parse().unwrap()
}

fn echo() -> Alpn {
    Alpn::service("echo").unwrap()
}

async fn by_key(subject: &impl Subject, key: Key) -> Option<Identity> {
    subject.provider().by_key(&fingerprint(key)).await.unwrap()
}

async fn by_token(subject: &impl Subject, token: &str) -> Option<Identity> {
    subject.provider().by_token(&subject.secret(token)).await.unwrap()
}

async fn by_principals(subject: &impl Subject, principals: &[&str]) -> Option<Identity> {
    let principals: Vec<String> = principals.iter().map(ToString::to_string).collect();
    subject.provider().by_authority(&fingerprint(AUTHORITY), &principals).await.unwrap()
}

async fn holds(subject: &impl Subject, identity: &Identity) -> Option<Identity> {
    subject.provider().by_credential(&identity.credential).await.unwrap()
}

async fn redeem(subject: &impl Subject, ticket: &Secret) -> Result<Identity, TicketRefusal> {
    subject.provider().redeem_ticket(ticket, &echo()).await.unwrap()
}

async fn issue(subject: &impl Subject, to: &Identity) -> Secret {
    subject.provider().issue_ticket(to, &echo()).await.unwrap()
}

#[track_caller]
fn assert_is(identity: Option<&Identity>, name: &str, scopes: &str) {
    let identity = identity.expect(name);
    assert_eq!((&*identity.name, &*identity.scopes.to_string()), (name, scopes));
}

const TOKEN: Token = Token { name: "whole", scopes: None, ends: None };
const NARROW: Token = Token { name: "narrow", scopes: Some("git:read"), ends: None };

/// Alice has one of everything.
const ALICE: Person = Person {
    name: "alice",
    scopes: "git:read,ssh",
    keys: &[OPENSSH, ED25519, X509],
    authorities: &[(AUTHORITY, "alice"), (AUTHORITY, "a team")],
    tokens: &[TOKEN, NARROW],
};

/// A key of each kind finds the same person, by an id that stays.
pub async fn every_kind_of_key_finds_its_holder(mut subject: impl Subject) {
    subject.know(&[ALICE, Person { name: "bob", ..NOBODY }]).await;
    let first = by_key(&subject, OPENSSH).await.unwrap();
    for key in [OPENSSH, ED25519, X509] {
        let found = by_key(&subject, key).await;
        assert_is(found.as_ref(), "alice", "git:read,ssh");
        let found = found.unwrap();
        assert_eq!((&found.id, found.valid_until), (&first.id, None));
        assert_eq!(found.credential, Credential::Key(fingerprint(key)));
        assert_eq!(holds(&subject, &found).await.as_ref(), Some(&found));
    }
}

/// Nobody is found by what was never there.
pub async fn who_is_not_known_is_nobody(mut subject: impl Subject) {
    subject.know(&[Person { keys: &[OPENSSH], ..ALICE }]).await;
    let provider = subject.provider();
    assert_eq!(by_key(&subject, ED25519).await, None);
    let blank = KeyFingerprint::OpenSsh([0; 32]);
    assert_eq!(provider.by_key(&blank).await.unwrap(), None);
    for token in ["", "alk_", "alk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
        assert_eq!(provider.by_token(&Secret::new(token)).await.unwrap(), None, "{token}");
        let refused = redeem(&subject, &Secret::new(token)).await;
        assert_eq!(refused, Err(TicketRefusal::Unknown), "{token}");
    }
    let none = provider.by_authority(&blank, &["alice".into()]).await.unwrap();
    assert_eq!(none, None);
    assert!(!provider.knows_authority(&blank).await.unwrap());
    assert!(provider.knows_authority(&fingerprint(AUTHORITY)).await.unwrap());
    assert_eq!(by_principals(&subject, &[]).await, None);
    // An authority's own key is no key of the person.
    assert_eq!(by_key(&subject, AUTHORITY).await, None);
    for credential in [Credential::Token(String::new()), Credential::Token("alice".into())] {
        assert_eq!(provider.by_credential(&credential).await.unwrap(), None);
    }
}

/// A token may what both it and its person may.
pub async fn a_token_has_no_more_than_its_scopes_and_its_persons(mut subject: impl Subject) {
    subject.know(&[ALICE]).await;
    assert_is(by_token(&subject, "whole").await.as_ref(), "alice", "git:read,ssh");
    let narrow = by_token(&subject, "narrow").await;
    assert_is(narrow.as_ref(), "alice", "git:read");
    assert!(matches!(narrow.unwrap().credential, Credential::Token(_)));
    subject.know(&[Person { scopes: "git:read:notes,call", ..ALICE }]).await;
    assert_is(by_token(&subject, "whole").await.as_ref(), "alice", "call,git:read:notes");
    assert_is(by_token(&subject, "narrow").await.as_ref(), "alice", "git:read:notes");
}

/// A token that is over admits nobody, and one that is not says until when.
pub async fn a_token_ends_with_its_time(mut subject: impl Subject) {
    const OVER: Token = Token { name: "over", scopes: None, ends: Some(-60) };
    const HOUR: Token = Token { name: "hour", scopes: None, ends: Some(3600) };
    subject.know(&[Person { tokens: &[OVER, HOUR], ..ALICE }]).await;
    assert_eq!(by_token(&subject, "over").await, None);
    let hour = by_token(&subject, "hour").await.unwrap();
    let until = hour.valid_until.unwrap();
    let now = SystemTime::now();
    assert!(now + Duration::from_secs(3500) < until && until <= now + Duration::from_secs(3600));
    assert_eq!(holds(&subject, &hour).await, Some(hour.clone()));
    let ticket = issue(&subject, &hour).await;
    assert_eq!(redeem(&subject, &ticket).await.unwrap().valid_until, hour.valid_until);
}

/// Of several principals the first that anybody is trusted for.
pub async fn the_first_principal_that_counts_decides(mut subject: impl Subject) {
    let bob = Person { name: "bob", authorities: &[(AUTHORITY, "bob")], ..NOBODY };
    subject.know(&[ALICE, bob]).await;
    for (principals, name, scopes) in [
        (&["alice"][..], "alice", "git:read,ssh"),
        (&["bob", "alice"], "bob", "ssh"),
        (&["nobody", "a team", "bob"], "alice", "git:read,ssh"),
    ] {
        let found = by_principals(&subject, principals).await;
        assert_is(found.as_ref(), name, scopes);
        let found = found.unwrap();
        assert_eq!(holds(&subject, &found).await, Some(found.clone()));
        let Credential::Authority { key, principal } = found.credential else { panic!() };
        assert_eq!(key, fingerprint(AUTHORITY));
        assert!(principals.contains(&&*principal) && principal != "nobody");
    }
    for principals in [&["nobody"][..], &["Alice"], &["alice "], &["*"], &[""]] {
        assert_eq!(by_principals(&subject, principals).await, None, "{principals:?}");
    }
    let other = KeyFingerprint::OpenSsh([7; 32]);
    let found = subject.provider().by_authority(&other, &["alice".into()]).await.unwrap();
    assert_eq!(found, None);
}

/// Each credential ends by itself, the others stay, and a person ends with all.
pub async fn a_credential_holds_until_it_is_revoked(mut subject: impl Subject) {
    subject.know(&[ALICE]).await;
    let key = by_key(&subject, OPENSSH).await.unwrap();
    let token = by_token(&subject, "whole").await.unwrap();
    let certificate = by_principals(&subject, &["a team"]).await.unwrap();
    let all = [&key, &token, &certificate];
    let expect = async |subject: &_, good: [bool; 3]| {
        for (identity, good) in all.into_iter().zip(good) {
            let now = holds(subject, identity).await;
            assert_eq!(now.as_ref(), good.then_some(identity));
        }
    };
    expect(&subject, [true; 3]).await;
    subject.know(&[Person { keys: &[ED25519], ..ALICE }]).await;
    expect(&subject, [false, true, true]).await;
    subject.know(&[Person { keys: &[], tokens: &[NARROW], ..ALICE }]).await;
    expect(&subject, [false, false, true]).await;
    subject.know(&[Person { authorities: &[(AUTHORITY, "alice")], ..ALICE }]).await;
    assert_eq!(holds(&subject, &certificate).await, None);
    let token = by_token(&subject, "narrow").await.unwrap();
    subject.know(&[]).await;
    assert_eq!(holds(&subject, &token).await, None);
    assert_eq!(by_key(&subject, ED25519).await, None);
    assert_eq!(by_principals(&subject, &["alice"]).await, None);
}

/// Whoever may less has less at the next look.
pub async fn less_is_seen_at_once(mut subject: impl Subject) {
    subject.know(&[ALICE]).await;
    let before = [
        by_key(&subject, X509).await.unwrap(),
        by_token(&subject, "whole").await.unwrap(),
        by_principals(&subject, &["alice"]).await.unwrap(),
    ];
    subject.know(&[Person { scopes: "ssh:shell", ..ALICE }]).await;
    for identity in before {
        let now = holds(&subject, &identity).await;
        assert_is(now.as_ref(), "alice", "ssh:shell");
        assert_eq!(now.unwrap().id, identity.id);
    }
}

/// The second try, the late one and the one elsewhere are refused.
pub async fn a_ticket_works_once_for_its_alpn_in_its_time(mut subject: impl Subject) {
    subject.know(&[ALICE]).await;
    let alice = by_token(&subject, "narrow").await.unwrap();
    let ticket = issue(&subject, &alice).await;
    assert!(ticket.expose().len() >= 22, "128 bits");
    assert_eq!(redeem(&subject, &ticket).await.as_ref(), Ok(&alice));
    assert_eq!(redeem(&subject, &ticket).await, Err(TicketRefusal::Used));
    let ticket = issue(&subject, &alice).await;
    let other = Alpn::service("other").unwrap();
    let refused = subject.provider().redeem_ticket(&ticket, &other).await.unwrap();
    assert_eq!(refused, Err(TicketRefusal::WrongAlpn));
    let ticket = issue(&subject, &alice).await;
    subject.outlive(&ticket).await;
    assert_eq!(redeem(&subject, &ticket).await, Err(TicketRefusal::Expired));
    // It is no token.
    let ticket = issue(&subject, &alice).await;
    assert_eq!(subject.provider().by_token(&ticket).await.unwrap(), None);
}

/// A ticket of what was revoked since is refused, whatever it was.
pub async fn a_ticket_ends_with_its_credential(mut subject: impl Subject) {
    subject.know(&[ALICE]).await;
    let key = by_key(&subject, ED25519).await.unwrap();
    let token = by_token(&subject, "whole").await.unwrap();
    let certificate = by_principals(&subject, &["alice"]).await.unwrap();
    let mut tickets = Vec::new();
    for identity in [&key, &token, &certificate] {
        tickets.push(issue(&subject, identity).await);
    }
    let other = by_key(&subject, OPENSSH).await.unwrap();
    let good = issue(&subject, &other).await;
    subject.know(&[Person { keys: &[OPENSSH], authorities: &[], tokens: &[], ..ALICE }]).await;
    for ticket in &tickets {
        assert_eq!(redeem(&subject, ticket).await, Err(TicketRefusal::Revoked));
    }
    assert_eq!(redeem(&subject, &good).await, Ok(other));
}

/// What its holder lost since it was issued, a ticket has lost as well.
pub async fn a_ticket_grants_no_more_than_its_credential(mut subject: impl Subject) {
    subject.know(&[ALICE]).await;
    let alice = by_key(&subject, OPENSSH).await.unwrap();
    let narrow = Identity { scopes: Scopes::from_iter(["ssh:shell"]), ..alice.clone() };
    let ticket = issue(&subject, &narrow).await;
    assert_is(redeem(&subject, &ticket).await.as_ref().ok(), "alice", "ssh:shell");
    let ticket = issue(&subject, &alice).await;
    subject.know(&[Person { scopes: "ssh:forward:*:443,call", ..ALICE }]).await;
    let redeemed = redeem(&subject, &ticket).await;
    assert_is(redeemed.as_ref().ok(), "alice", "ssh:forward:*:443");
}

/// A provider that fails says so, or knows nobody.
pub async fn a_failure_admits_nobody(mut subject: impl Subject) {
    subject.know(&[ALICE]).await;
    let alice = by_key(&subject, OPENSSH).await.unwrap();
    let (ticket, token) = (issue(&subject, &alice).await, subject.secret("whole"));
    subject.know(&[]).await;
    subject.break_down().await;
    let provider = subject.provider();
    let nobody = |answer: Result<Option<Identity>, ProviderError>| {
        assert!(!matches!(answer, Ok(Some(_))), "{answer:?}");
    };
    for key in [OPENSSH, ED25519, X509] {
        nobody(provider.by_key(&fingerprint(key)).await);
    }
    nobody(provider.by_token(&token).await);
    nobody(provider.by_authority(&fingerprint(AUTHORITY), &["alice".into()]).await);
    nobody(provider.by_credential(&alice.credential).await);
    let redeemed = provider.redeem_ticket(&ticket, &echo()).await;
    assert!(!matches!(redeemed, Ok(Ok(_))), "{redeemed:?}");
    assert!(provider.issue_ticket(&alice, &echo()).await.is_err());
}
