//! The alerts that an administrator may have: [`table`] says which, here they become a `PrometheusRule` and a page of the
//! book. Pure.

mod table;

pub use table::{NOBODY, all};

use crate::rbac;
use serde_json::{Value, json};
use std::fmt::Write as _;
use tidegate_crds::labels;

/// The page's prose, with `{{alerts}}` where the table belongs.
const PAGE: &str = include_str!("page.md");

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Devices notice: somebody is woken.
    Critical,
    /// Somebody looks at it on the same day.
    Warning,
    /// Somebody should know.
    Info,
}

impl Severity {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

/// Where an alert's runbook stands, from the book's root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runbook {
    /// This section.
    Section(&'static str),
    /// This page's section about the reason that the alert has as a label.
    Reason(&'static str),
    /// This page's section about the reason that the condition has now. It is no label of the alert: reasons follow each
    /// other while a resource is not ready, and each change would begin another alert.
    ReasonNow(&'static str, &'static str),
}

impl Runbook {
    /// The page or section that is known beforehand.
    pub const fn page(self) -> &'static str {
        match self {
            Self::Section(at) | Self::Reason(at) | Self::ReasonNow(at, _) => at,
        }
    }

    /// As Prometheus' templates say it.
    fn template(self) -> String {
        match self {
            Self::Section(at) => format!("docs/{at}"),
            Self::Reason(page) => format!("docs/{page}#{{{{ $labels.reason | toLower }}}}"),
            Self::ReasonNow(page, condition) => format!(
                "docs/{page}{{{{ with printf \"tidegate_condition{{condition='{condition}',kind='%s',namespace='%s',name='%s'}}\" $labels.kind $labels.namespace $labels.name | query }}}}#{{{{ . | first | label \"reason\" | toLower }}}}{{{{ end }}}}"
            ),
        }
    }
}

/// One alert.
#[derive(Clone, Debug)]
pub struct Alert {
    /// Its name.
    pub name: &'static str,
    /// `PromQL`.
    pub expression: String,
    /// How long it must hold.
    pub wait: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// One line with the labels that say where.
    pub summary: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// What to do.
    pub runbook: Runbook,
    /// The reasons of conditions that it is for.
    pub reasons: &'static [&'static str],
}

/// The `PrometheusRule`.
pub fn rule() -> Value {
    let rules: Vec<_> = all()
        .into_iter()
        .map(|alert| {
            let mut rule = json!({
                "alert": alert.name, "expr": alert.expression, "for": alert.wait,
                "labels": {"severity": alert.severity.as_str()},
                "annotations": {
                    "summary": alert.summary, "description": alert.meaning, "runbook": alert.runbook.template(),
                },
            });
            // The leader tells of conditions: another one takes some seconds to begin.
            if !alert.reasons.is_empty() {
                rule["keep_firing_for"] = "2m".into();
            }
            rule
        })
        .collect();
    json!({
        "apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule",
        "metadata": {
            "name": labels::MANAGER, "namespace": rbac::NAMESPACE, "labels": {"app.kubernetes.io/name": rbac::NAME},
        },
        "spec": {"groups": [{"name": labels::MANAGER, "rules": rules}]},
    })
}

/// The page of all alerts.
pub fn page() -> String {
    let mut table = "| alert | severity | after | meaning |\n|---|---|---|---|\n".to_owned();
    for alert in all() {
        let Alert { name, severity, wait, meaning, .. } = &alert;
        let (at, severity) = (alert.runbook.page(), severity.as_str());
        let _ = writeln!(table, "| [`{name}`](../{at}) | {severity} | {wait} | {meaning} |");
    }
    PAGE.replace("{{alerts}}", table.trim_end())
}
