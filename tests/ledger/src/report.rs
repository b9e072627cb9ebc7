//! The JSON shape of every measurement: `{name, commit, machine, started, duration_s, rows: [{case, …}]}`, with the
//! unit in each key. The shape is pure; [`Report::start`] and [`Report::write`] do the IO.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// A report. Name it as `docs/reports/<name>.json` is to be named.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Lower case with dashes: `broker-kill`.
    pub name: String,
    /// The commit that was measured; `+` behind it says that the checkout had changes.
    pub commit: String,
    /// Cores, memory and kernel.
    pub machine: String,
    /// RFC 3339, UTC.
    pub started: String,
    /// From start to write, in seconds.
    pub duration_s: f64,
    /// One row per case.
    pub rows: Vec<Row>,
    #[serde(skip)]
    clock: Option<Instant>,
}

/// Where reports of short runs go, unless a campaign names the committed folder (`TIDEGATE_REPORTS`).
#[must_use]
pub fn reports() -> PathBuf {
    std::env::var_os("TIDEGATE_REPORTS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/reports"), PathBuf::from)
}

/// Whether the long form is wanted (`cargo xtask campaign`).
#[must_use]
pub fn campaign() -> bool {
    std::env::var_os("TIDEGATE_CAMPAIGN").is_some()
}

/// One row: a case and its figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What was measured.
    pub case: String,
    /// The figures; each key ends with its unit unless it is a count.
    #[serde(flatten)]
    pub figures: Map<String, Value>,
}

impl Row {
    /// An empty row.
    pub fn new(case: &str) -> Self {
        Self { case: case.to_owned(), figures: Map::new() }
    }

    /// Sets a figure. A value that is no JSON (a map without text keys) becomes null.
    pub fn set(&mut self, key: &str, value: impl Serialize) -> &mut Self {
        self.figures.insert(key.to_owned(), serde_json::to_value(value).unwrap_or(Value::Null));
        self
    }

    /// Sets every field of a struct; floats keep three digits behind the point.
    pub fn extend(&mut self, fields: impl Serialize) -> &mut Self {
        if let Ok(Value::Object(fields)) = serde_json::to_value(fields) {
            self.figures.extend(fields.into_iter().map(|(key, value)| (key, short(value))));
        }
        self
    }
}

fn short(value: Value) -> Value {
    match value.as_f64() {
        Some(number) if value.is_f64() => Value::from((number * 1000.0).round() / 1000.0),
        _ => value,
    }
}

impl Report {
    /// Starts the clock and notes commit and machine.
    pub fn start(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            commit: commit(),
            machine: machine(),
            started: now(),
            duration_s: 0.0,
            rows: Vec::new(),
            clock: Some(Instant::now()),
        }
    }

    /// Adds a row. Where there is one of the same case, its figures are set in that one.
    pub fn push(&mut self, row: Row) {
        match self.rows.iter_mut().find(|have| have.case == row.case) {
            Some(have) => have.figures.extend(row.figures),
            None => self.rows.push(row),
        }
    }

    /// Goes on with `<folder>/<name>.json` where what it measured is the same at this commit, so that several stories end
    /// in one report and one that was cut off is not measured again from the start; otherwise starts anew.
    pub fn resume(name: &str, folder: &Path) -> Self {
        let new = Self::start(name);
        match Self::read(&folder.join(format!("{name}.json"))) {
            Ok(have) if is_same(&have.commit, &new.commit) => {
                Self { machine: new.machine, clock: new.clock, ..have }
            }
            _ => new,
        }
    }

    /// Adds a row in the place of one of the same case.
    pub fn replace(&mut self, row: Row) {
        match self.rows.iter_mut().find(|have| have.case == row.case) {
            Some(have) => *have = row,
            None => self.rows.push(row),
        }
    }

    /// Reads a report back.
    pub fn read(path: &Path) -> std::io::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(path)?)?)
    }

    /// The JSON text, with a line feed at its end.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).map(|json| json + "\n").unwrap_or_default()
    }

    /// Stops the clock and writes `<folder>/<name>.json`; the folder is made if there is none.
    pub fn write(&mut self, folder: &Path) -> std::io::Result<PathBuf> {
        if let Some(clock) = self.clock.replace(Instant::now()) {
            self.duration_s = ((self.duration_s + clock.elapsed().as_secs_f64()) * 10.0).round() / 10.0;
        }
        std::fs::create_dir_all(folder)?;
        let path = folder.join(format!("{}.json", self.name));
        std::fs::write(&path, self.json())?;
        Ok(path)
    }
}

