//! What a controller wants to exist: whole objects, in the order in which they are applied. Pure.

use k8s_openapi::NamespaceResourceScope;
use kube::api::{ApiResource, DynamicObject, ObjectMeta};
use kube::{Resource, ResourceExt as _};
use serde::Serialize;
use std::collections::BTreeSet;

/// One object that shall exist.
#[derive(Clone, Debug)]
pub struct Child {
    /// Its kind.
    pub resource: ApiResource,
    /// All of it that the operator wants.
    pub object: DynamicObject,
}

impl Child {
    /// Its kind and name, for messages.
    pub fn what(&self) -> String {
        format!("{} {}", self.resource.kind, self.object.name_any())
    }
}

/// What is removed where it is neither added nor kept.
#[derive(Clone, Debug)]
pub struct Pruned {
    /// The kind.
    pub resource: ApiResource,
    /// Its component label; absent: whatever the owner has of the kind.
    pub component: Option<&'static str>,
}

/// The children of one object.
#[derive(Clone, Debug, Default)]
pub struct Children {
    wanted: Vec<Child>,
    kept: BTreeSet<(String, String)>,
    pruned: Vec<Pruned>,
}

impl Children {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an object that shall exist. Namespace, owner reference and the labels by which it is found again are
    /// added when it is applied. What cannot be written as JSON is no Kubernetes object, and is left out.
    pub fn push<K>(&mut self, object: &K)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Serialize,
    {
        let resource = ApiResource::erase::<K>(&());
        let Ok(serde_json::Value::Object(mut data)) = serde_json::to_value(object) else { return };
        for key in ["apiVersion", "kind", "metadata", "status"] {
            data.remove(key);
        }
        let meta = object.meta();
        let mut dynamic = DynamicObject::new(&object.name_any(), &resource).data(data.into());
        dynamic.metadata = ObjectMeta {
            name: meta.name.clone(),
            labels: meta.labels.clone(),
            annotations: meta.annotations.clone(),
            ..ObjectMeta::default()
        };
        self.wanted.push(Child { resource, object: dynamic });
    }

    /// Removes objects of this kind that the owner has and that are neither added nor kept.
    pub fn prune<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&mut self) {
        self.pruned.push(Pruned { resource: ApiResource::erase::<K>(&()), component: None });
    }

    /// The same, of those with this component label only.
    pub fn prune_component<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(
        &mut self,
        component: &'static str,
    ) {
        self.pruned.push(Pruned { resource: ApiResource::erase::<K>(&()), component: Some(component) });
    }

    /// Keeps an object that is no longer built but still in use.
    pub fn keep<K: Resource<DynamicType = ()>>(&mut self, name: impl Into<String>) {
        self.kept.insert((K::kind(&()).into_owned(), name.into()));
    }

    /// The objects that shall exist.
    pub fn wanted(&self) -> &[Child] {
        &self.wanted
    }

    /// The kinds of which others are removed.
    pub fn pruned(&self) -> &[Pruned] {
        &self.pruned
    }

    /// Whether an object of this kind and name stays.
    pub fn stays(&self, kind: &str, name: &str) -> bool {
        self.kept.contains(&(kind.to_owned(), name.to_owned()))
            || self.wanted.iter().any(|child| child.resource.kind == kind && child.object.name_any() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{ConfigMap, Service};

    fn named(name: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.to_owned()),
            resource_version: Some("7".to_owned()),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn an_added_object_is_the_intent_and_nothing_that_a_server_wrote() {
        let mut children = Children::new();
        children.push(&Service { metadata: named("a"), ..Service::default() });
        let child = &children.wanted()[0];
        assert_eq!(child.what(), "Service a");
        assert_eq!(child.object.metadata.resource_version, None);
        assert!(child.object.data.get("status").is_none());
    }

    #[test]
    fn what_is_added_or_kept_stays() {
        let mut children = Children::new();
        children.push(&ConfigMap { metadata: named("new"), ..ConfigMap::default() });
        children.keep::<ConfigMap>("old");
        children.prune::<ConfigMap>();
        assert!(children.stays("ConfigMap", "new") && children.stays("ConfigMap", "old"));
        assert!(!children.stays("ConfigMap", "older") && !children.stays("Secret", "new"));
    }
}
