//! The alert rules as an administrator gets them, run by Prometheus' own `promtool` over series as operator and gateways
//! serve them: each alert fires when it should and not when it should not (`alerts.yaml`), and leads to the runbook of each
//! reason that it is for.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on must fail")]

use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;
use tidegate_cluster::cache::Cache;
use tidegate_cluster::{Progress, debian};
use tidegate_operator::alerts::{self, Runbook};

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A folder with the manifest's rules as a file of Prometheus' own.
fn rules() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let manifest = fs::read_to_string(here().join("../manifests/monitoring/rules.yaml")).unwrap();
    let manifest: Value = serde_yaml::from_str(&manifest).unwrap();
    let rules = folder.path().join("rules.yaml");
    fs::write(&rules, serde_yaml::to_string(&manifest["spec"]).unwrap()).unwrap();
    (folder, rules)
}

fn promtool(arguments: &[&str], file: &Path) {
    let program = debian::promtool(&Cache::open(&Progress::new()).unwrap()).unwrap();
    let output = Command::new(program).args(arguments).arg(file).output().unwrap();
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap()).concat();
    assert!(output.status.success(), "promtool {}:\n{said}", arguments.join(" "));
}

#[test]
fn prometheus_takes_the_rules() {
    let (_folder, rules) = rules();
    promtool(&["check", "rules", "--lint-fatal"], &rules);
}

#[test]
fn every_alert_fires_when_it_should_and_not_when_it_should_not() {
    let (folder, _) = rules();
    let cases = fs::read_to_string(here().join("tests/alerts.yaml")).unwrap();
    let file = folder.path().join("cases.yaml");
    fs::write(&file, &cases).unwrap();
    promtool(&["test", "rules"], &file);

    let cases: Value = serde_yaml::from_str(&cases).unwrap();
    let tests = cases["tests"].as_array().unwrap();
    let looks: Vec<_> = tests.iter().flat_map(|test| test["promql_expr_test"].as_array().unwrap()).collect();
    for alert in alerts::all() {
        let asks = format!("ALERTS{{alertname=\"{}\",alertstate=\"firing\"}}", alert.name);
        for fires in [true, false] {
            let told =
                looks.iter().any(|look| look["expr"] == asks && look.get("exp_samples").is_some() == fires);
            assert!(
                told,
                "alerts.yaml does not look whether {} {}",
                alert.name,
                if fires { "fires" } else { "is silent" }
            );
        }
    }
}

#[test]
fn every_reason_that_needs_a_person_fires_its_alert_with_its_section_of_the_runbook() {
    let (folder, _) = rules();
    let mut tests = Vec::new();
    for alert in alerts::all() {
        let (page, is_label) = match alert.runbook {
            Runbook::Reason(page) => (page, true),
            Runbook::ReasonNow(page, _) => (page, false),
            Runbook::Section(_) => continue,
        };
        let asked = |label: &str| {
            let (_, rest) = alert.expression.split_once(&format!("{label}=\""))?;
            rest.split('"').next()
        };
        let (condition, status) = (asked("condition").unwrap(), asked("status").unwrap());
        for reason in alert.reasons {
            let series = format!(
                "tidegate_condition{{kind=\"IoTPlatform\",namespace=\"plant\",name=\"one\",condition=\"{condition}\",status=\"{status}\",reason=\"{reason}\"}}"
            );
            let mut labels = json!({"kind": "IoTPlatform", "namespace": "plant", "name": "one"});
            if is_label {
                labels["reason"] = (*reason).into();
            }
            labels["severity"] = severity(alert.name);
            let annotations =
                annotations(alert.name, &labels, &format!("docs/{page}#{}", reason.to_lowercase()));
            tests.push(json!({
                "interval": "1m", "input_series": [{"series": series, "values": "1x120"}],
                "alert_rule_test": [{
                    "eval_time": "90m", "alertname": alert.name,
                    "exp_alerts": [{"exp_labels": labels, "exp_annotations": annotations}],
                }],
            }));
        }
    }
    assert!(tests.len() > 50, "{}", tests.len());
    let file = folder.path().join("reasons.yaml");
    let cases = json!({"rule_files": ["rules.yaml"], "evaluation_interval": "5m", "tests": tests});
    fs::write(&file, serde_yaml::to_string(&cases).unwrap()).unwrap();
    promtool(&["test", "rules"], &file);
}

fn rule(name: &str) -> Value {
    let all = alerts::rule();
    let rules = all["spec"]["groups"][0]["rules"].as_array().unwrap();
    rules.iter().find(|rule| rule["alert"] == name).unwrap().clone()
}

fn severity(name: &str) -> Value {
    rule(name)["labels"]["severity"].clone()
}

/// What the alert says, with the labels put in and this runbook.
fn annotations(name: &str, labels: &Value, runbook: &str) -> Value {
    let mut annotations = rule(name)["annotations"].clone();
    let mut summary = annotations["summary"].as_str().unwrap().to_owned();
    for (label, value) in labels.as_object().unwrap() {
        summary = summary.replace(&format!("{{{{ $labels.{label} }}}}"), value.as_str().unwrap());
    }
    annotations["summary"] = summary.into();
    annotations["runbook"] = runbook.into();
    annotations
}
