use std::sync::Arc;

use alknet_core::{Alpn, Identity, IdentityProvider as _, KeyFingerprint, TicketRefusal};
use tokio::{sync::Barrier, task::JoinSet};

use super::{signin::SignInRefusal, *};
use crate::{keys::token_identity, peer_key::PeerKey};

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ laptop";

struct Fixture {
    _folder: tempfile::TempDir,
    home: Home,
    store: Store,
}

async fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::open(Some(folder.path().join("state"))).unwrap();
    let store = Store::open(&home).await.unwrap();
    Fixture { _folder: folder, home, store }
}

impl Fixture {
    /// Lets time go by for what is kept in a column of moments.
    async fn age(&self, sql: &'static str) {
        let done = sqlx::raw_sql(sql).execute(&self.store.durable).await.unwrap();
        assert!(done.rows_affected() > 0, "{sql}");
    }

    async fn token(&self, scopes: Option<&str>) -> (Secret, Token) {
        let scopes = scopes.map(super::scopes);
        let new = NewToken { name: "t", peer: "alice", scopes: scopes.as_ref(), lifetime: None };
        self.store.create_token(new).await.unwrap()
    }

    async fn alice(&self, scopes: &str) {
        let scopes = super::scopes(scopes);
        self.store.add_peer("alice", &[key(KEY)], Some(&scopes)).await.unwrap();
    }
}

fn key(text: &str) -> PeerKey {
    PeerKey::parse(text).unwrap()
}

fn node_key(byte: u8) -> PeerKey {
    key(&format!("ed25519:{}", hex::encode([byte; 32])))
}

fn owner() -> Identity {
    Identity { id: OWNER.into(), name: OWNER.into(), scopes: Scopes::all() }
}

fn echo() -> Alpn {
    Alpn::service("echo").unwrap()
}

async fn by_key(store: &Store, key: &PeerKey) -> Option<Identity> {
    store.by_key(&key.fingerprint).await.unwrap()
}

#[tokio::test]
async fn one_peer_has_many_keys_and_keeps_its_id() {
    let f = fixture().await;
    f.alice("ssh").await;
    let first = by_key(&f.store, &key(KEY)).await.unwrap();
    assert_eq!((first.name.as_str(), first.scopes.to_string().as_str()), ("alice", "ssh"));
    let added = f.store.add_peer("alice", &[node_key(1), node_key(2)], None).await.unwrap();
    assert_eq!(added, Added { new: false, keys: 2 });
    assert_eq!(by_key(&f.store, &node_key(1)).await.unwrap(), first);
    f.store.remove_key("alice", &key(KEY).fingerprint).await.unwrap();
    assert_eq!(by_key(&f.store, &key(KEY)).await, None);
    assert_eq!(by_key(&f.store, &node_key(2)).await.unwrap(), first);
    f.store.remove_peer("alice").await.unwrap();
    assert_eq!(by_key(&f.store, &node_key(2)).await, None);
}

#[tokio::test]
async fn what_a_peer_may_do_changes_at_once_for_another_process_too() {
    let f = fixture().await;
    f.alice("ssh").await;
    let (token, _) = f.token(None).await;
    let elsewhere = Store::open(&f.home).await.unwrap();
    let before = elsewhere.by_token(&token).await.unwrap().unwrap();
    assert!(before.scopes.allow("ssh"));
    f.store.add_peer("alice", &[], Some(&scopes("git"))).await.unwrap();
    let after = elsewhere.by_token(&token).await.unwrap().unwrap();
    assert_eq!(after.scopes.to_string(), "git");
    assert_eq!(by_key(&elsewhere, &key(KEY)).await.unwrap().scopes.to_string(), "git");
}

#[tokio::test]
async fn a_key_has_one_holder() {
    let f = fixture().await;
    f.alice("ssh").await;
    let error = f.store.add_peer("bob", &[key(KEY)], Some(&Scopes::all())).await.unwrap_err();
    assert!(matches!(&error, PeerError::KeyTaken { peer, .. } if peer == "alice"), "{error}");
    assert!(!f.store.peers().await.unwrap().iter().any(|peer| peer.name == "bob"));
}

#[tokio::test]
async fn the_owner_stays_and_new_peers_need_scopes() {
    let f = fixture().await;
    assert!(matches!(f.store.remove_peer(OWNER).await, Err(PeerError::Owner)));
    let less = scopes("ssh");
    assert!(matches!(f.store.add_peer(OWNER, &[], Some(&less)).await, Err(PeerError::Owner)));
    assert!(matches!(f.store.add_peer("new", &[], None).await, Err(PeerError::NoScopes(_))));
    assert!(matches!(f.store.remove_peer("new").await, Err(PeerError::Unknown(_))));
    f.store.add_peer(OWNER, &[key(KEY)], None).await.unwrap();
    assert_eq!(by_key(&f.store, &key(KEY)).await.unwrap(), owner());
}

