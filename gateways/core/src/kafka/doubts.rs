//! Partitions that a client of Kafka gets nothing of. Pure.
//!
//! librdkafka may lose track of a partition's leader, or of all brokers, and never find it again while every other client
//! is served (github.com/confluentinc/librdkafka, issues 5301, 5430, 5593). Nothing tells: records and questions wait.
//! So whoever waits in vain says so here, and a client made beside it is asked: if Kafka serves that one for a while and
//! still not this one, the new one takes its place.

use crate::publisher::Late;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long Kafka may serve others before a client that waits is stranded: an election, a connection and a back-off.
pub(super) const GRACE: Duration = Duration::from_secs(3);
/// A doubt that nobody raised again for so long is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(15);

/// The doubts about one client.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    any: AtomicBool,
    all: Mutex<Vec<Doubt>>,
}

#[derive(Debug)]
struct Doubt {
    topic: Arc<str>,
    partition: i32,
    raised: Instant,
    /// The records that wait, of a producer; a consumer's wait is over when nobody raises the doubt again.
    late: Option<Late>,
    /// Since when Kafka serves others.
    served: Option<Instant>,
}

impl Doubts {
    fn all(&self) -> MutexGuard<'_, Vec<Doubt>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something of this partition was waited for in vain.
    pub(super) fn raise(&self, topic: &Arc<str>, partition: i32, now: Instant) {
        self.add(topic, partition, None, now);
    }

    /// Records of this partition were not confirmed in time; they wait on.
    pub(super) fn raise_late(&self, late: Late, now: Instant) {
        let topic = Arc::clone(late.topic());
        self.add(&topic, late.partition(), Some(late), now);
    }

    fn add(&self, topic: &Arc<str>, partition: i32, late: Option<Late>, now: Instant) {
        let mut all = self.all();
        match all.iter_mut().find(|doubt| doubt.topic == *topic && doubt.partition == partition) {
            Some(doubt) => doubt.raised = now,
            None => {
                all.push(Doubt { topic: Arc::clone(topic), partition, raised: now, late, served: None });
            }
        }
        self.any.store(true, Ordering::Release);
    }

    /// Something of this partition came. Called for each record: one atomic operation while there is no doubt.
    pub(super) fn dispel(&self, topic: &str, partition: i32) {
        if self.any.load(Ordering::Acquire) {
            let mut all = self.all();
            all.retain(|doubt| *doubt.topic != *topic || doubt.partition != partition);
            self.any.store(!all.is_empty(), Ordering::Release);
        }
    }

    /// The client is another one now, or waits for nothing.
    pub(super) fn clear(&self) {
        self.all().clear();
        self.any.store(false, Ordering::Release);
    }

    /// The partitions in doubt.
    pub(super) fn list(&self, now: Instant) -> Vec<(Arc<str>, i32)> {
        if !self.any.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut all = self.all();
        all.retain(|doubt| match &doubt.late {
            Some(late) => late.waits(),
            None => now.saturating_duration_since(doubt.raised) < FORGOTTEN,
        });
        all.iter().map(|doubt| (Arc::clone(&doubt.topic), doubt.partition)).collect()
    }

    /// Kafka serves another client, or it does not. Whether this one is stranded: it was in doubt all the time that the
    /// other was served.
    pub(super) fn judge(&self, topic: &str, partition: i32, served: bool, now: Instant) -> bool {
        let mut all = self.all();
        let Some(doubt) = all.iter_mut().find(|doubt| *doubt.topic == *topic && doubt.partition == partition)
        else {
            return false;
        };
        if !served {
            doubt.served = None;
            return false;
        }
        let served = *doubt.served.get_or_insert(now);
        let waited = if doubt.late.is_some() { now } else { doubt.raised };
        waited.saturating_duration_since(served) >= GRACE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn topic() -> Arc<str> {
        "t".into()
    }

    #[test]
    fn a_client_is_stranded_that_waits_in_vain_while_another_is_served() {
        let (doubts, start) = (Doubts::default(), Instant::now());
        doubts.raise(&topic(), 0, start);
        assert!(!doubts.judge("t", 0, false, start), "Kafka is away");
        for second in 1..=4 {
            let now = start + second * SECOND;
            doubts.raise(&topic(), 0, now);
            assert_eq!(doubts.judge("t", 0, true, now), second == 4, "after {second} s");
        }
    }

    #[test]
    fn what_comes_or_is_not_waited_for_any_more_leaves_no_doubt() {
        let (doubts, start) = (Doubts::default(), Instant::now());
        doubts.raise(&topic(), 0, start);
        doubts.raise(&topic(), 1, start);
        doubts.dispel("t", 0);
        assert_eq!(doubts.list(start), [(topic(), 1)]);
        assert!(!doubts.judge("t", 1, true, start));
        assert!(!doubts.judge("t", 1, true, start + 10 * SECOND), "nobody waited since");
        assert!(doubts.list(start + FORGOTTEN).is_empty());
    }

    #[test]
    fn a_kafka_that_went_again_begins_the_time_anew() {
        let (doubts, start) = (Doubts::default(), Instant::now());
        let judge = |second: u32, served| {
            let now = start + second * SECOND;
            doubts.raise(&topic(), 0, now);
            doubts.judge("t", 0, served, now)
        };
        assert!(!judge(0, true) && !judge(2, false) && !judge(4, true) && !judge(6, true));
        assert!(judge(7, true));
    }
}
