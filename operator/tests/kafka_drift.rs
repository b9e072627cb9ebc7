//! Drift in Kafka: what somebody changes, adds, removes or deletes there, behind the back of the operator's own program, on a
//! Kafka of one broker outside and a bare API server. Rows go into the report `drift`, beside those of Kubernetes' objects.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on must fail"
)]

mod apiserver_support;
mod drift_support;
mod kafka_support;

use apiserver_support::World;
use drift_support::{Outcome, Table, declare_external};
use kafka_support::{Cluster, Java};
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tidegate_operator::kafka::access::Access;
use tidegate_operator::kafka::admin::Admin;
use tidegate_operator::kafka::directory;
use tidegate_operator::kafka::plan::{Plan, Topic};

/// Each repair's wait limit.
const LIMIT: Duration = Duration::from_secs(5);
const DIRECTORY: &str = "tg-directory";
const PRESENCE: &str = "tg-presence";
const GATEWAYS: &str = "tg-gateways";
const THROTTLE: &str = "follower.replication.throttled.replicas";

type Config = BTreeMap<String, String>;

#[test]
fn what_others_change_in_kafka_is_put_back_by_the_next_look() {
    let mut kafka = Cluster::prepare(1, Java::find());
    kafka.start_all();
    let world = World::new();
    let _operator =
        world.operator_with("kafka-drift", &[("TIDEGATE_RESYNC", "1h"), ("TIDEGATE_LOOK_AGAIN", "1h")]);
    let access = kafka.access("operator");
    declare(&world, &access);
    for topic in ["telemetry", "events"] {
        world.wait(&format!("tgt/{topic}"), ".status.conditions[?(@.type=='Ready')].status", "True");
    }
    let somebody = Somebody { admin: Admin::new(&access).unwrap(), access };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut table = Table::start();
        for topic in ["telemetry", DIRECTORY] {
            somebody.changes_settings_of(topic, &mut table).await;
        }
        told(&world, "tgt/telemetry", "ConfigRepaired");
        told(&world, "iotp/plant", "ConfigRepaired");
        a_throttle_stays(&somebody).await;
        what_is_paused_stays(&world, &somebody, &mut table).await;
        somebody.deletes("telemetry", &mut table).await;
        told(&world, "tgt/telemetry", "TopicRecreated");
        for topic in [DIRECTORY, PRESENCE, GATEWAYS] {
            somebody.deletes(topic, &mut table).await;
        }
        told(&world, "iotp/plant", "TopicRecreated");
        growth_is_told_and_not_followed(&world, &somebody).await;
        the_oldest_has_a_filter_and_the_next_gets_it(&world, &somebody).await;
        assert!(table.problems.is_empty(), "{}\n{}", table.problems.join("\n"), world.everything());
        table.write();
    });
    for topic in ["telemetry", "events"] {
        world.wait(&format!("tgt/{topic}"), ".status.conditions[?(@.type=='Ready')].status", "True");
    }
}

fn declare(world: &World, access: &Access) {
    declare_external(world, access);
    for topic in ["telemetry", "events"] {
        world.apply(&json!({
            "apiVersion": "tidegate.io/v1alpha1", "kind": "Topic", "metadata": {"name": topic, "namespace": "plant"},
            "spec": {"platformRef": {"name": "plant"}, "partitions": 2, "cleanup": "CompactAndDelete", "retention": {"time": "24h"}},
        }));
    }
}

/// Waits for a Warning about an object.
fn told(world: &World, object: &str, reason: &str) {
    let (kind, name) = object.split_once('/').unwrap();
    let kind = if kind == "tgt" { "Topic" } else { "IoTPlatform" };
    let path =
        "jsonpath={range .items[*]}{.type} {.reason} {.regarding.kind} {.regarding.name}{\"\\n\"}{end}";
    let wanted = format!("Warning {reason} {kind} {name}");
    world.wait_until(&format!("an Event says {wanted}"), || {
        world.kubectl(&["--namespace=plant", "get", "events.events.k8s.io", "-o", path]).contains(&wanted)
    });
}

/// Somebody with rights in Kafka.
struct Somebody {
    admin: Admin,
    access: Access,
}

impl Somebody {
    async fn see(&self, topic: &str) -> Option<Topic> {
        let seen = self.admin.observe(&[topic.to_owned()]).await.ok()?;
        seen.topics.get(topic).cloned()
    }

    async fn config(&self, topic: &str) -> Config {
        self.see(topic).await.unwrap().config.unwrap()
    }

    async fn configure(&self, topic: &str, whole: Config) {
        let plan = Plan { configure: vec![(topic.to_owned(), whole)], ..Plan::default() };
        assert_eq!(self.admin.execute(&plan).await[topic], Ok(()));
    }

