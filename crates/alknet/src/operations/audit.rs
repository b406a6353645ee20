//! `audit/…`: the audit log, from afar.

use std::{sync::Arc, time::Duration};

use alknet_call::{CallError, Context, Items, Operation};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::Semaphore;

use super::{Made, Parts, blocking, json::Raw, on, on_items};
use crate::{
    audit::{self, Head, Tail},
    home::{Home, HomeError},
};

/// How often it is looked for more.
const TICK: Duration = Duration::from_millis(200);
/// How long a check may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// How many entries are read at once.
const BATCH: usize = 16;

/// The operations on the audit log.
pub(super) fn operations(parts: &Arc<Parts>) -> Made {
    let verifying = Verifying { home: parts.home.clone(), place: Arc::new(Semaphore::new(1)) };
    Ok(vec![
        Operation::subscription("audit/tail", on_items(parts, tail))?
            .describe(
                "The last entries of the audit log, and with follow what is added to it. \
                 Each item is an entry as it stands in the log; its event is SEQ:HASH, its \
                 place in the chain.",
            )
            .resumable(),
        Operation::query("audit/verify", on(&Arc::new(verifying), verify))?
            .describe(
                "Checks that no entry of the audit log was changed, removed, inserted or moved. \
                 One check runs at a time.",
            )
            .deadline(Some(PATIENCE)),
    ])
}

/// What of the log is wanted.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// How many of the entries that are there. Without meaning where the subscription goes
    /// on behind an event.
    #[serde(default = "twenty")]
    #[schemars(range(max = 100_000))]
    lines: usize,
    /// Whether to wait for more.
    #[serde(default)]
    follow: bool,
}

fn twenty() -> usize {
    20
}

async fn tail(
    parts: Arc<Parts>,
    context: Context,
    wanted: Wanted,
    items: Items<Raw>,
) -> Result<(), CallError> {
    let behind = context.after().map(str::parse::<Head>).transpose();
    let behind = behind.map_err(|_| CallError::invalid_input("the event is none of this log"))?;
    let home = parts.home.clone();
    // What is written while the last entries are sent is none of them.
    let bounded = behind.is_none() && !wanted.follow;
    let mut left = if bounded { wanted.lines } else { usize::MAX };
    let mut tail = blocking(move || open(&home, behind, wanted.lines)).await?;
    let mut ticks = tokio::time::interval(TICK);
    loop {
        let (entries, rest) = blocking(move || batch(tail)).await?;
        tail = rest;
        let is_all = entries.len() < BATCH || entries.len() >= left;
        for (head, line) in entries.into_iter().take(left) {
            items.send_event(head.to_string(), Raw(line)).await?;
            left = left.saturating_sub(1);
        }
        if is_all {
            if !wanted.follow {
                return Ok(());
            }
            ticks.tick().await;
        }
    }
}

/// Blocks for the disk.
fn open(home: &Home, behind: Option<Head>, lines: usize) -> Result<Tail, HomeError> {
    match behind {
        Some(head) => Tail::open_behind(home, head.seq),
        None => Tail::open(home, lines),
    }
}

type Entries = Vec<(Head, Box<RawValue>)>;

/// The next entries, as far as there are some. Blocks for the disk.
fn batch(mut tail: Tail) -> Result<(Entries, Tail), HomeError> {
    tail.refresh()?;
    let mut entries = Vec::new();
    while entries.len() < BATCH
        && let Some((head, line)) = tail.next_entry()?
    {
        // A line of the log is JSON, or it would not be an entry.
        let text = String::from_utf8(line).ok();
        let line = text.and_then(|text| RawValue::from_string(text).ok());
        entries.extend(line.map(|line| (head, line)));
    }
    Ok((entries, tail))
}

/// What a check needs: it reads the whole log, and goes on to its end once it has begun.
#[derive(Debug)]
struct Verifying {
    home: Home,
    place: Arc<Semaphore>,
}

/// How to check.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Expected {
    /// An entry that has to be there, as SEQ:HASH: the head that a check gave before.
    expect: Option<String>,
}

/// What a check found.
#[derive(Debug, Serialize, JsonSchema)]
struct Verified {
    /// Whether the chain holds as far as it is there.
    ok: bool,
    /// How many files there are.
    files: usize,
    /// How many entries were found to hold.
    entries: u64,
    /// The number of the first of them.
    first: Option<u64>,
    /// SEQ:HASH of the last: who notes it can tell later that nothing before it changed.
    /// None where the chain breaks.
    head: Option<String>,
    /// How many times a write was cut short, and was marked at the next start.
    recovered: u64,
    /// The first place where the chain does not hold.
    fault: Option<String>,
}

async fn verify(
    verifying: Arc<Verifying>,
    _: Context,
    expected: Expected,
) -> Result<Verified, CallError> {
    let expect = expected.expect.as_deref().map(str::parse::<Head>).transpose();
    let expect = expect.map_err(|error| CallError::invalid_input(error.to_string()))?;
    let place = verifying.place.clone().acquire_owned().await.map_err(CallError::internal)?;
    let home = verifying.home.clone();
    let report = blocking(move || {
        // Until it is done, whoever still waits for it.
        let _place = place;
        audit::verify(&home, expect)
    });
    let report = report.await?;
    Ok(Verified {
        ok: report.ok,
        files: report.files,
        entries: report.entries,
        first: report.first.map(|point| point.seq),
        head: report.head.map(|head| head.to_string()),
        recovered: report.recovered,
        fault: report.fault.map(|fault| fault.to_string()),
    })
}
