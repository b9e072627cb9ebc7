//! Formatting, clippy, licences and sources, and generated files.

use super::Outcome;
use crate::process::{cargo, succeeds};
use anyhow::Result;

/// The version of cargo-deny that we install where there is none.
const CARGO_DENY: &str = "0.20.2";

pub fn run() -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut check = |name: &str, command: &mut std::process::Command| -> Result<()> {
        println!("{name}");
        outcome.add(Outcome::of(name, succeeds(command)?));
        Ok(())
    };
    check("rustfmt", cargo().args(["fmt", "--all", "--check"]))?;
    check(
        "clippy",
        cargo().args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    )?;
    let deny = crate::prepare::cargo_tool("cargo-deny", CARGO_DENY)?;
    check(
        "cargo deny",
        std::process::Command::new(deny).args([
            "--log-level",
            "error",
            "check",
            "bans",
            "licenses",
            "sources",
        ]),
    )?;
    println!("generated files");
    let drift = crate::generate::drift()?;
    for path in &drift {
        println!("  {} is not what its source generates: run cargo xtask generate", path.display());
    }
    outcome.add(Outcome::of("generated files", drift.is_empty()));
    Ok(outcome)
}
