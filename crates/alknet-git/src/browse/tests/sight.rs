//! Who sees what.

use super::*;

impl Rig {
    /// Whether somebody gets anything out of the repository.
    async fn shows(&self, who: &Caller, name: &RepositoryName) -> Vec<Result<(), String>> {
        let archive = ArchiveQuery::new(Revision::head(), Format::Tar);
        let browser = &self.browser;
        let outcomes = [
            browser.refs(who, name, RefsQuery::default()).await.map(|_| ()),
            browser.log(who, name, LogQuery::default()).await.map(|_| ()),
            browser.tree(who, name, TreeQuery::default()).await.map(|_| ()),
            browser
                .blob(who, name, BlobQuery { path: "a".parse().unwrap(), ..BlobQuery::default() })
                .await
                .map(|_| ()),
            browser.diff(who, name, DiffQuery::default()).await.map(|_| ()),
            browser.archive(who, name, archive).await.map(|_| ()),
        ];
        outcomes.into_iter().map(|it| it.map_err(|error| error.to_string())).collect()
    }

    fn set(&self, settings: &Settings) {
        let text = toml::to_string(settings).unwrap();
        fs::write(self.served.join("alknet.toml"), text).unwrap();
    }
}

fn stranger() -> Caller {
    let alpn = Alpn::service("call").unwrap();
    Caller::of(AuthContext::anonymous(alpn, TransportKind::Memory, None))
}

#[tokio::test]
async fn what_nobody_may_see_is_not_there() {
    let rig = Rig::new();
    rig.save("a", "a");
    rig.push();
    let other: RepositoryName = "team/other".parse().unwrap();
    for who in [
        stranger(),
        caller(""),
        caller("git:read:team"),
        caller("git:read:team/other"),
        caller("git:create"),
        caller("call,ssh"),
    ] {
        for outcome in rig.shows(&who, &rig.name).await {
            let expected = BrowseError::NoRepository(rig.name.clone()).to_string();
            assert_eq!(outcome, Err(expected), "{who:?}");
        }
        for outcome in rig.shows(&who, &other).await {
            let expected = BrowseError::NoRepository(other.clone()).to_string();
            assert_eq!(outcome, Err(expected), "{who:?}");
        }
        assert!(
            rig.browser.list(&who, ListQuery::default()).await.unwrap().repositories.is_empty()
        );
    }
    for scopes in [
        "*",
        "git",
        "git:read",
        "git:read:team/*",
        "git:write:team/notes:refs/heads/x",
        "git:admin:team/notes",
    ] {
        let who = caller(scopes);
        assert!(rig.shows(&who, &rig.name).await.iter().all(Result::is_ok), "{scopes}");
        let listed = &rig.browser.list(&who, ListQuery::default()).await.unwrap().repositories[0];
        assert_eq!(listed.name, "team/notes");
        assert_eq!(listed.rights.push, caller(scopes).rights().push(&rig.name));
        assert_eq!(listed.rights.admin, caller(scopes).rights().admin(&rig.name));
    }
}

/// Where the settings cannot be read, only whoever may read the repository is told.
#[tokio::test]
async fn what_is_broken_is_not_there_for_others() {
    let rig = Rig::new();
    fs::write(rig.served.join("alknet.toml"), "public = maybe").unwrap();
    for who in [stranger(), caller("git:read:team/other"), caller("git:create")] {
        for outcome in rig.shows(&who, &rig.name).await {
            let expected = BrowseError::NoRepository(rig.name.clone()).to_string();
            assert_eq!(outcome, Err(expected), "{who:?}");
        }
        assert!(
            rig.browser.list(&who, ListQuery::default()).await.unwrap().repositories.is_empty()
        );
    }
    let outcome = rig.refs().await;
    assert!(matches!(outcome, Err(BrowseError::Repository(_))), "{outcome:?}");
}

/// Both answers come at the same time, which is later than any of them takes.
#[tokio::test(start_paused = true)]
async fn what_is_not_there_takes_as_long_as_what_nobody_may_see() {
    let rig = Rig::new();
    rig.save("a", "a");
    rig.push();
    for name in [&rig.name, &"team/other".parse().unwrap()] {
        let begun = Instant::now();
        rig.browser.log(&stranger(), name, LogQuery::default()).await.unwrap_err();
        assert_eq!(begun.elapsed(), UNSEEN, "{name}");
    }
}

