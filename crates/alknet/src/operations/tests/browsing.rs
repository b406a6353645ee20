//! Repositories are looked into by whoever may read them, and nobody else learns that they are
//! there.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use alknet_call::{CallOptions, Driver, Operation, Peer};
use alknet_core::Refusal;
use alknet_git::{Event, EventKind, RefChange, Settings};
use alknet_testing::memory;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::*;

/// A repository with two commits; gives the id of the latest.
fn publish(rig: &Rig, name: &str, settings: &Settings) -> String {
    let repository = rig.git.repositories().create(&name.parse().unwrap(), settings).unwrap();
    let work = tempfile::tempdir().unwrap();
    run(work.path(), &["init", "--quiet", "--initial-branch=main"]);
    for content in ["one\n", "one\ntwo\n"] {
        std::fs::write(work.path().join("notes.txt"), content).unwrap();
        std::fs::write(work.path().join("binary"), b"a\0b").unwrap();
        run(work.path(), &["add", "--all"]);
        run(work.path(), &["commit", "--quiet", "--message", content.trim()]);
    }
    run(work.path(), &["push", "--quiet", repository.path.to_str().unwrap(), "main"]);
    run(work.path(), &["rev-parse", "HEAD"]).trim().to_owned()
}

fn run(at: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(at)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", at)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .envs([("GIT_AUTHOR_NAME", "Ada"), ("GIT_AUTHOR_EMAIL", "ada@example.org")])
        .envs([("GIT_COMMITTER_NAME", "Ada"), ("GIT_COMMITTER_EMAIL", "ada@example.org")])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What each operation is asked for about a repository.
fn questions(name: &str) -> Vec<(&'static str, Value)> {
    vec![
        ("git/refs", json!({ "repository": name })),
        ("git/log", json!({ "repository": name })),
        ("git/tree", json!({ "repository": name })),
        ("git/blob", json!({ "repository": name, "path": "notes.txt" })),
        ("git/diff", json!({ "repository": name, "to": "HEAD" })),
    ]
}

/// What is asked of those that give items.
fn subscriptions(name: &str) -> [(&'static str, Value); 2] {
    [
        ("git/archive", json!({ "repository": name, "format": "tar" })),
        ("git/events", json!({ "repository": name })),
    ]
}

#[tokio::test]
async fn a_repository_is_looked_into() {
    let rig = Rig::new().await;
    let id = publish(&rig, "team/notes", &Settings::default());
    let who = with("git:read:team/notes");
    let ask = async |operation: &str, input: Value| rig.call(&who, operation, input).await.unwrap();
    let listed = ask("git/repos", Value::Null).await["repositories"][0].clone();
    assert_eq!((&listed["name"], &listed["empty"]), (&json!("team/notes"), &json!(false)));
    assert_eq!(listed["rights"], json!({ "push": false, "admin": false }));
    for (prefix, count) in [("team/", 1), ("team/notes", 1), ("team/notes-", 0)] {
        let found = ask("git/repos", json!({ "prefix": prefix })).await;
        assert_eq!(found["repositories"].as_array().unwrap().len(), count, "{prefix}");
    }
    let named = |more: Value| {
        let mut input = json!({ "repository": "team/notes" });
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        input
    };
    let refs = ask("git/refs", named(json!({}))).await;
    assert_eq!(refs["head"], json!({ "branch": "main", "id": id }));
    assert_eq!(refs["branches"], json!([{ "name": "main", "id": id, "protected": false }]));
    let log = ask("git/log", named(json!({ "rev": "main", "limit": 1 }))).await;
    assert_eq!(
        (&log["rev"], &log["more"], &log["truncated"]),
        (&json!(id), &json!(true), &json!(false))
    );
    assert_eq!(log["commits"][0]["message"], "one\ntwo\n");
    assert_eq!(log["commits"][0]["author"]["email"], "ada@example.org");
    let tree = ask("git/tree", named(json!({ "rev": id }))).await;
    assert_eq!(tree["entries"][1]["name"], "notes.txt");
    assert_eq!(
        (&tree["entries"][1]["kind"], &tree["entries"][1]["size"]),
        (&json!("blob"), &json!(8))
    );
    let blob =
        ask("git/blob", named(json!({ "path": "notes.txt", "offset": 4, "limit": 2 }))).await;
    assert_eq!(
        (&blob["text"], &blob["length"], &blob["truncated"]),
        (&json!("tw"), &json!(2), &json!(true))
    );
    let binary = ask("git/blob", named(json!({ "path": "binary" }))).await;
    assert_eq!(
        (&binary["base64"], &binary["binary"]),
        (&json!(STANDARD.encode(b"a\0b")), &json!(true))
    );
    let diff = ask("git/diff", named(json!({ "to": "main" }))).await;
    assert_eq!(diff["files"][0]["status"], "modified");
    assert_eq!(diff["files"][0]["hunks"][0]["lines"], json!([" one", "+two"]));
}

#[tokio::test]
async fn what_cannot_be_shown_is_a_declared_error() {
    let rig = Rig::new().await;
    publish(&rig, "notes", &Settings::default());
    for (operation, input, code) in [
        ("git/log", json!({ "rev": "none" }), "NO_SUCH_REVISION"),
        ("git/log", json!({ "rev": "--all" }), "INVALID_INPUT"),
        ("git/log", json!({ "rev": ":/one" }), "INVALID_INPUT"),
        ("git/log", json!({ "path": "../x" }), "INVALID_INPUT"),
        ("git/log", json!({ "limit": 1001 }), "INVALID_INPUT"),
        ("git/tree", json!({ "path": "none" }), "NO_SUCH_PATH"),
        ("git/tree", json!({ "path": "binary" }), "NOT_A_FOLDER"),
        ("git/blob", json!({ "path": "" }), "NOT_A_FILE"),
        ("git/diff", json!({ "to": "HEAD~9" }), "NO_SUCH_REVISION"),
    ] {
        let mut input = input;
        input["repository"] = "notes".into();
        let error = rig.call(&with("git"), operation, input).await.unwrap_err();
        assert_eq!(error.code.as_str(), code, "{operation}: {error}");
    }
    for odd in ["../notes", "/notes", "NOTES", "", "notes.git", "-x"] {
        let error = rig.call(&with("git"), "git/log", json!({ "repository": odd })).await;
        assert_eq!(error.unwrap_err().code, ErrorCode::InvalidInput, "{odd}");
    }
}

#[tokio::test]
async fn what_nobody_may_see_answers_like_what_is_not_there() {
    let rig = Rig::new().await;
    publish(&rig, "team/notes", &Settings::default());
    let named = |error: CallError| {
        (error.code, error.message.replace("team/notes", "team/none"), error.details)
    };
    for who in ["git:read:other", "git:create", "call:git/*", "call"] {
        for (there, missing) in questions("team/notes").into_iter().zip(questions("team/none")) {
            let answer = rig.call(&with(who), there.0, there.1).await.unwrap_err();
            let other = rig.call(&with(who), missing.0, missing.1).await.unwrap_err();
            assert_eq!(answer.code.as_str(), "NO_SUCH_REPOSITORY", "{} for {who}", there.0);
            assert_eq!(named(answer), named(other), "{} for {who}", there.0);
        }
        for (there, missing) in
            subscriptions("team/notes").into_iter().zip(subscriptions("team/none"))
        {
            let first = async |(name, input): (&str, Value)| {
                rig.start(&with(who), name, input).unwrap().next().await.unwrap().map(|_| ())
            };
            let name = there.0;
            let (answer, other) =
                (first(there).await.unwrap_err(), first(missing).await.unwrap_err());
            assert_eq!(answer.code.as_str(), "NO_SUCH_REPOSITORY", "{name} for {who}");
            assert_eq!(named(answer), named(other), "{name} for {who}");
        }
        let list = rig.call(&with(who), "git/repos", Value::Null).await.unwrap();
        assert_eq!(list["repositories"], json!([]));
    }
    let refused = rig.recorded("refused");
    assert_eq!((refused.service, refused.identity.as_deref()), (Some("browse"), Some("0a0b0c")));
}

/// A node as somebody reaches it over a connection.
fn connected(rig: &Rig, scopes: &str) -> Result<(Peer, JoinSet<()>), Refusal> {
    let (near, far) = memory::pair();
    drop(rig.dispatcher.admit(with(scopes))?.start(far));
    let nothing = OperationRegistry::new(Audit::to_log(), Vec::<Operation>::new()).unwrap();
    let limits = CallLimits::default();
    let (peer, driver): (Peer, Driver) =
        Peer::new(near, nothing, with(scopes), limits, CancellationToken::new());
    let mut tasks = JoinSet::new();
    tasks.spawn(driver.run());
    Ok((peer, tasks))
}

#[tokio::test]
async fn a_grant_to_read_one_repository_is_enough() {
    let rig = Rig::new().await;
    publish(&rig, "notes", &Settings::default());
    publish(&rig, "other", &Settings::default());
    assert_eq!(connected(&rig, "ssh").err(), Some(Refusal::OutOfScope));
    let (peer, _tasks) = connected(&rig, "git:read:notes").unwrap();
    let list: Value = peer.call("git/repos", &json!({})).await.unwrap();
    assert_eq!(list["repositories"].as_array().unwrap().len(), 1);
    let log: Value = peer.call("git/log", &json!({ "repository": "notes" })).await.unwrap();
    assert_eq!(log["commits"].as_array().unwrap().len(), 2);
    let error = peer.call::<_, Value>("git/log", &json!({ "repository": "other" })).await;
    assert_eq!(error.unwrap_err().code.as_str(), "NO_SUCH_REPOSITORY");
    let options = CallOptions::default();
    let format = json!({ "repository": "notes", "format": "zip" });
    let pieces = peer.subscribe::<_, Value>("git/archive", &format, options).await.unwrap();
    let pieces: Vec<_> = pieces.map(Result::unwrap).collect().await;
    assert!(pieces[0]["name"].as_str().unwrap().ends_with(".zip"));
    // And nothing but repositories.
    for operation in ["node/status", "peers/list", "tokens/create", "exec/run", "audit/tail"] {
        let error = peer.call::<_, Value>(operation, &json!({})).await.unwrap_err();
        assert_eq!(error, CallError::not_found(), "{operation}");
    }
    let all: Value = peer.call("services/list", &json!({})).await.unwrap();
    let names = all["operations"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap());
    assert!(names.clone().any(|name| name == "git/log"));
    assert!(
        names.into_iter().all(|name| name.starts_with("git/") || name.starts_with("services/"))
    );
    let create = peer.call::<_, Value>("git/create", &json!({ "name": "mine" })).await;
    assert_eq!(create.unwrap_err().code, ErrorCode::Forbidden);
}

#[tokio::test]
async fn an_archive_comes_in_pieces_and_is_recorded() {
    let rig = Rig::new().await;
    let id = publish(&rig, "notes", &Settings::default());
    let input = json!({ "repository": "notes", "format": "tar.gz", "prefix": "notes-1/" });
    let mut pieces = rig.start(&with("git"), "git/archive", input).unwrap();
    let (mut name, mut bytes) = (None, Vec::new());
    while let Some(piece) = pieces.next().await {
        let piece: Value = serde_json::from_str(piece.unwrap().output.get()).unwrap();
        name = name.or_else(|| piece["name"].as_str().map(str::to_owned));
        bytes.extend(STANDARD.decode(piece["base64"].as_str().unwrap()).unwrap());
    }
    assert_eq!(name.unwrap(), format!("notes-{}.tar.gz", &id[..10]));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.tar.gz"), &bytes).unwrap();
    let tar = ["-C", folder.path().to_str().unwrap(), "-xzf", "a.tar.gz"];
    assert!(Command::new("tar").current_dir(&folder).args(tar).status().unwrap().success());
    let notes = std::fs::read_to_string(folder.path().join("notes-1/notes.txt")).unwrap();
    assert_eq!(notes, "one\ntwo\n");
    let entry = rig.recorded("git-archive");
    assert_eq!(
        (entry.repository.as_deref(), entry.bytes_read),
        (Some("notes"), Some(bytes.len() as u64))
    );
    assert_eq!(entry.reason, None);
    for prefix in ["../x", "/x", "a/../../b", "-x"] {
        let input = json!({ "repository": "notes", "format": "tar", "prefix": prefix });
        let first = rig.start(&with("git"), "git/archive", input).unwrap().next().await;
        assert_eq!(first.unwrap().unwrap_err().code, ErrorCode::InvalidInput, "{prefix}");
    }
}

#[tokio::test]
async fn events_are_told_to_whoever_may_read_at_that_moment() {
    let rig = Rig::new().await;
    let repositories = rig.git.repositories().clone();
    let mut open = Settings::default();
    open.public = true;
    repositories.create(&"open".parse().unwrap(), &open).unwrap();
    repositories.create(&"closed".parse().unwrap(), &Settings::default()).unwrap();
    let listen =
        |scopes: &str, input: Value| rig.start(&with(scopes), "git/events", input).unwrap();
    let mut reader = listen("git:read:closed", json!({}));
    let mut stranger = listen("git:read:none", json!({}));
    let mut only = listen("git", json!({ "repository": "open" }));
    // They listen once they have been asked for the first time.
    for listener in [&mut reader, &mut stranger, &mut only] {
        assert!(listener.next().now_or_never().is_none());
    }
    while rig.git.events().listeners() < 3 {
        assert!(only.next().now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    let anna = caller("7a", "anna", "git");
    let by = anna.identity.as_deref();
    let send = |kind: EventKind, name: &str| {
        let zeros = "0".repeat(40);
        let line = format!("{zeros} {} refs/heads/main", "1".repeat(40));
        let change = RefChange::from_line(&line).unwrap();
        rig.git.events().send(Event::new(kind, &name.parse().unwrap(), by).with_changes(&[change]));
    };
    send(EventKind::Push, "closed");
    send(EventKind::Push, "open");
    send(EventKind::Settings, "none");
    let told = async |listener: &mut Execution| -> Value {
        serde_json::from_str(listener.next().await.unwrap().unwrap().output.get()).unwrap()
    };
    let first = told(&mut reader).await;
    assert_eq!(
        (&first["repository"], &first["event"], &first["by"]),
        (&json!("closed"), &json!("push"), &json!("anna"))
    );
    assert_eq!(
        first["changes"],
        json!([{ "reference": "refs/heads/main", "old": null, "new": "1".repeat(40) }])
    );
    // Who sees it only as it is public is not told who the node's people are, nor what was
    // there before.
    let second = told(&mut reader).await;
    assert_eq!((&second["repository"], second.get("by")), (&json!("open"), None));
    let made = json!([{ "reference": "refs/heads/main", "new": "1".repeat(40) }]);
    assert_eq!(second["changes"], made);
    assert_eq!(told(&mut stranger).await["repository"], "open");
    assert_eq!(told(&mut stranger).await["repository"], "none");
    assert_eq!(told(&mut only).await["repository"], "open");
    // It is public no longer.
    let path = repositories.find(&"open".parse().unwrap()).unwrap().path;
    std::fs::write(path.join("alknet.toml"), "public = false\n").unwrap();
    send(EventKind::Push, "open");
    send(EventKind::Settings, "none");
    assert_eq!(told(&mut stranger).await["event"], "settings");
    assert_eq!(told(&mut only).await["repository"], "open");
}

#[tokio::test]
async fn who_listens_too_slowly_is_told_that_something_was_missed() {
    let rig = Rig::new().await;
    let mut slow = rig.start(&with("git"), "git/events", json!({})).unwrap();
    assert!(slow.next().now_or_never().is_none());
    while rig.git.events().listeners() < 1 {
        tokio::task::yield_now().await;
    }
    for _ in 0..5000 {
        rig.git.events().send(Event::new(EventKind::Push, &"a".parse().unwrap(), None));
    }
    let mut kinds = Vec::new();
    while kinds.last() != Some(&json!("missed")) && kinds.len() < 5000 {
        let item = slow.next().await.unwrap().unwrap();
        let item: Value = serde_json::from_str(item.output.get()).unwrap();
        kinds.push(item["event"].clone());
    }
    assert!(kinds.len() < 5000, "{}", kinds.len());
}
