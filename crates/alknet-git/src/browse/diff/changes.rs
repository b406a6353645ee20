//! Which files differ.

use std::{collections::VecDeque, mem};

use gix::{
    ObjectId,
    bstr::{BStr, BString},
    diff::{
        Rewrites,
        blob::{Platform, pipeline},
        rewrites::Tracker,
        tree::{self, Visit, visit},
    },
    objs::{
        Kind, TreeRefIter,
        tree::{EntryKind, EntryMode},
    },
    worktree::stack::state::attributes::Source,
};

use super::{BrowseError, Opened, Status, TreePath};

/// The most entries that are looked at, and the most changes that are remembered.
const MAX_VISITED: usize = 200_000;
const MAX_CHANGES: usize = 3000;
/// How deep it is looked, and how many bytes the paths of those folders have at most that are
/// yet to be looked into.
const MAX_PATH: usize = 4096;
const MAX_LATER: usize = 16 * 1024 * 1024;
/// So many added and so many deleted files at most are compared with each other to find out
/// what was moved and changed at once; what was only moved is always found.
const MAX_MOVED: usize = 50;
/// How much of a moved file has to be as it was.
const SIMILAR: f32 = 0.5;

/// The mode and the content of a file.
pub(super) type Side = (EntryMode, ObjectId);

/// A file that differs.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) path: BString,
    /// Where it was moved from.
    pub(super) old_path: Option<BString>,
    pub(super) old: Option<Side>,
    pub(super) new: Option<Side>,
}

impl Change {
    pub(super) fn status(&self) -> Status {
        let is_file =
            |side: Side| matches!(side.0.kind(), EntryKind::Blob | EntryKind::BlobExecutable);
        match (self.old, self.new) {
            (None, _) => Status::Added,
            (_, None) => Status::Deleted,
            _ if self.old_path.is_some() => Status::Renamed,
            (Some(old), Some(new)) => {
                let same = old.0.kind() == new.0.kind() || is_file(old) && is_file(new);
                if same { Status::Modified } else { Status::Type }
            }
        }
    }
}

/// What differs between two folders, in order of the paths, and whether there is more.
pub(super) fn between(
    opened: &Opened,
    old: Option<ObjectId>,
    new: ObjectId,
    path: &TreePath,
) -> Result<(Vec<Change>, bool), BrowseError> {
    let old = old.map(|tree| opened.entry(tree, path)).transpose()?.flatten();
    let new = opened.entry(new, path)?;
    if old == new {
        return Ok((Vec::new(), false));
    }
    let mut found = Found::new(opened, path.as_str().into());
    // A file that became a folder is gone, and the files in the folder are new.
    let folder = |side: Option<Side>| side.filter(|side| side.0.is_tree()).map(|side| side.1);
    let file = |side: Option<Side>| side.filter(|side| !side.0.is_tree());
    if file(old).is_some() || file(new).is_some() {
        found.push(path.as_str().into(), file(old), file(new));
    }
    if folder(old).is_some() || folder(new).is_some() {
        found.folders(folder(old), folder(new))?;
    }
    let is_cut = found.is_cut;
    let mut changes = if is_cut { found.unmoved() } else { found.moved()? };
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    Ok((changes, is_cut))
}

/// What was found so far.
struct Found<'a> {
    opened: &'a Opened,
    /// The folder that is looked into.
    path: BString,
    /// Those that are yet to be looked into.
    later: VecDeque<BString>,
    /// How many bytes their paths have.
    waiting: usize,
    changes: Vec<(BString, visit::Change)>,
    modified: Vec<Change>,
    visited: usize,
    is_cut: bool,
    braked: Option<BrowseError>,
}

impl<'a> Found<'a> {
    fn new(opened: &'a Opened, path: BString) -> Self {
        Self {
            opened,
            path,
            later: VecDeque::new(),
            waiting: 0,
            changes: Vec::new(),
            modified: Vec::new(),
            visited: 0,
            is_cut: false,
            braked: None,
        }
    }

    fn folders(&mut self, old: Option<ObjectId>, new: Option<ObjectId>) -> Result<(), BrowseError> {
        let opened = self.opened;
        let (mut before, mut after) = (Vec::new(), Vec::new());
        let read = |id: Option<ObjectId>, buffer: &mut Vec<u8>| match id {
            Some(id) => opened.find(id, Kind::Tree, buffer).map(|_| ()),
            None => Ok(()),
        };
        read(old, &mut before)?;
        read(new, &mut after)?;
        let hash = opened.hash();
        let before = TreeRefIter::from_bytes(&before, hash);
        let after = TreeRefIter::from_bytes(&after, hash);
        let state = tree::State::default();
        match gix::diff::tree(before, after, state, opened.objects(), self) {
            Ok(()) => Ok(()),
            Err(tree::Error::Cancelled) => self.braked.take().map_or(Ok(()), Err),
            Err(tree::Error::Failure(error)) => Err(opened.failed(error)),
        }
    }

