//! The platform controller: managed Kafka from nothing to formed, its certificates and identity, the sweep that
//! keeps topics and directory, and what people read about it. IO against the API server; Kafka is the sweep's.

use super::judge::{Found, judge};
use super::pods::{mounted, trouble};
use super::pool::{self, FINALIZER};
use super::secrets::{self, Existing, SecretError};
use super::validate::{Addresses, Validated, validate};
use super::{attached, claims, restart};
use crate::finalizer;
use crate::frame::driver::{Watches, read};
use crate::frame::failure::ReadError;
use crate::frame::{Children, Context, Cycle, Failure, Reconciler, Scope};
use crate::kafka::access::{Access, Tls};
use crate::kafka::cluster::Cluster;
use crate::kafka::hub::{Hub, Key};
use crate::kafka::identity::{Identity, Uuid};
use crate::kafka::names::VOTERS;
use crate::kafka::objects::{config, disruption_budget, identity_map, service, service_account};
use crate::kafka::stateful_set::stateful_set;
use crate::kafka::worker::Task;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::runtime::watcher;
use kube::{Resource as _, ResourceExt as _};
use std::sync::Arc;
use std::time::Duration;
use tidegate_crds::conditions::{ACCEPTED, FAILOVER_LIMITED, RECONCILING};
use tidegate_crds::platform::{KafkaStatus, PlatformEffective};
use tidegate_crds::{IoTPlatform, ProtocolGateway, State, Topic, labels, reasons};
use time::OffsetDateTime;

/// How often a platform that is not ready is looked at without an event.
const SOON: Duration = Duration::from_secs(10);

/// The platform controller.
pub struct PlatformController {
    hub: Arc<Hub>,
}

/// What was there when the pass began.
struct Fetched {
    secrets: Existing,
    identity: Option<ConfigMap>,
    claims: claims::Claims,
    set: Option<StatefulSet>,
    pods: Vec<Pod>,
}

impl PlatformController {
    /// A controller that starts and stops sweeps in `hub`.
    pub const fn new(hub: Arc<Hub>) -> Self {
        Self { hub }
    }

    /// Certificates and identity, volumes, then what uses them: in this order, so that a crash between any two leaves
    /// nothing that contradicts itself.
    async fn bring_up(&self, cycle: &mut Cycle<IoTPlatform>, valid: &Validated) -> Result<(), Failure> {
        let (context, cluster) = (Arc::clone(&cycle.context), &valid.cluster);
        let key = Key::new(cycle.namespace(), cycle.name());
        let fetched = fetch(&context, cluster).await?;
        let snapshot = self.hub.snapshot(&key);
        let adopt = labels::is_true(cycle.subject.annotations().get(labels::ADOPT));

        let settled = settle_secrets(cluster, &fetched)?;
        let mut identity = settle_identity(cycle, cluster, &fetched, adopt)?;
        if let Some(snapshot) = &snapshot {
            identity.formed(&snapshot.brokers.iter().copied().collect::<Vec<_>>());
        }

        let mut foundation = Children::new();
        for secret in &settled.secrets {
            foundation.push(secret);
        }
        foundation.push(&identity_map(cluster, &identity));
        let files = config(cluster);
        let files_name = files.name_any();
        foundation.push(&files);
        cycle.apply(&foundation).await?;
        for (secret, name, why) in &settled.renewed {
            tracing::info!(secret, name, "made a certificate: {why}");
        }

        if !cycle.paused() {
            claims::apply(&context, cluster, &identity, &fetched.claims).await?;
        }

        let template_size = fetched.set.as_ref().and_then(template_size);
        let mut workload = Children::new();
        workload.push(&service_account(cluster));
        workload.push(&service(cluster));
        workload.push(&disruption_budget(cluster));
        workload.push(&stateful_set(cluster, &files_name, template_size));
        workload.keep::<ConfigMap>(cluster.names.identity());
        workload.keep::<ConfigMap>(files_name);
        for map in mounted(&fetched.pods) {
            workload.keep::<ConfigMap>(map);
        }
        workload.prune::<ConfigMap>();
        let applied = cycle.apply(&workload).await?;
        let set = applied.get::<StatefulSet>(&cluster.names.kafka()).or(fetched.set);

        // While paused, what was just made is in no Secret and Kafka would not know it.
        if !cycle.paused() || settled.renewed.is_empty() {
            self.hub.keep(&key, task(cycle, cluster, settled.operator));
        }
        let snapshot = self.hub.snapshot(&key);
        let ready = set.as_ref().and_then(|set| set.status.as_ref()?.ready_replicas).unwrap_or(0);
        let formed = identity.is_formed();
        let found = Found {
            snapshot: snapshot.as_deref(),
            brokers: cluster.brokers,
            ready,
            formed,
            trouble: trouble(&fetched.pods),
        };
        let verdict = judge(&found);
        // The operator itself may be what cannot reach Kafka: then pods are the better witnesses.
        let seen = snapshot.as_ref().and_then(|snapshot| i32::try_from(snapshot.brokers.len()).ok());
        cycle.status.kafka = Some(KafkaStatus {
            bootstrap: cluster.names.bootstrap(),
            brokers_ready: seen.filter(|seen| *seen > 0).map_or(ready, |seen| seen.min(ready)),
            brokers: cluster.brokers,
            version: valid.version.clone(),
            cluster_id: if formed { identity.cluster.to_string() } else { String::new() },
        });
        cycle.ready(verdict.ready, verdict.reason, verdict.message.as_str());
        let serves = verdict.ready == State::True;
        if !serves {
            cycle.progressing(verdict.reason, verdict.message);
            cycle.requeue_after(SOON);
        }
        if let Some(text) = set.as_ref().and_then(|set| restart::pending(set, &fetched.pods, serves)) {
            say_restart(cycle, text);
        }
        Ok(())
    }
}

