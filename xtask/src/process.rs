//! Starting other programs.

use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::Command;

/// The cargo that runs us, or the one on the path.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    // Set for us by the cargo that runs us. Build scripts (ring's) ask for them: with ours, a nested cargo would build half of
    // the workspace again that a cargo without us has built, and the other way round.
    let ours = |name: &str| ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|start| name.starts_with(start));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(ours)) {
        command.env_remove(name);
    }
    command
}

/// The checkout's root folder.
pub fn root() -> PathBuf {
    let mut path = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    path.pop();
    path
}

/// Runs a command with our own output; whether it ended well.
pub fn succeeds(command: &mut Command) -> Result<bool> {
    let status =
        command.status().with_context(|| format!("failed to start {}", command.get_program().display()))?;
    Ok(status.success())
}

/// Runs a command with our own output; an error if it did not end well.
pub fn run(command: &mut Command) -> Result<()> {
    if !succeeds(command)? {
        bail!("{} {} failed", command.get_program().display(), arguments(command));
    }
    Ok(())
}

/// Runs a command and returns what it printed; an error with its error output if it did not end well.
pub fn output(command: &mut Command) -> Result<String> {
    let output =
        command.output().with_context(|| format!("failed to start {}", command.get_program().display()))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{} {} failed: {}", command.get_program().display(), arguments(command), stderr.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn arguments(command: &Command) -> String {
    command.get_args().map(|a| a.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
