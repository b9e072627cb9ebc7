//! The gateways and Topics of a platform: whom their events concern (pure), and how many there are (IO). They are read
//! as they are stored, so that one that does not fit our types stands in nobody's way.

use crate::frame::Context;
use crate::frame::failure::ReadError;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ApiResource, ListParams, Object};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Resource, ResourceExt as _};
use serde::Deserialize;
use serde_json::Value;
use tidegate_crds::conditions::READY;
use tidegate_crds::platform::Count;
use tidegate_crds::{Conditions, IoTPlatform};

/// A platform as the controller sees it.
type Guarded = DeserializeGuard<IoTPlatform>;

/// What is looked at of an attached object, whatever it is: thousands of them are read at once, and each may be large.
type Attached = Object<Spec, Status>;

#[derive(Clone, Debug, Deserialize)]
struct Spec {
    #[serde(default, rename = "platformRef")]
    platform: Value,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Status {
    #[serde(default)]
    conditions: Value,
}

/// The platforms that an attached object's event concerns: the one it names, or all of its namespace where it cannot
/// be read.
pub fn concerned(
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

/// How many objects of a kind are attached to a platform, and how many of them are ready.
pub async fn count<K>(context: &Context, namespace: &str, platform: &str) -> Result<Count, ReadError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let resource = ApiResource::erase::<K>(&());
    let api: Api<Attached> = Api::namespaced_with(context.client.clone(), namespace, &resource);
    // From the API server's cache: an older answer is followed by an event.
    let found = api.list(&ListParams::default().match_any()).await;
    let found =
        found.map_err(|source| ReadError { what: format!("{} in {namespace}", resource.plural), source })?;
    let names = |object: &Attached| object.spec.platform["name"].as_str() == Some(platform);
    Ok(found.iter().filter(|object| names(object)).fold(Count::default(), |count, object| Count {
        ready: count.ready + i32::from(is_ready(object)),
        total: count.total + 1,
    }))
}

fn is_ready(object: &Attached) -> bool {
    let conditions = object.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
    serde_json::from_value::<Conditions>(conditions).is_ok_and(|conditions| conditions.is_true(READY))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::runtime::{reflector, watcher};
    use serde_json::json;

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
