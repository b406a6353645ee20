use std::{sync::Mutex, time::SystemTime};

use alknet_core::{
    Alpn, Audit, AuditEvent, AuditSink, AuthContext, Credential, Identity, KeyFingerprint, Scopes,
    TransportKind,
};
use alknet_testing::identities::Identities;

use super::*;
use crate::{events::Events, repositories::Repositories};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<AuditEvent>>>);

impl AuditSink for Log {
    fn record(&self, event: AuditEvent) {
        self.0.lock().unwrap().push(event);
    }
}

/// The guard of somebody who may do everything, in an empty repository.
fn guard(repositories: &Repositories, log: &Log) -> Guard {
    let credential = Credential::Key(KeyFingerprint::of_openssh_blob(b"anna"));
    let anna = Identity::new("id-anna", "anna", Scopes::from_iter(["git"]), credential);
    let alpn = Alpn::service("git").unwrap();
    let auth = AuthContext {
        identity: Some(Arc::new(anna)),
        ..AuthContext::anonymous(alpn, TransportKind::Memory, None)
    };
    let name = "notes".parse().unwrap();
    let repository = repositories.create(&name, &Settings::default()).unwrap();
    Guard {
        repositories: repositories.clone(),
        folder: crate::push::file_of(&repository.path).unwrap(),
        repository,
        identities: None,
        caller: Caller::of(auth),
        news: None,
        hooks: None,
        largest: u64::MAX,
        record: Arc::new(Record::new(Audit::new(log.clone()), Events::default())),
        progress: Mutex::default(),
    }
}

fn change(reference: &str, new: char) -> RefChange {
    let (old, new) = ("0".repeat(40), new.to_string().repeat(40));
    RefChange::from_line(&format!("{old} {new} {reference}")).unwrap()
}

#[tokio::test]
async fn what_a_killed_git_has_changed_is_recorded() {
    let (folder, log) = (tempfile::tempdir().unwrap(), Log::default());
    let repositories = Repositories::open(folder.path()).unwrap();
    let guard = guard(&repositories, &log);
    let (say, _said) = Say::channel();
    let (one, two) = (change("refs/heads/one", '1'), change("refs/heads/two", '2'));
    let push = Push::new(vec![one.clone(), two]);
    assert!(guard.check(push, &say).await.is_empty());
    let reference = guard.repository.path.join(&one.reference);
    std::fs::write(reference, format!("{}\n", one.new)).unwrap();
    guard.finish();
    guard.finish();
    let log = log.0.lock().unwrap();
    let [entry] = log.as_slice() else { panic!("{log:?}") };
    assert_eq!(entry.event, "git-push");
    let refused: Vec<_> = entry.changes.iter().map(|it| it.refused.as_deref()).collect();
    assert_eq!(refused, [None, Some(NOT_DONE)]);
}

#[tokio::test]
async fn nothing_is_changed_that_was_not_checked() {
    let (folder, log) = (tempfile::tempdir().unwrap(), Log::default());
    let repositories = Repositories::open(folder.path()).unwrap();
    let guard = guard(&repositories, &log);
    let (say, _said) = Say::channel();
    let checked = change("refs/heads/x", '1');
    assert!(guard.check(Push::new(vec![checked.clone()]), &say).await.is_empty());
    let others = [change("refs/heads/y", '1'), change("refs/heads/x", '2')];
    for other in others {
        let refused = guard.update(vec![checked.clone(), other.clone()], &say).await;
        assert_eq!(refused.keys().collect::<Vec<_>>(), [&other.reference]);
    }
}

#[tokio::test]
async fn what_is_the_node_s_own_is_refused_by_the_node_too() {
    let (folder, log) = (tempfile::tempdir().unwrap(), Log::default());
    let guard = guard(&Repositories::open(folder.path()).unwrap(), &log);
    let (say, _said) = Say::channel();
    let (own, other) = (change("refs/alknet/x", '1'), change("refs/heads/alknet/x", '1'));
    let refused = guard.check(Push::new(vec![own.clone(), other]), &say).await;
    assert_eq!(refused.keys().collect::<Vec<_>>(), [&own.reference]);
}

