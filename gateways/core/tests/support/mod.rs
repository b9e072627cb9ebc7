//! What core's integration tests share.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests; each binary uses a part

use std::sync::Arc;
use std::time::Duration;
use tidegate_contract::directory::TopicEntry;
use tidegate_contract::{Address, Filter, Route, Routes, config::KafkaConfig};
use tidegate_core::kafka::{KafkaReaders, KafkaSink};
use tidegate_core::publisher::PublishLimits;
use tidegate_core::telemetry::{KafkaMetrics, PublisherMetrics, TailMetrics};
use tidegate_core::{
    Completion, Delivery, Directory, Metadata, PublishHandle, Publisher, Record, Tail, TailEvent, TailSession,
};

/// What must happen happens within this.
pub const SOON: Duration = Duration::from_secs(30);

pub fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

pub fn filter(text: &str) -> Filter {
    Filter::parse(text).unwrap()
}

pub fn record(at: &str, payload: impl Into<Vec<u8>>) -> Record {
    let metadata = Metadata { device: "meters/1".to_owned(), protocol: "test".into(), ..Metadata::default() };
    Record { address: address(at), payload: payload.into().into(), metadata }
}

pub fn entry(name: &str, filters: &[&str], partitions: i32) -> TopicEntry {
    TopicEntry {
        name: name.to_owned(),
        kafka_name: name.to_owned(),
        filters: filters.iter().map(|&each| each.to_owned()).collect(),
        partitions,
        max_message_bytes: 1_114_112,
    }
}

pub fn directory(entries: &[TopicEntry]) -> Directory {
    Directory::fixed(Routes::new(entries))
}

pub fn route(directory: &Directory, at: &str) -> Arc<Route> {
    Arc::clone(directory.routes().route(&address(at)).unwrap())
}

pub fn publisher(kafka: &KafkaConfig, overrides: &[(&str, &str)]) -> (Publisher, KafkaMetrics) {
    publisher_within(kafka, overrides, PublishLimits::default())
}

pub fn publisher_within(
    kafka: &KafkaConfig,
    overrides: &[(&str, &str)],
    limits: PublishLimits,
) -> (Publisher, KafkaMetrics) {
    let metrics = KafkaMetrics::default();
    let sink =
        KafkaSink::with_overrides(kafka, overrides, metrics.clone(), PublisherMetrics::default()).unwrap();
    (Publisher::new(Arc::new(sink), limits, PublisherMetrics::default()), metrics)
}

pub fn tail(kafka: &KafkaConfig, directory: &Directory, limits: tidegate_core::tail::TailLimits) -> Tail {
    let readers = KafkaReaders::new(kafka, "test", KafkaMetrics::default());
    Tail::start(&readers, directory, limits, TailMetrics::default()).unwrap()
}

pub async fn completions(handle: &mut PublishHandle, count: usize) -> Vec<Completion> {
    let mut all = Vec::new();
    while all.len() < count {
        tokio::time::timeout(SOON, handle.completed(&mut all)).await.expect("no completion");
    }
    all
}

pub async fn delivery(session: &mut TailSession) -> Delivery {
    match tokio::time::timeout(SOON, session.next()).await.expect("nothing was delivered") {
        TailEvent::Delivery(delivery) => delivery,
        TailEvent::Gap(gap) => panic!("a gap: {gap:?}"),
    }
}

pub async fn payloads(session: &mut TailSession, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(String::from_utf8(delivery(session).await.record.payload.to_vec()).unwrap());
    }
    all
}

/// Waits for a condition that another thread or Kafka brings about.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let done = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, done).await.unwrap_or_else(|_| panic!("it did not happen: {what}"));
}
