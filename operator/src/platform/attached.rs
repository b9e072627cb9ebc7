//! The gateways and Topics of a platform: whom their events concern (pure), and how many there are. They are watched (IO) as
//! they are stored, so that one that does not fit our types stands in nobody's way, and of each only what is counted is
//! kept: there may be thousands, and each may be large.

use crate::frame::Scope;
use futures::{FutureExt as _, Stream, StreamExt as _, stream};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ApiResource, Object};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store, reflector};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Resource, ResourceExt as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use tidegate_crds::conditions::READY;
use tidegate_crds::platform::Count;
use tidegate_crds::{Conditions, IoTPlatform};

/// A platform as the controller sees it.
type Guarded = DeserializeGuard<IoTPlatform>;

/// What is kept of an attached object, whatever it is.
type One = Object<Spec, Status>;

#[derive(Clone, Debug, Default, Deserialize)]
struct Spec {
    /// Nothing where it cannot be read.
    #[serde(default, rename = "platformRef", deserialize_with = "named")]
    platform: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Status {
    #[serde(default, rename = "conditions", deserialize_with = "is_ready")]
    ready: bool,
}

fn named<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let reference = Value::deserialize(from)?;
    Ok(reference["name"].as_str().map(str::to_owned))
}

fn is_ready<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    let conditions = Value::deserialize(from)?;
    Ok(serde_json::from_value::<Conditions>(conditions).is_ok_and(|conditions| conditions.is_true(READY)))
}

/// All attached objects of one kind, from all watches of it.
#[derive(Default)]
pub struct Attached(Mutex<Vec<Store<One>>>);

impl Attached {
    /// Watches the objects of kind `K`: the platforms that each event concerns. An object is counted before its event
    /// comes.
    pub fn watch<K>(
        &self,
        scope: &Scope,
        platforms: Store<Guarded>,
    ) -> impl Stream<Item = ObjectRef<Guarded>> + Send + use<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        let resource = ApiResource::erase::<K>(&());
        let writer = Writer::new(resource.clone());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(writer.as_reader());
        let events = watcher(scope.dynamic_api(&resource), watcher::Config::default()).default_backoff();
        let events = reflector(writer, events.modify(slim)).touched_objects();
        events.filter_map(|event| async { event.ok() }).flat_map(move |object: One| {
            stream::iter(concerned(&platforms, &object.metadata, object.spec.platform.as_deref()))
        })
    }

    /// How many objects are attached to a platform, and how many of them are ready. Nothing before all are known.
    pub fn count(&self, namespace: &str, platform: &str) -> Option<Count> {
        let stores = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let known =
            |store: &Store<One>| store.wait_until_ready().now_or_never().is_some_and(|done| done.is_ok());
        if !stores.iter().all(known) {
            return None;
        }
        let all = stores.iter().flat_map(Store::state);
        let own = all.filter(|one| {
            one.spec.platform.as_deref() == Some(platform) && one.namespace().as_deref() == Some(namespace)
        });
        Some(own.fold(Count::default(), |count, one| Count {
            ready: count.ready + i32::from(one.status.as_ref().is_some_and(|status| status.ready)),
            total: count.total + 1,
        }))
    }
}

impl fmt::Debug for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attached").finish_non_exhaustive()
    }
}

/// Name and namespace are all of the metadata that is looked at.
fn slim(object: &mut One) {
    let metadata = std::mem::take(&mut object.metadata);
    let ObjectMeta { name, namespace, uid, resource_version, .. } = metadata;
    object.metadata = ObjectMeta { name, namespace, uid, resource_version, ..ObjectMeta::default() };
}

/// The platforms that an attached object's event concerns: the one it names, or all of its namespace where it cannot
/// be read.
fn concerned(
    platforms: &Store<Guarded>,
    object: &ObjectMeta,
    named: Option<&str>,
) -> Vec<ObjectRef<Guarded>> {
    let Some(namespace) = object.namespace.as_deref() else { return Vec::new() };
    match named {
        Some(name) => vec![ObjectRef::new(name).within(namespace)],
        None => platforms
            .state()
            .into_iter()
            .filter(|platform| platform.namespace().as_deref() == Some(namespace))
            .map(|platform| ObjectRef::from_obj(&*platform))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::runtime::{reflector, watcher};
    use serde_json::json;
    use tidegate_crds::Topic;

    #[test]
    fn ready_ones_of_a_platform_are_counted_once_all_are_known_and_one_that_does_not_fit_counts_too() {
        let attached = Attached::default();
        assert_eq!(attached.count("iot", "plant"), Some(Count::default()), "nobody watches");
        let mut writer = Writer::new(ApiResource::erase::<Topic>(&()));
        attached.0.lock().unwrap().push(writer.as_reader());
        let one = |name: &str, namespace: &str, platform: Value, ready: &str| {
            let conditions = json!([{"type": "Ready", "status": ready, "reason": "Ready", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
            let object = json!({"apiVersion": "tidegate.io/v1alpha1", "kind": "Topic",
                "metadata": {"name": name, "namespace": namespace, "annotations": {"a": "long"}},
                "spec": {"platformRef": platform, "partitions": "three"}, "status": {"conditions": conditions}});
            let mut object: One = serde_json::from_value(object).unwrap();
            slim(&mut object);
            assert!(object.annotations().is_empty());
            object
        };
        writer.apply_watcher_event(&watcher::Event::Init);
        for object in [
            one("a", "iot", json!({"name": "plant"}), "True"),
            one("b", "iot", json!({"name": "plant"}), "False"),
            one("c", "iot", json!({"name": "other"}), "True"),
            one("d", "iot", json!(7), "True"),
            one("e", "elsewhere", json!({"name": "plant"}), "True"),
        ] {
            writer.apply_watcher_event(&watcher::Event::InitApply(object));
        }
        assert_eq!(attached.count("iot", "plant"), None, "more may come");
        writer.apply_watcher_event(&watcher::Event::InitDone);
        assert_eq!(attached.count("iot", "plant"), Some(Count { ready: 1, total: 2 }));
        let gone = one("b", "iot", json!({"name": "plant"}), "False");
        writer.apply_watcher_event(&watcher::Event::Delete(gone));
        assert_eq!(attached.count("iot", "plant"), Some(Count { ready: 1, total: 1 }));
    }

    #[test]
    fn the_event_of_an_unreadable_topic_concerns_all_platforms_of_its_namespace() {
        let (store, mut writer) = reflector::store::<Guarded>();
        for (name, namespace, spec) in [
            ("a", "iot", json!({"kafka": {"managed": {}}})),
            ("b", "iot", json!({"kafka": 7})),
            ("c", "other", json!({"kafka": {"managed": {}}})),
        ] {
            let platform = json!({"apiVersion": "tidegate.io/v1alpha1", "kind": "IoTPlatform",
                "metadata": {"name": name, "namespace": namespace}, "spec": spec});
            writer.apply_watcher_event(&watcher::Event::Apply(serde_json::from_value(platform).unwrap()));
        }
        let topic = ObjectMeta { namespace: Some("iot".to_owned()), ..ObjectMeta::default() };
        let names = |named| {
            let mut all: Vec<_> =
                concerned(&store, &topic, named).into_iter().map(|platform| platform.name).collect();
            all.sort();
            all
        };
        assert_eq!(names(Some("z")), ["z"]);
        assert_eq!(names(None), ["a", "b"]);
    }
}
