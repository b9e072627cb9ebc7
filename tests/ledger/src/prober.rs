//! A client that connects all the time, as new devices do: what it is refused is a gap in the service that connections
//! which stay open do not see. IO on a thread of its own.

use crate::mqtt::{Connection, ConnectionError};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// The time between two attempts.
pub const EVERY: Duration = Duration::from_millis(100);

/// What came of the attempts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probes {
    /// Attempts.
    pub connects: u64,
    /// Those that were not accepted within 5 s.
    pub failed: u64,
    /// Why, and how often.
    pub failed_by: BTreeMap<String, u64>,
}

/// Connects over MQTT 5 every [`EVERY`], says goodbye and counts. Dropping it ends it.
#[derive(Debug)]
pub struct Prober {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<Probes>>,
}

impl Prober {
    /// Starts to connect to `target` (`host:port`).
    ///
    /// # Errors
    /// When a thread or its runtime cannot be made.
    pub fn start(target: &str) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let ended = Arc::new(AtomicBool::new(false));
        let (target, seen) = (target.to_owned(), Arc::clone(&ended));
        let thread = std::thread::Builder::new().name("ledger-prober".to_owned()).spawn(move || {
            runtime.block_on(async {
                let mut probes = Probes::default();
                let mut open = JoinSet::new();
                let mut ticks = interval(EVERY);
                // a loop that was late itself must not make a burst of devices
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                while !seen.load(Ordering::Relaxed) {
                    ticks.tick().await;
                    open.spawn(probe(target.clone(), probes.connects));
                    probes.connects += 1;
                    while let Some(done) = open.try_join_next() {
                        count(&mut probes, done);
                    }
                }
                while let Some(done) = open.join_next().await {
                    count(&mut probes, done);
                }
                probes
            })
        })?;
        Ok(Self { ended, thread: Some(thread) })
    }

    /// Waits for the attempts that are under way.
    pub fn stop(mut self) -> Probes {
        self.finish()
    }

    fn finish(&mut self) -> Probes {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.finish();
    }
}

async fn probe(target: String, number: u64) -> Result<(), ConnectionError> {
    Connection::open(&target, &format!("prober-{number}"), 10).await?.close().await;
    Ok(())
}

fn count(probes: &mut Probes, done: Result<Result<(), ConnectionError>, tokio::task::JoinError>) {
    let why = match done {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    probes.failed += 1;
    *probes.failed_by.entry(why).or_default() += 1;
}
