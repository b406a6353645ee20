//! Files that a client has open.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use nix::unistd;
use russh_sftp::protocol::FileAttributes;
use rustix::{
    buffer::spare_capacity,
    fs::{AtFlags, FileType, Stat, Statx, StatxFlags, copy_file_range, fstat, fsync, statx},
    io::{Errno, IoSliceMut, ReadWriteFlags, pread, preadv2, pwrite, retry_on_intr},
};

use crate::{
    change::{self, Change},
    export::{Export, Grant},
    fault::{Fault, Outcome},
    quota::Held,
    upload::{Upload, size},
    wire::{self, MAX_DATA, Reply},
};

/// How much is copied from file to file before others have their turn.
const PIECE: usize = 8 << 20;
/// The most that is read without a thread for it: that much is copied in no time.
const LITTLE: usize = 64 << 10;
/// How much is copied at once where the kernel cannot do it by itself.
const BUFFER: usize = 256 << 10;

/// An open file.
#[derive(Debug)]
pub(crate) struct File {
    descriptor: Arc<OwnedFd>,
    append: bool,
    writes: bool,
    /// Where it is, if that is an export, and what the client may do there.
    grant: Option<Grant>,
    /// What becomes of it when it is closed, if it has no name yet.
    upload: Mutex<Option<Upload>>,
    /// Why it cannot become whole any more.
    spoilt: Mutex<Option<Fault>>,
    /// Its path, if it was made when it was opened and has its name already.
    made: Option<Vec<u8>>,
    durable: AtomicBool,
    read: AtomicU64,
    written: AtomicU64,
    /// Its room in the quota. After the upload: what that leaves behind has no name.
    _held: Option<Held>,
}

/// How a file was opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mode {
    pub(crate) writes: bool,
    pub(crate) append: bool,
}

/// What came to be when a file was opened.
#[derive(Debug)]
pub(crate) enum Made {
    /// Nothing: it was there.
    Nothing,
    /// The file, at this path.
    File(Vec<u8>),
    /// A file that has its name later.
    Upload(Upload),
}

impl File {
    pub(crate) fn new(
        descriptor: OwnedFd,
        mode: Mode,
        grant: Option<Grant>,
        made: Made,
    ) -> Outcome<Self> {
        let descriptor = Arc::new(descriptor);
        let (upload, made) = match made {
            Made::Nothing => (None, None),
            Made::File(path) => (None, Some(path)),
            Made::Upload(upload) => (Some(upload), None),
        };
        let held = Held::new(grant.as_ref().map(|grant| &grant.export), &descriptor)?;
        Ok(Self {
            descriptor,
            append: mode.append,
            writes: mode.writes,
            grant,
            upload: Mutex::new(upload),
            spoilt: Mutex::default(),
            made,
            durable: AtomicBool::default(),
            read: AtomicU64::default(),
            written: AtomicU64::default(),
            _held: held,
        })
    }

    pub(crate) fn writes(&self) -> bool {
        self.writes
    }

    /// Whether it has no name any more, so that its room is given back when it is closed.
    pub(crate) fn is_removed(&self) -> bool {
        self.about(StatxFlags::NLINK).is_none_or(|about| about.stx_nlink == 0)
    }

    /// What the kernel knows of it by now.
    fn about(&self, what: StatxFlags) -> Option<Statx> {
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        statx(&self.descriptor, c"", flags, what).ok()
    }

    /// How many bytes were read and written.
    pub(crate) fn moved(&self) -> (u64, u64) {
        (self.read.load(Ordering::Relaxed), self.written.load(Ordering::Relaxed))
    }

