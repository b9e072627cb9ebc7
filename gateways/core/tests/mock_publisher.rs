//! The publisher against librdkafka's mock cluster, which answers with the errors that a test asks for.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests, too, end the test

mod support;

use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use std::sync::Arc;
use std::time::Duration;
use support::{completions, directory, entry, record, route};
use tidegate_core::kafka::KafkaSink;
use tidegate_core::publisher::PublishLimits;
use tidegate_core::telemetry::{KafkaMetrics, PublisherMetrics};
use tidegate_core::{PublishError, PublishFailure, Publisher, Telemetry};
use tidegate_testkit::MockKafka;

fn publisher(kafka: &MockKafka) -> (Publisher, Telemetry) {
    publisher_with(kafka, PublishLimits::default())
}

fn publisher_with(kafka: &MockKafka, limits: PublishLimits) -> (Publisher, Telemetry) {
    let telemetry = Telemetry::new();
    let metrics = telemetry.register(PublisherMetrics::new);
    let of_kafka = telemetry.register(KafkaMetrics::new);
    let overrides = [("statistics.interval.ms", "100")];
    let sink = KafkaSink::with_overrides(&kafka.config(), &overrides, of_kafka, metrics.clone()).unwrap();
    (Publisher::new(Arc::new(sink), limits, metrics), telemetry)
}

/// Devices that do not wait long.
fn hasty() -> PublishLimits {
    PublishLimits { answer: Duration::from_secs(3), ..PublishLimits::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passing_error_is_tried_again_before_anybody_hears_of_it() {
    let kafka = MockKafka::start(3).unwrap();
    kafka.create_topic("t", 1, 3).unwrap();
    let directory = directory(&[entry("t", &["t/#"], 1)]);
    let (publisher, _) = publisher(&kafka);
    kafka.fail_produce(&[
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    ]);
    let place =
        publisher.publish_once(&route(&directory, "t/a"), &record("t/a", "x")).await.unwrap().unwrap();
    assert_eq!(place.partition, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_by_kafka_is_a_failure_and_never_an_acknowledgement() {
    let kafka = MockKafka::start(1).unwrap();
    kafka.create_topic("t", 1, 1).unwrap();
    let directory = directory(&[entry("t", &["t/#"], 1)]);
    let (publisher, _) = publisher(&kafka);
    kafka.fail_produce(&[RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED]);
    let refused = publisher.publish_once(&route(&directory, "t/a"), &record("t/a", "x")).await.unwrap();
    assert!(refused.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fatal_error_closes_publishing_connections_and_renews_the_producer() {
    let kafka = MockKafka::start(1).unwrap();
    kafka.create_topic("t", 1, 1).unwrap();
    let directory = directory(&[entry("t", &["t/#"], 1)]);
    let (publisher, telemetry) = publisher(&kafka);
    let target = route(&directory, "t/a");
    publisher.publish_once(&target, &record("t/a", "before")).await.unwrap().unwrap();

    kafka.fail_produce(&[RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER]);
    let mut handle = publisher.connection();
    handle.publish(&target, &record("t/a", "fatal"), 1).unwrap();
    let done = completions(&mut handle, 1).await;
    assert!(done[0].result.is_err());
    assert_eq!(handle.publish(&target, &record("t/a", "later"), 2), Err(PublishError::Failed));

    support::until("the producer is renewed", || {
        telemetry.encode().contains("tidegate_publish_producer_rebuilt_total 1\n")
    })
    .await;
    let again = async {
        loop {
            match publisher.publish_once(&target, &record("t/a", "after")).await {
                Ok(result) => return result,
                Err(PublishError::Unavailable) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    tokio::time::timeout(support::SOON, again).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kafka_whose_brokers_are_up_and_confirm_nothing_is_away() {
    let kafka = MockKafka::start(1).unwrap();
    kafka.create_topic("t", 1, 1).unwrap();
    let directory = directory(&[entry("t", &["t/#"], 1)]);
    let (publisher, telemetry) = publisher_with(&kafka, hasty());
    let says = |line: &str| telemetry.encode().lines().any(|each| each == line);
    support::until("Kafka is seen", || says("tidegate_kafka_available 1")).await;

    let target = route(&directory, "t/a");
    kafka.fail_produce(&[RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS; 1_000]);
    let refused = publisher.publish_once(&target, &record("t/a", "x")).await.unwrap();
    assert_eq!(refused.unwrap_err(), PublishFailure::TimedOut);
    assert!(says("tidegate_kafka_available 0"));

    kafka.cluster().clear_request_errors(RDKafkaApiKey::Produce);
    publisher.publish_once(&target, &record("t/a", "y")).await.unwrap().unwrap();
    assert!(says("tidegate_kafka_available 1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_is_fatal_at_once_is_renewed_once_a_second() {
    let kafka = MockKafka::start(1).unwrap();
    kafka.create_topic("t", 1, 1).unwrap();
    let directory = directory(&[entry("t", &["t/#"], 1)]);
    let (publisher, telemetry) = publisher(&kafka);
    let target = route(&directory, "t/a");
    publisher.publish_once(&target, &record("t/a", "before")).await.unwrap().unwrap();
    let begun = std::time::Instant::now();
    for count in 1..=3 {
        kafka.fail_produce(&[RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER]);
        let rebuilt = format!("tidegate_publish_producer_rebuilt_total {count}\n");
        let fatal = async {
            while !telemetry.encode().contains(&rebuilt) {
                let _ = publisher.publish_once(&target, &record("t/a", "fatal")).await;
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(support::SOON, fatal).await.unwrap();
    }
    // the first renewal is at once, the third waits for the second one, which waited for its second
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
}
