//! A few kilobytes that take up gigabytes of memory, or hours.

use std::time::Instant;

use gix::objs::Kind;

use super::*;

/// Folders one in another, with names as long as they may be.
fn deep(rig: &Rig, inner: String) -> String {
    let name = vec![b'n'; 250];
    (0..15).fold(inner, |id, _| rig.tree_of(&[("40000", &name, &id)]))
}

fn named(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| format!("{number:07}").into_bytes()).collect()
}

fn all<'a>(mode: &'a str, names: &'a [Vec<u8>], id: &'a str) -> Vec<(&'a str, &'a [u8], &'a str)> {
    names.iter().map(|name| (mode, &**name, id)).collect()
}

/// The list of them is kept while the first of them is looked into: it does not come to that.
#[tokio::test]
async fn entries_count_before_they_are_visited() {
    let rig = Rig::new();
    let names = named(200_001);
    let nowhere = "1".repeat(40);
    let tree = rig.tree_of(&all("40000", &names, &nowhere));
    rig.commit_of(&tree);
    let outcome = rig.archived(Format::Tar).await;
    assert!(matches!(outcome, Err(BrowseError::ManyEntries(_))), "{outcome:?}");
    let tree = rig.tree_of(&all("40000", &names[1..], &nowhere));
    rig.commit_of(&tree);
    let outcome = rig.archived(Format::Tar).await;
    assert!(matches!(outcome, Err(BrowseError::Missing(_))), "{outcome:?}");
    // One name that nothing can be called, behind the first of them.
    let tree = rig.tree_of(&[("40000", b"a", &nowhere), ("40000", &[b'b'; 4097], &nowhere)]);
    rig.commit_of(&tree);
    let outcome = rig.archived(Format::Tar).await;
    assert!(matches!(outcome, Err(BrowseError::Deep(_))), "{outcome:?}");
}

#[tokio::test]
async fn the_paths_of_an_archive_are_not_kept_without_bounds() {
    let rig = Rig::new();
    let blob = rig.object("blob", b"x");
    for (count, is_much) in [(8_000, false), (9_000, true)] {
        let folder = rig.tree_of(&all("100644", &named(count), &blob));
        rig.commit_of(&deep(&rig, folder));
        for format in [Format::Tar, Format::Zip] {
            let outcome = rig.archived(format).await;
            let refused = matches!(outcome, Err(BrowseError::ManyEntries(_)));
            assert!(refused == is_much && refused != outcome.is_ok(), "{outcome:?}");
        }
    }
    // What all of them begin with counts, too.
    let folder = rig.tree_of(&all("100644", &named(8_500), &blob));
    rig.commit_of(&deep(&rig, folder));
    rig.archived(Format::Zip).await.unwrap();
    let prefix = "p".repeat(200).parse().unwrap();
    let query = ArchiveQuery { prefix, ..ArchiveQuery::new(Revision::head(), Format::Zip) };
    let mut archive = rig.browser.archive(&reader(), &rig.name, query).await.unwrap();
    let outcome = loop {
        match archive.next().await {
            Ok(Some(_)) => {}
            end => break end,
        }
    };
    assert!(matches!(outcome, Err(BrowseError::ManyEntries(_))), "{outcome:?}");
}

/// Files may be larger than what leads to them.
#[tokio::test]
async fn folders_are_not_as_large_as_files() {
    let rig = Rig::new();
    rig.write("large", vec![0; MAX_OBJECT + 1]);
    rig.commit("a file");
    rig.push();
    rig.archived(Format::Zip).await.unwrap();
    assert!(rig.blob("HEAD", "large").await.unwrap().size > MAX_OBJECT as u64);
    let blob = rig.object("blob", b"x");
    let names = [vec![b'a'; MAX_OBJECT / 2], vec![b'b'; MAX_OBJECT / 2]];
    let tree = rig.tree_of(&all("100644", &names, &blob));
    rig.commit_of(&tree);
    for _ in 0..2 {
        let outcome = rig.archived(Format::Tar).await;
        assert!(matches!(outcome, Err(BrowseError::LargeObject(MAX_OBJECT))), "{outcome:?}");
        let outcome = rig.blob("HEAD", "a").await;
        assert!(matches!(outcome, Err(BrowseError::LargeObject(MAX_OBJECT))), "{outcome:?}");
        rig.there(&["repack", "-q", "-a", "-d"]);
    }
}

