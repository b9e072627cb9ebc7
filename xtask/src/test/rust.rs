//! The layers that are Rust's own test harness: `unit`, and `parts` for integration tests whose file name says that they start a
//! real Kafka (`kafka…`), a real API server (`apiserver…`) or real clients (`mosquitto…`).

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
    ["apiserver", "kafka", "mosquitto"].iter().any(|part| target.starts_with(part))
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

/// Runs `cargo test`, passing its output on, and adds up its closing lines.
pub fn run(command: &mut Command) -> Result<Outcome> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("failed to start cargo")?;
    let mut outcome = Outcome::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            println!("{line}");
            if let Some((passed, failed)) = counts(&line) {
                outcome.add(Outcome { passed, failed, failures: Vec::new() });
            } else if let Some(name) = failed_test(&line) {
                outcome.failures.push(name.to_owned());
            }
        }
    }
    let status = child.wait()?;
    if !status.success() && outcome.failed == 0 {
        outcome.add(Outcome::of("cargo test (see its output)", false));
    }
    Ok(outcome)
}

/// `test result: ok. 21 passed; 0 failed; …`
fn counts(line: &str) -> Option<(u64, u64)> {
    let rest = line.strip_prefix("test result: ")?;
    let mut numbers = rest.split(['.', ';']).filter_map(|part| part.trim().split_once(' '));
    let mut number = |unit: &str| numbers.find(|(_, u)| *u == unit).and_then(|(n, _)| n.parse().ok());
    Some((number("passed")?, number("failed")?))
}

/// `---- module::name stdout ----`
fn failed_test(line: &str) -> Option<&str> {
    line.strip_prefix("---- ")?.strip_suffix(" stdout ----")
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
    fn a_failed_test_is_named() {
        assert_eq!(failed_test("---- address::tests::x stdout ----"), Some("address::tests::x"));
        assert_eq!(failed_test("---- nothing"), None);
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
