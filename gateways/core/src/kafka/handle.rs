//! A consumer with manual assignment that can be replaced by another one between two calls, which goes on where it
//! was. No IO of its own.

use super::context::Context;
use super::credentials::Switch;
use super::doubts::Doubts;
use crate::telemetry::{Client, KafkaMetrics};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaResult;
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

pub(super) type Consumer = BaseConsumer<Context>;

/// A consumer that is stranded takes no other's place within this.
const STRANDED_AGAIN: Duration = Duration::from_secs(30);

/// Makes a consumer, with what the credentials' files hold at that moment.
pub(super) type New = Box<dyn Fn() -> KafkaResult<Consumer> + Send + Sync>;

/// The consumer and its positions.
pub(super) struct Handle {
    client: Client,
    metrics: KafkaMetrics,
    new: New,
    /// Read while it is used, written while it is replaced.
    current: RwLock<Consumer>,
    /// Takes the place of the current one when it is next asked for something.
    next: Mutex<Option<Consumer>>,
    positions: Mutex<Positions>,
    /// Questions without an answer.
    pub(super) asked: Doubts,
    /// Reads that gave nothing.
    pub(super) read: Doubts,
    /// When it was last replaced because it was stranded.
    stranded: Mutex<Option<Instant>>,
}

/// The offset that each assigned partition is to give next, by topic and partition.
#[derive(Default)]
struct Positions(HashMap<Arc<str>, HashMap<i32, Offset>>);

impl Handle {
    pub(super) fn new(client: Client, metrics: KafkaMetrics, new: New) -> KafkaResult<Self> {
        let current = new()?;
        Ok(Self {
            client,
            metrics,
            new,
            current: RwLock::new(current),
            next: Mutex::default(),
            positions: Mutex::default(),
            asked: Doubts::default(),
            read: Doubts::default(),
            stranded: Mutex::default(),
        })
    }

    /// Makes the consumer that shall replace this one.
    pub(super) fn prepare(self: &Arc<Self>) -> KafkaResult<Switch> {
        let new = (self.new)()?;
        let handle = Arc::clone(self);
        Ok(Box::new(move || *lock(&handle.next) = Some(new)))
    }

    /// The consumer, for questions; changes of the assignment and polls have functions of their own.
    pub(super) fn consumer(&self) -> RwLockReadGuard<'_, Consumer> {
        self.replace();
        self.current.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to read partitions from an offset each.
    pub(super) fn assign(&self, list: &TopicPartitionList) -> KafkaResult<()> {
        let consumer = self.consumer();
        consumer.incremental_assign(list)?;
        lock(&self.positions).add(list);
        Ok(())
    }

    /// Ends reading partitions.
    pub(super) fn unassign(&self, list: &TopicPartitionList) -> KafkaResult<()> {
        let consumer = self.consumer();
        lock(&self.positions).remove(list);
        consumer.incremental_unassign(list)
    }

