//! The task that registers subscriptions and decides which partitions are read. It asks Kafka on a blocking
//! thread; whatever comes meanwhile is asked together the next time.

use super::state::Registration;
use super::{Reliability, Shared, SubscriptionId, TailError, TailLimits};
use crate::directory::Directory;
use crate::partition::partition_of;
use crate::reader::{Partition, ReadError, Reader};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tidegate_contract::filter::Level;
use tidegate_contract::{Filter, Routes};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::session::Session;

/// How long one question to Kafka may take.
const ASK: Duration = Duration::from_secs(2);
/// How soon an unanswered question is asked again.
const AGAIN: Duration = Duration::from_millis(100);
/// How often partitions that Kafka did not know are asked for again.
const LATER: Duration = Duration::from_secs(1);
/// A topic that appears after a subscription is read from the subscription's time on; clocks differ by less.
const CLOCK_SKEW_MS: i64 = 5_000;

pub(super) enum Command {
    Subscribe {
        session: Arc<Session>,
        filter: Filter,
        reliability: Reliability,
        reply: oneshot::Sender<Result<SubscriptionId, TailError>>,
    },
    /// Partitions may have lost their last reader.
    Tidy,
    /// A position of the tail is not in Kafka any more.
    Recover,
}

pub(super) struct Control {
    shared: Arc<Shared>,
    reader: Arc<dyn Reader>,
    directory: Directory,
    limits: TailLimits,
    pending: Vec<Pending>,
    /// Partitions that live subscriptions need and that are not read yet.
    later: Vec<Later>,
    recover: bool,
}

/// A subscription that waits for Kafka to tell its start.
struct Pending {
    session: Arc<Session>,
    filter: Filter,
    reliability: Reliability,
    reply: oneshot::Sender<Result<SubscriptionId, TailError>>,
    since_ms: i64,
    deadline: Instant,
    /// Nothing: not answered yet.
    ends: BTreeMap<Partition, Option<Result<i64, ReadError>>>,
}

#[derive(Clone)]
struct Later {
    session: Arc<Session>,
    id: SubscriptionId,
    partition: Partition,
    since_ms: i64,
}

