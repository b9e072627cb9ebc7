//! Processes of pods, from the host: a node is namespaces on this machine, so they are processes of ours. Does IO.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::Place;
use crate::cgroup::Cgroups;
use crate::cluster::Cluster;
use crate::command::run;
use crate::process::{self, send, wait_until};

/// The program that holds a pod's namespaces: without it the pod would be another one.
const PAUSE: &str = "pause";

impl Cluster {
    /// Where a pod is.
    pub(super) fn place_of_pod(&self, namespace: &str, pod: &str) -> Result<Place> {
        let object = self.object(namespace, "pods", pod)?;
        let text = |at: &str| object.pointer(at).and_then(Value::as_str).map(str::to_owned);
        let node = text("/spec/nodeName").with_context(|| format!("pod {pod} is on no node yet"))?;
        Ok(Place { node, uid: text("/metadata/uid").context("a pod without uid")? })
    }

    /// An object, or an error that lists those that there are.
    pub(super) fn object(&self, namespace: &str, kind: &str, name: &str) -> Result<Value> {
        let text = run(self.kubectl().args(["get", kind, "-n", namespace, "--output=json"]))?;
        let list: Value = serde_json::from_str(&text).context("failed to read what kubectl printed")?;
        let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        if let Some(found) = items.iter().find(|item| item["metadata"]["name"] == name) {
            return Ok(found.clone());
        }
        let names: Vec<&str> = items.iter().filter_map(|item| item["metadata"]["name"].as_str()).collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        bail!("namespace {namespace} has none of its {kind} called {name:?}: there are {names}")
    }

    /// Kills all processes of a pod at once; the kubelet starts its containers again. Nothing needs healing.
    ///
    /// # Errors
    /// When there is no such pod (the message lists those that there are), or nothing of it runs.
    pub fn kill(&self, namespace: &str, pod: &str) -> Result<()> {
        let place = self.place_of_pod(namespace, pod)?;
        let all = processes(&place)?;
        if all.is_empty() {
            bail!("nothing of pod {pod} runs on {}", place.node);
        }
        all.into_iter().try_for_each(|pid| send(pid, Signal::SIGKILL))
    }
}

/// Stops everything in the pod.
pub(super) fn freeze(place: &Place) -> Result<()> {
    if processes(place)?.is_empty() {
        bail!("nothing of the pod runs on {}", place.node);
    }
    stop(|| processes(place))
}

/// Stops what `find` finds, again and again until nothing of it runs, because a process may start another meanwhile.
pub(super) fn stop(find: impl Fn() -> Result<Vec<i32>>) -> Result<()> {
    let mut found = Vec::new();
    let stopped = wait_until(Duration::from_secs(10), || {
        found = find().unwrap_or_default();
        for pid in &found {
            // One that has ended needs none.
            let _ = send(*pid, Signal::SIGSTOP);
        }
        found.iter().all(|pid| process::state(*pid).is_none_or(|state| matches!(state, 'T' | 'Z')))
    });
    if !stopped {
        bail!("failed to stop the processes {found:?}");
    }
    Ok(())
}

/// Lets everything in the pod go on; one that was started anew meanwhile runs already.
pub(super) fn thaw(place: &Place) -> Result<()> {
    processes(place)?.into_iter().try_for_each(|pid| send(pid, Signal::SIGCONT))
}

/// What runs in the containers of a pod.
pub(super) fn processes(place: &Place) -> Result<Vec<i32>> {
    let mut all = Cgroups::detect()?.processes_of_pod(&place.node, &place.uid);
    all.retain(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() != PAUSE));
    Ok(all)
}
