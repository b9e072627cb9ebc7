//! Kafka in memory: the real publisher, tail and history on top of it, without a broker. A test holds
//! acknowledgements back, fails them, takes Kafka away, lets retention delete.

use crate::memory_reader::MemoryReader;
use anyhow::Result;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tidegate_contract::config::{Limits, Listeners, Protocol};
use tidegate_contract::directory::{Key, TopicEntry};
use tidegate_contract::fleet::{Authentication, FleetEntry, Permissions};
use tidegate_contract::{Address, GatewayConfig, Route, Routes, config::KafkaConfig};
use tidegate_core::history::HistoryLimits;
use tidegate_core::publisher::{Flight, Outgoing, PublishLimits, SendError, Sink};
use tidegate_core::reader::{Partition, RawRecord, ReadError, Reader, Readers};
use tidegate_core::record::Undecodable;
use tidegate_core::tail::TailLimits;
use tidegate_core::telemetry::{AccessMetrics, Client, HistoryMetrics, PublisherMetrics, TailMetrics};
use tidegate_core::{
    Access, Directory, History, Limiter, PublishFailure, Publisher, Record, Services, Shutdown, Tail,
    Telemetry,
};

/// Kafka in memory. Cheap to clone.
#[derive(Clone, Default)]
pub struct MemoryKafka {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Default)]
pub(crate) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
pub(crate) struct State {
    topics: BTreeMap<Arc<str>, TopicEntry>,
    pub(crate) logs: BTreeMap<Partition, Log>,
    holding: bool,
    held: VecDeque<(Partition, Arc<Record>, Box<Flight>)>,
    pub(crate) away: bool,
    clock_ms: i64,
}

#[derive(Default)]
pub(crate) struct Log {
    pub(crate) start: i64,
    /// From offset `start` on; nothing stands for a control marker.
    pub(crate) entries: VecDeque<Option<RawRecord>>,
}

impl Log {
    pub(crate) fn end(&self) -> i64 {
        self.start + i64::try_from(self.entries.len()).unwrap_or(i64::MAX)
    }
}

/// The fleet of a test that is not about access; everybody is its device `guest`.
pub const FLEET: &str = "test";

/// A fleet that lets everybody in and allows everything.
pub fn everybody() -> FleetEntry {
    FleetEntry {
        authentication: Authentication { anonymous: Some("guest".to_owned()), ..Authentication::default() },
        permissions: Permissions::new(&["#"], &["#"]),
        ..FleetEntry::default()
    }
}

/// The directory's record of [`FLEET`], key and value, for tests with a real Kafka.
pub fn everybody_in_directory() -> Result<(String, String)> {
    Ok((Key::Fleet(FLEET.to_owned()).to_string(), serde_json::to_string(&everybody())?))
}

/// Bounds of the services on top.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bounds {
    /// Of the publisher.
    pub publish: PublishLimits,
    /// Of the tail.
    pub tail: TailLimits,
    /// Of history reads.
    pub history: HistoryLimits,
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wait<'a>(&self, state: MutexGuard<'a, State>, timeout: Duration) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, timeout).unwrap_or_else(PoisonError::into_inner).0
    }

    pub(crate) fn tell(&self) {
        self.changed.notify_all();
    }
}

impl State {
    fn append(&mut self, partition: &Partition, record: Result<Arc<Record>, Undecodable>) -> i64 {
        self.clock_ms += 1;
        let timestamp_ms = now_ms() + self.clock_ms;
        let log = self.logs.entry(partition.clone()).or_default();
        let offset = log.end();
        log.entries.push_back(Some(RawRecord { partition: partition.clone(), offset, timestamp_ms, record }));
        offset
    }
}

impl MemoryKafka {
    /// An empty Kafka.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a topic. Publish [`routes`](Self::routes) into a directory to let gateways know it.
    pub fn topic(&self, name: &str, filters: &[&str], partitions: i32) {
        let mut state = self.shared.lock();
        for partition in 0..partitions {
            state.logs.entry(Partition { topic: name.into(), partition }).or_default();
        }
        let entry = TopicEntry {
            name: name.to_owned(),
            kafka_name: name.to_owned(),
            filters: filters.iter().map(|&filter| filter.to_owned()).collect(),
            partitions,
            max_message_bytes: 1_114_112,
        };
        state.topics.insert(name.into(), entry);
    }

    /// The routes of all topics.
    pub fn routes(&self) -> Routes {
        Routes::new(self.shared.lock().topics.values())
    }

    /// Services for a protocol's tests: everything real but Kafka. Everybody may do everything, until the test takes
    /// [`FLEET`] out of the directory's roster.
    pub fn services(&self) -> Result<Services> {
        self.services_with(Bounds::default(), Limits::default())
    }

    /// The same with bounds of the test's own.
    pub fn services_with(&self, bounds: Bounds, limits: Limits) -> Result<Services> {
        let telemetry = Telemetry::new();
        let directory = Directory::fixed(self.routes());
        directory.roster().put_fleet(FLEET, Some(&everybody()));
        let metrics = telemetry.register(PublisherMetrics::new);
        let publisher = Publisher::new(Arc::new(self.clone()), bounds.publish, metrics);
        let tail = Tail::start(self, &directory, bounds.tail, telemetry.register(TailMetrics::new))?;
        let history =
            History::start(self, &directory, bounds.history, telemetry.register(HistoryMetrics::new))?;
        let config = GatewayConfig {
            namespace: "test".to_owned(),
            platform: "test".to_owned(),
            gateway: "test".to_owned(),
            protocol: Protocol::Mqtt(Listeners { listeners: Vec::new() }),
            kafka: KafkaConfig::plain(""),
            limits: limits.clone(),
            admin_port: 0,
            drain_ms: 5_000,
        };
        Ok(Services {
            config: Arc::new(config),
            access: Access::new(directory.roster().clone(), telemetry.register(AccessMetrics::new)),
            directory,
            publisher,
            tail,
            history,
            limits: Limiter::new(limits),
            telemetry,
            shutdown: Shutdown::new(Duration::from_secs(5)),
        })
    }

