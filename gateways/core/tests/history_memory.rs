//! History reads, on Kafka in memory.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests, too, end the test

mod support;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use support::address;
use tidegate_contract::config::Limits;
use tidegate_core::history::HistoryLimits;
use tidegate_core::reader::{Event, Partition, ReadError, Reader, Readers};
use tidegate_core::telemetry::{Client, HistoryMetrics};
use tidegate_core::{History, HistoryError, HistoryRead, Services};
use tidegate_testkit::MemoryKafka;
use tidegate_testkit::memory::Bounds;

fn kafka() -> MemoryKafka {
    let kafka = MemoryKafka::new();
    kafka.topic("t", &["t/#"], 1);
    kafka
}

fn bounded(kafka: &MemoryKafka, history: HistoryLimits) -> Services {
    kafka.services_with(Bounds { history, ..Bounds::default() }, Limits::default()).unwrap()
}

async fn last(services: &Services, at: &str, count: usize) -> HistoryRead {
    services.history.last(&address(at), count).await.unwrap()
}

fn payloads(read: &HistoryRead) -> Vec<String> {
    read.records.iter().map(|stored| String::from_utf8(stored.record.payload.to_vec()).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_records_of_an_address_are_found_among_others_oldest_first() {
    let kafka = kafka();
    let services = kafka.services().unwrap();
    for n in 0..3000 {
        kafka.append(if n % 100 == 7 { "t/a" } else { "t/b" }, n.to_string().as_bytes());
    }
    kafka.append_marker("t", 0);
    let read = last(&services, "t/a", 1).await;
    assert_eq!((payloads(&read), read.truncated), (vec!["2907".to_owned()], false));
    assert_eq!(read.records[0].place.offset, 2907);
    let read = last(&services, "t/a", 3).await;
    assert_eq!((payloads(&read), read.truncated), (vec!["2707".into(), "2807".into(), "2907".into()], false));
    let read = last(&services, "t/a", 1000).await;
    assert_eq!((read.records.len(), read.truncated), (30, false));
    assert_eq!(payloads(&read)[0], "7");
    assert!(last(&services, "t/never", 1).await.records.is_empty());
    assert!(last(&services, "t/a", 0).await.records.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_stops_at_its_bound_and_says_so() {
    let kafka = kafka();
    let services = bounded(&kafka, HistoryLimits { records: 1000, ..HistoryLimits::default() });
    kafka.append("t/a", b"old");
    for n in 0..2000 {
        kafka.append("t/b", n.to_string().as_bytes());
    }
    let read = last(&services, "t/a", 1).await;
    assert!(read.truncated && read.records.is_empty());
    kafka.append("t/a", b"new");
    let read = last(&services, "t/a", 2).await;
    assert_eq!((payloads(&read), read.truncated), (vec!["new".to_owned()], true));
    let read = last(&services, "t/a", 1).await;
    assert_eq!((payloads(&read), read.truncated), (vec!["new".to_owned()], false));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_large_records_do_not_fill_the_memory() {
    let kafka = kafka();
    let services = bounded(&kafka, HistoryLimits { bytes: 100_000, ..HistoryLimits::default() });
    for n in 0..2000_u16 {
        kafka.append("t/a", &[n.to_be_bytes(); 500].concat());
    }
    let read = last(&services, "t/a", 2000).await;
    assert!(read.truncated);
    // a window beyond the bound keeps its newest records
    let offsets: Vec<_> = read.records.iter().map(|stored| stored.place.offset).collect();
    assert!((50..=100).contains(&offsets.len()), "{}", offsets.len());
    assert!(offsets.iter().copied().eq(2000 - i64::try_from(offsets.len()).unwrap()..2000));
    let read = last(&services, "t/a", 3).await;
    assert_eq!((read.records.len(), read.truncated), (3, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_without_a_topic_and_a_kafka_that_is_away_are_told_apart() {
    let kafka = kafka();
    let services =
        bounded(&kafka, HistoryLimits { time: Duration::from_millis(200), ..HistoryLimits::default() });
    assert_eq!(services.history.last(&address("x"), 1).await.unwrap_err(), HistoryError::NoTopic);
    kafka.away(true);
    assert_eq!(services.history.last(&address("t/a"), 1).await.unwrap_err(), HistoryError::Unavailable);
}

/// A compacted topic: a long log of which nearly nothing is left.
struct Compacted;

impl Reader for Compacted {
    fn partitions(&self, _: &str, _: Duration) -> Result<i32, ReadError> {
        Ok(1)
    }
    fn ends(&self, _: &[Partition], _: Duration) -> Vec<Result<i64, ReadError>> {
        vec![Ok(1_000_000)]
    }
    fn starts(&self, _: &[Partition], _: Duration) -> Vec<Result<i64, ReadError>> {
        vec![Ok(0)]
    }
    fn since(&self, _: &[Partition], _: i64, _: Duration) -> Vec<Result<i64, ReadError>> {
        vec![Ok(0)]
    }
    fn assign(&self, _: &Partition, _: i64) -> Result<(), ReadError> {
        Ok(())
    }
    fn unassign(&self, _: &Partition) -> Result<(), ReadError> {
        Ok(())
    }
    fn poll(&self, _: Duration) -> Option<Event> {
        Some(Event::End)
    }
}

impl Readers for Compacted {
    fn reader(&self, _: Client) -> Result<Box<dyn Reader>, ReadError> {
        Ok(Box::new(Self))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_log_of_which_nearly_nothing_is_left_is_read_to_its_beginning() {
    let directory = support::directory(&[support::entry("t", &["t/#"], 1)]);
    let limits = HistoryLimits { time: Duration::from_secs(60), ..HistoryLimits::default() };
    let history = History::start(&Compacted, &directory, limits, HistoryMetrics::default()).unwrap();
    for _ in 0..3 {
        let read = history.last(&address("t/a"), 1).await.unwrap();
        assert!(read.records.is_empty() && !read.truncated);
    }
}

/// A leader that was elected just now: until it is asked where the partition ends once more, it gives its records only
/// as far as it knows them to be committed. Or one that gives none in time.
#[derive(Clone)]
struct NewLeader {
    kafka: MemoryKafka,
    committed: i64,
    silent: bool,
}

struct NewLeaderReader {
    leader: NewLeader,
    reader: Box<dyn Reader>,
    asked: AtomicU32,
}

impl Readers for NewLeader {
    fn reader(&self, client: Client) -> Result<Box<dyn Reader>, ReadError> {
        let reader = self.kafka.reader(client)?;
        Ok(Box::new(NewLeaderReader { leader: self.clone(), reader, asked: AtomicU32::new(0) }))
    }
}

impl Reader for NewLeaderReader {
    fn partitions(&self, topic: &str, timeout: Duration) -> Result<i32, ReadError> {
        self.reader.partitions(topic, timeout)
    }
    fn ends(&self, all: &[Partition], timeout: Duration) -> Vec<Result<i64, ReadError>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.reader.ends(all, timeout)
    }
    fn starts(&self, all: &[Partition], timeout: Duration) -> Vec<Result<i64, ReadError>> {
        self.reader.starts(all, timeout)
    }
    fn since(&self, all: &[Partition], time_ms: i64, timeout: Duration) -> Vec<Result<i64, ReadError>> {
        self.reader.since(all, time_ms, timeout)
    }
    fn assign(&self, partition: &Partition, from: i64) -> Result<(), ReadError> {
        self.reader.assign(partition, from)
    }
    fn unassign(&self, partition: &Partition) -> Result<(), ReadError> {
        self.reader.unassign(partition)
    }
    fn poll(&self, timeout: Duration) -> Option<Event> {
        if self.leader.silent {
            return None;
        }
        match self.reader.poll(timeout) {
            Some(Event::Record(raw))
                if raw.offset >= self.leader.committed && self.asked.load(Ordering::SeqCst) < 2 =>
            {
                Some(Event::End)
            }
            event => event,
        }
    }
}

fn behind(leader: &NewLeader) -> History {
    let directory = support::directory(&[support::entry("t", &["t/#"], 1)]);
    let limits = HistoryLimits { time: Duration::from_millis(500), ..HistoryLimits::default() };
    History::start(leader, &directory, limits, HistoryMetrics::default()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_that_does_not_know_yet_what_is_committed_hides_nothing() {
    let kafka = kafka();
    for payload in [b"1", b"2", b"3", b"4"] {
        kafka.append("t/a", payload);
    }
    for committed in 0..4 {
        let history = behind(&NewLeader { kafka: kafka.clone(), committed, silent: false });
        let read = history.last(&address("t/a"), 9).await.unwrap();
        assert_eq!((payloads(&read).concat(), read.truncated), ("1234".to_owned(), false));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_does_not_get_the_newest_records_in_time_fails_and_does_not_say_that_there_are_none() {
    let kafka = kafka();
    kafka.append("t/a", b"1");
    let history = behind(&NewLeader { kafka, committed: 0, silent: true });
    assert_eq!(history.last(&address("t/a"), 1).await.unwrap_err(), HistoryError::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_waited_too_long_for_its_turn_is_refused() {
    let kafka = kafka();
    kafka.append("t/a", b"x");
    let services = bounded(&kafka, HistoryLimits { wait: Duration::ZERO, ..HistoryLimits::default() });
    assert_eq!(services.history.last(&address("t/a"), 1).await.unwrap_err(), HistoryError::Busy);
}
