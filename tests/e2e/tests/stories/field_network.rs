//! A device that has only the field network publishes through a gateway's second interface, and goes on doing so when the
//! gateway's node is switched off; what keeps pods from being attached is told.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::{Duration, Instant};
use tidegate_cluster::faults::Fault;
use tidegate_cluster::field::Device;
use tidegate_e2e::field::{acknowledged, gateway, host, interfaces, publish};
use tidegate_e2e::kubectl::cluster;
use tidegate_e2e::ledger::reports;
use tidegate_e2e::story::root;
use tidegate_e2e::{Kubectl, Story, story, until};
use tidegate_ledger::Report;
use tidegate_ledger::report::Row;

const LIMIT: Duration = Duration::from_secs(120);
/// The address that `examples/second-networks` gives to its gateway of one pod.
const FIXED: &str = "172.31.9.7";

#[test]
fn field_network_devices_publish_through_it_also_when_the_gateways_node_is_off() {
    let tolerated = ["Kafka", "kafka", "broker", "leadership", "directory", "failed with status 500"];
    story("field-network", &tolerated, |story| {
        let told = tell(story);
        // The quickstart alone is declared again for whoever comes next, whatever kubectl's patches left.
        story.kubectl.run(&[
            "patch",
            "iotp/plant",
            "--type=merge",
            "--patch",
            r#"{"spec":{"networks":null}}"#,
        ])?;
        story.kubectl.run(&[
            "delete",
            "pgw",
            "field",
            "field-fixed",
            "narrow",
            "astray",
            "--ignore-not-found",
        ])?;
        story.kubectl.apply_folder(&root().join("examples/quickstart"))?;
        told
    });
}

fn tell(story: &Story) -> Result<()> {
    let mut report = Report::resume("field-network", &reports());
    let device = cluster()?.device("meter", Some("172.31.9.50/24"))?;
    story.kubectl.apply_folder(&root().join("examples/second-networks"))?;
    for gateway in ["field", "field-fixed"] {
        story.kubectl.condition(&format!("pgw/{gateway}"), "Ready", "True", LIMIT)?;
    }
    publish_through_the_second_interface(story, &device, &mut report)?;
    what_keeps_pods_from_being_attached_is_told(&story.kubectl)?;
    the_gateways_node_is_switched_off(story, &device, &mut report)?;
    report.write(&reports()).map(drop).map_err(Into::into)
}

fn publish_through_the_second_interface(story: &Story, device: &Device, report: &mut Report) -> Result<()> {
    let found = until("both pods' interfaces in the status", LIMIT, || {
        let all = interfaces(&story.kubectl, "field")?;
        ensure!(all.len() == 2, "{all:?}");
        Ok(all)
    })?;
    let fixed = interfaces(&story.kubectl, "field-fixed")?;
    ensure!(fixed.len() == 1 && host(&fixed[0])? == FIXED, "{fixed:?}");
    for endpoint in found.iter().chain(&fixed) {
        ensure!(
            endpoint["interface"] == "net1" && endpoint["mac"].as_str().is_some_and(|mac| mac.len() == 17),
            "{endpoint}"
        );
        let address = host(endpoint)?;
        let began = Instant::now();
        let said = publish(device, story.tester()?, &address)?;
        ensure!(acknowledged(&said), "{address}: {said}");
        let mut row =
            Row::new(&format!("publish through {}", endpoint["network"].as_str().unwrap_or_default()));
        row.set("connect_to_ack_ms", began.elapsed().as_millis());
        report.replace(row);
    }
    // The device reaches nothing else: the load balancer's address is another network's.
    let outside = story.url("mqtt")?;
    let outside =
        outside.trim_start_matches("mqtt://").rsplit_once(':').map(|(host, _)| host).unwrap_or_default();
    ensure!(
        !acknowledged(&publish(device, story.tester()?, outside)?),
        "the device is on more than the field network"
    );
    Ok(())
}

