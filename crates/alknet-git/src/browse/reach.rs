//! Whether a ref reaches a commit.
//!
//! Whoever names a commit by its id may see it only if some ref that they could fetch leads
//! there: a forced push is how people remove what they should not have published. The history
//! is walked from the refs until the commit is found, and how far the walk has come is kept, so
//! that the next question goes on where the last one has ended.

use std::sync::{Mutex, MutexGuard, PoisonError};

use gix::{ObjectId, refs::Target};

use super::{BrowseError, opened::Opened, walk::Walk};

/// How many walks are kept, and how many ids they may keep together.
const MAX_WALKS: usize = 8;
const MAX_KEPT: usize = 1_000_000;

/// Walks that have begun, the oldest first. Cheap to make.
///
/// A walk depends on nothing but the ids that it began with, so it holds for any repository
/// that has just these, whatever it is called.
#[derive(Debug, Default)]
pub(super) struct Reached(Mutex<Vec<Begun>>);

#[derive(Debug)]
struct Begun {
    tips: Vec<ObjectId>,
    walk: Walk,
}

impl Begun {
    /// How many ids are kept in memory.
    fn size(&self) -> usize {
        self.tips.len() + self.walk.size()
    }
}

impl Reached {
    fn take(&self, tips: &[ObjectId]) -> Option<Walk> {
        let mut all = self.all();
        let place = all.iter().position(|begun| begun.tips == tips)?;
        Some(all.remove(place).walk)
    }

    fn keep(&self, tips: Vec<ObjectId>, walk: Walk) {
        if tips.len() + walk.size() > MAX_KEPT {
            return;
        }
        let mut all = self.all();
        // Somebody else may have come further meanwhile.
        let known = all.iter().position(|begun| begun.tips == tips);
        let (tips, walk) = match known.map(|place| all.remove(place)) {
            Some(other) if other.walk.len() > walk.len() => (other.tips, other.walk),
            _ => (tips, walk),
        };
        all.push(Begun { tips, walk });
        let total = |all: &[Begun]| all.iter().map(Begun::size).sum::<usize>();
        while all.len() > MAX_WALKS || total(&all) > MAX_KEPT {
            let oldest = all.remove(0);
            drop(oldest);
        }
    }

    fn all(&self) -> MutexGuard<'_, Vec<Begun>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Opened {
    /// Whether a ref that may be seen reaches a commit.
    pub(super) fn is_reachable(&self, id: ObjectId) -> Result<bool, BrowseError> {
        let tips = self.tips()?;
        if tips.binary_search(&id).is_ok() {
            return Ok(true);
        }
        let mut walk = match self.shared.reached.take(&tips) {
            Some(walk) => walk,
            None => self.walk_from(&tips)?,
        };
        let found = self.go_on_to(&mut walk, id);
        self.shared.reached.keep(tips, walk);
        found
    }

    /// Whether a ref that may be seen holds just this id.
    pub(super) fn is_tip(&self, id: ObjectId) -> Result<bool, BrowseError> {
        Ok(self.tips()?.binary_search(&id).is_ok())
    }

    /// What all refs hold that may be seen, sorted.
    fn tips(&self) -> Result<Vec<ObjectId>, BrowseError> {
        let refs = self.git().references().map_err(|error| self.failed(error))?;
        let mut tips = Vec::new();
        for reference in refs.all().map_err(|error| self.failed(error))? {
            self.brake.check()?;
            // One that cannot be read leads nowhere.
            let Ok(reference) = reference else { continue };
            let reference = reference.detach();
            if let Target::Object(id) = reference.target
                && !self.is_hidden(reference.name.as_bstr())
            {
                tips.push(id);
            }
        }
        tips.sort_unstable();
        tips.dedup();
        Ok(tips)
    }

    fn walk_from(&self, tips: &[ObjectId]) -> Result<Walk, BrowseError> {
        let mut walk = Walk::default();
        for &tip in tips {
            let commit = self.peeled(tip);
            match commit.and_then(|id| id.map_or(Ok(()), |id| walk.push(self, id))) {
                Ok(()) => {}
                // What is broken hides nothing but itself.
                Err(error) if leads_nowhere(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(walk)
    }

    fn go_on_to(&self, walk: &mut Walk, id: ObjectId) -> Result<bool, BrowseError> {
        while !walk.has_seen(id) {
            let Some(node) = walk.next() else { return Ok(false) };
            for &parent in &node.parents {
                match walk.push(self, parent) {
                    Ok(()) => {}
                    Err(error) if leads_nowhere(&error) => {}
                    Err(error) => {
                        // Whoever asks next goes on here.
                        walk.put_back(node);
                        return Err(error);
                    }
                }
            }
        }
        Ok(true)
    }
}

/// Whether the fault is one of an object, which nobody gets past.
fn leads_nowhere(error: &BrowseError) -> bool {
    error.is_damage() || matches!(error, BrowseError::LargeObject(_))
}
