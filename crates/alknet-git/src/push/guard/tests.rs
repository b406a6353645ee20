use std::sync::Mutex;

use alknet_core::{
    Alpn, Audit, AuditEvent, AuditSink, AuthContext, Credential, Identity, KeyFingerprint, Scopes,
    TransportKind,
};

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
    Guard {
        repository: repositories.create(&name, &Settings::default()).unwrap(),
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
