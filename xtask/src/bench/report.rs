//! Medians, ratios, and the table.

use std::{fmt::Write as _, path::Path, thread};

use anyhow::Result;

use super::{ALGORITHMS, BYTES, LOGINS, TRANSFERS};
use crate::sh::Cmd;

/// What was measured of one way.
pub(super) struct Samples {
    name: &'static str,
    /// From the server to the client, MB/s.
    pub(super) out: Vec<f64>,
    /// From the client to the server, MB/s.
    pub(super) into: Vec<f64>,
    /// `ssh HOST true`, milliseconds.
    pub(super) login: Vec<f64>,
}

impl Samples {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, out: Vec::new(), into: Vec::new(), login: Vec::new() }
    }
}

/// The machine and the programs, in a line.
pub(super) fn machine(root: &Path) -> Result<String> {
    let cores = thread::available_parallelism()?;
    let kernel = Cmd::new(root, "uname").args(["-s", "-r", "-m"]).read()?;
    let rustc = Cmd::new(root, "rustc").arg("--version").read()?;
    let openssh = std::process::Command::new("ssh").arg("-V").output()?;
    let openssh = String::from_utf8_lossy(&openssh.stderr).into_owned();
    let openssh = openssh.split(',').next().unwrap_or_default().trim().to_owned();
    Ok(format!("{cores} cores, {}, {openssh}, {}", kernel.trim(), rustc.trim()))
}

/// The whole of `docs/benchmarks.md`.
pub(super) fn markdown(all: &[Samples], machine: &str) -> String {
    let mut text = format!(
        "# Benchmarks\n\n\
         Written by `cargo xtask bench`; every number is of one run, in which the ways take \
         turns.\n\n\
         Machine: {machine}. Client and server share it, over loopback.\n\n\
         One row is one way from the OpenSSH client to a command: `sshd` is OpenSSH's own \
         server over plain TCP, the others are `alknet serve` reached by `ProxyCommand \
         alknet dial --via …`, so that they carry a second encryption (TLS or QUIC) and a \
         second client process. Both servers use `{}` and `{}`. A transfer is {} MiB of \
         zeros through `ssh` ({TRANSFERS} rounds, MB = 10^6 bytes), a login is `ssh HOST \
         true` ({LOGINS} rounds). Each cell has minimum / **median** / maximum, and the \
         ratio of the medians to sshd's.\n\n",
        ALGORITHMS[0],
        ALGORITHMS[1],
        BYTES >> 20,
    );
    table(&mut text, all);
    proxy_cost(&mut text, all);
    text
}

/// The section about looking people up, around the table that the benchmark prints.
pub(super) fn identities(table: &str) -> String {
    format!(
        "\n## Looking people up\n\n\
         In the SQLite store of a state folder, one after the other, with the way into the \
         database's own thread and back. {}\n",
        table.trim()
    )
}

fn table(text: &mut String, all: &[Samples]) {
    text.push_str(
        "| way | from the server, MB/s | to the server, MB/s | login, ms |\n|---|---|---|---|\n",
    );
    let Some(base) = all.first() else { return };
    for way in all {
        let cells = [
            cell(&way.out, &base.out, 0),
            cell(&way.into, &base.into, 0),
            cell(&way.login, &base.login, 1),
        ];
        let _ = writeln!(text, "| {} | {} |", way.name, cells.join(" | "));
    }
}

fn cell(values: &[f64], base: &[f64], digits: usize) -> String {
    let (min, median, max) = spread(values);
    let ratio = median / spread(base).1;
    format!("{min:.digits$} / **{median:.digits$}** / {max:.digits$} (×{ratio:.2})")
}

/// What the ALPN-stream proxy costs: the same QUIC, with HTTP/3 and a session around it.
fn proxy_cost(text: &mut String, all: &[Samples]) {
    let find = |name| all.iter().find(|way| way.name == name);
    let (Some(native), Some(inside)) = (find("quic"), find("webtransport")) else { return };
    let ratio = |inside: &[f64], native: &[f64]| spread(inside).1 / spread(native).1;
    let _ = writeln!(
        text,
        "\nThe proxy's own cost, webtransport against quic (ratio of medians): from the server \
         ×{:.2}, to the server ×{:.2}, login ×{:.2}.",
        ratio(&inside.out, &native.out),
        ratio(&inside.into, &native.into),
        ratio(&inside.login, &native.login),
    );
}

/// Minimum, median and maximum.
fn spread(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    (at(0), at(sorted.len() / 2), at(sorted.len().saturating_sub(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_medians_and_ratios() {
        let mut base = Samples::new("sshd");
        let mut quic = Samples::new("quic");
        for (samples, scale) in [(&mut base, 1.0), (&mut quic, 2.0)] {
            samples.out = [30.0, 10.0, 20.0].map(|value| value * scale).into();
            samples.into = vec![100.0];
            samples.login = vec![5.0];
        }
        let text = markdown(&[base, quic], "2 cores");
        assert!(text.contains("| quic | 20 / **40** / 60 (×2.00) | "), "{text}");
    }
}
