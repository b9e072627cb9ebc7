//! The loop: rounds and events in, decisions out, their actions carried out, what follows from it put up. IO through the
//! other modules.

use super::act::{self, ActError, Done};
use super::adverts::{self, MetalLb};
use super::board::Board;
use super::decide::Decider;
use super::health::{Health, Round};
use super::metrics::FailoverMetrics;
use super::model::{Action, Decision, Pool, World};
use super::probe::{self, Plan};
use super::record::Record;
use super::report::{News, Standing, View};
use super::targets::targets;
use super::watch::{LEASES, Watches, Wish, renewal};
use crate::frame::Context;
use crate::frame::failure::chain;
use futures::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::Resource as _;
use kube::api::ListParams;
use kube::runtime::events::{Event, EventType};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_crds::IoTPlatform;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How this replica is called and where it runs.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// The operator's namespace.
    pub namespace: String,
    /// This replica's name.
    pub identity: String,
    /// Its node, where it runs on one.
    pub node: Option<String>,
}

/// How often nodes are asked where no platform says it.
const INTERVAL: Duration = Duration::from_millis(300);
/// Without anything new a decision is made so often.
const TICK: Duration = Duration::from_secs(1);
/// How often MetalLB's objects are read.
const METALLB: Duration = Duration::from_secs(5);
/// How often they are looked for where there were none.
const NO_METALLB: Duration = Duration::from_secs(60);
/// How often missing rights are looked for.
const RIGHTS: Duration = Duration::from_secs(60);
/// What was done is not done again before its event can have come back.
const SETTLE: Duration = Duration::from_secs(1);
/// What failed is not tried again before.
const RETRY: Duration = Duration::from_secs(2);
/// No single read waits longer.
const READ: Duration = Duration::from_secs(2);
/// So many writes are under way together.
const WRITES: usize = 16;
/// Rounds that wait for the loop.
const ROUNDS: usize = 64;

/// Runs failover until `shutdown`.
pub async fn run(context: Arc<Context>, board: Arc<Board>, place: Place, shutdown: CancellationToken) {
    let metrics = FailoverMetrics::register(&context.metrics);
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = async {
            wait_for_rights(&context, &board).await;
            Engine::start(context, board, place, metrics).await.run().await;
        } => {}
    }
}

/// Waits until nodes and their leases may be read and nodes marked, and says so while they may not.
async fn wait_for_rights(context: &Context, board: &Board) {
    let one = ListParams::default().limit(1);
    loop {
        let (nodes, leases) = (context.cluster_api::<Node>(), context.api::<Lease>(LEASES));
        let tried = async {
            nodes.list_metadata(&one).await?;
            leases.list_metadata(&one).await?;
            act::may_mark(context).await
        };
        let wait = match tried.await {
            Ok(()) => return,
            Err(kube::Error::Api(status)) if matches!(status.code, 401 | 403) => {
                let text = format!(
                    "the operator may not watch and mark nodes, so Kubernetes' own times apply when one dies: bind the ClusterRole tidegate-operator-nodes, and the Role of that name in {LEASES}, to it ({})",
                    status.message
                );
                let view = View { standing: Standing::Forbidden(text), ..View::default() };
                board.show(view, std::iter::empty());
                RIGHTS
            }
            Err(error) => {
                tracing::warn!(error = chain(&error), "nodes cannot be read");
                RETRY
            }
        };
        tokio::time::sleep(wait).await;
    }
}

struct Engine {
    context: Arc<Context>,
    board: Arc<Board>,
    place: Place,
    metrics: FailoverMetrics,
    watches: Watches,
    decider: Decider,
    record: Record,
    metallb: Result<Option<MetalLb>, String>,
    metallb_due: Instant,
    rounds: mpsc::Receiver<Round>,
    plan: watch::Sender<Plan>,
    /// Until when an action is not done again.
    rests: BTreeMap<String, Instant>,
}

impl Engine {
    async fn start(context: Arc<Context>, board: Arc<Board>, place: Place, metrics: FailoverMetrics) -> Self {
        let told = Arc::clone(&board);
        let watches =
            Watches::start(&context, &place.namespace, &Arc::new(move || told.changed.notify_one()));
        watches.ready().await;
        tracing::info!(node = place.node, "watching nodes");
        let (plan, planned) = watch::channel(Plan { targets: Arc::new([]), interval: INTERVAL });
        let (sender, rounds) = mpsc::channel(ROUNDS);
        // Ends with the loop, which is who listens.
        tokio::spawn(probe::run(planned, sender));
        Self {
            decider: Decider::new(place.node.clone()),
            record: watches.record().unwrap_or_default(),
            metallb: Ok(None),
            metallb_due: now(),
            rests: BTreeMap::new(),
            context,
            board,
            place,
            metrics,
            watches,
            rounds,
            plan,
        }
    }

