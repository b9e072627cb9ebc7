//! Where controllers and the platforms' sweeps meet: what is declared goes in, what was found comes out. Starts
//! and stops one task per platform; the network IO is in the tasks.

mod fleets;

use super::bell::Bell;
use super::metrics::KafkaMetrics;
use super::rights::Acl;
use super::routes::Notice;
use super::snapshot::{Snapshot, Surveyed};
use super::task::Task;
use super::wire::voters::Exchange;
use super::worker::{Notices, Worker};
use crate::frame::metrics::Metrics;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource as _, ResourceExt as _};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tidegate_contract::internal;
use tidegate_crds::{IoTPlatform, Topic};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// A platform.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Key {
    /// The platform `namespace`/`name`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What controllers ask of the next sweep beyond its task: changes of these do not start it anew.
#[derive(Default)]
pub(super) struct Wishes(Mutex<Wish>);

#[derive(Clone, Default)]
pub(super) struct Wish {
    /// A survey, by somebody who knows this.
    pub survey: Option<u64>,
    /// A voter that there shall be.
    pub exchange: Option<Exchange>,
    /// A level of Kafka's metadata.
    pub metadata: Option<i16>,
    /// All rights that there shall be.
    pub rights: Option<Arc<BTreeSet<Acl>>>,
}

