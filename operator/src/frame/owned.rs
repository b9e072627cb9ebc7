//! Whose child an object is, so that an event of the child brings a pass over its owner. Pure.
//!
//! Children carry two marks, an owner reference and labels. Both are read: the event of a child that lost one of them must
//! still find the owner, which then puts it back.

use super::context::Scope;
use super::driver::{Subject, Watches};
use futures::{StreamExt as _, stream};
use k8s_openapi::NamespaceResourceScope;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use tidegate_crds::labels;

/// Adds a watch on children of kind `K`.
pub fn owns<S, K>(controller: Watches<S>, scope: &Scope) -> Watches<S>
where
    S: Subject,
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    controller.watches(scope.api::<K>(), scope.owned(), |child: K| owners::<S, K>(&child))
}

/// The same for children that change all the time in ways that concern nobody: an event brings a pass only when what
/// `counts` makes of the child is another than before, or the child is gone.
pub fn owns_but<S, K>(controller: Watches<S>, scope: &Scope, counts: fn(&K) -> u64) -> Watches<S>
where
    S: Subject,
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    let mut seen = Seen::default();
    let events = watcher(scope.api::<K>(), scope.owned()).default_backoff();
    let concerned = events.flat_map(move |event| {
        // A watch that failed begins anew by itself and tells everything again.
        let child = event.ok().and_then(|event| seen.news(event, counts));
        stream::iter(child.map(|child| owners::<S, K>(&child)).unwrap_or_default())
    });
    controller.reconcile_on(concerned)
}

/// What counted of each child when it was last seen, by uid.
#[derive(Default)]
struct Seen(HashMap<String, u64>);

impl Seen {
    /// The child of an event that tells something new.
    fn news<K: Resource>(&mut self, event: Event<K>, counts: fn(&K) -> u64) -> Option<K> {
        match event {
            Event::Apply(child) | Event::InitApply(child) => {
                let now = counts(&child);
                let before = self.0.insert(child.uid()?, now);
                (before != Some(now)).then_some(child)
            }
            Event::Delete(child) => {
                self.0.remove(&child.uid()?);
                Some(child)
            }
            Event::Init | Event::InitDone => None,
        }
    }
}

/// The objects of kind `S` whose child this may be.
pub fn owners<S: Subject, K: Resource>(child: &K) -> Vec<ObjectRef<DeserializeGuard<S>>> {
    let meta = child.meta();
    let Some(namespace) = meta.namespace.as_deref() else { return Vec::new() };
    let kind = S::kind(&());
    let referred = meta.owner_references.iter().flatten();
    let referred = referred.filter(|one| one.kind == kind && one.api_version == S::api_version(&()));
    let mut names: BTreeSet<&str> = referred.map(|one| one.name.as_str()).collect();
    let label = |key: &str| meta.labels.as_ref()?.get(key).map(String::as_str);
    if label(labels::OWNER_KIND) == Some(&kind.to_lowercase()) {
        names.extend(label(labels::INSTANCE));
    }
    names.into_iter().map(|name| ObjectRef::new(name).within(namespace)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Service;
    use serde_json::json;
    use tidegate_crds::{IoTPlatform, ProtocolGateway};

    fn names<S: Subject>(labels: &serde_json::Value, owner: &str) -> Vec<String> {
        let reference = json!([{"apiVersion": "tidegate.io/v1alpha1", "kind": "ProtocolGateway", "name": owner, "uid": "u"}]);
        let child = json!({"metadata": {"name": "c", "namespace": "plant", "labels": labels,
            "ownerReferences": if owner.is_empty() { json!([]) } else { reference }}});
        let child: Service = serde_json::from_value(child).unwrap();
        owners::<S, _>(&child).into_iter().map(|found| found.name).collect()
    }

    #[test]
    fn a_child_that_changes_in_what_concerns_nobody_brings_no_pass() {
        let child = |uid: &str, generation: i64| -> Service {
            serde_json::from_value(json!({"metadata": {"name": "c", "uid": uid, "generation": generation}}))
                .unwrap()
        };
        let counts = |child: &Service| child.metadata.generation.unwrap_or_default().unsigned_abs();
        let mut seen = Seen::default();
        let mut told = |event| seen.news(event, counts).is_some();
        assert!(told(Event::InitApply(child("a", 1))));
        assert!(!told(Event::Apply(child("a", 1))));
        assert!(!told(Event::InitApply(child("a", 1))), "a watch that begins anew tells everything again");
        assert!(told(Event::Apply(child("a", 2))));
        assert!(told(Event::Delete(child("a", 2))));
        assert!(told(Event::Apply(child("b", 2))), "it was made anew");
        assert!(!told(Event::Init) && !told(Event::InitDone));
    }

    #[test]
    fn either_mark_leads_to_the_owner_and_a_changed_one_does_not_hide_it() {
        let whole = json!({labels::OWNER_KIND: "protocolgateway", labels::INSTANCE: "mqtt"});
        assert_eq!(names::<ProtocolGateway>(&whole, "mqtt"), ["mqtt"]);
        assert_eq!(names::<ProtocolGateway>(&whole, ""), ["mqtt"]);
        assert_eq!(names::<ProtocolGateway>(&json!({}), "mqtt"), ["mqtt"]);
        let other = json!({labels::OWNER_KIND: "protocolgateway", labels::INSTANCE: "other"});
        assert_eq!(names::<ProtocolGateway>(&other, "mqtt"), ["mqtt", "other"]);
        assert!(names::<IoTPlatform>(&whole, "mqtt").is_empty());
    }
}
