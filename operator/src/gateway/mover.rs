//! Finds pods that are where they do not belong, and carries out what [`placement`] decides. IO.

use super::names;
use super::placement::{self, CHEAP, COST, Plan, Rollout, Tenant};
use super::validate::Gateway;
use crate::frame::driver::read;
use crate::frame::failure::{ReadError, api_status};
use crate::frame::{Class, Context, Cycle, StepError, failure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use serde_json::json;
use std::collections::BTreeSet;
use tidegate_crds::{ProtocolGateway, State, conditions, labels, reasons};

/// A pod that could not be moved.
#[derive(Debug, thiserror::Error)]
#[error("failed to move pod {pod}")]
pub struct MoveError {
    pod: String,
    source: kube::Error,
}

impl StepError for MoveError {
    fn reason(&self) -> &'static str {
        failure::api_reason(&self.source)
    }

    fn class(&self) -> Class {
        failure::api_class(&self.source)
    }
}

/// Looks at nodes and pods of a gateway that asks for capabilities, and decides. Without the right to see nodes nothing
/// is moved, and the gateway says so.
pub async fn look(cycle: &mut Cycle<ProtocolGateway>, gateway: &Gateway) -> Result<Plan, ReadError> {
    if gateway.capabilities.is_empty() {
        return Ok(Plan::default());
    }
    let context = cycle.context.clone();
    let nodes = match context.cluster_api::<Node>().list(&ListParams::default()).await {
        Ok(nodes) => nodes,
        Err(error) if matches!(api_status(&error).map(|status| status.code), Some(401 | 403)) => {
            let text = "spec.placement.capabilities: the operator may not see nodes (manifests/rbac/nodes.yaml), so pods do not move when a node loses a capability";
            cycle.set(conditions::ACCEPTED, State::True, reasons::ACCEPTED, text);
            return Ok(Plan::default());
        }
        Err(source) => return Err(ReadError { what: "nodes".to_owned(), source }),
    };
    let pods = own_pods(&context, gateway, None).await?;
    let taken = taken(&context, gateway).await?;
    let places: Vec<_> = nodes.iter().map(|node| placement::place(gateway, node, &taken)).collect();
    let tenants: Vec<_> = pods.iter().filter_map(placement::tenant).collect();
    let deployment = read::<Deployment>(&context, &gateway.namespace, &gateway.name).await?;
    Ok(placement::decide(gateway, &places, &tenants, rollout(gateway, deployment.as_ref())))
}

/// The pods of a gateway, those that are leaving too; at most so many, or all.
pub async fn own_pods(
    context: &Context,
    gateway: &Gateway,
    most: Option<u32>,
) -> Result<Vec<Pod>, ReadError> {
    let selector = format!("{},{}", names::selector_text(gateway), labels::IN_SERVICE);
    let params = ListParams { limit: most, ..ListParams::default().labels(&selector) };
    let list = context.api::<Pod>(&gateway.namespace).list(&params).await;
    let list = list.map_err(|source| ReadError { what: format!("pods of {}", gateway.name), source })?;
    Ok(list.items)
}

/// The nodes whose devices some pod has, whosever it is.
async fn taken(context: &Context, gateway: &Gateway) -> Result<BTreeSet<String>, ReadError> {
    let mut taken = BTreeSet::new();
    for label in gateway.interfaces.iter().flat_map(super::networks::Interface::device_labels) {
        let scopes = &context.options.namespaces;
        let all = vec![Api::<Pod>::all(context.client.clone())];
        let apis = if scopes.is_empty() { all } else { scopes.iter().map(|one| context.api(one)).collect() };
        for api in apis {
            let list = api.list(&ListParams::default().labels(&label)).await;
            let list = list.map_err(|source| ReadError { what: format!("pods with {label}"), source })?;
            taken.extend(list.items.into_iter().filter_map(|pod| pod.spec?.node_name));
        }
    }
    Ok(taken)
}

fn rollout(gateway: &Gateway, deployment: Option<&Deployment>) -> Rollout {
    let Some(deployment) = deployment else { return Rollout::default() };
    let counts = deployment.status.clone().unwrap_or_default();
    let declared = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    Rollout {
        settled: counts.observed_generation >= deployment.metadata.generation
            && counts.updated_replicas == counts.replicas,
        surging: declared > gateway.replicas,
    }
}

/// Carries out what was decided about single pods.
pub async fn act(
    cycle: &mut Cycle<ProtocolGateway>,
    gateway: &Gateway,
    plan: &Plan,
) -> Result<(), MoveError> {
    if cycle.paused() {
        return Ok(());
    }
    let api = cycle.context.api::<Pod>(&gateway.namespace);
    let gone = |error: &kube::Error| matches!(api_status(error).map(|status| status.code), Some(404 | 409));
    let failed = |pod: &Tenant, source| MoveError { pod: pod.name.clone(), source };
    for pod in &plan.mark {
        let patch = json!({"metadata": {"uid": pod.uid, "annotations": {COST: CHEAP}}});
        let params =
            PatchParams { field_manager: Some(labels::MANAGER.to_owned()), ..PatchParams::default() };
        match api.patch_metadata(&pod.name, &params, &Patch::Merge(patch)).await {
            Err(error) if !gone(&error) => return Err(failed(pod, error)),
            _ => {}
        }
    }
    for pod in &plan.delete {
        let only = Preconditions { uid: Some(pod.uid.clone()), resource_version: None };
        match api.delete(&pod.name, &DeleteParams::default().preconditions(only)).await {
            Err(error) if !gone(&error) => return Err(failed(pod, error)),
            _ => {}
        }
    }
    Ok(())
}

/// Says what is done about misplaced pods, after everything else was said.
pub fn tell(cycle: &mut Cycle<ProtocolGateway>, plan: &Plan) {
    let Some((reason, text)) = &plan.told else { return };
    let before =
        cycle.subject.status.as_ref().and_then(|status| status.conditions.get(conditions::RECONCILING));
    if before.is_none_or(|before| before.reason != *reason) {
        cycle.note(*reason == reasons::CAPABILITY_MISSING, reason, text.as_str());
    }
    cycle.progressing(reason, text.as_str());
    // A node that becomes ready is told by no watch of ours.
    cycle.look_again();
}
