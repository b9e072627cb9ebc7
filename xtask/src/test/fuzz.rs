//! Coverage-guided fuzzing on stable Rust (ADR 7): each target for at least a minute and a million inputs, from the committed corpus.

use super::Outcome;
use crate::process::{self, cargo, root};
use anyhow::{Context, Result, bail};
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const TARGETS: [&str; 3] = ["mqtt_codec", "mqtt_session", "http_request"];
const TRIPLE: &str = "x86_64-unknown-linux-gnu";
/// LLVM's coverage instrumentation, as libFuzzer wants it.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions -Coverflow-checks";
const SECONDS: u64 = 60;
const RUNS: u64 = 1_000_000;

pub fn run() -> Result<Outcome> {
    let mut build = cargo();
    build.env("RUSTFLAGS", FLAGS).args(["build", "--quiet", "--profile", "fuzz", "--target", TRIPLE]);
    process::run(build.args(["--package", "tidegate-fuzz"]))?;
    // one per core is what the machine gives; more targets than cores wait their turn
    let lanes = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut outcome = Outcome::default();
    for group in TARGETS.chunks(lanes) {
        let running: Vec<_> = group.iter().map(|target| thread::spawn(|| fuzz(target))).collect();
        for (target, handle) in group.iter().zip(running) {
            let result = handle.join().unwrap_or_else(|_| bail!("the thread that ran it ended early"));
            if let Err(error) = &result {
                eprintln!("{target}: {error:#}");
            }
            outcome.add(Outcome::of(target, result.is_ok()));
        }
    }
    Ok(outcome)
}

/// Runs one target until both bounds are reached.
fn fuzz(target: &str) -> Result<()> {
    let started = Instant::now();
    let mut inputs = step(target, &[format!("-max_total_time={SECONDS}")])?;
    if inputs < RUNS {
        inputs += step(target, &[format!("-runs={}", RUNS - inputs)])?;
    }
    let took = started.elapsed();
    println!("{target}: {inputs} inputs in {:.0} s", took.as_secs_f64());
    if inputs < RUNS || took < Duration::from_secs(SECONDS) {
        bail!("{inputs} inputs in {:.0} s are too few: at least {RUNS} and {SECONDS} s", took.as_secs_f64());
    }
    Ok(())
}

/// One run of libFuzzer; the number of inputs that it tried.
fn step(target: &str, bounds: &[String]) -> Result<u64> {
    let work = root().join("target/fuzz").join(target);
    let corpus = work.join("corpus");
    fs::create_dir_all(&corpus)?;
    let mut child = Command::new(root().join("target").join(TRIPLE).join("fuzz").join(target))
        .args(["-print_final_stats=1", "-timeout=10", "-rss_limit_mb=2048", "-verbosity=0"])
        .arg(format!("-artifact_prefix={}/", work.display()))
        .args(bounds)
        .args([&corpus, &root().join("gateways/fuzz/corpus").join(target)])
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("failed to start the fuzz target {target}"))?;
    let mut inputs = None;
    let mut said = Vec::new();
    for line in BufReader::new(child.stderr.take().context("no standard error")?).lines() {
        let line = line?;
        if let Some(count) = line.strip_prefix("stat::number_of_executed_units:") {
            inputs = count.trim().parse().ok();
        }
        said.push(line);
    }
    if !child.wait()?.success() {
        bail!("found something; the input is in {}:\n{}", work.display(), tail(&said, 40));
    }
    inputs.with_context(|| format!("libFuzzer printed no count:\n{}", tail(&said, 10)))
}

fn tail(lines: &[String], count: usize) -> String {
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// The committed corpus of every target is there: an empty one would make the minute worth less.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_a_committed_corpus() {
        for target in TARGETS {
            let folder = root().join("gateways/fuzz/corpus").join(target);
            assert!(fs::read_dir(&folder).is_ok_and(|files| files.count() > 10), "{}", folder.display());
        }
    }
}
