//! One platform's sweep: every two seconds, and whenever somebody asks, observe → plan → execute for all topics
//! at once, then the directory. Does network IO; what to do is decided by pure modules.

use super::access::Access;
use super::admin::{Admin, Outcomes};
use super::directory::{View, Writer};
use super::error::Failure;
use super::hub::{Hub, Key, Wishes};
use super::plan::{Desired, Finding, Observed, Plan, Topic, findings, plan};
use super::refused::Refused;
use super::routes::{Notice, records, recreated, rerouted};
use super::snapshot::{Health, Outcome, Snapshot, Surveyed, TopicState};
use super::surveyor::{raise, survey};
use crate::topic::decide::{Decision, decide};
use rdkafka::error::RDKafkaErrorCode;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_contract::{directory, internal};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// How often Kafka is looked at without a reason.
const SWEEP: Duration = Duration::from_secs(2);
/// Kafka counts as away when it has not answered for so long.
const AWAY_AFTER: Duration = Duration::from_secs(5);
/// How long to leave the metadata's version alone after Kafka refused to raise it.
const RAISE_PAUSE: Duration = Duration::from_secs(30);
/// How long to leave the directory alone after a failure.
const DIRECTORY_PAUSE: Duration = Duration::from_secs(1);

/// What a platform's sweep works with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// How to reach Kafka.
    pub access: Access,
    /// The brokers that are declared.
    pub brokers: i32,
    /// Replicas of the platform's own topics.
    pub replicas: i32,
    /// In-sync replicas that they need.
    pub min_in_sync_replicas: i32,
    /// Whether `tidegate.io/paused` stops all writes.
    pub paused: bool,
}

impl Task {
    /// The directory's topic: compacted, in small segments so that cold starts read little.
    fn directory(&self) -> Desired {
        let config = [
            ("cleanup.policy", "compact".to_owned()),
            ("max.message.bytes", "1114112".to_owned()),
            ("min.insync.replicas", self.min_in_sync_replicas.to_string()),
            ("segment.bytes", (64 << 20).to_string()),
            ("segment.ms", "3600000".to_owned()),
        ];
        Desired {
            name: internal::name(&self.access.prefix, internal::DIRECTORY),
            partitions: 1,
            replicas: self.replicas,
            config: config.map(|(name, value)| (name.to_owned(), value)).into(),
        }
    }
}

/// One platform's sweep.
pub(super) struct Worker {
    pub key: Key,
    pub task: Task,
    pub hub: Arc<Hub>,
    pub nudge: Arc<Notify>,
    pub snapshot: watch::Sender<Arc<Snapshot>>,
    pub stop: CancellationToken,
    pub wishes: Arc<Wishes>,
}

/// What lives as long as the connection.
struct State {
    admin: Option<Admin>,
    writer: Option<Writer>,
    directory_failed: Option<Instant>,
    refused: Refused,
    answered: Instant,
    raised: Option<(i16, Instant)>,
}

