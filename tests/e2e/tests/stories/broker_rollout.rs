//! Brokers restart one at a time under load when their settings, image or certificates change: nothing that was
//! acknowledged is lost, no device loses its connection, and the platform stays Ready. A change that cannot work stops
//! at its first broker.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;
use tidegate_e2e::kafka::BROKERS;
use tidegate_e2e::kubectl::cluster;
use tidegate_e2e::rollout::{Breaks, Case, Rollouts};
use tidegate_e2e::story::campaign;
use tidegate_e2e::{Kubectl, story, until};

/// A kafka image under a second name: what every node has already.
const RETAGGED: &str = "tidegate/kafka:second-name";

#[test]
fn broker_rollout_brokers_roll_under_load_without_losing_what_was_acknowledged() {
    story("broker-rollout", &["Kafka", "kafka", "broker"], |story| {
        let kubectl = &story.kubectl;
        let mut rows = Rollouts::start(story)?;
        let changed = changes(&mut rows, kubectl);
        let back =
            || managed(kubectl, &json!({"config": null, "image": null, "resources": resources("100m")}));
        if changed.is_err() {
            // other stories go on with what they know
            back()?;
        }
        changed?;
        what_kafka_refuses_is_told(kubectl)?;
        roll(&mut rows, kubectl, "Kafka: everything set back", back)
    });
}

fn changes(rows: &mut Rollouts<'_>, kubectl: &Kubectl) -> Result<()> {
    roll(rows, kubectl, "Kafka: configuration", || {
        managed(kubectl, &json!({"config": {"log.retention.hours": "72"}}))
    })?;
    roll(rows, kubectl, "Kafka: brokers' Secret deleted", || {
        kubectl.run(&["delete", "secret", "plant-kafka-broker"]).map(drop)
    })?;
    if !campaign() {
        return Ok(());
    }
    roll(rows, kubectl, "Kafka: resources", || managed(kubectl, &json!({"resources": resources("110m")})))?;
    retag(kubectl)?;
    roll(rows, kubectl, "Kafka: image", || managed(kubectl, &json!({"image": RETAGGED})))?;
    stopped(rows, kubectl)
}

/// What the quickstart declares, with another share of a core.
fn resources(cpu: &str) -> Value {
    json!({"requests": {"cpu": cpu, "memory": "512Mi"}, "limits": {"memory": "1Gi"}})
}

/// Makes a change that every broker has to restart for, and measures it.
fn roll(
    rows: &mut Rollouts<'_>,
    kubectl: &Kubectl,
    name: &str,
    change: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let before = uids(&pods(kubectl)?);
    let seen = RefCell::new(BTreeSet::new());
    rows.run(&Case::new(name, Breaks::Nothing), change, || {
        let pods = pods(kubectl)?;
        seen.borrow_mut().extend(violations(kubectl, &pods)?);
        let now = uids(&pods);
        ensure!(now.len() == BROKERS.len() && now.is_disjoint(&before), "not every broker is new");
        settled(kubectl)
    })?;
    let seen = seen.into_inner();
    ensure!(seen.is_empty(), "{name}: {seen:?}");
    Ok(())
}

/// An image that nobody has stops the roll at one broker; the others serve on, and the old image heals it.
fn stopped(rows: &mut Rollouts<'_>, kubectl: &Kubectl) -> Result<()> {
    let before = uids(&pods(kubectl)?);
    let change = || {
        managed(kubectl, &json!({"image": "tidegate/kafka:nobody-has-it"}))?;
        let condition = until("a stopped roll", Duration::from_secs(120), || {
            let condition = condition(kubectl, "Reconciling")?;
            ensure!(condition["reason"] == "RolloutStopped", "{condition}");
            Ok(condition)
        })?;
        let text = condition["message"].as_str().unwrap_or_default().to_owned();
        ensure!(text.contains("0 of 3") || text.contains("1 of 3"), "{text}");
        ensure!(text.contains("cannot get image tidegate/kafka:nobody-has-it"), "{text}");
        ensure!(
            uids(&pods(kubectl)?).intersection(&before).count() == BROKERS.len() - 1,
            "more than one broker went"
        );
        ensure!(condition_is(kubectl, "Ready", "True")?, "two brokers serve, and the platform is not Ready");
        managed(kubectl, &json!({"image": RETAGGED}))
    };
    rows.run(&Case::new("Kafka: image that is not there, set back", Breaks::Nothing), change, || {
        settled(kubectl)
    })?;
    ensure!(
        uids(&pods(kubectl)?).intersection(&before).count() == BROKERS.len() - 1,
        "more than one broker went"
    );
    Ok(())
}

