//! The store does what every provider has to.

use std::collections::HashMap;

use alknet_testing::conformance::{Person, Subject};

use super::*;

pub(crate) struct Database {
    pub(crate) fixture: Fixture,
    secrets: HashMap<String, (Secret, String)>,
}

pub(crate) async fn database() -> Database {
    Database { fixture: fixture().await, secrets: HashMap::new() }
}

impl Database {
    async fn forget(&mut self, peer: &Peer, now: Option<&Person>) {
        let store = &self.fixture.store;
        let Some(now) = now else { return store.remove_peer(By::OWNER, &peer.name).await.unwrap() };
        for held in &peer.keys {
            if !now.keys.iter().any(|key| key.1 == held.fingerprint) {
                store
                    .remove_key(By::OWNER, now.name, &held.fingerprint.parse().unwrap())
                    .await
                    .unwrap();
            }
        }
        for held in &peer.authorities {
            let same = |of: &&(_, &str)| of.1 == held.principal;
            if !now.authorities.iter().any(|of| same(&of)) {
                let authority = held.fingerprint.parse().unwrap();
                let principal = Some(held.principal.as_str());
                store.remove_authority(By::OWNER, now.name, &authority, principal).await.unwrap();
            }
        }
        for held in store.tokens().await.unwrap() {
            if held.peer == now.name && !now.tokens.iter().any(|token| token.name == held.name) {
                store.revoke(By::OWNER, &held.id).await.unwrap();
                self.secrets.remove(&held.name);
            }
        }
    }

    async fn add(&mut self, person: &Person) {
        let scopes = granted(person.scopes);
        let keys: Vec<_> = person.keys.iter().map(|held| key(held.0)).collect();
        let authority = |of: &((&str, &str), &str)| Authority {
            key: key(of.0.0),
            principals: vec![of.1.into()],
        };
        let authorities: Vec<_> = person.authorities.iter().map(authority).collect();
        let change = PeerChange {
            by: By::OWNER,
            keys: &keys,
            authorities: &authorities,
            scopes: Some(&scopes),
        };
        self.fixture.store.add_peer(person.name, change).await.unwrap();
        for token in person.tokens {
            if self.secrets.contains_key(token.name) {
                continue;
            }
            let scopes = token.scopes.map(granted);
            let lifetime = token.ends.map(|ends| Duration::from_secs(ends.unsigned_abs()));
            let (name, peer) = (token.name, person.name);
            let new = NewToken { by: By::OWNER, name, peer, scopes: scopes.as_ref(), lifetime };
            let (secret, about) = self.fixture.store.create_token(new).await.unwrap();
            if token.ends.is_some_and(|ends| ends < 0) {
                self.fixture.age("UPDATE tokens SET expires_at = created_at - 1").await;
            }
            self.secrets.insert(name.into(), (secret, about.id));
        }
    }
}

impl Subject for Database {
    fn provider(&self) -> &dyn IdentityProvider {
        &self.fixture.store
    }

    async fn know(&mut self, people: &[Person]) {
        for peer in self.fixture.store.peers().await.unwrap() {
            if peer.id != OWNER {
                self.forget(&peer, people.iter().find(|now| now.name == peer.name)).await;
            }
        }
        for person in people {
            self.add(person).await;
        }
    }

    fn secret(&self, token: &str) -> Secret {
        self.secrets[token].0.clone()
    }

    async fn outlive(&mut self, _: &Secret) {
        self.fixture.age("UPDATE tickets SET expires_at = expires_at - 30").await;
    }

    async fn break_down(&mut self) {
        self.fixture.store.close().await;
    }
}

alknet_testing::conformance!(database().await);
