//! A gateway runs where its capability is: it follows the label from node to node, says which label to set where no node has
//! it, and leaves a node that is switched off.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::{Duration, Instant};
use tidegate_cluster::faults::Fault;
use tidegate_cluster::plan::NodePlan;
use tidegate_e2e::kubectl::cluster;
use tidegate_e2e::nodes::{Roles, Victim, all_used, serves};
use tidegate_e2e::{Kubectl, Story, story, until};

const GATEWAY: &str = "meters";
const LABEL: &str = "tidegate.io/capability.story";
const LIMIT: Duration = Duration::from_secs(120);
const MISSING: &str = "CapabilityMissing";

#[test]
fn capability_a_gateway_follows_its_label_and_leaves_a_node_that_is_off() {
    story("capability", &["Kafka", "kafka", "broker", "leadership", "directory"], |story| {
        let told = tell(story);
        story.kubectl.run(&["delete", "pgw", GATEWAY, "--ignore-not-found"])?;
        story.kubectl.run(&["label", "nodes", "--all", &format!("{LABEL}-")])?;
        told
    });
}

fn tell(story: &Story) -> Result<()> {
    let (local, kubectl) = (cluster()?, &story.kubectl);
    // A broker is on the node that goes, and as little else as may be.
    let going = Roles::look(story)?.choose(Victim::Broker, None)?;
    let mut others: Vec<_> = local.plan().nodes().map(NodePlan::name).collect();
    others.retain(|node| *node != going);
    let [first, last] = [0, 1].map(|at| others[at].as_str());

    kubectl.apply(&format!(
        "apiVersion: tidegate.io/v1alpha1
kind: ProtocolGateway
metadata: {{name: {GATEWAY}, namespace: plant}}
spec:
  platformRef: {{name: plant}}
  mqtt: {{listeners: [{{name: mqtt, port: 1883}}]}}
  expose: {{type: ClusterIP}}
  placement: {{capabilities: [story]}}
"
    ))?;
    let command = format!("kubectl label node <node> {LABEL}=true");
    says(kubectl, "no node has it", "Ready", MISSING, &command)?;

    label(kubectl, first, true)?;
    let pod = serves_on(kubectl, first)?;

    label(kubectl, &going, true)?;
    label(kubectl, first, false)?;
    let (asked, mut gap) = (Instant::now(), false);
    until("the gateway on the other node", LIMIT, || {
        let there: Vec<_> = pods(kubectl)?.into_iter().filter(|pod| serves(pod, GATEWAY)).collect();
        gap |= there.is_empty();
        let moved = there.iter().all(|pod| pod["spec"]["nodeName"] == *going);
        ensure!(moved && !there.is_empty(), "{} pods serve", there.len());
        Ok(())
    })?;
    ensure!(!gap, "its replacement was to serve first, and nothing served for a time");
    println!("the gateway moved within {:.1} s", asked.elapsed().as_secs_f64());
    let moved = serves_on(kubectl, &going)?;
    ensure!(moved != pod, "it is the same pod");

    label(kubectl, &going, false)?;
    says(kubectl, "it stays", "Reconciling", MISSING, &format!("stays on {going}"))?;
    kubectl.condition(&format!("pgw/{GATEWAY}"), "Ready", "True", LIMIT)?;
    ensure!(serves_on(kubectl, &going)? == moved, "it went although no other node has the capability");
    label(kubectl, &going, true)?;
    kubectl.condition(&format!("pgw/{GATEWAY}"), "Reconciling", "False", LIMIT)?;

    kubectl.condition("iotp/plant", "FailoverLimited", "False", LIMIT)?;
    let off = local.inject_for_now(Fault::PowerOff { node: going.clone() })?;
    says(kubectl, "its node is off", "Ready", MISSING, &format!("{going} has it and is not ready"))?;
    label(kubectl, last, true)?;
    serves_on(kubectl, last)?;
    off.heal()?;
    until("every node is used", LIMIT, || all_used(kubectl))?;
    for object in ["iotp/plant", "pgw/mqtt", "pgw/http"] {
        kubectl.condition(object, "Ready", "True", LIMIT)?;
    }
    Ok(())
}

/// Waits until the gateway says so, and tells how long that took.
fn says(kubectl: &Kubectl, what: &str, kind: &str, reason: &str, words: &str) -> Result<()> {
    let asked = Instant::now();
    kubectl.says(&format!("pgw/{GATEWAY}"), kind, reason, words, LIMIT).context(what.to_owned())?;
    println!("{what}: said after {:.1} s", asked.elapsed().as_secs_f64());
    Ok(())
}

fn label(kubectl: &Kubectl, node: &str, on: bool) -> Result<()> {
    let label = if on { format!("{LABEL}=true") } else { format!("{LABEL}-") };
    kubectl.run(&["label", "node", node, &label]).map(drop)
}

/// Waits until one pod serves, on this node, and no other pod wants to; its name.
fn serves_on(kubectl: &Kubectl, node: &str) -> Result<String> {
    let asked = Instant::now();
    let pod = until(&format!("the gateway on {node}"), LIMIT, || {
        let mut all = pods(kubectl)?;
        all.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        ensure!(all.len() == 1, "{} pods", all.len());
        let (pod, there) = (&all[0], &all[0]["spec"]["nodeName"]);
        ensure!(there == node && serves(pod, GATEWAY), "{} on {there}", pod["status"]["conditions"]);
        Ok(pod["metadata"]["name"].as_str().unwrap_or_default().to_owned())
    })?;
    println!("{node} has the gateway after {:.1} s", asked.elapsed().as_secs_f64());
    Ok(pod)
}

fn pods(kubectl: &Kubectl) -> Result<Vec<Value>> {
    let pods = kubectl.get(&["pods", &format!("--selector=app.kubernetes.io/instance={GATEWAY}")])?;
    Ok(pods["items"].as_array().cloned().unwrap_or_default())
}