    pub(crate) fn stat(&self) -> Outcome<Stat> {
        Ok(fstat(&self.descriptor)?)
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    pub(crate) fn export(&self) -> Option<&Export> {
        self.grant.as_ref().map(|grant| &grant.export)
    }

    /// Fails unless the client may change what is there.
    pub(crate) fn writable(&self) -> Outcome<()> {
        self.grant.as_ref().map_or(Ok(()), Grant::writable)
    }

    /// Reads into the packet that answers request `id`.
    pub(crate) fn read(&self, id: u32, offset: u64, length: u32) -> Outcome<Reply> {
        let length = usize::try_from(length).unwrap_or(MAX_DATA).min(MAX_DATA);
        let packet = wire::data(id, length, |packet| self.fill(packet, offset))?;
        packet.map(Reply::Data).ok_or_else(Fault::end)
    }

    /// The same, if it is little and the kernel has it in its caches.
    pub(crate) fn read_cached(&self, id: u32, offset: u64, length: u32) -> Option<Outcome<Reply>> {
        let about = self.about(StatxFlags::SIZE | StatxFlags::TYPE)?;
        let kind = FileType::from_raw_mode(about.stx_mode.into());
        let rest = about.stx_size.saturating_sub(offset).min(length.into());
        let rest = usize::try_from(rest).ok().filter(|rest| *rest <= LITTLE)?;
        // An offset that is negative to the kernel would stand for the file's own position.
        if kind != FileType::RegularFile || length == 0 || i64::try_from(offset).is_err() {
            return None;
        }
        if rest == 0 {
            let end = self.read_at_once(&mut [0], offset).ok()? == 0;
            return end.then(|| Err(Fault::end()));
        }
        let packet = wire::data(id, rest, |packet| {
            let start = packet.len();
            packet.resize(start + rest, 0);
            let read = self.read_at_once(packet.get_mut(start..).unwrap_or_default(), offset)?;
            // What is only partly there would look like the end of the file.
            if read == rest { Ok(read) } else { Err(Errno::AGAIN) }
        });
        let packet = packet.ok()??;
        self.read.fetch_add(rest as u64, Ordering::Relaxed);
        Some(Ok(Reply::Data(packet)))
    }

    fn read_at_once(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
        let buffers = &mut [IoSliceMut::new(buffer)];
        preadv2(&self.descriptor, buffers, offset, ReadWriteFlags::NOWAIT)
    }

    /// Appends what fits into the packet without making it larger.
    fn fill(&self, packet: &mut Vec<u8>, offset: u64) -> Result<usize, Errno> {
        let count =
            retry_on_intr(|| pread(&self.descriptor, spare_capacity(&mut *packet), offset))?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }

    /// Writes all of the data, or tells why not.
    pub(crate) fn write(&self, offset: u64, data: &[u8]) -> Outcome<()> {
        let outcome = self.try_write(offset, data);
        if let Err(fault) = &outcome {
            self.spoil(fault);
        }
        outcome
    }

    fn try_write(&self, offset: u64, data: &[u8]) -> Outcome<()> {
        let growth = self.grow(offset, data.len() as u64)?;
        let mut written = 0;
        while let Some(rest) = data.get(written..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(written as u64);
            match retry_on_intr(|| pwrite(&self.descriptor, rest, at)) {
                Ok(count @ 1..) => written += count,
                outcome => {
                    self.settle(growth, written, data.len());
                    return Err(outcome.err().unwrap_or(Errno::IO).into());
                }
            }
        }
        self.settle(growth, written, data.len());
        Ok(())
    }

    /// Takes room for what is about to be written; how much that is.
    fn grow(&self, offset: u64, length: u64) -> Outcome<u64> {
        let Some(export) = self.export() else { return Ok(0) };
        let Some(quota) = export.quota() else { return Ok(0) };
        let size = size(&self.descriptor)?;
        let start = if self.append { size } else { offset };
        let end = start.checked_add(length).ok_or(Errno::FBIG)?;
        let growth = if length == 0 { 0 } else { end.saturating_sub(size) };
        quota.take(export.root(), growth)?;
        Ok(growth)
    }

    /// Counts what was written of what was to be, and gives back the room that it did not need.
    /// The hole before what is written beyond the end takes room as data does.
    fn settle(&self, growth: u64, written: usize, wanted: usize) {
        self.written.fetch_add(written as u64, Ordering::Relaxed);
        if let Some(quota) = self.export().and_then(Export::quota) {
            let missing = wanted.saturating_sub(written) as u64;
            quota.give(if written == 0 { growth } else { growth.min(missing) });
        }
    }

    /// There is a hole in it: an upload must not take its name. That there was no room is
    /// remembered before all else.
    fn spoil(&self, fault: &Fault) {
        let mut spoilt = self.spoilt.lock().unwrap_or_else(PoisonError::into_inner);
        let known = spoilt.as_ref().is_some_and(|known| known.full || !fault.full);
        if !known {
            *spoilt = Some(fault.clone());
        }
    }

    fn spoilt(&self) -> Option<Fault> {
        self.spoilt.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where it is and why it is not whole, if it was made when it was opened and then there
    /// was no room for it.
    pub(crate) fn half(&self) -> Option<(&[u8], Fault)> {
        Some((self.made.as_deref()?, self.spoilt().filter(|fault| fault.full)?))
    }

    /// Changes attributes, in OpenSSH's order.
    pub(crate) fn change(&self, wanted: &FileAttributes) -> Outcome<()> {
        change::apply(&Change::Open(self), wanted, self.export())
    }

    /// Waits until all is on the disk; with the name, if the file is still to have one.
    pub(crate) fn sync(&self) -> Outcome<()> {
        self.durable.store(true, Ordering::Relaxed);
        fsync(&self.descriptor).map_err(Fault::from).inspect_err(|fault| self.spoil(fault))
    }

    /// What closing it has to say. The descriptor itself goes with the last user of it.
    pub(crate) fn close(&self) -> Outcome<()> {
        if !self.writes {
            return Ok(());
        }
        let upload = self.upload.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.flush().inspect_err(|fault| self.spoil(fault))?;
        match (upload, self.spoilt()) {
            (None, _) => Ok(()),
            (Some(upload), None) => {
                let durable = self.durable.load(Ordering::Relaxed);
                upload.finish(self.descriptor.as_fd(), self.export(), durable)
            }
            (Some(upload), Some(fault)) => {
                drop(upload);
                let text = format!("the upload is not whole and was dropped: {}", fault.message);
                Err(Fault::failure(text))
            }
        }
    }

    /// Network file systems tell of what could not be written when a descriptor is closed.
    fn flush(&self) -> Outcome<()> {
        let twin = self.descriptor.try_clone().map_err(|_| Errno::MFILE)?;
        unistd::close(twin).map_err(|errno| Errno::from_raw_os_error(errno as i32).into())
    }

    /// Copies at most a piece of `length` bytes to another file; how many that were, 0 at the
    /// end.
    pub(crate) fn copy(&self, from: u64, length: u64, target: &Self, to: u64) -> Outcome<u64> {
        let piece = usize::try_from(length).unwrap_or(PIECE).min(PIECE);
        let count =
            self.copy_piece(from, piece, target, to).inspect_err(|fault| target.spoil(fault))?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count as u64)
    }

    fn copy_piece(
        &self,
        mut from: u64,
        piece: usize,
        target: &Self,
        mut to: u64,
    ) -> Outcome<usize> {
        let rest = size(&self.descriptor)?.saturating_sub(from);
        let piece = usize::try_from(rest).unwrap_or(piece).min(piece);
        let growth = target.grow(to, piece as u64)?;
        let (source, sink) = (&self.descriptor, &target.descriptor);
        match copy_file_range(source, Some(&mut from), sink, Some(&mut to), piece) {
            Ok(count) => {
                target.settle(growth, count, piece);
                return Ok(count);
            }
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::BADF) => {}
            Err(errno) => {
                target.settle(growth, 0, piece);
                return Err(errno.into());
            }
        }
        target.settle(growth, 0, piece);
        self.copy_by_hand(from, piece.min(BUFFER), target, to)
    }

    fn copy_by_hand(&self, from: u64, piece: usize, target: &Self, to: u64) -> Outcome<usize> {
        let mut buffer = vec![0; piece];
        let count = retry_on_intr(|| pread(&self.descriptor, &mut buffer, from))?;
        target.try_write(to, buffer.get(..count).unwrap_or_default())?;
        Ok(count)
    }
}
