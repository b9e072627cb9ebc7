//! Managed Kafka from nothing to formed: certificates and identity, volumes, brokers, the sweep, and what people read
//! about it. IO against the API server; Kafka is the sweep's.

use super::judge::{Found, judge};
use super::memory::{Known, Memory};
use super::pods::{mounted, trouble};
use super::rotation::{Look, Speed, Told, Which};
use super::secrets::{self, Existing, SecretError, Settled};
use super::validate::Managed;
use super::{claims, closing, published, replace, roll, rotation};
use crate::frame::driver::read;
use crate::frame::failure::ReadError;
use crate::frame::{Children, Context, Cycle, Failure};
use crate::kafka::access::{Access, Tls};
use crate::kafka::cluster::Cluster;
use crate::kafka::hub::{Hub, Key};
use crate::kafka::identity::{Identity, Uuid};
use crate::kafka::objects::{config, disruption_budget, identity_map, service, service_account};
use crate::kafka::stateful_set::stateful_set;
use crate::kafka::task::{Keeper, Task};
use crate::kafka::wire::features;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::ResourceExt as _;
use kube::api::ListParams;
use std::sync::Arc;
use tidegate_crds::platform::{KafkaStatus, PlatformEffective};
use tidegate_crds::{IoTPlatform, State, labels, reasons};

/// What was there when the pass began.
struct Fetched {
    secrets: Existing,
    identity: Option<ConfigMap>,
    claims: claims::Claims,
    set: Option<StatefulSet>,
    pods: Vec<Pod>,
}

