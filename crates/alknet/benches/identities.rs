//! How long it takes to find one of very many, as rows of a Markdown table.

#![allow(clippy::print_stdout, reason = "the table is what this is for")]

use std::{error::Error, time::Duration};

const PEERS: usize = 100_000;
const ROUNDS: usize = 2_000;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let all = runtime.block_on(alknet::bench::identities(folder.path(), PEERS, ROUNDS))?;
    println!("{PEERS} peers with a key and a token each, {ROUNDS} look-ups of a kind:\n");
    println!("| look-up of | minimum, µs | median, µs | 99 %, µs | maximum, µs |");
    println!("|---|---|---|---|---|");
    for mut lookups in all {
        lookups.took.sort_unstable();
        let at = |hundredths: usize| {
            let index = (lookups.took.len() * hundredths / 100).min(lookups.took.len() - 1);
            lookups.took.get(index).map_or(0, Duration::as_micros)
        };
        let [min, median, most, max] = [0, 50, 99, 100].map(at);
        println!("| {} | {min} | **{median}** | {most} | {max} |", lookups.what);
    }
    Ok(())
}
