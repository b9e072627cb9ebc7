//! The directory on a real Kafka: a transactional writer, control markers, tombstones, a Kafka that is away.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests, too, end the test

mod support;

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use support::{SOON, entry};
use tidegate_contract::config::KafkaConfig;
use tidegate_contract::directory::{Key, TopicEntry};
use tidegate_contract::fleet::DeviceLimits;
use tidegate_core::kafka::{KafkaReaders, follow_directory};
use tidegate_core::telemetry::{AccessMetrics, KafkaMetrics};
use tidegate_core::{Access, Directory, Principal, Proof, Secret};
use tidegate_testkit::Kafka;
use tidegate_testkit::rights::{PASSWORD, configured, device, fleet};
use tokio_util::sync::CancellationToken;

const TOPIC: &str = "tg-directory";

struct Operator(ThreadedProducer<rdkafka::producer::DefaultProducerContext>);

impl Operator {
    fn new(kafka: &Kafka) -> Self {
        let producer: ThreadedProducer<_> =
            kafka.client_config().set("transactional.id", "operator").create().unwrap();
        producer.init_transactions(SOON).unwrap();
        Self(producer)
    }

    fn send(&self, entry: &TopicEntry) {
        let (key, value) = (Key::Topic(entry.name.clone()).to_string(), serde_json::to_vec(entry).unwrap());
        self.0.send(BaseRecord::to(TOPIC).key(&key).payload(&value)).unwrap();
    }

    fn put(&self, key: &Key, entry: &impl serde::Serialize) {
        let (key, value) = (key.to_string(), serde_json::to_vec(entry).unwrap());
        self.0.send(BaseRecord::to(TOPIC).key(&key).payload(&value)).unwrap();
    }

    fn remove(&self, name: &str) {
        self.remove_key(&Key::Topic(name.to_owned()));
    }

    fn remove_key(&self, key: &Key) {
        let key = key.to_string();
        self.0.send(BaseRecord::<_, [u8]>::to(TOPIC).key(&key)).unwrap();
    }

    fn transaction(&self, work: impl FnOnce(&Self)) {
        self.0.begin_transaction().unwrap();
        work(self);
        self.0.commit_transaction(SOON).unwrap();
    }
}

fn create(kafka: &Kafka) {
    kafka.create_topic(TOPIC, 1, 1, &[("cleanup.policy", "compact")]).unwrap();
}

fn follow(kafka: &KafkaConfig) -> (Directory, CancellationToken) {
    let (directory, closed) = (Directory::empty(), CancellationToken::new());
    let readers = KafkaReaders::new(kafka, "test", KafkaMetrics::default());
    follow_directory(&readers, directory.clone(), closed.clone()).unwrap();
    (directory, closed)
}