impl Reconciler for PlatformController {
    type Subject = IoTPlatform;

    const NAME: &'static str = "platform";

    fn watch(&self, controller: Watches<IoTPlatform>, scope: &Scope) -> Watches<IoTPlatform> {
        let platforms = controller.store();
        self.hub.add_platforms(platforms.clone());
        let (of_topic, of_gateway) = (platforms.clone(), platforms);
        let all = watcher::Config::default;
        controller
            .owns(scope.api::<StatefulSet>(), scope.owned())
            .owns(scope.api::<Service>(), scope.owned())
            .owns(scope.api::<ServiceAccount>(), scope.owned())
            .owns(scope.api::<ConfigMap>(), scope.owned())
            .owns(scope.api::<Secret>(), scope.owned())
            .owns(scope.api::<PodDisruptionBudget>(), scope.owned())
            .watches(scope.api::<DeserializeGuard<Topic>>(), all(), move |topic| {
                let platform = topic.0.as_ref().ok().map(|topic| topic.spec.platform_ref.name.as_str());
                attached::concerned(&of_topic, topic.meta(), platform)
            })
            .watches(scope.api::<DeserializeGuard<ProtocolGateway>>(), all(), move |gateway| {
                let platform = gateway.0.as_ref().ok().map(|gateway| gateway.spec.platform_ref.name.as_str());
                attached::concerned(&of_gateway, gateway.meta(), platform)
            })
            .reconcile_on(self.hub.platform_bell().listen())
    }

    async fn reconcile(&self, cycle: &mut Cycle<IoTPlatform>) -> Result<(), Failure> {
        let (context, platform) = (Arc::clone(&cycle.context), Arc::clone(&cycle.subject));
        say_failover(cycle);
        let valid = validate(&platform, &context.options)?;
        cycle.status.effective = Some(effective(&valid, &platform));
        if !valid.unserved.is_empty() {
            let text =
                format!("this version of Tidegate does nothing yet about {}", valid.unserved.join(" and "));
            cycle.set(ACCEPTED, State::True, reasons::NOT_IMPLEMENTED, text);
        }
        let (namespace, name) = (cycle.namespace(), cycle.name());
        cycle.status.gateways = Some(attached::count::<ProtocolGateway>(&context, &namespace, &name).await?);
        cycle.status.topics = Some(attached::count::<Topic>(&context, &namespace, &name).await?);

        // Kafka must not wait for addresses.
        let pool = addresses(cycle, &valid.addresses).await;
        self.bring_up(cycle, &valid).await?;
        pool
    }

    async fn finalize(&self, cycle: &mut Cycle<IoTPlatform>) -> Result<(), Failure> {
        let (context, platform) = (Arc::clone(&cycle.context), Arc::clone(&cycle.subject));
        if platform.finalizers().iter().any(|each| each == FINALIZER) {
            pool::remove(&context, &platform).await?;
            finalizer::set(&context, &*platform, FINALIZER, false).await?;
        }
        Ok(())
    }
}