/// Certificates and identity, volumes, then what uses them: in this order, so that a crash between any two leaves
/// nothing that contradicts itself.
pub async fn bring_up(
    hub: &Arc<Hub>,
    memory: &Memory<Known>,
    cycle: &mut Cycle<IoTPlatform>,
    valid: &Managed,
) -> Result<(), Failure> {
    let (context, cluster) = (Arc::clone(&cycle.context), &valid.cluster);
    let key = Key::new(cycle.namespace(), cycle.name());
    let fetched = fetch(&context, cluster).await?;
    let snapshot = hub.snapshot(&key);
    let adopt = labels::is_true(cycle.subject.annotations().get(labels::ADOPT));

    let mut known = memory.recall(&key, &cluster.uid);
    let closed = known.as_ref().is_some_and(|known| known.closed);
    let closing =
        closing::look(cycle, cluster, &fetched.pods, fetched.set.as_ref(), (snapshot.as_deref(), closed));
    let cluster = &Cluster { stage: closing.stage, ..cluster.clone() };
    let existing = trusted(cluster, &fetched.secrets, known.as_ref());
    let (settled, told) = settle_secrets(cycle, cluster, &fetched, existing)?;
    if let Some(known) = known.as_mut().filter(|_| !cycle.paused()) {
        // Before it is written: where a write fails, rotations do not go back to where they were.
        known.secrets.extend(settled.data());
        memory.keep(&key, &cluster.uid, known.clone(), |key| hub.has_platform(key));
    }
    let mut identity = settle_identity(cycle, cluster, &fetched, adopt, known)?;
    if let Some(snapshot) = &snapshot {
        identity.formed(&snapshot.brokers.iter().copied().collect::<Vec<_>>());
    }
    let replacing = replace::look(hub, cycle, cluster, &mut identity, fetched.set.as_ref(), &fetched.pods);

    let mut foundation = certificates(cluster, &settled);
    foundation.push(&identity_map(cluster, &identity));
    let files = config(cluster);
    let files_name = files.name_any();
    foundation.push(&files);
    foundation.prune_component::<Secret>(secrets::APPLICATION);
    cycle.apply(&foundation).await?;
    told.publish(cycle);
    for (secret, name, why) in &settled.renewed {
        tracing::info!(secret, name, "made a certificate: {why}");
    }

    let growth = if cycle.paused() {
        None
    } else {
        let written = claims::apply(&context, cluster, &identity, &fetched.claims).await?;
        let (secrets, closed) = (settled.data(), closing.is_closed());
        let known = Known { secrets, identity: identity.clone(), claims: written.uids, closed };
        memory.keep(&key, &cluster.uid, known, |key| hub.has_platform(key));
        written.growth
    };

    let workload = workload(cluster, files_name, &settled.fingerprint, &fetched);
    let applied = cycle.apply(&workload).await?;
    let set = applied.get::<StatefulSet>(&cluster.names.kafka()).or(fetched.set);

    // While paused, what was just made is in no Secret and Kafka would not know it.
    if !cycle.paused() || settled.renewed.is_empty() {
        hub.keep(&key, task(cycle, cluster, settled.operator));
    }
    closing.settle(hub, cycle, cluster);
    let snapshot = hub.snapshot(&key);
    let ready = set.as_ref().and_then(|set| set.status.as_ref()?.ready_replicas).unwrap_or(0);
    let formed = identity.is_formed();
    let found = Found {
        snapshot: snapshot.as_deref(),
        brokers: cluster.brokers,
        ready,
        formed,
        waits_for_rights: closing.waits(snapshot.as_deref()),
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
    if verdict.ready != State::True {
        cycle.look_again();
        cycle.progressing(verdict.reason, verdict.message);
    } else if let Some((reason, message)) = verdict.missing {
        cycle.look_again();
        cycle.progressing(reason, message);
    } else if let Some(text) = growth {
        cycle.progressing(text.reason(), text.message());
    }
    replace::act(hub, cycle, cluster, &identity, &fetched.pods).await?;
    let rolled = match &set {
        // While a voter is exchanged no other can be spared.
        _ if identity.replacing().is_some() => false,
        Some(set) => roll::advance(hub, cycle, cluster, set, &fetched.pods).await?,
        None => false,
    };
    metadata(hub, cycle, cluster, rolled && formed);
    if let Some(told) = replacing.filter(|told| told.reason != reasons::DISK_REPLACED) {
        cycle.progressing(told.reason, told.message);
    }
    Ok(())
}

/// What runs brokers, and the files of those that still run older settings.
fn workload(cluster: &Cluster, files: String, fingerprint: &str, fetched: &Fetched) -> Children {
    let template_size = fetched.set.as_ref().and_then(template_size);
    let mut workload = Children::new();
    workload.push(&service_account(cluster));
    workload.push(&service(cluster));
    workload.push(&disruption_budget(cluster));
    workload.push(&stateful_set(cluster, &files, fingerprint, template_size));
    workload.keep::<ConfigMap>(cluster.names.identity());
    workload.keep::<ConfigMap>(cluster.names.devices_ca());
    workload.keep::<ConfigMap>(files);
    for map in mounted(&fetched.pods) {
        workload.keep::<ConfigMap>(map);
    }
    workload.prune::<ConfigMap>();
    workload
}

/// The Secrets, and what of them everybody may know.
fn certificates(cluster: &Cluster, settled: &Settled) -> Children {
    let mut children = Children::new();
    for secret in &settled.secrets {
        children.push(secret);
    }
    let devices = settled.secrets.iter().find(|secret| secret.name_any() == cluster.names.device_ca());
    if let Some(devices) = devices {
        children.push(&published::devices_authority(&cluster.names, devices));
    }
    children
}

/// Raises the version of Kafka's metadata where the spec names a higher one, as soon as every broker runs what it
/// should: Kafka itself refuses what one of them does not know.
fn metadata(hub: &Hub, cycle: &mut Cycle<IoTPlatform>, cluster: &Cluster, rolled: bool) {
    let key = Key::new(cycle.namespace(), cycle.name());
    let level = cluster.metadata_version.as_deref().and_then(features::level);
    if !rolled {
        return;
    }
    hub.want_metadata(&key, level);
    let (Some(level), Some(found)) = (level, hub.snapshot(&key).and_then(|found| found.metadata.clone()))
    else {
        return;
    };
    match found {
        Ok(have) => {
            if let Some(effective) = &mut cycle.status.effective {
                effective.metadata_version = features::name(have);
            }
            if have > level {
                let (have, level) = (features::name(have), features::name(level));
                let text = format!(
                    "spec.kafka.managed.metadataVersion: Kafka's metadata is at {have} already and never goes back: write {have} instead of {level}"
                );
                cycle.progressing(reasons::METADATA_VERSION, text);
            }
        }
        Err(failure) => {
            let text = format!("spec.kafka.managed.metadataVersion: {}", failure.message());
            cycle.progressing(reasons::METADATA_VERSION, text);
        }
    }
}

/// What certificates are kept: those that were written last, whatever somebody made of them since. Leaves that were
/// deleted are not among them: deleting is how people ask for new ones.
fn trusted(cluster: &Cluster, stored: &Existing, known: Option<&Known>) -> Existing {
    let Some(known) = known else { return stored.clone() };
    let authorities = [cluster.names.kafka_ca(), cluster.names.device_ca()];
    let kept =
        known.secrets.iter().filter(|(name, _)| stored.contains_key(*name) || authorities.contains(name));
    kept.map(|(name, data)| (name.clone(), data.clone())).collect()
}

/// Keeps or makes all certificates, and lets their rotation go at most one step on.
fn settle_secrets(
    cycle: &mut Cycle<IoTPlatform>,
    cluster: &Cluster,
    fetched: &Fetched,
    mut existing: Existing,
) -> Result<(Settled, Told), SecretError> {
    let now = rotation::moment(cycle.now());
    let mut settled = secrets::settle(cluster, &existing, now)?;
    let wanted = settled.data();
    let applications = !cycle.subject.spec.kafka.applications.is_empty();
    let options = &cycle.context.options;
    let speed = Speed {
        spread: options.secret_spread,
        applications: applications.then_some(options.applications_wait),
    };
    let look = Look {
        names: &cluster.names,
        wanted: &wanted,
        stored: &fetched.secrets,
        rolled: rotation::rolled(cluster, &settled.fingerprint, &fetched.pods),
        speed,
    };
    let (changed, told) = rotation::advance(cycle, &look, &[Which::Kafka, Which::Devices])?;
    if !changed.is_empty() {
        existing.extend(wanted);
        existing.extend(changed);
        let made = std::mem::take(&mut settled.renewed);
        settled = secrets::settle(cluster, &existing, now)?;
        settled.renewed.splice(0..0, made);
    }
    cycle.status.certificates.extend(rotation::leaves(&cluster.names, &settled.data()));
    Ok((settled, told))
}

fn settle_identity(
    cycle: &Cycle<IoTPlatform>,
    cluster: &Cluster,
    fetched: &Fetched,
    adopt: bool,
    known: Option<Known>,
) -> Result<Identity, claims::ClaimError> {
    let (mut strange, data) =
        (fetched.claims.clone(), fetched.identity.as_ref().and_then(|map| map.data.as_ref()));
    // A claim of ours is ours whatever somebody wrote on it.
    strange.retain(|node, claim| {
        known.as_ref().is_none_or(|known| known.claims.get(node) != claim.metadata.uid.as_ref())
    });
    let said = claims::identities(cluster, &strange, adopt)?;
    let current = match (known, data) {
        (Some(known), _) => Some(known.identity),
        (None, Some(data)) => Identity::read(&cluster.names.identity(), data)?,
        (None, None) => None,
    };
    let status = cycle.subject.status.as_ref().and_then(|status| status.kafka.as_ref());
    let formed = status.and_then(|kafka| Uuid::parse(&kafka.cluster_id));
    Ok(Identity::settle(&cluster.names, cluster.brokers, current, &said, formed.as_ref())?)
}

fn task(cycle: &Cycle<IoTPlatform>, cluster: &Cluster, tls: Tls) -> Task {
    Task {
        access: Access {
            bootstrap: cluster.names.bootstrap(),
            prefix: cycle.subject.spec.kafka.prefix.clone(),
            tls: Some(tls),
            sasl: None,
            external: false,
        },
        keeper: Keeper::Tidegate { brokers: cluster.brokers },
        paused: cycle.paused(),
    }
}

/// What is in effect where the spec leaves it open.
pub fn effective(valid: &Managed, platform: &IoTPlatform) -> PlatformEffective {
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
