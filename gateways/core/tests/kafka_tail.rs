//! The tail on a real Kafka.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests, too, end the test

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::{SOON, delivery, directory, entry, filter, payloads, publisher, record, route, tail};
use tidegate_contract::Routes;
use tidegate_core::tail::TailLimits;
use tidegate_core::{Publisher, Reliability, SessionOptions, TailEvent};
use tidegate_testkit::Kafka;

const RELIABLE: Reliability = Reliability::Reliable;

async fn write(publisher: &Publisher, directory: &tidegate_core::Directory, at: &str, payload: &str) {
    publisher.publish_once(&route(directory, at), &record(at, payload)).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wildcard_gets_every_partition_and_each_address_in_order() {
    let kafka = Kafka::shared().unwrap();
    kafka.create_topic("t0", 12, 1, &[]).unwrap();
    kafka.create_topic("u", 3, 1, &[]).unwrap();
    let directory = directory(&[entry("t0", &["t0/#"], 12), entry("u", &["u/#"], 3)]);
    let (publisher, _) = publisher(&kafka.config(), &[]);
    let tail = tail(&kafka.config(), &directory, TailLimits::default());
    write(&publisher, &directory, "t0/1", "before").await;
    let mut session = tail.session(SessionOptions::default());
    session.subscribe(filter("#"), RELIABLE).await.unwrap();
    let mut written: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut handle = publisher.connection();
    for n in 0..300_u64 {
        let at = format!("{}/{}", if n % 3 == 0 { "u" } else { "t0" }, n % 25);
        while !handle.has_room() {
            handle.completed(&mut Vec::new()).await;
        }
        handle.publish(&route(&directory, &at), &record(&at, n.to_string()), n).unwrap();
        written.entry(at).or_default().push(n.to_string());
    }
    let mut got: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for _ in 0..300 {
        let delivery = delivery(&mut session).await;
        let payload = String::from_utf8(delivery.record.payload.to_vec()).unwrap();
        got.entry(delivery.record.address.to_string()).or_default().push(payload);
        assert_eq!(delivery.record.metadata.device, "meters/1");
    }
    assert_eq!(got, written);
    // once it runs, a record is there at once
    let mut waits = Vec::new();
    for n in 0..50 {
        let begun = Instant::now();
        write(&publisher, &directory, "t0/1", &n.to_string()).await;
        delivery(&mut session).await;
        waits.push(begun.elapsed());
    }
    waits.sort();
    println!("publish to delivery: median {:?}, worst {:?}", waits[25], waits[49]);
}

/// Sessions subscribe while records are written. Each must see every record that was acknowledged after its
/// subscription's answer, none acknowledged before its call, each once and in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_start_position_is_exact_under_concurrent_writes() {
    let kafka = Kafka::shared().unwrap();
    kafka.create_topic("t1", 2, 1, &[]).unwrap();
    let directory = directory(&[entry("t1", &["t1/#"], 2)]);
    let (publisher, _) = publisher(&kafka.config(), &[]);
    let tail = tail(&kafka.config(), &directory, TailLimits { ring_records: 64, ..TailLimits::default() });
    let (sent, acknowledged) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let writer = tokio::spawn({
        let (sent, acknowledged, directory) =
            (Arc::clone(&sent), Arc::clone(&acknowledged), directory.clone());
        async move {
            let target = route(&directory, "t1/a");
            let mut handle = publisher.connection();
            let mut done = Vec::new();
            loop {
                let next = sent.load(Ordering::SeqCst);
                if handle.in_flight() < 8 {
                    handle.publish(&target, &record("t1/a", next.to_string()), 0).unwrap();
                    sent.store(next + 1, Ordering::SeqCst);
                } else {
                    handle.completed(&mut done).await;
                    assert!(done.iter().all(|completion| completion.result.is_ok()));
                    acknowledged.fetch_add(done.drain(..).count(), Ordering::SeqCst);
                }
            }
        }
    });
    support::until("writing runs", || acknowledged.load(Ordering::SeqCst) > 100).await;
    for round in 0..40 {
        let options = SessionOptions { records: 16, bytes: 1 << 20 };
        let mut session = tail.session(options);
        let before = acknowledged.load(Ordering::SeqCst);
        let text = if round % 2 == 0 { "t1/a" } else { "t1/+" };
        session.subscribe(filter(text), RELIABLE).await.unwrap();
        let after = sent.load(Ordering::SeqCst);
        let got: Vec<usize> =
            payloads(&mut session, 100).await.iter().map(|text| text.parse().unwrap()).collect();
        assert!(got[0] >= before && got[0] <= after, "{before} <= {} <= {after}", got[0]);
        assert!(got.windows(2).all(|pair| pair[1] == pair[0] + 1), "{got:?}");
    }
    writer.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_catches_up_from_kafka_without_loss() {
    let kafka = Kafka::shared().unwrap();
    kafka.create_topic("t2", 3, 1, &[]).unwrap();
    let directory = directory(&[entry("t2", &["t2/#"], 3)]);
    let (publisher, _) = publisher(&kafka.config(), &[]);
    let tail = tail(&kafka.config(), &directory, TailLimits { ring_records: 50, ..TailLimits::default() });
    let options = SessionOptions { records: 32, bytes: 1 << 20 };
    let mut slow = tail.session(options);
    slow.subscribe(filter("t2/#"), RELIABLE).await.unwrap();
    let mut other = tail.session(options);
    other.subscribe(filter("t2/0"), RELIABLE).await.unwrap();
    let mut handle = publisher.connection();
    for n in 0..3000_u64 {
        while !handle.has_room() {
            handle.completed(&mut Vec::new()).await;
        }
        let at = format!("t2/{}", n % 10);
        handle.publish(&route(&directory, &at), &record(&at, n.to_string()), n).unwrap();
    }
    while handle.in_flight() > 0 {
        handle.completed(&mut Vec::new()).await;
    }
    let begun = Instant::now();
    let mut got: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for _ in 0..3000 {
        let delivery = delivery(&mut slow).await;
        let payload = std::str::from_utf8(&delivery.record.payload).unwrap().parse().unwrap();
        got.entry(delivery.record.address.to_string()).or_default().push(payload);
    }
    println!("3000 records caught up in {:?}", begun.elapsed());
    for (at, numbers) in got {
        let first: u64 = at[3..].parse().unwrap();
        assert_eq!(numbers, (first..3000).step_by(10).collect::<Vec<_>>(), "{at}");
    }
    assert_eq!(payloads(&mut other, 300).await.len(), 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_took_is_told_to_a_slow_reader() {
    let kafka = Kafka::shared().unwrap();
    kafka.create_topic("t3", 1, 1, &[]).unwrap();
    let directory = directory(&[entry("t3", &["t3/#"], 1)]);
    let (publisher, _) = publisher(&kafka.config(), &[]);
    let tail = tail(&kafka.config(), &directory, TailLimits { ring_records: 10, ..TailLimits::default() });
    let mut slow = tail.session(SessionOptions { records: 8, bytes: 1 << 20 });
    slow.subscribe(filter("t3/#"), RELIABLE).await.unwrap();
    let mut watch = tail.session(SessionOptions::default());
    watch.subscribe(filter("t3/#"), RELIABLE).await.unwrap();
    for n in 0..200 {
        write(&publisher, &directory, "t3/a", &n.to_string()).await;
    }
    payloads(&mut watch, 200).await;
    kafka.delete_before("t3", 0, 100).unwrap();
    let (mut got, mut gap) = (Vec::new(), None);
    while got.last() != Some(&199) {
        match tokio::time::timeout(SOON, slow.next()).await.unwrap() {
            TailEvent::Delivery(delivery) => {
                got.push(std::str::from_utf8(&delivery.record.payload).unwrap().parse::<i64>().unwrap());
            }
            TailEvent::Gap(told) => assert!(gap.replace(told).is_none()),
        }
    }
    let gap = gap.unwrap();
    assert_eq!(gap.to, 100);
    assert_eq!(got, (0..gap.from).chain(100..200).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_appears_after_the_subscription_is_read_from_its_beginning() {
    let kafka = Kafka::shared().unwrap();
    kafka.create_topic("t4", 3, 1, &[]).unwrap();
    let known = directory(&[entry("t4", &["t4/#"], 3)]);
    let tail = tail(&kafka.config(), &known, TailLimits::default());
    let mut session = tail.session(SessionOptions::default());
    session.subscribe(filter("#"), RELIABLE).await.unwrap();
    kafka.create_topic("new", 3, 1, &[]).unwrap();
    let later = directory(&[entry("t4", &["t4/#"], 3), entry("new", &["new/#"], 3)]);
    let (publisher, _) = publisher(&kafka.config(), &[]);
    for n in 0..20 {
        write(&publisher, &later, &format!("new/{n}"), &n.to_string()).await;
    }
    known.publish(Routes::clone(&later.routes()));
    write(&publisher, &later, "new/x", "20").await;
    let mut got: Vec<u32> =
        payloads(&mut session, 21).await.iter().map(|text| text.parse().unwrap()).collect();
    got.sort_unstable();
    assert_eq!(got, (0..21).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_flow_again_after_the_leader_was_killed() {
    let mut kafka = Kafka::start(3).unwrap();
    kafka.create_topic("t", 3, 3, &[]).unwrap();
    let directory = directory(&[entry("t", &["t/#"], 3)]);
    let (publisher, _) = publisher(&kafka.config(), &[]);
    let tail = tail(&kafka.config(), &directory, TailLimits::default());
    let mut session = tail.session(SessionOptions::default());
    session.subscribe(filter("t/#"), RELIABLE).await.unwrap();
    let leader = kafka.leader("t", tidegate_core::partition_of(b"t/a", 3)).unwrap();
    let mut gap = Duration::ZERO;
    let mut written = Vec::new();
    for n in 0..100 {
        if n == 50 {
            kafka.kill(leader).unwrap();
        }
        let begun = Instant::now();
        if let Ok(Ok(_)) =
            publisher.publish_once(&route(&directory, "t/a"), &record("t/a", n.to_string())).await
        {
            written.push(n.to_string());
        }
        gap = gap.max(begun.elapsed());
    }
    println!("the longest wait for an acknowledgement was {gap:?}");
    let begun = Instant::now();
    assert_eq!(payloads(&mut session, written.len()).await, written);
    println!("everything was delivered {:?} later", begun.elapsed());
    // and a new subscription finds the new leader
    let mut late = tail.session(SessionOptions::default());
    late.subscribe(filter("t/+"), RELIABLE).await.unwrap();
    write(&publisher, &directory, "t/a", "late").await;
    assert_eq!(payloads(&mut late, 1).await, ["late"]);
}