async fn addresses(cycle: &Cycle<IoTPlatform>, addresses: &Addresses) -> Result<(), Failure> {
    let (context, platform) = (&cycle.context, &*cycle.subject);
    if cycle.paused() {
        return Ok(());
    }
    let makes = matches!(addresses, Addresses::Ranges(_));
    if !makes && platform.finalizers().iter().any(|each| each == FINALIZER) {
        pool::remove(context, platform).await?;
    }
    // The finalizer first: what is made outside the namespace must never be left behind.
    finalizer::set(context, platform, FINALIZER, makes).await?;
    Ok(pool::settle(context, platform, addresses).await?)
}

fn settle_secrets(cluster: &Cluster, fetched: &Fetched) -> Result<secrets::Settled, SecretError> {
    secrets::settle(cluster, &fetched.secrets, OffsetDateTime::now_utc())
}

fn settle_identity(
    cycle: &Cycle<IoTPlatform>,
    cluster: &Cluster,
    fetched: &Fetched,
    adopt: bool,
) -> Result<Identity, claims::ClaimError> {
    let said = claims::identities(cluster, &fetched.claims, adopt)?;
    let data = fetched.identity.as_ref().and_then(|map| map.data.as_ref());
    let current = match data {
        Some(data) => Identity::read(&cluster.names.identity(), data)?,
        None => None,
    };
    let status = cycle.subject.status.as_ref().and_then(|status| status.kafka.as_ref());
    let formed = status.and_then(|kafka| Uuid::parse(&kafka.cluster_id));
    Ok(Identity::settle(&cluster.names, cluster.brokers, current, &said, formed.as_ref())?)
}

fn task(cycle: &Cycle<IoTPlatform>, cluster: &Cluster, tls: Tls) -> Task {
    let replicas = cluster.brokers.min(VOTERS);
    Task {
        access: Access {
            bootstrap: cluster.names.bootstrap(),
            prefix: cycle.subject.spec.kafka.prefix.clone(),
            tls: Some(tls),
        },
        brokers: cluster.brokers,
        replicas,
        min_in_sync_replicas: (replicas - 1).max(1),
        paused: cycle.paused(),
    }
}

fn say_failover(cycle: &mut Cycle<IoTPlatform>) {
    let text = if cycle.subject.spec.failover.enabled {
        "this version of Tidegate does not watch nodes yet: Kubernetes' own times apply when one dies"
    } else {
        "spec.failover.enabled is false: Kubernetes' own times apply when a node dies"
    };
    cycle.set(FAILOVER_LIMITED, State::True, reasons::FAILOVER_OFF, text);
}

/// Says that a change waits for a person. An Event tells it once.
fn say_restart(cycle: &mut Cycle<IoTPlatform>, text: String) {
    let before = cycle.subject.status.as_ref().and_then(|status| status.conditions.get(RECONCILING));
    if before.is_none_or(|before| before.reason != reasons::RESTART_PENDING) {
        cycle.note(true, reasons::RESTART_PENDING, text.as_str());
    }
    cycle.progressing(reasons::RESTART_PENDING, text);
}

fn effective(valid: &Validated, platform: &IoTPlatform) -> PlatformEffective {
    let managed = platform.spec.kafka.managed.clone().unwrap_or_default();
    PlatformEffective {
        version: valid.version.clone(),
        metadata_version: managed.metadata_version,
        image: valid.cluster.image.clone(),
        storage: valid.cluster.volume.as_ref().and_then(|volume| volume.size.parse().ok()),
    }
}

fn template_size(set: &StatefulSet) -> Option<&str> {
    let templates = set.spec.as_ref()?.volume_claim_templates.as_ref()?;
    let resources = templates.first()?.spec.as_ref()?.resources.as_ref()?;
    Some(resources.requests.as_ref()?.get("storage")?.0.as_str())
}

async fn fetch(context: &Context, cluster: &Cluster) -> Result<Fetched, Failure> {
    let names = &cluster.names;
    let mut existing = Existing::new();
    for name in secrets::names(cluster) {
        if let Some(secret) = read::<Secret>(context, &names.namespace, &name).await? {
            existing.insert(name, secrets::data(&secret));
        }
    }
    let selector: Vec<_> =
        cluster.selector().into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    let pods = context
        .api::<Pod>(&names.namespace)
        .list(&ListParams::default().labels(&selector.join(",")))
        .await
        .map_err(|source| ReadError { what: format!("the pods of {}", names.kafka()), source })?;
    Ok(Fetched {
        secrets: existing,
        identity: read(context, &names.namespace, &names.identity()).await?,
        claims: claims::read(context, cluster).await?,
        set: read(context, &names.namespace, &names.kafka()).await?,
        pods: pods.items,
    })
}
