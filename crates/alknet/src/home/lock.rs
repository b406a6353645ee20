//! Locks that end with the process that holds them.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::{Duration, Instant},
};

/// The claim of a serving node on its state folder.
#[derive(Debug)]
pub(crate) struct ServeLock {
    _file: File,
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Waits for the lock: for changes that take a moment.
pub(super) fn exclusive(path: &Path) -> io::Result<File> {
    let file = open(path)?;
    if try_for(&file, Duration::from_secs(10))? {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::TimedOut, "another process keeps it locked"))
    }
}

/// Takes the lock if it is free.
pub(super) fn at_once(path: &Path) -> io::Result<Option<File>> {
    let file = open(path)?;
    Ok(try_for(&file, Duration::ZERO)?.then_some(file))
}

fn try_for(file: &File, patience: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => return Ok(false),
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Takes the lock and leaves our process number in it, or tells who has it. Somebody who
/// only asks has it for an instant, which is waited for.
pub(super) fn claim(path: &Path) -> io::Result<Result<ServeLock, Option<u32>>> {
    let mut file = open(path)?;
    if !try_for(&file, Duration::from_millis(200))? {
        return Ok(Err(pid(&mut file)));
    }
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())?;
    Ok(Ok(ServeLock { _file: file }))
}

/// Who has the lock, if somebody has. A shared lock is tried, so that two who only ask do
/// not see each other.
pub(super) fn holder(path: &Path) -> io::Result<Option<Option<u32>>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => Ok(Some(pid(&mut file))),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
