//! Histories and files that people seldom make.

use std::fmt::Write as _;

use super::{changes::differences_are_those_of_git, history::history_is_gits, *};

/// Numbers that are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % sides
    }
}

const PATHS: [&str; 5] = ["a", "d/b", "d/c", "d/e/f", "a b"];
const KINDS: [(&str, &str); 6] = [
    ("100644", "one\ntwo\nthree\n"),
    ("100644", "one\ntwo\n3"),
    ("100755", "one\r\ntwo\r\n"),
    ("100644", "\u{feff}one\n\ttwo\n"),
    ("120000", "one"),
    ("100644", "a\0b"),
];

/// Commits with up to three parents, of times that are equal or go backwards, which take files
/// from here and there.
fn tangle(seed: u64) -> String {
    let mut dice = Dice(seed);
    let mut text = String::new();
    for at in 1..60u64 {
        let time = 1_700_000_000 + at / 2 * 60 - dice.roll(2) * 90;
        writeln!(text, "commit refs/heads/main\nmark :{at}").unwrap();
        writeln!(text, "committer Bob <bob@example.org> {time} +0100").unwrap();
        writeln!(text, "data {}\n{at}", at.to_string().len()).unwrap();
        let mut parents = Vec::new();
        if at > 1 && dice.roll(20) > 0 {
            for _ in 0..=dice.roll(3) {
                let parent = at - 1 - dice.roll(5.min(at - 1));
                if !parents.contains(&parent) {
                    parents.push(parent);
                }
            }
        }
        for (which, parent) in parents.iter().enumerate() {
            let word = if which == 0 { "from" } else { "merge" };
            writeln!(text, "{word} :{parent}").unwrap();
        }
        if parents.is_empty() && at > 1 {
            text.push_str("from 0000000000000000000000000000000000000000\n");
        }
        for path in PATHS {
            match dice.roll(5) {
                0 => writeln!(text, "D {path}").unwrap(),
                1 => {
                    let (mode, content) = KINDS[usize::try_from(dice.roll(6)).unwrap()];
                    writeln!(text, "M {mode} inline {path}\ndata {}", content.len()).unwrap();
                    writeln!(text, "{content}").unwrap();
                }
                _ => {}
            }
        }
        writeln!(text, "\nreset refs/heads/c{at}\nfrom :{at}\n").unwrap();
    }
    text
}

#[tokio::test]
async fn tangled_histories_are_those_of_git() {
    for seed in 0..4 {
        let rig = Rig::new();
        rig.feed(&["fast-import", "--quiet", "--force"], tangle(seed).as_bytes());
        for revision in ["main", "c50", "c31"] {
            for path in ["", "a", "d", "d/b", "d/c", "d/e", "a b", "none"] {
                history_is_gits(&rig, revision, path).await;
            }
        }
        for (from, to) in [("c59", "c58"), ("c40", "c59"), ("c59", "c20"), ("c7", "c30")] {
            differences_are_those_of_git(&rig, from, to).await;
        }
    }
}

/// As many editors still write it.
#[tokio::test]
async fn texts_of_a_commit_may_be_in_another_encoding() {
    let rig = Rig::new();
    rig.write("a", "a\n");
    rig.commit("first");
    let latin = b"tree TREE\nauthor J\xf6rg <j@example.org> 1700000000 +0100\n\
        committer J\xf6rg <j@example.org> 1700000000 +0100\nencoding ISO-8859-1\n\nGr\xfc\xdfe\n";
    let tree = rig.git(&["rev-parse", "HEAD^{tree}"]);
    let at = latin.windows(4).position(|it| it == b"TREE").unwrap();
    let commit = [&latin[..at], tree.trim().as_bytes(), &latin[at + 4..]].concat();
    rig.push();
    let id = rig.feed(&["hash-object", "-t", "commit", "-w", "--stdin"], &commit);
    rig.there(&["update-ref", "refs/heads/main", &id]);
    history_is_gits(&rig, "main", "").await;
    let log = rig.log(of("main")).await.unwrap();
    assert_eq!((&*log.commits[0].author.name, &*log.commits[0].message), ("Jörg", "Grüße\n"));
}

/// An encoding that nobody knows, and one that the text is not in.
#[tokio::test]
async fn an_odd_encoding_does_no_harm() {
    let rig = Rig::new();
    rig.save("a", "a\n");
    rig.push();
    let tree = rig.git(&["rev-parse", "HEAD^{tree}"]);
    for encoding in ["x-unknown", "", "UTF-16LE", "utf-8", "ISO-2022-JP"] {
        let commit = format!(
            "tree {}\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\nencoding {encoding}\n\nplain\n",
            tree.trim()
        );
        let hash = ["hash-object", "-t", "commit", "-w", "--stdin", "--literally"];
        let id = rig.feed(&hash, commit.as_bytes());
        rig.there(&["update-ref", "refs/heads/main", &id]);
        let log = rig.log(of("main")).await.unwrap();
        assert!(!log.commits[0].message.is_empty(), "{encoding:?}");
        assert_eq!(log.commits[0].id, id);
    }
}

/// A served repository of which somebody has checked out a commit by its id.
#[tokio::test]
async fn head_may_be_no_branch() {
    let rig = Rig::new();
    let first = rig.save("a", "1\n");
    rig.save("a", "2\n");
    rig.push();
    rig.there(&["update-ref", "--no-deref", "HEAD", &first]);
    let head = rig.refs().await.unwrap().head;
    assert_eq!((head.branch, head.id.as_deref()), (None, Some(&*first)));
    assert_eq!(rig.log(of("HEAD")).await.unwrap().rev, first);
}
