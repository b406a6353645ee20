//! The end of the log, and what is added to it.

use std::{collections::VecDeque, fs, io, os::unix::fs::MetadataExt as _};

use super::{
    entry::{self, Head},
    files::{self, ACTIVE, Lines, Part},
};
use crate::home::{Home, HomeError};

/// Reads the last entries of the log and then those that are added, over rotations.
#[derive(Debug)]
pub(crate) struct Tail {
    home: Home,
    /// What is read, the oldest first. The last one may still grow.
    files: VecDeque<Reading>,
    /// The number of the last entry that was read.
    last: u64,
}

#[derive(Debug)]
struct Reading {
    name: String,
    lines: Lines,
    /// Device and inode.
    id: (u64, u64),
}

impl Reading {
    fn new(part: &Part, from: u64) -> io::Result<Self> {
        let metadata = part.file.metadata()?;
        Ok(Self {
            name: part.name.clone(),
            lines: Lines::new(part.file.clone(), from, u64::MAX),
            id: (metadata.dev(), metadata.ino()),
        })
    }
}

impl Tail {
    /// Begins with the last `count` entries.
    pub(crate) fn open(home: &Home, count: usize) -> Result<Self, HomeError> {
        let mut tail = Self { home: home.clone(), files: VecDeque::new(), last: 0 };
        let mut wanted = count;
        for part in files::snapshot(home)?.iter().rev() {
            let at = |source| HomeError::File { path: home.path(&part.name), source };
            let (from, found) = files::last_lines(part, wanted).map_err(at)?;
            tail.files.push_front(Reading::new(part, from).map_err(at)?);
            wanted -= found.min(wanted);
            if wanted == 0 {
                break;
            }
        }
        Ok(tail)
    }

    /// Begins behind the entry with this number, with the oldest there is if that is gone.
    pub(crate) fn open_behind(home: &Home, seq: u64) -> Result<Self, HomeError> {
        let mut tail = Self { home: home.clone(), files: VecDeque::new(), last: seq };
        for part in files::snapshot(home)?.iter().rev() {
            let at = |source| HomeError::File { path: home.path(&part.name), source };
            tail.files.push_front(Reading::new(part, 0).map_err(at)?);
            if files::first_entry(part).map_err(at)?.is_some_and(|first| first <= seq) {
                break;
            }
        }
        Ok(tail)
    }

    /// The next entry's line without its newline, `None` if there is none yet.
    pub(crate) fn next_line(&mut self) -> Result<Option<Vec<u8>>, HomeError> {
        while let Some(front) = self.files.front_mut() {
            let at = |source| HomeError::File { path: self.home.path(&front.name), source };
            match front.lines.read().map_err(at)? {
                Some(piece) if piece.terminated => {
                    let entry = front.lines.entry().filter(|entry| entry.seq > self.last);
                    if let Some(entry) = entry {
                        self.last = entry.seq;
                        return Ok(Some(front.lines.text().to_vec()));
                    }
                }
                unfinished => {
                    if let Some(piece) = unfinished {
                        front.lines.unread(piece);
                    }
                    if self.files.len() == 1 {
                        return Ok(None);
                    }
                    self.files.pop_front();
                }
            }
        }
        Ok(None)
    }

    /// Like [`next_line`](Self::next_line), with the entry's place in the chain.
    pub(crate) fn next_entry(&mut self) -> Result<Option<(Head, Vec<u8>)>, HomeError> {
        let line = self.next_line()?;
        Ok(line.map(|line| (Head { seq: self.last, hash: entry::hash(&line) }, line)))
    }

    /// Takes up the files that a rotation has begun since.
    pub(crate) fn refresh(&mut self) -> Result<(), HomeError> {
        let known = self.files.back().map(|reading| reading.id);
        let path = self.home.path(ACTIVE);
        let now = match fs::metadata(&path) {
            Ok(now) => (now.dev(), now.ino()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(HomeError::File { path, source }),
        };
        if known == Some(now) {
            return Ok(());
        }
        let readings = files::snapshot(&self.home)?
            .iter()
            .map(|part| Reading::new(part, 0))
            .collect::<io::Result<Vec<_>>>()
            .map_err(|source| HomeError::File { path, source })?;
        let seen = readings.iter().position(|reading| Some(reading.id) == known);
        self.files.extend(readings.into_iter().skip(seen.map_or(0, |i| i + 1)));
        Ok(())
    }
}
