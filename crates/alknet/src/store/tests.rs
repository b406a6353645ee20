mod conformance;

use alknet_core::{Credential, Scopes};
use tokio::{sync::Barrier, task::JoinSet};

use super::{
    model::MAX_KEYS,
    sqlite::{FILE, Sqlite},
    *,
};
use crate::{keys::token_identity, peer_key::PeerKey};

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ laptop";

pub(crate) struct Fixture {
    _folder: tempfile::TempDir,
    home: Home,
    pub(crate) store: Sqlite,
}

pub(crate) async fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::open(Some(folder.path().join("state"))).unwrap();
    let store = Sqlite::open(&home).await.unwrap();
    Fixture { _folder: folder, home, store }
}

impl Fixture {
    /// Lets time go by for what is kept in a column of moments.
    pub(crate) async fn age(&self, sql: &'static str) {
        let done = sqlx::raw_sql(sql).execute(&self.store.durable).await.unwrap();
        assert!(done.rows_affected() > 0, "{sql}");
    }

    async fn session(&self) -> SignIn {
        let link = self.store.create_signin().await.unwrap();
        self.store.signin(&link).await.unwrap().unwrap()
    }

    async fn token(&self, scopes: Option<&str>) -> (Secret, Token) {
        let scopes = scopes.map(granted);
        let new = NewToken {
            by: By::OWNER,
            name: "t",
            peer: "alice",
            scopes: scopes.as_ref(),
            lifetime: None,
        };
        self.store.create_token(new).await.unwrap()
    }

    async fn alice(&self, scopes: &str) {
        self.add("alice", &[key(KEY)], Some(scopes)).await.unwrap();
    }

    async fn add(
        &self,
        name: &str,
        keys: &[PeerKey],
        scopes: Option<&str>,
    ) -> Result<Added, PeerError> {
        let scopes = scopes.map(granted);
        let change = PeerChange { keys, scopes: scopes.as_ref(), ..PeerChange::default() };
        self.store.add_peer(name, change).await
    }
}

fn granted(text: &str) -> Scopes {
    text.parse().unwrap()
}

fn key(text: &str) -> PeerKey {
    PeerKey::parse(text).unwrap()
}

fn node_key(byte: u8) -> PeerKey {
    key(&format!("ed25519:{}", hex::encode([byte; 32])))
}

/// The owner, known by a key.
fn owner(key: &PeerKey) -> Identity {
    Identity::new(OWNER, OWNER, Scopes::all(), Credential::Key(key.fingerprint))
}

fn echo() -> Alpn {
    Alpn::service("echo").unwrap()
}

async fn by_key(store: &Sqlite, key: &PeerKey) -> Option<Identity> {
    store.by_key(&key.fingerprint).await.unwrap()
}

#[tokio::test]
async fn one_peer_has_many_keys_and_keeps_its_id() {
    let f = fixture().await;
    f.alice("ssh").await;
    let first = by_key(&f.store, &key(KEY)).await.unwrap();
    assert_eq!((first.name.as_str(), first.scopes.to_string().as_str()), ("alice", "ssh"));
    let added = f.add("alice", &[node_key(1), node_key(2)], None).await.unwrap();
    assert_eq!(added, Added { new: false, keys: 2, principals: 0 });
    assert_eq!(by_key(&f.store, &node_key(1)).await.unwrap().id, first.id);
    f.store.remove_key(By::OWNER, "alice", &key(KEY).fingerprint).await.unwrap();
    assert_eq!(by_key(&f.store, &key(KEY)).await, None);
    assert_eq!(by_key(&f.store, &node_key(2)).await.unwrap().id, first.id);
    assert_eq!(f.store.peer(&first.id).await.unwrap().unwrap().keys.len(), 2);
    f.store.remove_peer(By::OWNER, "alice").await.unwrap();
    assert_eq!(by_key(&f.store, &node_key(2)).await, None);
}

