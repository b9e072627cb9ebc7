//! The reader and the judge on a real Kafka whose leaders set the timestamps. The test plays the gateway, so that it can
//! be an unfaithful one.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;
use tidegate_ledger::bench::Plan;
use tidegate_ledger::judge::Rules;
use tidegate_ledger::kafka::KafkaOptions;
use tidegate_ledger::log::{Clock, Entry, Message, Moment, Sender, Writer};
use tidegate_ledger::payload::{Stamp, encode};
use tidegate_ledger::read::{Offsets, ReadError};
use tidegate_ledger::{Judge, PayloadSize, RunId, Verdict, bare, read};
use tidegate_testkit::Kafka;

const ADDRESS: &str = "sites/berlin/telemetry/ledger-{run}-{publisher}";
const LIMIT: Duration = Duration::from_secs(30);

/// One broker for all tests of this file; it ends with the process.
static KAFKA: LazyLock<Kafka> = LazyLock::new(|| Kafka::start(1).unwrap());

/// A gateway that this test makes faithful or not.
struct Gateway<'a> {
    topic: &'a str,
    producer: BaseProducer,
    run: RunId,
    clock: Clock,
    log: Sender,
}

impl Gateway<'_> {
    fn message(&self, publisher: u16, sequence: u32) -> Message {
        Message { publisher, sequence, at: self.clock.now() }
    }

    fn offer(&self, publisher: u16, sequence: u32) {
        self.log.send(Entry::Offered(self.message(publisher, sequence)));
    }

    fn store(&self, publisher: u16, sequence: u32) {
        let key = ADDRESS.replace("{run}", self.run.as_str()).replace("{publisher}", &publisher.to_string());
        self.store_at(&key, publisher, sequence, |_| {});
    }

    fn store_at(&self, key: &str, publisher: u16, sequence: u32, change: impl FnOnce(&mut Vec<u8>)) {
        let mut payload = encode(&Stamp { run: self.run, publisher, sequence, sent_us: 1 }, 100);
        change(&mut payload);
        self.producer.send(BaseRecord::to(self.topic).key(key).payload(&payload)).unwrap();
        self.producer.flush(LIMIT).unwrap();
    }

    fn ack(&self, publisher: u16, sequence: u32) {
        self.log.send(Entry::Acknowledged(self.message(publisher, sequence)));
    }

    fn faithful(&self, publisher: u16, sequence: u32) {
        self.offer(publisher, sequence);
        self.store(publisher, sequence);
        self.ack(publisher, sequence);
    }
}

fn options() -> KafkaOptions {
    KafkaOptions { bootstrap: KAFKA.bootstrap().to_owned(), ca: None, certificate: None, key: None }
}

