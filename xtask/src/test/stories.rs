//! The stories: the local cluster with Tidegate from this checkout, then `tests/e2e` on it.

use super::{Outcome, rust};
use crate::local::{self, Built};
use crate::process::cargo;
use anyhow::Result;
use std::path::Path;
use tidegate_cluster::Progress;

/// Runs the stories whose name contains `only`.
pub fn run(built: &Built, only: Option<&str>, environment: &[(&str, &Path)]) -> Result<Outcome> {
    let progress = Progress::new();
    local::compile(&progress)?;
    let ready = built.up(None, &progress)?;
    progress.step("installing the operator", || ready.target.install(&ready.images))?;
    let mut command = cargo();
    command.args(["test", "--package", "tidegate-e2e", "--test", "stories", "--"]);
    command.args(["--test-threads=1", "--nocapture"]);
    command.args(only.map(|name| name.replace('-', "_")));
    command.env("TIDEGATE_LEDGER_IMAGE", &ready.ledger.reference);
    command.env("TIDEGATE_KAFKA_IMAGE", &ready.images.kafka).envs(environment.iter().copied());
    rust::run(&mut command)
}
