//! From commit to commit.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashSet},
};

use gix::{
    ObjectId,
    objs::{CommitRefIter, Kind, commit::ref_iter::Token},
};

use super::{BrowseError, opened::Opened};

/// The most ids that a walk keeps in memory: of the commits that it has found, and of the
/// parents of those that it has not visited yet.
const MAX_KEPT: usize = 2_000_000;
/// The most parents of a commit. Real merges have a few dozen at most; a hostile commit has as
/// many as there are lines in it.
pub(super) const MAX_PARENTS: usize = 1024;

/// A commit, as far as its place in history goes.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Node {
    /// When it was committed, in seconds since 1970.
    pub(super) time: i64,
    /// Counts down: of two commits of one second, the one that was found first is first.
    order: Reverse<u64>,
    pub(super) id: ObjectId,
    pub(super) tree: ObjectId,
    pub(super) parents: Vec<ObjectId>,
}

impl Opened {
    /// A commit's place in history; one with too many parents is damaged. Where history is cut
    /// off (a repository that was pushed to from a shallow clone), there are no parents.
    pub(super) fn node(&self, id: ObjectId) -> Result<Node, BrowseError> {
        let mut buffer = Vec::new();
        let data = self.find(id, Kind::Commit, &mut buffer)?;
        let mut node = Node {
            time: 0,
            order: Reverse(0),
            id,
            tree: ObjectId::null(self.hash()),
            parents: Vec::new(),
        };
        for token in CommitRefIter::from_bytes(data, self.hash()) {
            match token.map_err(|error| self.failed(error))? {
                Token::Tree { id } => node.tree = id,
                Token::Parent { .. } if node.parents.len() >= MAX_PARENTS => {
                    return Err(BrowseError::Missing(id));
                }
                Token::Parent { id } => node.parents.push(id),
                Token::Committer { signature } => {
                    node.time = signature.seconds();
                    break;
                }
                Token::Author { .. }
                | Token::Encoding(_)
                | Token::ExtraHeader(_)
                | Token::Message(_) => {}
            }
        }
        let shallow = self.git().shallow_commits().map_err(|error| self.failed(error))?;
        if shallow.is_some_and(|cut| cut.iter().any(|at| *at == id)) {
            node.parents = Vec::new();
        }
        Ok(node)
    }
}

/// A walk through history, the latest commit first, as git's own order is.
#[derive(Debug, Default)]
pub(super) struct Walk {
    queue: BinaryHeap<Node>,
    seen: HashSet<ObjectId>,
    /// How many parents those in the queue have.
    waiting: usize,
    order: u64,
}

impl Walk {
    /// Goes to a commit later, unless it was found before.
    pub(super) fn push(&mut self, opened: &Opened, id: ObjectId) -> Result<(), BrowseError> {
        if self.seen.contains(&id) {
            return Ok(());
        }
        if self.size() >= MAX_KEPT {
            return Err(BrowseError::Late);
        }
        let mut node = opened.node(id)?;
        node.order = Reverse(self.order);
        self.order += 1;
        self.seen.insert(id);
        self.put_back(node);
        Ok(())
    }

    /// The latest commit that was found and not visited yet.
    pub(super) fn next(&mut self) -> Option<Node> {
        let node = self.queue.pop()?;
        self.waiting -= node.parents.len();
        Some(node)
    }

    /// Visits a commit again, whose parents were not all found.
    pub(super) fn put_back(&mut self, node: Node) {
        self.waiting += node.parents.len();
        self.queue.push(node);
    }

    /// Whether a commit was found.
    pub(super) fn has_seen(&self, id: ObjectId) -> bool {
        self.seen.contains(&id)
    }

    /// How many were found.
    pub(super) fn len(&self) -> usize {
        self.seen.len()
    }

    /// How many ids are kept in memory.
    pub(super) fn size(&self) -> usize {
        self.seen.len() + self.waiting
    }
}