#[tokio::test]
async fn an_authorised_key_may_no_more_than_who_authorised_it() {
    let f = fixture().await;
    let narrow = Identity { scopes: scopes("ssh"), ..owner() };
    assert!(f.store.add_key_to_identity(&narrow, &key(KEY)).await.unwrap());
    assert!(!f.store.add_key_to_identity(&narrow, &key(KEY)).await.unwrap());
    assert_eq!(by_key(&f.store, &key(KEY)).await.unwrap(), narrow);
    let stranger = Identity { id: "nobody".into(), ..owner() };
    let error = f.store.add_key_to_identity(&stranger, &node_key(1)).await.unwrap_err();
    assert!(matches!(error, PeerError::Unknown(_)), "{error}");
}

#[tokio::test]
async fn a_peer_has_a_bounded_number_of_keys() {
    let f = fixture().await;
    let keys: Vec<_> = (0..65).map(node_key).collect();
    let added = f.store.add_peer(OWNER, &keys[..64], None).await.unwrap();
    assert_eq!(added.keys, 64);
    let error = f.store.add_peer(OWNER, &keys[64..], None).await.unwrap_err();
    assert!(matches!(error, PeerError::TooManyKeys), "{error}");
}

#[tokio::test]
async fn a_token_admits_by_itself_and_by_its_derived_key() {
    let f = fixture().await;
    f.alice("ssh,git").await;
    let (token, about) = f.token(Some("ssh")).await;
    let holder = f.store.by_token(&token).await.unwrap().unwrap();
    assert_eq!((holder.name.as_str(), holder.scopes.to_string().as_str()), ("alice", "ssh"));
    let derived = KeyFingerprint::Ed25519(token_identity(&token).unwrap().id());
    assert_eq!(f.store.by_key(&derived).await.unwrap().unwrap(), holder);
    assert!(f.store.tokens().await.unwrap()[0].last_used_at.is_some());
    f.store.revoke(&about.id).await.unwrap();
    assert_eq!(f.store.by_token(&token).await.unwrap(), None);
    assert_eq!(f.store.by_key(&derived).await.unwrap(), None);
    assert!(matches!(f.store.revoke(&about.id).await, Err(TokenError::Unknown(_))));
}

#[tokio::test]
async fn a_token_ends_when_it_expires_or_its_peer_goes() {
    let f = fixture().await;
    f.alice("ssh").await;
    let (token, _) = f.token(None).await;
    f.age("UPDATE tokens SET expires_at = created_at - 1").await;
    assert_eq!(f.store.by_token(&token).await.unwrap(), None);
    assert!(f.store.tokens().await.unwrap().is_empty());
    let (token, _) = f.token(None).await;
    assert!(f.store.by_token(&token).await.unwrap().is_some());
    f.store.remove_peer("alice").await.unwrap();
    assert_eq!(f.store.by_token(&token).await.unwrap(), None);
}

#[tokio::test]
async fn a_token_cannot_exceed_its_peer() {
    let f = fixture().await;
    f.alice("ssh").await;
    let wanted = Scopes::all();
    let new = NewToken { name: "t", peer: "alice", scopes: Some(&wanted), lifetime: None };
    assert!(matches!(f.store.create_token(new).await, Err(TokenError::Exceeds { .. })));
    let new = NewToken { peer: "nobody", ..new };
    assert!(matches!(f.store.create_token(new).await, Err(TokenError::UnknownPeer(_))));
}

/// A dump of the file shows no secret: neither tokens nor links nor tickets.
#[tokio::test]
async fn the_file_holds_hashes_alone() {
    let f = fixture().await;
    f.alice("ssh").await;
    let (token, _) = f.token(None).await;
    let link = f.store.create_signin().await.unwrap();
    let session = f.store.signin(&link).await.unwrap().unwrap().session;
    let ticket = f.store.issue_ticket(&owner(), &echo()).await.unwrap();
    f.store.close().await;
    let content = std::fs::read(f.home.path(FILE)).unwrap();
    let holds = |text: &str| content.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("alice"));
    for secret in [&token, &link, &session, &ticket] {
        assert!(secret.expose().len() >= 43);
        assert!(!holds(secret.expose()));
    }
}

#[tokio::test]
async fn a_sign_in_link_works_once() {
    let f = fixture().await;
    let link = f.store.create_signin().await.unwrap();
    // It is no bearer token.
    assert_eq!(f.store.by_token(&link).await.unwrap(), None);
    let begun = f.store.signin(&link).await.unwrap().unwrap();
    assert_eq!(begun.identity, owner());
    assert_eq!(f.store.signin(&link).await.unwrap().unwrap_err(), SignInRefusal::Used);
    assert_eq!(f.store.by_token(&begun.session).await.unwrap(), Some(owner()));
    f.store.signout(&begun.session).await.unwrap();
    f.store.signout(&begun.session).await.unwrap();
    assert_eq!(f.store.by_token(&begun.session).await.unwrap(), None);
    let invented = Secret::new("alk_invented");
    assert_eq!(f.store.signin(&invented).await.unwrap().unwrap_err(), SignInRefusal::Unknown);
}

