//! Walking the chain from its oldest line to its head.

use std::io;

use serde::{Serialize, Serializer};

use super::{
    entry::{self, Entry, Head},
    files::{self, Lines, Part, Piece},
};
use crate::home::{Home, HomeError};

/// What a walk along the chain found.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// Whether the chain holds as far as it is there.
    pub(crate) ok: bool,
    /// How many files there are.
    pub(crate) files: usize,
    /// How many entries were found to hold.
    pub(crate) entries: u64,
    /// The first of them: the chain holds from here.
    pub(crate) first: Option<Point>,
    /// The last of them.
    pub(crate) last: Option<Point>,
    /// `SEQ:HASH` of the last: who notes it can tell later that nothing before it changed.
    /// None where the chain breaks.
    #[serde(serialize_with = "as_text")]
    pub(crate) head: Option<Head>,
    /// How many times a write was cut short, and was marked at the next start.
    pub(crate) recovered: u64,
    /// So many bytes at the end are no entry: the next start marks them.
    pub(crate) torn_bytes: u64,
    /// The first place where the chain does not hold.
    pub(crate) fault: Option<Fault>,
}

/// One entry of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Point {
    /// Its number.
    pub(crate) seq: u64,
    /// When it happened.
    pub(crate) time: String,
}

/// Where the chain breaks, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{file}, line {line}: {problem}")]
pub(crate) struct Fault {
    /// The file in the state folder.
    pub(crate) file: String,
    /// The line in it, from 1.
    pub(crate) line: u64,
    /// What is wrong with it.
    #[serde(flatten)]
    pub(crate) problem: Problem,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "problem", rename_all = "kebab-case")]
pub(crate) enum Problem {
    /// Its hash is not the one that the next line names.
    #[error("the line was changed")]
    Changed,
    /// It does not follow the line before it, and nothing after it tells which of them is
    /// right.
    #[error("the line or the one before it was changed")]
    Unlinked,
    /// It is no entry, and none after it says that a write was cut short.
    #[error("the line is no entry: it was changed or cut short")]
    NoEntry,
    /// It ends without a newline in the middle of the log.
    #[error("the file was cut short after this line")]
    CutShort,
    /// Entries before it are gone.
    #[error("entries {from} to {to} are missing before this line")]
    Missing {
        /// The first one.
        from: u64,
        /// The last one.
        to: u64,
    },
    /// The entry that belongs here comes later.
    #[error("entry {found} stands before entry {expected}")]
    Reordered {
        /// What stands here.
        found: u64,
        /// What belongs here.
        expected: u64,
    },
    /// An entry of this number was there already.
    #[error("entry {seq} stands here a second time, or was inserted")]
    Repeated {
        /// Its number.
        seq: u64,
    },
    /// The file does not begin with the entry that opens it.
    #[error("the first lines of the file are missing")]
    NoBeginning,
    /// What was cut short is not what it was when it was marked.
    #[error("what stood before this line, cut short by a crash, was changed")]
    TornChanged,
    /// The entry that was asked for is another one.
    #[error("entry {seq} is not the one that was expected")]
    Unexpected {
        /// Its number.
        seq: u64,
    },
    /// The entry that was asked for has not been there, or is gone.
    #[error("the log ends before entry {seq}, which was expected")]
    EndsEarly {
        /// Its number.
        seq: u64,
    },
    /// The entry that was asked for is older than what is kept.
    #[error("the log begins after entry {seq}, which was expected")]
    BeginsLate {
        /// Its number.
        seq: u64,
    },
}

#[expect(clippy::ref_option, reason = "the signature that serde calls")]
fn as_text<S: Serializer>(head: &Option<Head>, serializer: S) -> Result<S::Ok, S::Error> {
    match head {
        Some(head) => serializer.collect_str(head),
        None => serializer.serialize_none(),
    }
}