impl Control {
    pub(super) fn new(
        shared: Arc<Shared>,
        reader: Arc<dyn Reader>,
        directory: Directory,
        limits: TailLimits,
    ) -> Self {
        Self { shared, reader, directory, limits, pending: Vec::new(), later: Vec::new(), recover: false }
    }

    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let closed = self.shared.closed.clone();
        let mut changed = self.directory.changed();
        let mut ticks = interval(LATER);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::new();
        while !closed.is_cancelled() {
            self.wait(&mut commands, &mut batch, &mut changed, &mut ticks).await;
            for command in batch.drain(..) {
                self.take(command);
            }
            self.let_go().await;
            if std::mem::take(&mut self.recover) {
                self.recover().await;
            }
            self.answer().await;
        }
        // the answers' senders are dropped with `self`: those who wait are told that it is over
    }

    async fn wait(
        &mut self,
        commands: &mut mpsc::Receiver<Command>,
        batch: &mut Vec<Command>,
        changed: &mut watch::Receiver<u64>,
        ticks: &mut tokio::time::Interval,
    ) {
        let closed = self.shared.closed.clone();
        tokio::select! {
            () = closed.cancelled() => {}
            _ = commands.recv_many(batch, 1024) => {}
            Ok(()) = changed.changed() => {
                self.overlap_again();
                self.pick_up().await;
            }
            _ = ticks.tick() => {
                self.pick_up().await;
                batch.push(Command::Tidy);
            }
            () = tokio::time::sleep(AGAIN), if !self.pending.is_empty() => {}
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Tidy => {}
            Command::Recover => self.recover = true,
            Command::Subscribe { session, filter, reliability, reply } => {
                let ends =
                    needed(&filter, &self.directory.routes()).into_iter().map(|each| (each, None)).collect();
                self.pending.push(Pending {
                    session,
                    filter,
                    reliability,
                    reply,
                    since_ms: now_ms(),
                    deadline: Instant::now() + Duration::from_millis(self.limits.subscribe_ms),
                    ends,
                });
            }
        }
    }

    /// Asks for the ends that pending subscriptions need, all together, and finishes those that have theirs.
    async fn answer(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let missing: BTreeSet<_> = self
            .pending
            .iter()
            .flat_map(|pending| pending.ends.iter().filter(|(_, end)| end.is_none()))
            .map(|(partition, _)| partition.clone())
            .collect();
        let answers = self.ask(missing.into_iter().collect(), |reader, all| reader.ends(all, ASK)).await;
        let answers: BTreeMap<_, _> = answers.into_iter().collect();
        for pending in &mut self.pending {
            for (partition, end) in &mut pending.ends {
                match answers.get(partition) {
                    Some(answer @ (Ok(_) | Err(ReadError::UnknownPartition))) if end.is_none() => {
                        *end = Some(answer.clone());
                    }
                    _ => {}
                }
            }
        }
        let now = Instant::now();
        let done = self.pending.extract_if(.., |pending| {
            pending.deadline <= now || pending.reply.is_closed() || pending.ends.values().all(Option::is_some)
        });
        for pending in done.collect::<Vec<_>>() {
            self.finish(pending).await;
        }
    }

    async fn finish(&mut self, pending: Pending) {
        if pending.ends.values().any(Option::is_none) {
            // whoever asked may have gone
            let _ = pending.reply.send(Err(TailError::Unavailable));
            return;
        }
        let mut registration = Registration {
            session: pending.session,
            filter: pending.filter,
            reliability: pending.reliability,
            since_ms: pending.since_ms,
            ends: Vec::new(),
        };
        let mut unknown = Vec::new();
        for (partition, end) in pending.ends {
            match end {
                Some(Ok(end)) => registration.ends.push((partition, end)),
                _ => unknown.push(partition),
            }
        }
        let Some((id, assign)) = self.shared.state.register(&registration) else {
            let _ = pending.reply.send(Err(TailError::Closed));
            return;
        };
        let (session, since_ms) = (registration.session, registration.since_ms);
        self.later.extend(unknown.into_iter().map(|partition| Later {
            session: Arc::clone(&session),
            id,
            partition,
            since_ms,
        }));
        // the position is fixed already: reading may begin after the answer
        let _ = pending.reply.send(Ok(id));
        self.assign(assign).await;
    }

    async fn assign(&self, partitions: Vec<(Partition, i64)>) {
        if partitions.is_empty() {
            return;
        }
        let reader = Arc::clone(&self.reader);
        blocking(move || {
            for (partition, from) in &partitions {
                // one that is refused is no reason to leave the others unread
                if let Err(error) = reader.assign(partition, *from) {
                    tracing::error!(%error, %partition, "failed to begin to read a partition");
                }
            }
        })
        .await;
    }

    async fn let_go(&self) {
        let idle = self.shared.state.take_idle();
        if idle.is_empty() {
            return;
        }
        let reader = Arc::clone(&self.reader);
        blocking(move || {
            for partition in &idle {
                if let Err(error) = reader.unassign(partition) {
                    tracing::error!(%error, %partition, "failed to end reading a partition");
                }
            }
        })
        .await;
    }

    /// The directory changed: live subscriptions may need more partitions. None is taken away from them: records
    /// that were on their way by the old routes may still come.
    fn overlap_again(&mut self) {
        let routes = self.directory.routes();
        let waits: HashSet<_> =
            self.later.iter().map(|later| (later.session.key, later.id, later.partition.clone())).collect();
        for known in self.shared.state.known() {
            for partition in needed(&known.filter, &routes) {
                let waits = waits.contains(&(known.session.key, known.id, partition.clone()));
                if !waits && !known.partitions.contains(&partition) {
                    let (session, id, since_ms) = (Arc::clone(&known.session), known.id, known.since_ms);
                    self.later.push(Later { session, id, partition, since_ms });
                }
            }
        }
    }

    /// Begins to read what live subscriptions need since the directory changed, from the subscription's time on:
    /// a topic that was made after it is read from its beginning, an old one that came back is not.
    async fn pick_up(&mut self) {
        self.later.retain(|later| !later.session.lock().closed);
        // first the end: what is written after it has a time after the subscriptions', so that the further
        // answers find it
        let ends = self.ask_each(partitions_of(&self.later), |reader, all| reader.ends(all, ASK)).await;
        let known = self.later.extract_if(.., |later| ends.contains_key(&later.partition));
        let known: Vec<_> = known.collect();
        let Some(youngest_ms) = known.iter().map(|later| later.since_ms).max() else { return };
        // A topic that was made after all these subscriptions holds nothing from before any of them: the youngest's
        // answer is everybody's, however many they are.
        let oldest = self.ask_each(partitions_of(&known), |reader, all| reader.starts(all, ASK)).await;
        let begin = self.ask_since(&known, youngest_ms, &ends).await;
        let (whole, apart): (Vec<_>, Vec<_>) = known.into_iter().partition(|later| {
            begin.get(&later.partition).is_some_and(|begin| oldest.get(&later.partition) == Some(begin))
        });
        self.begin(whole, &begin).await;
        let mut by_time: BTreeMap<i64, Vec<Later>> = BTreeMap::new();
        for later in apart {
            by_time.entry(later.since_ms).or_default().push(later);
        }
        let until = Instant::now() + LATER;
        for (since_ms, all) in by_time {
            if Instant::now() < until {
                let begin = self.ask_since(&all, since_ms, &ends).await;
                self.begin(all, &begin).await;
            } else {
                // new subscriptions wait for this task: these have the next turn
                self.later.extend(all);
            }
        }
    }

    /// Where the records since a time begin.
    async fn ask_since(
        &self,
        all: &[Later],
        since_ms: i64,
        ends: &BTreeMap<Partition, i64>,
    ) -> BTreeMap<Partition, i64> {
        let from_ms = since_ms - CLOCK_SKEW_MS;
        let mut begin =
            self.ask_each(partitions_of(all), move |reader, all| reader.since(all, from_ms, ASK)).await;
        for (partition, begin) in begin.iter_mut().filter(|(_, begin)| **begin == i64::MAX) {
            *begin = ends.get(partition).copied().unwrap_or(*begin);
        }
        begin
    }

    /// Reads on behalf of all these from where it begins; those whose answer is missing wait on.
    async fn begin(&mut self, all: Vec<Later>, begin: &BTreeMap<Partition, i64>) {
        let mut assign = Vec::new();
        for later in all {
            let Some(start) = begin.get(&later.partition) else {
                self.later.push(later);
                continue;
            };
            if self.shared.state.pick_up(&later.session, later.id, &later.partition, *start) {
                assign.push((later.partition, *start));
            }
        }
        self.assign(assign).await;
    }

    /// Looks for partitions whose position is not in Kafka any more and goes on where Kafka has records.
    async fn recover(&mut self) {
        let positions = self.shared.state.positions();
        let partitions: Vec<_> = positions.iter().map(|(partition, _)| partition.clone()).collect();
        let starts: BTreeMap<_, _> =
            self.ask(partitions.clone(), |reader, all| reader.starts(all, ASK)).await.into_iter().collect();
        let ends: BTreeMap<_, _> =
            self.ask(partitions, |reader, all| reader.ends(all, ASK)).await.into_iter().collect();
        for (partition, position) in &positions {
            match (starts.get(partition), ends.get(partition)) {
                (Some(Ok(start)), _) if position < start => self.shared.state.jump(partition, *start),
                (_, Some(Ok(end))) if position > end => self.shared.state.jump(partition, *end),
                (Some(Ok(_)), Some(Ok(_))) => {}
                _ => self.recover = true,
            }
        }
        // librdkafka has stopped reading one of them and does not say which: all begin again where they are
        let (shared, reader) = (Arc::clone(&self.shared), Arc::clone(&self.reader));
        blocking(move || {
            for (partition, _) in &positions {
                let again = reader.unassign(partition).and(
                    shared.state.position(partition).map_or(Ok(()), |from| reader.assign(partition, from)),
                );
                if let Err(error) = again {
                    tracing::error!(%error, %partition, "failed to read a partition again");
                }
            }
        })
        .await;
    }

    /// The answers that there are.
    async fn ask_each(
        &self,
        partitions: BTreeSet<Partition>,
        question: impl FnOnce(&dyn Reader, &[Partition]) -> Vec<Result<i64, ReadError>> + Send + 'static,
    ) -> BTreeMap<Partition, i64> {
        let answers = self.ask(partitions.into_iter().collect(), question).await;
        answers.into_iter().filter_map(|(partition, answer)| Some((partition, answer.ok()?))).collect()
    }

    async fn ask(
        &self,
        partitions: Vec<Partition>,
        question: impl FnOnce(&dyn Reader, &[Partition]) -> Vec<Result<i64, ReadError>> + Send + 'static,
    ) -> Vec<(Partition, Result<i64, ReadError>)> {
        if partitions.is_empty() {
            return Vec::new();
        }
        let reader = Arc::clone(&self.reader);
        let asked = blocking(move || {
            let answers = question(reader.as_ref(), &partitions);
            partitions.into_iter().zip(answers).collect()
        });
        asked.await.unwrap_or_default()
    }
}

/// Nothing if the runtime ends meanwhile.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

fn partitions_of(all: &[Later]) -> BTreeSet<Partition> {
    all.iter().map(|later| later.partition.clone()).collect()
}

/// The partitions that may hold records which `filter` matches.
fn needed(filter: &Filter, routes: &Routes) -> BTreeSet<Partition> {
    if filter.levels().all(|level| matches!(level, Level::Literal(_))) {
        let address = filter.exact();
        let route = address.as_ref().and_then(|address| routes.route(address));
        return address
            .iter()
            .zip(route)
            .map(|(address, route)| Partition {
                topic: Arc::clone(&route.kafka_name),
                partition: partition_of(address.as_str().as_bytes(), route.partitions),
            })
            .collect();
    }
    routes
        .overlapping(filter)
        .flat_map(|route| {
            (0..route.partitions)
                .map(|partition| Partition { topic: Arc::clone(&route.kafka_name), partition })
        })
        .collect()
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}