fn what_keeps_pods_from_being_attached_is_told(kubectl: &Kubectl) -> Result<()> {
    let networks = serde_json::json!({"spec": {"networks": [
        {"name": "field", "macvlan": {"master": "eth1"},
         "ipam": {"whereabouts": {"range": "172.31.9.0/24", "start": "172.31.9.100", "end": "172.31.9.120"}}},
        {"name": "field-fixed", "macvlan": {"master": "eth1"}, "ipam": {"static": {}}},
        {"name": "narrow", "macvlan": {"master": "eth1"},
         "ipam": {"whereabouts": {"range": "172.31.9.0/24", "start": "172.31.9.130", "end": "172.31.9.130"}}},
        {"name": "ghost", "attachmentRef": {"name": "nobodys"}},
        {"name": "forbidden", "hostDevice": {"device": "eth0"}},
    ]}});
    kubectl.run(&["patch", "iotp/plant", "--type=merge", "--patch", &networks.to_string()])?;
    kubectl.says("iotp/plant", "Accepted", "NotAllowed", "hostDevice:eth0", LIMIT)?;
    kubectl.apply(
        &(gateway("narrow", "  replicas: 2\n")
            + "---\n"
            + &gateway("astray", "  replicas: 1\n").replace("ref: astray", "ref: ghost")),
    )?;
    kubectl.says(
        "pgw/astray",
        "ResolvedRefs",
        "AttachmentNotFound",
        "\"nobodys\" in namespace plant",
        LIMIT,
    )?;
    kubectl.says("pgw/narrow", "Ready", "AddressesExhausted", "Could not allocate IP in range", LIMIT)?;
    // What was attached before serves on.
    kubectl.condition("pgw/field", "Ready", "True", LIMIT)?;
    kubectl.run(&["delete", "pgw", "narrow", "astray"])?;
    kubectl.run(&["delete", "network-attachment-definition", "plant-field"])?;
    until("the attachment is made again", LIMIT, || {
        kubectl.get(&["network-attachment-definition", "plant-field"]).map(drop)
    })?;
    kubectl.apply_folder(&root().join("examples/second-networks"))?;
    // What kubectl's patch set is another manager's, and stays declared until it is patched away.
    let declared = networks["spec"]["networks"].as_array().map(|all| Value::from(all[..2].to_vec()));
    let patch = serde_json::json!({"spec": {"networks": declared}});
    kubectl.run(&["patch", "iotp/plant", "--type=merge", "--patch", &patch.to_string()])?;
    kubectl.condition("iotp/plant", "Accepted", "True", LIMIT)?;
    kubectl.condition("pgw/field", "ResolvedRefs", "True", LIMIT).map(drop)
}

fn the_gateways_node_is_switched_off(story: &Story, device: &Device, report: &mut Report) -> Result<()> {
    let (local, kubectl) = (cluster()?, &story.kubectl);
    kubectl.condition("iotp/plant", "FailoverLimited", "False", LIMIT)?;
    let pods = kubectl.get(&["pods", "--selector=app.kubernetes.io/instance=field-fixed"])?;
    let node = pods["items"][0]["spec"]["nodeName"].as_str().context("no node")?.to_owned();
    let (before, cut) = (interfaces(kubectl, "field-fixed")?, Instant::now());
    let off = local.inject_for_now(Fault::PowerOff { node })?;
    let mut attempts = 0;
    until("the device's next acknowledgement", Duration::from_secs(180), || {
        attempts += 1;
        let said = publish(device, story.tester()?, FIXED)?;
        ensure!(acknowledged(&said), "{said}");
        Ok(())
    })?;
    let after = cut.elapsed();
    until("the new pod's interface in the status", LIMIT, || {
        let now = interfaces(kubectl, "field-fixed")?;
        ensure!(now.len() == 1 && now[0]["pod"] != before[0]["pod"], "{now:?}");
        ensure!(host(&now[0])? == FIXED && now[0]["mac"] != before[0]["mac"], "{now:?}");
        Ok(())
    })?;
    off.heal()?;
    let mut row = Row::new("gateway's node off, one pod with a fixed address");
    row.set("served_after_s", (after.as_secs_f64() * 10.0).round() / 10.0).set("attempts", attempts);
    report.replace(row);
    for object in ["iotp/plant", "pgw/field", "pgw/field-fixed", "pgw/mqtt", "pgw/http"] {
        kubectl.condition(object, "Ready", "True", Duration::from_secs(180))?;
    }
    Ok(())
}
