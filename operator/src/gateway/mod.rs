//! The gateway controller: from a `ProtocolGateway` to pods that speak one protocol to devices.
//!
//! | module | step | IO |
//! |---|---|---|
//! | [`fetch`] | reads platform, ReplicaSets, pods | yes |
//! | [`networks`] | second interfaces of the pods | looks for attachments |
//! | [`placement`], [`mover`] | where pods belong; moves those that do not | no; yes |
//! | [`validate`] | the resource becomes a [`validate::Gateway`] | no |
//! | [`config`], [`deployment`], [`service`], [`scaler`] | what shall exist | no |
//! | [`status`] | what is said about it | no |

pub mod config;
pub mod deployment;
pub mod fetch;
pub mod mover;
pub mod names;
pub mod networks;
pub mod placement;
#[cfg(test)]
mod samples;
pub mod scaler;
pub mod service;
pub mod status;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_networks;
pub mod validate;
mod watch;

use crate::frame::driver::Watches;
use crate::frame::owned::{owns, owns_but};
use crate::frame::platforms::{Guarded, Platforms};
use crate::frame::{Children, Cycle, Failure, Reconciler, Scope};
use futures::{StreamExt as _, stream};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource as _, ResourceExt as _};
use tidegate_crds::{ProtocolGateway, State, conditions, reasons};

/// The gateway controller.
#[derive(Debug, Default)]
pub struct GatewayController {
    platforms: Platforms,
}

impl Reconciler for GatewayController {
    type Subject = ProtocolGateway;

    const NAME: &'static str = "gateway";

    fn watch(&self, controller: Watches<ProtocolGateway>, scope: &Scope) -> Watches<ProtocolGateway> {
        let gateways = controller.store();
        // How many Topics are ready changes all the time, and is no news.
        let part = |platform: &Guarded| {
            let known = platform.0.as_ref().ok().map(fetch::Platform::of);
            (platform.meta().generation, known)
        };
        let of_platform = move |platform: ObjectRef<Guarded>| {
            let names = |gateway: &ProtocolGateway| gateway.spec.platform_ref.name == platform.name;
            let all = gateways.state().into_iter().filter(|gateway| {
                gateway.namespace() == platform.namespace && gateway.0.as_ref().is_ok_and(names)
            });
            stream::iter(all.map(|gateway| ObjectRef::from_obj(&*gateway)).collect::<Vec<_>>())
        };
        let (attached, placed) = (controller.store(), controller.store());
        let controller = controller
            .reconcile_on(watch::attached(scope, attached))
            .reconcile_on(watch::placed(scope, placed));
        let controller = owns::<_, Deployment>(controller, scope);
        let controller = owns::<_, Service>(controller, scope);
        let controller = owns::<_, ConfigMap>(controller, scope);
        let controller = owns::<_, ServiceAccount>(controller, scope);
        // Its status has a new figure every few seconds.
        let controller = owns_but::<_, HorizontalPodAutoscaler>(controller, scope, scaler::what_counts);
        owns::<_, PodDisruptionBudget>(controller, scope)
            .reconcile_on(self.platforms.watch(scope, part).flat_map(of_platform))
    }

    async fn reconcile(&self, cycle: &mut Cycle<ProtocolGateway>) -> Result<(), Failure> {
        let mut gateway = validate::validate(&cycle.subject)?;
        let platform = fetch::platform(&self.platforms, &cycle.context, &gateway).await?;
        cycle.status.selector = names::selector_text(&gateway);
        let Some(platform) = platform else {
            // Children stay as they are: a platform that is being formed again must not take gateways down.
            let text = format!("platform {} does not have Kafka yet", gateway.platform);
            cycle.ready(State::False, reasons::KAFKA_NOT_READY, text.as_str());
            cycle.progressing(reasons::KAFKA_NOT_READY, text);
            return Ok(());
        };
        gateway.interfaces = networks::resolve(&gateway, &platform)?;
        let mut interfaces = gateway.interfaces.clone();
        if let Some(absent) = networks::look_up(&cycle.context, &gateway, &mut interfaces).await? {
            return unplugged(cycle, &gateway, &platform, &absent).await;
        }
        gateway.interfaces = interfaces;
        let plan = mover::look(cycle, &gateway).await?;
        gateway.surge = plan.surge;
        mover::act(cycle, &gateway, &plan).await?;
        let children = build(&gateway, &platform, &cycle.context.options.images.gateway);
        let used = fetch::config_maps_in_use(&cycle.context, &gateway).await?;
        let children = used.into_iter().fold(children, |mut children, name| {
            children.keep::<ConfigMap>(name);
            children
        });
        let applied = cycle.apply(&children).await?;
        let mut observed = fetch::observe(cycle, &gateway, Some(&applied)).await?;
        observed.nowhere.clone_from(&plan.nowhere);
        status::write(cycle, &gateway, &platform, &observed);
        mover::tell(cycle, &plan);
        if !cycle.status.conditions.is_true(conditions::READY) {
            // What its pods lack is not told by any watch of ours.
            cycle.look_again();
        }
        Ok(())
    }
}

/// A pass over a gateway whose attachments are not there. Nothing is changed: pods that run keep their interfaces, and a
/// new one could not start.
async fn unplugged(
    cycle: &mut Cycle<ProtocolGateway>,
    gateway: &validate::Gateway,
    platform: &fetch::Platform,
    absent: &networks::Absent,
) -> Result<(), Failure> {
    let (reason, text) = (absent.reason(), absent.message());
    let observed = fetch::observe(cycle, gateway, None).await?;
    status::write(cycle, gateway, platform, &observed);
    if !cycle.status.conditions.is_true(conditions::READY) {
        cycle.ready(State::False, reason, text.as_str());
    }
    let before =
        cycle.subject.status.as_ref().and_then(|status| status.conditions.get(conditions::RESOLVED_REFS));
    if before.is_none_or(|before| before.reason != reason) {
        cycle.note(true, reason, text.as_str());
    }
    cycle.set(conditions::RESOLVED_REFS, State::False, reason, text.as_str());
    cycle.set(conditions::RECONCILING, State::False, reason, "");
    cycle.set(conditions::STALLED, State::True, reason, text);
    cycle.look_again();
    Ok(())
}

/// Everything that shall exist for a gateway.
pub fn build(gateway: &validate::Gateway, platform: &fetch::Platform, image: &str) -> Children {
    let mut children = Children::new();
    let config = config::config_map(gateway, &platform.backbone);
    children.push(&deployment::service_account(gateway));
    children.push(&config);
    children.push(&deployment::deployment(gateway, platform, &config.name_any(), image));
    children.push(&deployment::disruption_budget(gateway));
    for service in service::services(gateway, platform) {
        children.push(&service);
    }
    if let Some(scaler) = scaler::scaler(gateway) {
        children.push(&scaler);
    }
    children.prune::<Service>();
    children.prune::<ConfigMap>();
    children.prune::<HorizontalPodAutoscaler>();
    children
}
