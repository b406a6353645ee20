//! What somebody may have pushed, or a disk may have done.

mod bounds;

use gix::objs::Write as _;

use super::*;

impl Rig {
    /// Writes an object as it is; gives its id.
    fn object(&self, kind: &str, content: &[u8]) -> String {
        self.feed(&["hash-object", "-t", kind, "-w", "--stdin", "--literally"], content)
    }

    fn tree_of(&self, entries: &[(&str, &[u8], &str)]) -> String {
        let mut content = Vec::new();
        for (mode, name, id) in entries {
            content.extend_from_slice(mode.as_bytes());
            content.push(b' ');
            content.extend_from_slice(name);
            content.push(0);
            content.extend(hex::decode(id).unwrap());
        }
        self.object("tree", &content)
    }

    /// A commit of a folder, which main leads to.
    fn commit_of(&self, tree: &str) -> String {
        let who = "A <a@b> 1700000000 +0000";
        let text = format!("tree {tree}\nauthor {who}\ncommitter {who}\n\nhostile\n");
        let id = self.object("commit", text.as_bytes());
        self.there(&["update-ref", "refs/heads/main", &id]);
        id
    }

    async fn archived(&self, format: Format) -> Result<(), BrowseError> {
        let query = ArchiveQuery::new(Revision::head(), format);
        let mut archive = self.browser.archive(&reader(), &self.name, query).await?;
        while archive.next().await?.is_some() {}
        Ok(())
    }
}

/// Ten folders in ten folders in …, all of them the same: ten thousand million files in a few
/// hundred bytes.
#[tokio::test]
async fn folders_that_multiply_do_not_grow() {
    let rig = Rig::new();
    let mut id = rig.object("blob", b"boom\n");
    for level in 0..10 {
        let mode = if level == 0 { "100644" } else { "40000" };
        let names: Vec<_> = (0..10).map(|number| format!("d{number}")).collect();
        let entries: Vec<_> =
            names.iter().map(|name| (mode, name.as_bytes(), id.as_str())).collect();
        id = rig.tree_of(&entries);
    }
    rig.commit_of(&id);
    assert_eq!(rig.tree("HEAD", "d0/d1/d2").await.unwrap().entries.len(), 10);
    let diff = rig.diff(None, "HEAD").await.unwrap();
    assert!(diff.truncated && diff.files.len() <= 1000);
    let outcome = rig.archived(Format::Tar).await;
    assert!(matches!(outcome, Err(BrowseError::ManyEntries(_))), "{outcome:?}");
    let query = LogQuery { path: "d0/d1/d2/d3/d4/d5/d6/d7/d8/d9".parse().unwrap(), ..of("HEAD") };
    assert_eq!(rig.log(query).await.unwrap().commits.len(), 1);
}

#[tokio::test]
async fn folders_may_be_too_deep() {
    let rig = Rig::new();
    let mut id = rig.object("blob", b"deep\n");
    for level in 0..3000 {
        let mode = if level == 0 { "100644" } else { "40000" };
        // One process for each would take long.
        let mut content = format!("{mode} d\0").into_bytes();
        content.extend(hex::decode(&id).unwrap());
        id = write_loose(&rig.served, gix::objs::Kind::Tree, &content);
    }
    rig.commit_of(&id);
    assert_eq!(rig.tree("HEAD", &vec!["d"; 200].join("/")).await.unwrap().entries.len(), 1);
    let diff = rig.diff(None, "HEAD").await.unwrap();
    assert!(diff.truncated && diff.files.is_empty());
    let outcome = rig.archived(Format::Zip).await;
    assert!(matches!(outcome, Err(BrowseError::Deep(_))), "{outcome:?}");
}

/// Writes an object without any check; gives its id.
fn write_loose(repository: &Path, kind: gix::objs::Kind, content: &[u8]) -> String {
    let open = gix::open_opts(repository, gix::open::Options::isolated()).unwrap();
    open.write_buf(kind, content).unwrap().to_string()
}

