//! Who may change which ref, and how.

use std::fs;

use alknet_git::{InstalledGit, RefPattern};

use crate::rig::{Rig, look, noise, packs, refs, url};

fn patterns(texts: &[&str]) -> Vec<RefPattern> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[tokio::test]
async fn each_ref_is_decided_by_itself() {
    let mut rig = Rig::new();
    let repository = rig.make("notes", |_| ());
    let anna = rig.port("anna", &["git:write:notes:refs/heads/feature/*"]).await;
    let work = rig.work("anna").await;
    let to = url(anna, "notes");
    let refused = work.fails(&["push", &to, "main", "main:feature/x", "main:refs/alknet/x"]).await;
    assert!(refused.contains("! [remote rejected] main -> main (you may not push"), "{refused}");
    assert!(refused.contains("main -> refs/alknet/x (deny updating a hidden ref)"), "{refused}");
    let head = work.git(&["rev-parse", "main"]).await;
    assert_eq!(refs(&repository).await, format!("{head} refs/heads/feature/x"));

    let next = work.commit("next").await;
    let atomic = work.fails(&["push", "--atomic", &to, "main", "main:feature/x"]).await;
    assert!(atomic.contains("! [remote rejected] main -> feature/x"), "{atomic}");
    assert_eq!(refs(&repository).await, format!("{head} refs/heads/feature/x"));
    work.git(&["push", "--atomic", &to, "main:feature/x", "main:feature/y"]).await;
    let both = format!("{next} refs/heads/feature/x\n{next} refs/heads/feature/y");
    assert_eq!(refs(&repository).await, both);
}

#[tokio::test]
async fn a_push_of_which_nothing_is_allowed_leaves_no_object() {
    let mut rig = Rig::new();
    let repository = rig.make("notes", |_| ());
    let anna = rig.port("anna", &["git:write:notes:refs/heads/feature/*"]).await;
    let work = rig.work("anna").await;
    let refused = work.fails(&["push", &url(anna, "notes"), "main"]).await;
    assert!(refused.contains("remote: refs/heads/main: you may not push to this ref"), "{refused}");
    assert_eq!((packs(&repository), refs(&repository).await.as_str()), (0, ""));
}

#[tokio::test]
async fn protected_refs_go_forward_only() {
    let mut rig = Rig::new();
    let protected = patterns(&["main", "release/*", "refs/tags/v*"]);
    let repository = rig.make("notes", |settings| settings.protected = protected);
    let anna = rig.port("anna", &["git"]).await;
    let to = url(anna, "notes");
    let work = rig.work("anna").await;
    work.git(&["tag", "v1"]).await;
    work.git(&["push", &to, "main", "main:release/a/b", "main:other", "v1"]).await;
    let one = work.commit("second").await;
    work.git(&["push", &to, "main", "main:release/a/b", "main:other"]).await;

    // A history that has nothing to do with it, and one that is behind.
    work.git(&["checkout", "-q", "--orphan", "new"]).await;
    let new = work.commit("new").await;
    for source in ["new", "main~1"] {
        for target in ["main", "release/a/b"] {
            let change = format!("+{source}:refs/heads/{target}");
            let refused = work.fails(&["push", &to, &change]).await;
            assert!(refused.contains("protected: only descendants"), "{refused}");
        }
    }
    let deleted = work.fails(&["push", &to, ":release/a/b"]).await;
    assert!(deleted.contains("protected: it may not be deleted"), "{deleted}");
    let moved = work.fails(&["push", &to, "+new:refs/tags/v1"]).await;
    assert!(moved.contains("protected: a tag may not be moved"), "{moved}");

    // With others, it is the only one that does not change; unless all or none is asked for.
    let mixed = ["push", &to, "+new:main", "+new:other", "new:more"];
    let refused = work.fails(&mixed).await;
    assert!(refused.contains("! [remote rejected] new -> main (protected"), "{refused}");
    let id = |name: &'static str| {
        let repository = repository.clone();
        async move { look(&repository, &["rev-parse", name]).await }
    };
    assert_eq!((id("main").await, id("other").await, id("more").await), (one, new.clone(), new));
    let before = refs(&repository).await;
    let atomic = ["push", "--atomic", &to, "+main~1:main", "+main~1:other", ":more"];
    work.fails(&atomic).await;
    assert_eq!(refs(&repository).await, before);
    work.git(&["push", &to, ":other", ":more"]).await;
}

#[tokio::test]
async fn no_ref_is_changed_by_another_name() {
    let mut rig = Rig::new();
    let repository = rig.make("notes", |_| ());
    let owner = rig.port("owner", &["git"]).await;
    let anna = rig.port("anna", &["git:write:notes:refs/heads/alias"]).await;
    let work = rig.work("anna").await;
    work.git(&["push", &url(owner, "notes"), "main"]).await;
    look(&repository, &["symbolic-ref", "refs/heads/alias", "refs/heads/main"]).await;
    let before = refs(&repository).await;
    work.commit("second").await;
    for change in ["main:alias", ":alias"] {
        let refused = work.fails(&["push", &url(anna, "notes"), change]).await;
        assert!(refused.contains("a symbolic ref is not pushed to"), "{refused}");
        assert_eq!(refs(&repository).await, before, "{change}");
    }
}

