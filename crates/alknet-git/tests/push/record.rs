//! The audit log and the events.

use alknet_core::AuditEvent;
use alknet_git::{EventKind, Request, Service};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::rig::{Rig, connect, noise, url};

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

#[tokio::test]
async fn what_git_itself_refuses_and_what_is_cut_off_is_recorded() {
    let mut rig = Rig::new();
    rig.make("notes", |it| it.quota = Some(100_000));
    let anna = rig.port("anna", &["git"]).await;
    let work = rig.work("anna").await;
    std::fs::write(work.path().join("large"), noise(1, 200_000)).unwrap();
    let head = work.commit("large").await;
    let refused = work.fails(&["push", &url(anna, "notes"), "main"]).await;
    assert!(refused.contains("quota"), "{refused}");
    let entries = rig.log.wait_for(AuditEvent::REFUSED, 1).await;
    let change = &entries[0].changes[0];
    assert_eq!((change.name.as_str(), &change.new), ("refs/heads/main", &head));
    let why = change.refused.as_deref().unwrap();
    assert!(why.contains("pack exceeds maximum allowed size"), "{why}");
    assert_eq!(entries[0].identity.as_deref(), Some("id-anna"));

    // Without a side-band, and without an end.
    let command = format!("{} {head} refs/heads/x\0report-status", "0".repeat(40));
    for (nth, (sent, expected)) in [
        ("PACK\0\0\0\x02\0\0\0\x01xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "fatal: "),
        ("PACK", "the client went away"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut stream = connect(anna).await;
        let request = Request::new(Service::ReceivePack, "notes".parse().unwrap()).version(0);
        stream.write_all(&request.to_line("x")).await.unwrap();
        stream.read_u8().await.unwrap();
        let sent = format!("{:04x}{command}0000{sent}", command.len() + 4);
        stream.write_all(sent.as_bytes()).await.unwrap();
        if nth == 0 {
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
        // Closed with what there is to read, which is a reset.
        drop(stream);
        let entries = rig.log.wait_for(AuditEvent::REFUSED, 2 + nth).await;
        let change = &entries[1 + nth].changes[0];
        assert_eq!(change.name, "refs/heads/x");
        let why = change.refused.as_deref().unwrap();
        assert!(why.contains(expected), "{why}");
    }
}

#[tokio::test]
async fn a_repository_that_a_push_has_made_begins_with_what_was_pushed() {
    let mut rig = Rig::new();
    let anna = rig.port("anna", &["git"]).await;
    let work = rig.work("anna").await;
    for (name, refs, head) in [
        ("other", ["main:master", "main:beta"], "master"),
        ("both", ["main:master", "main:main"], "main"),
        ("neither", ["main:b", "main:a"], "a"),
        ("none", ["main:refs/tags/a", "main:refs/tags/b"], "main"),
    ] {
        work.git(&[&["push", &url(anna, name)], &refs[..]].concat()).await;
        let found = rig.server.repositories().get(&name.parse().unwrap()).unwrap().unwrap();
        let overview = rig.server.repositories().overview(&found).unwrap();
        assert_eq!(overview.default_branch.as_deref(), Some(head), "{name}");
    }
    work.git(&["clone", "-q", &url(anna, "other"), "copy"]).await;
    assert!(work.path().join("copy/file").exists());
    // Nobody else's is changed.
    rig.make("made", |_| ());
    work.git(&["push", &url(anna, "made"), "main:master"]).await;
    let head = std::fs::read_to_string(rig.path().join("repos/made.git/HEAD")).unwrap();
    assert_eq!(head, "ref: refs/heads/main\n");
}
