//! Objects that the operator's field manager owns something of, and disturbances of them.

use super::Outcome;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::discovery::{Discovery, Scope, verbs};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Map, Value, json};
use std::fmt;
use std::time::{Duration, Instant};
use tidegate_crds::labels::MANAGER;

/// A label of every object.
const LABEL: &str = "app.kubernetes.io/managed-by";
const WRONG: &str = "drifted";

/// All kinds that can be listed.
pub async fn kinds(client: &Client) -> Vec<(ApiResource, Scope)> {
    let discovery = Discovery::new(client.clone()).run().await.unwrap();
    let all = discovery.groups().flat_map(kube::discovery::ApiGroup::recommended_resources);
    all.filter(|(_, able)| able.supports_operation(verbs::LIST) && able.supports_operation(verbs::PATCH))
        .map(|(resource, able)| (resource, able.scope))
        .collect()
}

/// Everything that the operator applied, in a stable order.
pub async fn discover(client: &Client, kinds: &[(ApiResource, Scope)]) -> Vec<Owned> {
    let mut all = Vec::new();
    for (resource, _) in kinds {
        let api: Api<DynamicObject> = Api::all_with(client.clone(), resource);
        let Ok(list) = api.list(&ListParams::default()).await else { continue };
        for mut object in list {
            let entries = object.metadata.managed_fields.clone().unwrap_or_default();
            let applied = entries.into_iter().find(|one| {
                one.manager.as_deref() == Some(MANAGER) && one.operation.as_deref() == Some("Apply")
            });
            let Some(fields) = applied.and_then(|one| one.fields_v1) else { continue };
            object.types = Some(kube::api::TypeMeta {
                api_version: resource.api_version.clone(),
                kind: resource.kind.clone(),
            });
            all.push(Owned { resource: resource.clone(), object, fields: fields.0 });
        }
    }
    all.sort_by_key(Owned::what);
    all
}

/// One owned field: the steps of `fieldsV1` down to it.
pub struct Field(Vec<String>);

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            match step.split_once(':') {
                Some(("f", name)) if name.contains(['.', '/']) => write!(f, "[{name}]")?,
                Some(("f", name)) if index > 0 => write!(f, ".{name}")?,
                Some(("f", name)) => write!(f, "{name}")?,
                Some((_, keys)) => {
                    let keys: Value = serde_json::from_str(keys).unwrap();
                    let text = |value: &Value| value.as_str().map_or(value.to_string(), str::to_owned);
                    let keys = match &keys {
                        Value::Object(map) => map.values().map(text).collect::<Vec<_>>().join(" "),
                        other => text(other),
                    };
                    // A uid says nobody anything, and differs in every run.
                    write!(f, "[{}]", if keys.len() == 36 { "uid" } else { &keys })?;
                }
                None => write!(f, "{step}")?,
            }
        }
        Ok(())
    }
}

/// An object and what the operator owns of it.
pub struct Owned {
    pub resource: ApiResource,
    pub object: DynamicObject,
    fields: Value,
}

fn leaves(tree: &Value, at: &[String], all: &mut Vec<Field>) {
    let inner = tree.as_object().into_iter().flatten().filter(|(step, _)| *step != ".");
    let mut empty = true;
    for (step, below) in inner {
        empty = false;
        leaves(below, &[at, std::slice::from_ref(step)].concat(), all);
    }
    if empty {
        all.push(Field(at.to_vec()));
    }
}

/// Where a field is in this version of the object.
fn locate(object: &Value, field: &Field) -> Option<String> {
    let (mut here, mut pointer) = (object, String::new());
    for step in &field.0 {
        let (how, text) = step.split_once(':')?;
        if how == "f" {
            here = here.get(text)?;
            pointer.extend(["/", &text.replace('~', "~0").replace('/', "~1")]);
            continue;
        }
        let wanted: Value = serde_json::from_str(text).ok()?;
        let fits = |item: &Value| match (&wanted, how) {
            (Value::Object(keys), "k") => keys.iter().all(|(key, value)| item.get(key) == Some(value)),
            (value, _) => item == value,
        };
        let index = here.as_array()?.iter().position(fits)?;
        here = &here[index];
        pointer.extend(["/", &index.to_string()]);
    }
    Some(pointer)
}

