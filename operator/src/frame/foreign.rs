//! What others set in an object that the operator made, and the patch that takes it out. Pure.
//!
//! Server-side apply puts our own fields back and leaves everybody else's alone: a container, a volume or an address
//! range that somebody adds would stay. The API server notes in `metadata.managedFields` who set each field. What is in
//! an object's content (`spec`, `data`) and was set by another field manager only is foreign. What nobody set is a
//! default; what an admission webhook adds to our own request is noted under our name; both stay, so nobody is fought.

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation, RemoveOperation, ReplaceOperation};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::api::DynamicObject;
use serde_json::{Map, Value};
use tidegate_crds::labels;

/// Parts of every object that are others' business too: their labels and annotations, and what they observe.
const SHARED: [&str; 4] = ["apiVersion", "kind", "metadata", "status"];

/// Foreign fields that stay, by kind (any where empty) and path without keys of list items.
const KEPT: [(&str, &[&str]); 10] = [
    // `kubectl rollout restart` is how people restart pods.
    ("", &["spec", "template", "metadata", "annotations", "kubectl.kubernetes.io/restartedAt"]),
    // The old name of `serviceAccountName`, which the API server fills from it.
    ("", &["spec", "template", "spec", "serviceAccount"]),
    // What the cluster or its load balancer gives out. None can be taken back, and nothing else depends on it.
    ("Service", &["spec", "clusterIP"]),
    ("Service", &["spec", "clusterIPs"]),
    ("Service", &["spec", "ipFamilies"]),
    ("Service", &["spec", "ipFamilyPolicy"]),
    ("Service", &["spec", "healthCheckNodePort"]),
    ("Service", &["spec", "loadBalancerClass"]),
    ("Service", &["spec", "loadBalancerIP"]),
    ("Service", &["spec", "ports", "nodePort"]),
];

/// Kinds whose content others may add to: pull secrets and tokens on an account are an administrator's.
const OPEN: [&str; 1] = ["ServiceAccount"];

/// One step from an object into it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Key(String),
    /// The place in a list, and what people call the item.
    Item(usize, String),
}

/// The way to a field.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Path(Vec<Step>);

impl Path {
    fn to(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }

    fn pointer(&self) -> PointerBuf {
        PointerBuf::from_tokens(self.0.iter().map(|step| match step {
            Step::Key(key) => key.clone(),
            Step::Item(index, _) => index.to_string(),
        }))
    }

    fn keys(&self) -> Vec<&str> {
        let mut keys = Vec::with_capacity(self.0.len());
        for step in &self.0 {
            if let Step::Key(key) = step {
                keys.push(key.as_str());
            }
        }
        keys
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            match step {
                Step::Item(_, name) => write!(f, "[{name}]")?,
                Step::Key(key) if key.contains(['.', '/']) => write!(f, "[{key}]")?,
                Step::Key(key) if index > 0 => write!(f, ".{key}")?,
                Step::Key(key) => write!(f, "{key}")?,
            }
        }
        Ok(())
    }
}

/// What shall go, and the patch that removes it from exactly the version that was looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct Removal {
    /// The fields, as people write them.
    pub fields: Vec<String>,
    /// The patch.
    pub patch: Patch,
}

/// What others set in `object`, which was just applied; nothing where all of it is ours.
pub fn removal(object: &DynamicObject) -> Option<Removal> {
    let kind = object.types.as_ref()?.kind.as_str();
    if OPEN.contains(&kind) {
        return None;
    }
    let entries = object.metadata.managed_fields.as_deref()?;
    let is_ours = |entry: &&ManagedFieldsEntry| {
        entry
            .manager
            .as_deref()
            .is_some_and(|name| [labels::MANAGER, labels::FAILOVER_MANAGER].contains(&name))
    };
    let (mut ours, mut theirs) = (Map::new(), Map::new());
    entries.iter().filter(is_ours).for_each(|entry| unite(&mut ours, entry));
    // `/scale` and `/status` write what belongs there, and apply puts replicas back.
    let others = entries.iter().filter(|entry| !is_ours(entry) && entry.subresource.is_none());
    others.for_each(|entry| unite(&mut theirs, entry));
    theirs.retain(|element, _| element.strip_prefix("f:").is_some_and(|name| !SHARED.contains(&name)));

    let live = Value::Object(object.data.as_object()?.clone());
    let mut found = Vec::new();
    walk(kind, &ours, &theirs, &live, &Path::default(), &mut found);
    if found.is_empty() {
        return None;
    }
    // From the end, so that no removal moves what a later one names.
    found.sort_unstable_by(|a, b| b.cmp(a));
    let fields = found.iter().rev().map(ToString::to_string).collect();
    let version = ReplaceOperation {
        path: PointerBuf::from_tokens(["metadata", "resourceVersion"]),
        value: object.metadata.resource_version.clone()?.into(),
    };
    let remove = |path: &Path| PatchOperation::Remove(RemoveOperation { path: path.pointer() });
    let operations = std::iter::once(PatchOperation::Replace(version)).chain(found.iter().map(remove));
    Some(Removal { fields, patch: Patch(operations.collect()) })
}

