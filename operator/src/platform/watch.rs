//! The watches of the platform controller: its children, its volume claims, what is wrong with its brokers' pods, and its
//! address pools outside its namespace. IO: the watches themselves.

use super::pods;
use super::pool::{advertisements, pools};
use crate::frame::Scope;
use crate::frame::backbone::address_pool;
use crate::frame::driver::Watches;
use crate::frame::outside::{changes, changes_of};
use crate::frame::owned::owns;
use crate::kafka::cluster::APP;
use crate::network::definition::{self, attachments};
use futures::{Stream, StreamExt as _, stream};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use kube::api::ApiResource;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use std::collections::BTreeMap;
use tidegate_crds::{IoTPlatform, labels};

/// A platform as the controller sees it.
type Guarded = DeserializeGuard<IoTPlatform>;

/// Adds all watches but the sweeps' bell and what is attached.
pub fn watch(controller: Watches<IoTPlatform>, scope: &Scope) -> Watches<IoTPlatform> {
    let platforms = controller.store();
    let controller = owns::<_, StatefulSet>(controller, scope);
    let controller = owns::<_, Service>(controller, scope);
    let controller = owns::<_, ServiceAccount>(controller, scope);
    let controller = owns::<_, ConfigMap>(controller, scope);
    let controller = owns::<_, Secret>(controller, scope);
    let controller = owns::<_, PodDisruptionBudget>(controller, scope);
    let claims = scope.api::<PersistentVolumeClaim>();
    let controller = controller.watches(claims, scope.owned(), |claim| serves(&claim));
    let mut controller = controller.reconcile_on(troubled(scope));
    for resource in [pools(), advertisements()] {
        controller = controller.reconcile_on(outside(scope, &resource, platforms.clone()));
    }
    controller.reconcile_on(attached(scope, platforms))
}

/// The platform that a volume claim or a broker's pod serves. Neither has it as its owner.
fn serves<K: ResourceExt>(object: &K) -> Option<ObjectRef<Guarded>> {
    let label = |key: &str| object.labels().get(key);
    let (namespace, platform) = (object.namespace()?, label(labels::INSTANCE)?);
    (label(labels::NAME)? == APP).then(|| ObjectRef::new(platform).within(&namespace))
}

/// The platform of a broker's pod, when something else is wrong with it than before: while a pod waits, nothing of its
/// StatefulSet changes.
fn troubled(scope: &Scope) -> impl Stream<Item = ObjectRef<Guarded>> + Send + 'static {
    let brokers = watcher::Config::default().labels(&format!("{}={APP}", labels::NAME));
    let mut known = Troubles::default();
    changes_of(scope.api::<Pod>(), brokers).flat_map(move |pod| {
        let concerned = pod.filter(|pod| known.are_news(pod)).and_then(|pod| serves(&pod));
        stream::iter(concerned)
    })
}

