//! Counts and seconds per layer, and the one line that a machine reads.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// What one layer, or one step of it, came to.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub passed: u64,
    pub failed: u64,
    /// What failed, for the end of the summary.
    pub failures: Vec<String>,
}

impl Outcome {
    /// One check that has no count of its own.
    pub fn of(name: &str, ok: bool) -> Self {
        if ok {
            Self { passed: 1, ..Self::default() }
        } else {
            Self { failed: 1, failures: vec![name.to_owned()], ..Self::default() }
        }
    }

    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.failures.extend(other.failures);
    }
}

#[derive(Default)]
pub struct Summary {
    rows: Vec<(&'static str, Outcome, Duration)>,
}

impl Summary {
    /// Runs a layer; an error of its own counts as one failure, and the next layer still runs.
    pub fn layer(&mut self, name: &'static str, run: impl FnOnce() -> Result<Outcome>) {
        let started = Instant::now();
        let outcome = run().unwrap_or_else(|error| {
            eprintln!("{name}: {error:#}");
            Outcome { failed: 1, failures: vec![format!("{name}: {error:#}")], ..Outcome::default() }
        });
        self.rows.push((name, outcome, started.elapsed()));
    }

    /// Prints the table; an error if anything failed, or if nothing ran.
    pub fn finish(self) -> Result<()> {
        println!("\n{:<10}{:>10}{:>10}{:>10}", "layer", "passed", "failed", "seconds");
        let mut all = Outcome::default();
        for (name, outcome, took) in self.rows {
            println!("{name:<10}{:>10}{:>10}{:>10.0}", outcome.passed, outcome.failed, took.as_secs_f64());
            all.add(outcome);
        }
        for failure in &all.failures {
            println!("failed: {failure}");
        }
        crate::reports::warn_about_old()?;
        println!("{} passed, {} failed", all.passed, all.failed);
        if all.failed > 0 {
            bail!("{} of {} failed", all.failed, all.passed + all.failed);
        }
        if all.passed == 0 {
            bail!("no test ran");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_that_cannot_run_counts_as_a_failure() {
        let mut summary = Summary::default();
        summary.layer("one", || Ok(Outcome::of("check", true)));
        summary.layer("two", || bail!("no such file"));
        assert_eq!(summary.rows[0].1.passed, 1);
        assert_eq!(summary.rows[1].1.failed, 1);
        assert!(summary.finish().is_err());
    }

    #[test]
    fn a_run_without_tests_fails() {
        assert!(Summary::default().finish().is_err());
    }
}
