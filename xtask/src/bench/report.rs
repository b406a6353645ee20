//! Medians, ratios, tables.

use std::{fmt::Write as _, fs, path::Path, thread};

use anyhow::Result;

use crate::sh::Cmd;

/// Something to compare: a way to a server.
pub(super) trait Named {
    fn name(&self) -> &str;
}

/// What is measured of a way, with some data; `None` where it has no such thing.
pub(super) type Measure<W, D> = fn(&W, &D) -> Result<Option<f64>>;

/// A thing to measure of every way.
pub(super) struct Column<W, D> {
    pub(super) head: &'static str,
    /// Digits after the point.
    pub(super) digits: usize,
    pub(super) measure: Measure<W, D>,
}

/// What was measured, by way and column.
pub(super) struct Table<'a, W, D> {
    columns: &'a [Column<W, D>],
    rows: Vec<(&'a str, Vec<Vec<f64>>)>,
}

impl<'a, W: Named, D> Table<'a, W, D> {
    /// Every round goes through all the ways, so that whatever else the machine does meets
    /// them alike.
    pub(super) fn measure(
        ways: &'a [W],
        columns: &'a [Column<W, D>],
        rounds: usize,
        data: &D,
    ) -> Result<Self> {
        let empty = |way: &'a W| (way.name(), vec![Vec::new(); columns.len()]);
        let mut rows = Vec::from_iter(ways.iter().map(empty));
        for round in 1..=rounds {
            for (index, column) in columns.iter().enumerate() {
                for (way, (name, cells)) in ways.iter().zip(&mut rows) {
                    let value = (column.measure)(way, data)?;
                    if let Some(value) = value {
                        eprintln!("{round}/{rounds}, {name}, {}: {value:.2}", column.head);
                    }
                    if let Some(cell) = cells.get_mut(index) {
                        cell.extend(value);
                    }
                }
            }
        }
        Ok(Self { columns, rows })
    }

    /// As Markdown. Each cell has its ratios to what the first row came to in the same rounds:
    /// whatever else the machine did then is in both.
    pub(super) fn markdown(&self) -> String {
        let heads = Vec::from_iter(self.columns.iter().map(|column| column.head));
        let mut text =
            format!("| way | {} |\n{}|\n", heads.join(" | "), "|---".repeat(heads.len() + 1));
        for (name, cells) in &self.rows {
            let base = self.rows.first().map(|(_, cells)| cells.as_slice()).unwrap_or_default();
            let cells = cells.iter().zip(base).zip(self.columns);
            let cells = cells.map(|((cell, base), column)| show(cell, base, column.digits));
            let _ = writeln!(text, "| {name} | {} |", Vec::from_iter(cells).join(" | "));
        }
        text
    }
}

fn show(values: &[f64], base: &[f64], digits: usize) -> String {
    if values.is_empty() {
        return "–".to_owned();
    }
    let (min, median, max) = spread(values);
    let ratios = Vec::from_iter(values.iter().zip(base).map(|(value, base)| value / base));
    let (least, ratio, most) = spread(&ratios);
    format!(
        "{min:.digits$} / **{median:.digits$}** / {max:.digits$} \
         (×{least:.2} / **×{ratio:.2}** / ×{most:.2})"
    )
}

/// Minimum, median and maximum.
fn spread(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    (at(0), at(sorted.len() / 2), at(sorted.len().saturating_sub(1)))
}

/// The machine, the programs and the source, in a line.
pub(super) fn machine(root: &Path) -> Result<String> {
    let cores = thread::available_parallelism()?;
    let load = fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or_default();
    let kernel = Cmd::new(root, "uname").args(["-s", "-r", "-m"]).read()?;
    let rustc = Cmd::new(root, "rustc").arg("--version").read()?;
    let openssh = std::process::Command::new("ssh").arg("-V").output()?;
    let openssh = String::from_utf8_lossy(&openssh.stderr).into_owned();
    let openssh = openssh.split(',').next().unwrap_or_default().trim().to_owned();
    Ok(format!(
        "{cores} cores with a load of {load} before the run, {}, {openssh}, {}; {}",
        kernel.trim(),
        rustc.trim(),
        commit(root)?,
    ))
}

fn commit(root: &Path) -> Result<String> {
    let commit = Cmd::new(root, "git").args(["rev-parse", "--short=12", "HEAD"]).read()?;
    let sources = ["status", "--porcelain", "--", "crates", "Cargo.lock", "patches", "web"];
    let changed = !Cmd::new(root, "git").args(sources).read()?.trim().is_empty();
    Ok(format!("commit {}{}", commit.trim(), if changed { " with changes" } else { "" }))
}

/// The section about looking people up, around the table that the benchmark prints.
pub(super) fn identities(table: &str) -> String {
    format!(
        "## Looking people up\n\n\
         In the SQLite store of a state folder, one after the other, with the way into the \
         database's own thread and back. {}\n",
        table.trim()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Named for () {
        fn name(&self) -> &str {
            ""
        }
    }

    #[test]
    fn a_table_has_medians_and_ratios() {
        let columns: [Column<(), ()>; 2] = [
            Column { head: "MB/s", digits: 0, measure: |_, _| Ok(None) },
            Column { head: "ms", digits: 1, measure: |_, _| Ok(None) },
        ];
        let rows = vec![
            ("sshd", vec![vec![30.0, 10.0, 20.0], vec![5.0]]),
            ("quic", vec![vec![90.0, 10.0, 40.0], vec![]]),
        ];
        let text = Table { columns: &columns, rows }.markdown();
        let expected = "| way | MB/s | ms |\n|---|---|---|\n\
                        | sshd | 10 / **20** / 30 (×1.00 / **×1.00** / ×1.00) \
                        | 5.0 / **5.0** / 5.0 (×1.00 / **×1.00** / ×1.00) |\n\
                        | quic | 10 / **40** / 90 (×1.00 / **×2.00** / ×3.00) | – |\n";
        assert_eq!(text, expected);
    }
}