    fn push(&mut self, path: BString, old: Option<Side>, new: Option<Side>) {
        let change = match (old, new) {
            (Some(_), Some(_)) => {
                self.modified.push(Change { path, old_path: None, old, new });
                return;
            }
            (Some((entry_mode, oid)), None) => {
                visit::Change::Deletion { entry_mode, oid, relation: None }
            }
            (None, Some((entry_mode, oid))) => {
                visit::Change::Addition { entry_mode, oid, relation: None }
            }
            (None, None) => return,
        };
        self.changes.push((path, change));
    }

    /// All changes as they are.
    fn unmoved(self) -> Vec<Change> {
        let change = |(path, change)| one(path, &change);
        self.changes.into_iter().map(change).chain(self.modified).collect()
    }

    /// All changes, where a file that is gone here and new there was moved.
    fn moved(mut self) -> Result<Vec<Change>, BrowseError> {
        let is_new = |(_, change): &(BString, visit::Change)| {
            matches!(change, visit::Change::Addition { .. })
        };
        let added = self.changes.iter().filter(|it| is_new(it)).count();
        if added == 0 || added == self.changes.len() {
            return Ok(self.unmoved());
        }
        let rewrites = Rewrites {
            copies: None,
            percentage: Some(SIMILAR),
            limit: MAX_MOVED,
            track_empty: false,
        };
        let mut tracker = Tracker::new(rewrites);
        let mut all = mem::take(&mut self.modified);
        for (path, change) in mem::take(&mut self.changes) {
            if let Some(change) = tracker.try_push_change(change, path.as_ref()) {
                all.push(one(path, &change));
            }
        }
        let mut platform = platform(self.opened)?;
        let emitted = tracker.emit(
            |there, from| {
                let mut change = one(there.location.to_owned(), &there.change);
                if let Some(from) = from {
                    change.old = Some((from.entry_mode, from.id));
                    change.old_path = Some(from.location.to_owned());
                }
                all.push(change);
                visit::Action::Continue(())
            },
            &mut platform,
            &self.opened.objects(),
            |_| Ok::<_, std::convert::Infallible>(()),
        );
        emitted.map_err(|error| self.opened.failed(error))?;
        Ok(all)
    }
}

/// A change by itself.
fn one(path: BString, change: &visit::Change) -> Change {
    let (old, new) = match *change {
        visit::Change::Addition { entry_mode, oid, .. } => (None, Some((entry_mode, oid))),
        visit::Change::Deletion { entry_mode, oid, .. } => (Some((entry_mode, oid)), None),
        visit::Change::Modification { previous_entry_mode, previous_oid, entry_mode, oid } => {
            (Some((previous_entry_mode, previous_oid)), Some((entry_mode, oid)))
        }
    };
    Change { path, old_path: None, old, new }
}

/// What compares files. It reads them as they are: no filter and no program of anybody.
fn platform(opened: &Opened) -> Result<Platform, BrowseError> {
    let failed = |error| opened.failed(error);
    let nothing = gix::index::State::new(opened.hash());
    let attributes = opened.git().attributes_only(&nothing, Source::IdMapping);
    let attributes = attributes.map_err(failed)?.detach();
    let roots = pipeline::WorktreeRoots::default();
    let mode = pipeline::Mode::ToGit;
    gix::diff::resource_cache(opened.git(), mode, attributes, roots).map_err(failed)
}

impl Visit for Found<'_> {
    fn pop_front_tracked_path_and_set_current(&mut self) {
        self.path = self.later.pop_front().unwrap_or_default();
        self.waiting -= self.path.len();
    }

    fn push_back_tracked_path_component(&mut self, component: &BStr) {
        self.push_path_component(component);
        self.waiting += self.path.len();
        self.later.push_back(self.path.clone());
    }

    fn push_path_component(&mut self, component: &BStr) {
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(component);
    }

    fn pop_path_component(&mut self) {
        let parent = self.path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
        self.path.truncate(parent);
    }

    fn visit(&mut self, change: visit::Change) -> visit::Action {
        self.visited += 1;
        if let Err(braked) = self.opened.brake.check() {
            self.braked = Some(braked);
            return visit::Action::Break(());
        }
        let found = self.changes.len() + self.modified.len();
        let is_much = self.visited > MAX_VISITED || self.waiting > MAX_LATER;
        if is_much || found >= MAX_CHANGES || self.path.len() > MAX_PATH {
            self.is_cut = true;
            return visit::Action::Break(());
        }
        let change = one(self.path.clone(), &change);
        let file = |side: Option<Side>| side.filter(|side| !side.0.is_tree());
        self.push(change.path, file(change.old), file(change.new));
        visit::Action::Continue(())
    }
}
