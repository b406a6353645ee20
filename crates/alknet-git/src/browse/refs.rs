//! Branches and tags.

use gix::{
    ObjectId,
    bstr::{BStr, ByteSlice as _},
    refs::{Category, FullName, Target},
};
use schemars::JsonSchema;
use serde::Serialize;

use super::{BrowseError, bounds::Budget, opened::Opened};

/// The most refs in one answer, and how many without a wish.
const MAX_REFS: usize = 10_000;
const REFS: usize = 1000;
/// How much of names and ids there may be in one answer, in bytes.
const MAX_TEXT: usize = 2 * 1024 * 1024;
/// About what a ref takes beside its name.
const ROW: usize = 200;

/// Which branches and tags are asked for.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RefsQuery {
    /// What their short names begin with.
    pub prefix: String,
    /// How many to pass over.
    pub skip: usize,
    /// How many at most.
    pub limit: Option<usize>,
}

/// Branches and tags.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[non_exhaustive]
pub struct Refs {
    /// What is checked out by who clones the repository.
    pub head: Head,
    /// The branches, in order of their names.
    pub branches: Vec<Branch>,
    /// The tags, in order of their names.
    pub tags: Vec<Tag>,
    /// Whether there are more behind these.
    pub more: bool,
}

/// What is checked out by who clones a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[non_exhaustive]
pub struct Head {
    /// Its branch, without refs/heads/.
    pub branch: Option<String>,
    /// The id of its commit; null while there is none.
    pub id: Option<String>,
}

/// A branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[non_exhaustive]
pub struct Branch {
    /// Its name, without refs/heads/.
    pub name: String,
    /// The id of its commit.
    pub id: String,
    /// Whether it takes neither forced pushes nor its deletion.
    pub protected: bool,
    /// Whether the name is not UTF-8, and cannot be asked for.
    #[serde(default, skip_serializing_if = "is_false")]
    pub lossy: bool,
}

/// A tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[non_exhaustive]
pub struct Tag {
    /// Its name, without refs/tags/.
    pub name: String,
    /// The id of what the ref holds: of the tag's own object if it is annotated.
    pub id: String,
    /// The id of what it leads to, mostly a commit.
    pub target: String,
    /// Whether it has an object of its own, with a message.
    pub annotated: bool,
    /// Whether the name is not UTF-8, and cannot be asked for.
    #[serde(default, skip_serializing_if = "is_false")]
    pub lossy: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
pub(super) fn is_false(value: &bool) -> bool {
    !value
}

/// A name as text, and whether something was lost.
pub(super) fn text(name: &BStr) -> (String, bool) {
    match name.to_str() {
        Ok(text) => (text.to_owned(), false),
        Err(_) => (name.to_str_lossy().into_owned(), true),
    }
}

/// The branches and tags that are asked for.
pub(super) fn refs(opened: &Opened, query: &RefsQuery) -> Result<Refs, BrowseError> {
    let mut page = Page {
        skip: query.skip,
        left: query.limit.unwrap_or(REFS).min(MAX_REFS),
        budget: Budget::new(MAX_TEXT),
        more: false,
    };
    let mut refs =
        Refs { head: opened.head()?, branches: Vec::new(), tags: Vec::new(), more: false };
    for (name, id, _) in opened.of_category(Category::LocalBranch, query)? {
        let protected = || opened.repository.settings.protects(&name.as_bstr().to_str_lossy());
        let (short, lossy) = text(name.shorten());
        if page.has(&short) {
            let (id, protected) = (id.to_string(), protected());
            refs.branches.push(Branch { name: short, id, protected, lossy });
        }
    }
    for (name, id, known) in opened.of_category(Category::Tag, query)? {
        let (short, lossy) = text(name.shorten());
        if page.has(&short) {
            let target = opened.target(id, known)?;
            let annotated = target != id;
            let (id, target) = (id.to_string(), target.to_string());
            refs.tags.push(Tag { name: short, id, target, annotated, lossy });
        }
    }
    refs.more = page.more;
    Ok(refs)
}

/// What is on a page of an answer.
struct Page {
    skip: usize,
    left: usize,
    budget: Budget,
    more: bool,
}

impl Page {
    fn has(&mut self, name: &str) -> bool {
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        if self.more || self.left == 0 || !self.budget.take(name, ROW) {
            self.more = true;
            return false;
        }
        self.left -= 1;
        true
    }
}

/// A ref: its name, what it holds, and what that leads to where it is known.
type Found = (FullName, ObjectId, Option<ObjectId>);

impl Opened {
    fn head(&self) -> Result<Head, BrowseError> {
        let head = self.git().head_name().map_err(|error| self.failed(error))?;
        let Some(name) = head else {
            // A commit that is on no branch.
            let id = self.git().head_id().ok().map(|id| id.to_string());
            return Ok(Head { branch: None, id });
        };
        if self.is_hidden(name.as_bstr()) {
            return Ok(Head { branch: None, id: None });
        }
        let id = match self.reference(&name)?.map(|found| found.target) {
            Some(Target::Object(id)) => Some(id.to_string()),
            Some(Target::Symbolic(_)) | None => None,
        };
        Ok(Head { branch: Some(text(name.shorten()).0), id })
    }

    /// The refs below `refs/heads/` or `refs/tags/` that begin as is asked for, in order.
    fn of_category(
        &self,
        category: Category<'_>,
        query: &RefsQuery,
    ) -> Result<Vec<Found>, BrowseError> {
        let refs = self.git().references().map_err(|error| self.failed(error))?;
        let refs = match category {
            Category::Tag => refs.tags(),
            _ => refs.local_branches(),
        };
        let mut found = Vec::new();
        for reference in refs.map_err(|error| self.failed(error))? {
            self.brake.check()?;
            // One that cannot be read is not there.
            let Ok(reference) = reference else { continue };
            let reference = reference.detach();
            let name = reference.name;
            if self.is_hidden(name.as_bstr())
                || !name.shorten().starts_with(query.prefix.as_bytes())
            {
                continue;
            }
            if let Target::Object(id) = reference.target {
                found.push((name, id, reference.peeled));
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// What a tag leads to; its own object where that cannot be read.
    fn target(&self, id: ObjectId, known: Option<ObjectId>) -> Result<ObjectId, BrowseError> {
        match known {
            Some(target) => Ok(target),
            None => match self.untagged(id) {
                Err(error) if error.is_damage() => Ok(id),
                target => target,
            },
        }
    }
}
