//! Server-side apply of children with one field manager, and removal of what is no longer built. IO.

use super::applied::Intent;
use super::children::{Child, Children, Pruned};
use super::context::Context;
use super::failure::{Class, StepError, api_class, api_reason, api_status};
use super::foreign;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{
    Api, DeleteParams, DynamicObject, ListParams, ObjectMeta, PartialObjectMeta, Patch, PatchParams,
    Preconditions,
};
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::json;
use tidegate_crds::{labels, reasons};

/// Why children could not be brought to what is wanted.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// An object of that name exists and is not ours.
    #[error(
        "{0} exists and is not ours: delete or rename it, or give it the annotation tidegate.io/adopt: \"true\" to hand it over"
    )]
    Conflict(String),
    /// A former owner of the same name is gone and its object is about to go.
    #[error("failed to apply {0}: it belongs to a deleted owner of the same name and is not removed yet")]
    Leftover(String),
    /// The object is being deleted.
    #[error("failed to apply {0}: it is being deleted")]
    Deleting(String),
    /// The API server could not be asked what is there.
    #[error("failed to look at {what}")]
    Look {
        /// Kind and name.
        what: String,
        /// Why not.
        source: kube::Error,
    },
    /// The API server did not take an object.
    #[error("failed to apply {what}")]
    Write {
        /// Kind and name.
        what: String,
        /// Why not.
        source: kube::Error,
    },
    /// An object that is no longer wanted could not be removed.
    #[error("failed to remove {what}")]
    Remove {
        /// Kind and name.
        what: String,
        /// Why not.
        source: kube::Error,
    },
}

impl StepError for ApplyError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Conflict(_) => reasons::RESOURCE_CONFLICT,
            Self::Leftover(_) | Self::Deleting(_) => reasons::PROGRESSING,
            Self::Look { source, .. } | Self::Write { source, .. } | Self::Remove { source, .. } => {
                api_reason(source)
            }
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::Conflict(_) => Class::Blocked,
            Self::Leftover(_) | Self::Deleting(_) => Class::Transient,
            Self::Look { source, .. } | Self::Write { source, .. } | Self::Remove { source, .. } => {
                api_class(source)
            }
        }
    }
}

/// The children as the API server has them after they were applied.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    objects: Vec<DynamicObject>,
    /// What others had set in them and was removed: for each object a text for people.
    pub removed: Vec<String>,
}

impl Applied {
    /// The applied object of this kind and name.
    pub fn get<K>(&self, name: &str) -> Option<K>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned,
    {
        self.all::<K>().find(|object| object.name_any() == name)
    }

    /// These and those of another step of the same pass.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.objects.extend(other.objects);
        self.removed.extend(other.removed);
        self
    }

    /// All applied objects of this kind.
    pub fn all<K>(&self) -> impl Iterator<Item = K>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned,
    {
        let kind = K::kind(&());
        let of_kind =
            move |object: &&DynamicObject| object.types.as_ref().is_some_and(|types| types.kind == kind);
        self.objects
            .iter()
            .filter(of_kind)
            .filter_map(|object| serde_json::from_value(serde_json::to_value(object).ok()?).ok())
    }
}

/// Whose children are applied.
#[derive(Clone, Debug)]
pub struct Owner {
    /// The namespace of owner and children.
    pub namespace: String,
    /// The reference that every child carries.
    pub reference: OwnerReference,
}

impl Owner {
    /// The owner of an object's children. Nothing for an object that the API server has not stored.
    pub fn of<K: Resource<DynamicType = ()>>(object: &K) -> Option<Self> {
        let reference = object.controller_owner_ref(&())?;
        // Without it the operator needs no right on finalizers; nobody deletes our resources in the foreground way
        // and expects children to block it.
        let reference = OwnerReference { block_owner_deletion: None, ..reference };
        Some(Self { namespace: object.namespace()?, reference })
    }

