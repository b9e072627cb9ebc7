//! kubectl, against the cluster under test.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::until;
use tidegate_cluster::{Cluster, Progress};

/// The local cluster, which runs.
pub fn cluster() -> Result<Cluster> {
    Cluster::attach(&Progress::new())
}

/// Starts kubectl with the right kubeconfig, in one namespace.
#[derive(Clone, Debug)]
pub struct Kubectl {
    namespace: String,
}

impl Kubectl {
    /// kubectl in `namespace`.
    pub fn new(namespace: &str) -> Self {
        Self { namespace: namespace.to_owned() }
    }

    /// A command with the given arguments.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = cluster()?.kubectl();
        command.args(["--namespace", &self.namespace]).args(arguments);
        Ok(command)
    }

    /// Runs it and returns what it printed.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command(arguments)?.output().context("failed to start kubectl")?;
        if !output.status.success() {
            bail!("kubectl {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Reads an object, or a list, as JSON.
    pub fn get(&self, what: &[&str]) -> Result<Value> {
        let mut arguments = vec!["get", "--output=json"];
        arguments.extend(what);
        Ok(serde_json::from_str(&self.run(&arguments)?)?)
    }

    /// Applies YAML; the error holds what the API server said.
    pub fn apply(&self, yaml: &str) -> Result<()> {
        let mut child = self
            .command(&["apply", "--server-side", "--force-conflicts", "--filename=-"])?
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        child.stdin.take().context("no standard input")?.write_all(yaml.as_bytes())?;
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(())
    }

    /// Applies a folder with a kustomization.
    pub fn apply_folder(&self, folder: &Path) -> Result<()> {
        self.run(&["apply", "--server-side", "--force-conflicts", "--kustomize", &folder.to_string_lossy()])
            .map(drop)
    }

    /// Waits until an object's condition has this reason, with these words.
    pub fn says(&self, object: &str, kind: &str, reason: &str, words: &str, limit: Duration) -> Result<()> {
        until(&format!("{object} says {reason}"), limit, || {
            let object = self.get(&[object])?;
            let all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let one = all.into_iter().find(|one| one["type"] == kind).context("no such condition")?;
            let told = one["message"].as_str().is_some_and(|text| text.contains(words));
            ensure!(one["reason"] == reason && told, "{one}");
            Ok(())
        })
    }

    /// Waits until an object's condition has this status, and returns the condition.
    pub fn condition(&self, object: &str, kind: &str, status: &str, limit: Duration) -> Result<Value> {
        until(&format!("{object} {kind}={status}"), limit, || {
            let object = self.get(&[object])?;
            let generation = &object["metadata"]["generation"];
            let condition = object["status"]["conditions"]
                .as_array()
                .and_then(|all| all.iter().find(|condition| condition["type"] == kind))
                .with_context(|| format!("no condition {kind} in {}", object["status"]))?;
            ensure!(
                condition["status"] == status && condition["observedGeneration"] == *generation,
                "{condition} at generation {generation}"
            );
            Ok(condition.clone())
        })
    }
}
