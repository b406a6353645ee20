//! Repositories are made, changed and removed by those alone who may, and strangers learn
//! nothing.

use std::{path::Path, time::Duration};

use alknet_git::{
    Defaults, EventKind, Events, GitConfig, GitServer, InstalledGit, Keeper, KeeperConfig,
    Repositories, Settings,
};

use super::*;

/// How large a repository may grow, in bytes.
const QUOTA: u64 = 1 << 30;

/// A server of repositories in a folder.
pub(super) fn hosting(folder: &Path, audit: Audit) -> (GitServer, Keeper) {
    let mut defaults = Defaults::default();
    defaults.quota = Some(QUOTA);
    let repositories = Repositories::open_with(folder, defaults).unwrap();
    let git = InstalledGit::named("git");
    let events = Events::default();
    let (all, told, log) = (repositories.clone(), events.clone(), audit.clone());
    let keeper = Keeper::new(KeeperConfig::new(all, git.clone(), told, log));
    let mut config = GitConfig::new(repositories, git, audit);
    config.events = events;
    (GitServer::new(config), keeper)
}

/// What the owner has given a repository, nobody takes more of who administers it for them.
#[tokio::test]
async fn a_quota_is_only_lowered_by_who_administers_some() {
    let rig = Rig::new().await;
    let all = rig.git.repositories();
    for (name, quota) in [("team/a", Some(1000)), ("team/b", None), ("team/c", Some(QUOTA + 7))] {
        let mut settings = Settings::default();
        settings.quota = quota;
        all.create(&name.parse().unwrap(), &settings).unwrap();
    }
    let set = async |who: &AuthContext, name: &str, quota: u64| {
        let wanted = json!({ "name": name, "quota": quota, "description": "set" });
        let set = rig.call(who, "git/configure", wanted).await;
        set.map(|shown| shown["quota"].clone()).map_err(|error| error.code)
    };
    let team = caller("7a", "anna", "git:admin:team/*");
    let refused = Err(ErrorCode::InvalidInput);
    for (name, quota) in [
        ("team/a", 1001),
        // What holds for all of the node is more than this one has.
        ("team/a", 0),
        ("team/b", QUOTA + 1),
        // What the owner has beyond that is not theirs to set again.
        ("team/c", QUOTA + 1),
    ] {
        assert_eq!(set(&team, name, quota).await, refused, "{name} {quota}");
        let found = all.find(&name.parse().unwrap()).unwrap();
        assert_eq!(found.settings.description, "", "nothing of it was done");
    }
    assert_eq!(set(&team, "team/b", 0).await, Ok(QUOTA.into()));
    for quota in [1000, 900] {
        assert_eq!(set(&team, "team/a", quota).await, Ok(quota.into()));
    }
    assert_eq!(set(&team, "team/a", 1000).await, refused);
    for whole in ["git:admin", "git", "*"] {
        let admin = caller("8b", "bob", whole);
        assert_eq!(set(&admin, "team/a", 1000).await, Ok(1000.into()));
        assert_eq!(set(&admin, "team/a", QUOTA + 1).await, refused);
        assert_eq!(set(&admin, "team/a", 900).await, Ok(900.into()));
    }
}

/// What each operation is asked for about a repository.
fn questions(name: &str) -> Vec<(&'static str, Value)> {
    vec![
        ("git/show", json!({ "name": name })),
        ("git/rename", json!({ "name": name, "to": "team/other" })),
        ("git/delete", json!({ "name": name })),
        ("git/configure", json!({ "name": name, "public": true })),
        ("git/gc", json!({ "name": name })),
        ("git/mirror", json!({ "name": name, "url": "https://example.org/a" })),
        ("git/mirror", json!({ "name": name })),
        ("git/mirror", json!({ "name": name, "stop": true })),
    ]
}

