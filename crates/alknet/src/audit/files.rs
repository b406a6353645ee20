//! The files of the log: `audit.log`, and before it `audit-NUMBER.log`, each named by the
//! number of its first entry.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Read},
    os::unix::fs::FileExt as _,
    path::Path,
    sync::Arc,
};

use aws_lc_rs::digest;

use super::entry::{self, Entry, Hash, Head, MAX_LINE};
use crate::home::{Home, HomeError};

/// The file that is written to.
pub(super) const ACTIVE: &str = "audit.log";
/// What keeps two processes from writing to the log at once.
pub(super) const LOCK: &str = "audit";
/// How far from the end the last entry is looked for first, in bytes.
const NEAR: u64 = 64 << 10;

/// The name of a full file.
pub(super) fn full_name(first: u64) -> String {
    format!("audit-{first:012}.log")
}

/// The number of a full file's first entry, by its name.
pub(super) fn first_of(name: &str) -> Option<u64> {
    let number = name.strip_prefix("audit-")?.strip_suffix(".log")?;
    let first = number.parse().ok()?;
    (full_name(first) == name).then_some(first)
}

/// The numbers of the full files, the oldest first.
pub(super) fn full_files(root: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root)? {
        found.extend(entry?.file_name().to_str().and_then(first_of));
    }
    found.sort_unstable();
    Ok(found)
}

/// One file of the log.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) file: Arc<File>,
    /// How long it was when it was opened.
    pub(super) len: u64,
}

impl Part {
    fn open(home: &Home, name: String) -> Result<Option<Self>, HomeError> {
        let path = home.path(&name);
        let opened = File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
        match opened {
            Ok((len, file)) => Ok(Some(Self { name, file: Arc::new(file), len })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(HomeError::File { path, source }),
        }
    }

    /// Its lines from an offset on.
    pub(super) fn lines(&self, from: u64) -> Lines {
        Lines::new(self.file.clone(), from, self.len)
    }
}

/// The files of the log as they are at one moment, the oldest first.
pub(super) fn snapshot(home: &Home) -> Result<Vec<Part>, HomeError> {
    let _lock = home.lock(LOCK)?;
    let at = |source| HomeError::File { path: home.root().into(), source };
    let names = full_files(home.root()).map_err(at)?.into_iter().map(full_name);
    let mut parts = Vec::new();
    for name in names.chain([ACTIVE.into()]) {
        parts.extend(Part::open(home, name)?);
    }
    Ok(parts)
}

/// A line within its file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    /// Its number, from 1 where the reading began at the file's start.
    pub(super) number: u64,
    pub(super) start: u64,
    /// Where the next line begins.
    pub(super) end: u64,
    /// It has a newline.
    pub(super) terminated: bool,
}

/// The lines of a stretch of a file, in bounded memory.
#[derive(Debug)]
pub(super) struct Lines {
    source: BufReader<Stretch>,
    text: Vec<u8>,
    overlong: bool,
    at: u64,
    number: u64,
}

impl Lines {
    pub(super) fn new(file: Arc<File>, at: u64, end: u64) -> Self {
        let source = BufReader::new(Stretch { file, at, end });
        Self { source, text: Vec::new(), overlong: false, at, number: 0 }
    }

    /// The next line, `None` at the end.
    pub(super) fn read(&mut self) -> io::Result<Option<Piece>> {
        self.text.clear();
        self.overlong = false;
        let start = self.at;
        let mut terminated = false;
        while !terminated {
            let chunk = self.source.fill_buf()?;
            if chunk.is_empty() {
                break;
            }
            let newline = chunk.iter().position(|b| *b == b'\n');
            let (line, _) = chunk.split_at(newline.unwrap_or(chunk.len()));
            terminated = newline.is_some();
            let taken = line.len() + usize::from(terminated);
            self.overlong |= self.text.len() + line.len() > MAX_LINE;
            if !self.overlong {
                self.text.extend_from_slice(line);
            }
            self.source.consume(taken);
            self.at += taken as u64;
        }
        if self.at == start {
            return Ok(None);
        }
        self.number += 1;
        Ok(Some(Piece { number: self.number, start, end: self.at, terminated }))
    }

