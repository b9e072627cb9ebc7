//! What a pass over a gateway reads from the API server. IO.

use super::deployment::CONFIG_VOLUME;
use super::mover::own_pods;
use super::names;
use super::validate::Gateway;
use crate::frame::backbone::address_pool;
use crate::frame::driver::read;
use crate::frame::failure::ReadError;
use crate::frame::malformed::Malformed;
use crate::frame::platforms::Platforms;
use crate::frame::{Applied, Backbone, Class, Context, Cycle, StepError};
use crate::network::trouble;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Event, Pod, Service};
use kube::ResourceExt as _;
use kube::api::ListParams;
use std::collections::BTreeSet;
use tidegate_crds::network::Network;
use tidegate_crds::platform::KafkaStatus;
use tidegate_crds::{IoTPlatform, ProtocolGateway, conditions, reasons};

/// What a gateway needs to know of its platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// Its uid: a platform that was deleted and made again has other certificates.
    pub uid: String,
    /// How to reach Kafka.
    pub backbone: Backbone,
    /// How Kafka is.
    pub kafka: KafkaStatus,
    /// The pool that load-balancer addresses come from.
    pub pool: Option<String>,
    /// Its second networks.
    pub networks: Vec<Network>,
}

impl Platform {
    /// What a gateway needs to know of this platform; nothing before it has Kafka.
    pub fn of(platform: &IoTPlatform) -> Option<Self> {
        Some(Self {
            uid: platform.metadata.uid.clone().unwrap_or_default(),
            backbone: Backbone::of(platform)?,
            kafka: platform.status.as_ref()?.kafka.clone()?,
            pool: address_pool(platform),
            networks: platform.spec.networks.clone(),
        })
    }
}

/// Why a pass ends before anything is built.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No such platform.
    #[error(
        "spec.platformRef.name: there is no IoTPlatform \"{name}\" in namespace {namespace}: {}",
        advice(.others)
    )]
    PlatformNotFound {
        /// The name that was written.
        name: String,
        /// Where it was looked for.
        namespace: String,
        /// Names that exist there.
        others: Vec<String>,
    },
    /// The platform does not fit this version.
    #[error(transparent)]
    PlatformMalformed(#[from] Malformed),
    /// The API server did not answer.
    #[error(transparent)]
    Read(#[from] ReadError),
}

fn advice(others: &[String]) -> String {
    if others.is_empty() {
        "create it first".to_owned()
    } else {
        format!("create it, or write one that exists ({})", others.join(", "))
    }
}

impl StepError for FetchError {
    fn reason(&self) -> &'static str {
        match self {
            Self::PlatformNotFound { .. } => reasons::PLATFORM_NOT_FOUND,
            Self::PlatformMalformed(error) => error.reason(),
            Self::Read(error) => error.reason(),
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::PlatformNotFound { .. } | Self::PlatformMalformed(_) => Class::Blocked,
            Self::Read(error) => error.class(),
        }
    }

    fn condition(&self) -> Option<&'static str> {
        match self {
            Self::PlatformNotFound { .. } | Self::PlatformMalformed(_) => Some(conditions::RESOLVED_REFS),
            Self::Read(_) => None,
        }
    }
}

/// The gateway's platform; nothing while it does not have Kafka.
pub async fn platform(
    platforms: &Platforms,
    context: &Context,
    gateway: &Gateway,
) -> Result<Option<Platform>, FetchError> {
    let (namespace, name) = (&gateway.namespace, &gateway.platform);
    if let Some(platform) = platforms.read(context, namespace, name).await? {
        return Ok(Platform::of(&platform?));
    }
    let list = context.api::<IoTPlatform>(namespace).list_metadata(&ListParams::default().limit(5)).await;
    // Only for the advice, so a failure here does not matter.
    let others = list.map(|list| list.iter().map(kube::ResourceExt::name_any).collect()).unwrap_or_default();
    Err(FetchError::PlatformNotFound { name: name.clone(), namespace: namespace.clone(), others })
}

/// The ConfigMap names that some revision of the Deployment still refers to.
pub async fn config_maps_in_use(context: &Context, gateway: &Gateway) -> Result<BTreeSet<String>, ReadError> {
    let list = context
        .api::<ReplicaSet>(&gateway.namespace)
        .list(&ListParams::default().labels(&names::selector_text(gateway)))
        .await
        .map_err(|source| ReadError { what: format!("ReplicaSets of {}", gateway.name), source })?;
    Ok(list.iter().flat_map(config_maps).collect())
}