/// The local cluster's Kafka was formed with the newest metadata.
fn what_kafka_refuses_is_told(kubectl: &Kubectl) -> Result<()> {
    managed(kubectl, &json!({"metadataVersion": "4.3"}))?;
    until("a refusal", Duration::from_secs(60), || {
        let told = condition(kubectl, "Reconciling")?;
        let text = told["message"].as_str().unwrap_or_default();
        ensure!(told["reason"] == "MetadataVersion" && text.contains("never goes back"), "{told}");
        ensure!(condition_is(kubectl, "Ready", "True")?, "not Ready");
        Ok(())
    })?;
    managed(kubectl, &json!({"metadataVersion": null}))?;
    until("nothing left to do", Duration::from_secs(60), || settled(kubectl))
}

fn managed(kubectl: &Kubectl, change: &Value) -> Result<()> {
    let patch = json!({"spec": {"kafka": {"managed": change}}}).to_string();
    kubectl.run(&["patch", "iotp/plant", "--type=merge", "--patch", &patch]).map(drop)
}

fn pods(kubectl: &Kubectl) -> Result<Vec<Value>> {
    let pods = kubectl.get(&["pods", "--selector=app.kubernetes.io/name=tidegate-kafka"])?;
    pods["items"].as_array().cloned().context("no list of pods")
}

fn uids(pods: &[Value]) -> BTreeSet<String> {
    pods.iter().filter_map(|pod| pod["metadata"]["uid"].as_str().map(str::to_owned)).collect()
}

/// What must never be seen while brokers roll.
fn violations(kubectl: &Kubectl, pods: &[Value]) -> Result<Vec<String>> {
    let serves = |pod: &&Value| {
        pod["metadata"]["deletionTimestamp"].is_null()
            && pod["status"]["containerStatuses"][0]["ready"] == true
    };
    let mut seen = Vec::new();
    let serving = pods.iter().filter(serves).count();
    if serving + 1 < BROKERS.len() {
        seen.push(format!("{serving} brokers were left"));
    }
    let ready = condition(kubectl, "Ready")?;
    if ready["status"] != "True" {
        seen.push(format!("the platform was not Ready: {}", ready["message"]));
    }
    Ok(seen)
}

/// Everything is in effect.
fn settled(kubectl: &Kubectl) -> Result<()> {
    let platform = kubectl.get(&["iotp/plant"])?;
    ensure!(platform["status"]["kafka"]["brokersReady"] == 3, "{}", platform["status"]["kafka"]);
    let reconciling = condition(kubectl, "Reconciling")?;
    ensure!(reconciling["status"] == "False", "{}", reconciling["message"]);
    ensure!(reconciling["observedGeneration"] == platform["metadata"]["generation"], "{reconciling}");
    let set = kubectl.get(&["statefulset/plant-kafka"])?;
    let newest = &set["status"]["updateRevision"];
    for pod in pods(kubectl)? {
        ensure!(
            pod["metadata"]["labels"]["controller-revision-hash"] == *newest,
            "{} is behind",
            pod["metadata"]["name"]
        );
        ensure!(pod["status"]["containerStatuses"][0]["ready"] == true, "{}", pod["metadata"]["name"]);
    }
    Ok(())
}

fn condition(kubectl: &Kubectl, kind: &str) -> Result<Value> {
    let platform = kubectl.get(&["iotp/plant"])?;
    let all = platform["status"]["conditions"].as_array().cloned().unwrap_or_default();
    all.into_iter().find(|one| one["type"] == kind).with_context(|| format!("no condition {kind}"))
}

fn condition_is(kubectl: &Kubectl, kind: &str, status: &str) -> Result<bool> {
    Ok(condition(kubectl, kind)?["status"] == status)
}

/// Gives the brokers' image a second name on every node.
fn retag(kubectl: &Kubectl) -> Result<()> {
    for pod in pods(kubectl)? {
        let text = |path: &str| pod.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (node, image) = (text("/spec/nodeName"), text("/spec/containers/0/image"));
        let (from, to) = (format!("docker.io/{image}"), format!("docker.io/{RETAGGED}"));
        let output = cluster()?
            .on_node(&node)?
            .args(["ctr", "--namespace=k8s.io", "images", "tag", "--force", &from, &to])
            .output()?;
        ensure!(output.status.success(), "{node}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