#[tokio::test]
async fn what_a_peer_may_do_changes_at_once_for_another_process_too() {
    let f = fixture().await;
    f.alice("ssh").await;
    let (token, _) = f.token(None).await;
    let elsewhere = Sqlite::open(&f.home).await.unwrap();
    let before = elsewhere.by_token(&token).await.unwrap().unwrap();
    assert!(before.scopes.allow("ssh"));
    f.add("alice", &[], Some("git")).await.unwrap();
    let after = elsewhere.by_token(&token).await.unwrap().unwrap();
    assert_eq!(after.scopes.to_string(), "git");
    assert_eq!(by_key(&elsewhere, &key(KEY)).await.unwrap().scopes.to_string(), "git");
}

/// The version moves with what can end a session, also in another process, and stays with
/// everything else.
#[tokio::test]
async fn whatever_can_end_a_session_is_another_version() {
    let f = fixture().await;
    f.alice("ssh").await;
    let ca = Authority { key: key(KEY), principals: vec!["a".into(), "b".into()] };
    let change = PeerChange { authorities: &[ca], ..PeerChange::default() };
    f.store.add_peer("alice", change).await.unwrap();
    let elsewhere = Sqlite::open(&f.home).await.unwrap();
    let mut seen = elsewhere.version().await.unwrap();
    let mut moved = async || {
        let now = elsewhere.version().await.unwrap();
        assert_eq!(f.store.version().await.unwrap(), now);
        std::mem::replace(&mut seen, now) != now
    };
    let (token, about) = f.token(None).await;
    let link = f.store.create_signin().await.unwrap();
    let session = f.store.signin(&link).await.unwrap().unwrap();
    let alice = f.store.by_token(&token).await.unwrap().unwrap();
    let ticket = f.store.issue_ticket(&alice, &echo()).await.unwrap();
    f.store.redeem_ticket(&ticket, &echo()).await.unwrap().unwrap();
    f.add("alice", &[node_key(1)], None).await.unwrap();
    assert!(!moved().await);
    f.store.revoke(By::OWNER, &about.id).await.unwrap();
    assert!(moved().await, "a token");
    f.store.signout(&session.session).await.unwrap();
    assert!(moved().await, "a session");
    f.store.signout(&session.session).await.unwrap();
    assert!(!moved().await);
    f.store.remove_key(By::OWNER, "alice", &node_key(1).fingerprint).await.unwrap();
    assert!(moved().await, "a key");
    let authority = key(KEY).fingerprint;
    f.store.remove_authority(By::OWNER, "alice", &authority, Some("a")).await.unwrap();
    assert!(moved().await, "a principal");
    f.store.remove_authority(By::OWNER, "alice", &authority, None).await.unwrap();
    assert!(moved().await, "an authority");
    f.add("alice", &[], Some("ssh:shell")).await.unwrap();
    assert!(moved().await, "scopes");
    f.store.remove_peer(By::OWNER, "alice").await.unwrap();
    assert!(moved().await, "a peer");
}

#[tokio::test]
async fn what_was_revoked_is_remembered_within_bounds() {
    let f = fixture().await;
    f.alice("ssh").await;
    let (_, about) = f.token(Some("ssh:shell")).await;
    f.store.revoke(By::OWNER, &about.id).await.unwrap();
    let gone = f.store.revocation(&about.id).await.unwrap().unwrap();
    assert_eq!((&*gone.kind, &*gone.peer, &*gone.revoked.by), ("token", "alice", OWNER));
    let ended = f.store.ended_tokens().await.unwrap();
    assert_eq!((&ended[0].id, ended[0].scopes.to_string()), (&about.id, "ssh:shell".into()));
    assert_eq!(ended[0].revoked.as_ref(), Some(&gone.revoked));
    let id = by_key(&f.store, &key(KEY)).await.unwrap().id;
    f.store.remove_key(By::OWNER, "alice", &key(KEY).fingerprint).await.unwrap();
    f.store.remove_peer(By::OWNER, "alice").await.unwrap();
    for of in [&*id, "alice"] {
        assert_eq!(f.store.revocation(of).await.unwrap().unwrap().kind, "peer");
    }
    let fingerprint = key(KEY).fingerprint.to_string();
    assert_eq!(f.store.revocation(&fingerprint).await.unwrap().unwrap().kind, "key");
    // What revokes nothing is counted, and makes nobody forget.
    f.age("UPDATE revision SET count = count + 20000").await;
    f.alice("ssh").await;
    f.store.remove_peer(By::OWNER, "alice").await.unwrap();
    assert!(f.store.revocation(&about.id).await.unwrap().is_some());
    f.age(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
         INSERT INTO revocations SELECT i + 20100, 'key', 'k', '', '', '', 0, 0, '' FROM n",
    )
    .await;
    f.age("UPDATE revision SET count = 40000").await;
    f.alice("ssh").await;
    f.store.remove_peer(By::OWNER, "alice").await.unwrap();
    assert_eq!(f.store.revocation(&about.id).await.unwrap(), None);
    assert!(f.store.revocation("alice").await.unwrap().is_some());
    assert!(f.store.revocation("k").await.unwrap().is_some());
}

