//! Somebody else's Kafka: its credentials, the sweep, and what people read about it. IO against the API server; Kafka
//! is the sweep's.

use super::credentials;
use super::memory::{Authority, Memory};
use super::rotation::{self, Look, Speed, Which};
use super::validate::External;
use super::{published, replace, rival, secrets};
use crate::frame::driver::{Watches, read};
use crate::frame::{Children, Class, Cycle, Failure, Scope, StepError};
use crate::kafka::access::Access;
use crate::kafka::hub::{Hub, Key};
use crate::kafka::marks::Owner;
use crate::kafka::snapshot::{Health, Snapshot};
use crate::kafka::task::{Keeper, Task};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidegate_contract::directory::OwnerEntry;
use tidegate_crds::platform::KafkaStatus;
use tidegate_crds::{IoTPlatform, State, labels, reasons};

/// A platform as the controller sees it.
type Guarded = DeserializeGuard<IoTPlatform>;

/// Another platform has this place on Kafka.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "spec.kafka.prefix: IoTPlatform {namespace}/{name} is older and has prefix {prefix:?} on the same Kafka: write another prefix in a new IoTPlatform. This one touches nothing there"
)]
pub struct PlaceTaken {
    namespace: String,
    name: String,
    prefix: String,
}

impl StepError for PlaceTaken {
    fn reason(&self) -> &'static str {
        reasons::KAFKA_NAME_CONFLICT
    }

    fn class(&self) -> Class {
        Class::Blocked
    }
}

/// The devices' authority, then the credentials, then the sweep.
pub async fn bring_up(
    hub: &Arc<Hub>,
    memory: &Memory<Authority>,
    cycle: &mut Cycle<IoTPlatform>,
    valid: &External,
) -> Result<(), Failure> {
    let key = Key::new(cycle.namespace(), cycle.name());
    let authority = keep_device_authority(cycle, valid, memory.recall(&key, &valid.uid)).await?;
    if !cycle.paused() {
        memory.keep(&key, &valid.uid, authority, |key| hub.has_platform(key));
    }
    if let Some(rival) = rival::older(&cycle.subject, hub.platforms().iter()) {
        hub.forget(&key);
        let prefix = cycle.subject.spec.kafka.prefix.clone();
        let (namespace, name) = (rival.namespace().unwrap_or_default(), rival.name_any());
        return Err(PlaceTaken { namespace, name, prefix }.into());
    }
    let access = access(cycle, valid).await?;
    let owner = Owner {
        entry: OwnerEntry {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            uid: valid.uid.clone(),
        },
        adopt: labels::is_true(cycle.subject.annotations().get(labels::ADOPT)),
    };
    let before = cycle.status.kafka.take().unwrap_or_default();
    let cluster = Some(before.cluster_id.as_str()).filter(|id| !id.is_empty());
    let task = Task { access, keeper: Keeper::Others(owner), paused: cycle.paused() };
    hub.keep_on(&key, task, cluster);
    let snapshot = hub.snapshot(&key);
    cycle.status.kafka = Some(status(valid, snapshot.as_deref(), &before));
    // What is wrong with Kafka itself matters more, and is said over it.
    replace::refuse(cycle);
    say(cycle, judge(snapshot.as_deref(), valid.replicas))
}

/// What this process wrote last wins over what is stored: devices trust that authority, and it cannot be derived again.
async fn keep_device_authority(
    cycle: &mut Cycle<IoTPlatform>,
    valid: &External,
    known: Option<Authority>,
) -> Result<Authority, Failure> {
    let stored = read::<Secret>(&cycle.context, &valid.names.namespace, &valid.names.device_ca()).await?;
    let existing = known.or_else(|| stored.as_ref().map(secrets::data));
    let now = rotation::moment(cycle.now());
    let name = valid.names.device_ca();
    let settle = |existing: Option<&Authority>| secrets::device_authority(&valid.names, existing, now);
    let mut secret = settle(existing.as_ref())?;
    let one = |data: Authority| [(name.clone(), data)].into();
    let (wanted, stored) = (one(secrets::data(&secret)), stored.map(|stored| one(secrets::data(&stored))));
    let look = Look {
        names: &valid.names,
        wanted: &wanted,
        stored: &stored.unwrap_or_default(),
        rolled: true,
        speed: Speed { spread: cycle.context.options.secret_spread, applications: None },
    };
    let (changed, told) = rotation::advance(cycle, &look, &[Which::Devices])?;
    if let Some(changed) = changed.get(&name) {
        secret = settle(Some(changed))?;
    }
    let mut children = Children::new();
    children.push(&secret);
    children.push(&published::devices_authority(&valid.names, &secret));
    cycle.apply(&children).await?;
    told.publish(cycle);
    Ok(secrets::data(&secret))
}

async fn access(cycle: &Cycle<IoTPlatform>, valid: &External) -> Result<Access, Failure> {
    let mut found = BTreeMap::new();
    for name in credentials::names(&valid.spec) {
        let secret = read::<Secret>(&cycle.context, &valid.names.namespace, name).await?;
        found.extend(secret.map(|secret| (name.to_owned(), secret)));
    }
    let (tls, sasl) = credentials::resolve(&valid.spec, &found)?;
    let prefix = cycle.subject.spec.kafka.prefix.clone();
    Ok(Access { bootstrap: valid.bootstrap(), prefix, tls, sasl, external: true })
}

