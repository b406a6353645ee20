//! History, and how commits are named.

use super::*;

/// What git tells of a history, as we would.
fn expected(rig: &Rig, arguments: &[&str]) -> Vec<String> {
    let mut all = vec!["log", "--format=%H %T %P|%an|%ae|%at|%cn|%ce|%ct|%B%x00"];
    all.extend(arguments);
    let text = rig.there(&all);
    text.split('\0')
        .map(|it| it.trim_start_matches('\n').to_owned())
        .filter(|it| !it.is_empty())
        .collect()
}

fn shown(log: &Log) -> Vec<String> {
    let person = |who: &Person| format!("{}|{}|{}", who.name, who.email, who.time);
    let one = |commit: &Commit| {
        let Commit { id, tree, parents, author, committer, message, .. } = commit;
        let (author, committer) = (person(author), person(committer));
        format!("{id} {tree} {}|{author}|{committer}|{message}", parents.join(" "))
    };
    log.commits.iter().map(one).collect()
}

/// Compares the history of a path with what git says.
pub(super) async fn history_is_gits(rig: &Rig, revision: &str, path: &str) {
    let query = LogQuery { path: path.parse().unwrap(), limit: Some(1000), ..of(revision) };
    let ours = shown(&rig.log(query).await.unwrap());
    let mut arguments = vec![revision];
    if !path.is_empty() {
        arguments.extend(["--", path]);
    }
    assert_eq!(ours, expected(rig, &arguments), "{revision} {path}");
}

/// Two branches that change different files, a file that both change alike, merges.
fn tangled() -> Rig {
    let rig = Rig::new();
    rig.save("a.txt", "1\n");
    rig.save("src/b.txt", "1\n");
    rig.git(&["switch", "--quiet", "--create", "side"]);
    rig.save("a.txt", "2\n");
    rig.save("same.txt", "same\n");
    rig.git(&["switch", "--quiet", "main"]);
    rig.save("src/b.txt", "2\n");
    rig.save("same.txt", "same\n");
    rig.git(&["merge", "--quiet", "--no-ff", "--message", "merge side\n\nwith a body", "side"]);
    rig.save("src/deep/c.txt", "1\n");
    rig.git(&["switch", "--quiet", "side"]);
    rig.save("a.txt", "3\n");
    rig.git(&["switch", "--quiet", "main"]);
    rig.save("a.txt", "4\n");
    fs::remove_file(rig.work().join("same.txt")).unwrap();
    rig.commit("gone");
    let merge =
        ["merge", "--quiet", "--no-ff", "--message", "ours", "--strategy-option=ours", "side"];
    rig.git(&merge);
    rig.push();
    rig
}

#[tokio::test]
async fn history_is_that_of_git() {
    let rig = tangled();
    for revision in ["HEAD", "side", "main~2", "main^2", "HEAD~1^1"] {
        let log = rig.log(of(revision)).await.unwrap();
        assert_eq!(shown(&log), expected(&rig, &[revision]), "{revision}");
        assert!(!log.more && !log.truncated);
        assert_eq!(log.rev, rig.there(&["rev-parse", revision]).trim());
    }
    let log = rig.log(of("main")).await.unwrap();
    assert_eq!(log.commits[0].author.offset, 150);
}

#[tokio::test]
async fn the_history_of_a_file_is_that_of_git() {
    let rig = tangled();
    for path in
        ["a.txt", "src", "src/b.txt", "same.txt", "src/deep", "src/deep/c.txt", "none", "a.txt/x"]
    {
        let query = LogQuery { path: path.parse().unwrap(), ..of("HEAD") };
        let log = rig.log(query).await.unwrap();
        assert_eq!(shown(&log), expected(&rig, &["HEAD", "--", path]), "{path}");
    }
}

#[tokio::test]
async fn pages_are_the_whole() {
    let rig = tangled();
    let whole = rig.log(of("HEAD")).await.unwrap().commits;
    for path in ["", "a.txt"] {
        let path: TreePath = path.parse().unwrap();
        let query = LogQuery { path: path.clone(), ..of("HEAD") };
        let whole = rig.log(query).await.unwrap().commits;
        for size in [1, 2, 3, whole.len(), whole.len() + 1] {
            let mut all = Vec::new();
            loop {
                let query = LogQuery {
                    path: path.clone(),
                    skip: all.len(),
                    limit: Some(size),
                    ..of("HEAD")
                };
                let page = rig.log(query).await.unwrap();
                assert!(page.commits.len() <= size);
                all.extend(page.commits);
                if !page.more {
                    break;
                }
            }
            assert_eq!(all, whole, "{path} by {size}");
        }
    }
    let beyond = LogQuery { skip: whole.len() + 5, ..of("HEAD") };
    let beyond = rig.log(beyond).await.unwrap();
    assert!(beyond.commits.is_empty() && !beyond.more);
    let none = LogQuery { limit: Some(0), ..of("HEAD") };
    let none = rig.log(none).await.unwrap();
    assert!(none.commits.is_empty() && none.more);
}

