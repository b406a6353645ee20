//! Changes.

use std::os::unix::fs::symlink;

use super::*;

/// The hunks of a file, as git prints them.
fn printed(file: &FileDiff) -> Vec<String> {
    let mut lines = Vec::new();
    for hunk in &file.hunks {
        let span = |start: u32, lines: u32| match lines {
            1 => start.to_string(),
            _ => format!("{start},{lines}"),
        };
        let (old, new) =
            (span(hunk.old_start, hunk.old_lines), span(hunk.new_start, hunk.new_lines));
        lines.push(format!("@@ -{old} +{new} @@"));
        lines.extend(hunk.lines.iter().cloned());
    }
    lines
}

/// The changes that git prints, by path: its words for what has happened, and the hunks.
fn git_says(rig: &Rig, arguments: &[&str]) -> Vec<(String, Vec<String>)> {
    let mut all = vec!["diff", "--no-color", "--find-renames", "--full-index", "--no-ext-diff"];
    all.extend(arguments);
    let mut files: Vec<(String, Vec<String>)> = Vec::new();
    let mut in_hunks = false;
    for line in rig.there(&all).split_terminator('\n') {
        if line.starts_with("diff --git ") {
            let path = line.rsplit(" b/").next().unwrap();
            files.push((path.to_owned(), Vec::new()));
            in_hunks = false;
            continue;
        }
        let hunks = &mut files.last_mut().unwrap().1;
        if let Some(rest) = line.strip_prefix("@@ ") {
            in_hunks = true;
            hunks.push(format!("@@ {} @@", rest.split(" @@").next().unwrap()));
        } else if in_hunks {
            hunks.push(line.to_owned());
        }
    }
    files
}

fn we_say(diff: &Diff) -> Vec<(String, Vec<String>)> {
    diff.files.iter().map(|file| (file.path.clone(), printed(file))).collect()
}

fn numbered(count: u32) -> String {
    (0..count).map(|number| format!("line {number}\n")).collect()
}

fn changed() -> Rig {
    let rig = Rig::new();
    rig.write("long.txt", numbered(100));
    rig.write("moved.txt", numbered(40));
    rig.write("exact.txt", "just moved\n");
    rig.write("gone.txt", "gone\n");
    rig.write("bare.txt", "no end");
    rig.write("binary", b"a\0b");
    rig.write("becomes/folder", "a file in a folder\n");
    rig.write("crlf.txt", "a\r\nb\r\n");
    rig.write("mode.sh", "#!/bin/sh\n");
    rig.write("empty", "");
    rig.commit("first");
    let text = numbered(100).replace("line 10\n", "line ten\n").replace("line 15\n", "");
    let text = text.replace("line 60\n", "line 60\nand a half\n") + "line 100\n";
    rig.write("long.txt", text);
    for (from, to) in [("moved.txt", "there/renamed.txt"), ("exact.txt", "there/exact.txt")] {
        fs::create_dir_all(rig.work().join("there")).unwrap();
        fs::rename(rig.work().join(from), rig.work().join(to)).unwrap();
    }
    rig.write("there/renamed.txt", numbered(40).replace("line 7\n", "line seven\n"));
    fs::remove_file(rig.work().join("gone.txt")).unwrap();
    rig.write("bare.txt", "no end\nnow one");
    rig.write("binary", b"a\0c");
    rig.write("new.txt", "new\nfile\n");
    rig.write("crlf.txt", "a\nb\r\n");
    fs::remove_dir_all(rig.work().join("becomes")).unwrap();
    rig.write("becomes", "a file\n");
    rig.git(&["update-index", "--chmod=+x", "mode.sh"]);
    rig.git(&["config", "core.fileMode", "false"]);
    rig.commit("second");
    rig.push();
    rig
}

