//! An API server in memory for tests: keeps what is applied, takes server-side apply for a merge, and fails where a
//! test says so. It validates nothing; what the real one does is tested on the real one.

use super::context::Context;
use super::metrics::Metrics;
use super::options::{Images, Options};
use http::{Method, Request, Response, StatusCode};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::client::Body;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// What was asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    pub method: Method,
    pub path: String,
    pub query: String,
    pub body: Value,
}

type Fault = (Method, String, u16);

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    faults: Vec<Fault>,
    asked: Vec<Asked>,
    leaving: bool,
    version: u64,
}

/// An API server in memory. Clones share everything.
#[derive(Clone, Default)]
pub struct FakeServer(Arc<Mutex<State>>);

impl FakeServer {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Puts an object where its path says.
    pub fn put(&self, path: &str, object: impl serde::Serialize) {
        let mut state = self.state();
        state.version += 1;
        let mut object = serde_json::to_value(object).unwrap();
        object["metadata"]["resourceVersion"] = state.version.to_string().into();
        state.objects.insert(path.to_owned(), object);
    }

    /// The object at this path.
    pub fn get(&self, path: &str) -> Option<Value> {
        self.state().objects.get(path).cloned()
    }

    /// Changes a stored object, as somebody else would.
    pub fn edit(&self, path: &str, change: impl FnOnce(&mut Value)) {
        let mut object = self.get(path).unwrap();
        change(&mut object);
        self.put(path, object);
    }

    /// Asserts what a stored object's condition says, and returns its message.
    pub fn says(&self, path: &str, type_: &str, status: &str, reason: &str) -> String {
        let stored = self.get(path).unwrap();
        let all = stored["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let one = all.into_iter().find(|one| one["type"] == type_).unwrap_or_default();
        let text = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
        assert_eq!((text("status").as_str(), text("reason").as_str()), (status, reason), "{type_}: {one}");
        text("message")
    }

    /// Somebody removes the object at this path.
    pub fn remove(&self, path: &str) {
        self.state().objects.remove(path);
    }

    /// From now on this request is answered with this code.
    pub fn fail(&self, method: Method, path: &str, code: u16) {
        self.state().faults.push((method, path.to_owned(), code));
    }

    /// Every request is answered as usual again.
    pub fn heal(&self) {
        self.state().faults.clear();
    }

    /// The namespace is being deleted: nothing new is taken.
    pub fn leave(&self) {
        self.state().leaving = true;
    }

    /// Everything that was asked, in order.
    pub fn asked(&self) -> Vec<Asked> {
        self.state().asked.clone()
    }

    /// The paths of everything that was written (Events apart), in order.
    pub fn writes(&self) -> Vec<String> {
        let written = |one: &Asked| one.method != Method::GET && !one.path.contains("/events");
        self.asked()
            .iter()
            .filter(|one| written(one))
            .map(|one| format!("{} {}", one.method, one.path))
            .collect()
    }

    /// The Events that were published: type, reason, note.
    pub fn events(&self) -> Vec<(String, String, String)> {
        let text = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
        let events = self
            .asked()
            .into_iter()
            .filter(|one| one.method == Method::POST && one.path.ends_with("/events"));
        events
            .map(|one| (text(&one.body, "type"), text(&one.body, "reason"), text(&one.body, "note")))
            .collect()
    }

    /// A client of this server.
    pub fn client(&self) -> Client {
        let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let server = self.clone();
        tokio::spawn(async move {
            while let Some((request, answer)) = handle.next_request().await {
                let (parts, body) = request.into_parts();
                let bytes = body.collect_bytes().await.unwrap();
                let asked = Asked {
                    method: parts.method,
                    path: parts.uri.path().to_owned(),
                    query: parts.uri.query().unwrap_or_default().to_owned(),
                    body: serde_json::from_slice(&bytes).unwrap_or_default(),
                };
                let (code, body) = server.answer(asked);
                let response =
                    Response::builder().status(code).body(Body::from(body.to_string().into_bytes()));
                answer.send_response(response.unwrap());
            }
        });
        Client::new(service, "default")
    }

    /// What controllers share, with this server behind it and a clock that stands.
    pub fn context(&self) -> Arc<Context> {
        let options = Options {
            images: Images {
                gateway: "tidegate/gateway:test".to_owned(),
                kafka: "tidegate/kafka:test".to_owned(),
            },
            namespaces: Vec::new(),
            address_allow_list: Vec::new(),
            network_allow_list: vec!["macvlan:eth1".parse().unwrap()],
            metallb_namespace: "metallb-system".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            resync: Duration::from_mins(10),
            look_again: Duration::from_secs(10),
            secret_spread: Duration::from_mins(5),
            applications_wait: Duration::from_hours(24),
        };
        let mut context =
            Context::new(self.client(), options, Arc::new(Metrics::default()), "test".to_owned());
        context.clock = || Timestamp::from_second(1_800_000_000).unwrap();
        Arc::new(context)
    }

    fn answer(&self, asked: Asked) -> (StatusCode, Value) {
        let mut state = self.state();
        state.asked.push(asked.clone());
        let fault =
            state.faults.iter().find(|(method, path, _)| *method == asked.method && *path == asked.path);
        if let Some((.., code)) = fault {
            return status(*code, "the test says so");
        }
        state.version += 1;
        let version = state.version.to_string();
        let path = asked.path.strip_suffix("/status").unwrap_or(&asked.path).to_owned();
        let creates = asked.method == Method::POST
            || asked.method == Method::PATCH && !state.objects.contains_key(&path);
        if state.leaving && creates {
            let (code, mut body) =
                status(403, "unable to create new content in namespace: it is being terminated");
            body["details"] = json!({"causes": [{"reason": "NamespaceTerminating"}]});
            return (code, body);
        }
        match asked.method {
            Method::GET => match state.objects.get(&path) {
                Some(object) => (StatusCode::OK, object.clone()),
                None if is_collection(&path) => {
                    let inside =
                        |(key, _): &(&String, &Value)| key.rsplit_once('/').is_some_and(|(at, _)| at == path);
                    let items: Vec<_> = state
                        .objects
                        .iter()
                        .filter(inside)
                        .map(|(_, object)| object.clone())
                        .filter(|object| selected(object, &asked.query))
                        .collect();
                    (
                        StatusCode::OK,
                        json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}),
                    )
                }
                None => {
                    let (code, mut body) = status(404, "not found");
                    body["details"] = json!({"name": path.rsplit('/').next()});
                    (code, body)
                }
            },
            Method::POST => {
                let name = asked.body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                let mut object = asked.body;
                object["metadata"]["resourceVersion"] = version.into();
                state.objects.insert(format!("{path}/{name}"), object.clone());
                (StatusCode::CREATED, object)
            }
            Method::PUT => {
                let old = state.objects.get(&path).map(|old| old["metadata"]["resourceVersion"].clone());
                if old.is_some_and(|old| old != asked.body["metadata"]["resourceVersion"]) {
                    return status(409, "the object has been modified");
                }
                let mut object = asked.body;
                object["metadata"]["resourceVersion"] = version.into();
                state.objects.insert(path, object.clone());
                (StatusCode::OK, object)
            }
            Method::PATCH if !asked.query.contains("force=true") => {
                let Some(object) = state.objects.get_mut(&path) else { return status(404, "not found") };
                let differs = |key: &str| {
                    let (there, wanted) = (&object["metadata"][key], &asked.body["metadata"][key]);
                    !there.is_null() && !wanted.is_null() && there != wanted
                };
                if differs("uid") || differs("resourceVersion") {
                    return status(409, "it is not the object that was read");
                }
                merge_patch(object, &asked.body);
                object["metadata"]["resourceVersion"] = version.into();
                (StatusCode::OK, object.clone())
            }
            Method::PATCH => {
                let object = state.objects.entry(path.clone()).or_insert_with(
                    || json!({"metadata": {"uid": format!("uid-of-{path}"), "generation": 1}}),
                );
                merge(object, &asked.body);
                object["metadata"]["resourceVersion"] = version.into();
                (StatusCode::OK, object.clone())
            }
            Method::DELETE => match state.objects.remove(&path) {
                Some(object) => (StatusCode::OK, object),
                None => status(404, "not found"),
            },
            _ => status(405, "not allowed"),
        }
    }
}