/// The checkout's commit, or what `TIDEGATE_COMMIT` says where there is no checkout (in a pod).
fn commit() -> String {
    if let Ok(commit) = std::env::var("TIDEGATE_COMMIT") {
        return commit;
    }
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".to_owned() };
    // A report that another test has just written into the checkout changes nothing that is measured.
    let others = [":/", ":(top,exclude)docs/reports"];
    let changed = git(&["status", "--porcelain", "--untracked-files=no", "--", others[0], others[1]])
        .is_some_and(|text| !text.is_empty());
    if changed { commit + "+" } else { commit }
}

/// Whether what runs in a cluster is the same at both commits.
fn is_same(one: &str, other: &str) -> bool {
    // What a checkout had changed, nobody knows.
    let known = !one.ends_with('+') && !other.ends_with('+');
    one == other || known && git(&differs(one, other)).is_some()
}

const fn differs<'a>(one: &'a str, other: &'a str) -> [&'a str; 9] {
    ["diff", "--quiet", one, other, "--", ":/operator", ":/gateways", ":/crds", ":/manifests"]
}

/// What git says, if it does so without an error.
fn git(arguments: &[&str]) -> Option<String> {
    let output =
        Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Such as `2 cores, 23 GiB, Linux 6.1.0`.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory_kib = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let gib = memory_kib.unwrap_or(0) / (1024 * 1024);
    format!("{cores} cores, {gib} GiB, Linux {}", kernel.trim())
}

fn now() -> String {
    jiff::Timestamp::now().round(jiff::Unit::Second).unwrap_or_else(|_| jiff::Timestamp::now()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_the_shape_that_all_of_them_share() {
        let folder = tempfile::tempdir().unwrap();
        let mut report = Report::start("broker-kill");
        let mut row = Row::new("leader killed");
        row.set("acknowledged", 10).set("served_after_s", 2.5);
        report.push(row.clone());
        report.push(row);
        let path = report.write(folder.path()).unwrap();
        assert_eq!(path.file_name().unwrap(), "broker-kill.json");
        let json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let keys: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
        for key in ["name", "commit", "machine", "started", "duration_s", "rows"] {
            assert!(keys.contains(&key), "{key}");
        }
        assert_eq!(
            json["rows"],
            serde_json::json!([{"case": "leader killed", "acknowledged": 10, "served_after_s": 2.5}])
        );
        assert!(json["started"].as_str().unwrap().ends_with('Z'));
        assert!(json["machine"].as_str().unwrap().contains("cores"));
        assert_eq!(Report::read(&path).unwrap().rows, report.rows);
    }

    #[test]
    fn a_report_goes_on_only_where_it_measured_the_same() {
        assert!(is_same("abc+", "abc+") && is_same("HEAD", "HEAD"));
        assert!(!is_same("HEAD", "HEAD+") && !is_same("HEAD", "no-such-commit"));
        let head = git(&["rev-parse", "HEAD"]).unwrap();
        assert!(is_same("HEAD", &head), "another name of the same");
    }

    #[test]
    fn a_struct_becomes_figures_with_short_floats() {
        #[derive(Serialize)]
        struct Figures {
            lost: u64,
            ack_p50_ms: f64,
        }
        let mut row = Row::new("x");
        row.extend(Figures { lost: 0, ack_p50_ms: 3.000_412 });
        assert_eq!(serde_json::to_string(&row).unwrap(), r#"{"case":"x","ack_p50_ms":3.0,"lost":0}"#);
    }
}
