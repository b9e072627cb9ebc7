//! History reads on a real Kafka.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests, too, end the test

mod support;

use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use std::time::{Duration, Instant};
use support::{SOON, address, directory, entry, publisher, record, route};
use tidegate_core::history::HistoryLimits;
use tidegate_core::kafka::KafkaReaders;
use tidegate_core::telemetry::{HistoryMetrics, KafkaMetrics};
use tidegate_core::{Directory, History, HistoryError};
use tidegate_testkit::Kafka;

fn history(kafka: &Kafka, directory: &Directory, limits: HistoryLimits) -> History {
    let readers = KafkaReaders::new(&kafka.config(), "test", KafkaMetrics::default());
    History::start(&readers, directory, limits, HistoryMetrics::default()).unwrap()
}

async fn last(history: &History, at: &str, count: usize) -> (Vec<String>, bool) {
    let read = history.last(&address(at), count).await.unwrap();
    let texts = read.records.iter().map(|stored| String::from_utf8(stored.record.payload.to_vec()).unwrap());
    (texts.collect(), read.truncated)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_sees_everything_that_was_acknowledged_before_it() {
    let kafka = Kafka::shared().unwrap();
    kafka.create_topic("t0", 3, 1, &[]).unwrap();
    let directory = directory(&[entry("t0", &["t0/#"], 3)]);
    let (publisher, _) = publisher(&kafka.config(), &[]);
    let history = history(kafka, &directory, HistoryLimits::default());
    assert_eq!(last(&history, "t0/0", 1).await, (vec![], false));
    let mut times = Vec::new();
    for n in 0..100 {
        let at = format!("t0/{}", n % 10);
        let place = publisher
            .publish_once(&route(&directory, &at), &record(&at, n.to_string()))
            .await
            .unwrap()
            .unwrap();
        let begun = Instant::now();
        let read = history.last(&address(&at), 1).await.unwrap();
        times.push(begun.elapsed());
        assert_eq!(read.records[0].place, place);
        assert_eq!(read.records[0].record.metadata.protocol, "test");
    }
    times.sort();
    println!("reading the last of an address: median {:?}, worst {:?}", times[50], times[99]);
    assert_eq!(last(&history, "t0/3", 3).await, (vec!["73".into(), "83".into(), "93".into()], false));
    assert_eq!(last(&history, "t0/3", 500).await.0.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn control_markers_at_the_end_and_far_older_records_are_no_obstacle() {
    let kafka = Kafka::shared().unwrap();
    kafka.create_topic("t1", 1, 1, &[]).unwrap();
    let directory = directory(&[entry("t1", &["t1/#"], 1)]);
    let history = history(
        kafka,
        &directory,
        HistoryLimits { time: Duration::from_secs(20), ..HistoryLimits::default() },
    );
    let producer: ThreadedProducer<_> =
        kafka.client_config().set("transactional.id", "app").create().unwrap();
    producer.init_transactions(SOON).unwrap();
    producer.begin_transaction().unwrap();
    producer.send(BaseRecord::to("t1").key("t1/old").payload("old")).unwrap();
    for n in 0..5000 {
        producer.send(BaseRecord::to("t1").key("t1/busy").payload(&format!("{n}"))).unwrap();
    }
    producer.commit_transaction(SOON).unwrap();
    assert_eq!(last(&history, "t1/busy", 2).await, (vec!["4998".into(), "4999".into()], false));
    assert_eq!(last(&history, "t1/old", 1).await, (vec!["old".into()], false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_finds_too_little_in_ten_thousand_records_says_truncated() {
    let kafka = Kafka::shared().unwrap();
    kafka.create_topic("t2", 1, 1, &[]).unwrap();
    let directory = directory(&[entry("t2", &["t2/#"], 1)]);
    let history = history(
        kafka,
        &directory,
        HistoryLimits { time: Duration::from_secs(20), ..HistoryLimits::default() },
    );
    let producer: ThreadedProducer<_> = kafka.client_config().create().unwrap();
    producer.send(BaseRecord::to("t2").key("t2/old").payload("old")).unwrap();
    for n in 0..11_000 {
        producer.send(BaseRecord::to("t2").key("t2/busy").payload(&format!("{n}"))).unwrap();
    }
    producer.flush(SOON).unwrap();
    assert_eq!(last(&history, "t2/old", 1).await, (vec![], true));
    assert_eq!(last(&history, "t2/busy", 1).await, (vec!["10999".into()], false));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_kafka_is_away_a_read_fails_within_its_bounds() {
    let mut kafka = Kafka::start(1).unwrap();
    kafka.create_topic("t", 1, 1, &[]).unwrap();
    let directory = directory(&[entry("t", &["t/#"], 1)]);
    let history = history(&kafka, &directory, HistoryLimits::default());
    assert_eq!(last(&history, "t/a", 1).await, (vec![], false));
    kafka.kill(0).unwrap();
    let begun = Instant::now();
    assert_eq!(history.last(&address("t/a"), 1).await.unwrap_err(), HistoryError::Unavailable);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}