    /// Writes a record as another gateway would, acknowledged at once. Returns its offset; nothing without a route.
    pub fn append(&self, address: &str, payload: &[u8]) -> Option<i64> {
        let address = Address::parse(address).ok()?;
        let routes = self.routes();
        let route: &Arc<Route> = routes.route(&address)?;
        let partition = tidegate_core::partition_of(address.as_str().as_bytes(), route.partitions);
        let partition = Partition { topic: Arc::clone(&route.kafka_name), partition };
        let record = Record {
            address,
            payload: Bytes::copy_from_slice(payload),
            metadata: tidegate_core::Metadata::default(),
        };
        let offset = self.shared.lock().append(&partition, Ok(Arc::new(record)));
        self.shared.tell();
        Some(offset)
    }

    /// Adds an offset without a record, as a transaction's end does.
    pub fn append_marker(&self, topic: &str, partition: i32) {
        let partition = Partition { topic: topic.into(), partition };
        self.shared.lock().logs.entry(partition).or_default().entries.push_back(None);
        self.shared.tell();
    }

    /// Deletes the records before an offset, as retention does.
    pub fn delete_before(&self, topic: &str, partition: i32, offset: i64) {
        let mut state = self.shared.lock();
        let log = state.logs.entry(Partition { topic: topic.into(), partition }).or_default();
        while log.start < offset && log.entries.pop_front().is_some() {
            log.start += 1;
        }
        drop(state);
        self.shared.tell();
    }

    /// From now on records wait: neither stored nor acknowledged.
    pub fn hold(&self) {
        self.shared.lock().holding = true;
    }

    /// The number of records that wait.
    pub fn held(&self) -> usize {
        self.shared.lock().held.len()
    }

    /// Waits until so many records wait; false after 10 s.
    pub fn wait_held(&self, count: usize) -> bool {
        self.wait_until(|state| state.held.len() >= count)
    }

    /// Stores and acknowledges the `count` oldest that wait.
    pub fn release(&self, count: usize) {
        for _ in 0..count {
            let mut state = self.shared.lock();
            let Some((partition, record, flight)) = state.held.pop_front() else { return };
            let offset = state.append(&partition, Ok(record));
            drop(state);
            self.shared.tell();
            flight.land(Ok(offset));
        }
    }

    /// Fails the oldest that waits; as with Kafka, it may be stored all the same.
    pub fn fail(&self, failure: PublishFailure, stored: bool) {
        let mut state = self.shared.lock();
        let Some((partition, record, flight)) = state.held.pop_front() else { return };
        if stored {
            state.append(&partition, Ok(record));
        }
        drop(state);
        self.shared.tell();
        flight.land(Err(failure));
    }

    /// No answer to any reader's question, and records wait.
    pub fn away(&self, away: bool) {
        let mut state = self.shared.lock();
        state.away = away;
        state.holding = away;
        drop(state);
        self.shared.tell();
        if !away {
            self.release(self.held());
        }
    }

    /// Payloads that are stored under an address, oldest first.
    pub fn stored(&self, address: &str) -> Vec<Bytes> {
        let state = self.shared.lock();
        let records = state.logs.values().flat_map(|log| &log.entries).flatten();
        records
            .filter_map(|raw| raw.record.as_ref().ok())
            .filter(|record| record.address.as_str() == address)
            .map(|record| record.payload.clone())
            .collect()
    }

    fn wait_until(&self, done: impl Fn(&State) -> bool) -> bool {
        let until = std::time::Instant::now() + Duration::from_secs(10);
        let mut state = self.shared.lock();
        while !done(&state) {
            if std::time::Instant::now() > until {
                return false;
            }
            state = self.shared.wait(state, Duration::from_millis(100));
        }
        true
    }
}

impl Sink for MemoryKafka {
    fn send(&self, outgoing: Outgoing<'_>, flight: Box<Flight>) -> Result<(), (SendError, Box<Flight>)> {
        let partition = Partition { topic: Arc::clone(outgoing.topic), partition: outgoing.partition };
        let record = Arc::new(outgoing.record.clone());
        let mut state = self.shared.lock();
        if state.holding {
            state.held.push_back((partition, record, flight));
            drop(state);
            self.shared.tell();
            return Ok(());
        }
        let offset = state.append(&partition, Ok(record));
        drop(state);
        self.shared.tell();
        flight.land(Ok(offset));
        Ok(())
    }

    fn flush(&self, timeout: Duration) -> bool {
        let until = std::time::Instant::now() + timeout;
        let mut state = self.shared.lock();
        while !state.held.is_empty() && std::time::Instant::now() < until {
            state = self.shared.wait(state, Duration::from_millis(50));
        }
        state.held.is_empty()
    }
}

impl Readers for MemoryKafka {
    fn reader(&self, client: Client) -> Result<Box<dyn Reader>, ReadError> {
        Ok(Box::new(MemoryReader::new(self.clone(), client)))
    }
}

fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}
