//! Carries out what was decided. IO against the API server; every write names what it was decided over, so that nothing
//! is done to an object that has become another.

use super::adverts;
use super::model::{Action, PodRef};
use super::record::{self, Record};
use crate::frame::Context;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::json;
use std::time::Duration;
use tidegate_crds::labels;

/// No write waits longer: the next decision knows more.
const PATIENCE: Duration = Duration::from_secs(3);

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// The API server did not do it.
    #[error("failed to {0}")]
    Api(&'static str, #[source] kube::Error),
    /// The API server did not answer in time.
    #[error("failed to {0}: no answer in 3 s")]
    Timeout(&'static str),
    /// The record cannot be written down.
    #[error("failed to write the record")]
    Json(#[from] serde_json::Error),
}

impl ActError {
    /// Whether the object is not what it was decided over: somebody was faster, or it is gone.
    pub fn is_outdated(&self) -> bool {
        matches!(self, Self::Api(_, kube::Error::Api(status)) if matches!(status.code, 404 | 409))
    }
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// The record, as it is now.
    Record(Record),
    /// Anything else.
    Other,
}

async fn bounded<T>(
    what: &'static str,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, ActError> {
    match tokio::time::timeout(PATIENCE, request).await {
        Ok(result) => result.map_err(|source| ActError::Api(what, source)),
        Err(_) => Err(ActError::Timeout(what)),
    }
}

/// Reads the record.
pub async fn read_record(context: &Context, namespace: &str) -> Result<Record, ActError> {
    let map = bounded("read the record", context.api::<ConfigMap>(namespace).get_opt(record::NAME)).await?;
    Ok(map.as_ref().map(Record::read).unwrap_or_default())
}

/// Carries out one action. `namespace` is the operator's.
pub async fn act(context: &Context, namespace: &str, action: &Action) -> Result<Done, ActError> {
    match action {
        Action::Record { record, .. } => {
            return write_record(context.api(namespace), namespace, record).await.map(Done::Record);
        }
        Action::Label { pod, in_service } => label(context, pod, *in_service).await?,
        Action::Mark { node, uid, in_service } => mark(context, node, uid, *in_service).await?,
        Action::Select { advert, uid, version, from } => {
            let patch = json!({
                "metadata": {"uid": uid, "resourceVersion": version},
                "spec": {"nodeSelectors": adverts::node_selectors(*from)},
            });
            let api = adverts::api(context, "L2Advertisement");
            bounded("choose who announces", api.patch(advert, &params(), &Patch::Merge(patch))).await?;
        }
        Action::Announce { pool, from } => {
            let object = adverts::shared(pool, &context.options.metallb_namespace, *from);
            let api = adverts::api(context, "L2Advertisement");
            let params =
                PostParams { field_manager: Some(labels::MANAGER.to_owned()), ..PostParams::default() };
            bounded("announce a pool", api.create(&params, &object)).await?;
        }
        Action::Withdraw { advert, uid } => {
            let api = adverts::api(context, "L2Advertisement");
            bounded("withdraw a pool", api.delete(advert, &only(uid))).await?;
        }
        Action::Replace { pod } => {
            // Without a grace period of ours: the pod's own. Its container may still run.
            let api = context.api::<Pod>(&pod.namespace);
            bounded("replace a pod", api.delete(&pod.name, &only(&pod.uid))).await?;
        }
    }
    Ok(Done::Other)
}

async fn write_record(api: Api<ConfigMap>, namespace: &str, record: &Record) -> Result<Record, ActError> {
    let map = record.write(namespace)?;
    let params =
        PostParams { field_manager: Some(labels::FAILOVER_MANAGER.to_owned()), ..PostParams::default() };
    let written = if record.version.is_some() {
        bounded("write the record", api.replace(record::NAME, &params, &map)).await?
    } else {
        bounded("write the record", api.create(&params, &map)).await?
    };
    Ok(Record::read(&written))
}

async fn label(context: &Context, pod: &PodRef, in_service: bool) -> Result<(), ActError> {
    let patch = json!({"metadata": {
        "uid": pod.uid, "labels": {labels::IN_SERVICE: if in_service { "true" } else { "false" }},
    }});
    let api = context.api::<Pod>(&pod.namespace);
    bounded("label a pod", api.patch_metadata(&pod.name, &params(), &Patch::Merge(patch))).await.map(drop)
}

/// A node that is in service has no mark.
async fn mark(context: &Context, node: &str, uid: &str, in_service: bool) -> Result<(), ActError> {
    let value = (!in_service).then_some("false");
    let patch = json!({"metadata": {"uid": uid, "labels": {labels::IN_SERVICE: value}}});
    let api = context.cluster_api::<Node>();
    bounded("mark a node", api.patch_metadata(node, &params(), &Patch::Merge(patch))).await.map(drop)
}

/// Whether nodes may be marked: asked of a node that no cluster has, before one dies.
pub async fn may_mark(context: &Context) -> kube::Result<()> {
    let params = PatchParams { dry_run: true, ..params() };
    let api = context.cluster_api::<Node>();
    match api.patch_metadata("tidegate-no-node", &params, &Patch::Merge(json!({}))).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        result => result.map(drop),
    }
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(labels::FAILOVER_MANAGER.to_owned()), ..PatchParams::default() }
}

fn only(uid: &str) -> DeleteParams {
    DeleteParams::default().preconditions(Preconditions { uid: Some(uid.to_owned()), resource_version: None })
}