impl Wishes {
    fn set(&self, change: impl FnOnce(&mut Wish)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What is wished for; a survey is taken once.
    pub(super) fn take(&self) -> Wish {
        let mut wish = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = wish.clone();
        wish.survey = None;
        taken
    }
}

struct Handle {
    task: Task,
    nudge: Arc<Notify>,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    stop: CancellationToken,
    wishes: Arc<Wishes>,
}

#[derive(Default)]
struct Shared {
    handles: HashMap<Key, Handle>,
    notices: HashMap<Key, Notices>,
    topics: Vec<Store<DeserializeGuard<Topic>>>,
    platforms: Vec<Store<DeserializeGuard<IoTPlatform>>>,
}

/// Where controllers and the platforms' sweeps meet.
pub struct Hub {
    shared: Mutex<Shared>,
    topic_bell: Bell<Topic>,
    platform_bell: Bell<IoTPlatform>,
    fleets: fleets::Shared,
    pub(super) metrics: KafkaMetrics,
}

impl Hub {
    /// A hub without platforms; its metrics are added to the operator's.
    pub fn new(metrics: &Metrics) -> Arc<Self> {
        Arc::new(Self {
            shared: Mutex::default(),
            topic_bell: Bell::default(),
            platform_bell: Bell::default(),
            fleets: fleets::Shared::default(),
            metrics: KafkaMetrics::register(metrics),
        })
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets sweeps see the Topics of one more watch.
    pub fn add_topics(&self, store: Store<DeserializeGuard<Topic>>) {
        self.shared().topics.push(store);
    }

    /// Lets sweeps see the platforms of one more watch.
    pub fn add_platforms(&self, store: Store<DeserializeGuard<IoTPlatform>>) {
        self.shared().platforms.push(store);
    }

    /// The bell for Topics.
    pub const fn topic_bell(&self) -> &Bell<Topic> {
        &self.topic_bell
    }

    /// The bell for platforms.
    pub const fn platform_bell(&self) -> &Bell<IoTPlatform> {
        &self.platform_bell
    }

    /// Keeps a platform's sweep going with `task`; starts it, or starts it anew where the task changed.
    pub fn keep(self: &Arc<Self>, key: &Key, task: Task) {
        self.keep_on(key, task, None);
    }

    /// The same; `cluster` is the id of the Kafka that the platform was on when no sweep ran here yet.
    pub fn keep_on(self: &Arc<Self>, key: &Key, task: Task, cluster: Option<&str>) {
        let mut shared = self.shared();
        let mut first = Arc::new(Snapshot { cluster_id: cluster.map(str::to_owned), ..Snapshot::default() });
        if let Some(handle) = shared.handles.get(key) {
            if handle.task == task && !handle.stop.is_cancelled() {
                return;
            }
            handle.stop.cancel();
            first = Arc::clone(&handle.snapshot.borrow());
        }
        let (snapshot, read) = watch::channel(first);
        let (nudge, stop) = (Arc::new(Notify::new()), CancellationToken::new());
        let wishes = Arc::<Wishes>::default();
        let worker = Worker {
            key: key.clone(),
            task: task.clone(),
            hub: Arc::clone(self),
            nudge: Arc::clone(&nudge),
            snapshot,
            stop: stop.clone(),
            wishes: Arc::clone(&wishes),
        };
        shared.handles.insert(key.clone(), Handle { task, nudge, snapshot: read, stop, wishes });
        drop(shared);
        tokio::spawn(worker.run());
        self.ring_topics(key);
        self.ring_fleets(key, None, None);
        self.ring_rivals(key);
    }

    /// A sweep ended by itself because its platform is gone.
    pub(super) fn ended(&self, key: &Key, nudge: &Arc<Notify>) {
        let ours = self.shared().handles.get(key).is_some_and(|handle| Arc::ptr_eq(&handle.nudge, nudge));
        if ours {
            self.forget(key);
        }
    }

    /// Ends a platform's sweep; its Topics hear of it.
    pub fn forget(&self, key: &Key) {
        let mut shared = self.shared();
        let Some(handle) = shared.handles.remove(key) else { return };
        handle.stop.cancel();
        shared.notices.remove(key);
        drop(shared);
        self.fleets.forget(key);
        self.ring_topics(key);
        self.ring_fleets(key, None, None);
        self.ring_rivals(key);
    }

    /// Asks for a sweep now.
    pub fn nudge(&self, key: &Key) {
        if let Some(handle) = self.shared().handles.get(key) {
            handle.nudge.notify_one();
        }
    }

    /// What the last sweep found; nothing for a platform without one.
    pub fn snapshot(&self, key: &Key) -> Option<Arc<Snapshot>> {
        self.shared().handles.get(key).map(|handle| Arc::clone(&handle.snapshot.borrow()))
    }

    /// The last survey that was asked for by somebody who knew `about`. One that is `old` or none at all brings a new
    /// one, and the platform's bell tells when it is there.
    pub fn survey(&self, key: &Key, about: u64, old: Duration) -> Option<Surveyed> {
        let shared = self.shared();
        let handle = shared.handles.get(key)?;
        let last = handle.snapshot.borrow().survey.clone().filter(|last| last.about == about);
        if last.as_ref().is_none_or(|last| last.began.elapsed() >= old) {
            handle.wishes.set(|wish| wish.survey = Some(about));
            handle.nudge.notify_one();
        }
        last
    }

    /// Says which voter there shall be on a new disk; the snapshot tells how far that is.
    pub fn want_voter(&self, key: &Key, exchange: Option<Exchange>) {
        if let Some(handle) = self.shared().handles.get(key) {
            handle.wishes.set(|wish| wish.exchange = exchange);
        }
    }

    /// Says to which level Kafka's metadata is to be raised; the snapshot tells how that goes.
    pub fn want_metadata(&self, key: &Key, level: Option<i16>) {
        if let Some(handle) = self.shared().handles.get(key) {
            handle.wishes.set(|wish| wish.metadata = level);
        }
    }

    /// Says which rights there shall be in Kafka, and no others; the snapshot tells which there are. Without a word of this
    /// none is looked at.
    pub fn want_rights(&self, key: &Key, rights: Option<BTreeSet<Acl>>) {
        let shared = self.shared();
        let Some(handle) = shared.handles.get(key) else { return };
        handle.wishes.set(|wish| {
            if wish.rights.as_deref() != rights.as_ref() {
                wish.rights = rights.map(Arc::new);
                handle.nudge.notify_one();
            }
        });
    }

    /// Makes as if a sweep had found this.
    #[cfg(test)]
    pub(crate) fn pretend(&self, key: &Key, snapshot: Snapshot) {
        use super::access::Access;
        use super::task::Keeper;
        let (bootstrap, prefix) = ("127.0.0.1:1".to_owned(), String::new());
        let access = Access { bootstrap, prefix, tls: None, sasl: None, external: false };
        let task = Task { access, keeper: Keeper::Tidegate { brokers: 3 }, paused: false };
        let (_, read) = watch::channel(Arc::new(snapshot));
        let handle = Handle {
            task,
            nudge: Arc::default(),
            snapshot: read,
            stop: CancellationToken::new(),
            wishes: Arc::default(),
        };
        self.shared().handles.insert(key.clone(), handle);
    }

    /// What people should hear about a Topic, or about one of [`internal::TOPICS`]; each notice is taken once.
    pub fn take_notices(&self, key: &Key, topic: &str) -> Vec<Notice> {
        self.shared().notices.get_mut(key).and_then(|all| all.remove(topic)).unwrap_or_default()
    }

    /// What people should hear about the platform's own topics.
    pub fn take_own_notices(&self, key: &Key) -> Vec<Notice> {
        internal::TOPICS.iter().flat_map(|topic| self.take_notices(key, topic)).collect()
    }

    pub(super) fn notices<'a>(&self, key: &Key, notices: impl Iterator<Item = &'a Notice>) {
        for notice in notices {
            let mut shared = self.shared();
            let waiting =
                shared.notices.entry(key.clone()).or_default().entry(notice.topic.clone()).or_default();
            if !waiting.contains(notice) {
                waiting.push(notice.clone());
            }
            drop(shared);
            if internal::TOPICS.contains(&notice.topic.as_str()) {
                self.ring_platform(key);
            } else {
                self.ring_topic(key, &notice.topic);
            }
        }
    }

