//! Archives, as tar and unzip see them.

mod attributes;

use std::{
    collections::BTreeMap,
    io::{Cursor, Read as _},
    os::unix::fs::{PermissionsExt as _, symlink},
};

use super::*;

/// What is in an archive: the mode, where a link leads, the content, the time.
type Content = BTreeMap<Vec<u8>, (char, u32, Vec<u8>, u64)>;

fn of_tar(bytes: &[u8]) -> Content {
    let mut content = Content::new();
    for entry in tar::Archive::new(bytes).entries().unwrap() {
        let mut entry = entry.unwrap();
        let header = entry.header().clone();
        let (mode, time) = (header.mode().unwrap(), header.mtime().unwrap());
        let kind = match header.entry_type() {
            tar::EntryType::Directory => 'd',
            tar::EntryType::Symlink => 'l',
            tar::EntryType::Regular => '-',
            // What git says about the archive itself.
            tar::EntryType::XGlobalHeader => continue,
            other => panic!("{other:?}"),
        };
        let mut data = Vec::new();
        entry.read_to_end(&mut data).unwrap();
        if kind == 'l' {
            data = entry.link_name_bytes().unwrap().into_owned();
        }
        let path = entry.path_bytes().into_owned();
        assert!(content.insert(path, (kind, mode, data, time)).is_none());
    }
    content
}

fn furnished() -> Rig {
    let rig = Rig::new();
    rig.write("README.md", "# Notes\n");
    rig.write("src/a.rs", "fn a() {}\n");
    rig.write("src/deep/er/b.rs", "b\n".repeat(100_000));
    rig.write("run.sh", "#!/bin/sh\n");
    fs::set_permissions(rig.work().join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("src/a.rs", rig.work().join("link")).unwrap();
    symlink("x".repeat(150), rig.work().join("far")).unwrap();
    let long = format!("{}/{}/file", "l".repeat(80), "m".repeat(90));
    rig.write(&long, "long\n");
    rig.write("secret.txt", "not for export\n");
    rig.write("tests/one", "no\n");
    rig.write("docs/keep", "yes\n");
    rig.write("docs/drop.tmp", "no\n");
    rig.write("other.tmp", "yes\n");
    rig.write(".gitattributes", "secret.txt export-ignore\n/tests export-ignore\n");
    rig.write("docs/.gitattributes", "*.tmp export-ignore\n");
    rig.commit("first");
    let commit = rig.git(&["rev-parse", "HEAD"]).trim().to_owned();
    rig.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},sub")]);
    rig.git(&["commit", "--quiet", "--message", "second"]);
    rig.push();
    rig
}

impl Rig {
    async fn archive(&self, query: ArchiveQuery) -> Result<(String, Vec<u8>), BrowseError> {
        let mut archive = self.browser.archive(&reader(), &self.name, query).await?;
        let mut all = Vec::new();
        while let Some(chunk) = archive.next().await? {
            assert!(!chunk.is_empty() && chunk.len() <= 64 * 1024);
            all.extend_from_slice(&chunk);
        }
        assert!(archive.next().await?.is_none(), "it stays at its end");
        Ok((archive.name().to_owned(), all))
    }

    fn git_archive(&self, arguments: &[&str]) -> Content {
        let mut all = vec!["-c", "tar.umask=0002", "archive", "--format=tar"];
        all.extend(arguments);
        of_tar(&self.run(&self.served, &all, b"").stdout)
    }
}

fn query(revision: &str, format: Format) -> ArchiveQuery {
    ArchiveQuery::new(revision.parse().unwrap(), format)
}

#[tokio::test]
async fn an_archive_is_that_of_git() {
    let rig = furnished();
    let id = rig.there(&["rev-parse", "HEAD"]).trim().to_owned();
    let (name, plain) = rig.archive(query("HEAD", Format::Tar)).await.unwrap();
    assert_eq!(name, format!("notes-{}.tar", &id[..10]));
    let expected = rig.git_archive(&["HEAD"]);
    assert_eq!(of_tar(&plain), expected);
    for absent in ["secret.txt", "tests/", "tests/one", "docs/drop.tmp"] {
        assert!(!expected.contains_key(absent.as_bytes()), "{absent}");
    }
    let (name, packed) = rig.archive(query("main", Format::TarGz)).await.unwrap();
    assert!(name.ends_with(".tar.gz"));
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&*packed).read_to_end(&mut unpacked).unwrap();
    assert!(unpacked == plain, "packed is the same");
}

