//! The status of another node, as it tells it.

use std::collections::BTreeMap;

use alknet_call::{CallOptions, Nothing, Peer};
use serde::Deserialize;

use super::super::{
    call::{self, plain},
    dial::Reach,
};
use crate::{failure::Failure, home::Home, output, remote};

/// What of the answer is shown. A node of another version may say less.
#[derive(Debug, Deserialize)]
struct Status {
    version: String,
    node: String,
    #[serde(default)]
    name: String,
    address: String,
    uptime_s: u64,
    #[serde(default)]
    services: Vec<String>,
    sessions: Sessions,
    certificate: Certificate,
    #[serde(default)]
    checks: Vec<Check>,
}

#[derive(Debug, Deserialize)]
struct Sessions {
    total: u64,
    #[serde(default)]
    by_alpn: BTreeMap<String, u64>,
}

#[derive(Debug, Deserialize)]
struct Certificate {
    self_signed: bool,
    not_after: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct Check {
    name: String,
    ok: bool,
}

pub(super) async fn run(node: &str, reach: &Reach, json: bool, home: &Home) -> Result<(), Failure> {
    let answer = remote::call(home, node, reach, async |peer: Peer| {
        Ok(peer.call_raw("node/status", &Nothing {}, CallOptions::default()).await?)
    });
    let answer = answer.await?;
    if json {
        return Ok(call::print_indented(&answer)?);
    }
    let status: Status = serde_json::from_str(answer.get())?;
    for (name, value) in rows(&status) {
        output::line(format_args!("{name:<12} {}", plain(&value)))?;
    }
    Ok(())
}

fn rows(status: &Status) -> [(&'static str, String); 8] {
    let Sessions { total, by_alpn } = &status.sessions;
    let each: Vec<String> = by_alpn.iter().map(|(alpn, count)| format!("{count} {alpn}")).collect();
    let failing = status.checks.iter().filter(|check| !check.ok);
    let failing: Vec<&str> = failing.map(|check| check.name.as_str()).collect();
    let state = match failing.as_slice() {
        [] => format!("running for {}", duration(status.uptime_s)),
        some => format!("running, with trouble: {}", some.join(", ")),
    };
    let kind = if status.certificate.self_signed { "self-signed" } else { "from files" };
    let end =
        status.certificate.not_after.map(|end| format!(", until {} UTC", output::minute(end)));
    [
        ("state", state),
        ("address", status.address.clone()),
        ("node", status.node.clone()),
        ("name", status.name.clone()),
        ("version", status.version.clone()),
        ("services", status.services.join(", ")),
        ("sessions", format!("{total}: {}", each.join(", "))),
        ("certificate", format!("{kind}{}", end.unwrap_or_default())),
    ]
}

/// The two largest units of a time.
fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {} min", minutes % 60),
        (days, hours, _) => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        let all = [5, 65, 3 * 3600 + 60, 2 * 86400 + 3600].map(duration);
        assert_eq!(all, ["5 s", "1 min", "3 h 1 min", "2 d 1 h"]);
    }
}
