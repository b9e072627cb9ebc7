//! Order never matters, on a real cluster: the quickstart's resources applied from the last to the first; the platform deleted
//! while gateways and Topics are there, and made again on its old volumes; a namespace deleted with everything in it. Conditions
//! tell the truth all the way, nothing that was acknowledged is lost, and nothing hangs. How long each step took goes into the
//! report `orders`.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};
use tidegate_e2e::ledger::reports;
use tidegate_e2e::{Story, story_in, until};
use tidegate_ledger::Report;
use tidegate_ledger::report::Row;

const NAMESPACE: &str = "orders";
const ADDRESS: &str = "sites/berlin/telemetry/meter-7/power";
/// What gateways say while their platform's Kafka is not there.
const TOLERATED: &[&str] = &["Kafka", "kafka", "broker"];
/// The platform comes last.
const ATTACHED: [&str; 3] = ["pgw/http", "pgw/mqtt", "tgt/telemetry"];
const PLATFORM: &str = "iotp/plant";
/// Until a condition tells what is missing.
const TOLD: Duration = Duration::from_secs(20);
/// Until everything is Ready.
const READY: Duration = Duration::from_secs(180);
/// Until brokers have ended.
const ENDED: Duration = Duration::from_secs(90);
/// Until nothing is left of the namespace.
const GONE: Duration = Duration::from_secs(150);

#[test]
fn orders_of_applying_and_deleting_end_in_the_declared_state_and_a_namespace_ends() {
    story_in(NAMESPACE, "orders", TOLERATED, |story| {
        let mut report = Report::start("orders");
        // Another run's.
        let delete = ["delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=150s"];
        story.kubectl.run(&delete)?;
        let (documents, started) = (documents()?, SystemTime::now());
        let result = backwards(story, &documents, &mut report)
            .and_then(|()| again(story, &documents, &mut report))
            // The gateways' logs go with the namespace.
            .and_then(|()| story.scan_logs(started, TOLERATED))
            .and_then(|()| namespace(story, &mut report));
        println!("{}", report.write(&reports())?.display());
        result
    });
}

/// The quickstart's resources in the order in which its files list them, in this story's namespace.
fn documents() -> Result<Vec<String>> {
    const FILES: [&str; 3] = [
        include_str!("../../../../examples/quickstart/platform.yaml"),
        include_str!("../../../../examples/quickstart/topic.yaml"),
        include_str!("../../../../examples/quickstart/gateways.yaml"),
    ];
    let here = format!("namespace: {NAMESPACE}");
    let all = FILES.iter().flat_map(|file| file.split("\n---\n"));
    let all: Vec<_> = all.map(|document| document.replace("namespace: plant", &here)).collect();
    ensure!(all.len() == 4 && all.iter().all(|document| document.contains(&here)), "{all:?}");
    Ok(all)
}

/// From the last to the first.
fn backwards(story: &Story, documents: &[String], report: &mut Report) -> Result<()> {
    story.kubectl.apply(&format!(
        "{{apiVersion: v1, kind: Namespace, metadata: {{name: {NAMESPACE}, labels: {{pod-security.kubernetes.io/enforce: restricted}}}}}}"
    ))?;
    let mut row = Row::new("applied from the last to the first");
    let began = Instant::now();
    let (platform, attached) = documents.split_first().context("no documents")?;
    for document in attached.iter().rev() {
        story.kubectl.apply(document)?;
    }
    told(story, "PlatformNotFound")?;
    row.set("missing_platform_told_after_s", seconds(began));
    let began = Instant::now();
    story.kubectl.apply(platform)?;
    row.set("ready_after_s", all_ready(story, began)?);
    report.push(row);
    story.let_in("plant").map(drop)
}

