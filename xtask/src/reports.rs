//! Measured figures: JSON under `docs/reports/`, rendered into pages of the book; nobody types one by hand.

use crate::process::{output, root};
use anyhow::{Context, Result};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

/// Where committed reports are.
const FOLDER: &str = "docs/reports";
/// The code that reports measure.
const MEASURED: [&str; 4] = ["operator", "gateways", "crds", "manifests"];

/// The tables of all committed reports: the page's path below the root → its text.
pub fn tables() -> Result<BTreeMap<PathBuf, String>> {
    let mut pages = BTreeMap::new();
    for (name, report) in committed()? {
        pages.insert(PathBuf::from(FOLDER).join(format!("{name}.md")), table(&report));
    }
    Ok(pages)
}

/// Says which committed reports are older than the code that they measure.
pub fn warn_about_old() -> Result<()> {
    for (name, report) in committed()? {
        let commit = report["commit"].as_str().unwrap_or_default();
        let mut git = Command::new("git");
        git.current_dir(root())
            .args(["rev-list", "--count", &format!("{commit}..HEAD"), "--"])
            .args(MEASURED);
        // a shallow clone may not know the commit
        if let Ok(count) = output(&mut git)
            && count.trim() != "0"
        {
            println!(
                "note: docs/reports/{name}.json is {} commits older than the code that it measures",
                count.trim()
            );
        }
    }
    Ok(())
}

fn committed() -> Result<BTreeMap<String, Value>> {
    let mut reports = BTreeMap::new();
    let folder = root().join(FOLDER);
    if !folder.exists() {
        return Ok(reports);
    }
    for entry in std::fs::read_dir(&folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "json")
            && let Some(name) = path.file_stem()
        {
            let text = std::fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?;
            let report = serde_json::from_slice(&text)
                .with_context(|| format!("{} is no JSON document", path.display()))?;
            reports.insert(name.to_string_lossy().into_owned(), report);
        }
    }
    Ok(reports)
}

/// One report as a Markdown table: a row per case, a column per key, in the order in which keys first appear.
fn table(report: &Value) -> String {
    let empty = Vec::new();
    let rows: Vec<&Map<String, Value>> =
        report["rows"].as_array().unwrap_or(&empty).iter().filter_map(Value::as_object).collect();
    let mut columns: Vec<&str> = vec!["case"];
    for key in rows.iter().flat_map(|row| row.keys()) {
        if !columns.contains(&key.as_str()) {
            columns.push(key);
        }
    }
    let mut text =
        String::from("<!-- rendered by `cargo xtask generate` from the JSON file beside it -->\n\n");
    let _ = writeln!(text, "| {} |", columns.join(" | "));
    let _ = writeln!(text, "|{}", "---|".repeat(columns.len()));
    for row in rows {
        let cells: Vec<String> = columns.iter().map(|column| cell(row.get(*column))).collect();
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    let get = |key: &str| cell(report.get(key));
    let commit: String = get("commit").chars().take(12).collect();
    let _ = writeln!(
        text,
        "\n`{}`, commit `{commit}`, {}, started {}, {} s.",
        get("name"),
        get("machine"),
        get("started"),
        get("duration_s")
    );
    text
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.replace('|', "\\|"),
        Some(Value::Number(number)) if number.is_f64() => {
            let number = number.as_f64().unwrap_or_default();
            if number.abs() < 100.0 { format!("{number:.2}") } else { format!("{number:.0}") }
        }
        Some(Value::Array(all)) => all.iter().map(|v| cell(Some(v))).collect::<Vec<_>>().join(", "),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_report_becomes_a_table_with_a_column_for_each_key() {
        let report = json!({"name": "latency", "commit": "0123456789abcdef", "machine": "2 cores", "started": "2026-01-01T00:00:00Z",
            "duration_s": 12.5, "rows": [{"case": "1/s", "ack_p50_ms": 4.25}, {"case": "a|b", "lost": 0}]});
        let text = table(&report);
        assert!(
            text.contains("| case | ack_p50_ms | lost |\n|---|---|---|\n| 1/s | 4.25 |  |\n| a\\|b |  | 0 |"),
            "{text}"
        );
        assert!(text.contains("commit `0123456789ab`"), "{text}");
    }
}
