//! The directory's one writer: a transactional producer that brings `tg-directory` to what is wanted.
//! [`changes`] is pure; [`Writer`] does network IO and blocks, so it runs on a blocking thread.
//!
//! The transactional id is the platform's: opening a writer fences the one before it, whichever operator had it,
//! and only then the topic is read. From there on nobody else writes, so the view in memory is the topic.

use super::access::{Access, Quiet};
use super::error::Failure;
use super::fleets::{self, Fleets, Reading};
use super::marks::Owner;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_contract::directory::{Key, TopicEntry};
use tidegate_contract::internal;

/// How long any step may take.
const STEP: Duration = Duration::from_secs(10);

/// The transactional id, and the group of a reader that wants one, after the prefix.
const OPERATOR: &str = "tg-operator";

/// How many records one transaction has: what is more takes several, each of which is whole. The client's own queue
/// takes ten times as many.
const BATCH: usize = 10_000;

/// The directory's records by key, but for those of fleets and devices.
pub type View = BTreeMap<String, Vec<u8>>;

/// Everything that a directory holds, or should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Records by key.
    pub view: View,
    /// Records of fleets and their devices.
    pub fleets: Arc<Fleets>,
}

impl Contents {
    /// Whether there is no record at all.
    pub fn is_empty(&self) -> bool {
        self.view.is_empty() && self.fleets.is_empty()
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.view.len() + self.fleets.values().map(|fleet| fleet.len()).sum::<usize>()
    }
}

impl From<View> for Contents {
    fn from(view: View) -> Self {
        Self { view, fleets: Arc::default() }
    }
}

/// The records that `topics` should have.
pub fn wanted(topics: &[TopicEntry]) -> View {
    topics
        .iter()
        .filter_map(|entry| {
            Some((Key::Topic(entry.name.clone()).to_string(), serde_json::to_vec(entry).ok()?))
        })
        .collect()
}

/// What to write beside fleets: new and changed records, and a tombstone for each that is wanted no more. Keys of kinds that
/// this version does not know are a newer operator's and stay.
pub fn changes(have: &View, want: &View) -> Vec<(String, Option<Vec<u8>>)> {
    let written = want.iter().filter(|&(key, value)| have.get(key) != Some(value));
    let removed = have.keys().filter(|&key| !want.contains_key(key) && Key::parse(key).is_some());
    written
        .map(|(key, value)| (key.clone(), Some(value.clone())))
        .chain(removed.map(|key| (key.clone(), None)))
        .collect()
}

/// The one writer of a platform's directory.
pub struct Writer {
    producer: ThreadedProducer<Quiet>,
    topic: String,
    held: Contents,
    who: String,
}

impl Writer {
    /// Fences the writer before, then reads what is there. On somebody else's Kafka the writer before may be another
    /// platform's: what is there is read first, and nothing is done where it is not this one's.
    pub fn open(access: &Access, owner: Option<&Owner>) -> Result<Self, Failure> {
        let topic = internal::name(&access.prefix, internal::DIRECTORY);
        let id = internal::name(&access.prefix, OPERATOR);
        if let Some(owner) = owner {
            owner.may_write(&topic, &read(access, &topic)?)?;
        }
        let mut config = access.config();
        config
            .set("transactional.id", &id)
            .set("transaction.timeout.ms", "10000")
            .set("message.timeout.ms", "8000")
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "0")
            .set("acks", "all");
        let producer: ThreadedProducer<Quiet> = config
            .create_with_context(Quiet::default())
            .map_err(|error| Failure::from_client("set up the directory's writer", &error))?;
        producer.init_transactions(STEP).map_err(|error| {
            let failure = Failure::from_client(format!("use transactional id {id:?}"), &error);
            let right = format!("operations Write and Describe on transactional id {id:?}");
            failure.lacking(&access.principal(), &right)
        })?;
        let held = read(access, &topic)?;
        if let Some(owner) = owner {
            owner.may_write(&topic, &held)?;
        }
        Ok(Self { producer, topic, held, who: access.principal() })
    }

    /// What the topic holds.
    pub const fn held(&self) -> &Contents {
        &self.held
    }

    /// What the topic holds beside fleets.
    pub const fn view(&self) -> &View {
        &self.held.view
    }

    /// Brings the topic to `want`, in as few transactions as it takes; how many records that were. After an error the
    /// writer is of no more use: open another.
    pub fn write(&mut self, want: &Contents) -> Result<usize, Failure> {
        let others = changes(&self.held.view, &want.view);
        let others = others.iter().map(|(key, value)| (key.as_str(), value.as_deref()));
        let fleets = fleets::changes(&self.held.fleets, &want.fleets);
        let fleets = fleets.iter().map(|(key, value)| (key.as_str(), *value));
        let all: Vec<_> = others.chain(fleets).collect();
        for batch in all.chunks(BATCH) {
            self.commit(batch)?;
        }
        let count = all.len();
        // What this version does not know stays where it is.
        let known = |key: &String| Key::parse(key).is_some();
        self.held.view.retain(|key, _| !known(key));
        self.held.view.extend(want.view.iter().map(|(key, value)| (key.clone(), value.clone())));
        self.held.fleets = Arc::clone(&want.fleets);
        Ok(count)
    }

    /// Writes records in one transaction.
    fn commit(&self, records: &[(&str, Option<&[u8]>)]) -> Result<(), Failure> {
        let (who, topic) = (&self.who, &self.topic);
        let failed = |error: &KafkaError| {
            let failure = Failure::from_client(format!("write topic {topic:?}"), error);
            failure.lacking(who, &format!("operation Write on topic {topic:?}"))
        };
        self.producer.begin_transaction().map_err(|error| failed(&error))?;
        for &(key, value) in records {
            let mut record = BaseRecord::<str, [u8]>::to(&self.topic).partition(0).key(key);
            if let Some(value) = value {
                record = record.payload(value);
            }
            self.producer.send(record).map_err(|(error, _)| failed(&error))?;
        }
        if let Err(error) = self.producer.commit_transaction(STEP) {
            // A best effort: the next writer's start aborts what is left open.
            let _ = self.producer.abort_transaction(STEP);
            return Err(failed(&error));
        }
        Ok(())
    }
}