impl Worker {
    /// Runs until stopped, or until the platform is gone.
    pub async fn run(self) {
        let stop = self.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.sweep_forever() => {}
        }
    }

    async fn sweep_forever(&self) {
        // Without all Topics in view, the directory would lose those that are not there yet.
        self.hub.wait_until_ready().await;
        let mut state = State {
            admin: None,
            writer: None,
            directory_failed: None,
            refused: Refused::default(),
            answered: Instant::now(),
            raised: None,
        };
        while self.hub.has_platform(&self.key) {
            let again = self.sweep(&mut state).await;
            if !again {
                let _ = tokio::time::timeout(SWEEP, self.nudge.notified()).await;
            }
        }
        self.hub.ended(&self.key, &self.nudge);
    }

    /// One sweep. Whether something changed that is worth another look at once.
    async fn sweep(&self, state: &mut State) -> bool {
        let mut next = Snapshot::clone(&self.snapshot.borrow());
        let began = Instant::now();
        let (topics, kept) = self.hub.topics(&self.key);
        let decisions = decide(&self.task.access.prefix, &topics);
        let (again, failed) = match self.work(state, &decisions, &kept, &mut next).await {
            Ok(again) => {
                state.answered = Instant::now();
                next.health = Health::Up;
                (again, None)
            }
            Err(failure) => {
                let away = next.health != Health::Up || state.answered.elapsed() > AWAY_AFTER;
                tracing::debug!(platform = %self.key, error = failure.message(), "a sweep failed");
                let reason = failure.reason();
                if away {
                    next.brokers.clear();
                    next.directory_written = false;
                    next.short = None;
                    next.topics = unreachable(&decisions, &failure);
                    next.health = Health::Down(failure);
                }
                (false, Some(reason))
            }
        };
        self.hub.metrics.sweep(began.elapsed(), failed);
        self.grant(state, &mut next).await;
        self.publish(next);
        again
    }

    /// What controllers asked for beside the sweep.
    async fn grant(&self, state: &mut State, next: &mut Snapshot) {
        let wish = self.wishes.take();
        if let Some(about) = wish.survey {
            let began = Instant::now();
            let found = match (&state.admin, &next.health) {
                (_, Health::Down(failure)) => Err(failure.clone()),
                (Some(admin), _) => survey(admin, &self.task.access).await,
                (None, _) => Err(Failure::new("reach Kafka", RDKafkaErrorCode::AllBrokersDown)),
            };
            next.survey = Some(Surveyed { about, began, found });
        }
        let Some(level) = wish.metadata else {
            next.metadata = None;
            return;
        };
        let reached = matches!(next.metadata, Some(Ok(have)) if have >= level);
        let resting = state.raised.is_some_and(|(tried, at)| tried == level && at.elapsed() < RAISE_PAUSE);
        if !reached && !resting && !self.task.paused && next.health == Health::Up {
            state.raised = Some((level, Instant::now()));
            next.metadata = Some(raise(&self.task.access, level).await);
        }
    }

    async fn work(
        &self,
        state: &mut State,
        decisions: &BTreeMap<String, Decision>,
        kept: &BTreeSet<String>,
        next: &mut Snapshot,
    ) -> Result<bool, Failure> {
        let admin = match &state.admin {
            Some(admin) => admin.clone(),
            None => state.admin.insert(Admin::new(&self.task.access)?).clone(),
        };
        let directory = self.task.directory();
        let mut wanted: Vec<_> = decisions.values().filter_map(|each| each.desired.clone()).collect();
        wanted.push(directory.clone());
        let names: Vec<_> = wanted.iter().map(|each| each.name.clone()).collect();
        let mut seen = admin.observe(&names).await?;
        next.brokers.clone_from(&seen.brokers);

        let delete =
            decisions.values().filter(|each| each.delete).map(|each| each.kafka_name.clone()).collect();
        let mut todo = if self.task.paused { Plan::default() } else { plan(&wanted, &delete, &seen) };
        // While brokers are still coming, creating would only be refused.
        let alive = i32::try_from(seen.brokers.len()).unwrap_or(i32::MAX);
        todo.create.retain(|want| alive >= want.replicas.min(self.task.brokers));
        let going = std::mem::take(&mut todo.delete);
        let opened = self.open(state, &seen, &directory.name).await;
        let have = state.writer.as_ref().map(Writer::view);
        let notices = have.map(|have| recreated(decisions, &seen, have)).unwrap_or_default();
        let known = state.refused.skip(&wanted, &mut todo, Instant::now());
        let mut outcomes = admin.execute(&todo).await;
        state.refused.remember(&wanted, &outcomes, Instant::now());
        let done = outcomes.values().filter(|outcome| outcome.is_ok()).count();
        if done > 0 {
            tracing::info!(platform = %self.key, topics = done, "brought topics to what is declared");
        }
        outcomes.extend(known);
        for want in todo.create.iter().filter(|want| outcomes.get(&want.name).is_some_and(Result::is_ok)) {
            // Created a moment ago: gateways may be told at once.
            let (partitions, replicas) = (want.partitions, want.replicas);
            let topic = Topic { partitions, replicas, in_sync: replicas, leaderless: 0, config: None };
            seen.topics.insert(want.name.clone(), topic);
            let about =
                |notice: &&Notice| internal::name(&self.task.access.prefix, &notice.topic) == want.name;
            self.hub.notices(&self.key, notices.iter().filter(about));
        }

        let changed = outcomes.values().any(Result::is_ok);
        next.directory = outcomes.remove(&directory.name).and_then(Result::err).or(opened.err());
        if next.directory.is_none() {
            next.directory = self.write(state, decisions, kept, &seen).await.err();
        }
        let view = state.writer.as_ref().map(Writer::view);
        next.directory_written = next.directory.is_none() && view.is_some();
        // Routes go before records do.
        let mut deleted = false;
        if !going.is_empty() && next.directory_written {
            let gone = admin.execute(&Plan { delete: going, ..Plan::default() }).await;
            for (name, outcome) in &gone {
                if outcome.is_ok() {
                    seen.topics.remove(name);
                    deleted = true;
                }
            }
            outcomes.extend(gone);
        }
        next.topics = summary(decisions, &outcomes, &seen, view);
        next.short = short(&wanted, &seen);
        Ok(deleted || changed)
    }

    /// Becomes the directory's writer, as soon as there is a directory.
    async fn open(&self, state: &mut State, seen: &Observed, topic: &str) -> Result<(), Failure> {
        if self.task.paused || state.writer.is_some() || !seen.topics.contains_key(topic) {
            return Ok(());
        }
        if state.directory_failed.is_some_and(|at| at.elapsed() < DIRECTORY_PAUSE) {
            return Err(Failure::new("open the directory", RDKafkaErrorCode::OperationTimedOut));
        }
        let access = self.task.access.clone();
        let opened = blocking(move || Writer::open(&access)).await;
        match opened {
            Ok(writer) => {
                tracing::info!(platform = %self.key, records = writer.view().len(), "writes the directory from now on");
                state.writer = Some(writer);
                Ok(())
            }
            Err(failure) => Err(self.directory_failed(state, failure)),
        }
    }

    /// Brings the directory to what is wanted.
    async fn write(
        &self,
        state: &mut State,
        decisions: &BTreeMap<String, Decision>,
        kept: &BTreeSet<String>,
        seen: &Observed,
    ) -> Result<(), Failure> {
        let Some(mut writer) = state.writer.take() else { return Ok(()) };
        let want = records(decisions, kept, seen, writer.view());
        if *writer.view() == want || self.task.paused {
            state.writer = Some(writer);
            return Ok(());
        }
        let notices = rerouted(writer.view(), &want);
        let written = blocking(move || writer.write(&want).map(|count| (writer, count))).await;
        match written {
            Ok((writer, count)) => {
                state.writer = Some(writer);
                self.hub.notices(&self.key, notices.iter());
                self.hub.metrics.written(count);
                if count > 0 {
                    tracing::info!(platform = %self.key, records = count, "wrote the directory");
                }
                Ok(())
            }
            Err(failure) => Err(self.directory_failed(state, failure)),
        }
    }

    fn directory_failed(&self, state: &mut State, failure: Failure) -> Failure {
        tracing::warn!(platform = %self.key, error = failure.message(), "the directory is not written");
        state.directory_failed = Some(Instant::now());
        failure
    }

    /// Tells controllers what changed since the last sweep.
    fn publish(&self, next: Snapshot) {
        let last = Arc::clone(&self.snapshot.borrow());
        if *last == next {
            return;
        }
        for (name, outcome) in &next.topics {
            if last.topics.get(name) != Some(outcome) || last.health != next.health {
                self.hub.ring_topic(&self.key, name);
            }
        }
        let platform = last.health != next.health
            || last.brokers != next.brokers
            || last.directory != next.directory
            || last.directory_written != next.directory_written
            || last.short != next.short
            || last.survey != next.survey
            || last.metadata != next.metadata;
        self.snapshot.send_replace(Arc::new(next));
        if platform {
            self.hub.ring_platform(&self.key);
        }
    }
}

