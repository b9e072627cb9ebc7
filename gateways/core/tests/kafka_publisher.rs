//! The publisher on a real Kafka.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests, too, end the test

mod support;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::{SOON, completions, directory, entry, publisher, record, route};
use tidegate_core::publisher::PublishLimits;
use tidegate_core::{PublishError, PublishFailure};
use tidegate_testkit::Kafka;
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledged_record_is_stored_where_the_acknowledgement_says() {
    let kafka = Kafka::shared().unwrap();
    kafka.create_topic("telemetry", 12, 1, &[]).unwrap();
    let directory = directory(&[entry("telemetry", &["sites/#"], 12)]);
    let (publisher, metrics) = publisher(&kafka.config(), &[]);
    let mut handle = publisher.connection();
    for token in 0..100_u64 {
        let record = record(&format!("sites/{}", token % 10), token.to_string());
        handle.publish(&route(&directory, "sites/x"), &record, token).unwrap();
        if handle.in_flight() == 50 {
            let mut tokens: Vec<_> =
                completions(&mut handle, 50).await.iter().map(|done| done.token).collect();
            tokens.sort_unstable();
            assert_eq!(tokens, (token - 49..=token).collect::<Vec<_>>());
        }
    }
    assert_eq!(handle.in_flight(), 0);
    assert_eq!(publisher.in_flight(), 0);

    // once more, one by one, with the place compared
    for token in 0..20_u64 {
        let record = record(&format!("sites/{token}"), format!("again {token}"));
        let place = publisher.publish_once(&route(&directory, "sites/x"), &record).await.unwrap().unwrap();
        let held = kafka.read_all("telemetry").unwrap();
        let at = held
            .iter()
            .find(|held| held.partition == place.partition && held.offset == place.offset)
            .unwrap();
        assert_eq!(
            (at.key.as_str(), at.value.as_slice()),
            (record.address.as_str(), record.payload.as_ref())
        );
        // any Kafka client finds an address's partition
        assert_eq!(place.partition, tidegate_core::partition_of(record.address.as_str().as_bytes(), 12));
    }
    assert_eq!(kafka.read_all("telemetry").unwrap().len(), 120);
    support::until("Kafka is seen", || metrics.is_available()).await;
}

