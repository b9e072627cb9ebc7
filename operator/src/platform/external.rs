//! Somebody else's Kafka: its credentials, the sweep, and what people read about it. IO against the API server; Kafka
//! is the sweep's.

use super::credentials;
use super::memory::{Authority, Memory};
use super::validate::External;
use super::{rival, secrets};
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
use time::OffsetDateTime;

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
    hub.keep(&key, Task { access, keeper: Keeper::Others(owner), paused: cycle.paused() });
    let snapshot = hub.snapshot(&key);
    let before = cycle.status.kafka.take().unwrap_or_default();
    cycle.status.kafka = Some(status(valid, snapshot.as_deref(), &before));
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
    let secret = secrets::device_authority(&valid.names, existing.as_ref(), OffsetDateTime::now_utc())?;
    let mut children = Children::new();
    children.push(&secret);
    cycle.apply(&children).await?;
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

/// What the status says about Kafka. While it is away, the number of its brokers is the last that was seen.
fn status(valid: &External, snapshot: Option<&Snapshot>, before: &KafkaStatus) -> KafkaStatus {
    let up = snapshot.filter(|snapshot| snapshot.health == Health::Up);
    let seen = up.and_then(|up| i32::try_from(up.brokers.len()).ok());
    KafkaStatus {
        bootstrap: valid.bootstrap(),
        brokers_ready: seen.unwrap_or_default(),
        brokers: seen.unwrap_or(before.brokers),
        // Kafka's protocol does not tell it.
        version: String::new(),
        cluster_id: up.and_then(|up| up.cluster_id.clone()).unwrap_or_else(|| before.cluster_id.clone()),
    }
}

/// What is wrong, and whether it stays until somebody acts.
struct Trouble {
    reason: &'static str,
    message: String,
    stuck: bool,
}

fn judge(snapshot: Option<&Snapshot>, replicas: i32) -> Result<(), Trouble> {
    let of = |failure: &crate::kafka::error::Failure| Trouble {
        reason: failure.reason(),
        message: failure.message(),
        stuck: failure.class() == crate::kafka::error::Class::Blocked,
    };
    let wait = |message: &str| {
        Err(Trouble { reason: reasons::KAFKA_NOT_READY, message: message.to_owned(), stuck: false })
    };
    let snapshot = match snapshot {
        None | Some(Snapshot { health: Health::Unknown, .. }) => return wait("Kafka was not asked yet"),
        Some(Snapshot { health: Health::Down(failure), .. }) => return Err(of(failure)),
        Some(snapshot) => snapshot,
    };
    if !snapshot.directory_written {
        return match &snapshot.directory {
            Some(failure) => Err(of(failure)),
            None => wait("gateways' directory is being made"),
        };
    }
    let seen = snapshot.brokers.len();
    if usize::try_from(replicas).unwrap_or_default() > seen {
        let message = format!(
            "Kafka has {seen} of the {replicas} brokers that new Topics need for their copies: write spec.topicDefaults.replicas: {seen} (and minInSyncReplicas to match), or add brokers. Topics that are there already go on"
        );
        return Err(Trouble { reason: reasons::TOO_FEW_BROKERS, message, stuck: true });
    }
    Ok(())
}

fn say(cycle: &mut Cycle<IoTPlatform>, judged: Result<(), Trouble>) -> Result<(), Failure> {
    match judged {
        Ok(()) => Ok(()),
        Err(Trouble { reason, message, stuck: true }) => {
            Err(Failure { class: Class::Blocked, reason, condition: None, message })
        }
        Err(Trouble { reason, message, stuck: false }) => {
            cycle.ready(State::False, reason, message.as_str());
            cycle.progressing(reason, message);
            cycle.look_again();
            Ok(())
        }
    }
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