    /// The labels by which children are found again.
    fn labels(&self) -> [(&'static str, String); 4] {
        [
            (labels::MANAGED_BY, labels::MANAGER.to_owned()),
            (labels::OWNER_KIND, self.reference.kind.to_lowercase()),
            (labels::OWNER_UID, self.reference.uid.clone()),
            (labels::INSTANCE, self.reference.name.clone()),
        ]
    }

    fn selector(&self) -> String {
        let [_, kind, _, instance] = self.labels();
        [kind, instance].map(|(key, value)| format!("{key}={value}")).join(",")
    }

    fn owns(&self, meta: &ObjectMeta) -> bool {
        meta.owner_references.iter().flatten().any(|one| one.uid == self.reference.uid)
    }

    /// Whether an object of a child's name is that child. Either mark will do: whoever takes the owner reference away by
    /// hand has not handed the object over. For removal the label is not enough: copies carry it too.
    fn made(&self, meta: &ObjectMeta) -> bool {
        let marked = meta.labels.as_ref().and_then(|all| all.get(labels::OWNER_UID));
        marked == Some(&self.reference.uid) || self.owns(meta)
    }

    /// What takes away another controller's reference on a child: an object has one controller, and the API server would
    /// refuse ours beside it.
    fn sole_controller(&self, meta: &ObjectMeta) -> Option<json_patch::Patch> {
        let mut all = meta.owner_references.iter().flatten().enumerate();
        let (index, _) =
            all.find(|(_, one)| one.controller == Some(true) && one.uid != self.reference.uid)?;
        let version = meta.resource_version.clone()?;
        let patch = json!([
            {"op": "replace", "path": "/metadata/resourceVersion", "value": version},
            {"op": "remove", "path": format!("/metadata/ownerReferences/{index}")},
        ]);
        serde_json::from_value(patch).ok()
    }

    /// Whether the object belongs to an owner of our name that is gone.
    fn owned_before(&self, meta: &ObjectMeta) -> bool {
        meta.owner_references.iter().flatten().any(|one| {
            one.controller == Some(true)
                && one.kind == self.reference.kind
                && one.name == self.reference.name
                && one.api_version == self.reference.api_version
        })
    }

    /// The child with everything that makes it ours.
    fn mark(&self, child: &Child) -> DynamicObject {
        let mut object = child.object.clone();
        object.metadata.namespace = Some(self.namespace.clone());
        object.metadata.owner_references = Some(vec![self.reference.clone()]);
        let marks = object.metadata.labels.get_or_insert_default();
        for (key, value) in self.labels() {
            marks.insert(key.to_owned(), value);
        }
        object
    }
}

/// Applies all children in order, then removes what is no longer built. Stops at the first that fails.
pub async fn apply(context: &Context, owner: &Owner, children: &Children) -> Result<Applied, ApplyError> {
    let mut applied = Applied::default();
    for child in children.wanted() {
        let Put { object, removed } = apply_one(context, owner, child).await?;
        applied.objects.push(object);
        applied.removed.extend(removed);
    }
    for pruned in children.pruned() {
        prune(&context.client, owner, children, pruned).await?;
    }
    Ok(applied)
}

/// An object that was put where it belongs.
#[derive(Clone, Debug)]
pub struct Put {
    /// As the API server has it now.
    pub object: DynamicObject,
    /// What others had set in it and was removed, for people.
    pub removed: Option<String>,
}

/// Applies one whole object and takes out of its content what others set.
pub async fn put(api: &Api<DynamicObject>, object: &DynamicObject) -> Result<Put, kube::Error> {
    let name = object.name_any();
    let params = PatchParams::apply(labels::MANAGER).force();
    let object = match api.patch(&name, &params, &Patch::Apply(object)).await {
        Err(error) if object.metadata.uid.is_some() && is_refused(&error) => {
            // What others added may contradict what we put back: two ports of one name. Then it has to go at once.
            if !reset(api, object).await? {
                return Err(error);
            }
            api.patch(&name, &params, &Patch::Apply(object)).await?
        }
        other => other?,
    };
    let Some(removal) = foreign::removal(&object) else { return Ok(Put { object, removed: None }) };
    let params = PatchParams { field_manager: Some(labels::MANAGER.to_owned()), ..PatchParams::default() };
    let after = api.patch(&name, &params, &Patch::<()>::Json(removal.patch)).await?;
    // What comes back in the same breath is a default or admission's, and changes nothing.
    let changed = after.resource_version() != object.resource_version();
    let kind = object.types.as_ref().map(|types| types.kind.clone()).unwrap_or_default();
    let removed = changed
        .then(|| format!("{kind} {name}: removed what is not declared: {}", removal.fields.join(", ")));
    if let Some(text) = &removed {
        tracing::info!("{text}");
    }
    Ok(Put { object: after, removed })
}

async fn apply_one(context: &Context, owner: &Owner, child: &Child) -> Result<Put, ApplyError> {
    let api: Api<DynamicObject> =
        Api::namespaced_with(context.client.clone(), &owner.namespace, &child.resource);
    let name = child.object.name_any();
    let what = || format!("{} {}/{name}", child.resource.kind, owner.namespace);
    let there = api.get_opt(&name).await.map_err(|source| ApplyError::Look { what: what(), source })?;
    let mut object = owner.mark(child);
    let intent = Intent::of(&object);
    if let Some(there) = there {
        if context.last_applied.holds(&there.metadata, intent) && there.metadata.deletion_timestamp.is_none()
        {
            return Ok(Put { object: there, removed: None });
        }
        let metadata = there.metadata;
        if !owner.made(&metadata) {
            if owner.owned_before(&metadata) {
                return Err(ApplyError::Leftover(what()));
            }
            let adopt = metadata.annotations.as_ref().and_then(|all| all.get(labels::ADOPT));
            if !labels::is_true(adopt) {
                return Err(ApplyError::Conflict(what()));
            }
        }
        if metadata.deletion_timestamp.is_some() {
            return Err(ApplyError::Deleting(what()));
        }
        if let Some(patch) = owner.sole_controller(&metadata) {
            let params = PatchParams::default();
            let released = api.patch_metadata(&name, &params, &Patch::<()>::Json(patch)).await;
            released.map_err(|source| ApplyError::Write { what: what(), source })?;
        }
        // The very object that was looked at: another one of the same name is refused with 409.
        object.metadata.uid = metadata.uid;
    }
    let failed = |source| ApplyError::Write { what: what(), source };
    let done = match put(&api, &object).await {
        Err(error) if is_forged(&object, &error) => {
            let precondition = Preconditions { uid: object.metadata.uid.take(), resource_version: None };
            let params = DeleteParams::background().preconditions(precondition);
            let removed = api.delete(&name, &params).await;
            removed.map_err(|source| ApplyError::Remove { what: what(), source })?;
            tracing::warn!(name, "an immutable object of ours had other content and is made anew");
            put(&api, &object).await.map_err(failed)
        }
        other => other.map_err(failed),
    }?;
    context.last_applied.note(&done.object.metadata, intent);
    Ok(done)
}

fn is_refused(error: &kube::Error) -> bool {
    api_status(error).is_some_and(|status| status.code == 422)
}

/// Replaces the content of an object by what is wanted. Whether the API server took it.
async fn reset(api: &Api<DynamicObject>, wanted: &DynamicObject) -> Result<bool, kube::Error> {
    let name = wanted.name_any();
    let Some(live) = api.get_opt(&name).await? else { return Ok(false) };
    let Some(patch) = foreign::reset(&live, wanted) else { return Ok(false) };
    let params = PatchParams { field_manager: Some(labels::MANAGER.to_owned()), ..PatchParams::default() };
    match api.patch(&name, &params, &Patch::<()>::Json(patch)).await {
        Ok(_) => Ok(true),
        Err(error) if is_refused(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether an immutable object of ours refused our own content: somebody deleted it and made another in its place.
fn is_forged(object: &DynamicObject, error: &kube::Error) -> bool {
    object.metadata.uid.is_some() && object.data.get("immutable") == Some(&true.into()) && is_refused(error)
}

async fn prune(
    client: &Client,
    owner: &Owner,
    children: &Children,
    Pruned { resource, component }: &Pruned,
) -> Result<(), ApplyError> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &owner.namespace, resource);
    let mut selector = owner.selector();
    if let Some(component) = component {
        selector = format!("{selector},{}={component}", labels::COMPONENT);
    }
    let found = api.list_metadata(&ListParams::default().labels(&selector)).await.map_err(|source| {
        ApplyError::Look { what: format!("{} in {}", resource.plural, owner.namespace), source }
    })?;
    for PartialObjectMeta { metadata, .. } in found {
        let name = metadata.name.clone().unwrap_or_default();
        if !owner.owns(&metadata)
            || metadata.deletion_timestamp.is_some()
            || children.stays(&resource.kind, &name)
        {
            continue;
        }
        let precondition = Preconditions { uid: metadata.uid, resource_version: None };
        match api.delete(&name, &DeleteParams::background().preconditions(precondition)).await {
            Ok(_) => tracing::info!(kind = resource.kind, name, "removed what is no longer built"),
            // Somebody else was faster; 409 says that another object has the name now.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(source) => {
                return Err(ApplyError::Remove {
                    what: format!("{} {}/{name}", resource.kind, owner.namespace),
                    source,
                });
            }
        }
    }
    Ok(())
}
