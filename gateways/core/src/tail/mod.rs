//! The live end of Kafka's topics, shared by every session of the process.
//!
//! A session is a cursor into Kafka, not a queue. One reader follows the end of every partition that a local
//! subscription needs; each record is decoded once, matched once against all subscriptions, kept in a bounded
//! ring and offered to the sessions that keep up. A reliable session that does not keep up has only its cursor
//! remembered; it catches up from the ring, or from Kafka in a sweep shared with others. IO: through a
//! [`Reader`](crate::reader::Reader) on threads of ours; the async side never blocks.

mod control;
mod follow;
mod ring;
mod session;
mod state;
mod sweep;

use crate::directory::Directory;
use crate::reader::{ReadError, Readers};
use crate::record::{Place, Record};
use crate::telemetry::{Client, TailMetrics};
use control::{Command, Control};
use session::Session;
use state::State;
use std::sync::Arc;
use sweep::Sweeper;
use tidegate_contract::Filter;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Bounds of one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// Records that wait in memory for this session at a time; more wait in Kafka.
    pub records: usize,
    /// Bytes of the same, metadata included.
    pub bytes: usize,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self { records: 256, bytes: 1 << 20 }
    }
}

/// What a subscription does when its session is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reliability {
    /// Loses what the session cannot take, counted (QoS 0).
    BestEffort,
    /// Catches up from Kafka; loses nothing inside retention (QoS 1).
    Reliable,
}

/// Names one subscription within its session; never used twice there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriptionId(pub u32);

/// What a session is given.
#[derive(Clone, Debug)]
pub enum TailEvent {
    /// A record that at least one subscription matched.
    Delivery(Delivery),
    /// Records fell out of retention before this session read them.
    Gap(Gap),
}

/// One record for one session.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The record, shared with other sessions.
    pub record: Arc<Record>,
    /// Where Kafka holds it.
    pub place: Place,
    /// Kafka's timestamp, in milliseconds since 1970 UTC.
    pub timestamp_ms: i64,
    /// The subscriptions that matched, at least one, in ascending order.
    pub matched: Vec<SubscriptionId>,
}

/// Offsets that are gone for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The topic's name in Kafka.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The first offset that is gone.
    pub from: i64,
    /// The first offset after the gap.
    pub to: i64,
}

/// Why a subscription was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TailError {
    /// Kafka did not tell the end of a partition in time; trying again may help.
    #[error("Kafka did not answer where the topic ends")]
    Unavailable,
    /// The process ends.
    #[error("the gateway ends")]
    Closed,
}

impl TailError {
    /// A constant name for metrics.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Unavailable => "KafkaUnavailable",
            Self::Closed => "Closed",
        }
    }
}

/// Bounds of what the tail keeps of each partition that it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TailLimits {
    /// Records.
    pub ring_records: usize,
    /// Bytes, metadata included; one record is kept whatever its size.
    pub ring_bytes: usize,
    /// How long a subscription waits for Kafka to tell its start, in milliseconds.
    pub subscribe_ms: u64,
}

impl Default for TailLimits {
    fn default() -> Self {
        Self { ring_records: 4096, ring_bytes: 1 << 20, subscribe_ms: 10_000 }
    }
}

/// Reads what local sessions need; one per process. Cheap to clone.
#[derive(Clone)]
pub struct Tail {
    shared: Arc<Shared>,
}

/// What the tail's threads, its task and its sessions share.
struct Shared {
    state: State,
    sweeper: Sweeper,
    commands: mpsc::Sender<Command>,
    metrics: TailMetrics,
    closed: CancellationToken,
}

/// One subscriber's subscriptions and its cursors. Dropping it ends them.
pub struct TailSession {
    shared: Arc<Shared>,
    session: Arc<Session>,
}

impl Tail {
    /// Starts the tail's two threads and its task; they end with [`Tail::close`].
    pub fn start(
        readers: &dyn Readers,
        directory: &Directory,
        limits: TailLimits,
        metrics: TailMetrics,
    ) -> Result<Self, ReadError> {
        let reader: Arc<dyn crate::reader::Reader> = readers.reader(Client::tail)?.into();
        let sweep_reader = readers.reader(Client::sweep)?;
        let (commands, queue) = mpsc::channel(1024);
        let shared = Arc::new(Shared {
            state: State::new(limits, metrics.clone()),
            sweeper: Sweeper::default(),
            commands,
            metrics,
            closed: CancellationToken::new(),
        });
        follow::spawn(Arc::clone(&shared), Arc::clone(&reader))?;
        sweep::spawn(Arc::clone(&shared), sweep_reader)?;
        tokio::spawn(Control::new(Arc::clone(&shared), reader, directory.clone(), limits).run(queue));
        Ok(Self { shared })
    }

    /// A session without subscriptions.
    pub fn session(&self, options: SessionOptions) -> TailSession {
        TailSession { shared: Arc::clone(&self.shared), session: self.shared.state.open(options) }
    }

    /// Ends the threads and the task; sessions get nothing more.
    pub fn close(&self) {
        self.shared.closed.cancel();
        self.shared.sweeper.wake();
    }
}

impl TailSession {
    /// Subscribes. On return the start position is fixed: every record that is written from now on and
    /// matches will be delivered, none that was written before the call (an acknowledgement comes later). Topics that start to overlap the
    /// filter later are picked up by themselves. The same filter again keeps its position and its id and
    /// takes the new `reliability`. If cancelled, the subscription may or may not be made: unsubscribe or drop.
    pub async fn subscribe(
        &mut self,
        filter: Filter,
        reliability: Reliability,
    ) -> Result<SubscriptionId, TailError> {
        if let Some(id) = self.session.renew(&filter, reliability) {
            return Ok(id);
        }
        let (reply, answer) = oneshot::channel();
        let session = Arc::clone(&self.session);
        let command = Command::Subscribe { session, filter, reliability, reply };
        self.shared.commands.send(command).await.map_err(|_| TailError::Closed)?;
        answer.await.unwrap_or(Err(TailError::Closed))
    }

    /// Ends a subscription; what already waits for the session because of it is still delivered. False if
    /// there was none.
    pub fn unsubscribe(&mut self, filter: &Filter) -> bool {
        let removed = self.shared.state.unsubscribe(&self.session, filter);
        if removed {
            self.shared.tidy();
        }
        removed
    }

    /// The next event. Call it only when the device can take one: what is not asked for waits in Kafka.
    /// Cancel-safe.
    pub async fn next(&mut self) -> TailEvent {
        loop {
            let next = self.session.pop();
            if next.lagging {
                let behind = self.shared.state.refill(&self.session);
                self.shared.sweeper.request(&self.session, behind);
            }
            if let Some(event) = next.event {
                return event;
            }
            if next.lagging && !self.session.is_empty() {
                continue;
            }
            self.session.woken().await;
        }
    }
}

impl Drop for TailSession {
    fn drop(&mut self) {
        self.shared.state.close(&self.session);
        self.shared.tidy();
    }
}

impl Shared {
    /// Asks for partitions that nobody needs any more to be let go. A full queue is no loss: the control task
    /// looks by itself from time to time.
    fn tidy(&self) {
        if self.state.has_idle() {
            let _ = self.commands.try_send(Command::Tidy);
        }
    }
}