#[tokio::test]
async fn the_tokens_of_a_peer_that_goes_are_remembered() {
    let f = fixture().await;
    f.alice("ssh").await;
    let (_, about) = f.token(None).await;
    f.store.remove_peer(By::OWNER, "alice").await.unwrap();
    let ended = f.store.ended_tokens().await.unwrap();
    assert_eq!((&ended[0].id, &*ended[0].peer), (&about.id, "alice"));
    assert_eq!(f.store.revocation(&about.id).await.unwrap().unwrap().kind, "token");
}

/// Whoever makes up links holds nobody up who writes.
#[tokio::test]
async fn an_unknown_link_is_refused_while_another_writes() {
    let f = fixture().await;
    let link = f.store.create_signin().await.unwrap();
    f.store.signin(&link).await.unwrap().unwrap();
    let writing = f.store.pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let invented = Secret::new("alk_invented");
    assert_eq!(f.store.signin(&invented).await.unwrap().unwrap_err(), SignInRefusal::Unknown);
    assert_eq!(f.store.signin(&link).await.unwrap().unwrap_err(), SignInRefusal::Used);
    drop(writing);
}

#[tokio::test]
async fn a_key_and_a_principal_have_one_holder() {
    let f = fixture().await;
    f.alice("ssh").await;
    let error = f.add("bob", &[key(KEY)], Some("*")).await.unwrap_err();
    assert!(matches!(&error, PeerError::KeyTaken { peer, .. } if peer == "alice"), "{error}");
    assert!(!f.store.peers().await.unwrap().iter().any(|peer| peer.name == "bob"));
    let ca = [Authority { key: key(KEY), principals: vec!["team".into(), "alice".into()] }];
    let change = PeerChange { authorities: &ca, ..PeerChange::default() };
    assert_eq!(f.store.add_peer("alice", change).await.unwrap().principals, 2);
    assert_eq!(f.store.add_peer("alice", change).await.unwrap().principals, 0);
    f.add("bob", &[], Some("*")).await.unwrap();
    let error = f.store.add_peer("bob", change).await.unwrap_err();
    let told = "the principal \"team\" of the authority SHA256:T7SvZ2cslqpPj6nKzitCBHHlpVF3r3MvLwmFL0fk0IE is the peer alice";
    assert_eq!(error.to_string(), told);
    let gone = f.store.remove_authority(By::OWNER, "bob", &ca[0].key.fingerprint, None).await;
    assert!(matches!(gone, Err(PeerError::UnknownAuthority(_))), "{gone:?}");
}

#[tokio::test]
async fn the_owner_stays_and_new_peers_need_scopes() {
    let f = fixture().await;
    assert!(matches!(f.store.remove_peer(By::OWNER, OWNER).await, Err(PeerError::Owner)));
    assert!(matches!(f.add(OWNER, &[], Some("ssh")).await, Err(PeerError::Owner)));
    assert!(matches!(f.add("new", &[], None).await, Err(PeerError::NoScopes(_))));
    assert!(matches!(f.store.remove_peer(By::OWNER, "new").await, Err(PeerError::Unknown(_))));
    f.add(OWNER, &[key(KEY)], None).await.unwrap();
    assert_eq!(by_key(&f.store, &key(KEY)).await.unwrap(), owner(&key(KEY)));
}

