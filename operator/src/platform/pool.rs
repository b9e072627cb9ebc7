//! The platform's load-balancer addresses: an existing MetalLB pool is looked up, one of the platform's own ranges
//! is made and removed. IO against the API server.
//!
//! Both objects live outside the platform's namespace, so no owner reference can hold them: a label with the
//! platform's uid marks them, and a finalizer on the platform sees to their removal.

use super::validate::Addresses;
use crate::frame::apply::put;
use crate::frame::backbone::address_pool;
use crate::frame::failure::{api_class, api_reason, is_unknown_kind};
use crate::frame::{Class, Context, StepError};
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, PartialObjectMeta};
use kube::core::GroupVersionKind;
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tidegate_crds::conditions::RESOLVED_REFS;
use tidegate_crds::{IoTPlatform, labels, reasons};

/// The finalizer of a platform that made objects outside its namespace.
pub const FINALIZER: &str = "tidegate.io/address-pool";
/// Label: the uid of the platform that an object outside its namespace belongs to.
pub const PLATFORM_UID: &str = "tidegate.io/platform-uid";

/// The labels of which each marks an object as the platform's: one that is changed by hand is put back by the other.
const MARKS: [&str; 2] = [PLATFORM_UID, labels::OWNER_UID];

/// Why there are no addresses.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The named pool does not exist.
    #[error(
        "spec.loadBalancer.poolRef.name: there is no IPAddressPool {pool:?} in namespace {namespace}: create it or name another"
    )]
    NotFound {
        /// The pool.
        pool: String,
        /// Where it was looked for.
        namespace: String,
    },
    /// MetalLB is not there.
    #[error(
        "spec.loadBalancer: this cluster has no MetalLB (no resource ipaddresspools.metallb.io): install it, or remove spec.loadBalancer to take what the cluster's load balancer gives"
    )]
    NoMetalLb,
    /// An object of that name is somebody else's.
    #[error(
        "{0} exists and is not this platform's: delete or rename it, or give it the annotation tidegate.io/adopt: \"true\" to hand it over"
    )]
    Conflict(String),
    /// The API server refused.
    #[error("failed to {what}")]
    Api {
        /// What was tried.
        what: String,
        /// Why not.
        source: kube::Error,
    },
}

impl StepError for PoolError {
    fn reason(&self) -> &'static str {
        match self {
            Self::NotFound { .. } | Self::NoMetalLb => reasons::POOL_NOT_FOUND,
            Self::Conflict(_) => reasons::RESOURCE_CONFLICT,
            Self::Api { source, .. } => api_reason(source),
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::NotFound { .. } | Self::NoMetalLb | Self::Conflict(_) => Class::Blocked,
            Self::Api { source, .. } => api_class(source),
        }
    }

    fn condition(&self) -> Option<&'static str> {
        matches!(self, Self::NotFound { .. } | Self::NoMetalLb).then_some(RESOLVED_REFS)
    }
}

/// MetalLB's pools.
pub fn pools() -> ApiResource {
    let kind = GroupVersionKind::gvk("metallb.io", "v1beta1", "IPAddressPool");
    ApiResource::from_gvk_with_plural(&kind, "ipaddresspools")
}

/// MetalLB's announcements of pools.
pub fn advertisements() -> ApiResource {
    let kind = GroupVersionKind::gvk("metallb.io", "v1beta1", "L2Advertisement");
    ApiResource::from_gvk_with_plural(&kind, "l2advertisements")
}

fn api(context: &Context, resource: &ApiResource) -> Api<DynamicObject> {
    Api::namespaced_with(context.client.clone(), &context.options.metallb_namespace, resource)
}

/// Sees to the addresses of a platform.
pub async fn settle(
    context: &Context,
    platform: &IoTPlatform,
    addresses: &Addresses,
) -> Result<(), PoolError> {
    match addresses {
        Addresses::Any => Ok(()),
        Addresses::Pool(pool) => look_up(context, pool).await,
        Addresses::Ranges(ranges) => make(context, platform, ranges).await,
    }
}

async fn look_up(context: &Context, pool: &str) -> Result<(), PoolError> {
    let namespace = context.options.metallb_namespace.clone();
    match api(context, &pools()).get_metadata(pool).await {
        Ok(_) => Ok(()),
        Err(error) if is_unknown_kind(&error) => Err(PoolError::NoMetalLb),
        Err(kube::Error::Api(status)) if status.code == 404 => {
            Err(PoolError::NotFound { pool: pool.to_owned(), namespace })
        }
        Err(source) => Err(PoolError::Api { what: format!("read IPAddressPool {namespace}/{pool}"), source }),
    }
}

async fn make(context: &Context, platform: &IoTPlatform, ranges: &[String]) -> Result<(), PoolError> {
    let Some(name) = address_pool(platform) else { return Ok(()) };
    let pool = json!({"addresses": ranges, "autoAssign": false});
    apply(context, platform, &pools(), &name, pool).await?;
    let advertisement = json!({"ipAddressPools": [name]});
    apply(context, platform, &advertisements(), &name, advertisement).await
}

async fn apply(
    context: &Context,
    platform: &IoTPlatform,
    resource: &ApiResource,
    name: &str,
    spec: serde_json::Value,
) -> Result<(), PoolError> {
    let (api, uid) = (api(context, resource), platform.uid().unwrap_or_default());
    let what = format!("{} {}/{name}", resource.kind, context.options.metallb_namespace);
    let failed = |doing: &str, source| PoolError::Api { what: format!("{doing} {what}"), source };
    let there = match api.get_metadata_opt(name).await {
        Ok(there) => there,
        Err(source) => return Err(failed("read", source)),
    };
    let is_others = |there: &PartialObjectMeta<DynamicObject>| {
        MARKS.iter().all(|mark| there.labels().get(*mark) != Some(&uid))
            && !labels::is_true(there.annotations().get(labels::ADOPT))
    };
    if there.as_ref().is_some_and(is_others) {
        return Err(PoolError::Conflict(what));
    }
    let mut object = DynamicObject::new(name, resource).data(json!({"spec": spec}));
    object.metadata.namespace = Some(context.options.metallb_namespace.clone());
    object.metadata.uid = there.and_then(|there| there.metadata.uid);
    object.labels_mut().extend([
        (PLATFORM_UID.to_owned(), uid.clone()),
        (labels::OWNER_UID.to_owned(), uid),
        (labels::MANAGED_BY.to_owned(), labels::MANAGER.to_owned()),
    ]);
    match put(&api, &object).await {
        Ok(_) => Ok(()),
        Err(error) if is_unknown_kind(&error) => Err(PoolError::NoMetalLb),
        Err(source) => Err(failed("write", source)),
    }
}

/// Removes what the platform made, by its marks.
pub async fn remove(context: &Context, platform: &IoTPlatform) -> Result<(), PoolError> {
    let uid = platform.uid().unwrap_or_default();
    for (mark, resource) in MARKS.iter().flat_map(|mark| [(mark, advertisements()), (mark, pools())]) {
        let list = ListParams::default().labels(&format!("{mark}={uid}"));
        let api = api(context, &resource);
        let failed = |source| PoolError::Api { what: format!("remove {}", resource.plural), source };
        let found = match api.list_metadata(&list).await {
            Ok(found) => found,
            Err(error) if is_unknown_kind(&error) => continue,
            Err(source) => return Err(failed(source)),
        };
        for object in found {
            match api.delete(&object.name_any(), &DeleteParams::default()).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(source) => return Err(failed(source)),
            }
        }
    }
    Ok(())
}
