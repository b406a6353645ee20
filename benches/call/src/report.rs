//! Medians, ratios, and the tables.

use std::fmt::Write as _;

use crate::measure::{IN_FLIGHT, ROUNDS, SIZES, Samples, TIME};

/// The ways that the others are compared with, by what their names begin with.
const OURS: &str = "alknet";

/// The section of the document, without its heading.
pub(crate) fn markdown(all: &[Samples]) -> String {
    let mut text = format!(
        "One query that answers with what it was given, a struct of an id, a name, three tags \
         and a note, and one subscription to such structs; the server is a process of its own, \
         reached by one connection. `alknet` is a real endpoint with a caller who has a key and \
         a scope, and with every input checked against its schema; `tonic` is gRPC with \
         protobuf, `axum` is JSON by POST over HTTP/2 with hyper as the client and server-sent \
         events for the subscription, `jsonrpsee` is JSON-RPC over a WebSocket. All of them go \
         over TLS 1.3 by rustls and aws-lc-rs, and all have their own default settings, other \
         than jsonrpsee's buffer for items, which has to hold all of them. {ROUNDS} rounds, in \
         which the ways take turns, of {} s of calls for each number in flight. Each cell has \
         minimum / **median** / maximum; the ratio is that of the medians to the best of \
         the others: above 1, alknet is ahead. `cargo xtask bench call` measures this alone.\n",
        TIME.as_secs(),
    );
    for (size, (length, items)) in SIZES.into_iter().enumerate() {
        let _ = writeln!(text, "\n### Notes of {length} characters\n");
        for (at, in_flight) in IN_FLIGHT.into_iter().enumerate() {
            let _ = writeln!(
                text,
                "| {in_flight} in flight | calls/s | p50, µs | p99, µs |\n|---|---|---|---|"
            );
            for way in all {
                let calls = &way.calls[size][at];
                let best = best(all, |way| &way.calls[size][at].rate);
                let rate = cell(&calls.rate) + &ratio(way, &calls.rate, best);
                let (p50, p99) = (cell(&calls.p50), cell(&calls.p99));
                let _ = writeln!(text, "| {} | {rate} | {p50} | {p99} |", way.name);
            }
            text.push('\n');
        }
        let _ = writeln!(text, "| a subscription of {items} items | items/s |\n|---|---|");
        for way in all {
            let values = &way.items[size];
            let ratio = ratio(way, values, best(all, |way| &way.items[size]));
            let _ = writeln!(text, "| {} | {}{ratio} |", way.name, cell(values));
        }
    }
    text
}

/// The highest median of the others.
fn best(all: &[Samples], of: impl Fn(&Samples) -> &[f64]) -> f64 {
    let others = all.iter().filter(|way| !way.name.starts_with(OURS));
    others.map(|way| spread(of(way)).1).fold(f64::NAN, f64::max)
}

fn ratio(way: &Samples, values: &[f64], best: f64) -> String {
    if way.name.starts_with(OURS) && !best.is_nan() {
        format!(" (×{:.2})", spread(values).1 / best)
    } else {
        String::new()
    }
}

fn cell(values: &[f64]) -> String {
    let (min, median, max) = spread(values);
    format!("{min:.0} / **{median:.0}** / {max:.0}")
}

/// Minimum, median and maximum.
fn spread(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    (at(0), at(sorted.len() / 2), at(sorted.len().saturating_sub(1)))
}