#[tokio::test]
async fn a_session_does_no_more_than_it_was_for_and_ends_in_time() {
    let (folder, log) = (tempfile::tempdir().unwrap(), Log::default());
    let mut guard = guard(&Repositories::open(folder.path()).unwrap(), &log);
    let (say, _said) = Say::channel();
    let anna = guard.caller.identity.take().unwrap();
    let key = KeyFingerprint::of_openssh_blob(b"anna");
    guard.identities = Some(Arc::new(Identities::new().with_key(key, (*anna).clone())));
    let (one, two) = (change("refs/heads/one", '1'), change("refs/heads/two", '1'));
    let push = Push::new(vec![one.clone(), two.clone()]);
    let mut refused = async |session: Identity| {
        guard.caller.identity = Some(Arc::new(session));
        let refused = guard.check(push.clone(), &say).await;
        refused.into_keys().collect::<Vec<_>>()
    };
    assert_eq!(refused((*anna).clone()).await, [""; 0]);
    let scopes = Scopes::from_iter(["git:write:notes:refs/heads/one"]);
    assert_eq!(refused(Identity { scopes, ..(*anna).clone() }).await, [two.reference.as_str()]);
    let over = Identity { valid_until: Some(SystemTime::now()), ..(*anna).clone() };
    assert_eq!(refused(over).await, [one.reference.as_str(), &two.reference]);
}

#[tokio::test]
async fn what_comes_counts_whatever_it_comes_with_and_nothing_else_does() {
    let (folder, log) = (tempfile::tempdir().unwrap(), Log::default());
    let repositories = Repositories::open(folder.path()).unwrap();
    let guard = guard(&repositories, &log);
    let (say, _said) = Say::channel();
    repositories.configure(&guard.repository.name, |it| it.quota = Some(1)).unwrap();
    let (one, none) = ("1".repeat(40), "0".repeat(40));
    let deletes = RefChange::from_line(&format!("{one} {none} refs/heads/old")).unwrap();
    let creates = change("refs/heads/new", '1');
    let incoming = guard.repository.path.join("objects/incoming-x");
    for (changes, quarantine, refused) in [
        // Whoever has too much can only get rid of some.
        (vec![&deletes], None, vec![]),
        (vec![&creates], None, vec![&creates]),
        (vec![&deletes, &creates], None, vec![&creates]),
        (vec![&deletes], Some(&incoming), vec![&deletes]),
        (vec![&deletes, &creates], Some(&incoming), vec![&creates, &deletes]),
    ] {
        let changes = changes.into_iter().cloned().collect();
        let push = Push { changes, quarantine: quarantine.cloned(), ..Push::default() };
        let found = guard.check(push.clone(), &say).await;
        let names: Vec<_> = refused.iter().map(|it| &it.reference).collect();
        assert_eq!(found.keys().collect::<Vec<_>>(), names, "{push:?}");
        assert!(found.values().all(|why| why.contains("the repository would have")), "{found:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_looked_up_allows_nothing() {
    let (folder, log) = (tempfile::tempdir().unwrap(), Log::default());
    let guard = guard(&Repositories::open(folder.path()).unwrap(), &log);
    let (say, _said) = Say::channel();
    let one = change("refs/heads/one", '1');
    let push = Push::new(vec![one.clone()]);
    assert!(guard.check(push.clone(), &say).await.is_empty());
    assert!(guard.update(vec![one.clone()], &say).await.is_empty());
    std::fs::write(guard.repository.path.join("alknet.toml"), "no settings").unwrap();
    let unsure = Refused::from([(one.reference.clone(), UNSURE.to_owned())]);
    assert_eq!(guard.update(vec![one], &say).await, unsure);
    assert_eq!(guard.check(push, &say).await, unsure);
}