fn names(directory: &Directory) -> Vec<String> {
    directory.routes().all().map(|route| route.topic.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_view_is_ready_at_the_committed_end_and_follows_changes() {
    let kafka = Kafka::start(1).unwrap();
    create(&kafka);
    let operator = Operator::new(&kafka);
    operator.transaction(|operator| {
        operator.send(&entry("a", &["a/#"], 3));
        operator.send(&entry("b", &["b/#"], 3));
    });
    operator.transaction(|operator| operator.remove("b"));
    // an aborted transaction and two markers are the last things in the log
    operator.0.begin_transaction().unwrap();
    operator.send(&entry("aborted", &["x/#"], 3));
    operator.0.flush(SOON).unwrap();
    operator.0.abort_transaction(SOON).unwrap();

    let (directory, closed) = follow(&kafka.config());
    tokio::time::timeout(SOON, directory.ready()).await.unwrap();
    assert_eq!(names(&directory), ["a"]);

    let mut changed = directory.changed();
    changed.mark_unchanged();
    operator.transaction(|operator| {
        operator.send(&entry("c", &["c/#"], 3));
        operator.send(&entry("d", &["d/#"], 3));
        operator.remove("a");
    });
    tokio::time::timeout(SOON, changed.changed()).await.unwrap().unwrap();
    // the transaction as a whole, never a part of it
    assert_eq!(names(&directory), ["c", "d"]);
    closed.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_does_not_keep_a_gateway_from_starting() {
    let kafka = Kafka::start(1).unwrap();
    create(&kafka);
    let operator = Operator::new(&kafka);
    operator.transaction(|operator| operator.send(&entry("a", &["a/#"], 3)));
    operator.0.begin_transaction().unwrap();
    operator.send(&entry("open", &["x/#"], 3));
    operator.0.flush(SOON).unwrap();
    let (directory, _closed) = follow(&kafka.config());
    tokio::time::timeout(SOON, directory.ready()).await.unwrap();
    assert_eq!(names(&directory), ["a"]);
    operator.0.commit_transaction(SOON).unwrap();
    support::until("the transaction is seen", || names(&directory) == ["a", "open"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_made_later_is_waited_for() {
    let kafka = Kafka::start(1).unwrap();
    let (directory, _closed) = follow(&kafka.config());
    // no condition tells that it waits: that it is not ready before the topic is there is what matters
    assert!(!directory.is_ready());
    create(&kafka);
    tokio::time::timeout(SOON, directory.ready()).await.unwrap();
    assert!(names(&directory).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kafka_that_goes_away_takes_nothing_from_the_view() {
    let mut kafka = Kafka::start(1).unwrap();
    create(&kafka);
    let operator = Operator::new(&kafka);
    operator.transaction(|operator| operator.send(&entry("a", &["a/#"], 3)));
    let (directory, _closed) = follow(&kafka.config());
    tokio::time::timeout(SOON, directory.ready()).await.unwrap();
    drop(operator);
    kafka.kill(0).unwrap();
    assert_eq!(names(&directory), ["a"]);
    assert!(directory.is_ready());
    kafka.restart(0).unwrap();
    tokio::task::block_in_place(|| Operator::new(&kafka))
        .transaction(|operator| operator.send(&entry("b", &["b/#"], 3)));
    support::until("the change is seen", || names(&directory) == ["a", "b"]).await;
}

/// From the record in Kafka to the device that has to go.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_the_operator_removes_is_told_to_go_within_two_seconds() {
    let kafka = Kafka::start(1).unwrap();
    create(&kafka);
    let operator = Operator::new(&kafka);
    let principal = Principal::parse("meters/m1").unwrap();
    let (fleet_key, device_key) = (Key::Fleet("meters".to_owned()), Key::Device(principal.clone()));
    operator.transaction(|operator| {
        // the device first: what it may do comes with its fleet
        operator.put(&device_key, &device(PASSWORD).unwrap());
        operator.put(&fleet_key, &fleet(&["a/{device}"], &[], DeviceLimits::default()));
    });
    let (directory, closed) = follow(&kafka.config());
    tokio::time::timeout(SOON, directory.ready()).await.unwrap();
    let access = Access::new(directory.roster().clone(), AccessMetrics::default());
    let proof = Proof::Password { username: "meters/m1", password: Secret(PASSWORD.as_bytes()) };
    let admit = || access.admit(std::net::Ipv4Addr::LOCALHOST.into(), proof, None);
    let admission = admit().await.unwrap();
    assert_eq!(admission.principal(), &principal);

    let begun = std::time::Instant::now();
    let entry = fleet(&["a/{device}"], &[], DeviceLimits::default());
    operator.transaction(|operator| operator.put(&fleet_key, &configured(entry, "first")));
    tokio::time::timeout(SOON, admission.configured(None)).await.unwrap();
    println!("another desired document after {:?}", begun.elapsed());
    assert_eq!(admission.configuration().unwrap().json(), br#"{"v":"first"}"#);

    let begun = std::time::Instant::now();
    operator.transaction(|operator| operator.remove_key(&device_key));
    tokio::time::timeout(SOON, admission.ended()).await.unwrap();
    assert!(begun.elapsed() < std::time::Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(admit().await.is_err());
    closed.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_comes_later_is_read_too() {
    let kafka = Kafka::start(1).unwrap();
    create(&kafka);
    let (directory, _closed) = follow(&kafka.config());
    tokio::time::timeout(SOON, directory.ready()).await.unwrap();
    let admin: AdminClient<_> = kafka.client_config().create().unwrap();
    admin.create_partitions(&[NewPartitions::new(TOPIC, 2)], &AdminOptions::new()).await.unwrap();
    let (key, value) =
        (Key::Topic("a".to_owned()).to_string(), serde_json::to_vec(&entry("a", &["a/#"], 3)).unwrap());
    let producer: ThreadedProducer<rdkafka::producer::DefaultProducerContext> =
        kafka.client_config().create().unwrap();
    support::until("the partition is there", || {
        let metadata = producer.client().fetch_metadata(Some(TOPIC), SOON).unwrap();
        metadata.topics().iter().any(|topic| topic.partitions().len() == 2)
    })
    .await;
    producer.send(BaseRecord::to(TOPIC).partition(1).key(&key).payload(&value)).unwrap();
    support::until("the new partition is read", || names(&directory) == ["a"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_somebody_deletes_takes_no_route_and_is_read_anew_when_it_is_back() {
    let kafka = Kafka::start(1).unwrap();
    create(&kafka);
    let operator = Operator::new(&kafka);
    for name in ["a", "b", "c"] {
        operator.transaction(|operator| operator.send(&entry(name, &["x/#"], 3)));
    }
    let (directory, _closed) = follow(&kafka.config());
    support::until("all is read", || names(&directory) == ["a", "b", "c"]).await;

    drop(operator);
    let admin: AdminClient<_> = kafka.client_config().create().unwrap();
    admin.delete_topics(&[TOPIC], &AdminOptions::new()).await.unwrap().pop().unwrap().unwrap();
    let client = admin.inner();
    support::until("it is gone", || {
        let metadata = client.fetch_metadata(None, SOON).unwrap();
        metadata.topics().iter().all(|topic| topic.name() != TOPIC)
    })
    .await;
    assert_eq!(names(&directory), ["a", "b", "c"]);
    create(&kafka);
    // As the operator writes it: what it held, at once; fewer records than there were, and then a change.
    let operator = tokio::task::block_in_place(|| Operator::new(&kafka));
    operator.transaction(|operator| {
        operator.send(&entry("a", &["x/#"], 3));
        operator.send(&entry("b", &["x/#"], 3));
    });
    support::until("it is read anew", || names(&directory) == ["a", "b"]).await;
    operator.transaction(|operator| operator.send(&entry("d", &["x/#"], 3)));
    support::until("changes are seen", || names(&directory) == ["a", "b", "d"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_anew_with_as_many_records_as_before_is_read_anew() {
    let kafka = Kafka::start(1).unwrap();
    create(&kafka);
    let operator = Operator::new(&kafka);
    operator.transaction(|operator| operator.send(&entry("a", &["x/#"], 3)));
    let (directory, _closed) = follow(&kafka.config());
    support::until("all is read", || names(&directory) == ["a"]).await;
    drop(operator);
    let admin: AdminClient<_> = kafka.client_config().create().unwrap();
    admin.delete_topics(&[TOPIC], &AdminOptions::new()).await.unwrap().pop().unwrap().unwrap();
    support::until("it can be made anew", || {
        kafka.create_topic(TOPIC, 1, 1, &[("cleanup.policy", "compact")]).is_ok()
    })
    .await;
    let operator = tokio::task::block_in_place(|| Operator::new(&kafka));
    operator.transaction(|operator| operator.send(&entry("b", &["x/#"], 3)));
    support::until("it is read anew", || names(&directory) == ["b"]).await;
}
