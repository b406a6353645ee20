//! What came with a push, before it is the repository's.

use std::{
    collections::HashSet,
    fmt, fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use gix::{
    ObjectId,
    error::ErrorExt as _,
    hash::Kind,
    objs::{Data, Exists as _, Find},
    odb::{
        self,
        pack::{self, data::decode::header::ResolvedBase},
    },
    revision::plumbing::{Graph, graph::Commit, merge_base},
};

use super::RefChange;
use crate::repositories::files;

/// How long a history may take to walk.
const WALK: Duration = Duration::from_secs(60);
/// How often the clock is looked at: after so many entries of a pack.
const STRIDE: usize = 1 << 16;

/// The objects of a push and those of its repository.
#[derive(Debug)]
pub(super) struct Objects {
    repository: PathBuf,
    quarantine: Option<PathBuf>,
    deadline: Instant,
}

/// What came with a push is not taken.
#[derive(Debug)]
pub(super) enum Unacceptable {
    /// An object is too large once it is unpacked.
    Large { id: ObjectId, size: u64, most: u64 },
    /// The repository would be.
    Quota { size: u64, most: u64 },
    /// It could not be looked at.
    Unreadable,
}

impl Objects {
    pub(super) fn new(repository: PathBuf, quarantine: Option<PathBuf>) -> Self {
        Self { repository, quarantine, deadline: Instant::now() + WALK }
    }

    /// Whether anything came.
    pub(super) fn came(&self) -> bool {
        self.quarantine.is_some()
    }

    /// Those of the refs that stand for another one. Waits for the disk.
    pub(super) fn symbolic(&self, changes: &[RefChange]) -> HashSet<String> {
        let Ok(repository) = gix::open(&self.repository) else { return HashSet::new() };
        let stands_for_another = |change: &&RefChange| {
            let found = repository.try_find_reference(change.reference.as_str());
            found.is_ok_and(|it| it.is_some_and(|it| it.target().try_name().is_some()))
        };
        changes.iter().filter(stands_for_another).map(|it| it.reference.clone()).collect()
    }

    /// Whether the repository may grow by what came, if it may be `quota` bytes in all and
    /// each object `largest`. Waits for the disk.
    pub(super) fn inspect(&self, quota: Option<u64>, largest: u64) -> Result<(), Unacceptable> {
        if let Some(most) = quota {
            // The quarantine is within it.
            let size = files::counted(&self.repository).map_err(|error| unreadable(&error))?;
            if size > most {
                return Err(Unacceptable::Quota { size, most });
            }
        }
        let Some(quarantine) = &self.quarantine else { return Ok(()) };
        let packs = fs::read_dir(quarantine.join("pack")).into_iter().flatten().flatten();
        for path in packs.map(|entry| entry.path()) {
            if path.extension().is_some_and(|it| it == "idx") {
                self.inspect_pack(&path, largest)?;
            }
        }
        Ok(())
    }

    /// Goes by what the pack says of each object, which `git index-pack` has found to be true.
    fn inspect_pack(&self, index: &Path, most: u64) -> Result<(), Unacceptable> {
        let bundle = pack::Bundle::at(index, Kind::Sha1).map_err(|error| unreadable(&error))?;
        let mut inflate = gix::zlib::Inflate::default();
        for (nth, entry) in bundle.index.iter().enumerate() {
            if nth % STRIDE == 0 && Instant::now() > self.deadline {
                return Err(unreadable(&"it takes too long"));
            }
            // A thin pack has been completed: every base is within it.
            let resolve = |id: &gix::oid| {
                let Some(nth) = bundle.index.lookup(id) else { return Ok(None) };
                let offset = bundle.index.pack_offset_at_index(nth);
                bundle.pack.entry(offset).map(|base| Some(ResolvedBase::InPack(base)))
            };
            let header = bundle
                .pack
                .entry(entry.pack_offset)
                .and_then(|found| bundle.pack.decode_header(found, &mut inflate, &resolve));
            let size = header.map_err(|error| unreadable(&error))?.object_size;
            if size > most {
                return Err(Unacceptable::Large { id: entry.oid, size, most });
            }
        }
        Ok(())
    }

    /// Whether the new commit of a change has the old one among its ancestors. What cannot be
    /// said in time, or is about no commits, is `false`. Waits for the disk.
    pub(super) fn is_fast_forward(&self, change: &RefChange) -> bool {
        let found = Stores::open(self).map(|stores| {
            let mut graph = Graph::new(stores, None);
            merge_base_is(change.old, change.new, &mut graph)
        });
        found.unwrap_or_else(|error| {
            tracing::debug!(%error, "a quarantine cannot be opened");
            false
        })
    }
}

fn merge_base_is(
    old: ObjectId,
    new: ObjectId,
    graph: &mut Graph<'_, '_, Commit<merge_base::Flags>>,
) -> bool {
    match merge_base(old, &[new], graph) {
        Ok(bases) => bases.is_some_and(|bases| bases.iter().any(|base| *base == old)),
        Err(error) => {
            tracing::debug!(%error, "a history cannot be walked");
            false
        }
    }
}

/// Objects that came, then those of the repository; and a limit to how long they are looked
/// for.
struct Stores {
    quarantine: Option<odb::Handle>,
    repository: odb::Handle,
    deadline: Instant,
}

impl Stores {
    fn open(objects: &Objects) -> std::io::Result<Self> {
        let open = |path: &Path| odb::at(path, Kind::Sha1);
        Ok(Self {
            quarantine: objects.quarantine.as_deref().map(open).transpose()?,
            repository: open(&objects.repository.join("objects"))?,
            deadline: objects.deadline,
        })
    }
}

impl Find for Stores {
    fn try_find<'a>(
        &self,
        id: &gix::oid,
        buffer: &'a mut Vec<u8>,
    ) -> gix::Result<Option<Data<'a>>> {
        if Instant::now() > self.deadline {
            return Err(gix::error::message("the history takes too long to walk").raise());
        }
        match self.quarantine.as_ref().filter(|store| store.exists(id)) {
            Some(store) => store.try_find(id, buffer),
            None => self.repository.try_find(id, buffer),
        }
    }
}

impl fmt::Display for Unacceptable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Large { id, size, most } => {
                write!(f, "{id} has {size} bytes, and an object may have {most}")
            }
            Self::Quota { size, most } => {
                write!(f, "the repository would have {size} bytes, and may have {most}")
            }
            Self::Unreadable => f.write_str("what was pushed cannot be checked"),
        }
    }
}

fn unreadable(error: &dyn fmt::Display) -> Unacceptable {
    tracing::warn!(%error, "what was pushed cannot be looked at");
    Unacceptable::Unreadable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundles_take_no_room_of_a_quota() {
        let folder = tempfile::tempdir().unwrap();
        let inspect = || {
            let objects = Objects::new(folder.path().to_owned(), None);
            objects.inspect(Some(1000), u64::MAX)
        };
        let write = |name: &str, bytes| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, vec![7; bytes]).unwrap();
        };
        write("bundles/1.bundle", 5000);
        write("objects/pack/pack-1.pack", 900);
        inspect().unwrap();
        // Of this name elsewhere it is content like any other.
        write("lfs/bundles/1.bundle", 101);
        let refused = inspect();
        assert!(matches!(refused, Err(Unacceptable::Quota { size: 1001, .. })), "{refused:?}");
    }
}