/// Compares what has changed from one revision to another with what git says, but for what was
/// moved: that is a guess.
pub(super) async fn differences_are_those_of_git(rig: &Rig, from: &str, to: &str) {
    let diff = rig.diff(Some(from), to).await.unwrap();
    let mut ours = Vec::new();
    for file in diff.files {
        let side = |mode: Option<u32>, id: Option<String>| {
            mode.zip(id).map(|(mode, id)| format!("{mode:06o} {id}"))
        };
        let (old, new) = (side(file.old_mode, file.old_id), side(file.new_mode, file.new_id));
        match file.old_path {
            Some(before) => ours.extend([(before, old, None), (file.path, None, new)]),
            None => ours.push((file.path, old, new)),
        }
    }
    ours.sort();
    let raw = rig.there(&["diff", "--raw", "--no-renames", "--no-abbrev", "-z", from, to]);
    let words: Vec<_> = raw.split_terminator('\0').collect();
    let theirs = words.chunks(2).map(|pair| {
        let about: Vec<_> = pair[0].trim_start_matches(':').split(' ').collect();
        let side = |mode: &str, id: &str| (mode != "000000").then(|| format!("{mode} {id}"));
        (pair[1].to_owned(), side(about[0], about[2]), side(about[1], about[3]))
    });
    assert_eq!(ours, theirs.collect::<Vec<_>>(), "{from} {to}");
}

#[tokio::test]
async fn changes_are_those_of_git() {
    let rig = changed();
    for (from, to) in [(None, "HEAD"), (Some("HEAD~1"), "HEAD"), (Some("HEAD"), "HEAD~1")] {
        let diff = rig.diff(from, to).await.unwrap();
        assert_eq!(we_say(&diff), git_says(&rig, &[from.unwrap_or("HEAD~1"), to]), "{from:?} {to}");
        assert!(!diff.truncated && diff.files.iter().all(|file| !file.truncated));
    }
    let diff = rig.diff(None, "HEAD").await.unwrap();
    let file = |path: &str| diff.files.iter().find(|it| it.path == path).unwrap();
    let renamed = file("there/renamed.txt");
    assert_eq!((renamed.status, renamed.old_path.as_deref()), (Status::Renamed, Some("moved.txt")));
    assert_eq!((renamed.additions, renamed.deletions), (1, 1));
    assert_eq!(file("there/exact.txt").old_path.as_deref(), Some("exact.txt"));
    assert!(file("there/exact.txt").hunks.is_empty());
    assert_eq!(file("gone.txt").status, Status::Deleted);
    assert_eq!(file("new.txt").status, Status::Added);
    assert!(file("binary").binary && file("binary").hunks.is_empty());
    let mode = file("mode.sh");
    assert_eq!((mode.old_mode, mode.new_mode), (Some(0o100_644), Some(0o100_755)));
    assert_eq!((mode.status, mode.hunks.len()), (Status::Modified, 0));
    assert_eq!(file("bare.txt").hunks[0].lines.last().unwrap(), "\\ No newline at end of file");
    let stat = rig.there(&["diff", "--numstat", "--find-renames", "HEAD~1", "HEAD"]);
    let lines = |sum: fn(&FileDiff) -> u32| diff.files.iter().map(sum).sum::<u32>();
    let column = |at: usize| {
        let number = |line: &str| line.split('\t').nth(at).unwrap().parse::<u32>().unwrap_or(0);
        stat.lines().map(number).sum::<u32>()
    };
    assert_eq!((lines(|it| it.additions), lines(|it| it.deletions)), (column(0), column(1)));
}

#[tokio::test]
async fn there_may_be_more_or_fewer_lines_around() {
    let rig = changed();
    for context in [0, 1, 5, 100] {
        let query = DiffQuery { context: Some(context), ..DiffQuery::default() };
        let diff = rig.browser.diff(&reader(), &rig.name, query).await.unwrap();
        let unified = format!("--unified={context}");
        assert_eq!(we_say(&diff), git_says(&rig, &[&unified, "HEAD~1", "HEAD"]), "{context}");
    }
}