    async fn run(mut self) {
        loop {
            let again = self.pass().await;
            if again {
                continue;
            }
            let round = tokio::select! {
                round = self.rounds.recv() => round,
                () = self.board.changed.notified() => None,
                () = tokio::time::sleep(TICK) => None,
            };
            let mut next = round.or_else(|| self.rounds.try_recv().ok());
            while let Some(round) = next {
                let discarded = self.decider.health.round(now(), &round);
                self.metrics.round(&round, discarded);
                next = self.rounds.try_recv().ok();
            }
        }
    }

    /// One decision and what follows. Says whether the next may follow at once.
    async fn pass(&mut self) -> bool {
        let wishes = self.watches.wishes();
        self.read_metallb(&wishes).await;
        let world = self.world(&wishes);
        if !world.wanted() {
            // What was seen before the pause says nothing after it.
            self.decider.health = Health::new(self.place.node.clone());
        }
        for (node, renewal) in self.watches.renewals() {
            self.decider.health.lease(&node, &renewal.renewed, renewal.interval, renewal.at);
        }
        self.confirm().await;
        let wall = (self.context.clock)();
        let decision = self.decider.decide(now(), wall, &world);
        self.ask(&wishes, &world);
        let again = self.act(&decision).await;
        self.show(&world, &decision);
        again
    }

    /// What is asked from now on.
    fn ask(&self, wishes: &[Wish], world: &World) {
        let interval = wishes.iter().filter(|wish| wish.enabled).map(|wish| wish.interval).min();
        let targets = targets(world, &self.decider.health).into();
        let plan = Plan { targets, interval: interval.unwrap_or(INTERVAL) };
        self.plan.send_if_modified(|now| {
            let differs = *now != plan;
            *now = plan;
            differs
        });
    }

    fn world(&mut self, wishes: &[Wish]) -> World {
        if let Some(seen) = self.watches.record()
            && self.record.is_older_than(&seen)
        {
            self.record = seen;
        }
        let metallb = self.metallb.as_ref().ok().and_then(Option::as_ref);
        let mut pools: BTreeMap<String, Pool> = BTreeMap::new();
        for wish in wishes {
            let Some((name, referred)) = &wish.pool else { continue };
            let pool = pools.entry(name.clone()).or_default();
            pool.exists = metallb.is_some_and(|metallb| metallb.pools.contains(name));
            pool.referred |= referred;
            pool.failover |= wish.enabled;
        }
        World {
            own: self.place.node.clone(),
            identity: self.place.identity.clone(),
            leads: self.board.leads(),
            nodes: self.watches.nodes(),
            pods: self.watches.pods(),
            record: self.record.clone(),
            adverts: metallb.map(|metallb| metallb.adverts.clone()),
            pools,
            platforms: wishes.iter().map(|wish| (wish.key.clone(), wish.enabled)).collect(),
            blind: wishes.iter().any(|wish| !wish.readable),
        }
    }

