//! The consumers: manual assignment, one position per partition.

use super::context::Context;
use super::credentials::{Renew, Switch};
use super::handle::{Handle, New};
use super::witness::{self, Made};
use crate::reader::{Event, Partition, RawRecord, ReadError, Reader, Readers};
use crate::record::Record;
use crate::telemetry::{Client, KafkaMetrics};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tidegate_contract::config::KafkaConfig;

/// Makes consumers.
pub struct KafkaReaders {
    kafka: KafkaConfig,
    id: String,
    metrics: KafkaMetrics,
    /// For new credentials, and for whoever looks whether one is stranded.
    made: Arc<Made>,
}

impl KafkaReaders {
    /// Consumers that call themselves `id` in Kafka's logs.
    pub fn new(kafka: &KafkaConfig, id: &str, metrics: KafkaMetrics) -> Self {
        let readers = Self { kafka: kafka.clone(), id: id.to_owned(), metrics, made: Arc::default() };
        if let Err(error) = witness::look_after(&readers.made, readers.consumers(Client::witness)) {
            tracing::error!(%error, "nobody looks whether Kafka's clients are stranded");
        }
        readers
    }

    fn consumers(&self, client: Client) -> New {
        let (kafka, id, metrics) = (self.kafka.clone(), self.id.clone(), self.metrics.clone());
        Box::new(move || {
            let context = Context::new(client, metrics.clone());
            super::consumer(&kafka, client, &id)?.create_with_context(context)
        })
    }

    pub(super) fn handle(&self, client: Client) -> KafkaResult<Arc<Handle>> {
        let handle = Arc::new(Handle::new(client, self.metrics.clone(), self.consumers(client))?);
        self.made.add(&handle);
        Ok(handle)
    }

    pub(super) fn prefix(&self) -> &str {
        &self.kafka.prefix
    }

    pub(super) const fn metrics(&self) -> &KafkaMetrics {
        &self.metrics
    }
}

impl Readers for KafkaReaders {
    fn reader(&self, client: Client) -> Result<Box<dyn Reader>, ReadError> {
        let handle = self.handle(client).map_err(|error| ReadError::Client(error.to_string()))?;
        Ok(Box::new(KafkaReader { handle, names: Mutex::default() }))
    }
}

impl Renew for KafkaReaders {
    fn prepare(&self) -> KafkaResult<Switch> {
        let switches: KafkaResult<Vec<_>> = self.made.live().iter().map(Handle::prepare).collect();
        let switches = switches?;
        Ok(Box::new(move || switches.into_iter().for_each(|switch| switch())))
    }
}

struct KafkaReader {
    handle: Arc<Handle>,
    /// Topic names as records carry them: one allocation per topic, not per record.
    names: Mutex<HashMap<Box<str>, Arc<str>>>,
}

impl KafkaReader {
    fn name(&self, topic: &str) -> Arc<str> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = names.get(topic) {
            return Arc::clone(name);
        }
        let name: Arc<str> = topic.into();
        names.insert(topic.into(), Arc::clone(&name));
        name
    }

    fn record(&self, message: &BorrowedMessage<'_>) -> RawRecord {
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        RawRecord {
            partition: Partition { topic: self.name(message.topic()), partition: message.partition() },
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
            record: Record::decode(
                message.key(),
                message.payload(),
                headers.map(|header| (header.key, header.value)),
            )
            .map(Arc::new),
        }
    }

    /// Asks the partitions' leaders, one request each.
    fn offsets(
        &self,
        partitions: &[Partition],
        question: Offset,
        timeout: Duration,
    ) -> Vec<Result<i64, ReadError>> {
        let answers: Vec<_> = match self.ask(partitions, question, timeout) {
            Err(error) => {
                let error = read_error(&error);
                partitions.iter().map(|_| Err(error.clone())).collect()
            }
            Ok(answers) => partitions
                .iter()
                .map(|partition| {
                    let answer = answers
                        .find_partition(&partition.topic, partition.partition)
                        .ok_or(ReadError::Unavailable)?;
                    answer.error().map_err(|error| read_error(&error))?;
                    match answer.offset() {
                        Offset::Offset(offset) => Ok(offset),
                        // no record at or after that time
                        Offset::End if !matches!(question, Offset::End) => Ok(i64::MAX),
                        _ => Err(ReadError::Unavailable),
                    }
                })
                .collect(),
        };
        for (partition, answer) in partitions.iter().zip(&answers) {
            match answer {
                Ok(_) => self.handle.asked.dispel(&partition.topic, partition.partition),
                Err(_) => self.handle.asked.raise(&partition.topic, partition.partition, Instant::now()),
            }
        }
        answers
    }

    fn ask(
        &self,
        partitions: &[Partition],
        question: Offset,
        timeout: Duration,
    ) -> KafkaResult<TopicPartitionList> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition_offset(&partition.topic, partition.partition, question)?;
        }
        self.handle.consumer().offsets_for_times(list, timeout)
    }
}