#[tokio::test]
async fn an_authorised_key_may_no_more_than_who_authorised_it() {
    let f = fixture().await;
    let narrow = Identity { scopes: granted("ssh"), ..f.session().await.identity };
    assert!(f.store.add_session_key(&narrow, &key(KEY)).await.unwrap());
    assert!(!f.store.add_session_key(&narrow, &key(KEY)).await.unwrap());
    let found = by_key(&f.store, &key(KEY)).await.unwrap();
    assert_eq!(
        found,
        Identity { valid_until: found.valid_until, scopes: granted("ssh"), ..owner(&key(KEY)) }
    );
    let stranger = Identity { id: "nobody".into(), ..narrow };
    let error = f.store.add_session_key(&stranger, &node_key(1)).await.unwrap_err();
    assert!(matches!(error, PeerError::NoSession), "{error}");
}

/// Neither a token nor a key can make itself a key that stays.
#[tokio::test]
async fn only_an_open_session_authorises_keys() {
    let f = fixture().await;
    f.alice("ssh").await;
    let (token, _) = f.token(None).await;
    let bearer = f.store.by_token(&token).await.unwrap().unwrap();
    let over = f.session().await.identity;
    f.age("UPDATE tokens SET expires_at = created_at WHERE kind = 'session'").await;
    let ended = f.session().await;
    f.store.signout(&ended.session).await.unwrap();
    for who in [bearer, owner(&key(KEY)), over, ended.identity] {
        let error = f.store.add_session_key(&who, &node_key(1)).await.unwrap_err();
        assert!(matches!(error, PeerError::NoSession), "{error}");
    }
    let open = f.session().await.identity;
    let error = f.store.add_session_key(&open, &key(KEY)).await.unwrap_err();
    assert!(matches!(error, PeerError::KeyTaken { .. }), "{error}");
    assert_eq!(by_key(&f.store, &node_key(1)).await, None);
}

#[tokio::test]
async fn an_authorised_key_ends_with_its_session() {
    let f = fixture().await;
    let id = |signed_in: &SignIn| match &signed_in.identity.credential {
        Credential::Token(id) => id.clone(),
        other => panic!("{other}"),
    };
    let listed = async || f.store.peer(OWNER).await.unwrap().unwrap().keys.len();
    let [first, second, third] = [f.session().await, f.session().await, f.session().await];
    for (session, key) in [(&first, 1), (&second, 2), (&third, 3)] {
        assert!(f.store.add_session_key(&session.identity, &node_key(key)).await.unwrap());
        assert!(by_key(&f.store, &node_key(key)).await.unwrap().valid_until.is_some());
    }
    assert!(f.store.signout(&first.session).await.unwrap());
    f.store.revoke(By::OWNER, &id(&second)).await.unwrap();
    assert_eq!(by_key(&f.store, &node_key(1)).await, None);
    assert_eq!(by_key(&f.store, &node_key(2)).await, None);
    assert_eq!(listed().await, 1);
    f.age("UPDATE tokens SET expires_at = created_at WHERE kind = 'session'").await;
    assert_eq!(by_key(&f.store, &node_key(3)).await, None);
    assert_eq!(f.store.by_credential(&owner(&node_key(3)).credential).await.unwrap(), None);
    assert_eq!(listed().await, 0);
    assert_eq!(f.store.peers().await.unwrap()[0].keys.len(), 0);
    // It is as free as one that never was.
    f.add("bob", &[node_key(3)], Some("ssh")).await.unwrap();
    assert_eq!(by_key(&f.store, &node_key(3)).await.unwrap().name, "bob");
}

/// A browser keeps its key and signs in again.
#[tokio::test]
async fn a_key_goes_over_to_the_session_that_authorises_it_next() {
    let f = fixture().await;
    let [first, second] = [f.session().await, f.session().await];
    assert!(f.store.add_session_key(&first.identity, &key(KEY)).await.unwrap());
    assert!(f.store.add_session_key(&second.identity, &key(KEY)).await.unwrap());
    f.store.signout(&first.session).await.unwrap();
    assert_eq!(by_key(&f.store, &key(KEY)).await.unwrap().id, OWNER);
    f.store.signout(&second.session).await.unwrap();
    assert_eq!(by_key(&f.store, &key(KEY)).await, None);
    let third = f.session().await;
    assert!(f.store.add_session_key(&third.identity, &key(KEY)).await.unwrap());
    // What the owner adds stays, before a session and after.
    assert_eq!(f.add(OWNER, &[key(KEY)], None).await.unwrap().keys, 1);
    assert!(!f.store.add_session_key(&third.identity, &key(KEY)).await.unwrap());
    f.store.signout(&third.session).await.unwrap();
    assert_eq!(by_key(&f.store, &key(KEY)).await.unwrap(), owner(&key(KEY)));
}