/// Other values, of which the API server may take one.
fn others(value: &Value) -> Vec<Value> {
    const WORDS: [&str; 14] = [
        "ZHJpZnQ=",
        "Local",
        "NodePort",
        "Always",
        "OnDelete",
        "Recreate",
        "Delete",
        "UDP",
        "Unconfined",
        "IfHealthyBudget",
        "OrderedReady",
        "DoNotSchedule",
        "NoSchedule",
        "status.podIP",
    ];
    match value {
        Value::String(text) => {
            let mut all =
                vec![json!(format!("{text}-drift")), json!(format!("{text}7")), json!("drift"), json!("7")];
            all.extend(WORDS.map(Value::from));
            all
        }
        Value::Number(number) => {
            let number = number.as_i64().unwrap();
            vec![json!(number + 1), json!(number - 1), json!(0)]
        }
        Value::Bool(value) => vec![json!(!value)],
        Value::Array(all) => {
            let more = all.last().cloned().unwrap_or_default();
            let mut longer = all.clone();
            longer.extend(others(&more).into_iter().take(1));
            vec![Value::Array(longer), Value::Array(all[1.min(all.len())..].to_vec())]
        }
        Value::Object(map) => {
            let mut more = map.clone();
            more.insert("drift".to_owned(), "drift".into());
            // Whole values: the API server takes no part of them alone.
            let field = json!({"apiVersion": "v1", "fieldPath": "metadata.namespace"});
            vec![Value::Object(more), field, json!({"medium": "Memory"}), Value::Object(Map::new())]
        }
        Value::Null => Vec::new(),
    }
}

/// What must be as before: all but what every write changes.
fn content(object: &DynamicObject) -> Value {
    let mut value = serde_json::to_value(object).unwrap();
    value.as_object_mut().unwrap().remove("status");
    let metadata = value["metadata"].as_object_mut().unwrap();
    for key in ["resourceVersion", "generation", "managedFields", "uid", "creationTimestamp"] {
        metadata.remove(key);
    }
    value
}

/// The same without what the API server gives out anew.
fn made_anew(object: &DynamicObject) -> Value {
    let mut value = content(object);
    if let Some(spec) = value.get_mut("spec").and_then(Value::as_object_mut) {
        spec.remove("clusterIP");
        spec.remove("clusterIPs");
        for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            port.as_object_mut().unwrap().remove("nodePort");
        }
    }
    // Deleting is how people ask for new certificates; authorities stay.
    let is_secret = object.types.as_ref().is_some_and(|types| types.kind == "Secret");
    let data = value.get_mut("data").filter(|_| is_secret).and_then(Value::as_object_mut);
    for (key, value) in data.into_iter().flatten() {
        if key == "fingerprint" || key.starts_with("tls.") || key.starts_with("node-") {
            *value = Value::Null;
        }
    }
    value
}

impl Owned {
    pub fn what(&self) -> String {
        format!("{} {}", self.resource.kind, self.object.name_any())
    }

    /// Which object it is and which version.
    pub fn version(&self) -> (String, Option<String>) {
        (self.what(), self.object.resource_version())
    }

    fn api(&self, client: &Client) -> Api<DynamicObject> {
        Api::namespaced_with(client.clone(), &self.object.namespace().unwrap(), &self.resource)
    }

    /// All owned fields.
    pub fn fields(&self) -> Vec<Field> {
        let mut all = Vec::new();
        leaves(&self.fields, &[], &mut all);
        // What can be changed in most kinds comes first.
        all.sort_by_key(|field| field.0[0] == "f:metadata");
        all
    }

    async fn read(&self, client: &Client) -> Option<DynamicObject> {
        self.api(client).get_opt(&self.object.name_any()).await.unwrap()
    }

