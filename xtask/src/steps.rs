//! A list of steps that all run, whatever becomes of the ones before, and its summary.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// What was done so far.
#[derive(Default)]
pub(crate) struct Steps {
    done: Vec<Step>,
}

struct Step {
    name: &'static str,
    outcome: Outcome,
    took: Duration,
}

enum Outcome {
    Passed,
    Failed(String),
    /// With the reason: nothing is left out in silence.
    LeftOut(String),
}

impl Steps {
    /// Runs one step; whether it passed.
    pub(crate) fn step(&mut self, name: &'static str, run: impl FnOnce() -> Result<()>) -> bool {
        eprintln!("\n== {name}");
        let start = Instant::now();
        let outcome = match run() {
            Ok(()) => Outcome::Passed,
            Err(error) => {
                eprintln!("{name}: {error:#}");
                Outcome::Failed(format!("{error:#}"))
            }
        };
        let passed = matches!(outcome, Outcome::Passed);
        self.done.push(Step { name, outcome, took: start.elapsed() });
        passed
    }

    /// Notes a step that cannot run here, and why.
    pub(crate) fn left_out(&mut self, name: &'static str, reason: impl Into<String>) {
        let outcome = Outcome::LeftOut(reason.into());
        self.done.push(Step { name, outcome, took: Duration::ZERO });
    }

    /// Prints the summary; an error if anything failed.
    pub(crate) fn finish(self) -> Result<()> {
        let (mut passed, mut failed) = (0, 0);
        println!("\nsummary");
        for Step { name, outcome, took } in &self.done {
            let seconds = took.as_secs();
            match outcome {
                Outcome::Passed => {
                    passed += 1;
                    println!("  passed    {seconds:>5} s  {name}");
                }
                Outcome::Failed(error) => {
                    failed += 1;
                    let first = error.lines().next().unwrap_or_default();
                    println!("  FAILED    {seconds:>5} s  {name}: {first}");
                }
                Outcome::LeftOut(reason) => println!("  left out           {name}: {reason}"),
            }
        }
        println!("steps: {passed} passed, {failed} failed");
        if failed > 0 {
            bail!("{failed} of {} steps failed", passed + failed);
        }
        Ok(())
    }
}
