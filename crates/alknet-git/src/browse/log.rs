//! History.

use std::collections::HashMap;

use encoding_rs::{Encoding, ISO_2022_JP, UTF_8};
use gix::{
    ObjectId,
    actor::SignatureRef,
    objs::{CommitRef, Kind, tree::EntryMode},
};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    BrowseError, Revision, TreePath,
    bounds::{Budget, json_len},
    opened::Opened,
    refs::is_false,
    walk::{Node, Walk},
};

/// The most commits in one answer, and how many without a wish.
const MAX_COMMITS: usize = 1000;
const COMMITS: usize = 50;
/// The longest message and the longest name that are shown, in bytes.
const MAX_MESSAGE: usize = 64 * 1024;
const MAX_NAME: usize = 1024;
/// How much text there may be in one answer, in bytes.
const MAX_TEXT: usize = 2 * 1024 * 1024;
/// About what a commit takes beside its texts, and each of its parents.
const ROW: usize = 500;
const PARENT: usize = 70;
/// The most parents that are shown.
const MAX_PARENTS: usize = 256;
/// How many folders are remembered while files are followed.
const MAX_REMEMBERED: usize = 64 * 1024;

/// Which history is asked for.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct LogQuery {
    /// Where it ends.
    pub revision: Revision,
    /// Only commits that change this file or folder.
    pub path: TreePath,
    /// How many commits to pass over.
    pub skip: usize,
    /// How many at most.
    pub limit: Option<usize>,
}

/// A part of a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[non_exhaustive]
pub struct Log {
    /// The id of the commit that the history ends with.
    pub rev: String,
    /// The latest first. Of a file, those that have changed it: a merge that took it from one
    /// side as it was is passed over, and so is the other side (git's own simplification).
    pub commits: Vec<Commit>,
    /// Whether there are more behind these.
    pub more: bool,
    /// Whether looking took too long, so that older ones may be missing.
    pub truncated: bool,
}

/// A commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[non_exhaustive]
pub struct Commit {
    /// Its id.
    pub id: String,
    /// The id of its root folder.
    pub tree: String,
    /// The ids of the commits that it follows; several for a merge.
    pub parents: Vec<String>,
    /// Who wrote it, and when.
    pub author: Person,
    /// Who put it into this history, and when.
    pub committer: Person,
    /// What it is about.
    pub message: String,
    /// Whether the message is longer than it is shown.
    #[serde(default, skip_serializing_if = "is_false")]
    pub message_truncated: bool,
}

/// Who did something to a commit, in their own words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[non_exhaustive]
pub struct Person {
    /// What they are called.
    pub name: String,
    /// Their mail address.
    pub email: String,
    /// When they did it, in seconds since 1970.
    pub time: i64,
    /// How far east of UTC they were then, in minutes.
    pub offset: i32,
}

/// The part of a history that is asked for.
pub(super) fn log(opened: &Opened, query: &LogQuery) -> Result<Log, BrowseError> {
    let tip = opened.resolve(&query.revision)?;
    let mut log = Log { rev: tip.to_string(), commits: Vec::new(), more: false, truncated: false };
    let mut history = History::new(opened, tip, &query.path)?;
    match history.page(query, &mut log) {
        // What was found in time is worth something.
        Err(BrowseError::Late) => {
            log.truncated = true;
            log.more = false;
        }
        other => other?,
    }
    Ok(log)
}

struct History<'a> {
    opened: &'a Opened,
    path: &'a TreePath,
    walk: Walk,
    /// What stands at the path, by the root folder.
    known: HashMap<ObjectId, Option<(EntryMode, ObjectId)>>,
}

impl<'a> History<'a> {
    fn new(opened: &'a Opened, tip: ObjectId, path: &'a TreePath) -> Result<Self, BrowseError> {
        let mut walk = Walk::default();
        walk.push(opened, tip)?;
        Ok(Self { opened, path, walk, known: HashMap::new() })
    }

    fn page(&mut self, query: &LogQuery, log: &mut Log) -> Result<(), BrowseError> {
        let limit = query.limit.unwrap_or(COMMITS).min(MAX_COMMITS);
        let mut budget = Budget::new(MAX_TEXT);
        let mut skip = query.skip;
        while let Some(id) = self.next()? {
            if skip > 0 {
                skip -= 1;
                continue;
            }
            if log.commits.len() >= limit {
                log.more = true;
                break;
            }
            let commit = self.opened.commit(id)?;
            // The first is shown whatever its size, or nobody would get past it.
            if !budget.take(&commit.message, commit.overhead()) && !log.commits.is_empty() {
                log.more = true;
                break;
            }
            log.commits.push(commit);
        }
        Ok(())
    }

