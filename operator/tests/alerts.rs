//! Every reason that a person must act on has an alert and a section of a runbook; what alerts, code and the reference say of
//! metrics is the same.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on must fail"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use tidegate_operator::alerts::{self, Runbook};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Whether the book has this section: `how-to/page.md#section`.
fn has_section(at: &str) -> bool {
    let (page, section) = at.split_once('#').unwrap();
    let page = fs::read_to_string(root().join("docs").join(page)).unwrap();
    page.lines()
        .filter(|line| line.starts_with('#'))
        .any(|line| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-") == section)
}

#[test]
fn every_reason_needs_nobody_or_has_an_alert() {
    let reasons = fs::read_to_string(root().join("crds/src/reasons.rs")).unwrap();
    let all = alerts::all();
    let mut count = 0;
    for line in reasons.lines().filter(|line| line.starts_with("pub const ")) {
        let reason = line.split('"').nth(1).unwrap();
        let alerted = all.iter().any(|alert| alert.reasons.contains(&reason));
        let nobody = alerts::NOBODY.contains(&reason);
        assert!(
            alerted != nobody,
            "{reason} needs an alert or nobody, and not both: operator/src/alerts/table.rs"
        );
        count += 1;
    }
    assert!(count > 70, "{count}");
}

#[test]
fn every_alert_leads_to_a_section_of_a_runbook() {
    for alert in alerts::all() {
        let sections = match alert.runbook {
            Runbook::Section(at) => vec![at.to_owned()],
            Runbook::Reason(page) | Runbook::ReasonNow(page, _) => {
                alert.reasons.iter().map(|reason| format!("{page}#{}", reason.to_lowercase())).collect()
            }
        };
        assert!(!sections.is_empty(), "{}", alert.name);
        for section in sections {
            assert!(has_section(&section), "{}: docs/{section} is missing", alert.name);
        }
    }
}

/// The names that code registers, as it writes them: without `tidegate_` and without the `_total` of counters.
fn registered(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            registered(&path, names);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let code = fs::read_to_string(path).unwrap();
            let prefix =
                code.split_once("sub_registry_with_prefix(\"").and_then(|(_, rest)| rest.split('"').next());
            for call in ["registry.register(", "encoder.encode_descriptor("] {
                for rest in code.split(call).skip(1) {
                    if let Some(name) = rest.trim_start().strip_prefix('"') {
                        let name = name.split('"').next().unwrap();
                        names.insert(
                            prefix.map_or_else(|| name.to_owned(), |prefix| format!("{prefix}_{name}")),
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn the_reference_has_every_metric_that_code_registers_and_no_other() {
    let mut code = BTreeSet::new();
    for part in ["operator", "gateways/core", "gateways/http", "gateways/mqtt"] {
        registered(&root().join(part).join("src"), &mut code);
    }
    let page = fs::read_to_string(root().join("docs/reference/metrics.md")).unwrap();
    let told: BTreeSet<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `tidegate_")?.split_once("` | "))
        .map(|(name, rest)| {
            let counted = name.strip_suffix("_total");
            assert_eq!(counted.is_some(), rest.starts_with("counter"), "{name}");
            counted.unwrap_or(name).to_owned()
        })
        .collect();
    assert!(code.len() > 50, "{code:?}");
    assert_eq!(code, told);
}

#[test]
fn alerts_ask_for_metrics_that_the_reference_has() {
    let page = fs::read_to_string(root().join("docs/reference/metrics.md")).unwrap();
    for alert in alerts::all() {
        let words = alert.expression.split(|next: char| next != '_' && !next.is_ascii_alphanumeric());
        let metrics: Vec<_> = words.filter(|word| word.starts_with("tidegate_")).collect();
        assert!(!metrics.is_empty(), "{}", alert.name);
        for metric in metrics {
            let row = match metric.strip_suffix("_bucket") {
                Some(metric) => format!("| `{metric}` | histogram"),
                None => format!("| `{metric}` | "),
            };
            assert!(page.contains(&row), "{} asks for {metric}", alert.name);
        }
    }
}