#[tokio::test]
async fn a_peer_has_a_bounded_number_of_keys_and_principals() {
    let f = fixture().await;
    let keys: Vec<_> = (0..65).map(node_key).collect();
    let most = usize::try_from(MAX_KEYS).unwrap();
    let added = f.add(OWNER, &keys[..most], None).await.unwrap();
    assert_eq!(added.keys, most);
    let error = f.add(OWNER, &keys[most..], None).await.unwrap_err();
    assert!(matches!(error, PeerError::TooManyKeys), "{error}");
    let principals = (0..65).map(|n| n.to_string()).collect();
    let ca = [Authority { key: key(KEY), principals }];
    let change = PeerChange { authorities: &ca, ..PeerChange::default() };
    let error = f.store.add_peer(OWNER, change).await.unwrap_err();
    assert!(matches!(error, PeerError::TooManyAuthorities), "{error}");
    assert!(f.store.peer(OWNER).await.unwrap().unwrap().authorities.is_empty());
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
    assert_eq!(holder.credential, Credential::Token(about.id.clone()));
    assert!(f.store.tokens().await.unwrap()[0].last_used_at.is_some());
    f.store.revoke(By::OWNER, &about.id).await.unwrap();
    assert_eq!(f.store.by_token(&token).await.unwrap(), None);
    assert_eq!(f.store.by_key(&derived).await.unwrap(), None);
    assert!(matches!(f.store.revoke(By::OWNER, &about.id).await, Err(TokenError::Unknown(_))));
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
    f.store.remove_peer(By::OWNER, "alice").await.unwrap();
    assert_eq!(f.store.by_token(&token).await.unwrap(), None);
}