#[tokio::test]
async fn a_repository_does_not_outgrow_its_quota() {
    let mut rig = Rig::new();
    let repository = rig.make("notes", |settings| settings.quota = Some(150_000));
    let anna = rig.port("anna", &["git"]).await;
    let to = url(anna, "notes");
    let work = rig.work("anna").await;
    fs::write(work.path().join("some"), noise(1, 100_000)).unwrap();
    work.commit("some").await;
    work.git(&["push", &to, "main", "main:small"]).await;
    let before = (packs(&repository), refs(&repository).await);
    fs::write(work.path().join("large"), noise(2, 100_000)).unwrap();
    work.commit("large").await;
    let refused = work.fails(&["push", &to, "main"]).await;
    assert!(refused.contains("the repository would have"), "{refused}");
    // What is larger than all of it need not even arrive.
    fs::write(work.path().join("larger"), noise(3, 300_000)).unwrap();
    work.commit("larger").await;
    let refused = work.fails(&["push", &to, "main"]).await;
    assert!(refused.contains("pack exceeds maximum allowed size"), "{refused}");
    assert_eq!((packs(&repository), refs(&repository).await), before);
    work.git(&["push", &to, ":small"]).await;
}

#[tokio::test]
async fn what_is_too_large_does_not_come_in_with_a_deletion() {
    let mut rig = Rig::with(|config| config.limits.object = 60_000);
    let repository = rig.make("notes", |settings| settings.quota = Some(150_000));
    let anna = rig.port("anna", &["git"]).await;
    let to = url(anna, "notes");
    // Of whom all that is new is refused for another reason.
    let bert = rig.port("bert", &["git:write:notes:refs/heads/small"]).await;
    let of_some = url(bert, "notes");
    let work = rig.work("anna").await;
    for (nth, file) in ["a", "b"].into_iter().enumerate() {
        fs::write(work.path().join(file), noise(nth as u64 + 1, 50_000)).unwrap();
    }
    work.commit("some").await;
    work.git(&["push", &to, "main", "main:small"]).await;
    let before = (packs(&repository), refs(&repository).await);
    let cases =
        [("large", vec![0; 70_000], "an object may have"), ("c", noise(3, 55_000), "would have")];
    for (file, content, why) in cases {
        fs::write(work.path().join(file), content).unwrap();
        work.commit(file).await;
        for to in [&to, &of_some] {
            let refused = work.fails(&["push", to, "main", ":small"]).await;
            assert!(refused.contains(why), "{refused}");
            assert_eq!((packs(&repository), refs(&repository).await), before, "{file}");
        }
        work.git(&["rm", "-q", file]).await;
        work.git(&["commit", "-q", "--amend", "-m", "none", "--allow-empty"]).await;
    }
    work.git(&["push", &to, ":small"]).await;
}

#[tokio::test]
async fn a_push_makes_a_repository_where_it_may_and_only_if_it_comes_to_something() {
    let mut rig = Rig::new();
    let to_make = ["git:create:team/*", "git:write:team/*:refs/heads/main"];
    let anna = rig.port("anna", &to_make).await;
    let work = rig.work("anna").await;
    work.fails(&["push", &url(anna, "team/a"), "main:other"]).await;
    rig.gone("team/a").await;
    work.git(&["push", &url(anna, "team/a"), "main"]).await;
    assert!(rig.is_there("team/a"));
    let elsewhere = work.fails(&["push", &url(anna, "other"), "main"]).await;
    assert!(elsewhere.contains("there is no repository other"), "{elsewhere}");
    assert!(!rig.is_there("other"));
}

#[tokio::test]
async fn what_nobody_may_see_is_not_there() {
    let mut rig = Rig::new();
    rig.make("private", |_| ());
    let nobody = rig.port("nobody", &[]).await;
    let other = rig.port("other", &["git:write:mine"]).await;
    let work = rig.work("nobody").await;
    for address in [nobody, other] {
        for args in [["ls-remote", "URL"].as_slice(), &["push", "URL", "main"]] {
            let answer = |name: &'static str| {
                let to = url(address, name);
                let (work, name) = (&work, name);
                async move {
                    let args: Vec<_> =
                        args.iter().map(|arg| if *arg == "URL" { &to } else { *arg }).collect();
                    work.fails(&args).await.replace(name, "NAME")
                }
            };
            assert_eq!(answer("private").await, answer("missing").await);
        }
    }
    assert!(!rig.is_there("missing"));
}

#[tokio::test]
async fn both_gits_of_the_machine_take_pushes() {
    for program in ["git", "/usr/bin/git"] {
        let mut rig = Rig::set_up(InstalledGit::named(program), |_| (), |_| ());
        let repository = rig.make("notes", |it| it.protected = patterns(&["main"]));
        let anna = rig.port("anna", &["git"]).await;
        let (to, work) = (url(anna, "notes"), rig.work("anna").await);
        work.git(&["push", &to, "main", "main:x"]).await;
        let head = work.commit("second").await;
        work.git(&["push", &to, "main", "main:x"]).await;
        let refused = work.fails(&["push", &to, "+main~1:main", "main:y", ":x"]).await;
        assert!(refused.contains("(protected: only descendants"), "{program}: {refused}");
        let left = format!("{head} refs/heads/main\n{head} refs/heads/y");
        assert_eq!(refs(&repository).await, left, "{program}");
    }
}

#[tokio::test]
async fn without_the_program_of_its_hooks_nothing_is_changed() {
    let git = InstalledGit::find().unwrap();
    let mut rig = Rig::set_up(git, |setup| setup.hooks = "/nonexistent/program".into(), |_| ());
    let repository = rig.make("notes", |_| ());
    let anna = rig.port("anna", &["git"]).await;
    let work = rig.work("anna").await;
    let refused = work.fails(&["push", &url(anna, "notes"), "main", "main:x"]).await;
    assert!(refused.contains("cannot find hook 'proc-receive'"), "{refused}");
    assert_eq!(refs(&repository).await, "");
}