#[tokio::test]
async fn names_that_lead_out_are_not_archived() {
    let rig = Rig::new();
    let blob = rig.object("blob", b"evil\n");
    let names: [&[u8]; 8] =
        [b"..", b".", b"", b"../evil", b"/etc/passwd", b".git", b".GIT", b"a/../../b"];
    for name in names {
        let tree = rig.tree_of(&[("100644", name, &blob)]);
        rig.commit_of(&tree);
        for format in [Format::Tar, Format::TarGz, Format::Zip] {
            let outcome = rig.archived(format).await;
            assert!(matches!(outcome, Err(BrowseError::OddName(_))), "{name:?}: {outcome:?}");
        }
        // It can be looked at.
        let listed = rig.tree("HEAD", "").await;
        if let Ok(tree) = listed {
            assert_eq!(tree.entries[0].name.as_bytes(), name);
        }
        let _ = rig.diff(None, "HEAD").await.map(|diff| assert!(!diff.truncated));
    }
    // Twice the same, where only one can be unpacked.
    let tree = rig.tree_of(&[("100644", b"a", &blob), ("100644", b"a", &blob)]);
    rig.commit_of(&tree);
    assert!(rig.archived(Format::Zip).await.is_err());
    assert_eq!(rig.blob("HEAD", "a").await.unwrap().text(), Some("evil\n"));
}

#[tokio::test]
async fn what_is_missing_is_said_to_be() {
    let rig = Rig::new();
    rig.write("a", "a");
    rig.write("d/b", "b");
    rig.commit("one");
    rig.save("a", "c");
    rig.push();
    unpack(&rig);
    let remove = |spec: &str| {
        let id = rig.there(&["rev-parse", spec]).trim().to_owned();
        fs::remove_file(rig.served.join("objects").join(&id[..2]).join(&id[2..])).unwrap();
    };
    remove("HEAD:d");
    let is_damage = |outcome: Result<(), BrowseError>| {
        let error = outcome.unwrap_err();
        assert!(error.is_damage(), "{error:?}");
    };
    is_damage(rig.tree("HEAD", "d").await.map(|_| ()));
    is_damage(rig.blob("HEAD", "d/b").await.map(|_| ()));
    is_damage(rig.archived(Format::Tar).await);
    rig.diff(None, "HEAD").await.unwrap();
    assert_eq!(rig.tree("HEAD", "").await.unwrap().entries.len(), 2);
    remove("HEAD:a");
    is_damage(rig.blob("HEAD", "a").await.map(|_| ()));
    is_damage(rig.diff(None, "HEAD").await.map(|_| ()));
    assert_eq!(rig.tree("HEAD", "").await.unwrap().entries[0].size, None);
    remove("HEAD~1");
    is_damage(rig.log(of("HEAD")).await.map(|_| ()));
    remove("HEAD");
    is_damage(rig.log(of("HEAD")).await.map(|_| ()));
}

/// Takes all packs apart.
fn unpack(rig: &Rig) {
    let packs = rig.served.join("objects/pack");
    let aside = rig.folder.path().join("aside");
    fs::create_dir(&aside).unwrap();
    for file in fs::read_dir(&packs).unwrap() {
        let file = file.unwrap();
        fs::rename(file.path(), aside.join(file.file_name())).unwrap();
    }
    for file in fs::read_dir(&aside).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|it| it == "pack") {
            rig.run(&rig.served, &["unpack-objects", "-q"], &fs::read(path).unwrap());
        }
    }
}

/// Bytes are changed at many places of packs, indices and loose objects: there are errors and
/// no panics, and never the content of something else.
#[tokio::test]
async fn damaged_objects_are_errors() {
    let rig = Rig::new();
    for number in 0..4 {
        rig.write(
            "a.txt",
            (0..400).map(|line| format!("{line} {}\n", line * number)).collect::<String>(),
        );
        rig.write(&format!("d/{number}"), "x\n".repeat(number));
        rig.commit("more");
    }
    rig.push();
    let looks = async || {
        let mut failed = 0;
        failed += u32::from(rig.log(of("main")).await.is_err());
        failed += u32::from(rig.tree("main", "d").await.is_err());
        failed += u32::from(rig.blob("main", "a.txt").await.is_err());
        failed += u32::from(rig.diff(None, "main").await.is_err());
        failed += u32::from(rig.archived(Format::Tar).await.is_err());
        failed += u32::from(rig.refs().await.is_err());
        failed
    };
    rig.there(&["repack", "-q", "-a", "-d", "-f"]);
    assert_eq!(looks().await, 0);
    let mut failures = 0;
    for file in fs::read_dir(rig.served.join("objects/pack")).unwrap() {
        let path = file.unwrap().path();
        let mut permissions = fs::metadata(&path).unwrap().permissions();
        #[expect(clippy::permissions_set_readonly_false, reason = "in a folder of the test")]
        permissions.set_readonly(false);
        fs::set_permissions(&path, permissions).unwrap();
        let whole = fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(whole.len() / 24 + 1) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x55;
            fs::write(&path, &bytes).unwrap();
            failures += looks().await;
            fs::write(&path, &whole[..at]).unwrap();
            failures += looks().await;
        }
        fs::write(&path, &whole).unwrap();
    }
    assert!(failures > 20, "{failures}");
    assert_eq!(looks().await, 0);
}

