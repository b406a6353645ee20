//! Folders and files.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;

fn furnished() -> Rig {
    let rig = Rig::new();
    rig.write("README.md", "# Notes\n");
    rig.write("src/a.rs", "fn a() {}\n");
    rig.write("src/deep/er/b.rs", "b\n");
    rig.write("binary", b"a\0b");
    rig.write("latin", b"caf\xe9\n");
    rig.write("empty", "");
    rig.write("run.sh", "#!/bin/sh\n");
    fs::set_permissions(rig.work().join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("../outside/passwd", rig.work().join("link")).unwrap();
    rig.write("a b\u{1b}[31m\n\"x\"\\", "odd\n");
    rig.commit("first");
    // Names that are not UTF-8, and a submodule.
    let blob = rig.git(&["rev-parse", "HEAD:empty"]).trim().to_owned();
    let commit = rig.git(&["rev-parse", "HEAD"]).trim().to_owned();
    let index = [
        format!("100644 {blob}\tna").into_bytes(),
        b"\xefve\0".to_vec(),
        format!("160000 {commit}\tsub\0").into_bytes(),
    ];
    rig.run(&rig.work(), &["update-index", "-z", "--index-info"], &index.concat());
    rig.git(&["commit", "--quiet", "--message", "second"]);
    rig.push();
    rig
}

#[tokio::test]
async fn folders_are_those_of_git() {
    let rig = furnished();
    for path in ["", "src", "src/deep"] {
        let tree = rig.tree("HEAD", path).await.unwrap();
        let spec = format!("HEAD:{path}");
        let listed = rig.run(&rig.served, &["ls-tree", "-z", "--long", &spec], b"").stdout;
        let listed: Vec<_> = listed.split(|&byte| byte == 0).filter(|it| !it.is_empty()).collect();
        assert_eq!(tree.entries.len(), listed.len());
        for (entry, line) in tree.entries.iter().zip(listed) {
            let kind = match entry.kind {
                EntryKind::Tree => "tree",
                EntryKind::Commit => "commit",
                _ => "blob",
            };
            let size = entry.size.map_or_else(|| "-".into(), |size| size.to_string());
            let Entry { mode, id, name, .. } = entry;
            let ours = format!("{mode:06o} {kind} {id} {size:>7}\t{name}");
            assert_eq!(ours, String::from_utf8_lossy(line));
            assert_eq!(entry.lossy, std::str::from_utf8(line).is_err());
        }
        assert_eq!(tree.id, rig.there(&["rev-parse", &spec]).trim());
    }
    let entries = rig.tree("HEAD", "").await.unwrap().entries;
    let kind = |name: &str| entries.iter().find(|it| it.name == name).unwrap().kind;
    assert_eq!(kind("run.sh"), EntryKind::Executable);
    assert_eq!(kind("link"), EntryKind::Link);
    assert_eq!(kind("sub"), EntryKind::Commit);
    assert!(entries.iter().any(|it| it.lossy && it.name == "na\u{fffd}ve"));
}

#[tokio::test]
async fn pages_of_a_folder_are_the_whole() {
    let rig = furnished();
    let whole = rig.tree("HEAD", "").await.unwrap();
    assert!(!whole.more);
    let mut all = Vec::new();
    loop {
        let query = TreeQuery { skip: all.len(), limit: Some(3), ..TreeQuery::default() };
        let page = rig.browser.tree(&reader(), &rig.name, query).await.unwrap();
        all.extend(page.entries);
        if !page.more {
            break;
        }
    }
    assert_eq!(all, whole.entries);
}

#[tokio::test]
async fn what_is_not_there_is_an_error() {
    let rig = furnished();
    for path in ["none", "src/none", "README.md/x", "src/a.rs/x", "sub/x", "na\u{fffd}ve", "SRC"] {
        let outcome = rig.tree("HEAD", path).await;
        assert!(matches!(outcome, Err(BrowseError::NoPath(_))), "{path}: {outcome:?}");
        let outcome = rig.blob("HEAD", path).await;
        assert!(matches!(outcome, Err(BrowseError::NoPath(_))), "{path}: {outcome:?}");
    }
    for path in ["README.md", "link", "sub"] {
        let outcome = rig.tree("HEAD", path).await;
        assert!(matches!(outcome, Err(BrowseError::NotAFolder(_))), "{path}: {outcome:?}");
    }
    for path in ["", "src", "sub"] {
        let outcome = rig.blob("HEAD", path).await;
        assert!(matches!(outcome, Err(BrowseError::NotAFile(_))), "{path}: {outcome:?}");
    }
}

#[tokio::test]
async fn files_are_what_was_committed() {
    let rig = furnished();
    let readme = rig.blob("HEAD", "README.md").await.unwrap();
    assert_eq!((readme.text(), readme.size, readme.binary), (Some("# Notes\n"), 8, false));
    assert!(!readme.truncated && readme.kind == FileKind::Blob);
    assert_eq!(readme.id, rig.there(&["rev-parse", "HEAD:README.md"]).trim());
    let binary = rig.blob("HEAD", "binary").await.unwrap();
    assert_eq!((binary.text(), binary.binary, &*binary.content), (None, true, &b"a\0b"[..]));
    let latin = rig.blob("HEAD", "latin").await.unwrap();
    assert_eq!((latin.text(), latin.binary, &*latin.content), (None, false, &b"caf\xe9\n"[..]));
    let empty = rig.blob("HEAD", "empty").await.unwrap();
    assert_eq!((empty.text(), empty.size, empty.truncated), (Some(""), 0, false));
    let link = rig.blob("HEAD", "link").await.unwrap();
    assert_eq!((link.text(), link.kind), (Some("../outside/passwd"), FileKind::Link));
    assert_eq!(rig.blob("HEAD", "run.sh").await.unwrap().kind, FileKind::Executable);
    let odd = rig.blob("HEAD", "a b\u{1b}[31m\n\"x\"\\").await.unwrap();
    assert_eq!(odd.text(), Some("odd\n"));
}

#[tokio::test]
async fn a_large_file_is_read_in_ranges() {
    let rig = Rig::with(BrowseLimits { max_blob: 4_000_000, ..BrowseLimits::default() });
    let text = "zeile mit ümlaut\n".repeat(200_000);
    rig.write("text", &text);
    rig.write("huge", vec![b'x'; 4_000_001]);
    rig.commit("large");
    rig.push();
    let mut all = String::new();
    loop {
        let path = "text".parse().unwrap();
        let query = BlobQuery { path, offset: all.len() as u64, ..BlobQuery::default() };
        let part = rig.browser.blob(&reader(), &rig.name, query).await.unwrap();
        assert_eq!((part.offset, part.size), (all.len() as u64, text.len() as u64));
        all.push_str(part.text().unwrap());
        if !part.truncated {
            break;
        }
    }
    assert!(all == text, "the ranges are the whole");
    let outcome = rig.blob("HEAD", "huge").await;
    let too_large = BrowseError::TooLarge { size: 4_000_001, limit: 4_000_000 };
    assert_eq!(outcome.unwrap_err().to_string(), too_large.to_string());
}