#[tokio::test]
async fn what_is_public_is_for_all() {
    let rig = Rig::new();
    rig.save("a", "a");
    rig.push();
    let public = Settings { public: true, description: "Notes".into(), ..Settings::default() };
    rig.set(&public);
    for who in [stranger(), caller("ssh")] {
        assert!(rig.shows(&who, &rig.name).await.iter().all(Result::is_ok));
        let listed = &rig.browser.list(&who, ListQuery::default()).await.unwrap().repositories[0];
        assert!(listed.public && listed.description == "Notes" && !listed.rights.push);
    }
    rig.set(&Settings::default());
    assert!(rig.shows(&stranger(), &rig.name).await.iter().all(Result::is_err));
}

/// By the beginning of their names more are found than one answer has, and nobody finds what
/// they may not see.
#[tokio::test]
async fn repositories_are_found_by_how_they_begin() {
    let rig = Rig::new();
    let repositories = Repositories::open(&rig.folder.path().join("repos")).unwrap();
    for name in ["team/notes-old", "team/other", "team/note"] {
        repositories.create(&name.parse().unwrap(), &Settings::default()).unwrap();
    }
    let who = caller("git:read:team/note*");
    let names = async |prefix: &str| {
        let query = ListQuery { prefix: prefix.into(), ..ListQuery::default() };
        let list = rig.browser.list(&who, query).await.unwrap();
        list.repositories.into_iter().map(|it| it.name).collect::<Vec<_>>()
    };
    assert_eq!(names("").await, ["team/note", "team/notes", "team/notes-old"]);
    assert_eq!(names("team/notes").await, ["team/notes", "team/notes-old"]);
    for none in ["team/other", "notes", "../", "/", "team/notes/"] {
        assert!(names(none).await.is_empty(), "{none}");
    }
    // Whoever has had the first goes on behind it, whether it is still there or not.
    for (after, first) in [("team/note", Some("team/notes")), ("team/noz", None)] {
        let query = ListQuery { after: after.into(), ..ListQuery::default() };
        let list = rig.browser.list(&who, query).await.unwrap();
        assert_eq!(list.repositories.first().map(|it| it.name.as_str()), first, "{after}");
    }
}

/// What was renamed or deleted is not looked into by what is remembered of it.
#[tokio::test]
async fn nothing_outlives_its_repository() {
    let rig = Rig::new();
    let first = rig.save("a", "a");
    rig.push();
    rig.log(of(&first)).await.unwrap();
    fs::rename(&rig.served, rig.served.with_file_name("moved.git")).unwrap();
    assert!(matches!(rig.log(of(&first)).await, Err(BrowseError::NoRepository(_))));
    rig.run(rig.folder.path(), &["init", "--quiet", "--bare", rig.served.to_str().unwrap()], b"");
    assert!(matches!(rig.log(of(&first)).await, Err(BrowseError::NoRevision(_))));
}

#[tokio::test]
async fn what_no_ref_reaches_is_gone() {
    let rig = Rig::new();
    let base = rig.save("a", "a");
    let secret = rig.save("password", "hunter2");
    let after = rig.save("more", "x");
    rig.git(&["tag", "--annotate", "--message", "of it", "oops"]);
    rig.push();
    let tag = rig.there(&["rev-parse", "oops"]).trim().to_owned();
    for id in [&base, &secret, &after, &tag] {
        rig.log(of(id)).await.unwrap();
    }
    rig.git(&["reset", "--quiet", "--hard", &base]);
    rig.git(&["push", "--quiet", "origin", ":refs/tags/oops"]);
    rig.git(&["tag", "--delete", "oops"]);
    rig.save("b", "b");
    rig.push();
    rig.there(&["cat-file", "-e", &secret]);
    rig.log(of(&base)).await.unwrap();
    for revision in [&secret, &after, &secret[..9], &format!("{after}~1"), &tag, &tag[..9]] {
        let outcome = rig.log(of(revision)).await;
        assert!(matches!(outcome, Err(BrowseError::NoRevision(_))), "{revision}: {outcome:?}");
        let outcome = rig.blob(revision, "password").await;
        assert!(matches!(outcome, Err(BrowseError::NoRevision(_))), "{revision}: {outcome:?}");
        let outcome = rig.diff(Some("HEAD"), revision).await;
        assert!(matches!(outcome, Err(BrowseError::NoRevision(_))), "{revision}: {outcome:?}");
        let outcome = rig.diff(Some(revision), "HEAD").await;
        assert!(matches!(outcome, Err(BrowseError::NoRevision(_))), "{revision}: {outcome:?}");
    }
    rig.there(&["update-ref", "refs/heads/again", &after]);
    rig.log(of(&secret)).await.unwrap();
}