/// Deletes the platform, and makes it again on the volumes that it left.
fn again(story: &Story, documents: &[String], report: &mut Report) -> Result<()> {
    let mut row = Row::new("platform deleted first");
    let url = format!("{}/{ADDRESS}", story.url("http")?);
    let payload = format!("1350 W at {:?}", SystemTime::now());
    let answer = story.tester()?.curl(&["--request", "PUT", "--data", &payload, &url])?;
    ensure!(answer.status == 204, "{answer:?}");
    let children = children(story)?;
    ensure!(children.len() >= 4, "{children:?}");

    let began = Instant::now();
    story.kubectl.run(&["delete", PLATFORM, "--timeout=30s"])?;
    told(story, "PlatformNotFound")?;
    row.set("missing_platform_told_after_s", seconds(began));
    until("the brokers' end", ENDED, || {
        none(story, &["pods", "--selector=app.kubernetes.io/component=broker"])
    })?;
    row.set("brokers_ended_after_s", seconds(began));
    ensure!(self::children(story)? == children, "gateways' objects changed while their platform was away");
    let claims = names(&story.kubectl.get(&["pvc"])?);
    ensure!(claims.len() == 3, "volumes: {claims:?}");
    report.push(row);

    let mut row = Row::new("created again on its old volumes");
    let began = Instant::now();
    let platform = documents.first().context("no documents")?;
    story.kubectl.apply(platform)?;
    let condition = story.kubectl.condition(PLATFORM, "Ready", "False", TOLD)?;
    let message = condition["message"].as_str().unwrap_or_default();
    ensure!(
        condition["reason"] == "ResourceConflict" && message.contains("tidegate.io/adopt"),
        "without the annotation: {condition}"
    );
    row.set("old_volumes_told_after_s", seconds(began));
    none(story, &["statefulsets"]).context("it did not wait for the annotation")?;
    let began = Instant::now();
    story.kubectl.run(&["annotate", PLATFORM, "tidegate.io/adopt=true"])?;
    row.set("ready_after_s", all_ready(story, began)?);
    until("the record from before", READY, || {
        let answer = story.tester()?.curl(&[&url])?;
        ensure!(answer.status == 200 && answer.body == payload, "{answer:?}");
        Ok(())
    })?;
    row.set("read_after_s", seconds(began));
    ensure!(names(&story.kubectl.get(&["pvc"])?) == claims, "other volumes than before");
    report.push(row);
    Ok(())
}

/// Deletes the namespace with everything in it, and looks what goes when.
fn namespace(story: &Story, report: &mut Report) -> Result<()> {
    // With a finalizer in it.
    let patch = r#"{"spec":{"deletionPolicy":"Delete"}}"#;
    story.kubectl.run(&["patch", "tgt/telemetry", "--type=merge", "--patch", patch])?;
    until("the Topic's finalizer", TOLD, || {
        let topic = story.kubectl.get(&["tgt/telemetry"])?;
        ensure!(topic["metadata"]["finalizers"][0].is_string(), "{}", topic["metadata"]);
        Ok(())
    })?;
    let began = Instant::now();
    story.kubectl.run(&["delete", "namespace", NAMESPACE, "--wait=false"])?;
    let mut seen: BTreeMap<String, f64> = BTreeMap::new();
    until("the namespace's end", GONE, || {
        let all = story.kubectl.get(&["pods,pvc,iotp,pgw,tgt,deployments,statefulsets"])?;
        for name in names(&all) {
            seen.insert(name, seconds(began));
        }
        let left =
            story.kubectl.run(&["get", "namespace", NAMESPACE, "--ignore-not-found", "--output=json"])?;
        ensure!(left.is_empty(), "{left}\nstill there: {:?}", names(&all));
        Ok(())
    })?;
    let last = |kind: &str| {
        let of_kind = seen.iter().filter(|(name, _)| name.starts_with(kind)).map(|(_, at)| *at);
        of_kind.fold(0.0, f64::max)
    };
    let mut row = Row::new("namespace deleted with everything in it");
    row.set("pods_until_s", last("Pod"))
        .set("resources_until_s", last("IoTPlatform").max(last("ProtocolGateway")).max(last("Topic")))
        .set("volume_claims_until_s", last("PersistentVolumeClaim"))
        .set("gone_after_s", seconds(began));
    for (name, at) in &seen {
        println!("{name} was there until {at} s");
    }
    println!("{row:?}");
    report.push(row);
    Ok(())
}

