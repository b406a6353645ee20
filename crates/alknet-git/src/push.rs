//! Pushes: what one would change, and who decides about it.

mod certificate;
mod change;
mod guard;
mod leftovers;
mod objects;
mod owner;
mod tenants;
#[cfg(test)]
pub(crate) mod testing;

use std::{collections::BTreeMap, fmt, path::PathBuf};

use alknet_core::BoxFuture;
use bytes::Bytes;
use gix::ObjectId;
use tokio::sync::mpsc;

pub use self::{
    certificate::Certificate,
    change::RefChange,
    owner::{OwnerHooks, UntrustedHook},
};
pub(crate) use self::{
    guard::{Guard, Progress},
    leftovers::{clean_locks_of, sweep},
    tenants::{Lease, Tenants, file_of},
};

/// How many pieces of text wait for the pusher before who says more waits as well.
const PIECES: usize = 16;

/// Why nothing is pushed to what was renamed or removed meanwhile.
pub(crate) const GONE: &str = "the repository is not there any more";

/// What a push is about to do.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Push {
    /// What would become of which refs. No ref is in it twice.
    pub changes: Vec<RefChange>,
    /// The folder of the objects that came with it and are not the repository's yet; `None`:
    /// none came.
    pub quarantine: Option<PathBuf>,
    /// The options that the pusher has given (`git push -o`).
    pub options: Vec<String>,
    /// How the push was signed, where it was.
    pub certificate: Option<Certificate>,
}

impl Push {
    /// A push of these changes.
    pub fn new(changes: Vec<RefChange>) -> Self {
        Self { changes, ..Self::default() }
    }

    /// Without the changes that are refused.
    pub(crate) fn without(&self, refused: &Refused) -> Self {
        let passed = self.changes.iter().filter(|change| !refused.contains_key(&change.reference));
        Self { changes: passed.cloned().collect(), ..self.clone() }
    }
}

/// The refs that may not change, each with the reason as the pusher sees it.
pub type Refused = BTreeMap<String, String>;

/// Who decides about a push. An [`Engine`](crate::Engine) asks it at the points where git has
/// its hooks, in this order and each at most once.
pub trait Gate: fmt::Debug + Send + Sync + 'static {
    /// The push is signed, and the engine is about to keep what says so, a blob of so many
    /// bytes, whatever becomes of the push. Whether there is room for it. Before all else.
    fn signed(&self, certificate: ObjectId, bytes: u64) -> BoxFuture<'_, bool>;

    /// All objects have arrived, and none is the repository's yet. If every ref is refused,
    /// they never are.
    fn check<'a>(&'a self, push: Push, say: &'a Say) -> BoxFuture<'a, Refused>;

    /// The objects are the repository's, and these refs are about to change.
    fn update<'a>(&'a self, changes: Vec<RefChange>, say: &'a Say) -> BoxFuture<'a, Refused>;

    /// These refs have changed.
    fn done<'a>(&'a self, changes: Vec<RefChange>, say: &'a Say) -> BoxFuture<'a, ()>;

    /// The engine has come to its end and nobody was asked, although the client wanted these
    /// changes, or they are the first of many. `why`: it has refused them, or failed, before
    /// any of them happened. Without that, if any of them has, the engine is not to be trusted.
    fn unasked(&self, wanted: Vec<RefChange>, why: Option<String>);
}

/// What the pusher is told meanwhile, in lines that git shows after `remote:`.
#[derive(Debug, Clone)]
pub struct Say(mpsc::Sender<Bytes>);

impl Say {
    /// Where to say something, and what is said.
    pub fn channel() -> (Self, mpsc::Receiver<Bytes>) {
        let (sender, said) = mpsc::channel(PIECES);
        (Self(sender), said)
    }

    /// Says a line. Nobody need listen. Cancel safe.
    pub async fn line(&self, text: impl fmt::Display) {
        self.bytes(format!("{text}\n").into()).await;
    }

    /// Says what a program has said. Cancel safe.
    pub async fn bytes(&self, text: Bytes) {
        let _ = self.0.send(text).await;
    }
}
