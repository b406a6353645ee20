//! Which lines of a file differ.

use gix::{
    bstr::ByteSlice as _,
    diff::blob::{Algorithm, InternedInput, Token, diff_with_slider_heuristics, sources},
};
use schemars::JsonSchema;
use serde::Serialize;

use super::Budget;

/// What follows a line that has no end, as git and diff have it.
const NO_NEWLINE: &str = "\\ No newline at end of file";
/// About what a line takes beside its text, and a hunk beside its lines.
const LINE: usize = 8;
const HUNK: usize = 120;

/// Some lines that differ, and those around them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[non_exhaustive]
pub struct Hunk {
    /// The number of its first line before; the one above it, if it has none.
    pub old_start: u32,
    /// How many lines it had before.
    pub old_lines: u32,
    /// The number of its first line now.
    pub new_start: u32,
    /// How many lines it has now.
    pub new_lines: u32,
    /// The lines, without their ends: each behind ' ' if it stayed, '-' if it is gone, '+' if
    /// it is new, or '\' in the remark that the line above has no end.
    pub lines: Vec<String>,
}

/// How two files differ.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub(super) hunks: Vec<Hunk>,
    pub(super) additions: u32,
    pub(super) deletions: u32,
    /// Whether not all hunks are there.
    pub(super) truncated: bool,
}

/// How two texts differ, with so many lines around each change, as far as there is room.
pub(super) fn compare(
    old: &[u8],
    new: &[u8],
    context: u32,
    most: usize,
    budget: &mut Budget,
) -> Lines {
    let input = InternedInput::new(sources::byte_lines(old), sources::byte_lines(new));
    // What git takes unless it is told otherwise.
    let diff = diff_with_slider_heuristics(Algorithm::Myers, &input);
    let mut lines = Lines {
        additions: diff.count_additions(),
        deletions: diff.count_removals(),
        ..Lines::default()
    };
    let mut writer = Writer { input: &input, own: Budget::new(most), budget };
    let mut groups = Vec::<Vec<_>>::new();
    for hunk in diff.hunks() {
        match groups.last_mut() {
            Some(group) if is_near(group.last(), hunk.before.start, context) => group.push(hunk),
            _ => groups.push(vec![hunk]),
        }
    }
    for group in groups {
        let (hunk, is_whole) = writer.hunk(&group, context);
        if !hunk.lines.is_empty() {
            lines.hunks.push(hunk);
        }
        if !is_whole {
            lines.truncated = true;
            break;
        }
    }
    lines
}

/// Whether the lines around two changes meet.
fn is_near(last: Option<&gix::diff::blob::Hunk>, start: u32, context: u32) -> bool {
    last.is_some_and(|last| start.saturating_sub(last.before.end) <= context.saturating_mul(2))
}

struct Writer<'a, 'b> {
    input: &'a InternedInput<&'a [u8]>,
    own: Budget,
    budget: &'b mut Budget,
}

impl Writer<'_, '_> {
    /// A hunk of changes that are near each other, and whether all of it had room.
    fn hunk(&mut self, group: &[gix::diff::blob::Hunk], context: u32) -> (Hunk, bool) {
        let input = self.input;
        let Some(first) = group.first() else { return (Hunk::at(0, 0), true) };
        let lead = context.min(first.before.start);
        let (old_start, new_start) = (first.before.start - lead, first.after.start - lead);
        let mut hunk = Hunk::at(old_start, new_start);
        if !self.take("", HUNK) {
            return (hunk, false);
        }
        let mut at = old_start;
        for change in group {
            let whole = self.lines(&mut hunk, ' ', &input.before, at..change.before.start)
                && self.lines(&mut hunk, '-', &input.before, change.before.clone())
                && self.lines(&mut hunk, '+', &input.after, change.after.clone());
            if !whole {
                return (hunk.numbered(), false);
            }
            at = change.before.end;
        }
        let end = at.saturating_add(context);
        let whole = self.lines(&mut hunk, ' ', &input.before, at..end);
        (hunk.numbered(), whole)
    }

    /// Adds lines; whether there was room for all.
    fn lines(
        &mut self,
        hunk: &mut Hunk,
        sign: char,
        side: &[Token],
        range: std::ops::Range<u32>,
    ) -> bool {
        let start = (range.start as usize).min(side.len());
        let end = (range.end as usize).min(side.len());
        for &token in side.get(start..end).unwrap_or_default() {
            let bytes = self.input.interner[token];
            let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
            let line = format!("{sign}{}", text.to_str_lossy());
            let has_end = text.len() < bytes.len();
            if !self.take(&line, LINE + if has_end { 0 } else { NO_NEWLINE.len() + LINE }) {
                return false;
            }
            hunk.lines.push(line);
            hunk.old_lines += u32::from(sign != '+');
            hunk.new_lines += u32::from(sign != '-');
            if !has_end {
                hunk.lines.push(NO_NEWLINE.to_owned());
            }
        }
        true
    }

    fn take(&mut self, text: &str, more: usize) -> bool {
        self.own.take(text, more) && self.budget.take(text, more)
    }
}

impl Hunk {
    /// One without lines yet, behind so many lines before and now.
    fn at(old: u32, new: u32) -> Self {
        Self { old_start: old, old_lines: 0, new_start: new, new_lines: 0, lines: Vec::new() }
    }

    /// Its lines are counted from 1; where it has none, it stands behind a line.
    fn numbered(mut self) -> Self {
        self.old_start += u32::from(self.old_lines > 0);
        self.new_start += u32::from(self.new_lines > 0);
        self
    }
}
