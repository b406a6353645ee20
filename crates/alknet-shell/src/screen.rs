//! What a terminal shows, and how to paint another one like it.

mod modes;

use std::fmt;

use avt::{Cell, Color, Line, Pen};
use modes::Modes;

use crate::wire::Size;

/// How large the lines that have scrolled off are when they are painted, in bytes. The largest
/// screen is some 12 MiB, and viewers take 16.
const MAX_HISTORY: usize = 2 * 1024 * 1024;
/// How many lines that have scrolled off are kept.
const HISTORY: usize = 1000;
/// The largest terminal that is kept track of.
const MAX_COLUMNS: u16 = 500;
const MAX_ROWS: u16 = 300;

/// Follows the output of a program as a terminal does.
pub struct Screen {
    terminal: avt::Terminal,
    modes: Modes,
    /// The beginning of a character whose rest has not come yet.
    partial: Vec<u8>,
}

impl Screen {
    /// An empty one.
    pub fn new(size: Size) -> Self {
        let (columns, rows) = bounded(size);
        let terminal = avt::Terminal::with_scrollback(columns, rows, Some(HISTORY));
        // Neither is 0, so there is one.
        let terminal = terminal.unwrap_or_else(|_| unreachable!("a bounded size is positive"));
        Self { terminal, modes: Modes::default(), partial: Vec::new() }
    }

    /// Shows what the program has written.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.modes.feed(bytes);
        let mut joined = std::mem::take(&mut self.partial);
        joined.extend_from_slice(bytes);
        let whole = joined.len() - unfinished(&joined);
        let (text, rest) = joined.split_at(whole);
        self.terminal.feed(&*String::from_utf8_lossy(text));
        self.partial = rest.to_vec();
    }

    /// Has another size from now on.
    pub fn resize(&mut self, size: Size) {
        let (columns, rows) = bounded(size);
        if self.terminal.size() != (columns, rows) {
            self.terminal.resize(columns, rows);
        }
    }

    /// Whether the alternate screen is shown, as full-screen programs do.
    pub fn is_alternate(&self) -> bool {
        self.terminal.active_screen_kind() == avt::ScreenKind::Alternate
    }

    /// What makes a terminal that was reset look and behave like this one, with at most
    /// `history` of the lines that have scrolled off. What the program writes next may follow
    /// at once, even in the middle of a character or of a control sequence.
    pub fn paint(&self, history: u32) -> Vec<u8> {
        let mut out = self.history(usize::try_from(history).unwrap_or(usize::MAX));
        out.push_str("\x1b[H\x1b[2J");
        out.push_str(&self.modes.dump());
        out.push_str(&self.terminal.dump());
        let mut out = out.into_bytes();
        out.extend_from_slice(&self.partial);
        out
    }

    /// The lines that have scrolled off, and what scrolls them off again.
    fn history(&self, most: usize) -> String {
        let primary = self.terminal.primary_screen();
        let rows = self.terminal.size().1;
        let kept = primary.all_lines().count().saturating_sub(rows);
        let lines: Vec<&Line> = primary.all_lines().take(kept).collect();
        let (mut newest, mut room) = (Vec::new(), MAX_HISTORY);
        for line in lines.into_iter().rev().take(most) {
            let mut text = String::new();
            write_line(&mut text, line);
            match room.checked_sub(text.len()) {
                Some(left) => room = left,
                None => break,
            }
            newest.push(text);
        }
        let mut out: String = newest.into_iter().rev().collect();
        if !out.is_empty() {
            out.push_str("\x1b[m");
            out.extend(std::iter::repeat_n("\r\n", rows));
        }
        out
    }
}

impl fmt::Debug for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Screen").field("size", &self.terminal.size()).finish_non_exhaustive()
    }
}

fn bounded(size: Size) -> (usize, usize) {
    (size.columns.clamp(1, MAX_COLUMNS).into(), size.rows.clamp(1, MAX_ROWS).into())
}

/// How many bytes at the end begin a character that is not all there.
fn unfinished(bytes: &[u8]) -> usize {
    let tail = bytes.len().min(3);
    (1..=tail)
        .find(|back| {
            let lead = bytes.get(bytes.len() - back).copied().unwrap_or_default();
            let needed = match lead {
                0xc2..=0xdf => 2,
                0xe0..=0xef => 3,
                0xf0..=0xf4 => 4,
                _ => return false,
            };
            let cut = bytes.get(bytes.len() - back..).unwrap_or_default();
            needed > *back && std::str::from_utf8(cut).is_err_and(|e| e.error_len().is_none())
        })
        .unwrap_or(0)
}

fn write_line(out: &mut String, line: &Line) {
    let same = |a: &Cell, b: &Cell| a.pen() != b.pen();
    let mut text = String::new();
    for run in line.chunks(same) {
        let Some(first) = run.first() else { continue };
        text.push_str(&sgr(first.pen()));
        text.extend(run.iter().map(Cell::char));
    }
    if line.is_wrapped() {
        out.push_str(&text);
    } else {
        out.push_str(text.trim_end_matches(' '));
        out.push_str("\x1b[m\r\n");
    }
}

/// The control sequence that selects a rendition (ECMA-48, section 8.3.117).
fn sgr(pen: &Pen) -> String {
    let mut text = String::from("\x1b[0");
    let flags = [
        (pen.is_bold(), ";1"),
        (pen.is_faint(), ";2"),
        (pen.is_italic(), ";3"),
        (pen.is_underline(), ";4"),
        (pen.is_blink(), ";5"),
        (pen.is_inverse(), ";7"),
        (pen.is_strikethrough(), ";9"),
    ];
    text.extend(flags.iter().filter(|(on, _)| *on).map(|(_, code)| *code));
    for (base, color) in [(38, pen.foreground()), (48, pen.background())] {
        match color {
            None => {}
            Some(Color::Indexed(index)) => text.push_str(&format!(";{base};5;{index}")),
            Some(Color::RGB(rgb)) => {
                text.push_str(&format!(";{base};2;{};{};{}", rgb.r, rgb.g, rgb.b));
            }
        }
    }
    text.push('m');
    text
}

#[cfg(test)]
mod tests;
