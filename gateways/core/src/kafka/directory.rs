//! Follows `tg-directory`: a thread that reads committed records and keeps the view.

use super::handle::Handle;
use super::reader::KafkaReaders;
use crate::directory::{Directory, View};
use crate::telemetry::{Client, KafkaMetrics};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_contract::internal;
use tokio_util::sync::CancellationToken;

/// How often the thread looks whether it is to end; records come at once.
const POLL: Duration = Duration::from_millis(200);
/// How often a missing topic is asked for.
const AGAIN: Duration = Duration::from_millis(500);
/// How often new partitions are looked for: a topic that was just made, or that somebody grew.
const LOOK: Duration = Duration::from_secs(5);
/// How often a wait is said.
const SAY: Duration = Duration::from_secs(10);

/// Starts the thread that keeps `directory` as Kafka has it; it waits as long as Kafka or the topic is away.
pub fn follow_directory(
    readers: &KafkaReaders,
    directory: Directory,
    closed: CancellationToken,
) -> KafkaResult<()> {
    let handle = readers.handle(Client::directory)?;
    let topic = internal::name(readers.prefix(), internal::DIRECTORY);
    let follow = Follow { handle, topic, directory, metrics: readers.metrics().clone(), closed };
    std::thread::Builder::new()
        .name("directory".to_owned())
        .spawn(move || follow.run())
        .map(drop)
        .map_err(|error| KafkaError::ClientCreation(error.to_string()))
}

struct Follow {
    handle: Arc<Handle>,
    topic: String,
    directory: Directory,
    metrics: KafkaMetrics,
    closed: CancellationToken,
}

impl Follow {
    fn run(self) {
        while let Some(partitions) = self.wait_for_topic() {
            match self.handle.assign(&self.beginning(&partitions)) {
                Ok(()) => return self.keep(partitions),
                Err(error) => tracing::error!(%error, "failed to begin to read the directory: trying again"),
            }
            std::thread::sleep(AGAIN);
        }
    }

    fn beginning(&self, partitions: &BTreeSet<i32>) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for &partition in partitions {
            // a partition that Kafka just named is no bad argument
            let _ = list.add_partition_offset(&self.topic, partition, Offset::Beginning);
        }
        list
    }

    /// The topic's partitions as Kafka has them now; none while the topic does not exist.
    fn partitions(&self, timeout: Duration) -> KafkaResult<BTreeSet<i32>> {
        let metadata = self.handle.consumer().fetch_metadata(Some(&self.topic), timeout)?;
        let topic = metadata.topics().iter().find(|topic| topic.name() == self.topic);
        Ok(topic
            .into_iter()
            .flat_map(rdkafka::metadata::MetadataTopic::partitions)
            .map(rdkafka::metadata::MetadataPartition::id)
            .collect())
    }

    /// Begins to read partitions that `known` does not have yet; what fails is tried again the next time.
    fn read_new(&self, known: &mut BTreeSet<i32>, ahead: &mut BTreeSet<i32>) {
        let Ok(found) = self.partitions(Duration::from_secs(1)) else { return };
        let new: BTreeSet<i32> = found.difference(known).copied().collect();
        if new.is_empty() {
            return;
        }
        match self.handle.assign(&self.beginning(&new)) {
            Ok(()) => {
                tracing::info!(partitions = ?new, "the directory's topic has more partitions");
                known.extend(&new);
                ahead.extend(&new);
            }
            Err(error) => tracing::error!(%error, "failed to read the directory's new partitions"),
        }
    }

    /// The topic's partitions; nothing if the process ends first.
    fn wait_for_topic(&self) -> Option<BTreeSet<i32>> {
        let mut said: Option<Instant> = None;
        while !self.closed.is_cancelled() {
            let why = match self.partitions(Duration::from_secs(3)) {
                Err(error) => error.to_string(),
                Ok(partitions) if partitions.is_empty() => "the topic does not exist".to_owned(),
                Ok(partitions) => return Some(partitions),
            };
            if said.is_none_or(|said| said.elapsed() > SAY) {
                tracing::warn!(topic = self.topic, why, "waiting for the directory");
                said = Some(Instant::now());
            }
            std::thread::sleep(AGAIN);
        }
        None
    }

    fn keep(&self, mut ahead: BTreeSet<i32>) {
        let mut view = View::new(self.directory.roster().clone());
        let begun = Instant::now();
        let mut said = begun;
        let mut known = ahead.clone();
        let mut looked = begun;
        while !self.closed.is_cancelled() {
            let ended = self.handle.poll(POLL, |event| match event {
                Ok(message) => {
                    view.apply(
                        message.partition(),
                        message.offset(),
                        message.key(),
                        message.payload(),
                        &self.metrics,
                    );
                    None
                }
                // the committed end: what a transaction wrote is there as a whole
                Err(KafkaError::PartitionEOF(partition)) => Some(partition),
                // told by the context
                Err(_) => None,
            });
            if let Some(partition) = ended.flatten() {
                ahead.remove(&partition);
                if ahead.is_empty() {
                    self.publish(&mut view, begun);
                }
            }
            if looked.elapsed() > LOOK {
                self.read_new(&mut known, &mut ahead);
                looked = Instant::now();
            }
            if !self.directory.is_ready() && said.elapsed() > SAY {
                tracing::warn!(
                    topic = self.topic,
                    "still reading the directory: its committed end was not reached"
                );
                said = Instant::now();
            }
        }
    }

    fn publish(&self, view: &mut View, begun: Instant) {
        let first = !self.directory.is_ready();
        let Some(routes) = view.settle(first) else { return };
        let topics = routes.all().count();
        let (fleets, devices) = self.directory.roster().count();
        self.metrics.directory(topics, fleets, devices);
        self.directory.publish(routes);
        if first {
            let ms = begun.elapsed().as_millis();
            tracing::info!(topics, fleets, devices, %ms, "the directory is there");
        } else {
            tracing::info!(topics, fleets, devices, "the directory changed");
        }
    }
}