#[tokio::test]
async fn an_archive_may_be_of_a_folder_and_have_a_prefix() {
    let rig = furnished();
    let prefix: Prefix = "notes-1.0/x".parse().unwrap();
    let some = ArchiveQuery { prefix, ..query("HEAD~1", Format::Tar) };
    let (_, plain) = rig.archive(some).await.unwrap();
    let mut expected = rig.git_archive(&["--prefix=notes-1.0/x/", "HEAD~1"]);
    assert_eq!(of_tar(&plain), expected);
    let some = ArchiveQuery { path: "src".parse().unwrap(), ..query("HEAD", Format::Tar) };
    let (_, plain) = rig.archive(some).await.unwrap();
    // Of a folder git knows no time but now.
    expected = rig.git_archive(&["HEAD:src"]);
    let untimed = |content: Content| {
        content
            .into_iter()
            .map(|(path, (kind, mode, data, _))| (path, kind, mode, data))
            .collect::<Vec<_>>()
    };
    assert_eq!(untimed(of_tar(&plain)), untimed(expected));
    let none = ArchiveQuery { path: "README.md".parse().unwrap(), ..query("HEAD", Format::Tar) };
    assert!(matches!(rig.archive(none).await, Err(BrowseError::NotAFolder(_))));
}

#[tokio::test]
async fn a_zip_archive_has_the_same_in_it() {
    let rig = furnished();
    let (name, bytes) = rig.archive(query("HEAD", Format::Zip)).await.unwrap();
    assert!(name.ends_with(".zip"));
    let mut zip = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
    let id = rig.there(&["rev-parse", "HEAD"]);
    assert_eq!(zip.comment(), id.trim().as_bytes());
    let expected = rig.git_archive(&["HEAD"]);
    assert_eq!(zip.len(), expected.len());
    for at in 0..zip.len() {
        let mut file = zip.by_index(at).unwrap();
        let name = file.name().unwrap().into_owned();
        let (kind, mode, data, _) = &expected[name.as_bytes()];
        let unix = file.unix_mode().unwrap();
        assert_eq!(unix & 0o777, *mode, "{name}");
        assert_eq!((file.is_dir(), file.is_symlink()), (*kind == 'd', *kind == 'l'));
        let mut content = Vec::new();
        file.read_to_end(&mut content).unwrap();
        assert!(content == *data, "{name}");
        assert_eq!(file.last_modified().unwrap().year(), 2023);
    }
}

#[tokio::test]
async fn an_archive_that_fails_does_not_look_whole() {
    let rig = Rig::with(BrowseLimits { max_archived: 100_000, ..BrowseLimits::default() });
    // Nothing that packs well, so that there are several pieces.
    let noise = |seed: u64| {
        let mut state = seed;
        std::iter::repeat_with(move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
    };
    for number in 0..5 {
        rig.write(&format!("a{number}"), noise(number).take(90_000).collect::<Vec<_>>());
    }
    rig.write("z", noise(9).take(100_001).collect::<Vec<_>>());
    rig.commit("one is too large");
    rig.push();
    for format in [Format::Tar, Format::TarGz, Format::Zip] {
        let mut archive =
            rig.browser.archive(&reader(), &rig.name, query("HEAD", format)).await.unwrap();
        let mut all = Vec::new();
        let error = loop {
            match archive.next().await {
                Ok(Some(chunk)) => all.extend_from_slice(&chunk),
                Ok(None) => panic!("{format:?} looks whole"),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, BrowseError::TooLarge { size: 100_001, .. }), "{error:?}");
        assert!(all.len() > 200_000, "{format:?}: {}", all.len());
        match format {
            Format::Zip => assert!(zip::ZipArchive::new(Cursor::new(all)).is_err()),
            Format::Tar => assert!(!all.ends_with(&[0; 1024])),
            _ => assert!(flate2::read::GzDecoder::new(&*all).read_to_end(&mut Vec::new()).is_err()),
        }
    }
}

/// The thread that makes it ends, and its place is free again.
#[tokio::test]
async fn an_archive_that_nobody_takes_any_more_is_not_made() {
    let rig = Rig::with(BrowseLimits { archives: 1, ..BrowseLimits::default() });
    for number in 0..40 {
        rig.write(&format!("a{number}"), vec![number; 60_000]);
    }
    rig.commit("some");
    rig.push();
    for _ in 0..5 {
        let some = query("HEAD", Format::Tar);
        let mut archive = rig.browser.archive(&reader(), &rig.name, some).await.unwrap();
        archive.next().await.unwrap().unwrap();
        drop(archive);
    }
    rig.archive(query("HEAD", Format::Tar)).await.unwrap();
}

/// Its place is free for others.
#[tokio::test]
async fn an_archive_that_is_not_read_ends() {
    let stall = Duration::from_millis(50);
    let rig = Rig::with(BrowseLimits { archives: 1, stall, ..BrowseLimits::default() });
    rig.write("a", vec![0; 4_000_000]);
    rig.commit("some");
    rig.push();
    let some = || query("HEAD", Format::Tar);
    let mut stalled = rig.browser.archive(&reader(), &rig.name, some()).await.unwrap();
    let other = caller("git:read");
    let mut whole = rig.browser.archive(&other, &rig.name, some()).await.unwrap();
    let outcome = loop {
        match stalled.next().await {
            Ok(Some(_)) => {}
            end => break end,
        }
    };
    assert!(matches!(outcome, Err(BrowseError::Late)), "{outcome:?}");
    drop(stalled);
    whole.next().await.unwrap().unwrap();
}