/// Waits until everything but the platform says that it is missing, and is not called ready.
fn told(story: &Story, reason: &str) -> Result<()> {
    for object in ATTACHED {
        let condition = story.kubectl.condition(object, "ResolvedRefs", "False", TOLD)?;
        ensure!(condition["reason"] == reason, "{object}: {condition}");
        let ready = story.kubectl.condition(object, "Ready", "False", TOLD)?;
        ensure!(ready["reason"] == reason, "{object}: {ready}");
    }
    Ok(())
}

/// Follows everything until it is Ready: whatever is not says why, and whatever is, is.
fn all_ready(story: &Story, began: Instant) -> Result<f64> {
    let mut said: BTreeMap<&str, String> = BTreeMap::new();
    let mut wrong = None;
    let after = until("everything is Ready", READY, || {
        let mut waiting = Vec::new();
        for object in ATTACHED.into_iter().chain([PLATFORM]) {
            let found = story.kubectl.get(&[object])?;
            let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
            // It was made in this moment.
            let ready = conditions.into_iter().find(|one| one["type"] == "Ready").unwrap_or_default();
            let text = |key: &str| ready[key].as_str().unwrap_or_default();
            let word = format!("{} {}", text("status"), text("reason"));
            if said.get(object) != Some(&word) {
                println!("{object} says {word} after {:.1} s: {}", seconds(began), text("message"));
                said.insert(object, word);
            }
            if text("status") != "True" {
                waiting.push(object);
                if !ready.is_null() && (text("reason").is_empty() || text("message").is_empty()) {
                    wrong = Some(format!("{object} does not say why it is not ready: {ready}"));
                }
            } else if let Err(error) = serves(story, object) {
                wrong = Some(format!("{object} says that it is ready: {error:#}"));
            }
        }
        ensure!(waiting.is_empty(), "not yet: {waiting:?}; {said:?}");
        Ok(seconds(began))
    })?;
    wrong.map_or(Ok(after), |wrong| Err(anyhow::anyhow!(wrong)))
}

/// What has to be where something is called ready.
fn serves(story: &Story, object: &str) -> Result<()> {
    if let Some(gateway) = object.strip_prefix("pgw/") {
        let deployment = story.kubectl.get(&["deployment", gateway])?;
        ensure!(deployment["status"]["readyReplicas"].as_i64() >= Some(1), "{}", deployment["status"]);
        return Ok(());
    }
    let pods = story.kubectl.get(&["pods", "--selector=app.kubernetes.io/component=broker"])?;
    let pods = pods["items"].as_array().cloned().unwrap_or_default();
    let ready = pods.iter().filter(|pod| pod["status"]["containerStatuses"][0]["started"] == true).count();
    ensure!(ready >= 2, "{ready} brokers run");
    Ok(())
}

/// What gateways consist of: uid and generation by name.
fn children(story: &Story) -> Result<BTreeMap<String, (String, i64)>> {
    let all =
        story.kubectl.get(&["deployments,services", "--selector=tidegate.io/owner-kind=protocolgateway"])?;
    let one = |object: &Value| {
        let metadata = &object["metadata"];
        let uid = metadata["uid"].as_str().unwrap_or_default().to_owned();
        (name(object), (uid, metadata["generation"].as_i64().unwrap_or_default()))
    };
    Ok(all["items"].as_array().into_iter().flatten().map(one).collect())
}

fn none(story: &Story, what: &[&str]) -> Result<()> {
    let found = names(&story.kubectl.get(what)?);
    ensure!(found.is_empty(), "there are {found:?}");
    Ok(())
}

fn names(list: &Value) -> Vec<String> {
    list["items"].as_array().into_iter().flatten().map(name).collect()
}

fn name(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"]))
}

/// Tenths are enough.
fn seconds(since: Instant) -> f64 {
    (since.elapsed().as_secs_f64() * 10.0).round() / 10.0
}
