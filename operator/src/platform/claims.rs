//! Brokers' volume claims: who they belong to and what they say. Reading and writing is IO, the rest pure.
//!
//! Claims have no owner reference: they outlive the platform. What marks them is the uid of the platform that they
//! serve; another platform takes them over only when it says so.

use crate::frame::failure::{api_class, api_reason};
use crate::frame::{Class, Context, StepError};
use crate::kafka::cluster::{APP, Cluster};
use crate::kafka::identity::{ClaimIdentity, Identity, IdentityError, NODE_ID};
use crate::kafka::objects::{PLATFORM_UID, claim};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use std::collections::BTreeMap;
use tidegate_crds::{Quantity as Amount, labels, reasons};

/// Why claims cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// They are an earlier platform's.
    #[error(
        "volume claims {0} hold an earlier platform's records: give this IoTPlatform the annotation tidegate.io/adopt: \"true\" to take them over, or delete them to start empty"
    )]
    Foreign(String),
    /// An identity contradicts another.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The API server refused.
    #[error("failed to {what} volume claim {name}")]
    Api {
        /// Read or write.
        what: &'static str,
        /// The claim.
        name: String,
        /// Why not.
        source: kube::Error,
    },
}

impl StepError for ClaimError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Foreign(_) => reasons::RESOURCE_CONFLICT,
            Self::Identity(_) => reasons::IDENTITY_BROKEN,
            Self::Api { source, .. } => api_reason(source),
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::Foreign(_) | Self::Identity(_) => Class::Blocked,
            Self::Api { source, .. } => api_class(source),
        }
    }
}

/// The claims that are there, by node.
pub type Claims = BTreeMap<i32, PersistentVolumeClaim>;

/// Reads the claims of all declared nodes.
pub async fn read(context: &Context, cluster: &Cluster) -> Result<Claims, ClaimError> {
    let mut found = Claims::new();
    if cluster.volume.is_none() {
        return Ok(found);
    }
    let api = context.api::<PersistentVolumeClaim>(&cluster.names.namespace);
    for node in 0..cluster.brokers {
        let name = cluster.names.claim(node);
        let claim = api.get_opt(&name).await;
        match claim {
            Ok(claim) => found.extend(claim.map(|claim| (node, claim))),
            Err(source) => return Err(ClaimError::Api { what: "read", name, source }),
        }
    }
    Ok(found)
}

/// What the claims say about the nodes' identity. `adopt`: the platform takes over what it finds.
pub fn identities(
    cluster: &Cluster,
    claims: &Claims,
    adopt: bool,
) -> Result<BTreeMap<i32, ClaimIdentity>, ClaimError> {
    let foreign: Vec<_> =
        claims.values().filter(|claim| !adopt && !ours(cluster, claim)).map(ResourceExt::name_any).collect();
    if !foreign.is_empty() {
        return Err(ClaimError::Foreign(foreign.join(", ")));
    }
    let mut identities = BTreeMap::new();
    for (&node, claim) in claims {
        // One that the StatefulSet made by itself, after somebody deleted ours, says nothing yet.
        if claim.annotations().contains_key(NODE_ID) {
            let identity = ClaimIdentity::read(&claim.name_any(), node, claim.annotations())?;
            identities.insert(node, identity);
        }
    }
    Ok(identities)
}

fn ours(cluster: &Cluster, claim: &PersistentVolumeClaim) -> bool {
    let by_set = claim.labels().get(labels::NAME).is_some_and(|app| app == APP)
        && claim.labels().get(labels::INSTANCE) == Some(&cluster.names.platform);
    match claim.annotations().get(PLATFORM_UID) {
        Some(uid) => *uid == cluster.uid,
        None => by_set,
    }
}

/// Volumes that are smaller than declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Growth {
    /// The API server refused a larger claim: the storage class cannot expand, or the claim is not bound.
    Refused {
        /// The claim.
        claim: String,
        /// What it asks for now.
        held: String,
        /// The storage class.
        class: String,
        /// The API server's words.
        why: String,
    },
    /// The storage works on it.
    Underway {
        /// The claim.
        claim: String,
        /// What the volume has.
        has: String,
        /// What it will have.
        wanted: String,
    },
}

impl Growth {
    /// The reason in the condition.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Refused { .. } => reasons::VOLUME_NOT_GROWN,
            Self::Underway { .. } => reasons::PROGRESSING,
        }
    }

    /// What to tell people.
    pub fn message(&self) -> String {
        match self {
            Self::Refused { claim, held, class, why } => format!(
                "spec.kafka.managed.storage.size: volume claim {claim} stays at {held}: storage class {class:?} does not let it grow ({why}); let an administrator set allowVolumeExpansion: true on it, where its storage can; everything else goes on"
            ),
            Self::Underway { claim, has, wanted } => {
                format!("the volume of claim {claim} grows from {has} to {wanted}")
            }
        }
    }
}

/// What came of bringing the claims to what is wanted.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// Their uids, by node.
    pub uids: BTreeMap<i32, String>,
    /// The first that is smaller than declared.
    pub growth: Option<Growth>,
}