    /// The next commit that is of interest.
    fn next(&mut self) -> Result<Option<ObjectId>, BrowseError> {
        while let Some(node) = self.walk.next() {
            let (is_shown, parents) = self.simplified(&node)?;
            for parent in parents {
                self.walk.push(self.opened, parent)?;
            }
            if is_shown {
                return Ok(Some(node.id));
            }
        }
        Ok(None)
    }

    /// Whether a commit changes what is at the path, and where to go on: where a parent has
    /// the same there, only that one matters.
    fn simplified(&mut self, node: &Node) -> Result<(bool, Vec<ObjectId>), BrowseError> {
        if self.path.is_root() {
            return Ok((true, node.parents.clone()));
        }
        let here = self.at(node.tree)?;
        if node.parents.is_empty() {
            return Ok((here.is_some(), Vec::new()));
        }
        for &parent in &node.parents {
            let tree = self.opened.node(parent)?.tree;
            if self.at(tree)? == here {
                return Ok((false, vec![parent]));
            }
        }
        Ok((true, node.parents.clone()))
    }

    fn at(&mut self, tree: ObjectId) -> Result<Option<(EntryMode, ObjectId)>, BrowseError> {
        if let Some(known) = self.known.get(&tree) {
            return Ok(*known);
        }
        let found = self.opened.entry(tree, self.path)?;
        if self.known.len() >= MAX_REMEMBERED {
            self.known.clear();
        }
        self.known.insert(tree, found);
        Ok(found)
    }
}

impl Commit {
    /// What it takes in JSON beside its message.
    fn overhead(&self) -> usize {
        let people = [&self.author, &self.committer];
        let names = people.map(|person| json_len(&person.name) + json_len(&person.email));
        ROW + names.iter().sum::<usize>() + PARENT * self.parents.len()
    }
}

impl Opened {
    /// A commit as it is shown.
    pub(super) fn commit(&self, id: ObjectId) -> Result<Commit, BrowseError> {
        let mut buffer = Vec::new();
        let data = self.find(id, Kind::Commit, &mut buffer)?;
        let commit =
            CommitRef::from_bytes(data, self.hash()).map_err(|error| self.failed(error))?;
        let text = Text::of(&commit);
        let (message, message_truncated) = text.shortened(commit.message, MAX_MESSAGE);
        Ok(Commit {
            id: id.to_string(),
            tree: commit.tree().to_string(),
            parents: commit.parents().take(MAX_PARENTS).map(|id| id.to_string()).collect(),
            author: text.person(commit.author().ok()),
            committer: text.person(commit.committer().ok()),
            message,
            message_truncated,
        })
    }
}

/// What the texts of a commit are written in.
struct Text(&'static Encoding);

impl Text {
    /// UTF-8, unless the commit names something else that is known.
    fn of(commit: &CommitRef<'_>) -> Self {
        let named = commit.encoding.and_then(|name| Encoding::for_label(name));
        // In no other one is the name of the encoding itself to be read.
        let fits = |it: &&'static Encoding| it.is_ascii_compatible() || *it == ISO_2022_JP;
        Self(named.filter(fits).unwrap_or(UTF_8))
    }

    /// Somebody as they are shown; nobody where they cannot be read.
    fn person(&self, signature: Option<SignatureRef<'_>>) -> Person {
        let text = |text: &gix::bstr::BStr| self.shortened(text, MAX_NAME).0;
        let time = signature.and_then(|signature| signature.time().ok()).unwrap_or_default();
        Person {
            name: signature.map(|it| text(it.name)).unwrap_or_default(),
            email: signature.map(|it| text(it.email)).unwrap_or_default(),
            time: time.seconds,
            offset: time.offset / 60,
        }
    }

    /// The beginning of a text, and whether there is more.
    fn shortened(&self, text: &[u8], max: usize) -> (String, bool) {
        let beginning = text.get(..max).unwrap_or(text);
        let (shown, _) = self.0.decode_without_bom_handling(beginning);
        (shown.into_owned(), beginning.len() < text.len())
    }
}
