//! A story: an example applied, used and looked at; on failure everything is collected, on success our own logs are scanned.

use crate::nodes::all_used;
use crate::{Credentials, Kubectl, fleet, until};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};
pub use tidegate_ledger::report::campaign;

/// Time that everything of the quickstart may take to be ready, from nothing.
const READY: Duration = Duration::from_secs(300);

/// What the quickstart consists of.
const QUICKSTART: [&str; 7] =
    ["iotp/plant", "tgt/telemetry", "tgt/commands", "pgw/mqtt", "pgw/http", "dfl/meters", "dfl/readers"];

/// A node that has returned knows its pods within this.
const LOGS: Duration = Duration::from_secs(60);

/// Stories share one cluster, so one runs at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// What a running story works with.
pub struct Story {
    /// kubectl in the story's namespace.
    pub kubectl: Kubectl,
    name: &'static str,
    namespace: &'static str,
    tester: OnceCell<Credentials>,
}

/// Runs a story on the quickstart's platform, which is applied and Ready when `tell` begins. `tolerated` names texts that
/// may stand in our error logs because the story causes them.
pub fn story(name: &'static str, tolerated: &[&str], tell: impl FnOnce(&Story) -> Result<()>) {
    run(name, "plant", tolerated, |story| story.quickstart().and_then(|()| tell(story)));
}

/// Runs a story in a namespace of its own, without the quickstart's platform.
pub fn story_in(
    namespace: &'static str,
    name: &'static str,
    tolerated: &[&str],
    tell: impl FnOnce(&Story) -> Result<()>,
) {
    run(name, namespace, tolerated, tell);
}

fn run(
    name: &'static str,
    namespace: &'static str,
    tolerated: &[&str],
    tell: impl FnOnce(&Story) -> Result<()>,
) {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let story = Story { kubectl: Kubectl::new(namespace), name, namespace, tester: OnceCell::new() };
    let started = SystemTime::now();
    if let Err(error) = tell(&story).and_then(|()| story.scan_logs(started, tolerated)) {
        let folder = story.collect();
        panic!("{name}: {error:#}\nobjects, events and logs are in {}", folder.display());
    }
}

/// The checkout's root folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

impl Story {
    /// Applies `examples/quickstart` and waits until all of it is Ready.
    fn quickstart(&self) -> Result<()> {
        let folder = root().join("examples/quickstart");
        self.kubectl.apply_folder(&folder).context("failed to apply the quickstart")?;
        for (fleet, device) in [("meters", "meter-7"), ("readers", "dashboard")] {
            fleet::kept(&self.kubectl, fleet, device)?;
        }
        for object in QUICKSTART {
            self.kubectl.condition(object, "Ready", "True", READY)?;
        }
        self.let_in("plant")?;
        // a node that an earlier story took away takes its addresses back, and breaks what goes through them
        until("every node is used", READY, || all_used(&self.kubectl))
    }

    /// Lets the story itself in at a platform's gateways; once for each story.
    pub fn let_in(&self, platform: &str) -> Result<&Credentials> {
        let tester = fleet::open(&self.kubectl, platform)?;
        Ok(self.tester.get_or_init(|| tester))
    }

    /// Who the story is at gateways: a device that may do everything.
    pub fn tester(&self) -> Result<&Credentials> {
        self.tester.get().context("nobody has let this story in")
    }

    /// The URL that a gateway's status gives to devices.
    pub fn url(&self, gateway: &str) -> Result<String> {
        let object = self.kubectl.get(&["pgw", gateway])?;
        let url = object["status"]["endpoints"][0]["url"].as_str();
        url.map(str::to_owned).with_context(|| format!("{gateway} has no endpoint: {}", object["status"]))
    }

    /// Writes everything that helps to understand a failure below `target/stories`.
    fn collect(&self) -> PathBuf {
        let folder = root().join("target/stories").join(self.name);
        let _ = fs::create_dir_all(&folder);
        let save = |file: &str, namespace: &str, arguments: &[&str]| {
            let text = Kubectl::new(namespace).run(arguments).unwrap_or_else(|error| format!("{error:#}"));
            let _ = fs::write(folder.join(file), text);
        };
        let here = self.namespace;
        save("resources.yaml", here, &["get", "iotp,pgw,tgt,dfl", "--output=yaml"]);
        save("objects.txt", here, &["get", "all,pvc,cm,endpointslices", "--output=wide"]);
        save("pods.txt", here, &["describe", "pods"]);
        save("events.txt", here, &["get", "events", "--sort-by=.lastTimestamp"]);
        for (namespace, selector) in ours(here) {
            let file = format!("{namespace}.log");
            let arguments =
                ["logs", "--selector", selector, "--prefix", "--tail=-1", "--max-log-requests=50"];
            save(&file, namespace, &arguments);
        }
        save(
            "kafka.log",
            here,
            &["logs", "--selector=app.kubernetes.io/component=broker", "--prefix", "--tail=2000"],
        );
        folder
    }

    /// Fails if our own components logged an error since `started` that the story does not explain.
    pub fn scan_logs(&self, started: SystemTime, tolerated: &[&str]) -> Result<()> {
        let since = format!("--since={}s", started.elapsed()?.as_secs() + 1);
        let mut found = Vec::new();
        for (namespace, selector) in ours(self.namespace) {
            let kubectl = Kubectl::new(namespace);
            let logs =
                ["logs", "--selector", selector, "--prefix", "--tail=-1", "--max-log-requests=50", &since];
            // a node that was off has to learn first which pods are on it
            let logs = until("our logs", LOGS, || kubectl.run(&logs))?;
            found.extend(
                logs.lines()
                    .filter(|line| is_error(line) && !tolerated.iter().any(|text| line.contains(text)))
                    .map(str::to_owned),
            );
        }
        ensure!(found.is_empty(), "our logs hold {} errors, the first: {}", found.len(), found[0]);
        Ok(())
    }
}

/// Namespace and label selector of our own components, as far as a story in `namespace` is concerned.
const fn ours(namespace: &str) -> [(&str, &str); 2] {
    [
        ("tidegate-system", "app.kubernetes.io/name=tidegate-operator"),
        (namespace, "app.kubernetes.io/component=gateway"),
    ]
}

/// Whether a log line of ours (JSON behind kubectl's prefix) is an error, or a panic.
fn is_error(line: &str) -> bool {
    let text = line.split_once("] ").map_or(line, |(_, text)| text);
    match serde_json::from_str::<Value>(text) {
        Ok(log) => log["level"] == "ERROR",
        Err(_) => text.contains("panicked at"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_and_panics_are_seen_in_logs() {
        assert!(is_error(r#"[pod/mqtt-1/gateway] {"level":"ERROR","message":"x"}"#));
        assert!(!is_error(r#"[pod/mqtt-1/gateway] {"level":"WARN","message":"ERROR"}"#));
        assert!(is_error("[pod/mqtt-1/gateway] thread 'main' panicked at src/main.rs:1:1:"));
    }
}
