//! A broker's disk is lost under load: it waits and says so; once told that it may, it begins anew on an empty one and is a
//! voter and in sync again. Nothing acknowledged is lost.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::time::{Duration, Instant};
use tidegate_e2e::kafka::BROKERS;
use tidegate_e2e::kubectl::cluster;
use tidegate_e2e::ledger::{Pod, load, reports};
use tidegate_e2e::{Kubectl, Story, campaign, story, until};
use tidegate_ledger::Report;
use tidegate_ledger::report::Row;

const TOPIC: &str = "telemetry";
const NAMESPACE: &str = "plant";
const ANNOTATION: &str = "tidegate.io/replace-disk";
/// Acknowledgements before the loss, while the broker waits, and after it is back.
const AROUND: u64 = 250;

#[test]
fn lost_disk_waits_until_it_may_be_replaced_and_then_is_back_in_sync() {
    story("lost-disk", &["Kafka", "kafka", "broker", "directory"], |story| {
        let mut report = Report::resume("lost-disk", &reports());
        // The long form loses the disk of every broker in turn, so that of the active controller too.
        let nodes = if campaign() { vec![0, 1, 2] } else { vec![1] };
        for node in nodes {
            let row = lose(story, node).with_context(|| format!("the disk of node {node}"))?;
            report.replace(row);
            report.write(&reports())?;
        }
        Ok(())
    });
}

fn lose(story: &Story, node: usize) -> Result<Row> {
    let (kubectl, pod) = (&story.kubectl, BROKERS[node]);
    let claim = format!("data-{pod}");
    whole(kubectl)?;
    let ledger = Pod::start(story)?;
    let start = ledger.offsets(TOPIC)?;
    let (load, options) = load(story, |_| {})?;
    load.wait_acknowledged(AROUND, Duration::from_secs(120))?;
    let before = volume(kubectl, &claim)?;

    load.mark("disk lost");
    let lost = Instant::now();
    cluster()?.discard_volume(NAMESPACE, &claim)?;
    // What an administrator does whose storage is gone: the claim goes as soon as its pod is.
    kubectl.run(&["delete", "pvc", &claim, "--wait=false"])?;
    kubectl.run(&["delete", "pod", pod, "--grace-period=1"])?;
    let told = until("the empty disk is told", Duration::from_secs(180), || {
        let message = reconciling(kubectl, "DiskWrong")?;
        ensure!(message.contains(ANNOTATION) && message.contains(&format!("\"{node}\"")), "{message}");
        Ok(lost.elapsed())
    })?;
    let after = volume(kubectl, &claim)?;
    ensure!(after.0 != before.0, "the claim is on the volume that it had");
    kubectl.condition("iotp/plant", "Ready", "True", Duration::from_secs(30))?;
    load.wait_acknowledged(load.acknowledged() + AROUND, Duration::from_secs(60))?;
    ensure!(brokers(kubectl)? == 2, "nobody asked for it, and the broker is back");

    load.mark("replacement asked for");
    let asked = Instant::now();
    kubectl.run(&["annotate", "iotp/plant", &format!("{ANNOTATION}={node}"), "--overwrite"])?;
    let formatted = until("a new directory id", Duration::from_secs(60), || {
        let now = volume(kubectl, &claim)?;
        ensure!(now.1 != before.1, "it is {} still", now.1);
        Ok(asked.elapsed())
    })?;
    let ready = until("the broker", Duration::from_secs(180), || {
        ensure!(brokers(kubectl)? == 3, "{}", reconciling(kubectl, "ReplacingDisk")?);
        Ok(asked.elapsed())
    })?;
    until("everything on the new disk", Duration::from_secs(180), || whole(kubectl))?;
    let in_sync = asked.elapsed();
    let events = kubectl.run(&["get", "events.events.k8s.io", "--output=jsonpath={.items[*].reason}"])?;
    ensure!(events.contains("DiskReplaced"), "no Event tells that it is done: {events}");

    // The annotation stands there still, and is answered.
    let now = volume(kubectl, &claim)?;
    load.wait_acknowledged(load.acknowledged() + AROUND, Duration::from_secs(60))?;
    ensure!(volume(kubectl, &claim)? == now, "it was answered twice");
    kubectl.run(&["annotate", "iotp/plant", &format!("{ANNOTATION}-")])?;
    load.stop(Duration::from_secs(60))?;

    let verdict = ledger.judge(&options, TOPIC, &start)?;
    let mut row = Row::new(&format!("disk of broker {node} lost"));
    row.set("told_after_s", tenths(told));
    row.set("formatted_after_s", tenths(formatted));
    row.set("repaired_after_s", tenths(ready));
    row.set("true_after_s", tenths(in_sync));
    row.set("served_after_s", verdict.marks.first().and_then(|mark| mark.served_after_s));
    row.set("acknowledged", verdict.acknowledged).set("acknowledged_lost", verdict.acknowledged_lost);
    row.set("duplicates", verdict.duplicates).set("disorder", verdict.disorder);
    row.set("stale_repeats", verdict.stale_repeats).set("longest_gap_s", verdict.longest_gap_s);
    println!("{row:?}");
    ensure!(verdict.is_clean(), "{:?} {row:?}", verdict.faults());
    Ok(row)
}

/// The volume of a claim, and the directory id that the claim has.
fn volume(kubectl: &Kubectl, claim: &str) -> Result<(String, String)> {
    let claim = kubectl.get(&["pvc", claim])?;
    let text = |value: &Value, what: &str| {
        value.as_str().map(str::to_owned).with_context(|| format!("the claim has no {what}"))
    };
    let directory = &claim["metadata"]["annotations"]["tidegate.io/kafka-directory-id"];
    Ok((text(&claim["metadata"]["uid"], "uid")?, text(directory, "directory id")?))
}

fn brokers(kubectl: &Kubectl) -> Result<u64> {
    let platform = kubectl.get(&["iotp/plant"])?;
    platform["status"]["kafka"]["brokersReady"].as_u64().context("no broker is counted")
}

/// The message of `Reconciling`, where it has this reason.
fn reconciling(kubectl: &Kubectl, reason: &str) -> Result<String> {
    let platform = kubectl.get(&["iotp/plant"])?;
    let all = platform["status"]["conditions"].as_array().into_iter().flatten();
    let Some(one) = all.into_iter().find(|one| one["type"] == "Reconciling") else { bail!("no condition") };
    ensure!(one["reason"] == reason, "{one}");
    Ok(one["message"].as_str().unwrap_or_default().to_owned())
}

/// All brokers are there, and nothing is left to do.
fn whole(kubectl: &Kubectl) -> Result<()> {
    reconciling(kubectl, "UpToDate")?;
    let there = brokers(kubectl)?;
    ensure!(there == 3, "{there} brokers");
    Ok(())
}

fn tenths(time: Duration) -> f64 {
    (time.as_secs_f64() * 10.0).round() / 10.0
}