/// What was wrong with pods when they were seen last.
#[derive(Default)]
struct Troubles(BTreeMap<(Option<String>, String), (&'static str, String)>);

impl Troubles {
    fn are_news(&mut self, pod: &Pod) -> bool {
        let name = (pod.namespace(), pod.name_any());
        let leaves = pod.metadata.deletion_timestamp.is_some();
        let now = pods::trouble(std::slice::from_ref(pod)).filter(|_| !leaves);
        let before = match now.clone() {
            Some(now) => self.0.insert(name, now),
            None => self.0.remove(&name),
        };
        before != now
    }
}

/// The platforms whose addresses come from the pool of this name.
fn users(platforms: &Store<Guarded>, pool: &str) -> Vec<ObjectRef<Guarded>> {
    let uses = |platform: &Guarded| {
        platform.0.as_ref().is_ok_and(|platform| address_pool(platform).as_deref() == Some(pool))
    };
    let all = platforms.state().into_iter().filter(|platform| uses(platform));
    all.map(|platform| ObjectRef::from_obj(&*platform)).collect()
}

/// The platforms whose pool, or its advertisement, changed.
fn outside(
    scope: &Scope,
    resource: &ApiResource,
    platforms: Store<Guarded>,
) -> impl Stream<Item = ObjectRef<Guarded>> + Send + 'static {
    changes(scope.outside(resource)).flat_map(move |object| {
        let name = object.map(|object| object.name_any());
        stream::iter(name.map(|name| users(&platforms, &name)).unwrap_or_default())
    })
}

/// The platforms with a network whose attachment changed; all that have networks when the cluster has Multus at last.
fn attached(
    scope: &Scope,
    platforms: Store<Guarded>,
) -> impl Stream<Item = ObjectRef<Guarded>> + Send + 'static {
    changes(scope.dynamic(&attachments())).flat_map(move |object| {
        let all = platforms.state().into_iter().filter(|platform| {
            object.as_ref().is_none_or(|object| object.namespace() == platform.namespace())
                && platform.0.as_ref().is_ok_and(|platform| {
                    let name = platform.name_any();
                    let mut names =
                        platform.spec.networks.iter().map(|network| definition::name(&name, network));
                    // One that is no longer declared may still be marked as ours.
                    object.as_ref().map_or_else(
                        || !platform.spec.networks.is_empty(),
                        |object| {
                            names.any(|name| name == object.name_any())
                                || object.labels().get(labels::OWNER_UID) == platform.metadata.uid.as_ref()
                        },
                    )
                })
        });
        stream::iter(all.map(|platform| ObjectRef::from_obj(&*platform)).collect::<Vec<_>>())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::runtime::{reflector, watcher};
    use serde_json::json;

    #[test]
    fn a_claim_leads_to_the_platform_that_it_serves() {
        let claim = |app: &str| -> PersistentVolumeClaim {
            let labels = json!({labels::NAME: app, labels::INSTANCE: "plant"});
            serde_json::from_value(
                json!({"metadata": {"name": "data-plant-kafka-0", "namespace": "iot", "labels": labels}}),
            )
            .unwrap()
        };
        assert_eq!(serves(&claim(APP)).unwrap(), ObjectRef::new("plant").within("iot"));
        assert_eq!(serves(&claim("other")), None);
    }

    #[test]
    fn a_pod_is_news_when_something_else_is_wrong_with_it_and_when_nothing_is_any_more() {
        let pod = |ready: bool, ended: &str| -> Pod {
            let last = json!({"terminated": {"exitCode": 1, "message": ended}});
            let container = json!({"name": "kafka", "image": "", "imageID": "", "ready": ready, "restartCount": 1,
                "state": {"running": {}}, "lastState": if ended.is_empty() { json!({}) } else { last }});
            serde_json::from_value(json!({"metadata": {"name": "plant-kafka-1", "namespace": "iot"},
                "status": {"containerStatuses": [container]}}))
            .unwrap()
        };
        let mut known = Troubles::default();
        assert!(!known.are_news(&pod(true, "")), "nothing was wrong, and nothing is");
        assert!(known.are_news(&pod(false, "DiskEmpty: the disk of node 1 is empty")));
        assert!(!known.are_news(&pod(false, "DiskEmpty: the disk of node 1 is empty")), "it was seen");
        assert!(known.are_news(&pod(false, "WrongDisk: the disk belongs to node 2")));
        let mut leaves = pod(false, "WrongDisk: the disk belongs to node 2");
        leaves.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        assert!(known.are_news(&leaves), "another takes its place");
        assert!(known.0.is_empty());
    }

    #[test]
    fn a_pool_leads_to_all_platforms_that_take_addresses_from_it() {
        let (store, mut writer) = reflector::store::<Guarded>();
        for (name, balancer) in [
            ("a", json!({"poolRef": {"name": "devices"}})),
            ("b", json!({"addresses": ["192.0.2.1-192.0.2.2"]})),
            ("c", json!({"poolRef": {"name": "other"}})),
        ] {
            let platform = json!({"apiVersion": "tidegate.io/v1alpha1", "kind": "IoTPlatform",
                "metadata": {"name": name, "namespace": "iot"}, "spec": {"kafka": {"managed": {}}, "loadBalancer": balancer}});
            writer.apply_watcher_event(&watcher::Event::Apply(serde_json::from_value(platform).unwrap()));
        }
        let names = |pool: &str| users(&store, pool).into_iter().map(|found| found.name).collect::<Vec<_>>();
        assert_eq!(names("devices"), ["a"]);
        assert_eq!(names("tidegate-iot-b"), ["b"]);
        assert!(names("nobodys").is_empty());
    }
}
