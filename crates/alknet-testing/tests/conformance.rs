//! The identities in memory do what every provider has to.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::HashMap;

use alknet_core::{Credential, Identity, IdentityProvider, KeyFingerprint, Scopes, Secret};
use alknet_testing::{
    conformance::{Key, Person, Subject, Token},
    identities::Identities,
};

/// Gives the provider new people by taking the old ones away first.
#[derive(Default)]
struct Memory {
    identities: Identities,
    known: HashMap<&'static str, Person>,
}

fn of(person: &Person, credential: Credential) -> Identity {
    let scopes: Scopes = person.scopes.parse().unwrap();
    Identity::new(format!("id-{}", person.name), person.name, scopes, credential)
}

fn fingerprint(key: Key) -> KeyFingerprint {
    key.1.parse().unwrap()
}

impl Memory {
    fn forget(&self, before: &Person, now: Option<&Person>) {
        let kept = |key: &Key| now.is_some_and(|now| now.keys.contains(key));
        for key in before.keys.iter().filter(|key| !kept(key)) {
            self.identities.revoke_key(&fingerprint(*key));
        }
        let kept = |of: &(Key, &str)| now.is_some_and(|now| now.authorities.contains(of));
        for (key, principal) in before.authorities.iter().filter(|of| !kept(of)) {
            self.identities.revoke_authority(&fingerprint(*key), principal);
        }
        let kept =
            |token: &Token| now.is_some_and(|now| now.tokens.iter().any(|t| t.name == token.name));
        for token in before.tokens.iter().filter(|token| !kept(token)) {
            self.identities.revoke_token(self.secret(token.name).expose());
        }
    }

    fn add(&self, person: &Person) {
        for key in person.keys {
            let key = fingerprint(*key);
            self.identities.add_key(key, of(person, Credential::Key(key)));
        }
        for (key, principal) in person.authorities {
            let (key, principal) = (fingerprint(*key), (*principal).to_owned());
            let credential = Credential::Authority { key, principal: principal.clone() };
            self.identities.add_authority(key, &principal, of(person, credential));
        }
        for token in person.tokens.iter().filter(|token| token.ends.is_none_or(|ends| ends > 0)) {
            let identity = of(person, Credential::Token(token.name.into()));
            let scopes = match token.scopes {
                Some(scopes) => identity.scopes.common(&scopes.parse().unwrap()),
                None => identity.scopes.clone(),
            };
            let lasts = |seconds: i64| std::time::Duration::from_secs(seconds.unsigned_abs());
            let valid_until = token.ends.map(|ends| std::time::SystemTime::now() + lasts(ends));
            let identity = Identity { scopes, valid_until, ..identity };
            self.identities.add_token(self.secret(token.name).expose(), identity);
        }
    }
}

impl Subject for Memory {
    fn provider(&self) -> &dyn IdentityProvider {
        &self.identities
    }

    async fn know(&mut self, people: &[Person]) {
        let now: HashMap<_, _> = people.iter().map(|person| (person.name, *person)).collect();
        for (name, before) in &self.known {
            self.forget(before, now.get(name));
        }
        now.values().for_each(|person| self.add(person));
        self.known = now;
    }

    fn secret(&self, token: &str) -> Secret {
        Secret::new(format!("alk_{token}"))
    }

    async fn outlive(&mut self, ticket: &Secret) {
        self.identities.expire_ticket(ticket);
    }

    async fn break_down(&mut self) {
        self.identities.set_broken(true);
    }
}

alknet_testing::conformance!(Memory::default());
