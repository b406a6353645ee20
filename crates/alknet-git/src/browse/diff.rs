//! Changes.

mod changes;
mod hunks;

use gix::{
    ObjectId,
    objs::{
        Kind,
        tree::{EntryKind, EntryMode},
    },
};
use schemars::JsonSchema;
use serde::Serialize;

pub use hunks::Hunk;

use super::{
    BrowseError, Revision, TreePath,
    blob::is_binary,
    bounds::Budget,
    opened::Opened,
    refs::{is_false, text},
};
use changes::Change;

/// The most files in one answer.
const MAX_FILES: usize = 1000;
/// How much text there may be in one answer, and of one file, in bytes.
const MAX_TEXT: usize = 2 * 1024 * 1024;
const MAX_TEXT_OF_FILE: usize = 512 * 1024;
/// About what a file takes beside its names.
const ROW: usize = 400;
/// The largest file that is compared, in bytes.
const MAX_COMPARED: u64 = 1024 * 1024;
/// How many lines around a change are shown, and at most.
const CONTEXT: u32 = 3;
const MAX_CONTEXT: u32 = 100;

/// Which changes are asked for.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct DiffQuery {
    /// What is compared with; the first parent where it is not said.
    pub from: Option<Revision>,
    /// What has changed.
    pub to: Revision,
    /// Only in this file or folder.
    pub path: TreePath,
    /// How many lines around a change are shown.
    pub context: Option<u32>,
}

/// Changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[non_exhaustive]
pub struct Diff {
    /// The id of the commit that is compared with; null if there is none before.
    pub from: Option<String>,
    /// The id of the commit that is looked at.
    pub to: String,
    /// In order of their paths.
    pub files: Vec<FileDiff>,
    /// Whether there are more changed files, or too much text in all.
    pub truncated: bool,
}

/// What has changed in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[non_exhaustive]
pub struct FileDiff {
    /// Where it is; where it was, if it is deleted.
    pub path: String,
    /// Where it was, if it was moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_path: Option<String>,
    /// What has happened to it.
    pub status: Status,
    /// Its mode before, as git has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_mode: Option<u32>,
    /// Its mode now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_mode: Option<u32>,
    /// The id of its content before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_id: Option<String>,
    /// The id of its content now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_id: Option<String>,
    /// Whether it is no text, and so not compared.
    pub binary: bool,
    /// How many lines were added.
    pub additions: u32,
    /// How many lines were taken away.
    pub deletions: u32,
    /// The changed lines, with those around them.
    pub hunks: Vec<Hunk>,
    /// Whether it is too large to be compared or shown whole.
    pub truncated: bool,
    /// Whether a path is not UTF-8, and cannot be asked for.
    #[serde(default, skip_serializing_if = "is_false")]
    pub lossy: bool,
}

/// What has happened to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Status {
    /// It is new.
    Added,
    /// It is gone.
    Deleted,
    /// Its content or its mode has changed.
    Modified,
    /// It was moved, and may have changed on the way.
    Renamed,
    /// It is of another kind: a link in place of a file.
    Type,
}

/// The changes that are asked for.
pub(super) fn diff(opened: &Opened, query: &DiffQuery) -> Result<Diff, BrowseError> {
    let to = opened.resolve(&query.to)?;
    let here = opened.node(to)?;
    let from = match &query.from {
        Some(from) => Some(opened.resolve(from)?),
        None => here.parents.first().copied(),
    };
    let before = from.map(|from| opened.node(from)).transpose()?.map(|node| node.tree);
    let (changes, is_cut) = changes::between(opened, before, here.tree, &query.path)?;
    let context = query.context.unwrap_or(CONTEXT).min(MAX_CONTEXT);
    let mut shown = Shown { opened, context, budget: Budget::new(MAX_TEXT) };
    let mut diff = Diff {
        from: from.map(|id| id.to_string()),
        to: to.to_string(),
        files: Vec::new(),
        truncated: is_cut || changes.len() > MAX_FILES,
    };
    for change in changes.iter().take(MAX_FILES) {
        match shown.file(change)? {
            Some(file) => diff.files.push(file),
            None => {
                diff.truncated = true;
                break;
            }
        }
    }
    diff.truncated |= shown.budget.is_spent();
    Ok(diff)
}

/// What is shown of the changes.
struct Shown<'a> {
    opened: &'a Opened,
    context: u32,
    budget: Budget,
}

impl Shown<'_> {
    /// A changed file; `None` if there is no room for it.
    fn file(&mut self, change: &Change) -> Result<Option<FileDiff>, BrowseError> {
        self.opened.brake.check()?;
        let (path, lossy) = text(change.path.as_ref());
        let old_path = change.old_path.as_ref().map(|path| text(path.as_ref()));
        let lossy = lossy || old_path.as_ref().is_some_and(|(_, lossy)| *lossy);
        let old_path = old_path.map(|(path, _)| path);
        let name = old_path.as_deref().unwrap_or_default();
        if !self.budget.take(&path, ROW) || !self.budget.take(name, 0) {
            return Ok(None);
        }
        let mode = |side: Option<(EntryMode, ObjectId)>| Some(u32::from(side?.0.value()));
        let id = |side: Option<(EntryMode, ObjectId)>| Some(side?.1.to_string());
        let mut file = FileDiff {
            path,
            old_path,
            status: change.status(),
            old_mode: mode(change.old),
            new_mode: mode(change.new),
            old_id: id(change.old),
            new_id: id(change.new),
            binary: false,
            additions: 0,
            deletions: 0,
            hunks: Vec::new(),
            truncated: false,
            lossy,
        };
        self.compare(change, &mut file)?;
        Ok(Some(file))
    }

    /// Adds the changed lines, if it is a text of reasonable size.
    fn compare(&mut self, change: &Change, file: &mut FileDiff) -> Result<(), BrowseError> {
        if file.old_id == file.new_id {
            return Ok(());
        }
        let Some(old) = self.content(change.old)? else {
            file.truncated = true;
            return Ok(());
        };
        let Some(new) = self.content(change.new)? else {
            file.truncated = true;
            return Ok(());
        };
        if is_binary(&old) || is_binary(&new) {
            file.binary = true;
            return Ok(());
        }
        let lines = hunks::compare(&old, &new, self.context, MAX_TEXT_OF_FILE, &mut self.budget);
        file.additions = lines.additions;
        file.deletions = lines.deletions;
        file.truncated = lines.truncated;
        file.hunks = lines.hunks;
        Ok(())
    }

    /// The content of a file, or what stands for it; `None` if it is too large.
    fn content(&self, side: Option<(EntryMode, ObjectId)>) -> Result<Option<Vec<u8>>, BrowseError> {
        let Some((mode, id)) = side else { return Ok(Some(Vec::new())) };
        if mode.kind() == EntryKind::Commit {
            return Ok(Some(format!("Subproject commit {id}\n").into_bytes()));
        }
        if self.opened.header(id)?.size() > MAX_COMPARED {
            return Ok(None);
        }
        let mut buffer = Vec::new();
        self.opened.find(id, Kind::Blob, &mut buffer)?;
        Ok(Some(buffer))
    }
}