/// Checks the log of a state folder, also while a node writes to it. `expect` is an entry
/// that has to be there.
pub(crate) fn verify(home: &Home, expect: Option<Head>) -> Result<Report, HomeError> {
    let parts = files::snapshot(home)?;
    let mut walk = Walk { parts: &parts, expect, place: None, report: Report::default() };
    walk.report.files = parts.len();
    let fault = walk.find_fault(home)?;
    let mut report = walk.report;
    if fault.is_some() {
        // Nobody is to note it.
        report.head = None;
    }
    Ok(Report { ok: fault.is_none(), fault, ..report })
}

/// The outer error is the disk's, the inner one the chain's.
type Checked = io::Result<Result<(), Fault>>;

struct Walk<'a> {
    parts: &'a [Part],
    expect: Option<Head>,
    /// The file and the line of the last entry.
    place: Option<(usize, u64)>,
    report: Report,
}

/// A line that is looked at, in the file of that index.
struct Here<'a> {
    index: usize,
    part: &'a Part,
    piece: Piece,
    entry: &'a Entry,
    head: Head,
    /// It is the file's first entry.
    first: bool,
}

impl Here<'_> {
    fn fault(&self, problem: Problem) -> Fault {
        Fault { file: self.part.name.clone(), line: self.piece.number, problem }
    }
}