    /// Reads MetalLB's objects where a platform's addresses come from it, every few seconds.
    async fn read_metallb(&mut self, wishes: &[Wish]) {
        if now() < self.metallb_due {
            return;
        }
        // A first platform has its pool announced at once; without any, what is left of earlier ones is removed.
        let known = matches!(self.metallb, Ok(Some(_)));
        let used = wishes.iter().any(|wish| wish.pool.is_some());
        let wait = if known || used { METALLB } else { NO_METALLB };
        self.metallb_due = now() + wait;
        self.metallb = match timeout(READ, adverts::list(&self.context)).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 401 | 403) => {
                let namespace = &self.context.options.metallb_namespace;
                Err(format!(
                    "the operator may not read MetalLB's objects in {namespace}, so addresses move when MetalLB itself notices that a node is gone: bind the ClusterRole tidegate-operator to it there ({})",
                    status.message
                ))
            }
            // A passing failure: what was known stays.
            Ok(Err(error)) => {
                tracing::warn!(error = chain(&error), "MetalLB's objects cannot be read");
                return;
            }
            Err(_) => return,
        };
    }

    /// Reads the leases on which a death hangs, past every watch and cache.
    async fn confirm(&mut self) {
        for node in self.decider.health.doubtful(now()) {
            let read = timeout(READ, self.context.api::<Lease>(LEASES).get(&node)).await;
            if let Ok(Ok(lease)) = read {
                let seen = renewal(&lease);
                self.decider.health.lease_checked(&node, &seen.renewed, seen.interval, seen.at);
            }
        }
    }

    /// Carries out a decision. Says whether the world is another now, so that the next decision can follow at once.
    async fn act(&mut self, decision: &Decision) -> bool {
        let time = now();
        self.rests.retain(|_, until| *until > time);
        let due: Vec<_> = decision
            .actions
            .iter()
            .filter(|action| !self.rests.contains_key(&format!("{action:?}")))
            .collect();
        // The record before what follows from it, labels before deletions.
        let (record, rest): (Vec<_>, Vec<_>) =
            due.into_iter().partition(|action| matches!(action, Action::Record { .. }));
        let (last, first): (Vec<_>, Vec<_>) =
            rest.into_iter().partition(|action| matches!(action, Action::Replace { .. }));
        let mut again = false;
        for group in [record, first, last] {
            let carried = group.into_iter().map(|action| {
                let (context, namespace) = (Arc::clone(&self.context), self.place.namespace.clone());
                let action = action.clone();
                async move {
                    let result = act::act(&context, &namespace, &action).await;
                    (action, result)
                }
            });
            let carried: Vec<_> = carried.collect();
            let results: Vec<_> = futures::stream::iter(carried).buffer_unordered(WRITES).collect().await;
            for (action, result) in results {
                again |= self.after(&action, result).await;
            }
        }
        again
    }

    async fn after(&mut self, action: &Action, result: Result<Done, ActError>) -> bool {
        self.metrics.action(action.kind(), result.is_ok());
        let is_advert =
            matches!(action, Action::Select { .. } | Action::Announce { .. } | Action::Withdraw { .. });
        if is_advert {
            self.metallb_due = now();
        }
        let rest = if result.is_ok() { SETTLE } else { RETRY };
        match result {
            Ok(Done::Record(record)) => {
                if let Action::Record { claimed, released, .. } = action {
                    tracing::info!(?claimed, ?released, "nodes are taken out or used again");
                    for node in released {
                        self.decider.health.released(node, now());
                    }
                }
                self.record = record;
                return true;
            }
            Ok(Done::Other) => tracing::info!(kind = action.kind(), ?action, "done"),
            Err(error) if error.is_outdated() && matches!(action, Action::Record { .. }) => {
                tracing::info!("another replica wrote the record first");
                if let Ok(record) = act::read_record(&self.context, &self.place.namespace).await {
                    self.record = record;
                    return true;
                }
            }
            // With the version that is read next it is another action.
            Err(error) if error.is_outdated() && is_advert => {
                tracing::info!(kind = action.kind(), "an advertisement is not as it was read");
            }
            Err(error) => tracing::warn!(kind = action.kind(), ?action, error = chain(&error), "not done"),
        }
        self.rests.insert(format!("{action:?}"), now() + rest);
        false
    }

    /// Tells platforms, metrics and, from the leader, everybody.
    fn show(&self, world: &World, decision: &Decision) {
        let before = self.board.view();
        let mut view = before.after((self.context.clock)(), world.nodes.len(), decision);
        view.adverts_unread = self.metallb.as_ref().err().cloned();
        self.metrics.show(&view);
        if *before == view {
            return;
        }
        let news = view.news(&before);
        for one in &news {
            tracing::info!(reason = one.reason, "{}", one.text);
        }
        self.board.show(view, world.platforms.keys());
        if !world.leads || news.is_empty() {
            return;
        }
        let platforms = self.watches.platforms().into_iter();
        let told = platforms.filter(|platform| platform.spec.failover.enabled).collect();
        // Nothing waits for it: a node may be dying.
        tokio::spawn(publish(Arc::clone(&self.context), told, news));
    }
}

/// Publishes Events, best effort.
async fn publish(context: Arc<Context>, platforms: Vec<IoTPlatform>, news: Vec<News>) {
    for platform in platforms {
        let reference = platform.object_ref(&());
        for one in &news {
            let event = Event {
                type_: if one.warning { EventType::Warning } else { EventType::Normal },
                reason: one.reason.to_owned(),
                note: Some(one.text.clone()),
                action: "Failover".to_owned(),
                secondary: None,
            };
            let published = timeout(READ, context.recorder.publish(&event, &reference)).await;
            if let Ok(Err(error)) = published {
                tracing::debug!(error = chain(&error), "an Event was not taken");
            }
        }
    }
}

/// The clock that tests can move.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