    /// The Topics of a platform, and the names of those in its namespace that cannot be read. None is copied: there may
    /// be thousands.
    pub fn topics(&self, key: &Key) -> (Vec<Arc<DeserializeGuard<Topic>>>, BTreeSet<String>) {
        let stores = self.shared().topics.clone();
        let mut broken = BTreeSet::new();
        let mut topics: Vec<_> = stores.iter().flat_map(Store::state).collect();
        topics.retain(|object| {
            if object.namespace().as_deref() != Some(&key.namespace) {
                return false;
            }
            let Ok(topic) = &object.0 else {
                broken.insert(object.name_any());
                return false;
            };
            topic.spec.platform_ref.name == key.name
        });
        (topics, broken)
    }

    /// Waits until all Topics, fleets and platforms were listed once.
    pub(super) async fn wait_until_ready(&self) {
        let (topics, platforms) = {
            let shared = self.shared();
            (shared.topics.clone(), shared.platforms.clone())
        };
        for store in topics {
            let _ = store.wait_until_ready().await;
        }
        for store in platforms {
            let _ = store.wait_until_ready().await;
        }
        self.fleets.wait_until_ready().await;
    }

    /// All platforms that can be read.
    pub fn platforms(&self) -> Vec<IoTPlatform> {
        let stores = self.shared().platforms.clone();
        let all = stores.iter().flat_map(Store::state);
        all.filter_map(|platform| platform.0.as_ref().ok().cloned()).collect()
    }

    /// Lets the other platforms with an external Kafka look whether a place became free.
    fn ring_rivals(&self, key: &Key) {
        for platform in self.platforms().iter().filter(|platform| platform.spec.kafka.external.is_some()) {
            let other = Key::new(platform.namespace().unwrap_or_default(), platform.name_any());
            if other != *key {
                self.ring_platform(&other);
            }
        }
    }

    /// Whether the platform is still there and is not being deleted.
    pub(crate) fn has_platform(&self, key: &Key) -> bool {
        let reference = ObjectRef::new(&key.name).within(&key.namespace);
        let shared = self.shared();
        let mut found = shared.platforms.iter().filter_map(|store| store.get(&reference));
        found.any(|platform| platform.meta().deletion_timestamp.is_none())
    }

    pub(super) fn ring_topic(&self, key: &Key, topic: &str) {
        self.topic_bell.ring(&key.namespace, topic);
    }

    pub(super) fn ring_platform(&self, key: &Key) {
        self.platform_bell.ring(&key.namespace, &key.name);
    }

    fn ring_topics(&self, key: &Key) {
        for topic in self.topics(key).0 {
            self.ring_topic(key, &topic.name_any());
        }
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tasks: BTreeMap<_, _> = self
            .shared()
            .handles
            .iter()
            .map(|(key, handle)| (key.to_string(), handle.task.keeper.clone()))
            .collect();
        f.debug_struct("Hub").field("platforms", &tasks).finish_non_exhaustive()
    }
}