/// Reads the committed records from the first to the end as it is now.
pub fn read(access: &Access, topic: &str) -> Result<Contents, Failure> {
    let what = format!("read topic {topic:?}");
    let group = internal::name(&access.prefix, OPERATOR);
    let failed = |error: &KafkaError| {
        let failure = Failure::from_client(what.as_str(), error);
        let right = if failure.code == RDKafkaErrorCode::GroupAuthorizationFailed {
            format!("operation Read on group {group:?}")
        } else {
            format!("operation Read on topic {topic:?}")
        };
        failure.lacking(&access.principal(), &right)
    };
    let mut config = access.config();
    config
        // librdkafka wants one; no group is joined and nothing is committed.
        .set("group.id", &group)
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "earliest")
        .set("fetch.wait.max.ms", "50");
    let consumer: BaseConsumer<Quiet> =
        config.create_with_context(Quiet::default()).map_err(|e| failed(&e))?;
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, 0, Offset::Beginning).map_err(|e| failed(&e))?;
    consumer.assign(&assignment).map_err(|e| failed(&e))?;
    let (mut view, mut reading) = (View::new(), Reading::default());
    // The limit is for the time without a record: a directory of 100,000 devices takes a while.
    let mut heard = Instant::now();
    while heard.elapsed() < STEP {
        match consumer.poll(Duration::from_millis(200)) {
            None => {}
            Some(Err(KafkaError::PartitionEOF(_))) => {
                return Ok(Contents { view, fleets: Arc::new(reading.end()) });
            }
            Some(Err(error)) => {
                let failure = failed(&error);
                if failure.class() == super::error::Class::Blocked {
                    return Err(failure);
                }
                tracing::debug!(%error, "the directory's reader goes on");
            }
            Some(Ok(record)) => {
                heard = Instant::now();
                let Some(key) = record.key().and_then(|key| std::str::from_utf8(key).ok()) else { continue };
                if reading.take(key, record.payload()) {
                    continue;
                }
                match record.payload() {
                    Some(value) => view.insert(key.to_owned(), value.to_vec()),
                    None => view.remove(key),
                };
            }
        }
    }
    Err(Failure::new(what.as_str(), RDKafkaErrorCode::OperationTimedOut))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str) -> TopicEntry {
        TopicEntry {
            name: name.to_owned(),
            kafka_name: name.to_owned(),
            filters: vec![format!("{name}/#")],
            partitions: 12,
            max_message_bytes: 1_114_112,
        }
    }

    #[test]
    fn only_differences_are_written_and_what_is_gone_gets_a_tombstone() {
        let have = wanted(&[entry("a"), entry("b")]);
        let mut changed = entry("b");
        changed.filters.push("x".to_owned());
        let want = wanted(&[changed, entry("c")]);
        let keys: Vec<_> =
            changes(&have, &want).into_iter().map(|(key, value)| (key, value.is_some())).collect();
        let expected = [("topic/b", true), ("topic/c", true), ("topic/a", false)];
        assert_eq!(keys, expected.map(|(key, there)| (key.to_owned(), there)));
        assert!(changes(&want, &want).is_empty());
    }

    #[test]
    fn what_a_newer_operator_wrote_stays() {
        let have = View::from([("later/meters".to_owned(), b"{}".to_vec())]);
        assert!(changes(&have, &View::new()).is_empty());
    }
}