/// What the status says about Kafka. Its brokers are those that are there and those that should hold copies of a topic;
/// while it is away, their number is the last that was seen. Gateways are sent to other servers once the platform's Kafka
/// answered there.
fn status(valid: &External, snapshot: Option<&Snapshot>, before: &KafkaStatus) -> KafkaStatus {
    let up = snapshot.filter(|snapshot| snapshot.health == Health::Up);
    let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let bootstrap = valid.bootstrap();
    let answers = up.is_some_and(|up| up.bootstrap == bootstrap);
    KafkaStatus {
        bootstrap: if answers || before.bootstrap.is_empty() { bootstrap } else { before.bootstrap.clone() },
        brokers_ready: up.map_or(0, |up| count(up.brokers.len())),
        brokers: up.map_or(before.brokers, |up| count(up.brokers.len() + up.away.len())),
        // Kafka's protocol does not tell it.
        version: String::new(),
        cluster_id: up.and_then(|up| up.cluster_id.clone()).unwrap_or_else(|| before.cluster_id.clone()),
    }
}

/// What is to be said of a Kafka.
enum Verdict {
    /// Every topic is served; what people should know nevertheless.
    Served { reason: &'static str, message: String },
    /// Every topic is served, and brokers are away.
    Missing(String),
    /// Something is not served, and that may pass.
    Waiting { reason: &'static str, message: String },
    /// Nothing gets better until somebody acts.
    Stuck { reason: &'static str, message: String },
}

impl Verdict {
    fn waiting(message: impl Into<String>) -> Self {
        Self::Waiting { reason: reasons::KAFKA_NOT_READY, message: message.into() }
    }

    fn failed(failure: &crate::kafka::error::Failure) -> Self {
        let (reason, message) = (failure.reason(), failure.message());
        match failure.class() {
            crate::kafka::error::Class::Blocked => Self::Stuck { reason, message },
            crate::kafka::error::Class::Transient => Self::Waiting { reason, message },
        }
    }
}

/// `replicas`: the copies that new Topics get where they do not say it.
fn judge(snapshot: Option<&Snapshot>, replicas: i32) -> Verdict {
    let snapshot = match snapshot {
        None | Some(Snapshot { health: Health::Unknown, .. }) => {
            return Verdict::waiting("Kafka was not asked yet");
        }
        Some(Snapshot { health: Health::Down(failure), .. }) => return Verdict::failed(failure),
        Some(snapshot) => snapshot,
    };
    if let Some(short) = &snapshot.short {
        return Verdict::waiting(short);
    }
    if !snapshot.directory_written {
        return match &snapshot.directory {
            Some(failure) => Verdict::failed(failure),
            None => Verdict::waiting("gateways' directory is being made"),
        };
    }
    let (seen, all) = (snapshot.brokers.len(), snapshot.brokers.len() + snapshot.away.len());
    if all > seen {
        let away: Vec<_> = snapshot.away.iter().map(ToString::to_string).collect();
        let away = away.join(", ");
        return Verdict::Missing(format!(
            "{seen} of {all} brokers are in the cluster; away with copies of topics: {away}"
        ));
    }
    if usize::try_from(replicas).unwrap_or_default() > seen {
        let message = format!(
            "Kafka has {seen} of the {replicas} brokers that new Topics need for their copies: write spec.topicDefaults.replicas: {seen} (and minInSyncReplicas to match), or add brokers. Topics that are there already go on"
        );
        return Verdict::Served { reason: reasons::TOO_FEW_BROKERS, message };
    }
    Verdict::Served { reason: reasons::READY, message: String::new() }
}

fn say(cycle: &mut Cycle<IoTPlatform>, verdict: Verdict) -> Result<(), Failure> {
    match verdict {
        Verdict::Served { reason, message } => cycle.ready(State::True, reason, message),
        Verdict::Missing(message) => {
            cycle.ready(State::True, reasons::READY, "");
            cycle.progressing(reasons::KAFKA_NOT_READY, message);
        }
        Verdict::Waiting { reason, message } => {
            cycle.ready(State::False, reason, message.as_str());
            cycle.progressing(reason, message);
            cycle.look_again();
        }
        Verdict::Stuck { reason, message } => {
            return Err(Failure { class: Class::Blocked, reason, condition: None, message });
        }
    }
    Ok(())
}

/// The platforms that refer to a Secret.
fn concerned(platforms: &Store<Guarded>, namespace: Option<&str>, secret: &str) -> Vec<ObjectRef<Guarded>> {
    let refers = |platform: &Guarded| {
        let spec = platform.0.as_ref().ok().map(|platform| &platform.spec);
        let external = spec.and_then(|spec| spec.kafka.external.as_ref());
        platform.namespace().as_deref() == namespace
            && external.is_some_and(|external| credentials::names(external).contains(secret))
    };
    let all = platforms.state().into_iter().filter(|platform| refers(platform));
    all.map(|platform| ObjectRef::from_obj(&*platform)).collect()
}

/// The watch that external Kafkas need: of Secrets whose name a platform may have written. Only what identifies them
/// is read: the operator keeps no stranger's Secret in memory.
pub fn watch(controller: Watches<IoTPlatform>, scope: &Scope) -> Watches<IoTPlatform> {
    let platforms = controller.store();
    let secrets = scope.api::<PartialObjectMeta<Secret>>();
    controller.watches(secrets, watcher::Config::default(), move |secret| {
        concerned(&platforms, secret.namespace().as_deref(), &secret.name_any())
    })
}
