//! Bounded reads of the newest records of one address: one partition, backwards in growing windows. IO: through
//! [`Reader`]s on threads of their own.

use crate::directory::Directory;
use crate::partition::partition_of;
use crate::reader::{Event, Partition, ReadError, Reader, Readers};
use crate::record::{Place, Record};
use crate::telemetry::{Client, HistoryMetrics};
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tidegate_contract::Address;
use tokio::sync::oneshot;

/// Threads, and so reads at a time.
const READERS: usize = 2;
/// Reads that may wait for a thread.
const QUEUE: usize = 256;
/// The first window, in offsets; each further one is four times as large.
const WINDOW: i64 = 128;
/// One question to Kafka.
const ASK: Duration = Duration::from_secs(2);

/// Bounds of one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryLimits {
    /// Records looked at.
    pub records: usize,
    /// Time from its start.
    pub time: Duration,
    /// How long it may wait for its start: while Kafka is away each read before it takes as long as it may.
    pub wait: Duration,
    /// Bytes of the records in the answer, metadata included: what is asked for with a count must not fill the memory.
    pub bytes: usize,
}

impl Default for HistoryLimits {
    fn default() -> Self {
        Self { records: 10_000, time: Duration::from_secs(2), wait: Duration::from_secs(5), bytes: 16 << 20 }
    }
}

/// Reads what is stored; one per process. Cheap to clone. Its threads end with the last clone.
#[derive(Clone)]
pub struct History {
    directory: Directory,
    requests: SyncSender<Request>,
    metrics: HistoryMetrics,
}

/// One stored record.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The record.
    pub record: Arc<Record>,
    /// Where Kafka holds it.
    pub place: Place,
    /// Kafka's timestamp, in milliseconds since 1970 UTC.
    pub timestamp_ms: i64,
}

/// What a read found.
#[derive(Clone, Debug, Default)]
pub struct HistoryRead {
    /// The newest records of the address, oldest first.
    pub records: Vec<Stored>,
    /// Whether the read stopped at a bound (10,000 records looked at, 2 s, 16 MiB) before it had as many as
    /// asked for: there may be older ones.
    pub truncated: bool,
}

/// Why a read failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// No topic holds the address: permanent (HTTP 404).
    #[error("no topic holds the address")]
    NoTopic,
    /// Too many reads wait: passing (HTTP 503).
    #[error("too many reads wait")]
    Busy,
    /// Kafka did not answer: passing (HTTP 503).
    #[error("Kafka did not answer")]
    Unavailable,
}

impl HistoryError {
    /// A constant name for metrics.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NoTopic => "NoTopic",
            Self::Busy => "HistoryBusy",
            Self::Unavailable => "KafkaUnavailable",
        }
    }
}

struct Request {
    partition: Partition,
    address: Address,
    count: usize,
    asked: Instant,
    reply: oneshot::Sender<Result<HistoryRead, HistoryError>>,
}

impl History {
    /// Starts the threads.
    pub fn start(
        readers: &dyn Readers,
        directory: &Directory,
        limits: HistoryLimits,
        metrics: HistoryMetrics,
    ) -> Result<Self, ReadError> {
        let (requests, queue) = sync_channel(QUEUE);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..READERS {
            let reader = readers.reader(Client::history)?;
            let (queue, metrics) = (Arc::clone(&queue), metrics.clone());
            std::thread::Builder::new()
                .name("history".to_owned())
                .spawn(move || serve(reader.as_ref(), &queue, limits, &metrics))
                .map_err(|error| ReadError::Client(error.to_string()))?;
        }
        Ok(Self { directory: directory.clone(), requests, metrics })
    }

    /// The newest `count` records of `address`. Everything acknowledged before the call is seen.
    pub async fn last(&self, address: &Address, count: usize) -> Result<HistoryRead, HistoryError> {
        let routes = self.directory.routes();
        let route = routes.route(address).ok_or(HistoryError::NoTopic)?;
        let partition = Partition {
            topic: Arc::clone(&route.kafka_name),
            partition: partition_of(address.as_str().as_bytes(), route.partitions),
        };
        self.metrics.reads.inc();
        let (reply, answer) = oneshot::channel();
        let request = Request { partition, address: address.clone(), count, asked: Instant::now(), reply };
        self.requests.try_send(request).map_err(|error| {
            self.metrics.refused.inc();
            match error {
                TrySendError::Full(_) => HistoryError::Busy,
                TrySendError::Disconnected(_) => HistoryError::Unavailable,
            }
        })?;
        let read = answer.await.map_err(|_| HistoryError::Unavailable)??;
        if read.truncated {
            self.metrics.truncated.inc();
        }
        Ok(read)
    }
}

fn serve(
    reader: &dyn Reader,
    queue: &Mutex<Receiver<Request>>,
    limits: HistoryLimits,
    metrics: &HistoryMetrics,
) {
    loop {
        let request = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        // the last `History` is gone
        let Ok(request) = request else { return };
        if request.reply.is_closed() {
            continue;
        }
        if request.asked.elapsed() > limits.wait {
            metrics.refused.inc();
            // whoever asked may have gone
            let _ = request.reply.send(Err(HistoryError::Busy));
            continue;
        }
        let mut read = Read {
            reader,
            partition: &request.partition,
            address: &request.address,
            limits,
            deadline: Instant::now() + limits.time,
            scanned: 0,
            want: request.count,
            room: limits.bytes,
            let_go: false,
        };
        let found = read.last(request.count);
        metrics.scanned.inc_by(u64::try_from(read.scanned).unwrap_or(0));
        // whoever asked may have gone
        let _ = request.reply.send(found);
    }
}

