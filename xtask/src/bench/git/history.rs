//! The repositories that are measured: the same bytes in every run.

use std::{
    fs,
    io::{BufWriter, Write},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::sh::Cmd;

/// Commits of the long history. A group of them is a branch beside the main one, merged by
/// the next.
pub(super) const COMMITS: usize = 51_200;
const GROUP: usize = 16;
/// Folders, files in each of them, and lines of a file.
const FOLDERS: usize = 40;
const FILES: usize = 40;
const LINES: usize = 150;
/// Lines that a commit replaces.
const CHANGED: usize = 40;
/// Branches of the repository that has many.
pub(super) const REFS: usize = 50_000;
/// Where time begins, in seconds of the epoch, and how far commits are apart.
const BEGIN: usize = 1_500_000_000;
const STEP: usize = 3_600;

/// Makes the long history in a bare repository, packed with bitmaps and a commit graph.
pub(super) fn long(repository: &Path) -> Result<()> {
    import(repository, |stream| {
        let mut history = History::new();
        history.first(stream)?;
        (1..COMMITS).try_for_each(|index| history.commit(index, stream))
    })?;
    // Importing leaves few deltas, and packing again takes what it finds for the best.
    git(repository, &["repack", "-q", "-a", "-d", "-f", "--write-bitmap-index"])?;
    git(repository, &["commit-graph", "write", "--reachable", "--no-progress"])?;
    git(repository, &["pack-refs", "--all"])
}

/// Makes a repository of one commit and many branches.
pub(super) fn many_refs(repository: &Path) -> Result<()> {
    import(repository, |stream| {
        commit(stream, "refs/heads/one", 0, "one", |stream| {
            data(stream, "M 100644 inline file", b"content\n")
        })?;
        (1..REFS).try_for_each(|index| {
            Ok(write!(stream, "reset refs/heads/topic/{index:06}\nfrom :1\n\n")?)
        })
    })?;
    git(repository, &["gc", "--quiet"])
}

/// Makes a repository whose branch `main` is one commit.
pub(super) fn small(repository: &Path) -> Result<()> {
    import(repository, |stream| {
        commit(stream, "refs/heads/main", 0, "begin", |stream| {
            data(stream, "M 100644 inline file", b"content\n")
        })
    })
}

/// Makes a repository whose branch `new` has this many objects.
pub(super) fn objects(repository: &Path, count: usize) -> Result<()> {
    let mut text = Text::new(2);
    let folders = count / 100;
    // What is left besides the commit, its root folder and the folders in it.
    let files = count - 2 - folders;
    import(repository, |stream| {
        commit(stream, "refs/heads/new", 0, "new", |stream| {
            (0..files).try_for_each(|file| {
                let path = format!("M 100644 inline d{:03}/{file:05}", file % folders);
                let lines = 20 + file % 60;
                data(stream, &path, text.lines(lines).concat().as_bytes())
            })
        })
    })?;
    let listed = Cmd::new(repository, "git").args(["rev-list", "--objects", "--all"]).read()?;
    ensure!(listed.lines().count() == count, "{} objects, not {count}", listed.lines().count());
    git(repository, &["repack", "-a", "-d", "-q"])
}

fn git(repository: &Path, args: &[&str]) -> Result<()> {
    Cmd::new(repository, "git").args(args).run()
}

/// Makes a bare repository of what is written to `git fast-import`.
fn import(repository: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    fs::create_dir_all(repository)?;
    git(repository, &["init", "--quiet", "--bare", "--initial-branch=main", "."])?;
    let mut importer = Command::new("git")
        .args(["fast-import", "--quiet", "--done"])
        .current_dir(repository)
        .stdin(Stdio::piped())
        .spawn()?;
    let stdin = importer.stdin.take().context("git fast-import has no input")?;
    let mut stream = BufWriter::with_capacity(1 << 20, stdin);
    write(&mut stream)?;
    stream.write_all(b"done\n")?;
    stream.flush()?;
    drop(stream);
    ensure!(importer.wait()?.success(), "git fast-import failed");
    Ok(())
}

/// A commit whose mark is one more than its index; what follows it is up to the caller.
fn commit(
    stream: &mut dyn Write,
    branch: &str,
    index: usize,
    message: &str,
    rest: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    let who = format!("Author {} <author{}@bench.example>", index % 97, index % 97);
    let when = BEGIN + index * STEP;
    writeln!(stream, "commit {branch}\nmark :{}", index + 1)?;
    writeln!(stream, "author {who} {when} +0000\ncommitter {who} {when} +0000")?;
    data(stream, "", message.as_bytes())?;
    rest(stream)?;
    Ok(writeln!(stream)?)
}

fn data(stream: &mut dyn Write, before: &str, content: &[u8]) -> Result<()> {
    if !before.is_empty() {
        writeln!(stream, "{before}")?;
    }
    writeln!(stream, "data {}", content.len())?;
    stream.write_all(content)?;
    Ok(writeln!(stream)?)
}

/// Lines of words that compress about as sources do.
struct Text {
    random: fastrand::Rng,
    words: Vec<String>,
}

impl Text {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut word = || {
            let letters = random.usize(2..12);
            String::from_iter((0..letters).map(|_| random.lowercase()))
        };
        let words = Vec::from_iter((0..4000).map(|_| word()));
        Self { random, words }
    }

    fn line(&mut self) -> String {
        let mut line = " ".repeat(4 * self.random.usize(0..4));
        for _ in 0..self.random.usize(1..10) {
            line += self.random.choice(&self.words).map_or("", String::as_str);
            line.push(' ');
        }
        line.push('\n');
        line
    }

    fn lines(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.line()).collect()
    }
}

