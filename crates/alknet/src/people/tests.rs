use std::{
    collections::HashMap,
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt as _,
    time::{Duration, SystemTime},
};

use alknet_testing::conformance::{self, Person, Subject};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::*;
use crate::{
    chain::ChainProvider,
    keys::token_identity,
    store::tests::{Fixture, fixture},
};

const ONE: &str = conformance::OPENSSH.0;
const TWO: &str = conformance::AUTHORITY.0;

/// A file in a folder that goes with it.
struct Written {
    folder: tempfile::TempDir,
}

impl Written {
    fn new(text: &str) -> Self {
        let written = Self { folder: tempfile::tempdir().unwrap() };
        written.write(text);
        written
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("people.toml")
    }

    /// As git does it: the file is another one.
    fn write(&self, text: &str) {
        let next = self.folder.path().join("next");
        fs::write(&next, text).unwrap();
        fs::rename(next, self.path()).unwrap();
    }

    fn people(&self) -> People {
        People::open(self.path()).unwrap()
    }
}

fn wrong(text: &str) -> String {
    let written = Written::new(text);
    let message = People::open(written.path()).unwrap_err().to_string();
    message.replace(&written.path().display().to_string(), "people.toml")
}

fn fingerprint(key: &str) -> KeyFingerprint {
    crate::peer_key::PeerKey::parse(key).unwrap().fingerprint
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    for (text, expected) in [
        ("[people.alice]\nscope = []\n", "line 2: unknown field `scope`, expected one of"),
        ("[peoples.alice]\n", "line 1: unknown field `peoples`"),
        ("[people.alice]\nkeys = []\n", "line 1: missing field `scopes`"),
        ("[people.alice]\nscopes = [\"ssh\", \"a b\"]\n", "line 2: a scope has no ' '"),
        ("[people.alice]\nscopes = [\n", "line 2: "),
        ("[people.\"a\\nb\"]\nscopes = []\n", "line 1: a name has no '\\n'"),
        (
            "[people.alice]\nscopes = []\nkeys = [\n\"ssh-ed25519 AAAA\"]\n",
            "line 4: this is neither",
        ),
        (
            "[people.alice]\nscopes = []\ntokens = [{ name = \"ci\" }]\n",
            "line 3: missing field `sha256`",
        ),
        (
            "[people.alice]\nscopes = []\ntokens = [{ name = \"ci\", sha256 = \"ab\" }]\n",
            "line 3: a SHA-256 is written as 64 hexadecimal digits",
        ),
    ] {
        let message = wrong(text);
        let expected = format!("people.toml, {expected}");
        assert!(message.starts_with(&expected), "{text}: {message}");
    }
    let hash = "ab".repeat(32);
    let local = format!(
        "[people.alice]\nscopes = []\ntokens = [{{ name = \"ci\", sha256 = \"{hash}\", expires = 2027-01-01 }}]\n"
    );
    assert!(
        wrong(&local).contains("line 3: a moment is written with its zone"),
        "{}",
        wrong(&local)
    );
}

#[test]
fn what_identifies_two_names_both() {
    let person = |name: &str, rest: &str| format!("[people.{name}]\nscopes = [\"ssh\"]\n{rest}\n");
    let hash = "ab".repeat(32);
    let key = fingerprint(ONE);
    for (rest, what) in [
        (format!("keys = [\"{ONE}\"]"), format!("the key {key}")),
        (
            format!("authorities = [{{ key = \"{ONE}\", principals = [\"x\"] }}]"),
            format!("the principal \"x\" of the authority {key}"),
        ),
        (format!("tokens = [{{ name = \"ci\", sha256 = \"{hash}\" }}]"), "the token ci".into()),
    ] {
        let text = person("alice", &rest) + &person("bob", &rest);
        let expected = format!("people.toml, line 6: {what} is that of alice and of bob");
        assert_eq!(wrong(&text), expected);
    }
    let node = format!("ed25519:{hash}");
    let token = format!("tokens = [{{ name = \"ci\", sha256 = \"{hash}\", key = \"{node}\" }}]");
    let text = person("alice", &format!("keys = [\"{node}\"]")) + &person("bob", &token);
    assert!(wrong(&text).ends_with(&format!("the key {node} is that of alice and of bob")));
    let text = person("alice", &token) + &person("bob", &format!("keys = [\"{node}\"]"));
    assert!(wrong(&text).ends_with(&format!("the key {node} is that of alice and of bob")));
    let twice = person("alice", &format!("keys = [\"{ONE}\", \"{ONE} again\"]"));
    assert!(wrong(&twice).ends_with("is that of alice and of alice"));
}

#[test]
fn a_file_that_is_not_there_or_that_others_can_write_is_refused() {
    let written = Written::new("");
    let missing = People::open(written.folder.path().join("none")).unwrap_err();
    assert!(matches!(missing, PeopleError::Missing { .. }), "{missing}");
    fs::set_permissions(written.path(), fs::Permissions::from_mode(0o662)).unwrap();
    let exposed = People::open(written.path()).unwrap_err();
    assert!(matches!(exposed, PeopleError::Trust(TrustError::Exposed { .. })), "{exposed}");
}