    async fn repaired(
        &self,
        client: &Client,
        since: Instant,
        limit: Duration,
        is: impl Fn(&DynamicObject) -> Result<(), String>,
    ) -> Outcome {
        let mut problem = "it is gone".to_owned();
        loop {
            if let Some(object) = self.read(client).await {
                match is(&object) {
                    Ok(()) => return Outcome { repaired: Some(since.elapsed()), ..Outcome::default() },
                    Err(text) => problem = text,
                }
            }
            if since.elapsed() > limit {
                let problem = format!("not repaired in {limit:?}: {problem}");
                return Outcome { problem, ..Outcome::default() };
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Somebody changes one field, or takes it away where nothing else is allowed.
    pub async fn change(&self, client: &Client, field: &Field, limit: Duration) -> Outcome {
        let before = self.read(client).await.expect("it was repaired");
        let value = serde_json::to_value(&before).unwrap();
        let Some(pointer) = locate(&value, field) else {
            // The API server drops what is empty or a default of its own.
            return Outcome {
                refused: "not stored: it is the same as its absence".to_owned(),
                ..Outcome::default()
            };
        };
        let mut tries: Vec<_> = others(value.pointer(&pointer).unwrap())
            .into_iter()
            .map(|value| json!([{"op": "replace", "path": pointer, "value": value}]))
            .collect();
        tries.push(json!([{"op": "remove", "path": pointer}]));
        let mut refused = String::new();
        for patch in tries {
            match self
                .disturb(client, &before, Patch::<()>::Json(serde_json::from_value(patch).unwrap()))
                .await
            {
                Ok(true) => return self.as_before(client, &before, limit).await,
                Ok(false) => {}
                Err(text) => refused = text,
            }
        }
        if refused.is_empty() {
            "changes nothing".clone_into(&mut refused);
        }
        Outcome { refused, ..Outcome::default() }
    }

    /// Somebody adds something.
    pub async fn add(&self, client: &Client, patch: Value, limit: Duration) -> Outcome {
        let before = self.read(client).await.expect("it was repaired");
        let patch =
            if self.resource.group == "metallb.io" { Patch::Merge(patch) } else { Patch::Strategic(patch) };
        match self.disturb(client, &before, patch).await {
            Ok(true) => self.as_before(client, &before, limit).await,
            Ok(false) => Outcome { refused: "changes nothing".to_owned(), ..Outcome::default() },
            Err(refused) => Outcome { refused, ..Outcome::default() },
        }
    }

    /// Whether the patch changed the object; what the API server says against it.
    async fn disturb<P: serde::Serialize + fmt::Debug>(
        &self,
        client: &Client,
        before: &DynamicObject,
        patch: Patch<P>,
    ) -> Result<bool, String> {
        let params = PatchParams { field_manager: Some("drift".to_owned()), ..PatchParams::default() };
        match self.api(client).patch(&self.object.name_any(), &params, &patch).await {
            Ok(after) => Ok(content(&after) != content(before)),
            Err(kube::Error::Api(status)) => {
                Err(status.message.lines().next().unwrap_or_default().chars().take(160).collect())
            }
            Err(error) => panic!("{error}"),
        }
    }

    async fn as_before(&self, client: &Client, before: &DynamicObject, limit: Duration) -> Outcome {
        let wanted = content(before);
        self.repaired(client, Instant::now(), limit, |now| differs(&wanted, &content(now))).await
    }

    /// Somebody deletes it.
    pub async fn delete(&self, client: &Client, limit: Duration) -> Outcome {
        let (api, name) = (self.api(client), self.object.name_any());
        let before = self.read(client).await.expect("it was repaired");
        let wanted = made_anew(&before);
        api.delete(&name, &DeleteParams::background()).await.unwrap();
        if self.resource.kind == "PersistentVolumeClaim" {
            // No controller runs here that would see that no pod uses it.
            let patch = json!({"metadata": {"finalizers": null}});
            api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
        }
        self.repaired(client, Instant::now(), limit, |now| {
            if now.metadata.uid == before.metadata.uid {
                return Err("it is still the old one".to_owned());
            }
            differs(&wanted, &made_anew(now))
        })
        .await
    }

    /// Somebody changes a label that Tidegate sets on every object, and does not look at what comes of it.
    pub async fn mislabel(&self, client: &Client) {
        assert!(self.object.labels().contains_key(LABEL), "{}", self.what());
        let patch = json!({"metadata": {"labels": {LABEL: WRONG}}});
        let params = PatchParams::default();
        self.api(client).patch(&self.object.name_any(), &params, &Patch::Merge(patch)).await.unwrap();
    }

    pub fn is_mislabelled(&self) -> bool {
        self.object.labels().get(LABEL).is_some_and(|value| value == WRONG)
    }

    /// `kubectl rollout restart` stays, and what is added with it does not.
    pub async fn restart(&self, client: &Client, limit: Duration) {
        const RESTARTED: &str = "kubectl.kubernetes.io/restartedAt";
        let patch = json!({"spec": {"template": {"metadata": {"annotations": {(RESTARTED): "2026-01-01T00:00:00Z"}}, "spec": {"hostPID": true}}}});
        let before = self.read(client).await.unwrap();
        assert_eq!(self.disturb(client, &before, Patch::Strategic(patch)).await, Ok(true));
        let outcome = self
            .repaired(client, Instant::now(), limit, |now| {
                let template = &now.data["spec"]["template"];
                assert_eq!(template["metadata"]["annotations"][RESTARTED], "2026-01-01T00:00:00Z");
                template["spec"].get("hostPID").map_or(Ok(()), |_| Err("hostPID".to_owned()))
            })
            .await;
        assert!(outcome.repaired.is_some(), "{}: {}", self.what(), outcome.problem);
        assert!(now_generation(client, self).await > before.metadata.generation);
    }
}

async fn now_generation(client: &Client, object: &Owned) -> Option<i64> {
    object.read(client).await.unwrap().metadata.generation
}

/// The first difference.
fn differs(wanted: &Value, found: &Value) -> Result<(), String> {
    fn walk(at: &str, wanted: &Value, found: &Value) -> Option<String> {
        match (wanted, found) {
            (Value::Object(a), Value::Object(b)) => {
                let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
                keys.into_iter().find_map(|key| {
                    walk(
                        &format!("{at}.{key}"),
                        a.get(key).unwrap_or(&Value::Null),
                        b.get(key).unwrap_or(&Value::Null),
                    )
                })
            }
            (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
                a.iter().zip(b).enumerate().find_map(|(index, (a, b))| walk(&format!("{at}[{index}]"), a, b))
            }
            (a, b) if a == b => None,
            (a, b) => Some(format!("{at} is {b}, not {a}")),
        }
    }
    walk("", wanted, found).map_or(Ok(()), Err)
}