/// Files as they are after the commits so far.
struct History {
    text: Text,
    files: Vec<Vec<String>>,
    /// Changed on the branch that is not merged yet.
    aside: Vec<usize>,
}

impl History {
    fn new() -> Self {
        let mut text = Text::new(1);
        let files = (0..FOLDERS * FILES).map(|_| text.lines(LINES)).collect();
        Self { text, files, aside: Vec::new() }
    }

    fn first(&self, stream: &mut dyn Write) -> Result<()> {
        commit(stream, "refs/heads/main", 0, "Begin\n", |stream| {
            (0..self.files.len()).try_for_each(|file| self.file(stream, file))
        })
    }

    /// The first half of a group is on the main branch and has the files of an even number,
    /// the second, from where the group began, those of an odd one.
    fn commit(&mut self, index: usize, stream: &mut dyn Write) -> Result<()> {
        let place = index % GROUP;
        let aside = place >= GROUP / 2;
        let file = self.text.random.usize(0..self.files.len() / 2) * 2 + usize::from(aside);
        self.change(file);
        let message = self.text.lines(3).concat().trim_start().to_owned();
        let branch = if aside { "refs/heads/side" } else { "refs/heads/main" };
        let merged = if place == 0 { std::mem::take(&mut self.aside) } else { Vec::new() };
        if aside {
            self.aside.push(file);
        }
        commit(stream, branch, index, &message, |stream| {
            if place == GROUP / 2 {
                writeln!(stream, "from :{}", index - GROUP / 2 + 1)?;
            }
            if place == 0 {
                writeln!(stream, "merge :{index}")?;
            }
            merged.iter().chain([&file]).try_for_each(|file| self.file(stream, *file))
        })
    }

    fn change(&mut self, file: usize) {
        let at = self.text.random.usize(0..LINES - CHANGED);
        let new = self.text.lines(CHANGED);
        if let Some(lines) =
            self.files.get_mut(file).and_then(|file| file.get_mut(at..at + CHANGED))
        {
            lines.iter_mut().zip(new).for_each(|(line, new)| *line = new);
        }
    }

    fn file(&self, stream: &mut dyn Write, file: usize) -> Result<()> {
        let content = self.files.get(file).map(|lines| lines.concat()).unwrap_or_default();
        let path = format!("M 100644 inline d{:02}/f{:02}.txt", file / FILES, file % FILES);
        data(stream, &path, content.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Groups of commits are written alike whatever their number.
    #[test]
    fn a_branch_begins_with_its_group_and_is_merged_after_it() {
        let mut history = History::new();
        let mut stream = Vec::new();
        for index in 1..=2 * GROUP {
            history.commit(index, &mut stream).unwrap();
        }
        let text = String::from_utf8(stream).unwrap();
        let lines = |beginning: &str| {
            Vec::from_iter(text.lines().filter(|line| line.starts_with(beginning)))
        };
        assert_eq!(lines("from"), ["from :1", "from :17"]);
        assert_eq!(lines("merge"), ["merge :16", "merge :32"]);
    }
}