impl Walk<'_> {
    fn find_fault(&mut self, home: &Home) -> Result<Option<Fault>, HomeError> {
        for (index, part) in self.parts.iter().enumerate() {
            let outcome = self.file(index, part);
            let at = |source| HomeError::File { path: home.path(&part.name), source };
            if let Err(fault) = outcome.map_err(at)? {
                return Ok(Some(fault));
            }
        }
        Ok(self.unmet())
    }

    fn file(&mut self, index: usize, part: &Part) -> Checked {
        let newest = index + 1 == self.parts.len();
        let mut lines = part.lines(0);
        // Where the entries before end, and the first line after them that is none.
        let (mut whole, mut torn, mut first) = (0, None, true);
        while let Some(piece) = lines.read()? {
            let fault = |problem| Fault { file: part.name.clone(), line: piece.number, problem };
            if !piece.terminated && !newest {
                return Ok(Err(fault(Problem::CutShort)));
            }
            let Some(entry) = lines.entry() else {
                torn.get_or_insert(piece.number);
                continue;
            };
            let head = Head { seq: entry.seq, hash: entry::hash(lines.text()) };
            let here = Here { index, part, piece, entry: &entry, head, first };
            if let Err(fault) = self.marked(&here, whole, torn.take())? {
                return Ok(Err(fault));
            }
            if let Err(fault) = self.entry(&here)? {
                return Ok(Err(fault));
            }
            (whole, first) = (piece.end, false);
        }
        match torn {
            // The newest file may end so: its writer was killed, and none has come since.
            Some(_) if newest => self.report.torn_bytes = part.len - whole,
            Some(line) => {
                return Ok(Err(Fault { file: part.name.clone(), line, problem: Problem::NoEntry }));
            }
            None if first && !newest => {
                return Ok(Err(Fault {
                    file: part.name.clone(),
                    line: 1,
                    problem: Problem::NoBeginning,
                }));
            }
            None => {}
        }
        Ok(Ok(()))
    }

    /// Bytes that are no entry are as the entry after them says.
    fn marked(&mut self, here: &Here<'_>, whole: u64, torn: Option<u64>) -> Checked {
        let hash = match (torn, here.entry.torn) {
            (None, None) => return Ok(Ok(())),
            (None, Some(_)) => return Ok(Err(here.fault(Problem::TornChanged))),
            (Some(line), None) => {
                return Ok(Err(Fault { line, ..here.fault(Problem::NoEntry) }));
            }
            (Some(_), Some(hash)) => hash,
        };
        if files::hash_of(&here.part.file, whole, here.piece.start - 1)? != hash {
            return Ok(Err(here.fault(Problem::TornChanged)));
        }
        self.report.recovered += 1;
        Ok(Ok(()))
    }

    /// Takes the next entry of the chain.
    fn entry(&mut self, here: &Here<'_>) -> Checked {
        let Entry { seq, prev, .. } = *here.entry;
        let linked = match self.report.head {
            Some(head) => seq == head.seq.saturating_add(1) && prev == head.hash,
            None => true,
        };
        if !linked {
            return self.broken(here).map(Err);
        }
        if here.first && !here.entry.opens_file() {
            return Ok(Err(here.fault(Problem::NoBeginning)));
        }
        if let Some(expect) = self.expect
            && (seq == expect.seq && here.head.hash != expect.hash
                || seq.checked_sub(1) == Some(expect.seq) && prev != expect.hash)
        {
            return Ok(Err(here.fault(Problem::Unexpected { seq: expect.seq })));
        }
        let point = Point { seq, time: here.entry.time.clone() };
        self.report.entries += 1;
        self.report.first.get_or_insert_with(|| point.clone());
        self.report.last = Some(point);
        self.report.head = Some(here.head);
        self.place = Some((here.index, here.piece.number));
        Ok(Ok(()))
    }

    /// Tells in what way the line does not follow the one before it.
    fn broken(&self, here: &Here<'_>) -> io::Result<Fault> {
        let (seq, last) = (here.entry.seq, self.report.head.unwrap_or(Head::NONE).seq);
        let expected = last.saturating_add(1);
        if seq < expected {
            return Ok(here.fault(Problem::Repeated { seq }));
        }
        if seq == expected || here.entry.prev == self.report.head.unwrap_or(Head::NONE).hash {
            return self.changed(here);
        }
        let comes_later = self.any_after(here, |entry| entry.seq == expected)?;
        Ok(here.fault(if comes_later {
            Problem::Reordered { found: seq, expected }
        } else {
            Problem::Missing { from: expected, to: seq - 1 }
        }))
    }

    /// One of two neighbours was changed: the next line tells which, if there is one.
    fn changed(&self, here: &Here<'_>) -> io::Result<Fault> {
        let next = self.after(here).next_entry()?;
        Ok(match (next, self.place) {
            (Some(next), Some((file, line))) if next.prev == here.head.hash => {
                let file = self.parts.get(file).map(|part| part.name.clone()).unwrap_or_default();
                Fault { file, line, problem: Problem::Changed }
            }
            (Some(_), _) => here.fault(Problem::Changed),
            (None, _) => here.fault(Problem::Unlinked),
        })
    }

    fn any_after(&self, here: &Here<'_>, fits: impl Fn(&Entry) -> bool) -> io::Result<bool> {
        let mut after = self.after(here);
        while let Some(entry) = after.next_entry()? {
            if fits(&entry) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn after(&self, here: &Here<'_>) -> After<'_> {
        let rest = self.parts.get(here.index + 1..).unwrap_or_default();
        After { lines: here.part.lines(here.piece.end), rest: rest.iter() }
    }

    /// What is expected and has not come.
    fn unmet(&self) -> Option<Fault> {
        let expect = self.expect.filter(|expect| *expect != Head::NONE)?;
        let (file, line) = self.place.unwrap_or_default();
        let file = self.parts.get(file).map_or(files::ACTIVE, |part| &part.name).to_owned();
        let first = self.report.first.as_ref().map_or(0, |point| point.seq);
        if expect.seq.saturating_add(1) < first {
            let file = self.parts.first().map_or(file, |part| part.name.clone());
            return Some(Fault { file, line: 1, problem: Problem::BeginsLate { seq: expect.seq } });
        }
        let last = self.report.head.map_or(0, |head| head.seq);
        (expect.seq > last).then_some(Fault {
            file,
            line,
            problem: Problem::EndsEarly { seq: expect.seq },
        })
    }
}

/// The entries after a line, over the ends of files.
struct After<'a> {
    lines: Lines,
    rest: std::slice::Iter<'a, Part>,
}

impl After<'_> {
    fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        loop {
            while self.lines.read()?.is_some() {
                if let Some(entry) = self.lines.entry() {
                    return Ok(Some(entry));
                }
            }
            match self.rest.next() {
                Some(part) => self.lines = part.lines(0),
                None => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests;