#[tokio::test]
async fn a_repository_is_looked_after_by_who_may() {
    let rig = Rig::new().await;
    let mut events = rig.git.events().subscribe();
    let team = caller("7a", "anna", "call:git/*,git:create:team/*,git:admin:team/*");
    let wanted = json!({ "name": "team/a", "description": "A", "default_branch": "trunk" });
    let made = rig.call(&team, "git/create", wanted.clone()).await.unwrap();
    assert_eq!((&made["default_branch"], &made["public"]), (&"trunk".into(), &false.into()));
    let entry = rig.recorded("git-create");
    assert_eq!(entry.repository.as_deref(), Some("team/a"));
    assert_eq!(entry.identity.as_deref(), Some("7a"));
    let event = events.next().await.unwrap().unwrap();
    assert_eq!((event.event, event.by.as_deref()), (EventKind::Created, Some("anna")));
    let again = rig.call(&team, "git/create", wanted).await.unwrap_err();
    assert_eq!(again.code.as_str(), "TAKEN");
    let set = json!({ "name": "team/a", "protect": ["main"], "quota": 7, "public": true });
    let set = rig.call(&team, "git/configure", set).await.unwrap();
    assert_eq!((&set["protected"], &set["quota"]), (&json!(["refs/heads/main"]), &7.into()));
    assert_eq!(rig.recorded("git-configure").reason.unwrap(), "public, protect main, quota 7");
    let moved = json!({ "name": "team/a", "to": "team/deep/b" });
    assert_eq!(rig.call(&team, "git/rename", moved).await.unwrap()["name"], "team/deep/b");
    let shown = rig.call(&team, "git/show", json!({ "name": "team/deep/b" })).await.unwrap();
    assert_eq!(shown["description"], "A");
    rig.call(&team, "git/delete", json!({ "name": "team/deep/b" })).await.unwrap();
    assert_eq!(rig.recorded("git-delete").repository.as_deref(), Some("team/deep/b"));
    for kind in [EventKind::Settings, EventKind::Renamed, EventKind::Deleted] {
        assert_eq!(events.next().await.unwrap().unwrap().event, kind);
    }
}

#[tokio::test]
async fn a_stranger_cannot_tell_what_there_is() {
    let rig = Rig::new().await;
    rig.call(&with("*"), "git/create", json!({ "name": "team/a" })).await.unwrap();
    tokio::time::pause();
    let timed = async |who: &str, operation, input| {
        let begun = tokio::time::Instant::now();
        let refused = rig.call(&with(who), operation, input).await.unwrap_err();
        (refused, begun.elapsed())
    };
    for who in ["call:git/*", "call:git/*,git:read:other", "call:git/*,git:admin:other"] {
        for (there, missing) in questions("team/a").into_iter().zip(questions("team/b")) {
            let (answer, time) = timed(who, there.0, there.1).await;
            let (other, _) = timed(who, missing.0, missing.1).await;
            assert_eq!(answer, other, "{} for {who}", there.0);
            assert_eq!(answer.code.as_str(), "NO_SUCH_REPOSITORY", "{} for {who}", there.0);
            // Of a clock that moves only when nothing is done.
            assert!(time >= Duration::from_millis(20), "{} for {who}: {time:?}", there.0);
        }
        // Whoever may not make it is not told whether it is there.
        let create = |name: &str| json!({ "name": name });
        let there = rig.call(&with(who), "git/create", create("team/a")).await.unwrap_err();
        let missing = rig.call(&with(who), "git/create", create("team/b")).await.unwrap_err();
        assert_eq!(there.code, ErrorCode::Forbidden);
        assert_eq!(there.message.replace("team/a", "team/b"), missing.message);
    }
    assert!(rig.log.0.lock().unwrap().iter().all(|entry| entry.event != "git-delete"));
}

/// A node that cannot say what a repository is does not say either that it is there.
#[tokio::test]
async fn a_damaged_one_is_not_told_from_none() {
    let rig = Rig::new().await;
    rig.call(&with("*"), "git/create", json!({ "name": "team/a" })).await.unwrap();
    let path = rig.git.repositories().find(&"team/a".parse().unwrap()).unwrap().path;
    std::fs::write(path.join("alknet.toml"), "public = ").unwrap();
    for who in ["call:git/*", "call:git/*,git:admin:other"] {
        for (there, missing) in questions("team/a").into_iter().zip(questions("team/b")) {
            let answer = rig.call(&with(who), there.0, there.1).await.unwrap_err();
            let other = rig.call(&with(who), missing.0, missing.1).await.unwrap_err();
            assert_eq!(answer, other, "{} for {who}", there.0);
        }
    }
}

