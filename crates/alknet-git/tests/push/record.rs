//! The audit log and the events.

use alknet_core::AuditEvent;
use alknet_git::EventKind;

use crate::rig::{Rig, url};

#[tokio::test]
async fn a_push_is_recorded_and_told() {
    let mut rig = Rig::new();
    let scopes = ["git:create:new", "git:write:new:refs/heads/main", "git:write:new:refs/heads/x"];
    let anna = rig.port("anna", &scopes).await;
    let mut events = rig.server.events().subscribe();
    let (to, work) = (url(anna, "new"), rig.work("anna").await);
    work.fails(&["push", &to, "main", "main:x", "main:other"]).await;
    let head = work.git(&["rev-parse", "main"]).await;

    let made = events.next().await.unwrap().unwrap();
    assert_eq!((made.event, made.repository.as_str()), (EventKind::Created, "new"));
    let pushed = events.next().await.unwrap().unwrap();
    assert_eq!((pushed.event, pushed.by.as_deref()), (EventKind::Push, Some("anna")));
    let lines: Vec<_> = pushed.changes.iter().map(alknet_git::RefChange::to_line).collect();
    let zeros = "0".repeat(40);
    let line = |name: &str| format!("{zeros} {head} refs/heads/{name}");
    assert_eq!(lines, [line("main"), line("x")]);

    let entries = rig.log.all("git-push");
    let [entry] = entries.as_slice() else { panic!("{entries:?}") };
    assert_eq!(entry.repository.as_deref(), Some("new"));
    assert_eq!(entry.identity.as_deref(), Some("id-anna"));
    let changes: Vec<_> =
        entry.changes.iter().map(|it| (it.name.as_str(), it.refused.is_some())).collect();
    let expected =
        [("refs/heads/main", false), ("refs/heads/x", false), ("refs/heads/other", true)];
    assert_eq!(changes, expected);
    assert_eq!((entry.changes[0].new.as_str(), entry.changes[0].old.as_str()), (&*head, &*zeros));
    assert_eq!(rig.log.all("git-create").len(), 1);
}

#[tokio::test]
async fn a_fetch_and_what_is_refused_are_recorded() {
    let mut rig = Rig::new();
    rig.make("notes", |_| ());
    let anna = rig.port("anna", &["git"]).await;
    let work = rig.work("anna").await;
    work.git(&["push", &url(anna, "notes"), "main"]).await;
    work.git(&["clone", "-q", &url(anna, "notes"), "copy"]).await;
    let fetches = rig.log.wait("git-fetch").await;
    let [fetch] = fetches.as_slice() else { panic!("{fetches:?}") };
    assert_eq!(fetch.service, Some("git-upload-pack"));
    assert!(fetch.bytes_read.unwrap() > 200 && fetch.reason.is_none());

    let refused = |rig: &Rig| rig.log.all(AuditEvent::REFUSED);
    assert!(refused(&rig).is_empty());
    let bert = rig.port("bert", &["git:read:notes"]).await;
    work.fails(&["push", &url(bert, "notes"), "main"]).await;
    work.fails(&["ls-remote", &url(bert, "other")]).await;
    let entries = refused(&rig);
    let reasons: Vec<_> = entries.iter().map(|it| it.reason.clone().unwrap()).collect();
    assert!(reasons[0].starts_with("git-receive-pack: you may not push"), "{reasons:?}");
    assert!(reasons[1].starts_with("git-upload-pack: there is no"), "{reasons:?}");
    assert!(entries.iter().all(|it| it.identity.as_deref() == Some("id-bert")));

    let carl = rig.port("carl", &["git:write:notes:refs/heads/x"]).await;
    work.commit("more").await;
    work.fails(&["push", &url(carl, "notes"), "main"]).await;
    let entries = refused(&rig);
    let last = entries.last().unwrap();
    assert_eq!(last.reason.as_deref(), Some("git-push: no ref was changed"));
    assert_eq!(last.changes[0].refused.as_deref(), Some("you may not push to this ref"));
}