/// librdkafka's own murmur2 partitioner and ours agree, or an application would look elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn our_partition_is_the_one_that_kafkas_clients_choose() {
    use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
    let kafka = Kafka::shared().unwrap();
    kafka.create_topic("hashed", 12, 1, &[]).unwrap();
    let producer: ThreadedProducer<_> =
        kafka.client_config().set("partitioner", "murmur2_random").create().unwrap();
    for n in 0..200 {
        producer.send(BaseRecord::to("hashed").key(&format!("sites/{n}/工場")).payload("x")).unwrap();
    }
    producer.flush(SOON).unwrap();
    let held = kafka.read_all("hashed").unwrap();
    assert_eq!(held.len(), 200);
    for each in held {
        assert_eq!(tidegate_core::partition_of(each.key.as_bytes(), 12), each.partition, "{}", each.key);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_kafka_is_away_nothing_is_acknowledged_and_it_works_again_when_it_returns() {
    let mut kafka = Kafka::start(1).unwrap();
    kafka.create_topic("t", 3, 1, &[]).unwrap();
    let directory = directory(&[entry("t", &["t/#"], 3)]);
    let hasty = PublishLimits { answer: Duration::from_secs(3), ..PublishLimits::default() };
    let (publisher, metrics) = support::publisher_within(&kafka.config(), &[], hasty);
    let target = route(&directory, "t/a");
    publisher.publish_once(&target, &record("t/a", "before")).await.unwrap().unwrap();

    kafka.kill(0).unwrap();
    let mut handle = publisher.connection();
    let begun = Instant::now();
    for token in 0..3 {
        handle.publish(&target, &record("t/a", "away"), token).unwrap();
    }
    let failed = completions(&mut handle, 3).await;
    let took = begun.elapsed();
    assert!(failed.iter().all(|completion| completion.result.is_err()), "{failed:?}");
    assert_eq!(failed[0].result, Err(PublishFailure::TimedOut));
    assert!(took < Duration::from_secs(8), "the answer is bounded: {took:?}");
    assert_eq!(handle.publish(&target, &record("t/a", "later"), 9), Err(PublishError::Failed));
    support::until("Kafka is missed", || !metrics.is_available()).await;

    kafka.restart(0).unwrap();
    support::until("Kafka is seen again", || metrics.is_available()).await;
    let again = tokio::time::timeout(SOON, async {
        loop {
            if let Ok(Ok(place)) = publisher.publish_once(&target, &record("t/a", "after")).await {
                return place;
            }
        }
    });
    let place = again.await.unwrap();
    let held = kafka.read_all("t").unwrap();
    assert!(held.iter().any(|held| held.offset == place.offset && held.value == b"after"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_costs_nothing_that_was_acknowledged() {
    let mut kafka = Kafka::start(3).unwrap();
    kafka.create_topic("t", 3, 3, &[]).unwrap();
    let directory = directory(&[entry("t", &["t/#"], 3)]);
    let (publisher, _) = publisher(&kafka.config(), &[]);
    let target = route(&directory, "t/a");
    let mut acknowledged = HashSet::new();
    let mut longest = Duration::ZERO;
    let leader = kafka.leader("t", 0).unwrap();
    for n in 0..600 {
        if n == 200 {
            kafka.kill(leader).unwrap();
        }
        let payload = n.to_string();
        let begun = Instant::now();
        if let Ok(Ok(_)) =
            publisher.publish_once(&target, &record(&format!("t/{}", n % 20), payload.clone())).await
        {
            acknowledged.insert(payload);
            longest = longest.max(begun.elapsed());
        }
    }
    println!("acknowledged {} of 600, the longest wait {longest:?}", acknowledged.len());
    assert!(acknowledged.len() >= 590, "acknowledged {}", acknowledged.len());
    let held: HashSet<_> =
        kafka.read_all("t").unwrap().into_iter().map(|held| String::from_utf8(held.value).unwrap()).collect();
    let lost: Vec<_> = acknowledged.difference(&held).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
}

/// Each device sends its next number when the one before is acknowledged, and the same one again when it is not.
#[tokio::test(flavor = "multi_thread")]
async fn after_all_brokers_died_at_once_producers_recover_by_themselves_and_nothing_acknowledged_is_lost() {
    const DEVICES: usize = 6;
    let mut kafka = Kafka::start(3).unwrap();
    kafka.create_topic("t", 3, 3, &[]).unwrap();
    let directory = directory(&[entry("t", &["t/#"], 3)]);
    let (publisher, _) = publisher(&kafka.config(), &[]);
    let next: Arc<[AtomicUsize; DEVICES]> = Arc::default();
    let stop = CancellationToken::new();
    let mut tasks = tokio::task::JoinSet::new();
    for device in 0..DEVICES {
        let (publisher, next, stop) = (publisher.clone(), Arc::clone(&next), stop.clone());
        let at = format!("t/{device}");
        let target = route(&directory, &at);
        tasks.spawn(async move {
            while !stop.is_cancelled() {
                let number = next[device].load(Ordering::Relaxed);
                if let Ok(Ok(_)) = publisher.publish_once(&target, &record(&at, number.to_string())).await {
                    next[device].store(number + 1, Ordering::Relaxed);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
    let more = async |count: usize| {
        let at_least = next.iter().map(|next| next.load(Ordering::Relaxed) + count).collect::<Vec<_>>();
        support::until("every device is answered", || {
            next.iter().zip(&at_least).all(|(next, least)| next.load(Ordering::Relaxed) >= *least)
        })
        .await;
    };
    more(20).await;
    for _ in 0..2 {
        for broker in 0..3 {
            kafka.kill(broker).unwrap();
        }
        for broker in 0..3 {
            kafka.restart(broker).unwrap();
        }
        support::until("every partition has a leader", || (0..3).all(|p| kafka.leader("t", p).is_ok())).await;
        let begun = Instant::now();
        more(1).await;
        println!("every device is answered {:.1} s after there are leaders", begun.elapsed().as_secs_f64());
        more(20).await;
    }
    stop.cancel();
    tasks.join_all().await;

    let mut held = vec![Vec::new(); DEVICES];
    for each in kafka.read_all("t").unwrap() {
        let device: usize = each.key.trim_start_matches("t/").parse().unwrap();
        let number: usize = std::str::from_utf8(&each.value).unwrap().parse().unwrap();
        // first occurrences are what order is judged by
        if !held[device].contains(&number) {
            held[device].push(number);
        }
    }
    for (device, held) in held.iter().enumerate() {
        let acknowledged = next[device].load(Ordering::Relaxed);
        assert!(held.len() >= acknowledged && held.iter().copied().eq(0..held.len()), "{device}: {held:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_created_a_moment_ago_is_found() {
    let kafka = Kafka::shared().unwrap();
    let directory = directory(&[entry("new", &["new/#"], 3)]);
    let (publisher, _) = publisher(&kafka.config(), &[]);
    let mut handle = publisher.connection();
    handle.publish(&route(&directory, "new/a"), &record("new/a", "x"), 1).unwrap();
    kafka.create_topic("new", 3, 1, &[]).unwrap();
    assert!(completions(&mut handle, 1).await[0].result.is_ok());
}

/// Kafka refuses a batch as a whole that is larger than the topic's limit: small limits must not meet our batches.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_takes_only_small_records_takes_many_at_once() {
    let kafka = Kafka::shared().unwrap();
    kafka.create_topic("small", 1, 1, &[("max.message.bytes", "2048")]).unwrap();
    let mut small = entry("small", &["small/#"], 1);
    small.max_message_bytes = 2048;
    let directory = directory(&[small]);
    let (publisher, _) = publisher(&kafka.config(), &[("linger.ms", "100")]);
    let mut handle = publisher.connection();
    for token in 0..50_u8 {
        // lz4 cannot make noise smaller
        let noise: Vec<_> =
            (0..500_u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[2] ^ token).collect();
        handle.publish(&route(&directory, "small/a"), &record("small/a", noise), token.into()).unwrap();
    }
    let done = completions(&mut handle, 50).await;
    assert!(done.iter().all(|completion| completion.result.is_ok()), "{done:?}");
}
