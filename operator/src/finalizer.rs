//! Adds and removes one of our finalizers. IO against the API server.

use crate::frame::failure::{api_class, api_reason};
use crate::frame::{Class, Context, StepError};
use k8s_openapi::NamespaceResourceScope;
use kube::api::{Patch, PatchParams};
use kube::{Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::json;
use std::fmt::Debug;
use tidegate_crds::labels;

/// A finalizer that could not be set.
#[derive(Debug, thiserror::Error)]
#[error("failed to set the finalizer {finalizer}")]
pub struct FinalizerError {
    finalizer: &'static str,
    source: kube::Error,
}

impl StepError for FinalizerError {
    fn reason(&self) -> &'static str {
        api_reason(&self.source)
    }

    fn class(&self) -> Class {
        api_class(&self.source)
    }
}

/// Makes `object` have `finalizer`, or not. Others' finalizers stay: the write names the version that was read.
pub async fn set<K>(
    context: &Context,
    object: &K,
    finalizer: &'static str,
    wanted: bool,
) -> Result<(), FinalizerError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    if object.finalizers().iter().any(|each| each == finalizer) == wanted {
        return Ok(());
    }
    let mut all: Vec<_> = object.finalizers().iter().filter(|&each| each != finalizer).cloned().collect();
    if wanted {
        all.push(finalizer.to_owned());
    }
    let patch = json!({"metadata": {
        "uid": object.meta().uid, "resourceVersion": object.meta().resource_version, "finalizers": all,
    }});
    let params = PatchParams { field_manager: Some(labels::MANAGER.to_owned()), ..PatchParams::default() };
    let api = context.api::<K>(&object.namespace().unwrap_or_default());
    match api.patch(&object.name_any(), &params, &Patch::Merge(patch)).await {
        Ok(_) => Ok(()),
        // Gone is as good as without.
        Err(kube::Error::Api(status)) if status.code == 404 && !wanted => Ok(()),
        Err(source) => Err(FinalizerError { finalizer, source }),
    }
}
