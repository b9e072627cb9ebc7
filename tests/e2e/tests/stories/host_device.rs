//! A device of the node belongs to one pod at a time, rollouts included; a DHCP server of its network gives the address.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tidegate_cluster::field::Device;
use tidegate_e2e::field::{Dhcp, acknowledged, gateway, host, interfaces, publish};
use tidegate_e2e::kubectl::cluster;
use tidegate_e2e::story::root;
use tidegate_e2e::{Kubectl, Story, story, until};

/// Of the nodes that have it.
const DEVICE: &str = "bus0";
const NODES: [&str; 2] = ["node2", "node3"];
const CAPABILITY: &str = "tidegate.io/capability.bus";
const GATEWAYS: [&str; 2] = ["bus", "leased"];
const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn host_device_belongs_to_one_pod_of_a_node_also_while_the_gateway_is_rolled() {
    story("host-device", &[], |story| {
        let local = cluster()?;
        let _links: Vec<_> =
            NODES.iter().map(|node| local.host_device(node, DEVICE)).collect::<Result<_>>()?;
        let server = local.device("server", Some("172.31.9.1/24"))?;
        let _dhcp = Dhcp::start(&server)?;
        let told = tell(story, &server);
        let tidied = tidy(&story.kubectl);
        told.and(tidied)
    });
}

/// The quickstart alone is declared again for whoever comes next. Pods give their links back before these are gone.
fn tidy(kubectl: &Kubectl) -> Result<()> {
    kubectl.run(&["delete", "pgw", GATEWAYS[0], GATEWAYS[1], "--ignore-not-found"])?;
    networks(kubectl, &Value::Null)?;
    kubectl.run(&["label", "nodes", "--all", &format!("{CAPABILITY}-")])?;
    kubectl.apply_folder(&root().join("examples/quickstart"))?;
    until("the end of the pods", LIMIT, || {
        for gateway in GATEWAYS {
            ensure!(pods(kubectl, gateway)?.is_empty(), "{gateway} has some");
        }
        Ok(())
    })
}

fn tell(story: &Story, device: &Device) -> Result<()> {
    let kubectl = &story.kubectl;
    kubectl.run(&["label", "nodes", NODES[0], NODES[1], &format!("{CAPABILITY}=true")])?;
    networks(
        kubectl,
        &json!([
            {"name": "bus", "hostDevice": {"device": DEVICE}, "ipam": {"dhcp": {}}},
            {"name": "leased", "macvlan": {"master": "eth1"}, "ipam": {"dhcp": {}}},
        ]),
    )?;
    let all = [gateway("bus", "  replicas: 2\n  placement: {capabilities: [bus]}\n"), gateway("leased", "")];
    kubectl.apply(&all.join("---\n"))?;
    for gateway in GATEWAYS {
        kubectl.condition(&format!("pgw/{gateway}"), "Ready", "True", LIMIT)?;
    }
    all_publish(story, device, "leased", 1)?;
    all_publish(story, device, "bus", 2)?;

    // There is a third pod, and no third device.
    kubectl.run(&["scale", "pgw/bus", "--replicas=3"])?;
    kubectl.says("pgw/bus", "Ready", "CapabilityMissing", "taken", LIMIT)?;
    each_device_has_one_pod(kubectl)?;
    kubectl.run(&["scale", "pgw/bus", "--replicas=2"])?;
    kubectl.condition("pgw/bus", "Reconciling", "False", LIMIT)?;

    let (before, asked) = (names(kubectl)?, Instant::now());
    kubectl.run(&["rollout", "restart", "deployment/bus"])?;
    let mut wrong = None;
    until("the new pods", LIMIT, || {
        wrong = wrong.take().or(each_device_has_one_pod(kubectl).err());
        if wrong.is_some() {
            return Ok(());
        }
        let now = names(kubectl)?;
        ensure!(now.len() == 2 && now.iter().all(|pod| !before.contains(pod)), "{now:?}");
        let ready = kubectl.get(&["deployment", "bus"])?["status"]["readyReplicas"].clone();
        ensure!(ready == 2, "{ready} are ready");
        Ok(())
    })?;
    if let Some(wrong) = wrong {
        bail!("in the rollout: {wrong:#}");
    }
    println!("both pods are new after {:.1} s", asked.elapsed().as_secs_f64());
    all_publish(story, device, "bus", 2)
}

/// No node has two pods that want its device, those that are leaving included until all of their processes have ended.
fn each_device_has_one_pod(kubectl: &Kubectl) -> Result<()> {
    let selector = format!("--selector=tidegate.io/host-device.{DEVICE}=true");
    let all = kubectl.get(&["pods", "--all-namespaces", &selector])?;
    let mut on: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    let ended = |pod: &Value| pod["status"]["phase"] == "Succeeded" || pod["status"]["phase"] == "Failed";
    for pod in all["items"].as_array().into_iter().flatten().filter(|pod| !ended(pod)) {
        if let Some(node) = pod["spec"]["nodeName"].as_str() {
            on.entry(node).or_default().push(&pod["metadata"]["name"]);
        }
    }
    ensure!(!on.is_empty(), "no pod has the label of the device");
    ensure!(on.values().all(|pods| pods.len() == 1), "{on:?}");
    Ok(())
}

/// A device publishes through each address that the pods of a gateway were given.
fn all_publish(story: &Story, device: &Device, gateway: &str, count: usize) -> Result<()> {
    let kubectl = &story.kubectl;
    until(&format!("records through all interfaces of {gateway}"), LIMIT, || {
        let pods: Vec<_> =
            pods(kubectl, gateway)?.iter().map(|pod| pod["metadata"]["name"].clone()).collect();
        let all = interfaces(kubectl, gateway)?;
        let current = all.len() == count && all.iter().all(|one| pods.contains(&one["pod"]));
        ensure!(current, "{all:?} of {pods:?}");
        for endpoint in &all {
            let address = host(endpoint)?;
            ensure!(endpoint["interface"] == "net1" && address.starts_with("172.31.9.15"), "{endpoint}");
            let said = publish(device, story.tester()?, &address)?;
            ensure!(acknowledged(&said), "{address}: {said}");
        }
        Ok(())
    })
}

fn networks(kubectl: &Kubectl, networks: &Value) -> Result<()> {
    let patch = json!({"spec": {"networks": networks}}).to_string();
    kubectl.run(&["patch", "iotp/plant", "--type=merge", "--patch", &patch]).map(drop)
}

fn pods(kubectl: &Kubectl, gateway: &str) -> Result<Vec<Value>> {
    let pods = kubectl.get(&["pods", &format!("--selector=app.kubernetes.io/instance={gateway}")])?;
    Ok(pods["items"].as_array().cloned().unwrap_or_default())
}

fn names(kubectl: &Kubectl) -> Result<Vec<String>> {
    let all = pods(kubectl, "bus")?;
    let name = |pod: &Value| pod["metadata"]["name"].as_str().map(str::to_owned).context("no name");
    all.iter().map(name).collect()
}
