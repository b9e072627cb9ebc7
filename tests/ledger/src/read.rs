//! Reads what Kafka holds of a run, partition by partition, from start offsets to the end that it saw. IO.

use crate::kafka::KafkaOptions;
use crate::payload::{PayloadError, RunId, decode};
use crate::stored::{Line, StoredRecord, TimeKind};
use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::TopicPartitionList;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::str::FromStr;
use std::time::{Duration, Instant};

/// One request to a broker takes this long at most.
const REQUEST: Duration = Duration::from_secs(20);

/// The next offset of each partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offsets(pub BTreeMap<i32, i64>);

impl std::fmt::Display for Offsets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (place, (partition, offset)) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(f, "{comma}{partition}:{offset}")?;
        }
        Ok(())
    }
}

impl FromStr for Offsets {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let pair = |text: &str| {
            let (partition, offset) = text.split_once(':')?;
            Some((partition.parse().ok()?, offset.parse().ok()?))
        };
        let pairs: Option<_> = text.trim().split(',').map(pair).collect();
        pairs.map(Self).ok_or_else(|| "write PARTITION:OFFSET,PARTITION:OFFSET,…".to_owned())
    }
}

/// Why reading failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The client could not be made or a broker refused.
    #[error("failed to read from Kafka: {0}")]
    Kafka(#[from] KafkaError),
    /// There is no such topic.
    #[error("failed to find the Kafka topic {0:?}")]
    NoTopic(String),
    /// The output failed.
    #[error("failed to write what was read")]
    Output(#[from] io::Error),
    /// Nothing came for a long time before the end was reached.
    #[error("failed to reach the end of partition {0} within {1:?}")]
    Stuck(i32, Duration),
}

/// The next offset of every partition of `topic`: what a read after this starts from.
pub fn ends(kafka: &KafkaOptions, topic: &str) -> Result<Offsets, ReadError> {
    let consumer: BaseConsumer = kafka.client().create()?;
    watermarks(&consumer, topic)
        .map(|marks| Offsets(marks.into_iter().map(|(id, (_, high))| (id, high)).collect()))
}

/// The broker that leads each partition of `topic`; -1 where nobody does.
pub fn leaders(kafka: &KafkaOptions, topic: &str) -> Result<BTreeMap<i32, i32>, ReadError> {
    let consumer: BaseConsumer = kafka.client().create()?;
    let metadata = consumer.fetch_metadata(Some(topic), REQUEST)?;
    let found = metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none());
    let found = found.ok_or_else(|| ReadError::NoTopic(topic.to_owned()))?;
    Ok(found.partitions().iter().map(|partition| (partition.id(), partition.leader())).collect())
}

fn watermarks(consumer: &BaseConsumer, topic: &str) -> Result<BTreeMap<i32, (i64, i64)>, ReadError> {
    let metadata = consumer.fetch_metadata(Some(topic), REQUEST)?;
    let found = metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none());
    let found = found.filter(|found| !found.partitions().is_empty());
    let partitions = found.ok_or_else(|| ReadError::NoTopic(topic.to_owned()))?.partitions();
    partitions
        .iter()
        .map(|partition| {
            let marks = consumer.fetch_watermarks(topic, partition.id(), REQUEST)?;
            Ok((partition.id(), marks))
        })
        .collect()
}

/// Writes a line for every record of `run` in `topic` from `from` on (without it: from the first record) to the end as
/// it is now, then the end line. With `address` (as in the load's options) each record's key is checked too. Partitions are read one after the other, so that the lines of each are in order.
pub fn stored(
    kafka: &KafkaOptions,
    topic: &str,
    run: RunId,
    from: Option<&Offsets>,
    address: Option<&str>,
    output: impl Write,
) -> Result<u64, ReadError> {
    let mut output = io::BufWriter::new(output);
    let consumer: BaseConsumer = kafka
        .client()
        // Assigned by hand; a group id is required all the same and no offset is ever committed.
        .set("group.id", "ledger")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "false")
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_uncommitted")
        .set("check.crcs", "true")
        .create()?;
    let (mut records, mut others) = (0, 0);
    writeln!(output, "{}", Line::Head { run, topic: topic.to_owned() })?;
    for (partition, (low, high)) in watermarks(&consumer, topic)? {
        let start = from.and_then(|from| from.0.get(&partition).copied()).unwrap_or(low).max(low);
        if start >= high {
            continue;
        }
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(start))?;
        consumer.assign(&list)?;
        let mut heard = Instant::now();
        // The position, not the last record: control markers and gaps take offsets too.
        while position(&consumer, topic, partition)?.unwrap_or(start) < high {
            let Some(message) = consumer.poll(Duration::from_millis(200)) else {
                if heard.elapsed() > REQUEST {
                    return Err(ReadError::Stuck(partition, REQUEST));
                }
                continue;
            };
            heard = Instant::now();
            let message = match message {
                Ok(message) => message,
                Err(error) if passing(&error) => continue,
                Err(error) => return Err(error.into()),
            };
            if message.offset() >= high {
                break;
            }
            match line(&message, run, address) {
                Some(line) => {
                    writeln!(output, "{line}")?;
                    records += 1;
                }
                None => others += 1,
            }
        }
    }
    writeln!(output, "{}", Line::End { records, others })?;
    output.flush()?;
    Ok(records)
}

fn position(consumer: &BaseConsumer, topic: &str, partition: i32) -> Result<Option<i64>, KafkaError> {
    let positions = consumer.position()?;
    Ok(positions.find_partition(topic, partition).and_then(|element| match element.offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    }))
}

/// librdkafka tells of a broker that went away and goes on by itself.
fn passing(error: &KafkaError) -> bool {
    use rdkafka::types::RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(Code::BrokerTransportFailure | Code::AllBrokersDown | Code::OperationTimedOut | Code::Resolve)
    )
}

fn line(message: &BorrowedMessage<'_>, run: RunId, address: Option<&str>) -> Option<Line> {
    let (partition, offset) = (message.partition(), message.offset());
    let (time_ms, kind) = match message.timestamp() {
        rdkafka::Timestamp::LogAppendTime(ms) => (ms, TimeKind::Append),
        rdkafka::Timestamp::CreateTime(ms) => (ms, TimeKind::Create),
        rdkafka::Timestamp::NotAvailable => (-1, TimeKind::Create),
    };
    let payload = message.payload().unwrap_or_default();
    match decode(payload) {
        Ok(stamp) if stamp.run == run => {
            let (publisher, sequence) = (stamp.publisher, stamp.sequence);
            let key = address.map(|address| crate::load::address_of(address, run, publisher));
            if key.is_some_and(|key| message.key() != Some(key.as_bytes())) {
                return Some(Line::Altered { partition, offset });
            }
            Some(Line::Record(StoredRecord { partition, offset, time_ms, kind, publisher, sequence }))
        }
        Err(PayloadError::Altered) if payload.starts_with(run.as_str().as_bytes()) => {
            Some(Line::Altered { partition, offset })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_read_back() {
        let offsets: Offsets = "0:5,1:0,12:99".parse().unwrap();
        assert_eq!(offsets.to_string(), "0:5,1:0,12:99");
        assert!("0".parse::<Offsets>().is_err() && "".parse::<Offsets>().is_err());
    }
}