/// Brings all claims to what is wanted. One that cannot grow stays as it is, and stands in nobody's way; the first is
/// told.
pub async fn apply(
    context: &Context,
    cluster: &Cluster,
    identity: &Identity,
    existing: &Claims,
) -> Result<Written, ClaimError> {
    let api = context.api::<PersistentVolumeClaim>(&cluster.names.namespace);
    let params = PatchParams::apply(labels::MANAGER).force();
    let mut all = Written::default();
    for node in 0..cluster.brokers {
        let there = existing.get(&node);
        let held = there.and_then(size);
        let Some(mut wanted) = claim(cluster, identity, node, held) else { continue };
        wanted.metadata.uid = there.and_then(|claim| claim.metadata.uid.clone());
        let name = cluster.names.claim(node);
        let mut written = api.patch(&name, &params, &Patch::Apply(&wanted)).await;
        if let (Err(kube::Error::Api(status)), Some(held)) = (&written, held)
            && size(&wanted) != Some(held)
            && matches!(status.code, 403 | 422)
        {
            let why = status.message.clone();
            let class = there.and_then(|claim| claim.spec.as_ref()?.storage_class_name.clone());
            all.growth.get_or_insert(Growth::Refused {
                claim: name.clone(),
                held: held.to_owned(),
                class: class.unwrap_or_default(),
                why,
            });
            resize(&mut wanted, held);
            written = api.patch(&name, &params, &Patch::Apply(&wanted)).await;
        }
        let written = written.map_err(|source| ClaimError::Api { what: "write", name, source })?;
        all.growth = all.growth.take().or_else(|| underway(&written));
        all.uids.extend(written.metadata.uid.map(|uid| (node, uid)));
    }
    Ok(all)
}

fn underway(claim: &PersistentVolumeClaim) -> Option<Growth> {
    let capacity = claim.status.as_ref()?.capacity.as_ref()?;
    let (has, wanted) = (capacity.get("storage")?.0.as_str(), size(claim)?);
    let bytes = |text: &str| text.parse::<Amount>().map(|amount| amount.value()).unwrap_or_default();
    let name = claim.name_any();
    (bytes(has) < bytes(wanted)).then(|| Growth::Underway {
        claim: name,
        has: has.to_owned(),
        wanted: wanted.to_owned(),
    })
}

fn size(claim: &PersistentVolumeClaim) -> Option<&str> {
    let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    Some(requests.get("storage")?.0.as_str())
}

fn resize(claim: &mut PersistentVolumeClaim, to: &str) {
    let resources = claim.spec.as_mut().and_then(|spec| spec.resources.as_mut());
    if let Some(requests) = resources.and_then(|resources| resources.requests.as_mut()) {
        requests.insert("storage".to_owned(), Quantity(to.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::samples::managed;

    fn cluster() -> Cluster {
        managed("{kafka: {managed: {}}}").cluster
    }

    fn made(cluster: &Cluster) -> Claims {
        let identity = Identity::settle(&cluster.names, 3, None, &BTreeMap::new(), None).unwrap();
        (0..3).map(|node| (node, claim(cluster, &identity, node, None).unwrap())).collect()
    }

    #[test]
    fn a_new_platform_takes_an_earlier_ones_volumes_only_when_it_says_so() {
        let earlier = Cluster { uid: "earlier".to_owned(), ..cluster() };
        let claims = made(&earlier);
        let error = identities(&cluster(), &claims, false).unwrap_err();
        assert_eq!(error.reason(), "ResourceConflict");
        assert!(error.to_string().contains("data-plant-kafka-0, data-plant-kafka-1"), "{error}");
        assert_eq!(identities(&cluster(), &claims, true).unwrap().len(), 3);
        assert_eq!(identities(&earlier, &claims, false).unwrap().len(), 3);
    }

    #[test]
    fn a_claim_that_the_stateful_set_made_by_itself_gets_its_identity_back() {
        let mut claims = made(&cluster());
        let own = claims.get_mut(&1).unwrap();
        own.metadata.annotations = None;
        assert_eq!(identities(&cluster(), &claims, false).unwrap().keys().collect::<Vec<_>>(), [&0, &2]);
        claims.get_mut(&1).unwrap().metadata.labels = None;
        assert!(identities(&cluster(), &claims, false).is_err());
    }

    #[test]
    fn a_volume_that_is_smaller_than_its_claim_is_growing() {
        let mut bound = made(&cluster()).remove(&1).unwrap();
        assert_eq!(underway(&bound), None, "nothing is bound yet");
        bound.status =
            Some(serde_json::from_value(serde_json::json!({"capacity": {"storage": "5Gi"}})).unwrap());
        let text = underway(&bound).unwrap().message();
        assert_eq!(text, "the volume of claim data-plant-kafka-1 grows from 5Gi to 10Gi");
        resize(&mut bound, "5120Mi");
        assert_eq!(underway(&bound), None);
    }
}