#[tokio::test]
async fn a_commit_is_named_in_many_ways() {
    let rig = tangled();
    rig.git(&["tag", "light", "main~1"]);
    rig.git(&["tag", "--annotate", "--message", "v1", "v1", "main~2"]);
    rig.git(&["tag", "--annotate", "--message", "of a tag", "nested", "v1"]);
    rig.git(&["tag", "side", "main"]);
    rig.git(&["tag", "folder", "main^{tree}"]);
    rig.git(&["branch", "abcd", "main~3"]);
    rig.push();
    let id = rig.there(&["rev-parse", "main"]).trim().to_owned();
    let tag = rig.there(&["rev-parse", "v1"]).trim().to_owned();
    for name in [
        "HEAD",
        "main",
        "heads/main",
        "refs/heads/main",
        "light",
        "tags/light",
        "v1",
        "nested",
        "refs/tags/v1",
        "v1~1",
        "nested^",
        "light^0",
        "main~0",
        "side",
        "heads/side",
        "abcd",
        &id,
        &id[..7],
        &id.to_uppercase(),
        &tag,
        &format!("{id}~2^"),
        "main^2~1",
    ] {
        let peeled = format!("{name}^{{commit}}");
        let expected = rig.there(&["rev-parse", "--verify", "--quiet", &peeled]);
        assert_eq!(rig.log(of(name)).await.unwrap().rev, expected.trim(), "{name}");
    }
    let tree = rig.there(&["rev-parse", "main^{tree}"]).trim().to_owned();
    let blob = rig.there(&["rev-parse", "main:a.txt"]).trim().to_owned();
    for name in [
        "none",
        "refs/heads/none",
        "main^9",
        "main~99",
        "folder",
        &tree,
        &tree[..8],
        &blob,
        &"0".repeat(40),
        &"0".repeat(39),
        "0000",
        "FETCH_HEAD",
        "refs/heads/light",
        "refs/heads",
        "config",
        "description",
        "objects/pack",
        "refs/heads/../heads/main2",
    ] {
        let Ok(revision) = name.parse::<Revision>() else { continue };
        let outcome = rig.log(LogQuery { revision, ..LogQuery::default() }).await;
        assert!(matches!(outcome, Err(BrowseError::NoRevision(_))), "{name}: {outcome:?}");
    }
}

#[tokio::test]
async fn an_abbreviated_id_has_to_be_of_one_commit() {
    let rig = Rig::new();
    rig.save("a", "a");
    rig.push();
    // Two commits whose ids begin alike, and a third that begins so and no ref reaches.
    let tree = rig.there(&["rev-parse", "main^{tree}"]).trim().to_owned();
    let mut by_prefix = std::collections::HashMap::<String, Vec<String>>::new();
    let pair = (0..100_000).find_map(|number| {
        let text = format!(
            "tree {tree}\nauthor A <a> {number} +0000\ncommitter A <a> {number} +0000\n\nx\n"
        );
        let id = gix::objs::compute_hash(
            gix::hash::Kind::Sha1,
            gix::objs::Kind::Commit,
            text.as_bytes(),
        );
        let id = id.unwrap().to_string();
        let known = by_prefix.entry(id[..4].to_owned()).or_default();
        known.push(text);
        (known.len() == 2).then(|| (id[..4].to_owned(), known.clone()))
    });
    let (digits, texts) = pair.unwrap();
    let ids = texts
        .iter()
        .map(|text| rig.feed(&["hash-object", "-t", "commit", "-w", "--stdin"], text.as_bytes()));
    let ids: Vec<_> = ids.collect();
    let outcome = rig.log(of(&digits)).await;
    assert!(matches!(outcome, Err(BrowseError::NoRevision(_))), "{outcome:?}");
    rig.there(&["update-ref", "refs/heads/one", &ids[0]]);
    assert_eq!(rig.log(of(&digits)).await.unwrap().rev, ids[0], "the other is not to be seen");
    rig.there(&["update-ref", "refs/heads/two", &ids[1]]);
    let outcome = rig.log(of(&digits)).await;
    assert!(matches!(outcome, Err(BrowseError::Ambiguous(_))), "{outcome:?}");
}

