//! The measuring itself.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tokio::task::JoinSet;

use crate::{
    note::{Note, Wanted},
    ways::Caller,
};

/// How often every way is measured, in turn.
pub(crate) const ROUNDS: usize = 5;
/// How long each measurement of calls takes.
pub(crate) const TIME: Duration = Duration::from_secs(1);
/// Calls in flight at a time.
pub(crate) const IN_FLIGHT: [usize; 3] = [1, 16, 256];
/// Characters of the note, and how many such items a subscription has.
pub(crate) const SIZES: [(usize, u64); 2] = [(100, 50_000), (16 * 1024, 4_000)];

/// What was measured of one way.
pub(crate) struct Samples {
    pub(crate) name: &'static str,
    /// By size and calls in flight.
    pub(crate) calls: [[Calls; IN_FLIGHT.len()]; SIZES.len()],
    /// Items a second, by size.
    pub(crate) items: [Vec<f64>; SIZES.len()],
}

/// The rounds of one kind of calls.
#[derive(Default)]
pub(crate) struct Calls {
    /// Calls a second.
    pub(crate) rate: Vec<f64>,
    /// What half of the calls took at most, in microseconds.
    pub(crate) p50: Vec<f64>,
    /// What all but a hundredth took at most.
    pub(crate) p99: Vec<f64>,
}

type Ways = [(&'static str, Arc<dyn Caller>)];

/// Every round goes through all the ways, so that whatever else the machine does meets them
/// alike. One round before them is not counted.
pub(crate) async fn all(ways: &Ways) -> Result<Vec<Samples>> {
    let mut samples: Vec<Samples> = ways.iter().map(|(name, _)| Samples::new(name)).collect();
    for round in 0..=ROUNDS {
        for (size, (length, items)) in SIZES.into_iter().enumerate() {
            for (at, in_flight) in IN_FLIGHT.into_iter().enumerate() {
                for ((name, way), samples) in ways.iter().zip(&mut samples) {
                    let took = calls(way, in_flight, length).await.context(*name)?;
                    if round > 0 {
                        samples.calls[size][at].add(took);
                    }
                }
            }
            for ((name, way), samples) in ways.iter().zip(&mut samples) {
                let rate = subscription(way, length, items).await.context(*name)?;
                if round > 0 {
                    samples.items[size].push(rate);
                }
            }
        }
        eprintln!("round {round}/{ROUNDS}");
    }
    Ok(samples)
}

/// What each call took.
async fn calls(way: &Arc<dyn Caller>, in_flight: usize, length: usize) -> Result<Vec<Duration>> {
    let end = Instant::now() + TIME;
    let mut callers = JoinSet::new();
    for _ in 0..in_flight {
        callers.spawn(call_until(end, way.clone(), length));
    }
    let mut all = Vec::new();
    while let Some(took) = callers.join_next().await {
        all.extend(took??);
    }
    Ok(all)
}

async fn call_until(end: Instant, way: Arc<dyn Caller>, length: usize) -> Result<Vec<Duration>> {
    let template = Note::new(0, length);
    let mut all = Vec::new();
    loop {
        let start = Instant::now();
        if start >= end {
            return Ok(all);
        }
        let id = all.len() as u64;
        let answer = way.call(Note { id, ..template.clone() }).await?;
        all.push(start.elapsed());
        ensure!(answer.id == id + 1 && answer.note.len() == length, "a wrong answer");
    }
}

/// Items a second.
async fn subscription(way: &Arc<dyn Caller>, length: usize, items: u64) -> Result<f64> {
    let (way, wanted) = (way.clone(), Wanted { items, length: length as u64 });
    let start = Instant::now();
    // On a thread of the runtime, as the callers are: the main one is none.
    let mut subscriber = JoinSet::new();
    subscriber.spawn(async move { way.items(wanted).await });
    let count = subscriber.join_next().await.context("it did not run")???;
    ensure!(count == items, "{count} items of {items}");
    Ok(items as f64 / start.elapsed().as_secs_f64())
}

impl Samples {
    fn new(name: &'static str) -> Self {
        Self { name, calls: Default::default(), items: Default::default() }
    }
}

impl Calls {
    fn add(&mut self, mut took: Vec<Duration>) {
        took.sort_unstable();
        let at = |hundredths: usize| {
            let index = (took.len() * hundredths / 100).min(took.len().saturating_sub(1));
            took.get(index).map_or(f64::NAN, |took| took.as_secs_f64() * 1e6)
        };
        let (p50, p99) = (at(50), at(99));
        self.rate.push(took.len() as f64 / TIME.as_secs_f64());
        self.p50.push(p50);
        self.p99.push(p99);
    }
}