#[tokio::test]
async fn tags_may_lead_to_each_other_for_long() {
    let rig = Rig::new();
    let mut id = rig.save("a", "a");
    rig.push();
    let mut kind = "commit";
    for number in 0..40 {
        let text = format!("object {id}\ntype {kind}\ntag t{number}\ntagger A <a> 1 +0000\n\nx\n");
        id = rig.object("tag", text.as_bytes());
        kind = "tag";
        rig.there(&["update-ref", &format!("refs/tags/t{number:02}"), &id]);
    }
    rig.log(of("t05")).await.unwrap();
    let outcome = rig.log(of("t39")).await;
    assert!(matches!(outcome, Err(BrowseError::NoRevision(_))), "{outcome:?}");
    assert_eq!(rig.refs().await.unwrap().tags.len(), 40);
    // Names that lead to each other in a circle.
    rig.there(&["symbolic-ref", "refs/heads/x", "refs/heads/y"]);
    rig.there(&["symbolic-ref", "refs/heads/y", "refs/heads/x"]);
    let outcome = rig.log(of("x")).await;
    assert!(matches!(outcome, Err(BrowseError::NoRevision(_))), "{outcome:?}");
    rig.refs().await.unwrap();
    rig.log(of("main")).await.unwrap();
}

/// Objects that say they are small, or are large once they are unpacked.
#[tokio::test]
async fn large_objects_are_not_unpacked() {
    let limits =
        BrowseLimits { max_blob: 1_000_000, max_archived: 1_000_000, ..BrowseLimits::default() };
    let rig = Rig::with(limits);
    rig.write("zeros", vec![0; 8_000_000]);
    rig.commit("8 MB in 8 kB");
    rig.push();
    for _ in 0..2 {
        let outcome = rig.blob("HEAD", "zeros").await;
        assert!(
            matches!(outcome, Err(BrowseError::TooLarge { size: 8_000_000, .. })),
            "{outcome:?}"
        );
        let outcome = rig.archived(Format::Zip).await;
        assert!(matches!(outcome, Err(BrowseError::TooLarge { .. })), "{outcome:?}");
        let file = rig.diff(None, "HEAD").await.unwrap().files.remove(0);
        assert!(file.truncated && file.hunks.is_empty());
        assert_eq!(rig.tree("HEAD", "").await.unwrap().entries[0].size, Some(8_000_000));
        rig.there(&["repack", "-q", "-a", "-d"]);
    }
    // A commit and a folder of that size.
    let who = "A <a@b> 1 +0000";
    let tree = rig.there(&["rev-parse", "main^{tree}"]);
    let text = format!(
        "tree {}\nauthor {who}\ncommitter {who}\n\n{}",
        tree.trim(),
        "x".repeat(20_000_000)
    );
    let commit = rig.object("commit", text.as_bytes());
    rig.there(&["update-ref", "refs/heads/large", &commit]);
    let outcome = rig.log(of("large")).await;
    assert!(matches!(outcome, Err(BrowseError::LargeObject(_))), "{outcome:?}");
    let blob = rig.object("blob", b"x");
    let mut entries = Vec::new();
    for number in 0..700_000 {
        entries.extend_from_slice(format!("100644 {number:07}\0").as_bytes());
        entries.extend(hex::decode(&blob).unwrap());
    }
    let tree = rig.object("tree", &entries);
    rig.commit_of(&tree);
    let outcome = rig.tree("main", "").await;
    assert!(matches!(outcome, Err(BrowseError::LargeObject(_))), "{outcome:?}");
}

