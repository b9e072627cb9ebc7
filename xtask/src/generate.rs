//! `cargo xtask generate`: files that are made from others. CRDs, RBAC, alerts and the reference pages of fields and alerts
//! come from the operator, tables and pictures of measured figures from `docs/reports`.

use crate::process::{cargo, root, run};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Writes generated files: CRDs, RBAC, alerts, the reference of fields and alerts, tables and pictures of measured figures.
#[derive(Args)]
pub struct Generate {
    /// Write nothing; fail if a file is not what its source generates.
    #[arg(long)]
    check: bool,
}

/// Folders that hold nothing but generated files.
const GENERATED: [&str; 2] = ["manifests/crds", "manifests/rbac"];

/// Single files beside others: where the operator writes it, where it belongs.
const SINGLE: [(&str, &str); 3] = [
    ("docs/resources.md", "docs/reference/resources.md"),
    ("docs/alerts.md", "docs/reference/alerts.md"),
    ("monitoring/rules.yaml", "manifests/monitoring/rules.yaml"),
];

impl Generate {
    pub fn run(&self) -> Result<()> {
        if self.check {
            let drift = drift()?;
            if !drift.is_empty() {
                let names: Vec<_> = drift.iter().map(|path| path.display().to_string()).collect();
                bail!("not what their source generates: {}. Run cargo xtask generate", names.join(", "));
            }
            return Ok(());
        }
        write()
    }
}

/// Writes what is not as its source generates it.
pub fn write() -> Result<()> {
    for (path, text) in generated()? {
        let path = root().join(path);
        if fs::read_to_string(&path).ok().as_deref() != Some(text.as_str()) {
            println!("{}", path.strip_prefix(root()).unwrap_or(&path).display());
            fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
        }
    }
    for path in strangers()? {
        println!("{} removed", path.display());
        fs::remove_file(root().join(path))?;
    }
    Ok(())
}

/// Generated files that are not what their source generates.
pub fn drift() -> Result<Vec<PathBuf>> {
    let mut drift: Vec<PathBuf> = generated()?
        .into_iter()
        .filter(|(path, text)| fs::read_to_string(root().join(path)).ok().as_deref() != Some(text.as_str()))
        .map(|(path, _)| path)
        .collect();
    drift.extend(strangers()?);
    Ok(drift)
}

/// Path below the root → text.
fn generated() -> Result<BTreeMap<PathBuf, String>> {
    let folder = root().join("target/generated/manifests");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    run(cargo()
        .args(["run", "--quiet", "--package", "tidegate-operator", "--", "manifests", "--dir"])
        .arg(&folder))?;
    let mut files = crate::reports::tables()?;
    files.extend(crate::plot::pictures()?);
    for (from, to) in SINGLE {
        let from = folder.join(from);
        let page = fs::read_to_string(&from)
            .with_context(|| format!("the operator generated no {}", from.display()))?;
        files.insert(to.into(), page);
    }
    for name in GENERATED {
        let from = folder.join(Path::new(name).file_name().unwrap_or_default());
        for entry in
            fs::read_dir(&from).with_context(|| format!("the operator generated no {}", from.display()))?
        {
            let entry = entry?;
            files.insert(Path::new(name).join(entry.file_name()), fs::read_to_string(entry.path())?);
        }
    }
    Ok(files)
}

/// Files in generated folders that nothing generates any more.
fn strangers() -> Result<Vec<PathBuf>> {
    let generated = root().join("target/generated");
    let mut strangers = Vec::new();
    for name in GENERATED {
        let Ok(entries) = fs::read_dir(root().join(name)) else { continue };
        for entry in entries {
            let path = Path::new(name).join(entry?.file_name());
            if !generated.join(&path).exists() {
                strangers.push(path);
            }
        }
    }
    Ok(strangers)
}
