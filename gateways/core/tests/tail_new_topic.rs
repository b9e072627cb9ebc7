//! A topic that appears under many live subscriptions: what Kafka is asked for does not grow with their number.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests, too, end the test

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use support::{SOON, entry, filter};
use tidegate_contract::Routes;
use tidegate_core::reader::{Event, Partition, ReadError, Reader, Readers};
use tidegate_core::tail::{SessionOptions, TailLimits};
use tidegate_core::telemetry::{Client, TailMetrics};
use tidegate_core::{Directory, Reliability, Tail, TailSession};

/// Every topic exists and is empty.
#[derive(Clone, Default)]
struct Empty {
    questions: Arc<AtomicUsize>,
    assigned: Arc<Mutex<BTreeSet<Partition>>>,
}

impl Empty {
    fn answer(&self, partitions: &[Partition], offset: i64) -> Vec<Result<i64, ReadError>> {
        self.questions.fetch_add(1, Ordering::SeqCst);
        partitions.iter().map(|_| Ok(offset)).collect()
    }
}

impl Reader for Empty {
    fn partitions(&self, _: &str, _: Duration) -> Result<i32, ReadError> {
        Ok(3)
    }
    fn ends(&self, partitions: &[Partition], _: Duration) -> Vec<Result<i64, ReadError>> {
        self.answer(partitions, 0)
    }
    fn starts(&self, partitions: &[Partition], _: Duration) -> Vec<Result<i64, ReadError>> {
        self.answer(partitions, 0)
    }
    fn since(&self, partitions: &[Partition], _: i64, _: Duration) -> Vec<Result<i64, ReadError>> {
        self.answer(partitions, i64::MAX)
    }
    fn assign(&self, partition: &Partition, _: i64) -> Result<(), ReadError> {
        self.assigned.lock().unwrap().insert(partition.clone());
        Ok(())
    }
    fn unassign(&self, _: &Partition) -> Result<(), ReadError> {
        Ok(())
    }
    fn poll(&self, timeout: Duration) -> Option<Event> {
        std::thread::park_timeout(timeout);
        None
    }
}

impl Readers for Empty {
    fn reader(&self, _: Client) -> Result<Box<dyn Reader>, ReadError> {
        Ok(Box::new(self.clone()))
    }
}

async fn subscriber(tail: &Tail, to: &str) -> TailSession {
    let mut session = tail.session(SessionOptions::default());
    let subscribed = session.subscribe(filter(to), Reliability::Reliable);
    tokio::time::timeout(SOON, subscribed).await.unwrap().unwrap();
    session
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_topic_costs_a_few_questions_however_many_subscribe() {
    let (kafka, directory) = (Empty::default(), Directory::fixed(Routes::default()));
    let tail = Tail::start(&kafka, &directory, TailLimits::default(), TailMetrics::default()).unwrap();
    let mut sessions = Vec::new();
    for _ in 0..100 {
        sessions.push(subscriber(&tail, "#").await);
        // each at a time of its own
        let ms = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let now = ms();
        while ms() == now {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(kafka.questions.load(Ordering::SeqCst), 0);

    directory.publish(Routes::new(&[entry("late", &["late/#"], 3)]));
    support::until("the new topic is read", || kafka.assigned.lock().unwrap().len() == 3).await;
    // subscriptions are answered by the same task: it is done with the new topic then
    sessions.push(subscriber(&tail, "elsewhere").await);
    let questions = kafka.questions.load(Ordering::SeqCst);
    assert!(questions <= 5, "{questions} questions");
    tail.close();
}
