//! The publisher's own promises, on Kafka in memory.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests, too, end the test

mod support;

use std::time::Duration;
use support::{SOON, completions, record};
use tidegate_contract::config::Limits;
use tidegate_core::publisher::PublishLimits;
use tidegate_core::{PublishError, PublishFailure, Services};
use tidegate_testkit::MemoryKafka;
use tidegate_testkit::memory::Bounds;

fn kafka() -> MemoryKafka {
    let kafka = MemoryKafka::new();
    kafka.topic("t", &["t/#"], 4);
    kafka
}

fn bounded(kafka: &MemoryKafka, publish: PublishLimits) -> Services {
    kafka.services_with(Bounds { publish, ..Bounds::default() }, Limits::default()).unwrap()
}

fn route(services: &Services) -> std::sync::Arc<tidegate_contract::Route> {
    support::route(&services.directory, "t/a")
}

/// Whether a future has nothing to say yet.
async fn is_pending(future: impl Future<Output = ()>) -> bool {
    tokio::time::timeout(Duration::from_millis(20), future).await.is_err()
}

#[tokio::test]
async fn nothing_is_completed_before_kafka_confirmed_it() {
    let kafka = kafka();
    let services = kafka.services().unwrap();
    kafka.hold();
    let mut handle = services.publisher.connection();
    handle.publish(&route(&services), &record("t/a", "x"), 7).unwrap();
    let mut out = Vec::new();
    assert!(is_pending(handle.completed(&mut out)).await);
    assert_eq!((handle.in_flight(), kafka.held()), (1, 1));
    kafka.release(1);
    let done = completions(&mut handle, 1).await;
    assert_eq!(done[0].token, 7);
    assert_eq!(done[0].result.as_ref().unwrap().offset, 0);
    assert_eq!(handle.in_flight(), 0);
}

#[tokio::test]
async fn after_one_failure_nothing_on_the_connection_is_acknowledged() {
    let kafka = kafka();
    let services = kafka.services().unwrap();
    kafka.hold();
    let mut handle = services.publisher.connection();
    let mut other = services.publisher.connection();
    for token in 0..4 {
        handle.publish(&route(&services), &record("t/a", "x"), token).unwrap();
    }
    other.publish(&route(&services), &record("t/a", "x"), 9).unwrap();
    kafka.release(1);
    kafka.fail(PublishFailure::TimedOut, true);
    kafka.release(3);
    let results: Vec<_> =
        completions(&mut handle, 4).await.into_iter().map(|done| done.result.map(drop)).collect();
    let after = Err(PublishFailure::AfterFailure);
    assert_eq!(results, [Ok(()), Err(PublishFailure::TimedOut), after, after]);
    assert_eq!(handle.publish(&route(&services), &record("t/a", "x"), 5), Err(PublishError::Failed));
    // another connection goes on
    assert!(completions(&mut other, 1).await[0].result.is_ok());
}

#[tokio::test]
async fn at_its_bound_a_connection_waits_until_completions_are_taken() {
    let kafka = kafka();
    let services = bounded(&kafka, PublishLimits { connection_messages: 2, ..PublishLimits::default() });
    kafka.hold();
    let mut handle = services.publisher.connection();
    handle.publish(&route(&services), &record("t/a", "x"), 0).unwrap();
    handle.publish(&route(&services), &record("t/a", "x"), 1).unwrap();
    assert!(!handle.has_room());
    assert_eq!(handle.publish(&route(&services), &record("t/a", "x"), 2), Err(PublishError::Budget));
    kafka.release(2);
    let room = handle.room();
    completions(&mut handle, 2).await;
    tokio::time::timeout(SOON, room).await.unwrap();
    handle.publish(&route(&services), &record("t/a", "x"), 2).unwrap();
}

#[tokio::test]
async fn the_process_has_a_bound_of_its_own_and_wakes_those_who_wait() {
    let kafka = kafka();
    let services = bounded(&kafka, PublishLimits { messages: 3, ..PublishLimits::default() });
    kafka.hold();
    let mut one = services.publisher.connection();
    for token in 0..3 {
        one.publish(&route(&services), &record("t/a", "x"), token).unwrap();
    }
    let mut two = services.publisher.connection();
    assert_eq!(two.publish(&route(&services), &record("t/a", "x"), 0), Err(PublishError::Budget));
    assert!(is_pending(two.room()).await);
    let room = tokio::spawn(two.room());
    kafka.release(1);
    tokio::time::timeout(SOON, room).await.unwrap().unwrap();
    two.publish(&route(&services), &record("t/a", "x"), 0).unwrap();
    assert_eq!(services.publisher.in_flight(), 3);
}

#[tokio::test]
async fn a_partition_that_is_away_does_not_take_everything() {
    let kafka = kafka();
    let services = bounded(&kafka, PublishLimits { partition_messages: 1, ..PublishLimits::default() });
    let partition = |text: &str| tidegate_core::partition_of(text.as_bytes(), 4);
    let other = (0..100).map(|n| format!("t/{n}")).find(|text| partition(text) != partition("t/a")).unwrap();
    kafka.hold();
    let mut handle = services.publisher.connection();
    handle.publish(&route(&services), &record("t/a", "x"), 0).unwrap();
    assert_eq!(handle.publish(&route(&services), &record("t/a", "x"), 1), Err(PublishError::Budget));
    // the refusal is remembered: no busy loop of "has room" and "budget"
    assert!(!handle.has_room());
    let room = handle.room();
    let mut second = services.publisher.connection();
    second.publish(&route(&services), &record(&other, "x"), 0).unwrap();
    kafka.release(1);
    tokio::time::timeout(SOON, room).await.unwrap();
    assert!(handle.has_room());
    handle.publish(&route(&services), &record("t/a", "x"), 1).unwrap();
}

#[tokio::test]
async fn a_record_that_the_topic_cannot_take_is_refused_before_kafka() {
    let kafka = kafka();
    let services = kafka.services().unwrap();
    let mut handle = services.publisher.connection();
    let error = handle.publish(&route(&services), &record("t/a", vec![0; 1_114_112]), 0).unwrap_err();
    assert!(matches!(error, PublishError::TooLarge { limit: 1_114_112, .. }), "{error:?}");
    handle.publish(&route(&services), &record("t/a", vec![0; 1_048_576]), 0).unwrap();
}

#[tokio::test]
async fn a_dropped_connection_gives_its_budget_back_when_kafka_has_answered() {
    let kafka = kafka();
    let services = kafka.services().unwrap();
    kafka.hold();
    let mut handle = services.publisher.connection();
    handle.publish(&route(&services), &record("t/a", "x"), 0).unwrap();
    drop(handle);
    assert_eq!(services.publisher.in_flight(), 1);
    kafka.release(1);
    assert_eq!(services.publisher.in_flight(), 0);
}
