//! Repositories as people read them.

use std::io;

use serde::Serialize;

use super::remote::Listed;
use crate::{
    commands::plain,
    git::admin::{Shown, ShownMirror},
    output,
};

/// What garbage collection has come to.
#[derive(Debug, Serialize)]
pub(super) struct Collected {
    pub(super) name: String,
    pub(super) before: u64,
    pub(super) after: u64,
}

/// Of this machine.
pub(super) fn many(all: &[Shown]) -> io::Result<()> {
    let row = |one: &Shown| {
        let mirror = one.mirror.as_ref().map_or("", state);
        [
            plain(&one.name),
            seen_by(one.public),
            bytes(one.size),
            output::minute(one.updated),
            mirror.into(),
            plain(&one.description),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    output::table(["NAME", "READ BY", "SIZE", "UPDATED", "MIRROR", "DESCRIPTION"], &rows)
}

/// Of another node.
pub(super) fn theirs(all: &[Listed]) -> io::Result<()> {
    let row = |one: &Listed| {
        let rights = match (one.rights.admin, one.rights.push) {
            (true, _) => "all",
            (_, true) => "push",
            _ => "read",
        };
        [
            plain(&one.name),
            seen_by(one.public),
            bytes(one.size),
            output::minute(one.updated),
            rights.into(),
            plain(&one.description),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    output::table(["NAME", "READ BY", "SIZE", "UPDATED", "RIGHTS", "DESCRIPTION"], &rows)
}

/// One, a line for each setting.
pub(super) fn one(shown: &Shown) -> io::Result<()> {
    let mut rows = vec![
        ("name", plain(&shown.name)),
        ("description", plain(&shown.description)),
        ("read by", seen_by(shown.public)),
        ("default branch", plain(shown.default_branch.as_deref().unwrap_or_default())),
        ("size", bytes(shown.size)),
        ("updated", output::minute(shown.updated)),
        ("protected", plain(&shown.protected.join(" "))),
        ("quota", shown.quota.map_or_else(|| "none".into(), bytes)),
        ("large files", if shown.lfs { "stored" } else { "not stored" }.into()),
    ];
    if let Some(mirror) = &shown.mirror {
        let moment = |moment: Option<i64>| moment.map_or_else(|| "never".into(), output::minute);
        rows.push(("mirror of", plain(&mirror.url)));
        rows.push(("last success", moment(mirror.last_success)));
        if let Some(error) = &mirror.last_error {
            rows.push(("last error", plain(error)));
        }
        let next = match mirror.next {
            0 => "when the node runs".into(),
            next => output::minute(next),
        };
        rows.push(("looks next", next));
    }
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let shown = rows.iter().filter(|(_, value)| !value.is_empty());
    shown.into_iter().try_for_each(|(name, value)| output::line(format!("{name:<width$}  {value}")))
}

pub(super) fn collected(all: &[Collected]) -> io::Result<()> {
    let row = |one: &Collected| [plain(&one.name), bytes(one.before), bytes(one.after)];
    let rows: Vec<_> = all.iter().map(row).collect();
    output::table(["NAME", "BEFORE", "AFTER"], &rows)
}

fn state(mirror: &ShownMirror) -> &'static str {
    match (mirror.last_attempt, &mirror.last_error) {
        (None, _) => "waits",
        (_, None) => "good",
        (_, Some(_)) => "failed",
    }
}

fn seen_by(public: bool) -> String {
    if public { "everybody" } else { "grant" }.into()
}

/// In the unit that leaves three digits or so.
fn bytes(count: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.into_iter().find(|(_, unit)| count >= *unit) {
        Some((name, unit)) => {
            let tenths = u128::from(count) * 10 / u128::from(unit);
            format!("{}.{}{name}", tenths / 10, tenths % 10)
        }
        None => format!("{count}B"),
    }
}