#[tokio::test]
async fn a_repository_may_be_empty() {
    let rig = Rig::new();
    let refs = rig.refs().await.unwrap();
    assert_eq!(refs.head, Head { branch: Some("main".into()), id: None });
    assert!(refs.branches.is_empty() && refs.tags.is_empty() && !refs.more);
    for outcome in [
        rig.log(of("HEAD")).await.map(|_| ()),
        rig.tree("HEAD", "").await.map(|_| ()),
        rig.blob("main", "a").await.map(|_| ()),
        rig.diff(None, "HEAD").await.map(|_| ()),
    ] {
        assert!(matches!(outcome, Err(BrowseError::NoRevision(_))), "{outcome:?}");
    }
    let list = rig.browser.list(&reader(), ListQuery::default()).await.unwrap();
    assert_eq!(list.repositories.len(), 1);
    let listed = &list.repositories[0];
    assert!(listed.empty && !listed.public && !listed.rights.push && !listed.rights.admin);
    assert_eq!(listed.default_branch.as_deref(), Some("main"));
}

#[tokio::test]
async fn refs_are_those_of_git() {
    let rig = tangled();
    rig.git(&["tag", "light", "main~1"]);
    rig.git(&["tag", "--annotate", "--message", "v1", "v1", "main~2"]);
    rig.git(&["tag", "--annotate", "--message", "of a tag", "nested", "v1"]);
    rig.git(&["branch", "feature/é", "main~3"]);
    rig.push();
    for packed in [false, true] {
        if packed {
            rig.there(&["pack-refs", "--all"]);
        }
        let refs = rig.refs().await.unwrap();
        let format = "--format=%(refname:lstrip=2) %(objectname)";
        let branches: Vec<_> =
            refs.branches.iter().map(|it| format!("{} {}", it.name, it.id)).collect();
        let expected = rig.there(&["for-each-ref", format, "refs/heads/"]);
        assert_eq!(branches, expected.lines().collect::<Vec<_>>());
        let tags = refs
            .tags
            .iter()
            .map(|it| format!("{} {} {} {}", it.name, it.id, it.target, it.annotated));
        let expected = ["light", "nested", "v1"].map(|name| {
            let id = rig.there(&["rev-parse", name]);
            let target = rig.there(&["rev-parse", &format!("{name}^{{}}")]);
            format!("{name} {} {} {}", id.trim(), target.trim(), id != target)
        });
        assert_eq!(tags.collect::<Vec<_>>(), expected);
        let head = rig.there(&["rev-parse", "HEAD"]);
        let head = Head { branch: Some("main".into()), id: Some(head.trim().into()) };
        assert_eq!(refs.head, head);
    }
    let some = RefsQuery { prefix: "n".into(), ..RefsQuery::default() };
    let some = rig.browser.refs(&reader(), &rig.name, some).await.unwrap();
    assert_eq!((some.branches.len(), some.tags.len()), (0, 1));
    let mut names = Vec::new();
    loop {
        let query = RefsQuery { skip: names.len(), limit: Some(2), ..RefsQuery::default() };
        let page = rig.browser.refs(&reader(), &rig.name, query).await.unwrap();
        names.extend(page.branches.into_iter().map(|it| it.name));
        names.extend(page.tags.into_iter().map(|it| it.name));
        if !page.more {
            break;
        }
    }
    assert_eq!(names, ["feature/é", "main", "side", "light", "nested", "v1"]);
}

#[tokio::test]
async fn repositories_of_the_other_hash_are_looked_into_as_well() {
    let rig = Rig::sha256();
    let first = rig.save("a.txt", "1\n");
    rig.save("a.txt", "2\n");
    rig.git(&["tag", "--annotate", "--message", "v1", "v1"]);
    rig.push();
    assert_eq!(first.len(), 64);
    let log = rig.log(of("HEAD")).await.unwrap();
    assert_eq!(shown(&log), expected(&rig, &["HEAD"]));
    assert_eq!(rig.log(of(&first)).await.unwrap().rev, first);
    assert_eq!(rig.log(of(&first[..9])).await.unwrap().rev, first);
    assert_eq!(rig.tree("v1", "").await.unwrap().entries[0].id.len(), 64);
    assert_eq!(rig.blob("HEAD~1", "a.txt").await.unwrap().content, b"1\n");
    let diff = rig.diff(None, "HEAD").await.unwrap();
    assert_eq!(diff.files[0].hunks[0].lines, ["-1", "+2"]);
}

/// History that is cut off, as a push from a shallow clone leaves it.
#[tokio::test]
async fn history_may_be_cut_off() {
    let rig = tangled();
    let cut = rig.there(&["rev-parse", "main~1"]);
    fs::write(rig.served.join("shallow"), &cut).unwrap();
    let log = rig.log(of("main")).await.unwrap();
    assert!(log.commits.iter().any(|commit| commit.id == cut.trim()));
    let ids: Vec<_> = log.commits.iter().map(|commit| commit.id.as_str()).collect();
    assert_eq!(ids, rig.there(&["log", "--format=%H", "main"]).lines().collect::<Vec<_>>());
}