    /// Waits until a topic has these settings and no others.
    async fn put_back(&self, topic: &str, before: &Config) -> Outcome {
        let began = Instant::now();
        while began.elapsed() < LIMIT {
            if self.see(topic).await.and_then(|seen| seen.config).as_ref() == Some(before) {
                return Outcome { repaired: Some(began.elapsed()), ..Outcome::default() };
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let problem =
            format!("not as before in {LIMIT:?}: {:?} instead of {before:?}", self.see(topic).await);
        Outcome { problem, ..Outcome::default() }
    }

    /// Each setting changed and each removed, all removed, some added.
    async fn changes_settings_of(&self, topic: &str, table: &mut Table) {
        let before = self.config(topic).await;
        assert!(before.len() >= 5, "{before:?}");
        let mut disturbed = Vec::new();
        for (name, value) in &before {
            let other = match (name.as_str(), value.as_str()) {
                ("cleanup.policy", "delete") => "compact".to_owned(),
                ("cleanup.policy", _) => "delete".to_owned(),
                (_, number) => (number.parse::<i64>().unwrap().max(1_000_000) + 1).to_string(),
            };
            let mut changed = before.clone();
            changed.insert(name.clone(), other);
            disturbed.push((format!("{name} changed"), changed));
            let mut removed = before.clone();
            removed.remove(name);
            disturbed.push((format!("{name} removed"), removed));
        }
        disturbed.push(("all settings removed".to_owned(), Config::new()));
        for (name, value) in
            [("compression.type", "zstd"), ("flush.messages", "1"), ("retention.bytes", "1048576")]
        {
            let mut added = before.clone();
            if added.insert(name.to_owned(), value.to_owned()).is_none() {
                disturbed.push((format!("added {name}"), added));
            }
        }
        for (change, whole) in disturbed {
            self.configure(topic, whole).await;
            table.row(&format!("Kafka topic {topic}"), &change, self.put_back(topic, &before).await);
        }
    }

    /// Deletes a topic and waits for it to be there as before; the directory with what it held.
    async fn deletes(&self, topic: &str, table: &mut Table) {
        let (before, held) = (self.config(topic).await, self.directory().await);
        assert!(held.as_ref().is_some_and(|held| held.contains_key("topic/telemetry")), "{held:?}");
        let plan = Plan { delete: vec![topic.to_owned()], ..Plan::default() };
        assert_eq!(self.admin.execute(&plan).await[topic], Ok(()));
        let began = Instant::now();
        let mut outcome = self.put_back(topic, &before).await;
        while outcome.problem.is_empty() && self.directory().await != held {
            outcome.repaired = Some(began.elapsed());
            if began.elapsed() > LIMIT {
                outcome.problem =
                    format!("the directory holds {:?} instead of {held:?}", self.directory().await);
            }
        }
        table.row(&format!("Kafka topic {topic}"), "deleted", outcome);
    }

    async fn directory(&self) -> Option<directory::View> {
        let access = self.access.clone();
        tokio::task::spawn_blocking(move || directory::read(&access, DIRECTORY).ok().map(|held| held.view))
            .await
            .unwrap()
    }
}

async fn a_throttle_stays(somebody: &Somebody) {
    let before = somebody.config("telemetry").await;
    let mut whole = before.clone();
    whole.insert(THROTTLE.to_owned(), "*".to_owned());
    let throttled = whole.clone();
    whole.insert("retention.ms".to_owned(), "5000".to_owned());
    somebody.configure("telemetry", whole).await;
    let outcome = somebody.put_back("telemetry", &throttled).await;
    assert!(outcome.repaired.is_some(), "{outcome:?}");
    somebody.configure("telemetry", before).await;
}

async fn what_is_paused_stays(world: &World, somebody: &Somebody, table: &mut Table) {
    let (before, other) = (somebody.config("telemetry").await, somebody.config("events").await);
    world.kubectl(&["--namespace=plant", "annotate", "tgt/telemetry", "tidegate.io/paused=true"]);
    world.condition("tgt/telemetry", "Reconciling", "Paused");
    let changed: Config = [("retention.ms".to_owned(), "777".to_owned())].into();
    somebody.configure("telemetry", changed.clone()).await;
    // One look after another saw both topics, and put back one of them.
    for _ in 0..2 {
        somebody.configure("events", Config::new()).await;
        let outcome = somebody.put_back("events", &other).await;
        assert!(outcome.repaired.is_some(), "{outcome:?}");
    }
    assert_eq!(somebody.config("telemetry").await, changed);
    world.kubectl(&["--namespace=plant", "annotate", "tgt/telemetry", "tidegate.io/paused-"]);
    let outcome = somebody.put_back("telemetry", &before).await;
    table.row("Kafka topic telemetry", "changed while paused, after unpausing", outcome);
}

async fn the_oldest_has_a_filter_and_the_next_gets_it(world: &World, somebody: &Somebody) {
    let names = ["first", "second"];
    for name in names {
        world.apply(&json!({
            "apiVersion": "tidegate.io/v1alpha1", "kind": "Topic", "metadata": {"name": name, "namespace": "plant"},
            "spec": {"platformRef": {"name": "plant"}, "filters": ["shared/#"]},
        }));
        let reason = if name == "first" { "Ready" } else { "FilterConflict" };
        world.condition(&format!("tgt/{name}"), "Ready", reason);
    }
    assert!(!somebody.directory().await.unwrap().contains_key("topic/second"));
    world.kubectl(&["--namespace=plant", "delete", "tgt/first"]);
    world.condition("tgt/second", "Ready", "Ready");
    let held = somebody.directory().await.unwrap();
    assert!(held.contains_key("topic/second") && !held.contains_key("topic/first"), "{:?}", held.keys());
    // `Retain` is the default: the records stay.
    assert!(somebody.see("first").await.is_some());
}

async fn growth_is_told_and_not_followed(world: &World, somebody: &Somebody) {
    let client: AdminClient<DefaultClientContext> = somebody.access.config().create().unwrap();
    let grown = client.create_partitions(&[NewPartitions::new("events", 5)], &AdminOptions::new()).await;
    grown.unwrap().pop().unwrap().unwrap();
    world.condition("tgt/events", "Ready", "TopicDiffers");
    let held = somebody.directory().await.unwrap();
    let entry: serde_json::Value = serde_json::from_slice(&held["topic/events"]).unwrap();
    assert_eq!(entry["partitions"], 2);
}