/// One read under way.
struct Read<'a> {
    reader: &'a dyn Reader,
    partition: &'a Partition,
    address: &'a Address,
    limits: HistoryLimits,
    deadline: Instant,
    scanned: usize,
    /// Records that are still wanted, and the bytes that they may have.
    want: usize,
    room: usize,
    /// Something in the last window was let go.
    let_go: bool,
}

fn bytes_of(window: &VecDeque<Stored>) -> usize {
    window.iter().map(|stored| stored.record.memory_bytes()).sum()
}

fn answer(mut answers: Vec<Result<i64, ReadError>>) -> Result<i64, HistoryError> {
    answers.pop().and_then(Result::ok).ok_or(HistoryError::Unavailable)
}

/// How a window was read.
#[derive(PartialEq, Eq)]
enum Window {
    Whole,
    /// A bound was reached inside: what came last in it is missing.
    Cut,
}

impl Read<'_> {
    fn last(&mut self, count: usize) -> Result<HistoryRead, HistoryError> {
        if count == 0 {
            return Ok(HistoryRead::default());
        }
        let end = self.end()?;
        let start = answer(self.reader.starts(std::slice::from_ref(self.partition), ASK))?;
        // windows from the newest to the oldest, each of them oldest first
        let mut windows: Vec<VecDeque<Stored>> = Vec::new();
        let (mut to, mut size, mut full) = (end, WINDOW, false);
        loop {
            let found: usize = windows.iter().map(VecDeque::len).sum();
            let left = i64::try_from(self.limits.records - self.scanned.min(self.limits.records))
                .unwrap_or(i64::MAX);
            let done = found >= count || (to <= start && !full);
            if done || left == 0 || full || Instant::now() >= self.deadline {
                let mut records: Vec<_> = windows.into_iter().rev().flatten().collect();
                records.drain(..records.len().saturating_sub(count));
                return Ok(HistoryRead { records, truncated: !done });
            }
            let from = (to - size.min(left)).max(start);
            let mut window = VecDeque::new();
            if self.window(from, to, to == end, &mut window)? == Window::Cut {
                if to == end {
                    // what is missing is the newest: to say that there is nothing would be a lie
                    return Err(HistoryError::Unavailable);
                }
                // older ones than a hole would be a lie: only what is whole counts
                let mut records: Vec<_> = windows.into_iter().rev().flatten().collect();
                records.drain(..records.len().saturating_sub(count));
                return Ok(HistoryRead { records, truncated: true });
            }
            self.room = self.room.saturating_sub(bytes_of(&window));
            full = self.room == 0 || (self.let_go && window.len() < self.want);
            self.want = self.want.saturating_sub(window.len());
            windows.push(window);
            to = from;
            // in a compacted topic windows may hold next to nothing, so that there are many of them
            size = size.saturating_mul(4);
        }
    }

    fn end(&self) -> Result<i64, HistoryError> {
        answer(self.reader.ends(std::slice::from_ref(self.partition), ASK))
    }

    /// Reads the records of the address from `from` up to `to`; `newest` if none are behind them.
    fn window(
        &mut self,
        from: i64,
        to: i64,
        newest: bool,
        found: &mut VecDeque<Stored>,
    ) -> Result<Window, HistoryError> {
        self.assign(from)?;
        let read = self.read(from, to, newest, found);
        self.unassign()?;
        read
    }

    fn assign(&self, from: i64) -> Result<(), HistoryError> {
        self.reader.assign(self.partition, from).map_err(|_| HistoryError::Unavailable)
    }

    fn unassign(&self) -> Result<(), HistoryError> {
        self.reader.unassign(self.partition).map_err(|_| HistoryError::Unavailable)
    }

    fn read(
        &mut self,
        from: i64,
        to: i64,
        newest: bool,
        found: &mut VecDeque<Stored>,
    ) -> Result<Window, HistoryError> {
        let (mut held, mut next, mut end_is_certain) = (0, from, !newest);
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            match self.reader.poll(left) {
                Some(Event::Record(raw)) if raw.partition != *self.partition => {}
                Some(Event::Record(raw)) => {
                    if raw.offset >= to {
                        return Ok(Window::Whole);
                    }
                    self.scanned += 1;
                    next = raw.offset + 1;
                    let raw = *raw;
                    let last = next >= to;
                    if let Some(record) = raw.record.ok().filter(|record| record.address == *self.address) {
                        let place = Place {
                            topic: raw.partition.topic,
                            partition: raw.partition.partition,
                            offset: raw.offset,
                        };
                        held += record.memory_bytes();
                        found.push_back(Stored { record, place, timestamp_ms: raw.timestamp_ms });
                        // the newest ones count, and one is kept whatever its size
                        while found.len() > 1 && (found.len() > self.want || held > self.room) {
                            self.let_go = true;
                            held -= found.pop_front().map_or(0, |oldest| oldest.record.memory_bytes());
                        }
                    }
                    if last {
                        return Ok(Window::Whole);
                    }
                }
                // A broker that has just become the leader may not know yet how much is committed; when it tells where
                // the partition ends, it does.
                Some(Event::End) if !end_is_certain => {
                    end_is_certain = self.end().is_ok();
                    self.unassign()?;
                    self.assign(next)?;
                }
                Some(Event::End) => return Ok(Window::Whole),
                // retention took the window away while we read, or a broker went: not to be told from a hole
                Some(Event::OutOfRange) => return Ok(Window::Cut),
                Some(Event::Error(error)) => tracing::debug!(error, "a history reader reported an error"),
                None if Instant::now() >= self.deadline => {
                    self.reader.in_vain(self.partition);
                    return Ok(Window::Cut);
                }
                None => {}
            }
        }
    }
}
