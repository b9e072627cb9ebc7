//! The gateway controller: from a `ProtocolGateway` to pods that speak one protocol to devices.
//!
//! | module | step | IO |
//! |---|---|---|
//! | [`fetch`] | reads platform, ReplicaSets, pods | yes |
//! | [`networks`] | second interfaces of the pods | looks for attachments |
//! | [`placement`], [`mover`] | where pods belong; moves those that do not | no; yes |
//! | [`validate`] | the resource becomes a [`validate::Gateway`] | no |
//! | [`listeners`], [`issued`], [`shown`] | the listeners' certificates | reads; no; no |
//! | [`config`], [`deployment`], [`service`], [`scaler`] | what shall exist | no |
//! | [`status`] | what is said about it | no |

pub mod config;
pub mod deployment;
pub mod fetch;
pub mod issued;
pub mod listeners;
pub mod mover;
pub mod names;
pub mod networks;
pub mod placement;
#[cfg(test)]
mod samples;
pub mod scaler;
pub mod service;
pub mod shown;
pub mod status;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_listeners;
#[cfg(test)]
mod tests_networks;
pub mod validate;
mod watch;

use crate::frame::driver::Watches;
use crate::frame::owned::{owns, owns_but};
use crate::frame::platforms::{Guarded, Platforms};
use crate::frame::secrets::{Secrets, User};
use crate::frame::{Children, Cycle, Failure, Reconciler, Scope};
use crate::kafka::hub::Key;
use crate::platform::memory::Memory;
use futures::{StreamExt as _, stream};
use issued::Data;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource as _, ResourceExt as _};
use std::collections::BTreeSet;
use std::sync::Arc;
use tidegate_crds::{ProtocolGateway, State, conditions, reasons};

/// The gateway controller.
#[derive(Default)]
pub struct GatewayController {
    platforms: Platforms,
    secrets: Arc<Secrets>,
    issued: Memory<Data>,
}

impl GatewayController {
    /// A controller that hears of Secrets from `secrets`.
    pub fn new(secrets: Arc<Secrets>) -> Self {
        Self { secrets, ..Self::default() }
    }
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
            .reconcile_on(self.secrets.gateways())
    }

    async fn reconcile(&self, cycle: &mut Cycle<ProtocolGateway>) -> Result<(), Failure> {
        let mut gateway = validate::validate(&cycle.subject)?;
        let (user, secrets) = (User::gateway(&gateway.name), listeners::secrets(&gateway));
        self.secrets.used(&gateway.namespace, &user, &secrets.iter().map(String::as_str).collect());
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
        let config = config::config_map(&gateway, &platform.backbone);
        let mut around = around(&gateway, &platform, &config);
        for name in fetch::config_maps_in_use(&cycle.context, &gateway).await? {
            around.keep::<ConfigMap>(name);
        }
        let applied = cycle.apply(&around).await?;
        let certificates = listeners::settle(cycle, &gateway, &self.issued, &applied).await?;
        let mut rest = Children::new();
        if let Some(secret) = &certificates.issued {
            rest.push(secret);
        }
        let image = &cycle.context.options.images.gateway;
        // Else pods that run keep what they have: a new one could not serve.
        let complete = certificates.hold.is_none();
        if complete {
            rest.push(&deployment::deployment(&gateway, &platform, &config.name_any(), image));
        }
        let applied = applied.and(cycle.apply(&rest).await?);
        listeners::remember(cycle, &self.issued, &certificates);
        let mut observed = fetch::observe(cycle, &gateway, Some(&applied).filter(|_| complete)).await?;
        observed.nowhere.clone_from(&plan.nowhere);
        status::write(cycle, &gateway, &platform, &observed);
        mover::tell(cycle, &plan);
        certificates.say(cycle);
        if !cycle.status.conditions.is_true(conditions::READY) {
            // What its pods lack is not told by any watch of ours.
            cycle.look_again();
        }
        Ok(())
    }

    async fn finalize(&self, cycle: &mut Cycle<ProtocolGateway>) -> Result<(), Failure> {
        self.gone(&cycle.namespace(), &cycle.name());
        Ok(())
    }

    fn gone(&self, namespace: &str, name: &str) {
        self.secrets.used(namespace, &User::gateway(name), &BTreeSet::new());
        self.issued.forget(&Key::new(namespace, name));
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

/// What shall exist for a gateway besides its pods and the certificate that they mount.
pub fn around(gateway: &validate::Gateway, platform: &fetch::Platform, config: &ConfigMap) -> Children {
    let mut children = Children::new();
    children.push(&deployment::service_account(gateway));
    children.push(config);
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