    /// Forgets the line that was read last, which was not whole yet.
    pub(super) fn unread(&mut self, piece: Piece) {
        let Stretch { file, end, .. } = self.source.get_ref();
        let number = piece.number.saturating_sub(1);
        *self = Self { number, ..Self::new(file.clone(), piece.start, *end) };
    }

    /// The line that was read last, without its newline.
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// The line that was read last, if it is an entry.
    pub(super) fn entry(&self) -> Option<Entry> {
        if self.overlong { None } else { Entry::parse(&self.text) }
    }
}

/// A stretch of a file, read without its cursor.
#[derive(Debug)]
pub(super) struct Stretch {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Stretch {
    pub(super) fn new(file: Arc<File>, at: u64, end: u64) -> Self {
        Self { file, at, end }
    }
}

impl Read for Stretch {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let room = buffer.len().min(left);
        let (buffer, _) = buffer.split_at_mut(room);
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// The SHA-256 of a stretch of a file.
pub(super) fn hash_of(file: &Arc<File>, start: u64, end: u64) -> io::Result<Hash> {
    let mut source = BufReader::new(Stretch { file: file.clone(), at: start, end });
    let mut context = digest::Context::new(&digest::SHA256);
    loop {
        let chunk = source.fill_buf()?;
        let count = chunk.len();
        if count == 0 {
            return Ok(entry::finish(context.finish()));
        }
        context.update(chunk);
        source.consume(count);
    }
}

/// The last entry of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Last {
    pub(super) head: Head,
    /// Where its line ends.
    pub(super) end: u64,
    /// Its line has a newline.
    pub(super) terminated: bool,
}

/// Finds the last entry of a file, `None` if it has none.
pub(super) fn last_entry(part: &Part) -> io::Result<Option<Last>> {
    let near = part.len.saturating_sub(NEAR);
    if near > 0 {
        // What is left of the line in which the stretch begins is no line.
        let mut lines = part.lines(near);
        lines.read()?;
        if let Some(last) = last_of(lines)? {
            return Ok(Some(last));
        }
    }
    last_of(part.lines(0))
}

fn last_of(mut lines: Lines) -> io::Result<Option<Last>> {
    let mut last = None;
    while let Some(piece) = lines.read()? {
        if let Some(entry) = lines.entry() {
            let head = Head { seq: entry.seq, hash: entry::hash(lines.text()) };
            last = Some(Last { head, end: piece.end, terminated: piece.terminated });
        }
    }
    Ok(last)
}

/// The number of a file's first entry.
pub(super) fn first_entry(part: &Part) -> io::Result<Option<u64>> {
    let mut lines = part.lines(0);
    while lines.read()?.is_some() {
        if let Some(entry) = lines.entry() {
            return Ok(Some(entry.seq));
        }
    }
    Ok(None)
}

/// Where the last `count` lines of a file begin, and how many there are.
pub(super) fn last_lines(part: &Part, count: usize) -> io::Result<(u64, usize)> {
    if count == 0 {
        return Ok((part.len, 0));
    }
    let mut block = vec![0; 64 << 10];
    let (mut end, mut found) = (part.len, 0);
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let mut stretch = Stretch { file: part.file.clone(), at: start, end };
        let length = usize::try_from(end - start).unwrap_or(usize::MAX).min(block.len());
        let (bytes, _) = block.split_at_mut(length);
        stretch.read_exact(bytes)?;
        for (i, _) in bytes.iter().enumerate().rev().filter(|(_, b)| **b == b'\n') {
            let line = start + i as u64 + 1;
            // The newline at the end of the file begins no line.
            if line < part.len {
                found += 1;
            }
            if found == count && line < part.len {
                return Ok((line, count));
            }
        }
        end = start;
    }
    Ok((0, found + usize::from(part.len > 0)))
}
