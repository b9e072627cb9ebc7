//! The tail's promises, on Kafka in memory.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests, too, end the test

mod support;

use support::{SOON, delivery, filter, payloads};
use tidegate_contract::config::Limits;
use tidegate_core::tail::TailLimits;
use tidegate_core::{Gap, Reliability, Services, SessionOptions, TailError, TailEvent};
use tidegate_testkit::MemoryKafka;
use tidegate_testkit::memory::Bounds;

const RELIABLE: Reliability = Reliability::Reliable;
const SMALL: SessionOptions = SessionOptions { records: 4, bytes: 1 << 20 };

fn kafka() -> MemoryKafka {
    let kafka = MemoryKafka::new();
    kafka.topic("t", &["t/#"], 1);
    kafka.topic("u", &["u/#"], 3);
    kafka
}

fn small_ring(kafka: &MemoryKafka, ring_records: usize) -> Services {
    let tail = TailLimits { ring_records, subscribe_ms: 500, ..TailLimits::default() };
    kafka.services_with(Bounds { tail, ..Bounds::default() }, Limits::default()).unwrap()
}

fn numbers(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|n| n.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_gets_what_is_written_after_it_and_nothing_before() {
    let kafka = kafka();
    let services = kafka.services().unwrap();
    kafka.append("t/a", b"before");
    let mut session = services.tail.session(SessionOptions::default());
    session.subscribe(filter("t/+"), RELIABLE).await.unwrap();
    kafka.append("t/a", b"1");
    kafka.append("t/x/y", b"no match");
    kafka.append("t/b", b"2");
    assert_eq!(payloads(&mut session, 2).await, ["1", "2"]);
    // a second session on a partition that is read already
    let mut second = services.tail.session(SessionOptions::default());
    second.subscribe(filter("t/b"), RELIABLE).await.unwrap();
    kafka.append("t/b", b"3");
    assert_eq!(payloads(&mut second, 1).await, ["3"]);
    assert_eq!(payloads(&mut session, 1).await, ["3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_record_is_one_delivery_that_names_all_subscriptions_it_matched() {
    let kafka = kafka();
    let services = kafka.services().unwrap();
    let mut session = services.tail.session(SessionOptions::default());
    let all = session.subscribe(filter("#"), RELIABLE).await.unwrap();
    let some = session.subscribe(filter("t/+"), Reliability::BestEffort).await.unwrap();
    assert_eq!(session.subscribe(filter("#"), RELIABLE).await.unwrap(), all);
    kafka.append("u/1", b"one");
    kafka.append("t/1", b"two");
    let mut got = Vec::new();
    for _ in 0..2 {
        let delivery = delivery(&mut session).await;
        got.push((String::from_utf8(delivery.record.payload.to_vec()).unwrap(), delivery.matched));
    }
    got.sort();
    assert_eq!(got, [("one".to_owned(), vec![all]), ("two".to_owned(), vec![all, some])]);
    assert!(session.unsubscribe(&filter("#")));
    assert!(!session.unsubscribe(&filter("#")));
    kafka.append("u/1", b"gone");
    kafka.append("t/1", b"three");
    let last = delivery(&mut session).await;
    assert_eq!((last.record.payload.as_ref(), last.matched), (b"three".as_slice(), vec![some]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reliable_session_catches_up_from_the_ring() {
    let kafka = kafka();
    let services = kafka.services().unwrap();
    let mut session = services.tail.session(SMALL);
    session.subscribe(filter("t/#"), RELIABLE).await.unwrap();
    for n in 0..500 {
        kafka.append("t/a", n.to_string().as_bytes());
    }
    assert_eq!(payloads(&mut session, 500).await, numbers(0, 500));
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_fell_out_of_the_ring_catch_up_from_kafka_without_loss_or_repeat() {
    let kafka = kafka();
    let services = small_ring(&kafka, 8);
    let mut slow = services.tail.session(SMALL);
    slow.subscribe(filter("t/#"), RELIABLE).await.unwrap();
    let mut other = services.tail.session(SMALL);
    other.subscribe(filter("t/a"), RELIABLE).await.unwrap();
    let mut fast = services.tail.session(SessionOptions { records: 10_000, bytes: 1 << 30 });
    fast.subscribe(filter("t/#"), RELIABLE).await.unwrap();
    for n in 0..1000 {
        kafka.append("t/a", n.to_string().as_bytes());
        if n % 100 == 0 {
            kafka.append_marker("t", 0);
        }
    }
    assert_eq!(payloads(&mut fast, 1000).await, numbers(0, 1000));
    // writing goes on while they catch up
    let writing = tokio::task::spawn_blocking({
        let kafka = kafka.clone();
        move || {
            for n in 1000..2000 {
                kafka.append("t/a", n.to_string().as_bytes());
            }
        }
    });
    let (mine, others) = tokio::join!(payloads(&mut slow, 2000), payloads(&mut other, 2000));
    assert_eq!(mine, numbers(0, 2000));
    assert_eq!(others, numbers(0, 2000));
    writing.await.unwrap();
    let metrics = services.telemetry.encode();
    assert!(!metrics.contains("tidegate_tail_sweeps_total 0\n"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_best_effort_session_loses_what_it_cannot_take_and_it_is_counted() {
    let kafka = kafka();
    let services = kafka.services().unwrap();
    let mut session = services.tail.session(SMALL);
    session.subscribe(filter("t/#"), Reliability::BestEffort).await.unwrap();
    let mut watch = services.tail.session(SessionOptions { records: 1000, bytes: 1 << 20 });
    watch.subscribe(filter("t/#"), RELIABLE).await.unwrap();
    for n in 0..100 {
        kafka.append("t/a", n.to_string().as_bytes());
    }
    payloads(&mut watch, 100).await;
    assert_eq!(payloads(&mut session, 4).await, numbers(0, 4));
    kafka.append("t/a", b"next");
    assert_eq!(payloads(&mut session, 1).await, ["next"]);
    assert!(services.telemetry.encode().contains("tidegate_tail_dropped_total 96\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_took_from_a_slow_session_is_told_as_a_gap() {
    let kafka = kafka();
    let services = small_ring(&kafka, 8);
    let mut slow = services.tail.session(SMALL);
    slow.subscribe(filter("t/#"), RELIABLE).await.unwrap();
    let mut watch = services.tail.session(SessionOptions { records: 1000, bytes: 1 << 20 });
    watch.subscribe(filter("t/#"), RELIABLE).await.unwrap();
    for n in 0..100 {
        kafka.append("t/a", n.to_string().as_bytes());
    }
    payloads(&mut watch, 100).await;
    kafka.delete_before("t", 0, 50);
    assert_eq!(payloads(&mut slow, 4).await, numbers(0, 4));
    match tokio::time::timeout(SOON, slow.next()).await.unwrap() {
        TailEvent::Gap(gap) => assert_eq!(gap, Gap { topic: "t".into(), partition: 0, from: 4, to: 50 }),
        TailEvent::Delivery(delivery) => panic!("{delivery:?}"),
    }
    assert_eq!(payloads(&mut slow, 50).await, numbers(50, 100));
    assert!(services.telemetry.encode().contains("tidegate_tail_gap_records_total 46\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_made_later_is_picked_up_from_its_beginning() {
    let kafka = kafka();
    let services = kafka.services().unwrap();
    let mut session = services.tail.session(SessionOptions::default());
    session.subscribe(filter("#"), RELIABLE).await.unwrap();
    let mut exact = services.tail.session(SessionOptions::default());
    exact.subscribe(filter("new/a"), RELIABLE).await.unwrap();
    kafka.topic("new", &["new/#"], 2);
    // other gateways know it first
    kafka.append("new/a", b"1");
    services.directory.publish(kafka.routes());
    kafka.append("new/a", b"2");
    assert_eq!(payloads(&mut session, 2).await, ["1", "2"]);
    assert_eq!(payloads(&mut exact, 2).await, ["1", "2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_kafka_does_not_know_yet_keeps_nobody_from_subscribing() {
    let kafka = kafka();
    let services = kafka.services().unwrap();
    let mut entries = vec![support::entry("t", &["t/#"], 1), support::entry("ghost", &["ghost/#"], 2)];
    services.directory.publish(tidegate_contract::Routes::new(&entries));
    let mut session = services.tail.session(SessionOptions::default());
    session.subscribe(filter("#"), RELIABLE).await.unwrap();
    kafka.append("t/a", b"1");
    assert_eq!(payloads(&mut session, 1).await, ["1"]);
    kafka.topic("ghost", &["ghost/#"], 2);
    kafka.append("ghost/a", b"2");
    assert_eq!(payloads(&mut session, 1).await, ["2"]);
    entries.clear();
}

#[tokio::test(flavor = "multi_thread")]
async fn while_kafka_is_away_a_subscription_is_refused_and_live_ones_go_on_later() {
    let kafka = kafka();
    let services = small_ring(&kafka, 100);
    let mut session = services.tail.session(SessionOptions::default());
    session.subscribe(filter("t/#"), RELIABLE).await.unwrap();
    kafka.away(true);
    let mut late = services.tail.session(SessionOptions::default());
    assert_eq!(late.subscribe(filter("t/#"), RELIABLE).await, Err(TailError::Unavailable));
    kafka.append("t/a", b"1");
    kafka.away(false);
    assert_eq!(payloads(&mut session, 1).await, ["1"]);
    late.subscribe(filter("t/#"), RELIABLE).await.unwrap();
    kafka.append("t/a", b"2");
    assert_eq!(payloads(&mut late, 1).await, ["2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_read_only_while_somebody_needs_them() {
    let kafka = kafka();
    let services = kafka.services().unwrap();
    let reads = |count: usize| {
        let telemetry = services.telemetry.clone();
        move || telemetry.encode().contains(&format!("tidegate_tail_partitions {count}\n"))
    };
    let mut exact = services.tail.session(SessionOptions::default());
    exact.subscribe(filter("u/1"), RELIABLE).await.unwrap();
    assert!(reads(1)());
    let mut wild = services.tail.session(SessionOptions::default());
    wild.subscribe(filter("u/+"), RELIABLE).await.unwrap();
    assert!(reads(3)());
    wild.unsubscribe(&filter("u/+"));
    support::until("two partitions are let go", reads(1)).await;
    drop(exact);
    support::until("the last is let go", reads(0)).await;
    // taken again: from the end, without what was written meanwhile
    kafka.append("u/1", b"unseen");
    wild.subscribe(filter("u/1"), RELIABLE).await.unwrap();
    kafka.append("u/1", b"seen");
    assert_eq!(payloads(&mut wild, 1).await, ["seen"]);
}

/// The start position under fire: sessions subscribe while records are written; each must see every record
/// that was written after its subscription's answer, none that was written before its call, each once and in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_start_position_is_exact_under_concurrent_writes() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    let kafka = kafka();
    let services = small_ring(&kafka, 16);
    let (written, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let writer = tokio::task::spawn_blocking({
        let (kafka, written, stop) = (kafka.clone(), Arc::clone(&written), Arc::clone(&stop));
        move || {
            while !stop.load(Ordering::SeqCst) {
                let next = written.load(Ordering::SeqCst);
                kafka.append("t/a", next.to_string().as_bytes());
                written.store(next + 1, Ordering::SeqCst);
                if next % 64 == 0 {
                    std::thread::yield_now();
                }
            }
        }
    });
    for round in 0..60 {
        let mut session = services.tail.session(SMALL);
        let before = written.load(Ordering::SeqCst);
        let text = if round % 2 == 0 { "t/a" } else { "t/#" };
        session.subscribe(filter(text), RELIABLE).await.unwrap();
        // one more may be stored and not counted yet
        let after = written.load(Ordering::SeqCst) + 1;
        let got: Vec<usize> =
            payloads(&mut session, 40).await.iter().map(|text| text.parse().unwrap()).collect();
        assert!(got[0] >= before && got[0] <= after, "{before} <= {} <= {after}", got[0]);
        assert!(got.windows(2).all(|pair| pair[1] == pair[0] + 1), "{got:?}");
    }
    stop.store(true, Ordering::SeqCst);
    writer.await.unwrap();
}

/// Kafka was away for longer than retention: the live end itself is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_live_end_that_fell_out_of_retention_is_told_and_left_behind() {
    let kafka = kafka();
    let services = kafka.services().unwrap();
    let mut session = services.tail.session(SessionOptions::default());
    session.subscribe(filter("t/#"), RELIABLE).await.unwrap();
    kafka.append("t/a", b"0");
    assert_eq!(payloads(&mut session, 1).await, ["0"]);
    kafka.away(true);
    for n in 1..20 {
        kafka.append("t/a", n.to_string().as_bytes());
    }
    kafka.delete_before("t", 0, 15);
    kafka.away(false);
    match tokio::time::timeout(SOON, session.next()).await.unwrap() {
        TailEvent::Gap(gap) => assert_eq!(gap, Gap { topic: "t".into(), partition: 0, from: 1, to: 15 }),
        TailEvent::Delivery(delivery) => panic!("{delivery:?}"),
    }
    assert_eq!(payloads(&mut session, 5).await, numbers(15, 20));
    // and a session that was slow by then is told, too
    kafka.append("t/a", b"20");
    assert_eq!(payloads(&mut session, 1).await, ["20"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_devices_subscribe_at_once_and_each_gets_its_own() {
    let kafka = MemoryKafka::new();
    kafka.topic("c", &["c/#"], 12);
    let services = kafka.services().unwrap();
    let mut devices = Vec::new();
    for n in 0..2000 {
        let mut session = services.tail.session(SessionOptions::default());
        devices.push(tokio::spawn(async move {
            session.subscribe(filter(&format!("c/{n}")), RELIABLE).await.unwrap();
            session
        }));
    }
    let mut sessions = Vec::new();
    for device in devices {
        sessions.push(tokio::time::timeout(SOON, device).await.unwrap().unwrap());
    }
    for n in 0..2000 {
        kafka.append(&format!("c/{n}"), n.to_string().as_bytes());
    }
    for (n, mut session) in sessions.into_iter().enumerate() {
        assert_eq!(payloads(&mut session, 1).await, [n.to_string()]);
    }
    let telemetry = services.telemetry.clone();
    support::until("all are gone", || telemetry.encode().contains("tidegate_tail_subscriptions 0\n")).await;
}

/// One step of a made-up life of the tail.
#[derive(Clone, Debug)]
enum Step {
    Append(usize),
    Marker,
    Subscribe(usize, usize),
    Take(usize, usize),
}

const ADDRESSES: [&str; 4] = ["t/a", "t/b", "u/a", "u/b/c"];
const FILTERS: [&str; 6] = ["t/a", "t/+", "#", "u/#", "+/a", "u/b/c"];

fn step() -> impl proptest::strategy::Strategy<Value = Step> {
    use proptest::prelude::*;
    prop_oneof![
        8 => (0..ADDRESSES.len()).prop_map(Step::Append),
        1 => Just(Step::Marker),
        1 => (0..3_usize, 0..FILTERS.len()).prop_map(|(session, filter)| Step::Subscribe(session, filter)),
        2 => (0..3_usize, 1..20_usize).prop_map(|(session, count)| Step::Take(session, count)),
    ]
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 60, failure_persistence: None, ..Default::default() })]

    /// Whatever the bounds and however slow the sessions: each gets, per address, exactly what was written after
    /// its first subscription that matches, in order, with exactly the subscriptions that wanted it.
    #[test]
    fn reliable_sessions_get_exactly_what_they_asked_for(
        steps in proptest::collection::vec(step(), 1..120), ring in 1..12_usize, buffer in 1..6_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let kafka = kafka();
            let services = small_ring(&kafka, ring);
            let options = SessionOptions { records: buffer, bytes: 1 << 20 };
            let mut sessions: Vec<_> = (0..3).map(|_| services.tail.session(options)).collect();
            let mut wanted: Vec<Vec<(String, usize)>> = vec![Vec::new(); 3];
            let mut expected: Vec<Vec<(String, usize, usize)>> = vec![Vec::new(); 3];
            let mut got: Vec<Vec<(String, usize, usize)>> = vec![Vec::new(); 3];
            for (number, step) in steps.iter().enumerate() {
                match step {
                    Step::Append(at) => {
                        let address = support::address(ADDRESSES[*at]);
                        kafka.append(ADDRESSES[*at], number.to_string().as_bytes());
                        for (session, wanted) in wanted.iter().enumerate() {
                            let matched = wanted.iter().filter(|(text, _)| filter(text).matches(&address)).count();
                            if matched > 0 {
                                expected[session].push((ADDRESSES[*at].to_owned(), number, matched));
                            }
                        }
                    }
                    Step::Marker => kafka.append_marker("t", 0),
                    Step::Subscribe(session, text) => {
                        let id = sessions[*session].subscribe(filter(FILTERS[*text]), RELIABLE).await.unwrap();
                        let text = FILTERS[*text].to_owned();
                        if !wanted[*session].iter().any(|(known, _)| *known == text) {
                            wanted[*session].push((text, id.0 as usize));
                        }
                    }
                    Step::Take(session, count) => {
                        for _ in 0..(*count).min(expected[*session].len() - got[*session].len()) {
                            got[*session].push(take(&mut sessions[*session]).await);
                        }
                    }
                }
            }
            for (session, expected) in expected.into_iter().enumerate() {
                while got[session].len() < expected.len() {
                    let next = take(&mut sessions[session]).await;
                    got[session].push(next);
                }
                for address in ADDRESSES {
                    let of = |all: &mut dyn Iterator<Item = &(String, usize, usize)>| {
                        all.filter(|(at, ..)| at == address).cloned().collect::<Vec<_>>()
                    };
                    assert_eq!(of(&mut got[session].iter()), of(&mut expected.iter()), "session {session}");
                }
            }
            services.tail.close();
        });
    }
}

async fn take(session: &mut tidegate_core::TailSession) -> (String, usize, usize) {
    let delivery = delivery(session).await;
    let number = std::str::from_utf8(&delivery.record.payload).unwrap().parse().unwrap();
    (delivery.record.address.to_string(), number, delivery.matched.len())
}