#[tokio::test]
async fn a_sign_in_link_expires_and_is_forgotten() {
    let f = fixture().await;
    let link = f.store.create_signin().await.unwrap();
    f.age("UPDATE tokens SET expires_at = expires_at - 15 * 60").await;
    assert_eq!(f.store.signin(&link).await.unwrap().unwrap_err(), SignInRefusal::Expired);
    f.age("UPDATE tokens SET expires_at = expires_at - 24 * 60 * 60 - 1").await;
    f.store.create_signin().await.unwrap();
    assert_eq!(f.store.signin(&link).await.unwrap().unwrap_err(), SignInRefusal::Unknown);
}

#[tokio::test]
async fn a_ticket_works_once_for_its_alpn_in_its_time() {
    let f = fixture().await;
    let redeem =
        async |ticket: &Secret, alpn: &Alpn| f.store.redeem_ticket(ticket, alpn).await.unwrap();
    let narrow = Identity { scopes: scopes("echo"), ..owner() };
    let ticket = f.store.issue_ticket(&narrow, &echo()).await.unwrap();
    let other = Alpn::service("other").unwrap();
    assert_eq!(redeem(&ticket, &other).await, Err(TicketRefusal::WrongAlpn));
    assert_eq!(redeem(&ticket, &echo()).await, Ok(narrow.clone()));
    assert_eq!(redeem(&ticket, &echo()).await, Err(TicketRefusal::Used));
    assert_eq!(redeem(&Secret::new("x"), &echo()).await, Err(TicketRefusal::Unknown));
    let ticket = f.store.issue_ticket(&narrow, &echo()).await.unwrap();
    f.age("UPDATE tickets SET expires_at = expires_at - 30").await;
    assert_eq!(redeem(&ticket, &echo()).await, Err(TicketRefusal::Expired));
    f.age("UPDATE tickets SET expires_at = expires_at - 601").await;
    f.store.issue_ticket(&narrow, &echo()).await.unwrap();
    assert_eq!(redeem(&ticket, &echo()).await, Err(TicketRefusal::Unknown));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_who_redeem_at_once_one_is_admitted() {
    let f = fixture().await;
    for _ in 0..8 {
        let ticket = f.store.issue_ticket(&owner(), &echo()).await.unwrap();
        let barrier = Arc::new(Barrier::new(8));
        let mut tasks = JoinSet::new();
        for _ in 0..8 {
            let (store, ticket, barrier) = (f.store.clone(), ticket.clone(), barrier.clone());
            tasks.spawn(async move {
                barrier.wait().await;
                store.redeem_ticket(&ticket, &echo()).await.unwrap()
            });
        }
        let answers = tasks.join_all().await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
    }
}

#[tokio::test]
async fn open_tickets_are_bounded_and_end_with_a_credential() {
    let f = fixture().await;
    f.alice("ssh").await;
    let (_, token) = f.token(None).await;
    let alice = by_key(&f.store, &key(KEY)).await.unwrap();
    let mut tickets = Vec::new();
    for _ in 0..64 {
        tickets.push(f.store.issue_ticket(&alice, &echo()).await.unwrap());
    }
    assert!(f.store.issue_ticket(&alice, &echo()).await.is_err());
    assert!(f.store.issue_ticket(&owner(), &echo()).await.is_ok());
    f.store.redeem_ticket(&tickets[0], &echo()).await.unwrap().unwrap();
    f.store.issue_ticket(&alice, &echo()).await.unwrap();
    f.store.revoke(&token.id).await.unwrap();
    let refused = f.store.redeem_ticket(&tickets[1], &echo()).await.unwrap();
    assert_eq!(refused, Err(TicketRefusal::Unknown));
    f.store.issue_ticket(&alice, &echo()).await.unwrap();
    let stranger = Identity { id: "nobody".into(), ..owner() };
    assert!(f.store.issue_ticket(&stranger, &echo()).await.is_err());
}

#[tokio::test]
async fn many_can_open_it_at_once_and_a_newer_one_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::open(Some(folder.path().join("state"))).unwrap();
    let opened = std::thread::scope(|scope| {
        let open = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let store = runtime.unwrap().block_on(Store::open(&home));
            store.map(drop)
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(opened.iter().all(Result::is_ok), "{opened:?}");
    let store = Store::open(&home).await.unwrap();
    assert_eq!(store.peers().await.unwrap().len(), 1);
    sqlx::raw_sql("INSERT INTO schema_steps (step) VALUES (1000)")
        .execute(&store.durable)
        .await
        .unwrap();
    assert!(matches!(Store::open(&home).await, Err(StoreError::Newer)));
}

#[tokio::test]
async fn its_files_are_the_owners_alone() {
    use std::os::unix::fs::MetadataExt as _;
    let f = fixture().await;
    f.store.create_signin().await.unwrap();
    for name in ["node.db", "node.db-wal", "node.db-shm"] {
        let mode = std::fs::metadata(f.home.path(name)).unwrap().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
}

#[test]
fn what_both_grant() {
    let granted = |a, b| common(&scopes(a), &scopes(b)).to_string();
    assert_eq!(granted("*", "ssh,git"), "git,ssh");
    assert_eq!(granted("ssh", "*"), "ssh");
    assert_eq!(granted("*", "*"), "*");
    assert_eq!(granted("ssh", "git"), "");
    assert_eq!(granted("", "*"), "");
}