/// Runs what blocks on a thread for it.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.unwrap_or_else(|_| Err(Failure::new("write the directory", RDKafkaErrorCode::Fail)))
}

/// A wanted topic of which nothing is acknowledged, with why. One that could never spare a broker says so itself
/// whenever one is away.
fn short(wanted: &[Desired], seen: &Observed) -> Option<String> {
    let min =
        |want: &Desired| want.config.get("min.insync.replicas").and_then(|text| text.parse::<i32>().ok());
    wanted.iter().filter(|want| want.replicas > min(want).unwrap_or(1)).find_map(|want| {
        let found = findings(want, seen.topics.get(&want.name)?);
        let worst = found
            .into_iter()
            .find(|finding| matches!(finding, Finding::Leaderless(_) | Finding::UnderMinInSync { .. }))?;
        Some(format!("topic {}: {}", want.name, worst.message(want)))
    })
}

fn unreachable(decisions: &BTreeMap<String, Decision>, failure: &Failure) -> BTreeMap<String, TopicState> {
    let one = |(name, decision): (&String, &Decision)| {
        let outcome = Outcome::Failed(failure.clone());
        (name.clone(), TopicState { outcome, lost: decision.lost.clone() })
    };
    decisions.iter().map(one).collect()
}

fn summary(
    decisions: &BTreeMap<String, Decision>,
    outcomes: &Outcomes,
    seen: &Observed,
    view: Option<&View>,
) -> BTreeMap<String, TopicState> {
    let listed = |name: &str| {
        let key = directory::Key::Topic(name.to_owned()).to_string();
        view.is_some_and(|view| view.contains_key(&key))
    };
    let one = |(name, decision): (&String, &Decision)| {
        let failed = outcomes.get(&decision.kafka_name).and_then(|outcome| outcome.as_ref().err());
        let outcome = match (failed, seen.topics.get(&decision.kafka_name)) {
            (Some(failure), _) => Outcome::Failed(failure.clone()),
            (None, Some(topic)) => {
                Outcome::Present { topic: Topic { config: None, ..topic.clone() }, listed: listed(name) }
            }
            (None, None) if decision.delete => Outcome::Absent,
            (None, None) => Outcome::Waiting,
        };
        (name.clone(), TopicState { outcome, lost: decision.lost.clone() })
    };
    decisions.iter().map(one).collect()
}

/// What people should hear, by Topic.
pub(super) type Notices = BTreeMap<String, Vec<Notice>>;
