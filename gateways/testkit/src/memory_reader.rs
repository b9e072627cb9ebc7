//! A reader of Kafka in memory, with librdkafka's manners.

use crate::memory::{Log, MemoryKafka, State};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tidegate_core::reader::{Event, Partition, ReadError, Reader};
use tidegate_core::telemetry::Client;

pub(crate) struct MemoryReader {
    kafka: MemoryKafka,
    tells_end: bool,
    positions: Mutex<BTreeMap<Partition, Position>>,
}

struct Position {
    next: i64,
    told_end: bool,
    /// Out of range: reads no more until it is assigned again.
    stuck: bool,
}

impl MemoryReader {
    pub(crate) fn new(kafka: MemoryKafka, client: Client) -> Self {
        Self { kafka, tells_end: client != Client::tail, positions: Mutex::default() }
    }

    fn each(&self, partitions: &[Partition], answer: impl Fn(&Log) -> i64) -> Vec<Result<i64, ReadError>> {
        let state = self.kafka.shared.lock();
        let one = |partition| {
            if state.away {
                return Err(ReadError::Unavailable);
            }
            state.logs.get(partition).map(&answer).ok_or(ReadError::UnknownPartition)
        };
        partitions.iter().map(one).collect()
    }

    fn event(&self, state: &State) -> Option<Event> {
        if state.away {
            return None;
        }
        let mut positions = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
        for (partition, position) in positions.iter_mut().filter(|(_, position)| !position.stuck) {
            let Some(log) = state.logs.get(partition) else { continue };
            if position.next < log.start || position.next > log.end() {
                position.stuck = true;
                return Some(Event::OutOfRange);
            }
            while position.next < log.end() {
                let entry =
                    usize::try_from(position.next - log.start).ok().and_then(|at| log.entries.get(at));
                position.next += 1;
                position.told_end = false;
                if let Some(Some(raw)) = entry {
                    return Some(Event::Record(Box::new(raw.clone())));
                }
            }
            if self.tells_end && !position.told_end {
                position.told_end = true;
                return Some(Event::End);
            }
        }
        None
    }
}

impl Reader for MemoryReader {
    fn partitions(&self, topic: &str, _timeout: Duration) -> Result<i32, ReadError> {
        let state = self.kafka.shared.lock();
        let count = state.logs.keys().filter(|partition| *partition.topic == *topic).count();
        i32::try_from(count).ok().filter(|count| *count > 0).ok_or(ReadError::UnknownPartition)
    }

    fn ends(&self, partitions: &[Partition], _timeout: Duration) -> Vec<Result<i64, ReadError>> {
        self.each(partitions, Log::end)
    }

    fn starts(&self, partitions: &[Partition], _timeout: Duration) -> Vec<Result<i64, ReadError>> {
        self.each(partitions, |log| log.start)
    }

    fn since(
        &self,
        partitions: &[Partition],
        time_ms: i64,
        _timeout: Duration,
    ) -> Vec<Result<i64, ReadError>> {
        self.each(partitions, |log| {
            let found = log.entries.iter().flatten().find(|raw| raw.timestamp_ms >= time_ms);
            found.map_or(i64::MAX, |raw| raw.offset)
        })
    }

    fn assign(&self, partition: &Partition, from: i64) -> Result<(), ReadError> {
        let position = Position { next: from, told_end: false, stuck: false };
        self.positions.lock().unwrap_or_else(PoisonError::into_inner).insert(partition.clone(), position);
        self.kafka.shared.tell();
        Ok(())
    }

    fn unassign(&self, partition: &Partition) -> Result<(), ReadError> {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner).remove(partition);
        Ok(())
    }

    fn poll(&self, timeout: Duration) -> Option<Event> {
        let until = Instant::now() + timeout;
        let mut state = self.kafka.shared.lock();
        loop {
            if let Some(event) = self.event(&state) {
                return Some(event);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            state = self.kafka.shared.wait(state, left);
        }
    }
}