#[tokio::test]
async fn a_token_cannot_exceed_its_peer() {
    let f = fixture().await;
    f.alice("ssh").await;
    let wanted = Scopes::all();
    let new =
        NewToken { by: By::OWNER, name: "t", peer: "alice", scopes: Some(&wanted), lifetime: None };
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
    let ticket = f.store.issue_ticket(&owner(&key(KEY)), &echo()).await.unwrap();
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
    assert_eq!(f.store.signin(&link).await.unwrap().unwrap_err(), SignInRefusal::Used);
    let holder = f.store.by_token(&begun.session).await.unwrap().unwrap();
    let who = |identity: &Identity| (identity.id.clone(), identity.credential.clone());
    assert_eq!(who(&begun.identity), who(&holder));
    assert_eq!((&*holder.id, &holder.scopes), (OWNER, &Scopes::all()));
    assert!(begun.identity.valid_until.is_some() && holder.valid_until.is_some());
    f.store.signout(&begun.session).await.unwrap();
    f.store.signout(&begun.session).await.unwrap();
    assert_eq!(f.store.by_token(&begun.session).await.unwrap(), None);
    assert_eq!(f.store.by_credential(&holder.credential).await.unwrap(), None);
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
async fn a_ticket_is_forgotten_in_time() {
    let f = fixture().await;
    f.alice("ssh").await;
    let alice = by_key(&f.store, &key(KEY)).await.unwrap();
    let ticket = f.store.issue_ticket(&alice, &echo()).await.unwrap();
    f.age("UPDATE tickets SET expires_at = expires_at - 30 - 601").await;
    let refused = f.store.redeem_ticket(&ticket, &echo()).await.unwrap();
    assert_eq!(refused, Err(TicketRefusal::Expired));
    f.store.issue_ticket(&alice, &echo()).await.unwrap();
    let refused = f.store.redeem_ticket(&ticket, &echo()).await.unwrap();
    assert_eq!(refused, Err(TicketRefusal::Unknown));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_who_redeem_at_once_one_is_admitted() {
    let f = fixture().await;
    f.alice("ssh").await;
    let alice = by_key(&f.store, &key(KEY)).await.unwrap();
    for _ in 0..8 {
        let ticket = f.store.issue_ticket(&alice, &echo()).await.unwrap();
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
async fn open_tickets_are_bounded() {
    let f = fixture().await;
    f.alice("ssh").await;
    f.add(OWNER, &[node_key(1)], None).await.unwrap();
    let alice = by_key(&f.store, &key(KEY)).await.unwrap();
    let mut tickets = Vec::new();
    for _ in 0..64 {
        tickets.push(f.store.issue_ticket(&alice, &echo()).await.unwrap());
    }
    assert!(f.store.issue_ticket(&alice, &echo()).await.is_err());
    assert!(f.store.issue_ticket(&owner(&node_key(1)), &echo()).await.is_ok());
    f.store.redeem_ticket(&tickets[0], &echo()).await.unwrap().unwrap();
    f.store.issue_ticket(&alice, &echo()).await.unwrap();
}

/// The ticket of somebody whom another provider knows is kept, but only that one can say
/// whether it still holds.
#[tokio::test]
async fn a_ticket_of_another_provider_is_not_redeemed_by_the_store_alone() {
    let f = fixture().await;
    let stranger = Identity { id: "people.alice".into(), ..owner(&node_key(1)) };
    let ticket = f.store.issue_ticket(&stranger, &echo()).await.unwrap();
    assert_eq!(f.store.take_ticket(&ticket, &echo()).await.unwrap(), Ok(stranger.clone()));
    let ticket = f.store.issue_ticket(&stranger, &echo()).await.unwrap();
    let refused = f.store.redeem_ticket(&ticket, &echo()).await.unwrap();
    assert_eq!(refused, Err(TicketRefusal::Revoked));
    // The key is somebody else's meanwhile.
    f.add(OWNER, &[node_key(1)], None).await.unwrap();
    let ticket = f.store.issue_ticket(&stranger, &echo()).await.unwrap();
    let refused = f.store.redeem_ticket(&ticket, &echo()).await.unwrap();
    assert_eq!(refused, Err(TicketRefusal::Revoked));
}

/// A database of the first version of the tables.
#[tokio::test]
async fn an_old_database_keeps_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::open(Some(folder.path().join("state"))).unwrap();
    let path = home.path(FILE);
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let old = sqlx::SqlitePool::connect_with(options).await.unwrap();
    for sql in [
        include_str!("sqlite/schema/1.sql"),
        "CREATE TABLE schema_steps (step BIGINT PRIMARY KEY)",
        "INSERT INTO schema_steps (step) VALUES (0)",
        "INSERT INTO peers (id, name, scopes, created_at) VALUES ('1', 'alice', 'ssh', 1)",
        "INSERT INTO tickets (hash, peer, scopes, alpn, expires_at) VALUES ('h', '1', '*', 'a', 9)",
    ] {
        sqlx::raw_sql(sql).execute(&old).await.unwrap();
    }
    old.close().await;
    let store = Sqlite::open(&home).await.unwrap();
    assert_eq!(store.peer("alice").await.unwrap().unwrap().id, "1");
    assert_eq!(store.version().await.unwrap(), 0);
}

#[tokio::test]
async fn many_can_open_it_at_once_and_a_newer_one_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::open(Some(folder.path().join("state"))).unwrap();
    let opened = std::thread::scope(|scope| {
        let open = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let store = runtime.unwrap().block_on(Sqlite::open(&home));
            store.map(drop)
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(opened.iter().all(Result::is_ok), "{opened:?}");
    let store = Sqlite::open(&home).await.unwrap();
    assert_eq!(store.peers().await.unwrap().len(), 1);
    sqlx::raw_sql("INSERT INTO schema_steps (step) VALUES (1000)")
        .execute(&store.durable)
        .await
        .unwrap();
    assert!(matches!(Sqlite::open(&home).await, Err(StoreError::Newer)));
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
