//! What a client has open.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    fault::{Fault, Outcome, TOO_MANY},
    file::File,
    folder::Folder,
    wire::{self, HandleText},
};

/// What requests have to keep their order about: a file, under whatever handles, or a folder's
/// handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    File { device: u64, inode: u64 },
    Folder(u64),
}

/// Something open.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) lane: Lane,
    /// Its path as the audit log has it.
    pub(crate) shown: String,
    pub(crate) thing: Thing,
    entered: Option<Entered>,
    _place: Places,
}

#[derive(Debug)]
pub(crate) enum Thing {
    File(File),
    Folder(Folder),
}

impl Open {
    pub(crate) fn file(&self) -> Outcome<&File> {
        match &self.thing {
            Thing::File(file) => Ok(file),
            Thing::Folder(_) => Err(Fault::failure("the handle is a folder's")),
        }
    }

    /// Whether it is the only handle of its file, in all sessions.
    pub(crate) fn is_alone(&self) -> bool {
        let handles = |entered: &Entered| entered.opened.lanes().get(&entered.lane).copied();
        self.entered.as_ref().and_then(handles) == Some(1)
    }

    pub(crate) fn folder(&self) -> Outcome<&Folder> {
        match &self.thing {
            Thing::Folder(folder) => Ok(folder),
            Thing::File(_) => Err(Fault::failure("the handle is a file's")),
        }
    }
}

/// The table of a session. Numbers are used once.
#[derive(Debug)]
pub(crate) struct Handles {
    table: Mutex<Table>,
    mine: Arc<Semaphore>,
    identitys: Arc<Semaphore>,
    everybodys: Arc<Semaphore>,
    opened: Opened,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    open: HashMap<u64, Arc<Open>>,
}

/// The files that are open in all sessions, and under how many handles.
#[derive(Debug, Clone, Default)]
pub(crate) struct Opened(Arc<Mutex<HashMap<Lane, usize>>>);

/// One of those handles.
#[derive(Debug)]
struct Entered {
    opened: Opened,
    lane: Lane,
}

impl Opened {
    fn lanes(&self) -> MutexGuard<'_, HashMap<Lane, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, lane: Lane) -> Entered {
        *self.lanes().entry(lane).or_default() += 1;
        Entered { opened: self.clone(), lane }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut lanes = self.opened.lanes();
        let Some(handles) = lanes.get_mut(&self.lane) else { return };
        *handles -= 1;
        if *handles == 0 {
            lanes.remove(&self.lane);
        }
    }
}

/// Room for one more thing, of the session, of the identity and of the node.
#[derive(Debug)]
pub(crate) struct Places {
    _mine: OwnedSemaphorePermit,
    _identitys: OwnedSemaphorePermit,
    _everybodys: OwnedSemaphorePermit,
}

impl Handles {
    pub(crate) fn new(
        limit: usize,
        identitys: Arc<Semaphore>,
        everybodys: Arc<Semaphore>,
        opened: Opened,
    ) -> Self {
        let mine = Arc::new(Semaphore::new(limit));
        Self { table: Mutex::default(), mine, identitys, everybodys, opened }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for one more, before it is opened.
    pub(crate) fn place(&self) -> Outcome<Places> {
        let take = |from: &Arc<Semaphore>| {
            from.clone().try_acquire_owned().map_err(|_| Fault::failure(TOO_MANY))
        };
        let (mine, identitys) = (take(&self.mine)?, take(&self.identitys)?);
        Ok(Places { _mine: mine, _identitys: identitys, _everybodys: take(&self.everybodys)? })
    }

    /// Adds a file; its handle.
    pub(crate) fn add_file(&self, place: Places, file: File, shown: String) -> Outcome<u64> {
        let stat = file.stat()?;
        let lane = Lane::File { device: stat.st_dev, inode: stat.st_ino };
        let (thing, entered) = (Thing::File(file), Some(self.opened.enter(lane)));
        Ok(self.add(|_| Open { lane, shown, thing, entered, _place: place }))
    }

    /// Adds a folder; its handle.
    pub(crate) fn add_folder(&self, place: Places, folder: Folder, shown: String) -> u64 {
        let thing = Thing::Folder(folder);
        self.add(|number| {
            let lane = Lane::Folder(number);
            Open { lane, shown, thing, entered: None, _place: place }
        })
    }

    fn add(&self, open: impl FnOnce(u64) -> Open) -> u64 {
        let mut table = self.table();
        let number = table.next;
        table.next += 1;
        table.open.insert(number, Arc::new(open(number)));
        number
    }

    pub(crate) fn find(&self, handle: &HandleText) -> Outcome<Arc<Open>> {
        let number = wire::handle(handle).ok_or_else(Fault::no_handle)?;
        self.table().open.get(&number).cloned().ok_or_else(Fault::no_handle)
    }

    /// What is open, which nobody finds any more.
    pub(crate) fn take(&self, handle: &HandleText) -> Outcome<Arc<Open>> {
        let number = wire::handle(handle).ok_or_else(Fault::no_handle)?;
        self.table().open.remove(&number).ok_or_else(Fault::no_handle)
    }

    /// All that is left.
    pub(crate) fn clear(&self) -> Vec<Arc<Open>> {
        std::mem::take(&mut self.table().open).into_values().collect()
    }
}
