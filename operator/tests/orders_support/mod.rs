//! One order of applying and deleting the quickstart's resources, and what came of it.

#![allow(dead_code, reason = "each test uses its part")]

use super::apiserver_support::World;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

/// What the quickstart needs of a cluster: its address pool.
pub fn cluster(world: &World) {
    for (kind, plural) in [("IPAddressPool", "ipaddresspools"), ("L2Advertisement", "l2advertisements")] {
        world.apply(&json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.metallb.io")},
            "spec": {"group": "metallb.io", "scope": "Namespaced", "names": {"kind": kind, "plural": plural},
                "versions": [{"name": "v1beta1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]},
        }));
    }
    world.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"]);
    world.kubectl(&["create", "namespace", "metallb-system"]);
    world.apply(&json!({
        "apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
        "metadata": {"name": "devices", "namespace": "metallb-system"}, "spec": {"addresses": ["192.0.2.0/24"]},
    }));
}

/// The quickstart's resources, without the namespace that holds them.
pub fn documents() -> Vec<Value> {
    const FILES: [&str; 3] = [
        include_str!("../../../examples/quickstart/platform.yaml"),
        include_str!("../../../examples/quickstart/topic.yaml"),
        include_str!("../../../examples/quickstart/gateways.yaml"),
    ];
    let parse = |text: &str| {
        let value: serde_yaml::Value = serde_yaml::from_str(text).unwrap();
        serde_json::to_value(value).unwrap()
    };
    FILES.iter().flat_map(|file| file.split("\n---\n").map(parse)).collect()
}

/// All orders of so many things.
pub fn permutations(count: usize) -> Vec<Vec<usize>> {
    (0..count).fold(vec![Vec::new()], |all, _| {
        let longer = |order: Vec<usize>| {
            let left = (0..count).filter({
                let order = order.clone();
                move |one| !order.contains(one)
            });
            left.map(|one| [order.clone(), vec![one]].concat()).collect::<Vec<_>>()
        };
        all.into_iter().flat_map(longer).collect()
    })
}

fn resource(kind: &str) -> ApiResource {
    let (group, version, plural) = match kind {
        "IoTPlatform" => ("tidegate.io", "v1alpha1", "iotplatforms"),
        "Topic" => ("tidegate.io", "v1alpha1", "topics"),
        "ProtocolGateway" => ("tidegate.io", "v1alpha1", "protocolgateways"),
        "Deployment" => ("apps", "v1", "deployments"),
        "StatefulSet" => ("apps", "v1", "statefulsets"),
        "PodDisruptionBudget" => ("policy", "v1", "poddisruptionbudgets"),
        "Service" => ("", "v1", "services"),
        "ConfigMap" => ("", "v1", "configmaps"),
        "Secret" => ("", "v1", "secrets"),
        "ServiceAccount" => ("", "v1", "serviceaccounts"),
        "PersistentVolumeClaim" => ("", "v1", "persistentvolumeclaims"),
        other => panic!("{other}?"),
    };
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

const KINDS: [&str; 11] = [
    "IoTPlatform",
    "Topic",
    "ProtocolGateway",
    "Deployment",
    "StatefulSet",
    "PodDisruptionBudget",
    "Service",
    "ConfigMap",
    "Secret",
    "ServiceAccount",
    "PersistentVolumeClaim",
];

/// Everything in a namespace that is ours, by kind and name, without what differs by nature.
pub type State = BTreeMap<String, Value>;

/// The first difference.
pub fn difference(one: &State, other: &State) -> Option<String> {
    let keys = one.keys().chain(other.keys());
    keys.into_iter().find_map(|key| match (one.get(key), other.get(key)) {
        (Some(one), Some(other)) if one == other => None,
        (one, other) => {
            let text = |value: Option<&Value>| value.map_or("nothing".to_owned(), ToString::to_string);
            Some(format!("{key} is {} there and {} here", text(one), text(other)))
        }
    })
}

/// What was not looked at to the end: without brokers, Kafka is said not to answer.
pub fn unfinished(state: &State) -> Option<String> {
    let platform = &state["IoTPlatform plant"];
    let ready = platform["status"]["conditions"].as_array().into_iter().flatten();
    let ready = ready.filter(|one| one["type"] == "Ready").map(|one| one["reason"].clone()).next();
    (ready != Some("KafkaNotReady".into()) && ready != Some("KafkaUnreachable".into()))
        .then(|| format!("the platform says {ready:?}"))
}

pub struct Order {
    client: Client,
    namespace: String,
    documents: Vec<Value>,
    places: Vec<usize>,
}

impl Order {
    pub async fn new(client: &Client, documents: &[Value], places: Vec<usize>, number: usize) -> Self {
        let namespace = format!("order-{number:02}");
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        let api: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
        api.patch(&namespace, &PatchParams::apply("somebody"), &Patch::Apply(object)).await.unwrap();
        let mut documents = documents.to_vec();
        for document in &mut documents {
            document["metadata"]["namespace"] = namespace.as_str().into();
        }
        Self { client: client.clone(), namespace, documents, places }
    }

    /// The order in words.
    pub fn told(&self) -> String {
        let name = |index: &usize| {
            let document = &self.documents[*index];
            format!(
                "{} {}",
                document["kind"].as_str().unwrap(),
                document["metadata"]["name"].as_str().unwrap()
            )
        };
        self.places.iter().map(name).collect::<Vec<_>>().join(", ")
    }

    fn api(&self, kind: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource(kind))
    }

    fn of(&self, index: usize) -> (Api<DynamicObject>, &str) {
        let document = &self.documents[index];
        (self.api(document["kind"].as_str().unwrap()), document["metadata"]["name"].as_str().unwrap())
    }

    /// Applies one after the other; in between every resource says the truth about what is there.
    pub async fn apply(&self) {
        let params = PatchParams::apply("somebody");
        for (place, &index) in self.places.iter().enumerate() {
            let (api, name) = self.of(index);
            api.patch(name, &params, &Patch::Apply(&self.documents[index])).await.unwrap();
            let there = &self.places[..=place];
            let platform = there.iter().any(|one| self.documents[*one]["kind"] == "IoTPlatform");
            for &one in there {
                if self.documents[one]["kind"] != "IoTPlatform" {
                    self.says(one, if platform { "ResolvedRefs" } else { "PlatformNotFound" }).await;
                }
            }
        }
    }

    async fn says(&self, index: usize, wanted: &str) {
        let (api, name) = self.of(index);
        let started = Instant::now();
        loop {
            let object = api.get(name).await.unwrap();
            let conditions = object.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let refs = conditions.into_iter().find(|one| one["type"] == "ResolvedRefs").unwrap_or_default();
            let ready =
                refs["reason"] == wanted && refs["observedGeneration"] == json!(object.metadata.generation);
            if ready {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "{}: {name} says {refs}, not {wanted}", self.told());
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    pub async fn state(&self) -> State {
        let mut all = State::new();
        for kind in KINDS {
            for object in self.api(kind).list(&ListParams::default()).await.unwrap() {
                let mut value = serde_json::to_value(&object).unwrap();
                normalise(&mut value, &self.namespace);
                let name = value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                all.insert(format!("{kind} {name}"), value);
            }
        }
        all
    }

    /// Deletes in the opposite order. The Topic's records shall go with it, so that it has a finalizer.
    pub async fn delete(&self) {
        let params = PatchParams::apply("somebody-else");
        for (index, document) in self.documents.iter().enumerate().filter(|(_, one)| one["kind"] == "Topic") {
            let (api, name) = self.of(index);
            let patch = json!({"apiVersion": "tidegate.io/v1alpha1", "kind": "Topic", "metadata": {"name": name},
                "spec": {"platformRef": document["spec"]["platformRef"], "deletionPolicy": "Delete"}});
            api.patch(name, &params.clone().force(), &Patch::Apply(patch)).await.unwrap();
            let started = Instant::now();
            while api.get(name).await.unwrap().finalizers().is_empty() {
                assert!(started.elapsed() < PATIENCE, "{}: no finalizer", self.told());
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        }
        for &index in self.places.iter().rev() {
            let (api, name) = self.of(index);
            api.delete(name, &DeleteParams::background()).await.unwrap();
        }
    }

    /// A resource that is still there.
    pub async fn left(&self) -> Option<String> {
        for kind in &KINDS[..3] {
            if let Some(object) =
                self.api(kind).list(&ListParams::default()).await.unwrap().into_iter().next()
            {
                return Some(format!("{kind} {}", object.name_any()));
            }
        }
        None
    }
}

/// Takes out what differs between two namespaces and two moments by nature.
fn normalise(value: &mut Value, namespace: &str) {
    const BY_NATURE: [&str; 13] = [
        "resourceVersion",
        "uid",
        "generation",
        "creationTimestamp",
        "managedFields",
        "lastTransitionTime",
        "expires",
        "observedGeneration",
        "clusterIP",
        "clusterIPs",
        "nodePort",
        "message",
        "initial-controllers",
    ];
    match value {
        Value::Object(map) => {
            map.retain(|key, _| !BY_NATURE.contains(&key.as_str()));
            for (key, inner) in map.iter_mut() {
                let made_once =
                    key.ends_with("-id") || key.ends_with("-uid") || key.ends_with("/certificates");
                // Files, keys and certificates: that they are there is the same.
                if made_once || key == "data" && inner.is_object() {
                    *inner = match inner {
                        Value::Object(data) => data.keys().cloned().collect(),
                        _ => Value::Null,
                    };
                } else {
                    normalise(inner, namespace);
                }
            }
        }
        Value::Array(all) => {
            for inner in all.iter_mut() {
                normalise(inner, namespace);
            }
            // Conditions are a map with the type as its key; which came first says nothing.
            all.sort_by_key(|item| item["type"].as_str().map(str::to_owned));
        }
        Value::String(text) => {
            *text = text.replace(namespace, "NAMESPACE");
            if let Some((before, hash)) = text.rsplit_once("-config-")
                && hash.len() == 10
            {
                *text = format!("{before}-config-HASH");
            }
        }
        _ => {}
    }
}