    /// Gives the next event to `take`. Only one thread may poll.
    pub(super) fn poll<T>(
        &self,
        timeout: Duration,
        take: impl FnOnce(KafkaResult<BorrowedMessage<'_>>) -> T,
    ) -> Option<T> {
        let consumer = self.consumer();
        let event = consumer.poll(timeout)?;
        if let Ok(message) = &event {
            lock(&self.positions).read(message.topic(), message.partition(), message.offset());
            self.read.dispel(message.topic(), message.partition());
        }
        Some(take(event))
    }

    /// Whether somebody polls all the time, so that a record that does not come is missed.
    pub(super) fn listens(&self) -> bool {
        matches!(self.client, Client::tail | Client::directory)
    }

    /// What is assigned, with the offset that each partition is to give next.
    pub(super) fn positions(&self) -> TopicPartitionList {
        lock(&self.positions).list()
    }

    pub(super) fn position(&self, topic: &str, partition: i32) -> Option<Offset> {
        lock(&self.positions).0.get(topic)?.get(&partition).copied()
    }

    /// Takes another consumer: this one is stranded. Not twice within half a minute, for a new one needs its time too.
    pub(super) fn renew(&self, topic: &str, partition: i32) {
        let mut stranded = lock(&self.stranded);
        if stranded.is_some_and(|stranded| stranded.elapsed() < STRANDED_AGAIN) {
            return;
        }
        match (self.new)() {
            Ok(new) => {
                tracing::warn!(
                    client = self.client.name(),
                    topic,
                    partition,
                    "Kafka's client gets nothing of a partition that Kafka serves to another: it is renewed"
                );
                self.metrics.stranded(self.client);
                *lock(&self.next) = Some(new);
                self.asked.clear();
                self.read.clear();
                *stranded = Some(Instant::now());
            }
            Err(error) => {
                self.metrics.error(self.client, &error, "failed to create a new client", true);
            }
        }
    }

    fn replace(&self) {
        if lock(&self.next).is_none() {
            return;
        }
        // waits for whoever uses the old one; nobody waits for it longer than a poll or a question takes
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let Some(new) = lock(&self.next).take() else { return };
        if let Err(error) = new.assign(&lock(&self.positions).list()) {
            // positions that one consumer took, another takes: the old one goes on, if it can
            tracing::error!(%error, client = self.client.name(), "failed to go on reading with a new Kafka client");
            return;
        }
        let old = std::mem::replace(&mut *current, new);
        drop(current);
        retire(old);
    }
}

/// Frees a consumer on a thread of its own: that may take as long as its connections do.
fn retire(old: Consumer) {
    // without a thread it is freed here
    let _ = std::thread::Builder::new().name("kafka retire".to_owned()).spawn(move || drop(old));
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Positions {
    fn add(&mut self, list: &TopicPartitionList) {
        for element in list.elements() {
            let known = self.0.keys().find(|topic| ***topic == *element.topic()).cloned();
            let topic = known.unwrap_or_else(|| element.topic().into());
            self.0.entry(topic).or_default().insert(element.partition(), element.offset());
        }
    }

    fn remove(&mut self, list: &TopicPartitionList) {
        for element in list.elements() {
            if let Some(partitions) = self.0.get_mut(element.topic()) {
                partitions.remove(&element.partition());
                if partitions.is_empty() {
                    self.0.remove(element.topic());
                }
            }
        }
    }

    /// A record was given to whoever polls. One of an assignment that was ended meanwhile changes nothing.
    fn read(&mut self, topic: &str, partition: i32, offset: i64) {
        if let Some(position) = self.0.get_mut(topic).and_then(|partitions| partitions.get_mut(&partition))
            && !matches!(position, Offset::Offset(next) if *next > offset)
        {
            *position = Offset::Offset(offset + 1);
        }
    }

    fn list(&self) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for (topic, partitions) in &self.0 {
            for (partition, offset) in partitions {
                // librdkafka took the same partition and offset before
                let _ = list.add_partition_offset(topic, *partition, *offset);
            }
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(partition: i32, offset: Offset) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("t", partition, offset).unwrap();
        list
    }

    #[test]
    fn a_position_is_behind_the_last_record_that_was_given_away() {
        let mut positions = Positions::default();
        positions.add(&list(0, Offset::Offset(5)));
        positions.add(&list(1, Offset::Beginning));
        let of = |positions: &Positions, partition| {
            positions.list().find_partition("t", partition).map(|found| found.offset())
        };
        assert_eq!(of(&positions, 0), Some(Offset::Offset(5)));
        positions.read("t", 0, 7);
        // of an earlier assignment
        positions.read("t", 0, 3);
        positions.read("t", 9, 3);
        assert_eq!(of(&positions, 0), Some(Offset::Offset(8)));
        assert_eq!(of(&positions, 1), Some(Offset::Beginning));
        positions.read("t", 1, 0);
        assert_eq!(of(&positions, 1), Some(Offset::Offset(1)));
        positions.remove(&list(0, Offset::Invalid));
        assert_eq!((of(&positions, 0), of(&positions, 9)), (None, None));
    }
}
