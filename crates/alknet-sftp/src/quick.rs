//! What the kernel has at hand: doing it takes no thread that may wait for the disk, and a
//! small file is nothing but such requests.

use russh_sftp::protocol::OpenFlags;

use crate::{
    export::Export,
    fault::Outcome,
    file::Made,
    flags::{opens_for_writing, system_flags},
    handles::Open,
    session::Context,
    wire::{Reply, Request},
};

impl Context {
    /// The answer to a request that takes nothing but what is in the kernel's caches. `None` if
    /// it may have to wait for the disk, and wherever it fails: nothing was done then.
    pub(crate) fn quick(
        &self,
        id: u32,
        request: &Request,
        open: Option<&Open>,
    ) -> Option<Outcome<Reply>> {
        match request {
            Request::Open { path, flags, .. } if !opens_for_writing(*flags) => {
                let opened = self.open_cached(path, *flags)?;
                Some(self.note_opened(path, *flags, Ok(opened)))
            }
            Request::Read { offset, length, .. } => {
                open?.file().ok()?.read_cached(id, *offset, *length)
            }
            Request::Close { .. } => {
                let open = open?;
                let slow = open.file().is_ok_and(|file| file.writes() || file.is_removed());
                (!slow).then(|| self.close(open).map(|()| Reply::Done))
            }
            _ => None,
        }
    }

    fn open_cached(&self, path: &[u8], flags: OpenFlags) -> Option<u64> {
        let place = self.handles.place().ok()?;
        let spot = self.view.locate(path).ok()?;
        spot.readable().ok()?;
        // To know a quota's room may take counting.
        if spot.export().and_then(Export::quota).is_some() {
            return None;
        }
        let descriptor = spot.open_cached(system_flags(flags))?;
        self.opened(place, path, &spot, flags, (descriptor, Made::Nothing)).ok()
    }
}