fn config_maps(set: &ReplicaSet) -> Vec<String> {
    let pod =
        set.spec.as_ref().and_then(|spec| spec.template.as_ref()).and_then(|template| template.spec.as_ref());
    let volumes = pod.and_then(|pod| pod.volumes.as_ref()).into_iter().flatten();
    let sources = volumes
        .filter(|volume| volume.name == CONFIG_VOLUME)
        .filter_map(|volume| volume.projected.as_ref()?.sources.as_ref())
        .flatten();
    sources.filter_map(|source| Some(source.config_map.as_ref()?.name.clone())).collect()
}

/// How the children are.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The Deployment, if there is one.
    pub deployment: Option<Deployment>,
    /// The scaler, if there is one.
    pub scaler: Option<HorizontalPodAutoscaler>,
    /// The Services, in the order of their numbers.
    pub services: Vec<Service>,
    /// The pods, looked at only while fewer serve than shall, and where their interfaces matter.
    pub pods: Vec<Pod>,
    /// What keeps a pod from being given its networks: a constant of [`reasons`], and words.
    pub unplugged: Option<(&'static str, String)>,
    /// Why no node has what pods need.
    pub nowhere: Option<String>,
}

/// Looks at the children: as they were applied, or as they are where nothing was applied.
pub async fn observe(
    cycle: &Cycle<ProtocolGateway>,
    gateway: &Gateway,
    applied: Option<&Applied>,
) -> Result<Observed, ReadError> {
    let context = &cycle.context;
    let mut observed = Observed::default();
    if let Some(applied) = applied.filter(|_| !cycle.paused()) {
        observed.deployment = applied.get(&gateway.name);
        observed.scaler = applied.get(&gateway.name);
        observed.services = names::services(gateway).iter().filter_map(|name| applied.get(name)).collect();
    } else {
        observed.deployment = read(context, &gateway.namespace, &gateway.name).await?;
        for name in names::services(gateway) {
            observed.services.extend(read(context, &gateway.namespace, &name).await?);
        }
        if gateway.scaling.is_some() {
            observed.scaler = read(context, &gateway.namespace, &gateway.name).await?;
        }
    }
    let ready = observed.deployment.as_ref().and_then(|all| all.status.as_ref()?.ready_replicas).unwrap_or(0);
    if ready < gateway.replicas || !gateway.attachments.is_empty() {
        // Enough to find what is wrong, and for all endpoints that a status lists.
        let pods = own_pods(context, gateway, Some(100)).await?;
        observed.pods = pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
    }
    if ready < gateway.replicas && !gateway.attachments.is_empty() {
        observed.unplugged = unplugged(context, &observed.pods).await?;
    }
    Ok(observed)
}

/// What keeps the first pod that has no sandbox from being given its networks.
async fn unplugged(context: &Context, pods: &[Pod]) -> Result<Option<(&'static str, String)>, ReadError> {
    let begun = |pod: &Pod| {
        let containers = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
        containers.into_iter().flatten().any(|container| {
            container.state.as_ref().is_none_or(|state| state.running.is_some() || state.terminated.is_some())
        })
    };
    for pod in pods.iter().filter(|pod| !begun(pod)) {
        let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) else { continue };
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let of_pod = format!("involvedObject.name={name},reason={}", trouble::EVENT);
        let events = context.api::<Event>(&namespace).list(&ListParams::default().fields(&of_pod)).await;
        let events = events.map_err(|source| ReadError { what: format!("Events of pod {name}"), source })?;
        let ours = events.items.into_iter().filter(|event| {
            event.reason.as_deref() == Some(trouble::EVENT)
                && event.involved_object.name.as_deref() == Some(&name)
        });
        let time = |event: &Event| {
            let last = event.last_timestamp.as_ref().map(|time| time.0.to_string());
            last.or_else(|| event.event_time.as_ref().map(|time| time.0.to_string()))
        };
        let Some(last) = ours.max_by_key(time) else { continue };
        return Ok(Some(trouble::judge(&name, node, last.message.as_deref().unwrap_or_default())));
    }
    Ok(None)
}
