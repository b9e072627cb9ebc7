//! The layers that are Rust's own test harness: `unit`, and `parts` for integration tests whose file name says that they start a
//! real Kafka (`kafka…`), a real API server (`apiserver…`), real clients (`curl…`, `mosquitto…`) or Prometheus' own tool (`promtool…`).

use super::Outcome;
use crate::process::cargo;
use anyhow::{Context, Result};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// Crates whose targets are run by layers of their own.
const APART: [&str; 2] = ["tidegate-e2e", "tidegate-fuzz"];

pub fn unit() -> Result<Outcome> {
    let targets = test_targets()?;
    let mut command = workspace_test();
    command.args(["--lib", "--bins"]);
    for target in targets.iter().filter(|name| !needs_real_part(name)) {
        command.args(["--test", target]);
    }
    let mut outcome = run(&mut command)?;
    let mut docs = workspace_test();
    docs.arg("--doc");
    outcome.add(run(&mut docs)?);
    Ok(outcome)
}

pub fn parts() -> Result<Outcome> {
    let mut command = workspace_test();
    for target in test_targets()?.iter().filter(|name| needs_real_part(name)) {
        command.args(["--test", target]);
    }
    run(&mut command)
}

/// One test target, with more in its environment.
pub fn target(name: &str, environment: &[(&str, &Path)]) -> Result<Outcome> {
    let mut command = workspace_test();
    command.args(["--test", name, "--", "--nocapture"]).envs(environment.iter().copied());
    run(&mut command)
}

fn needs_real_part(target: &str) -> bool {
    ["apiserver", "curl", "kafka", "mosquitto", "promtool"].iter().any(|part| target.starts_with(part))
}

fn workspace_test() -> Command {
    let mut command = cargo();
    command.args(["test", "--workspace", "--no-fail-fast", "--quiet"]);
    for name in APART {
        command.args(["--exclude", name]);
    }
    command
}

/// The names of all integration test targets in the workspace.
fn test_targets() -> Result<Vec<String>> {
    let output = cargo().args(["metadata", "--no-deps", "--format-version", "1"]).output()?;
    let metadata: Value =
        serde_json::from_slice(&output.stdout).context("failed to read cargo's metadata")?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    Ok(packages
        .filter(|package| APART.iter().all(|name| package["name"] != *name))
        .flat_map(|package| package["targets"].as_array().into_iter().flatten())
        .filter(|target| target["kind"][0] == "test")
        .filter_map(|target| target["name"].as_str().map(str::to_owned))
        .collect())
}

/// Runs `cargo test`, passing its output on, and adds up its closing lines. What failed is kept with its panic's words: in
/// a long run they stand far above the end.
pub fn run(command: &mut Command) -> Result<Outcome> {
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("failed to start cargo")?;
    let errors = child.stderr.take().map(|stderr| {
        std::thread::spawn(move || {
            let mut panics = Panics::default();
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                eprintln!("{line}");
                panics.take(&line);
            }
            panics
        })
    });
    let (mut outcome, mut panics, mut failed) = (Outcome::default(), Panics::default(), Failed::default());
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            println!("{line}");
            panics.take(&line);
            failed.take(&line);
            if let Some((passed, failed)) = counts(&line) {
                outcome.add(Outcome { passed, failed, failures: Vec::new() });
            }
        }
    }
    let status = child.wait()?;
    if let Some(Ok(errors)) = errors.map(std::thread::JoinHandle::join) {
        panics.0.extend(errors.0);
    }
    outcome.failures = failed.names.iter().map(|name| panics.with(name)).collect();
    if !status.success() && outcome.failed == 0 {
        outcome.add(Outcome::of("cargo test (see its output)", false));
    }
    Ok(outcome)
}

/// The names in libtest's closing list, which it prints whether or not it captures what tests print.
#[derive(Default)]
struct Failed {
    names: Vec<String>,
    listing: bool,
}

impl Failed {
    fn take(&mut self, line: &str) {
        if line == "failures:" {
            self.listing = true;
        } else if let Some(name) = line.strip_prefix("    ").filter(|_| self.listing) {
            if !self.names.iter().any(|known| known == name) {
                self.names.push(name.to_owned());
            }
        } else if !line.is_empty() {
            self.listing = false;
        }
    }
}

/// What panics said: the first lines of each, by thread.
#[derive(Default)]
struct Panics(Vec<(String, Vec<String>)>);

impl Panics {
    /// Lines of one panic that are kept.
    const LINES: usize = 12;

    fn take(&mut self, line: &str) {
        let thread = line.strip_prefix("thread '").and_then(|rest| rest.split_once('\''));
        if let Some((name, _)) = thread.filter(|(_, rest)| rest.contains("panicked at")) {
            self.0.push((name.to_owned(), vec![line.to_owned()]));
        } else if let Some((_, lines)) = self.0.last_mut()
            && lines.last().is_some_and(|last| !last.is_empty())
            && lines.len() < Self::LINES
        {
            let ends = line.starts_with("stack backtrace:") || line.starts_with("note: ");
            lines.push(if ends { String::new() } else { line.to_owned() });
        }
    }

    /// Adds to the name of a failed test what its panic said. One test at a time runs on the main thread: its tests panic in
    /// the order of the list.
    fn with(&mut self, name: &str) -> String {
        let of = |wanted: &str| self.0.iter().position(|(thread, _)| thread == wanted);
        let said = of(name).or_else(|| of("main")).map(|at| self.0.remove(at).1).unwrap_or_default();
        let mut text = name.to_owned();
        for line in said.iter().filter(|line| !line.is_empty()) {
            text.push_str("\n    ");
            text.push_str(line);
        }
        text
    }
}

/// `test result: ok. 21 passed; 0 failed; …`
fn counts(line: &str) -> Option<(u64, u64)> {
    let rest = line.strip_prefix("test result: ")?;
    let mut numbers = rest.split(['.', ';']).filter_map(|part| part.trim().split_once(' '));
    let mut number = |unit: &str| numbers.find(|(_, u)| *u == unit).and_then(|(n, _)| n.parse().ok());
    Some((number("passed")?, number("failed")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closing_line_is_counted() {
        let line = "test result: FAILED. 21 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.49s";
        assert_eq!(counts(line), Some((21, 2)));
        assert_eq!(counts("running 21 tests"), None);
    }

    #[test]
    fn a_failed_test_is_named_with_what_its_panic_said() {
        let output = "
---- a::b stdout ----
thread 'a::b' (7) panicked at a.rs:1:2:
left is
right
note: run with `RUST_BACKTRACE=1`
thread 'main' (8) panicked at c.rs:1:2:
other

failures:
    a::b
    c::d
    without_words

test result: FAILED. 1 passed; 3 failed; 0 ignored";
        let (mut panics, mut failed) = (Panics::default(), Failed::default());
        for line in output.lines() {
            panics.take(line);
            failed.take(line);
        }
        let failures: Vec<_> = failed.names.iter().map(|name| panics.with(name)).collect();
        let said = "a::b\n    thread 'a::b' (7) panicked at a.rs:1:2:\n    left is\n    right";
        let on_main = "c::d\n    thread 'main' (8) panicked at c.rs:1:2:\n    other";
        assert_eq!(failures, [said, on_main, "without_words"]);
    }

    #[test]
    fn tests_with_real_parts_are_told_by_their_files_name() {
        assert!(
            needs_real_part("kafka")
                && needs_real_part("kafka_publisher")
                && needs_real_part("apiserver_crds")
        );
        assert!(!needs_real_part("sessions"));
    }
}