#[tokio::test]
async fn who_reads_or_pushes_does_not_administer() {
    let rig = Rig::new().await;
    let owner = with("*");
    rig.call(&owner, "git/create", json!({ "name": "team/a" })).await.unwrap();
    for who in ["call:git/*,git:read:team/a", "call:git/*,git:write:team/a"] {
        for (operation, input) in questions("team/a") {
            let refused = rig.call(&with(who), operation, input).await.unwrap_err();
            assert_eq!(refused.code, ErrorCode::Forbidden, "{operation} for {who}");
        }
    }
    // A public one is no secret, and still not anybody's to change.
    let public = json!({ "name": "team/a", "public": true });
    rig.call(&owner, "git/configure", public).await.unwrap();
    let refused = rig.call(&with("call:git/*"), "git/delete", json!({ "name": "team/a" })).await;
    assert_eq!(refused.unwrap_err().code, ErrorCode::Forbidden);
    // Nobody moves one to where they may make none, nor makes a public one that they could not
    // make public.
    let admin = with("call:git/*,git:admin:team/*,git:create:other");
    for to in ["else", "team/b", "other"] {
        let moved = json!({ "name": "team/a", "to": to });
        let refused = rig.call(&admin, "git/rename", moved).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::Forbidden, "{to}");
    }
    let public = json!({ "name": "other", "public": true });
    assert_eq!(
        rig.call(&admin, "git/create", public).await.unwrap_err().code,
        ErrorCode::Forbidden
    );
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_before_anything_is_done() {
    let rig = Rig::new().await;
    let owner = with("*");
    rig.call(&owner, "git/create", json!({ "name": "a" })).await.unwrap();
    for (operation, input) in [
        ("git/create", json!({ "name": "../x" })),
        ("git/create", json!({ "name": "-x" })),
        ("git/create", json!({ "name": "b", "default_branch": "--x" })),
        ("git/create", json!({ "name": "b", "description": "one\ntwo" })),
        ("git/configure", json!({ "name": "a", "protect": ["x..y"] })),
        ("git/configure", json!({ "name": "a", "quota": QUOTA + 1 })),
        ("git/configure", json!({ "name": "a", "default_branch": "x", "description": "1\n2" })),
        ("git/configure", json!({ "name": "a", "public": true, "default_branch": "--x" })),
        ("git/mirror", json!({ "name": "b", "url": "file:///etc" })),
        ("git/mirror", json!({ "name": "b", "url": "ext::sh -c id" })),
        ("git/mirror", json!({ "name": "b", "url": "https://u:p@example.org/a" })),
        ("git/mirror", json!({ "name": "a" })),
    ] {
        let refused = rig.call(&owner, operation, input.clone()).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::InvalidInput, "{operation} {input}: {refused}");
        assert!(!refused.message.contains("u:p"), "{refused}");
    }
    // Whoever may do everything here still does not read elsewhere as this node.
    let elsewhere = json!({ "name": "b", "url": "alknet://node.example/private" });
    let refused = rig.call(&owner, "git/mirror", elsewhere).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Forbidden, "{refused}");
    let there = rig.git.repositories().names().unwrap();
    assert_eq!(there, ["a".parse().unwrap()]);
    let same = rig.call(&owner, "git/show", json!({ "name": "a" })).await.unwrap();
    assert_eq!((&same["default_branch"], &same["public"]), (&"main".into(), &false.into()));
    let mut events = rig.git.events().subscribe();
    let local = json!({ "name": "b", "url": "https://127.0.0.1:1/a", "every": "6h" });
    assert_eq!(rig.call(&owner, "git/mirror", local).await.unwrap()["mirror"]["every"], 21600);
    assert_eq!(events.next().await.unwrap().unwrap().event, EventKind::Created);
    let entries = rig.log.0.lock().unwrap().clone();
    let made: Vec<_> = entries
        .iter()
        .filter(|entry| entry.repository.as_deref() == Some("b") && entry.reason.is_some())
        .map(|entry| (entry.event, entry.reason.as_deref().unwrap()))
        .collect();
    assert_eq!(made, [("git-create", "a mirror of https://127.0.0.1:1/a")]);
    let refused = rig.call(&owner, "git/mirror", json!({ "name": "b" })).await.unwrap_err();
    assert_eq!(refused.code.as_str(), "NOT_FETCHED");
    let shown = rig.call(&owner, "git/show", json!({ "name": "b" })).await.unwrap();
    assert!(shown["mirror"]["last_error"].as_str().unwrap().contains("fetches nothing"));
}
