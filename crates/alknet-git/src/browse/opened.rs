//! A repository that is looked into, by one thread, for a while.

use std::sync::Arc;

use gix::{
    ObjectId,
    bstr::BString,
    hash,
    objs::{Data, Find, FindHeader, Header, Kind, tree::EntryMode},
    odb,
};

use super::{BrowseError, MAX_OBJECT, Shared, TreePath, bounds::Brake};
use crate::repositories::Repository;

/// How much memory is used to read an object only once, in bytes.
const CACHE: usize = 16 * 1024 * 1024;
/// Which files are compared for what they have in common, in bytes.
pub(super) const MAX_SIMILAR: usize = 256 * 1024;

/// Refs for the node's own use.
const OWN_REFS: &str = "refs/alknet";

/// A repository that is looked into. Every read asks the brake.
pub(super) struct Opened {
    pub(super) shared: Arc<Shared>,
    pub(super) repository: Repository,
    pub(super) brake: Brake,
    git: gix::Repository,
    /// The largest object that is read: beyond [`MAX_OBJECT`] only the content of a file.
    largest: usize,
    hidden: Vec<Hidden>,
}

/// A rule about which refs cannot be seen.
struct Hidden {
    name: BString,
    /// Whether it makes them visible again.
    shown: bool,
}

impl Opened {
    /// Opens a repository, of which objects of `largest` bytes at most are read.
    pub(super) fn open(
        shared: Arc<Shared>,
        repository: Repository,
        largest: usize,
        brake: Brake,
    ) -> Result<Self, BrowseError> {
        brake.check()?;
        // Nothing but the repository's own configuration is read, and no programs in it.
        let options = gix::open::Options::isolated()
            .with(gix::sec::Trust::Reduced)
            .open_path_as_is(true)
            .config_overrides([
                format!("gitoxide.objects.allocLimit={largest}"),
                format!("core.bigFileThreshold={MAX_SIMILAR}"),
                "core.useReplaceRefs=false".into(),
            ]);
        let opened = gix::open_opts(&repository.path, options);
        let mut git = opened.map_err(BrowseError::Damaged)?;
        git.object_cache_size(CACHE);
        let hidden = hidden(&git);
        Ok(Self { shared, repository, brake, git, largest, hidden })
    }

    /// The repository as gix knows it.
    pub(super) fn git(&self) -> &gix::Repository {
        &self.git
    }

    /// What ids are made of.
    pub(super) fn hash(&self) -> hash::Kind {
        self.git.object_hash()
    }

    /// The largest object that is read, in bytes.
    pub(super) fn largest(&self) -> usize {
        self.largest
    }

    /// What gix failed with, or why it had to.
    pub(super) fn failed(&self, error: gix::Error) -> BrowseError {
        if let Err(braked) = self.brake.check() {
            return braked;
        }
        match error.is_resource_exhausted() {
            true => BrowseError::LargeObject(self.largest),
            false => BrowseError::Damaged(error),
        }
    }

    /// Reads an object that has to be of a kind.
    pub(super) fn find<'a>(
        &self,
        id: ObjectId,
        kind: Kind,
        buffer: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], BrowseError> {
        self.brake.check()?;
        if kind == Kind::Tree && id.is_empty_tree() {
            return Ok(&[]);
        }
        // Only files may be larger, where they are looked into for what is in them.
        let is_file = kind == Kind::Blob || self.largest <= MAX_OBJECT;
        if !is_file && self.header(id)?.size() > MAX_OBJECT as u64 {
            return Err(BrowseError::LargeObject(MAX_OBJECT));
        }
        match self.git.objects.try_find(&id, buffer) {
            Ok(Some(Data { kind: found, data, .. })) if found == kind => Ok(data),
            Ok(_) => Err(BrowseError::Missing(id)),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// The kind and the size of an object that has to be there.
    pub(super) fn header(&self, id: ObjectId) -> Result<odb::find::Header, BrowseError> {
        self.try_header(id)?.ok_or(BrowseError::Missing(id))
    }

    /// The kind and the size of an object, if it is there.
    pub(super) fn try_header(
        &self,
        id: ObjectId,
    ) -> Result<Option<odb::find::Header>, BrowseError> {
        self.brake.check()?;
        self.git.try_find_header(id).map_err(|error| self.failed(error))
    }

    /// What stands at a path below a folder: its mode and its object.
    pub(super) fn entry(
        &self,
        tree: ObjectId,
        path: &TreePath,
    ) -> Result<Option<(EntryMode, ObjectId)>, BrowseError> {
        let mut at = (gix::objs::tree::EntryKind::Tree.into(), tree);
        let mut buffer = Vec::new();
        for name in path.names() {
            let (mode, id): (EntryMode, ObjectId) = at;
            if !mode.is_tree() {
                return Ok(None);
            }
            let data = self.find(id, Kind::Tree, &mut buffer)?;
            let mut found = None;
            for entry in gix::objs::TreeRefIter::from_bytes(data, self.hash()) {
                let entry = entry.map_err(|error| self.failed(error))?;
                if entry.filename == name.as_bytes() {
                    found = Some((entry.mode, entry.oid.to_owned()));
                    break;
                }
            }
            match found {
                Some(found) => at = found,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    /// Whether a ref is hidden from fetches, as git's `ref_is_hidden` has it: the last rule
    /// that fits decides.
    pub(super) fn is_hidden(&self, name: &[u8]) -> bool {
        let fits = |rule: &&Hidden| {
            let rest = name.strip_prefix(rule.name.as_slice());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        };
        self.hidden.iter().rev().find(fits).is_some_and(|rule| !rule.shown)
    }

    /// The objects as gix's algorithms read them: until the brake is pulled.
    pub(super) fn objects(&self) -> Objects<'_> {
        Objects(self)
    }
}

fn hidden(git: &gix::Repository) -> Vec<Hidden> {
    let config = git.config_snapshot();
    let of = |key: &str| config.plumbing().strings(key).unwrap_or_default();
    let rule = |text: BString| {
        let (shown, name) = match text.strip_prefix(b"!") {
            Some(name) => (true, name),
            None => (false, text.as_slice()),
        };
        // A full name, with the namespace that there is none of here.
        let name = name.strip_prefix(b"^").unwrap_or(name);
        let end = name.iter().rposition(|&byte| byte != b'/').map_or(0, |last| last + 1);
        Hidden { name: name.iter().take(end).copied().collect(), shown }
    };
    // As the node's configuration has it, which is not read here: it comes before the rules of
    // the repository.
    let own = Hidden { name: OWN_REFS.into(), shown: false };
    let more = of("transfer.hideRefs").into_iter().chain(of("uploadpack.hideRefs")).map(rule);
    [own].into_iter().chain(more).collect()
}

/// The objects of a repository, until the brake is pulled.
#[derive(Clone, Copy)]
pub(super) struct Objects<'a>(&'a Opened);

impl Objects<'_> {
    fn go_on(self) -> Result<(), gix::Error> {
        self.0.brake.check().map_err(gix::Error::from_error)
    }
}

impl Find for Objects<'_> {
    fn try_find<'a>(
        &self,
        id: &gix::oid,
        buffer: &'a mut Vec<u8>,
    ) -> Result<Option<Data<'a>>, gix::Error> {
        self.go_on()?;
        self.0.git.objects.try_find(id, buffer)
    }
}

impl FindHeader for Objects<'_> {
    fn try_header(&self, id: &gix::oid) -> Result<Option<Header>, gix::Error> {
        self.go_on()?;
        FindHeader::try_header(&self.0.git.objects, id)
    }
}