fn read_error(error: &KafkaError) -> ReadError {
    match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::UnknownTopicOrPartition,
        ) => ReadError::UnknownPartition,
        _ => ReadError::Unavailable,
    }
}

fn list_of(partition: &Partition, offset: Option<i64>) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(1);
    match offset {
        Some(offset) => {
            list.add_partition_offset(&partition.topic, partition.partition, Offset::Offset(offset))?;
        }
        None => drop(list.add_partition(&partition.topic, partition.partition)),
    }
    Ok(list)
}

impl Reader for KafkaReader {
    fn partitions(&self, topic: &str, timeout: Duration) -> Result<i32, ReadError> {
        let metadata = self.handle.consumer().fetch_metadata(Some(topic), timeout);
        let metadata = metadata.map_err(|error| read_error(&error))?;
        let topic = metadata
            .topics()
            .iter()
            .find(|known| known.name() == topic)
            .ok_or(ReadError::UnknownPartition)?;
        if topic.error().is_some() || topic.partitions().is_empty() {
            return Err(ReadError::UnknownPartition);
        }
        i32::try_from(topic.partitions().len()).map_err(|_| ReadError::UnknownPartition)
    }

    fn ends(&self, partitions: &[Partition], timeout: Duration) -> Vec<Result<i64, ReadError>> {
        self.offsets(partitions, Offset::End, timeout)
    }

    fn starts(&self, partitions: &[Partition], timeout: Duration) -> Vec<Result<i64, ReadError>> {
        self.offsets(partitions, Offset::Beginning, timeout)
    }

    fn since(
        &self,
        partitions: &[Partition],
        time_ms: i64,
        timeout: Duration,
    ) -> Vec<Result<i64, ReadError>> {
        self.offsets(partitions, Offset::Offset(time_ms), timeout)
    }

    fn assign(&self, partition: &Partition, from: i64) -> Result<(), ReadError> {
        list_of(partition, Some(from))
            .and_then(|list| self.handle.assign(&list))
            .map_err(|error| ReadError::Client(error.to_string()))
    }

    fn unassign(&self, partition: &Partition) -> Result<(), ReadError> {
        list_of(partition, None)
            .and_then(|list| self.handle.unassign(&list))
            .map_err(|error| ReadError::Client(error.to_string()))
    }

    fn in_vain(&self, partition: &Partition) {
        self.handle.read.raise(&partition.topic, partition.partition, Instant::now());
    }

    fn poll(&self, timeout: Duration) -> Option<Event> {
        self.handle.poll(timeout, |event| match event {
            Ok(message) => Event::Record(Box::new(self.record(&message))),
            Err(KafkaError::PartitionEOF(_)) => Event::End,
            Err(error) => match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                    Event::OutOfRange
                }
                _ => Event::Error(error.to_string()),
            },
        })
    }
}