/// Runs a gateway, reads Kafka from where it stood before, and judges.
fn judged(topic: &str, run: &str, folder: &Path, act: impl FnOnce(&Gateway<'_>)) -> Verdict {
    let before = read::ends(&options(), topic).unwrap();
    let path = folder.join(run);
    let run: RunId = run.parse().unwrap();
    let (writer, log) = Writer::start(&path).unwrap();
    log.send(Entry::Head { run, publishers: 2, writers: 0, rate_milli: 0, payload: "100".to_owned() });
    let producer =
        KAFKA.client_config().set("partitioner", "murmur2_random").set("linger.ms", "0").create().unwrap();
    let gateway = Gateway { topic, producer, run, clock: Clock::start(), log };
    act(&gateway);
    gateway.log.send(Entry::End(gateway.clock.now()));
    drop(gateway);
    writer.finish().unwrap();
    let mut stored = Vec::new();
    read::stored(&options(), topic, run, Some(&before), Some(ADDRESS), &mut stored).unwrap();
    let mut judge = Judge::read_log(Rules::default(), &*std::fs::read(&path).unwrap()).unwrap();
    judge.read_stored(&*stored).unwrap();
    judge.verdict()
}

#[test]
fn what_a_gateway_did_to_its_messages_is_found_in_kafka() {
    KAFKA.create_topic("deeds", 3, 1, &[("message.timestamp.type", "LogAppendTime")]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();

    let clean = judged("deeds", "clean0", folder, |gateway| {
        for sequence in 0..100 {
            gateway.faithful(0, sequence);
            gateway.faithful(1, sequence);
        }
        // Another application's records are nobody's business.
        gateway.producer.send(BaseRecord::to(gateway.topic).key("x").payload("21.5")).unwrap();
    });
    assert!(clean.is_clean() && clean.append_times, "{:?} {:?}", clean.faults(), clean.examples);
    assert_eq!((clean.acknowledged, clean.stored, clean.records, clean.duplicates), (200, 200, 200, 0));

    let faults = judged("deeds", "fault0", folder, |gateway| {
        gateway.faithful(0, 0);
        // A loss.
        gateway.offer(0, 1);
        gateway.ack(0, 1);
        // A duplicate.
        gateway.faithful(0, 2);
        gateway.store(0, 2);
        // A disorder.
        gateway.offer(0, 3);
        gateway.faithful(0, 4);
        gateway.store(0, 3);
        gateway.ack(0, 3);
        // An early acknowledgement: a second before Kafka got it.
        gateway.offer(0, 5);
        let now = gateway.clock.now();
        let at = Moment { wall_us: now.wall_us - 1_000_000, ..now };
        gateway.log.send(Entry::Acknowledged(Message { publisher: 0, sequence: 5, at }));
        gateway.store(0, 5);
        // A stale repeat.
        gateway.store(0, 0);
        // A changed payload, a wrong key, and one that nobody offered.
        gateway.offer(1, 0);
        gateway.store_at("sites/elsewhere", 1, 0, |_| {});
        gateway.store_at("x", 1, 0, |payload| payload[90] ^= 1);
        gateway.store(1, 9);
    });
    assert_eq!(faults.acknowledged_lost, 1, "{:?}", faults.examples);
    assert_eq!((faults.duplicates, faults.stale_repeats), (2, 1));
    assert_eq!(faults.disorder, 1);
    assert_eq!(faults.early_acknowledged, 1);
    assert_eq!((faults.altered, faults.unoffered), (2, 1));
    assert_eq!(faults.faults().len(), 5, "{:?}", faults.faults());
    assert_eq!((faults.records, faults.unanswered), (8, 1));
}

#[test]
fn reading_starts_where_it_is_told_and_ends_where_kafka_ended() {
    KAFKA.create_topic("ranges", 2, 1, &[]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let options = options();
    assert_eq!(read::ends(&options, "ranges").unwrap(), "0:0,1:0".parse::<Offsets>().unwrap());
    assert!(matches!(read::ends(&options, "nothing"), Err(ReadError::NoTopic(_) | ReadError::Kafka(_))));
    judged("ranges", "aaaaaa", folder.path(), |gateway| {
        (0..10).for_each(|sequence| gateway.faithful(0, sequence));
    });
    let run: RunId = "aaaaaa".parse().unwrap();
    let lines = |from: Option<&str>| {
        let mut lines = Vec::new();
        let from = from.map(|from| from.parse().unwrap());
        let records = read::stored(&options, "ranges", run, from.as_ref(), None, &mut lines).unwrap();
        assert_eq!(String::from_utf8(lines).unwrap().lines().count() as u64, records + 2);
        records
    };
    let partition = i32::from(read::ends(&options, "ranges").unwrap().0[&1] > 0);
    assert_eq!(lines(None), 10);
    assert_eq!(lines(Some(&format!("{partition}:4"))), 6);
    // What retention has deleted is no error: reading starts where the log does.
    KAFKA.delete_before("ranges", partition, 7).unwrap();
    assert_eq!(lines(None), 3);
    assert_eq!(lines(Some("0:0,1:0")), 3);
}

#[test]
fn bare_latency_is_measured_for_every_message_but_the_warm_up() {
    KAFKA.create_topic("bare", 12, 1, &[]).unwrap();
    let plan = Plan {
        rates: vec![50.0, 200.0],
        samples: 20,
        payload: PayloadSize::fixed(100),
        address: "sites/berlin/telemetry/bench".to_owned(),
        addresses: 10,
    };
    let rows = bare::latency(&options(), "bare", &plan).unwrap();
    assert_eq!(rows.iter().map(|row| row.case.as_str()).collect::<Vec<_>>(), ["50 msg/s", "200 msg/s"]);
    for row in &rows {
        assert_eq!(row.figures["bare_samples"], 80);
        let (half, most) =
            (row.figures["bare_p50_ms"].as_f64().unwrap(), row.figures["bare_p99_ms"].as_f64().unwrap());
        assert!(half > 0.0 && most >= half, "{row:?}");
    }
    assert_eq!(KAFKA.read_all("bare").unwrap().len(), 180);
}
