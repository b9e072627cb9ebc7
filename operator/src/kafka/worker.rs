//! One platform's sweep: every two seconds, and whenever somebody asks, observe → plan → execute for all topics
//! at once, then the directory. Does network IO; what to do is decided by pure modules.

use super::admin::{Admin, Outcomes};
use super::directory::{Contents, Writer};
use super::error::{Class, Failure};
use super::fleets::{self, Fleets};
use super::hub::{Hub, Key, Wishes};
use super::marks::{self, Marks};
use super::plan::{Desired, Observed, Plan, Topic, plan};
use super::refused::Refused;
use super::repairs::Repairs;
use super::rights::Acl;
use super::rights::keep::{Keeper as RightsKeeper, Look};
use super::routes::{Notice, lost, records, recreated, rerouted};
use super::snapshot::{Exchanged, Health, Snapshot, Surveyed};
use super::summary::{short, summary, unreachable};
use super::surveyor::{exchange, raise, survey};
use super::task::{Keeper, Task, alive};
use crate::topic::decide::{Decision, decide};
use rdkafka::error::RDKafkaErrorCode;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_contract::internal;
use tidegate_crds::reasons;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// How often Kafka is looked at without a reason.
const SWEEP: Duration = Duration::from_secs(2);
/// Kafka counts as away when it has not answered for so long.
const AWAY_AFTER: Duration = Duration::from_secs(5);
/// How long to leave the metadata's version alone after Kafka refused to raise it.
const RAISE_PAUSE: Duration = Duration::from_secs(30);
/// How long to leave the directory alone after a failure that passes.
const DIRECTORY_PAUSE: Duration = Duration::from_secs(1);
/// And after one that somebody has to see to.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);

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
    directory_failed: Option<(Instant, Failure)>,
    /// What the directory held when somebody deleted its topic, until that is written anew.
    lost: Option<Contents>,
    /// Which others of the platform's own topics were seen in Kafka.
    made: BTreeSet<&'static str>,
    refused: Refused,
    repairs: Repairs,
    answered: Instant,
    raised: Option<(i16, Instant)>,
    rights: RightsKeeper,
    /// Whether rights are being put back.
    righting: bool,
}

