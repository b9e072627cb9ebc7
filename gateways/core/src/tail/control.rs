//! The task that registers subscriptions and decides which partitions are read. It asks Kafka on a blocking
//! thread; whatever comes meanwhile is asked together the next time.

use super::state::Registration;
use super::{Reliability, Shared, SubscriptionId, TailError, TailLimits};
use crate::directory::Directory;
use crate::partition::partition_of;
use crate::reader::{Partition, ReadError, Reader};
use std::collections::{BTreeMap, BTreeSet};
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
        let failed = blocking(move || {
            partitions.iter().try_for_each(|(partition, from)| reader.assign(partition, *from))
        });
        if let Some(Err(error)) = failed.await {
            tracing::error!(%error, "failed to begin to read a partition");
        }
    }

    async fn let_go(&self) {
        let idle = self.shared.state.take_idle();
        if idle.is_empty() {
            return;
        }
        let reader = Arc::clone(&self.reader);
        let failed = blocking(move || idle.iter().try_for_each(|partition| reader.unassign(partition)));
        if let Some(Err(error)) = failed.await {
            tracing::error!(%error, "failed to end reading a partition");
        }
    }

    /// The directory changed: live subscriptions may need more partitions. None is taken away from them: records
    /// that were on their way by the old routes may still come.
    fn overlap_again(&mut self) {
        let routes = self.directory.routes();
        for known in self.shared.state.known() {
            for partition in needed(&known.filter, &routes) {
                let waits = self.later.iter().any(|later| {
                    later.id == known.id
                        && later.session.key == known.session.key
                        && later.partition == partition
                });
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
        let mut by_time: BTreeMap<i64, Vec<Later>> = BTreeMap::new();
        for later in self.later.drain(..) {
            by_time.entry(later.since_ms).or_default().push(later);
        }
        for (since_ms, all) in by_time {
            let partitions: BTreeSet<_> = all.iter().map(|later| later.partition.clone()).collect();
            let partitions: Vec<_> = partitions.into_iter().collect();
            // first the end: what is written after it has a time after the subscription's, so that the second
            // answer finds it
            let ends: BTreeMap<_, _> =
                self.ask(partitions.clone(), |reader, all| reader.ends(all, ASK)).await.into_iter().collect();
            let starts: BTreeMap<_, _> = self
                .ask(partitions, move |reader, all| reader.since(all, since_ms - CLOCK_SKEW_MS, ASK))
                .await
                .into_iter()
                .collect();
            let mut assign = Vec::new();
            for later in all {
                match (ends.get(&later.partition), starts.get(&later.partition)) {
                    (Some(Ok(end)), Some(Ok(start))) => {
                        let start = if *start == i64::MAX { *end } else { *start };
                        if self.shared.state.pick_up(&later.session, later.id, &later.partition, start) {
                            assign.push((later.partition, start));
                        }
                    }
                    _ => self.later.push(later),
                }
            }
            self.assign(assign).await;
        }
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
        let again = blocking(move || {
            positions.iter().try_for_each(|(partition, _)| {
                reader.unassign(partition)?;
                shared.state.position(partition).map_or(Ok(()), |from| reader.assign(partition, from))
            })
        });
        if let Some(Err(error)) = again.await {
            tracing::error!(%error, "failed to read a partition again");
        }
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