#[tokio::test]
async fn the_first_commit_is_compared_with_nothing() {
    let rig = changed();
    let diff = rig.diff(None, "HEAD~1").await.unwrap();
    assert_eq!(diff.from, None);
    assert!(diff.files.iter().all(|file| file.status == Status::Added && file.old_id.is_none()));
    let nothing = rig.feed(&["hash-object", "-t", "tree", "--stdin"], b"");
    assert_eq!(we_say(&diff), git_says(&rig, &[&nothing, "HEAD~1"]));
}

#[tokio::test]
async fn only_a_part_may_be_compared() {
    let rig = changed();
    for path in ["long.txt", "there", "becomes", "becomes/folder", "none", "gone.txt"] {
        let query = DiffQuery { path: path.parse().unwrap(), ..DiffQuery::default() };
        let diff = rig.browser.diff(&reader(), &rig.name, query).await.unwrap();
        let says = git_says(&rig, &["HEAD~1", "HEAD", "--", path]);
        assert_eq!(we_say(&diff), says, "{path}");
    }
}

#[tokio::test]
async fn links_and_submodules_are_compared_by_what_they_lead_to() {
    let rig = Rig::new();
    symlink("one", rig.work().join("link")).unwrap();
    symlink("x", rig.work().join("typed")).unwrap();
    let first = rig.commit("first");
    let submodule = |commit: &str| format!("160000,{commit},sub");
    rig.git(&["update-index", "--add", "--cacheinfo", &submodule(&first)]);
    rig.git(&["commit", "--quiet", "--message", "sub"]);
    let second = rig.git(&["rev-parse", "HEAD"]).trim().to_owned();
    rig.git(&["update-index", "--cacheinfo", &submodule(&second)]);
    fs::remove_file(rig.work().join("link")).unwrap();
    symlink("two", rig.work().join("link")).unwrap();
    fs::remove_file(rig.work().join("typed")).unwrap();
    fs::write(rig.work().join("typed"), "a file\n").unwrap();
    rig.git(&["add", "link", "typed"]);
    rig.git(&["commit", "--quiet", "--message", "third"]);
    rig.push();
    let diff = rig.diff(None, "HEAD").await.unwrap();
    let of = |path: &str| diff.files.iter().find(|it| it.path == path).unwrap();
    assert_eq!(
        of("link").hunks[0].lines,
        ["-one", "\\ No newline at end of file", "+two", "\\ No newline at end of file",]
    );
    let lines = [format!("-Subproject commit {first}"), format!("+Subproject commit {second}")];
    assert_eq!(of("sub").hunks[0].lines, lines);
    assert_eq!(of("typed").status, Status::Type);
    let added = rig.diff(None, "HEAD~1").await.unwrap();
    assert_eq!(
        added.files[0].hunks[0].lines,
        lines[..1].iter().map(|line| line.replace('-', "+")).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn what_is_too_much_is_cut_and_said_so() {
    let rig = Rig::new();
    rig.save("seed", "seed\n");
    rig.write("huge.txt", "x\n".repeat(600_000));
    rig.write("large.txt", "a line of some length, and then some\n".repeat(20_000));
    rig.write("small.txt", "small\n");
    rig.commit("large");
    for number in 0..1100 {
        rig.write(&format!("many/{number:04}"), format!("{number}\n"));
    }
    rig.commit("many");
    rig.push();
    let diff = rig.diff(None, "HEAD~1").await.unwrap();
    let of = |path: &str| diff.files.iter().find(|it| it.path == path).unwrap();
    assert!(of("huge.txt").truncated && of("huge.txt").hunks.is_empty());
    let large = of("large.txt");
    assert!(large.truncated && large.additions == 20_000);
    let hunk = &large.hunks[0];
    assert!(hunk.new_lines as usize == hunk.lines.len() && hunk.lines.len() > 1000);
    assert!(!of("small.txt").truncated && of("small.txt").hunks.len() == 1);
    let diff = rig.diff(None, "HEAD").await.unwrap();
    assert!(diff.truncated && diff.files.len() == 1000);
    let whole = rig.diff(Some("HEAD"), "HEAD").await.unwrap();
    assert!(!whole.truncated && whole.files.is_empty());
}