fn status(code: u16, message: &str) -> (StatusCode, Value) {
    let reason = match code {
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        422 => "Invalid",
        _ => "InternalError",
    };
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "message": message, "reason": reason, "code": code,
    });
    (StatusCode::from_u16(code).unwrap(), body)
}

/// Whether the path names a kind, not an object: `…/namespaces/<namespace>/<plural>`, or the nodes.
fn is_collection(path: &str) -> bool {
    path == "/api/v1/nodes" || path.split('/').skip_while(|part| *part != "namespaces").count() == 3
}

fn selected(object: &Value, query: &str) -> bool {
    let Some(selector) = query.split('&').find_map(|part| part.strip_prefix("labelSelector=")) else {
        return true;
    };
    let selector = selector.replace("%3D", "=").replace("%2C", ",").replace("%2F", "/");
    let labels = object["metadata"]["labels"].as_object().cloned().unwrap_or_else(Map::new);
    selector.split(',').all(|term| match term.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|there| there == value),
        None => labels.contains_key(term),
    })
}

/// As RFC 7396 wants it.
fn merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    for (key, value) in patch {
        if key == "uid" && value.is_null() {
            continue;
        }
        if value.is_null() {
            if let Some(target) = target.as_object_mut() {
                target.remove(key);
            }
            continue;
        }
        merge_patch(&mut target[key.as_str()], value);
    }
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        // What every apply sends whole.
        if key == "status" || key == "spec" || key == "data" {
            target[key.as_str()] = value.clone();
        } else if !(key == "uid" && value.is_null()) {
            merge(&mut target[key.as_str()], value);
        }
    }
}
