//! The largest Topics that the definitions allow, all with the same filters, declared at once on a bare API server and a Kafka of
//! one broker: one of them wins, every other is told which has its filters, statuses stay small, and the operator's program
//! stays within the memory that its manifest gives it. The figures go into the report `bad-input`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on must fail"
)]

mod apiserver_support;
mod drift_support;
mod kafka_support;

use apiserver_support::{Operator, Seen, World, says, watch_all};
use futures::{StreamExt as _, stream};
use kafka_support::{Cluster, Java};
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::runtime::reflector::Store;
use kube::{Client, ResourceExt as _};
use serde_json::json;
use std::time::{Duration, Instant};
use tidegate_crds::{State, Topic, reasons};
use tidegate_ledger::report::{Report, Row, campaign, reports};

/// How long everything may take.
const PATIENCE: Duration = Duration::from_secs(400);
/// The memory that `manifests/base/deployment.yaml` allows, in MiB.
const MEMORY: f64 = 512.0;
/// The largest status that is fine, in bytes: one condition's message is at most 4 KiB and stands in three of them.
const STATUS: usize = 16 << 10;

#[test]
fn a_thousand_large_topics_that_want_the_same_filters_cost_bounded_memory_and_small_statuses() {
    let count = if campaign() { 1000 } else { 60 };
    let mut kafka = Cluster::prepare(1, Java::find());
    kafka.start_all();
    let world = World::new();
    let operator = world.operator("hostile");
    drift_support::declare_external(&world, &kafka.access("operator"));
    world.condition("iotp/plant", "Ready", "Ready");
    let mut report = Report::start("bad-input");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let row = runtime.block_on(async {
        let client = world.client().await;
        declared_at_once(&client, &operator, count).await
    });
    report.push(row);
    println!("{}", report.write(&reports()).unwrap().display());
    let (clean, log) = operator.stop();
    assert!(clean, "{log}");
    for line in log.lines() {
        assert!(!line.contains("\"ERROR\"") && !line.contains("Rejected"), "{line}");
    }
}

/// As many filters as there may be, each as long as it may be.
fn topic(number: usize) -> Topic {
    let filters: Vec<_> = (0..64).map(|n| format!("{n:04}/{}", "x/".repeat(253))).collect();
    serde_json::from_value(json!({
        "apiVersion": "tidegate.io/v1alpha1", "kind": "Topic", "metadata": {"name": format!("t-{number:04}")},
        "spec": {"platformRef": {"name": "plant"}, "filters": filters, "partitions": 1},
    }))
    .unwrap()
}

async fn declared_at_once(client: &Client, operator: &Operator, count: usize) -> Row {
    let (api, topics) = (Api::<Topic>::namespaced(client.clone(), "plant"), watch_all::<Topic>(client));
    let before = memory(operator, "VmRSS");
    let began = Instant::now();
    let create = |number| {
        let api = api.clone();
        async move { api.create(&PostParams::default(), &topic(number)).await.map(drop).unwrap() }
    };
    // The first is the oldest.
    create(0).await;
    until("the first is Ready", || tell(&topics).0 == 1).await;
    stream::iter(1..count).map(create).buffer_unordered(20).collect::<Vec<_>>().await;
    until("all others know who has their filters", || tell(&topics) == (1, count - 1)).await;
    let told = began.elapsed();
    let largest = largest_status(&api).await;
    let peak = memory(operator, "VmHWM");

    let gone = Instant::now();
    api.delete("t-0000", &DeleteParams::default()).await.unwrap();
    until("the next has them", || tell(&topics) == (1, count - 2)).await;
    let mut row = Row::new("topics with the same 64 filters of 511 bytes");
    row.set("topics", count)
        .set("true_after_s", tenths(told))
        .set("handed_over_after_s", tenths(gone.elapsed()))
        .set("largest_status_bytes", largest)
        .set("memory_before_mib", before)
        .set("memory_peak_mib", peak)
        .set("memory_after_mib", memory(operator, "VmRSS"));
    assert!(largest < STATUS, "a status has {largest} bytes");
    assert!(memory(operator, "VmHWM") < MEMORY, "{row:?}");
    row
}

/// How many are Ready, and how many lost their filters to the same older one.
fn tell(topics: &Store<Seen>) -> (usize, usize) {
    let all = topics.state();
    let mut holders: Vec<_> = Vec::new();
    let mut lost = Vec::new();
    for topic in &all {
        match says(topic, "Ready") {
            Some((State::True, ..)) => holders.push(topic.name_any()),
            Some((_, reasons::FILTER_CONFLICT, message)) => lost.push(message),
            _ => {}
        }
    }
    let named = holders.first().map(|holder| format!("(Topic {holder:?})")).unwrap_or_default();
    (holders.len(), lost.iter().filter(|message| message.contains(&named)).count())
}

async fn largest_status(api: &Api<Topic>) -> usize {
    let all = api.list(&ListParams::default()).await.unwrap();
    let sizes = all.iter().map(|topic| serde_json::to_vec(&topic.status).unwrap().len());
    sizes.max().unwrap_or_default()
}

/// A field of the process's status, in MiB.
fn memory(operator: &Operator, field: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", operator.child.id())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    let kib: f64 = line.trim_matches([':', ' ', '\t', 'k', 'B']).parse().unwrap();
    (kib / 102.4).round() / 10.0
}

fn tenths(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10.0).round() / 10.0
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not in {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}