#[tokio::test]
async fn hidden_refs_are_not_there() {
    let rig = Rig::new();
    let base = rig.save("a", "a");
    rig.push();
    let hidden = rig.save("b", "b");
    for name in
        ["refs/heads/internal/x", "refs/tags/secret", "refs/hidden/y", "refs/heads/internally"]
    {
        rig.git(&["push", "--quiet", "origin", &format!("HEAD:{name}")]);
    }
    rig.there(&["update-ref", "-d", "refs/heads/internally"]);
    rig.log(of(&hidden)).await.unwrap();
    rig.there(&["config", "--add", "transfer.hideRefs", "refs/heads/internal"]);
    rig.there(&["config", "--add", "uploadpack.hideRefs", "refs/tags/"]);
    rig.there(&["config", "--add", "uploadpack.hideRefs", "refs/hidden"]);
    for revision in ["internal/x", "refs/tags/secret", "secret", "refs/hidden/y", &hidden] {
        let outcome = rig.log(of(revision)).await;
        assert!(matches!(outcome, Err(BrowseError::NoRevision(_))), "{revision}: {outcome:?}");
    }
    let refs = rig.refs().await.unwrap();
    assert_eq!(refs.branches.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["main"]);
    assert!(refs.tags.is_empty());
    rig.log(of(&base)).await.unwrap();
    rig.there(&["config", "--add", "uploadpack.hideRefs", "!refs/tags"]);
    assert_eq!(rig.log(of("secret")).await.unwrap().rev, hidden);
    let main = rig.refs().await.unwrap();
    assert_eq!(main.tags.len(), 1);
}

/// The node's own refs are not in the way of rules of the repository either.
#[tokio::test]
async fn refs_of_the_node_are_not_there() {
    let rig = Rig::new();
    rig.save("a", "a");
    rig.push();
    let own = rig.save("b", "b");
    rig.git(&["push", "--quiet", "origin", "HEAD:refs/alknet/x"]);
    rig.there(&["config", "--add", "transfer.hideRefs", "refs/hidden"]);
    for revision in ["refs/alknet/x", "alknet/x", &own, &own[..9]] {
        let outcome = rig.log(of(revision)).await;
        assert!(matches!(outcome, Err(BrowseError::NoRevision(_))), "{revision}: {outcome:?}");
    }
    rig.there(&["update-ref", "refs/heads/alknet", &own]);
    rig.log(of(&own)).await.unwrap();
}

/// Replacements would show under an id what nobody gets who fetches it.
#[tokio::test]
async fn replacements_are_not_applied() {
    let rig = Rig::new();
    let first = rig.save("a", "true");
    let second = rig.save("a", "false");
    rig.push();
    rig.there(&["update-ref", &format!("refs/replace/{first}"), &second]);
    assert_eq!(rig.blob(&first, "a").await.unwrap().text(), Some("true"));
}

#[tokio::test]
async fn protected_branches_are_marked() {
    let rig = Rig::new();
    rig.save("a", "a");
    rig.git(&["branch", "release/1"]);
    rig.git(&["branch", "free"]);
    rig.push();
    let protected = ["refs/heads/main", "refs/heads/release/*"].map(|it| it.parse().unwrap());
    rig.set(&Settings { protected: protected.into(), ..Settings::default() });
    let refs = rig.refs().await.unwrap();
    let marked: Vec<_> = refs.branches.iter().map(|it| (it.name.as_str(), it.protected)).collect();
    assert_eq!(marked, [("free", false), ("main", true), ("release/1", true)]);
}
