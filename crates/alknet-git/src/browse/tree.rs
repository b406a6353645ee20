//! Folders.

use gix::{
    ObjectId,
    bstr::BStr,
    objs::{Kind, TreeRefIter, tree},
};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    BrowseError, Revision, TreePath,
    bounds::Budget,
    opened::Opened,
    refs::{is_false, text},
};

/// The most entries in one answer, and how many without a wish.
const MAX_ENTRIES: usize = 10_000;
const ENTRIES: usize = 1000;
/// How much text there may be in one answer, in bytes.
const MAX_TEXT: usize = 2 * 1024 * 1024;
/// About what an entry takes beside its name.
const ROW: usize = 160;

/// Which folder is asked for.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct TreeQuery {
    /// In which revision.
    pub revision: Revision,
    /// Where it is.
    pub path: TreePath,
    /// How many entries to pass over.
    pub skip: usize,
    /// How many at most.
    pub limit: Option<usize>,
}

/// What is in a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[non_exhaustive]
pub struct Tree {
    /// The id of the commit.
    pub rev: String,
    /// The id of the folder.
    pub id: String,
    /// In git's order: by name, where a folder's name counts as if it ended in a slash.
    pub entries: Vec<Entry>,
    /// Whether there are more behind these.
    pub more: bool,
}

/// An entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[non_exhaustive]
pub struct Entry {
    /// What it is called.
    pub name: String,
    /// Its mode, as git has it: 33188 (0o100644) for a plain file.
    pub mode: u32,
    /// What it is.
    pub kind: EntryKind,
    /// The id of its content; of a submodule, that of a commit elsewhere.
    pub id: String,
    /// How large the content of a file or a link is, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Whether the name is not UTF-8, and cannot be asked for.
    #[serde(default, skip_serializing_if = "is_false")]
    pub lossy: bool,
}

/// What an entry of a folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum EntryKind {
    /// A folder.
    Tree,
    /// A file.
    Blob,
    /// A file that is a program.
    Executable,
    /// A symbolic link, whose content is its target.
    Link,
    /// A submodule: a commit of another repository.
    Commit,
}

impl From<tree::EntryKind> for EntryKind {
    fn from(kind: tree::EntryKind) -> Self {
        match kind {
            tree::EntryKind::Tree => Self::Tree,
            tree::EntryKind::Blob => Self::Blob,
            tree::EntryKind::BlobExecutable => Self::Executable,
            tree::EntryKind::Link => Self::Link,
            tree::EntryKind::Commit => Self::Commit,
        }
    }
}

/// The folder that is asked for.
pub(super) fn tree(opened: &Opened, query: &TreeQuery) -> Result<Tree, BrowseError> {
    let commit = opened.resolve(&query.revision)?;
    let id = opened.folder(commit, &query.path)?;
    let mut buffer = Vec::new();
    let data = opened.find(id, Kind::Tree, &mut buffer)?;
    let limit = query.limit.unwrap_or(ENTRIES).min(MAX_ENTRIES);
    let mut budget = Budget::new(MAX_TEXT);
    let mut tree =
        Tree { rev: commit.to_string(), id: id.to_string(), entries: Vec::new(), more: false };
    for entry in TreeRefIter::from_bytes(data, opened.hash()).skip(query.skip) {
        let entry = entry.map_err(|error| opened.failed(error))?;
        let shown = opened.shown(&entry)?;
        let first = tree.entries.is_empty() && limit > 0;
        if tree.entries.len() >= limit || !budget.take(&shown.name, ROW) && !first {
            tree.more = true;
            break;
        }
        tree.entries.push(shown);
    }
    Ok(tree)
}

impl Opened {
    /// The id of the folder at a path in a commit.
    pub(super) fn folder(
        &self,
        commit: ObjectId,
        path: &TreePath,
    ) -> Result<ObjectId, BrowseError> {
        let (mode, id) = self.at(commit, path)?;
        match mode.is_tree() {
            true => Ok(id),
            false => Err(BrowseError::NotAFolder(path.to_string())),
        }
    }

    /// What is at a path in a commit.
    pub(super) fn at(
        &self,
        commit: ObjectId,
        path: &TreePath,
    ) -> Result<(tree::EntryMode, ObjectId), BrowseError> {
        let root = self.node(commit)?.tree;
        let found = self.entry(root, path)?;
        found.ok_or_else(|| BrowseError::NoPath(path.to_string()))
    }

    fn shown(&self, entry: &tree::EntryRef<'_>) -> Result<Entry, BrowseError> {
        let (name, lossy) = text(BStr::new(entry.filename));
        let kind = EntryKind::from(entry.mode.kind());
        let size = match kind {
            // What is missing has no size, and is still an entry.
            EntryKind::Blob | EntryKind::Executable | EntryKind::Link => {
                self.try_header(entry.oid.to_owned())?.map(|header| header.size())
            }
            EntryKind::Tree | EntryKind::Commit => None,
        };
        let mode = u32::from(entry.mode.value());
        Ok(Entry { name, mode, kind, id: entry.oid.to_string(), size, lossy })
    }
}