#[tokio::test]
async fn a_message_may_be_of_any_size_and_of_any_bytes() {
    let rig = Rig::new();
    rig.save("a", "a");
    rig.push();
    let tree = rig.there(&["rev-parse", "main^{tree}"]).trim().to_owned();
    let mut text =
        format!("tree {tree}\nauthor \u{1b}[31mA <a> 99999999999999999999 +9999\n").into_bytes();
    text.extend_from_slice(b"committer \xff <> -5 -0000\nencoding latin1\n\ncaf\xe9\x01\n");
    text.extend_from_slice(&[1; 100_000]);
    let commit = rig.object("commit", &text);
    rig.there(&["update-ref", "refs/heads/odd", &commit]);
    let Ok(log) = rig.log(of("odd")).await else { return };
    let commit = &log.commits[0];
    assert!(commit.message.starts_with("café\u{1}\n") && commit.message_truncated);
    assert!(commit.message.len() <= 64 * 1024 + 2);
    assert_eq!(commit.author.name, "\u{1b}[31mA");
}

/// A commit with as many parents as fit in what is read: 68 KiB on the disk, and git's own
/// checks take it.
#[tokio::test]
async fn a_commit_has_not_any_number_of_parents() {
    let rig = Rig::new();
    let first = rig.save("a", "a");
    let base = rig.save("a", "b");
    rig.push();
    let tree = rig.there(&["rev-parse", "main^{tree}"]).trim().to_owned();
    let merge = |parents: &[String]| {
        let lines: String = parents.iter().map(|id| format!("parent {id}\n")).collect();
        let who = "A <a@b> 1700000000 +0000";
        let text = format!("tree {tree}\n{lines}author {who}\ncommitter {who}\n\nhostile\n");
        write_loose(&rig.served, gix::objs::Kind::Commit, text.as_bytes())
    };
    let wide = merge(&vec![base.clone(); 300_000]);
    rig.there(&["update-ref", "refs/heads/wide", &wide]);
    let path = LogQuery { path: "a".parse().unwrap(), ..of("wide") };
    for outcome in [
        rig.log(of("wide")).await.map(|_| ()),
        rig.log(of(&wide)).await.map(|_| ()),
        rig.log(path).await.map(|_| ()),
        rig.log(of("wide^2")).await.map(|_| ()),
        rig.tree("wide", "").await.map(|_| ()),
        rig.diff(None, "wide").await.map(|_| ()),
    ] {
        assert!(outcome.as_ref().is_err_and(BrowseError::is_damage), "{outcome:?}");
    }
    // It hides nothing but itself, as a tip and within a history.
    rig.log(of(&first)).await.unwrap();
    let above = merge(&[wide, base.clone()]);
    rig.there(&["update-ref", "refs/heads/wide", &above]);
    rig.there(&["update-ref", "refs/heads/main", &above]);
    rig.log(of(&first)).await.unwrap();
    // Those who are still to be visited count as much as those who were found.
    let many: Vec<String> =
        (1..=walk::MAX_PARENTS).map(|number| format!("{number:040x}")).collect();
    let many = gix::ObjectId::from_hex(merge(&many).as_bytes()).unwrap();
    let (brake, _stop) = Brake::new(Duration::from_secs(600));
    let opened = rig.browser.0.open(&reader(), &rig.name, MAX_OBJECT, brake).unwrap();
    let mut walk = walk::Walk::default();
    walk.push(&opened, many).unwrap();
    assert_eq!((walk.len(), walk.size()), (1, 1 + walk::MAX_PARENTS));
    let node = walk.next().unwrap();
    assert_eq!((node.parents.len(), walk.size()), (walk::MAX_PARENTS, 1));
}

#[tokio::test]
async fn work_ends_in_time() {
    let rig = Rig::with(BrowseLimits { time: Duration::ZERO, ..BrowseLimits::default() });
    rig.save("a", "a");
    rig.push();
    assert!(matches!(rig.tree("HEAD", "").await, Err(BrowseError::Late)));
    assert!(matches!(rig.diff(None, "HEAD").await, Err(BrowseError::Late)));
    assert!(matches!(rig.refs().await, Err(BrowseError::Late)));
    let list = rig.browser.list(&reader(), ListQuery::default()).await.unwrap();
    assert!(list.truncated && list.repositories.is_empty());
}
