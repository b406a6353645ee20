//! What commands print: data on stdout, notes on stderr.

use std::{
    fmt::Display,
    io::{self, Write as _},
};

use serde::Serialize;

/// One line of data on stdout.
pub(crate) fn line(text: impl Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{text}")
}

/// One line for the person at the terminal, on stderr.
pub(crate) fn note(text: impl Display) -> io::Result<()> {
    writeln!(io::stderr().lock(), "{text}")
}

/// Data as indented JSON on stdout.
pub(crate) fn json(value: &impl Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value)?;
    writeln!(out)
}

/// The widest column: more is not aligned.
const WIDEST: usize = 1000;

/// Rows in aligned columns on stdout, under a heading.
pub(crate) fn table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> io::Result<()> {
    let mut widths = heading.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count().min(WIDEST));
        }
    }
    let mut out = io::stdout().lock();
    for row in std::iter::once(&heading.map(String::from)).chain(rows) {
        let mut text = String::new();
        for (width, cell) in widths.iter().zip(row) {
            text.push_str(&format!("{cell:<width$}  "));
        }
        writeln!(out, "{}", text.trim_end())?;
    }
    Ok(())
}

/// A moment as `2026-11-22 05:41` in UTC.
pub(crate) fn minute(unix: i64) -> String {
    let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]");
    time::OffsetDateTime::from_unix_timestamp(unix)
        .ok()
        .and_then(|moment| moment.format(&format).ok())
        .unwrap_or_else(|| unix.to_string())
}