impl State {
    /// What the directory holds of fleets.
    fn fleets(&self) -> Option<Arc<Fleets>> {
        self.writer.as_ref().map(|writer| Arc::clone(&writer.held().fleets))
    }
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
            lost: None,
            made: BTreeSet::new(),
            refused: Refused::default(),
            repairs: Repairs::default(),
            answered: Instant::now(),
            raised: None,
            rights: RightsKeeper::default(),
            righting: false,
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
        let decisions =
            decide(&self.task.access.prefix, topics.iter().filter_map(|topic| topic.0.as_ref().ok()));
        let (again, failed) = match self.work(state, &decisions, &kept, &mut next).await {
            Ok(again) => {
                state.answered = Instant::now();
                next.health = Health::Up;
                next.bootstrap.clone_from(&self.task.access.bootstrap);
                (again, None)
            }
            Err(failure) => {
                let away = next.health != Health::Up || state.answered.elapsed() > AWAY_AFTER;
                tracing::debug!(platform = %self.key, error = failure.message(), "a sweep failed");
                let reason = failure.reason();
                if away {
                    next.brokers.clear();
                    next.away.clear();
                    next.directory_written = false;
                    next.short = None;
                    next.topics = unreachable(&decisions, &failure);
                    next.health = Health::Down(failure);
                }
                (false, Some(reason))
            }
        };
        self.hub.metrics.sweep(began.elapsed(), failed);
        let changed = self.grant(state, &mut next).await;
        self.publish(next);
        again || changed
    }

    /// What controllers asked for beside the sweep. Whether something changed that is worth another look at once.
    async fn grant(&self, state: &mut State, next: &mut Snapshot) -> bool {
        let wish = self.wishes.take();
        let changed = match wish.rights {
            Some(want) if next.health == Health::Up => self.keep_rights(state, &want, next).await,
            _ => false,
        };
        if let Some(about) = wish.survey {
            let began = Instant::now();
            let found = match (&state.admin, &next.health) {
                (_, Health::Down(failure)) => Err(failure.clone()),
                (Some(admin), _) => survey(admin, &self.task.access).await,
                (None, _) => Err(Failure::new("reach Kafka", RDKafkaErrorCode::AllBrokersDown)),
            };
            next.survey = Some(Surveyed { about, began, found });
        }
        match wish.exchange {
            None => next.exchange = None,
            Some(_) if self.task.paused || next.health != Health::Up => {}
            Some(wanted) => {
                let left = exchange(&self.task.access, &wanted).await;
                next.exchange = Some(Exchanged { wanted, left });
            }
        }
        let Some(level) = wish.metadata else {
            next.metadata = None;
            return changed;
        };
        let reached = matches!(next.metadata, Some(Ok(have)) if have >= level);
        let resting = state.raised.is_some_and(|(tried, at)| tried == level && at.elapsed() < RAISE_PAUSE);
        if !reached && !resting && !self.task.paused && next.health == Health::Up {
            state.raised = Some((level, Instant::now()));
            next.metadata = Some(raise(&self.task.access, level).await);
        }
        changed
    }

    /// Brings the rights in Kafka to what is wanted. Whether they changed.
    async fn keep_rights(&self, state: &mut State, want: &Arc<BTreeSet<Acl>>, next: &mut Snapshot) -> bool {
        let found = state.rights.look(&self.task.access, want, !self.task.paused).await;
        next.rights.failure = found.as_ref().err().cloned();
        match found {
            Ok(Look::Whole) => {
                next.rights.proven = Some(Arc::clone(want));
                state.righting = false;
                false
            }
            Ok(Look::Changed(done)) => {
                tracing::info!(platform = %self.key, given = done.create.len(), taken = done.delete.len(), "brought rights to what is declared");
                // Somebody else changed them: they were as wanted, and nothing else is wanted since. A broker that lags
                // shows once more what was put right.
                if next.rights.are(want) && !std::mem::replace(&mut state.righting, true) {
                    let text = done.repair();
                    tracing::warn!(platform = %self.key, "{text}");
                    let topic = internal::DIRECTORY.to_owned();
                    let notice = Notice { topic, warning: true, reason: reasons::RIGHTS_REPAIRED, text };
                    self.hub.notices(&self.key, std::iter::once(&notice));
                }
                true
            }
            Ok(Look::Differs) => false,
            Err(failure) => {
                tracing::warn!(platform = %self.key, error = failure.message(), "rights are not kept");
                false
            }
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
        let directory = internal::name(&self.task.access.prefix, internal::DIRECTORY);
        let wanted = decisions.values().filter_map(|each| each.desired.as_ref());
        let mut names: Vec<_> = wanted.map(|each| each.name.clone()).collect();
        names.extend(internal::TOPICS.map(|base| internal::name(&self.task.access.prefix, base)));
        let mut seen = admin.observe(&names).await?;
        self.task.may_go_on(next, &seen)?;
        next.brokers.clone_from(&seen.brokers);
        next.away.clone_from(&seen.away);
        next.cluster_id.clone_from(&seen.cluster_id);
        self.notice_loss(state, &seen, &directory);
        let opened = self.open(state, &seen, &directory).await;

        let mut ours = self.marks(state, decisions, &seen);
        let followed = ours.as_ref().map(|ours| marks::without_foreign(decisions, ours));
        let decisions = followed.as_ref().unwrap_or(decisions);
        let mut wanted: Vec<_> = decisions.values().filter_map(|each| each.desired.clone()).collect();
        let own = self.task.own_topics(&seen);
        wanted.extend(own.iter().cloned());
        let delete =
            decisions.values().filter(|each| each.delete).map(|each| each.kafka_name.clone()).collect();
        let mut todo = if self.task.paused { Plan::default() } else { plan(&wanted, &delete, &seen) };
        self.restrain(&mut todo, &directory, &seen, ours.as_ref());
        let going = std::mem::take(&mut todo.delete);
        let have = state.writer.as_ref().map(Writer::view);
        let last = have.or(state.lost.as_ref().map(|lost| &lost.view));
        let asked_before = |want: &&Desired| last.is_some_and(|view| marks::is_marked(view, &want.name));
        let marked_before: BTreeSet<_> =
            todo.create.iter().filter(asked_before).map(|want| want.name.clone()).collect();
        let notices = last.map(|last| recreated(decisions, &seen, last)).unwrap_or_default();
        let now = Instant::now();
        let mut known = state.refused.skip(&wanted, &mut todo, &seen, now);
        known.extend(state.refused.unheeded(&wanted, &mut todo, &seen, admin.who(), now));
        if let (Some(ours), Some(have)) = (&ours, have) {
            // A topic is marked as ours before it is made.
            let mut view = have.clone();
            view.extend(ours.records.clone());
            let marked = Contents { view, fleets: state.fleets().unwrap_or_default() };
            if let Err(failure) = self.write(state, marked).await {
                next.directory = Some(failure);
                next.directory_written = false;
                next.topics = BTreeMap::new();
                return Ok(false);
            }
        }
        let mut outcomes = admin.execute(&todo).await;
        state.refused.remember(&wanted, &outcomes, &seen, Instant::now());
        self.tell_repairs(state, &wanted, &outcomes, &seen);
        let done = outcomes.values().filter(|outcome| outcome.is_ok()).count();
        if done > 0 {
            tracing::info!(platform = %self.key, topics = done, "brought topics to what is declared");
        }
        if let Some(ours) = &mut ours {
            give_up_others(ours, &outcomes, &marked_before);
        }
        outcomes.extend(known);
        for (name, failure) in std::mem::take(&mut seen.hidden) {
            outcomes.entry(name).or_insert(Err(failure));
        }
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
        next.directory = outcomes.remove(&directory).and_then(Result::err).or(opened.err());
        let others = own.iter().find_map(|want| outcomes.remove(&want.name)?.err());
        if let (None, Some(writer)) = (&next.directory, &state.writer) {
            let want = self.want(writer, decisions, kept, &seen, ours.as_ref());
            next.directory = self.write(state, want).await.err();
        }
        next.directory_written = next.directory.is_none() && state.writer.is_some();
        next.directory = next.directory.take().or(others);
        next.fleets = state.fleets().or(next.fleets.take());
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
        // What gateways knew before the directory was lost they know still.
        let view = state.writer.as_ref().map(Writer::view).or(state.lost.as_ref().map(|lost| &lost.view));
        next.topics = match (self.task.owner(), &ours) {
            // Nothing is said before it is known what is ours.
            (Some(_), None) => BTreeMap::new(),
            _ => summary(decisions, &outcomes, &seen, view, ours.as_ref()),
        };
        next.short = short(&wanted, &seen);
        Ok(deleted || changed)
    }

    /// What the directory should hold.
    fn want(
        &self,
        writer: &Writer,
        decisions: &BTreeMap<String, Decision>,
        kept: &BTreeSet<String>,
        seen: &Observed,
        ours: Option<&Marks>,
    ) -> Contents {
        let mut view = records(decisions, kept, seen, writer.view());
        view.extend(ours.iter().flat_map(|ours| ours.records.clone()));
        let (declared, wishes) = (self.hub.declared(&self.key), self.hub.wishes(&self.key));
        let fleets = fleets::wanted(&declared, &wishes, &writer.held().fleets);
        Contents { view, fleets: Arc::new(fleets) }
    }

    /// What is ours on somebody else's Kafka; nothing before the directory could be read.
    fn marks(&self, state: &State, decisions: &BTreeMap<String, Decision>, seen: &Observed) -> Option<Marks> {
        let (owner, writer) = (self.task.owner()?, state.writer.as_ref()?);
        Some(marks::settle(owner, decisions, seen, writer.view()))
    }

    /// Leaves out of the plan what must not be done, or not yet.
    fn restrain(&self, todo: &mut Plan, directory: &str, seen: &Observed, ours: Option<&Marks>) {
        match (&self.task.keeper, ours) {
            // While brokers are still coming, creating would only be refused.
            (Keeper::Tidegate { brokers }, _) => {
                todo.create.retain(|want| alive(seen) >= want.replicas.min(*brokers));
            }
            (Keeper::Others(_), Some(ours)) => todo.delete.retain(|name| ours.has(name)),
            // Nobody can say yet what is ours.
            (Keeper::Others(_), None) => {
                todo.create.retain(|want| want.name == directory);
                todo.configure.clear();
                todo.delete.clear();
            }
        }
    }

    /// Somebody deleted a topic of the platform's own. What the directory's held is known here and nowhere else: on
    /// somebody else's Kafka it says what is ours. What the others held gateways write again.
    fn notice_loss(&self, state: &mut State, seen: &Observed, directory: &str) {
        if self.task.paused {
            return;
        }
        for base in [internal::PRESENCE, internal::GATEWAYS] {
            let name = internal::name(&self.task.access.prefix, base);
            if seen.topics.contains_key(&name) {
                state.made.insert(base);
            } else if state.made.remove(base) {
                tracing::warn!(platform = %self.key, topic = name, "a topic of the platform's own is gone from Kafka");
                self.hub.notices(&self.key, std::iter::once(&lost(base, &name)));
            }
        }
        if seen.topics.contains_key(directory) {
            return;
        }
        if let Some(writer) = state.writer.take() {
            tracing::warn!(platform = %self.key, topic = directory, "the directory's topic is gone from Kafka");
            state.lost = Some(writer.held().clone());
            self.hub.notices(&self.key, std::iter::once(&lost(internal::DIRECTORY, directory)));
        }
    }

    /// Tells whose settings were put back.
    fn tell_repairs(&self, state: &mut State, wanted: &[Desired], outcomes: &Outcomes, seen: &Observed) {
        let repaired = state.repairs.settle(&self.task.access.prefix, wanted, outcomes, seen);
        for notice in &repaired {
            tracing::warn!(platform = %self.key, topic = notice.topic, "{}", notice.text);
        }
        self.hub.metrics.repaired(repaired.len());
        self.hub.notices(&self.key, repaired.iter());
    }

    /// Becomes the directory's writer, as soon as there is a directory.
    async fn open(&self, state: &mut State, seen: &Observed, topic: &str) -> Result<(), Failure> {
        if self.task.paused || state.writer.is_some() || !seen.topics.contains_key(topic) {
            return Ok(());
        }
        if let Some((at, failure)) = &state.directory_failed {
            let pause = match failure.class() {
                Class::Transient => DIRECTORY_PAUSE,
                Class::Blocked => REFUSED_PAUSE,
            };
            if at.elapsed() < pause {
                return Err(failure.clone());
            }
        }
        let (access, owner) = (self.task.access.clone(), self.task.owner().cloned());
        let lost = state.lost.clone();
        let opened = blocking(move || {
            let mut writer = Writer::open(&access, owner.as_ref())?;
            if let Some(lost) = lost.filter(|_| writer.held().is_empty()) {
                writer.write(&lost)?;
            }
            Ok(writer)
        });
        match opened.await {
            Ok(writer) => {
                state.lost = None;
                tracing::info!(platform = %self.key, records = writer.held().len(), "writes the directory from now on");
                state.writer = Some(writer);
                Ok(())
            }
            Err(failure) => Err(self.directory_failed(state, failure)),
        }
    }

    /// Brings the directory to what is wanted.
    async fn write(&self, state: &mut State, want: Contents) -> Result<(), Failure> {
        let Some(mut writer) = state.writer.take() else { return Ok(()) };
        if *writer.held() == want || self.task.paused {
            state.writer = Some(writer);
            return Ok(());
        }
        let notices = rerouted(writer.view(), &want.view);
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
        state.directory_failed = Some((Instant::now(), failure.clone()));
        failure
    }

    /// Tells controllers what changed since the last sweep.
    fn publish(&self, next: Snapshot) {
        let last = Arc::clone(&self.snapshot.borrow());
        if *last == next {
            return;
        }
        // Whoever hears the bell finds what it rings for: a pass that still saw the last snapshot would not be rung for again.
        let next = Arc::new(next);
        self.snapshot.send_replace(Arc::clone(&next));
        for (name, outcome) in &next.topics {
            if last.topics.get(name) != Some(outcome) || last.health != next.health {
                self.hub.ring_topic(&self.key, name);
            }
        }
        let (before, now) = (last.fleets.as_deref(), next.fleets.as_deref());
        if last.health != next.health || last.directory != next.directory {
            self.hub.ring_fleets(&self.key, None, None);
        } else if now.is_some() {
            self.hub.ring_fleets(&self.key, before, now);
        }
        let platform = last.says_else_of_the_platform(&next);
        if platform {
            self.hub.ring_platform(&self.key);
        }
    }
}

/// Leaves topics to others who were faster. One that was marked before is ours: what was asked for lately is not in
/// every broker's metadata yet.
fn give_up_others(ours: &mut Marks, outcomes: &Outcomes, marked_before: &BTreeSet<String>) {
    let exists = |failure: &Failure| failure.code == RDKafkaErrorCode::TopicAlreadyExists;
    for (name, outcome) in outcomes {
        if outcome.as_ref().is_err_and(exists) && !marked_before.contains(name) {
            ours.give_up(name);
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

/// What people should hear, by Topic.
pub(super) type Notices = BTreeMap<String, Vec<Notice>>;
