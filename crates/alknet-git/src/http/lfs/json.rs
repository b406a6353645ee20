//! What clients of Git LFS send and get. What they send beside this is of no use here.

use serde::{Deserialize, Serialize};

use crate::lfs::locks::{Filter, Named};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Operation {
    Download,
    Upload,
}

#[derive(Debug, Deserialize)]
pub(super) struct Batch {
    pub(super) operation: Operation,
    pub(super) transfers: Option<Vec<String>>,
    pub(super) hash_algo: Option<String>,
    pub(super) objects: Vec<Object>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Object {
    pub(super) oid: String,
    pub(super) size: u64,
}

/// The answer to a [`Batch`].
#[derive(Debug, Serialize)]
pub(super) struct Done {
    pub(super) transfer: &'static str,
    pub(super) objects: Vec<Outcome>,
    pub(super) hash_algo: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    pub(super) oid: String,
    pub(super) size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) actions: Option<Actions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<Fault>,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Actions {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) download: Option<Action>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) upload: Option<Action>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) verify: Option<Action>,
}

#[derive(Debug, Serialize)]
pub(super) struct Action {
    pub(super) href: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Fault {
    pub(super) code: u16,
    pub(super) message: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct Message {
    pub(super) message: &'static str,
}

#[derive(Debug, Deserialize)]
pub(super) struct ToLock {
    pub(super) path: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct ToUnlock {
    #[serde(default)]
    pub(super) force: bool,
}

/// A question about locks, in the query of a `GET`.
#[derive(Debug, Deserialize)]
pub(super) struct ToList {
    path: Option<String>,
    id: Option<String>,
    cursor: Option<String>,
    limit: Option<String>,
}

/// One of somebody who is about to push.
#[derive(Debug, Deserialize)]
pub(super) struct ToVerify {
    cursor: Option<String>,
    limit: Option<usize>,
}

/// What is said and not empty.
fn some(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

impl From<ToList> for Filter {
    fn from(asked: ToList) -> Self {
        let ToList { path, id, cursor, limit } = asked;
        let limit = limit.and_then(|limit| limit.parse().ok()).filter(|limit| *limit > 0);
        Self { path: some(path), id: some(id), cursor: some(cursor), limit }
    }
}

impl From<ToVerify> for Filter {
    fn from(asked: ToVerify) -> Self {
        let limit = asked.limit.filter(|limit| *limit > 0);
        Self { cursor: some(asked.cursor), limit, ..Self::default() }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Lock {
    id: String,
    path: String,
    locked_at: String,
    owner: Owner,
}

#[derive(Debug, Serialize)]
struct Owner {
    name: String,
}

impl From<Named> for Lock {
    fn from((id, lock): Named) -> Self {
        let owner = Owner { name: lock.owner };
        Self { id, path: lock.path, locked_at: lock.locked_at, owner }
    }
}

/// A lock, and why it is not another.
#[derive(Debug, Serialize)]
pub(super) struct Locked {
    pub(super) lock: Lock,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<&'static str>,
}

#[derive(Debug, Serialize)]
pub(super) struct LockedOnes {
    pub(super) locks: Vec<Lock>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_cursor: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct OursAndTheirs {
    pub(super) ours: Vec<Lock>,
    pub(super) theirs: Vec<Lock>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_cursor: Option<String>,
}