/// The patch that makes the content of `live` what is wanted and nothing else, but for what is kept.
pub fn reset(live: &DynamicObject, wanted: &DynamicObject) -> Option<Patch> {
    let kind = live.types.as_ref()?.kind.as_str();
    let mut operations = vec![PatchOperation::Replace(ReplaceOperation {
        path: PointerBuf::from_tokens(["metadata", "resourceVersion"]),
        value: live.metadata.resource_version.clone()?.into(),
    })];
    let mut content = wanted.data.clone();
    for (_, path) in KEPT.iter().filter(|(of, _)| of.is_empty() || *of == kind) {
        carry(&live.data, &mut content, path);
    }
    for (key, value) in content.as_object()? {
        // Adds or replaces.
        let path = PointerBuf::from_tokens([key]);
        operations.push(PatchOperation::Add(AddOperation { path, value: value.clone() }));
    }
    Some(Patch(operations))
}

/// Takes a kept field over.
fn carry(from: &Value, to: &mut Value, path: &[&str]) {
    let Some(value) = path.iter().try_fold(from, |at, key| at.get(key)) else { return };
    let Some((last, parents)) = path.split_last() else { return };
    let mut at = to;
    for key in parents {
        let Some(map) = at.as_object_mut() else { return };
        at = map.entry(*key).or_insert_with(|| Map::new().into());
    }
    if let Some(map) = at.as_object_mut() {
        map.entry(*last).or_insert_with(|| value.clone());
    }
}

/// Adds an entry's set of fields.
fn unite(all: &mut Map<String, Value>, entry: &ManagedFieldsEntry) {
    if let Some(Value::Object(fields)) = entry.fields_v1.as_ref().map(|fields| &fields.0) {
        merge(all, fields);
    }
}

fn merge(all: &mut Map<String, Value>, more: &Map<String, Value>) {
    for (element, inner) in more {
        let there = all.entry(element.clone()).or_insert_with(|| Map::new().into());
        if let (Value::Object(there), Value::Object(inner)) = (there, inner) {
            merge(there, inner);
        }
    }
}

fn walk(
    kind: &str,
    ours: &Map<String, Value>,
    theirs: &Map<String, Value>,
    live: &Value,
    at: &Path,
    found: &mut Vec<Path>,
) {
    let none = Map::new();
    for (element, inner) in theirs {
        let Some((step, child)) = find(live, element) else { continue };
        let (path, inner) = (at.to(step), inner.as_object().unwrap_or(&none));
        match (ours.get(element), kept(kind, &path)) {
            (_, Kept::Whole) => {}
            (Some(own), _) => walk(kind, own.as_object().unwrap_or(&none), inner, child, &path, found),
            (None, Kept::Inside) if matches!(path.0.last(), Some(Step::Key(_))) => {
                walk(kind, &none, inner, child, &path, found);
            }
            (None, _) => found.push(path),
        }
    }
}

enum Kept {
    Whole,
    Inside,
    No,
}

fn kept(kind: &str, path: &Path) -> Kept {
    let keys = path.keys();
    let of_kind = KEPT.iter().filter(|(of, _)| of.is_empty() || *of == kind).map(|(_, path)| *path);
    of_kind.fold(Kept::No, |found, path| match found {
        Kept::Whole => Kept::Whole,
        _ if keys == path => Kept::Whole,
        _ if path.starts_with(&keys) => Kept::Inside,
        other => other,
    })
}

/// The value that one element of a field set names: `f:<field>`, `k:{<keys of a list item>}`, `v:<item>`.
fn find<'a>(live: &'a Value, element: &str) -> Option<(Step, &'a Value)> {
    let (how, text) = element.split_once(':')?;
    if how == "f" {
        return Some((Step::Key(text.to_owned()), live.get(text)?));
    }
    let wanted: Value = serde_json::from_str(text).ok()?;
    let is = |item: &Value| match (how, &wanted) {
        ("k", Value::Object(keys)) => keys.iter().all(|(key, value)| item.get(key) == Some(value)),
        ("v", wanted) => item == wanted,
        _ => false,
    };
    let (index, item) = live.as_array()?.iter().enumerate().find(|(_, item)| is(item))?;
    let name = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let name = match &wanted {
        Value::Object(keys) => keys.values().map(name).collect::<Vec<_>>().join(" "),
        other => name(other),
    };
    Some((Step::Item(index, name), item))
}

#[cfg(test)]
#[path = "foreign_tests.rs"]
mod tests;
