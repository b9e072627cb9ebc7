//! What commands need before they can build: tools that are kept outside the clone.

use crate::process::{cargo, run};
use anyhow::Result;
use std::path::PathBuf;
use tidegate_cluster::files::{Lock, cache_dir};

/// A program from the crates registry, installed once per version.
pub fn cargo_tool(name: &str, version: &str) -> Result<PathBuf> {
    let folder = cache_dir()?.join(format!("{name}-{version}"));
    let program = folder.join("bin").join(name);
    let _lock = Lock::take(&folder.with_extension("lock"), || {
        println!("waiting for another installation of {name}");
    })?;
    if !program.exists() {
        println!("installing {name} {version}");
        // unoptimized: it is built in a third of the time, and runs for seconds
        run(cargo()
            .args(["install", "--quiet", "--locked", "--debug", "--version", version, "--root"])
            .arg(&folder)
            .arg(name))?;
    }
    Ok(program)
}