#[tokio::test]
async fn a_change_holds_at_once_and_a_broken_one_changes_nothing() {
    let alice = |key: &str| format!("[people.alice]\nscopes = [\"ssh\"]\nkeys = [\"{key}\"]\n");
    let written = Written::new(&alice(ONE));
    let people = written.people();
    let knows = async |key| people.by_key(&fingerprint(key)).await.unwrap().is_some();
    assert!(knows(ONE).await && !knows(TWO).await);
    written.write(&alice(TWO));
    assert!(!knows(ONE).await && knows(TWO).await);
    written.write("[people.mallory]\nscopes = [\"*\"]\nkeys = 1\n");
    assert!(knows(TWO).await);
    fs::remove_file(written.path()).unwrap();
    assert!(knows(TWO).await);
    written.write(&alice(ONE));
    fs::set_permissions(written.path(), fs::Permissions::from_mode(0o666)).unwrap();
    assert!(!knows(ONE).await && knows(TWO).await);
    fs::set_permissions(written.path(), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(knows(ONE).await && !knows(TWO).await);
}

/// The version moves once a change has settled, and not with a file that says the same.
#[tokio::test]
async fn the_version_moves_with_what_the_file_says() {
    let written = Written::new("[people.alice]\nscopes = [\"ssh\"]\n");
    let people = written.people();
    let before = people.version().await.unwrap();
    written.write("# alice\n[people.alice]\nscopes = [\"ssh\"]\n");
    assert_eq!(people.version().await.unwrap(), before);
    written.write("[people.alice]\nscopes = [\"git\"]\n");
    let moved = async {
        while people.version().await.unwrap() == before {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), moved).await.unwrap();
}

#[tokio::test]
async fn a_token_is_found_by_the_key_that_is_derived_from_it() {
    let token = Secret::new("alk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    let (hash, key) = (hex::encode(token.hash()), token_identity(&token).unwrap().id());
    let entry = |hash: &str| {
        format!(
            "[people.alice]\nscopes = [\"ssh\"]\ntokens = [{{ name = \"ci\", sha256 = \"{hash}\", key = \"{key}\" }}]\n"
        )
    };
    let written = Written::new(&entry(&hash));
    let people = written.people();
    let holder = people.by_token(&token).await.unwrap().unwrap();
    let derived = KeyFingerprint::Ed25519(key);
    assert_eq!(people.by_key(&derived).await.unwrap().as_ref(), Some(&holder));
    assert_eq!((&*holder.id, &*holder.name), ("people.alice", "alice"));
    // Another token of the same name is another one.
    written.write(&entry(&"ab".repeat(32)));
    assert_eq!(people.by_credential(&holder.credential).await.unwrap(), None);
}

/// People in a file, with a store that keeps the tickets.
struct InFile {
    written: Written,
    store: Fixture,
    chain: ChainProvider,
    secrets: HashMap<String, Secret>,
}

async fn in_file() -> InFile {
    let written = Written::new("");
    let store = fixture().await;
    let people = Arc::new(written.people());
    let chain = ChainProvider::new(vec![Arc::new(store.store.clone()), people]);
    InFile { written, store, chain, secrets: HashMap::new() }
}

impl InFile {
    fn describe(&mut self, person: &Person) -> String {
        let list = |text: &str| format!("{:?}", text.split(',').collect::<Vec<_>>());
        let mut text = format!("[people.{}]\nscopes = {}\n", person.name, list(person.scopes));
        let keys: Vec<_> = person.keys.iter().map(|key| key.0).collect();
        writeln!(text, "keys = {keys:?}").unwrap();
        for (key, principal) in person.authorities {
            let name = person.name;
            writeln!(text, "[[people.{name}.authorities]]").unwrap();
            writeln!(text, "key = {:?}\nprincipals = [{principal:?}]", key.0).unwrap();
        }
        for token in person.tokens {
            let fresh = || crate::store::fresh_token().unwrap();
            let secret = self.secrets.entry(token.name.into()).or_insert_with(fresh);
            let hash = hex::encode(secret.hash());
            writeln!(text, "[[people.{}.tokens]]\nname = {:?}", person.name, token.name).unwrap();
            writeln!(text, "sha256 = {hash:?}").unwrap();
            if let Some(scopes) = token.scopes {
                writeln!(text, "scopes = {}", list(scopes)).unwrap();
            }
            if let Some(ends) = token.ends {
                let now = OffsetDateTime::from(SystemTime::now());
                let end = now + time::Duration::seconds(ends);
                writeln!(text, "expires = {}", end.format(&Rfc3339).unwrap()).unwrap();
            }
        }
        text
    }
}

impl Subject for InFile {
    fn provider(&self) -> &dyn IdentityProvider {
        &self.chain
    }

    async fn know(&mut self, people: &[Person]) {
        let text: String = people.iter().map(|person| self.describe(person)).collect();
        self.written.write(&text);
    }

    fn secret(&self, token: &str) -> Secret {
        self.secrets[token].clone()
    }

    async fn outlive(&mut self, _: &Secret) {
        self.store.age("UPDATE tickets SET expires_at = expires_at - 30").await;
    }

    async fn break_down(&mut self) {
        self.store.store.close().await;
    }
}

alknet_testing::conformance!(in_file().await);