/// They wait while those next to them are looked into.
#[tokio::test]
async fn folders_that_differ_do_not_wait_without_bounds() {
    let rig = Rig::new();
    let blob = rig.object("blob", b"x");
    let file = rig.tree_of(&[("100644", b"f", &blob)]);
    for (count, is_much) in [(300, false), (5_000, true)] {
        let folder = rig.tree_of(&all("40000", &named(count), &file));
        rig.commit_of(&deep(&rig, folder));
        let diff = rig.diff(None, "HEAD").await.unwrap();
        assert_eq!((diff.truncated, diff.files.is_empty()), (is_much, is_much), "{count}");
    }
    // Those that were looked into do not wait any more: 900 in each of 25 one in another.
    let empty = rig.tree_of(&[]);
    let names = named(900);
    let spine = (0..25).fold(empty.clone(), |id, _| {
        let mut entries = all("40000", &names, &empty);
        entries.push(("40000", b"z", &id));
        rig.tree_of(&entries)
    });
    rig.commit_of(&deep(&rig, spine));
    assert!(!rig.diff(None, "HEAD").await.unwrap().truncated);
}

/// A commit of a folder, of which some attributes hold.
fn with_attributes(rig: &Rig, attributes: &str, mode: &str, name: &[u8], id: &str) {
    let attributes = rig.object("blob", attributes.as_bytes());
    let tree = rig.tree_of(&[("100644", b".gitattributes", &attributes), (mode, name, id)]);
    rig.commit_of(&tree);
}

/// With twenty it is felt; forty outlast whoever has pushed them.
#[tokio::test]
async fn a_pattern_has_not_any_number_of_stars() {
    let rig = Rig::new();
    let far = (0..90).fold(rig.object("blob", b"x"), |id, level| {
        let mode = if level == 0 { "100644" } else { "40000" };
        let entry = [format!("{mode} a\0").into_bytes(), hex::decode(id).unwrap()];
        write_loose(&rig.served, Kind::Tree, &entry.concat())
    });
    let stars = |count: usize| "**/a/".repeat(count - 1) + "**/b";
    let attributes = format!("x text\n{} export-ignore\n", stars(20));
    with_attributes(&rig, &attributes, "40000", b"a", &far);
    let outcome = rig.archived(Format::Tar).await;
    let Err(BrowseError::Stars { path, line, .. }) = outcome else { panic!("{outcome:?}") };
    assert_eq!((&*path, line), (".gitattributes", 2));
    // Those that archives have nothing to do with do not matter, and some are as many as needed.
    let attributes = format!("{} text\n{} export-ignore\n", stars(20), stars(4));
    with_attributes(&rig, &attributes, "40000", b"a", &far);
    rig.archived(Format::Tar).await.unwrap();
}

/// A line takes a moment, and many take many; whoever waits for one entry does not.
#[tokio::test]
async fn attributes_are_not_matched_for_longer_than_an_archive_may_take() {
    let archive_time = Duration::from_millis(500);
    let rig = Rig::with(BrowseLimits { archive_time, ..BrowseLimits::default() });
    let line = format!("*{}b export-ignore\n", "[a]".repeat(600));
    let attributes = line.repeat(250_000 / line.len());
    let blob = rig.object("blob", b"x");
    with_attributes(&rig, &attributes, "100644", &[b'a'; 4000], &blob);
    let begun = Instant::now();
    let outcome = rig.archived(Format::Tar).await;
    assert!(matches!(outcome, Err(BrowseError::Late)), "{outcome:?}");
    assert!(begun.elapsed() < 20 * archive_time, "{:?}", begun.elapsed());
}
