//! Objects of our kinds that do not fit the types of this version: where exactly, and what to do. [`read`] is IO, the
//! rest is pure.

use super::context::Context;
use super::failure::{Class, ReadError, StepError};
use k8s_openapi::NamespaceResourceScope;
use kube::api::{ApiResource, DynamicObject};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use std::fmt;
use tidegate_crds::conditions::{ACCEPTED, READY, RESOLVED_REFS, STALLED};
use tidegate_crds::{State, reasons};

/// What such an object is told, each with the reason [`reasons::MALFORMED`].
pub const SAYS: [(&str, State); 3] =
    [(ACCEPTED, State::False), (READY, State::False), (STALLED, State::True)];

/// A stored object that was written by an older or newer version, or past the schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    kind: String,
    namespace: String,
    name: String,
    path: String,
    error: String,
}

impl Malformed {
    /// The object of this kind and name; `error` is all that is known about it.
    pub fn new<K: Resource<DynamicType = ()>>(namespace: &str, name: &str, error: &str) -> Self {
        Self {
            kind: K::kind(&()).into_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            path: String::new(),
            error: error.to_owned(),
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, namespace, name, path, error } = self;
        write!(f, "{kind} {name} does not fit this version of Tidegate")?;
        if !path.is_empty() {
            write!(f, " at {path}")?;
        }
        write!(
            f,
            ": {error}; look at that field with `kubectl get {} {name} -n {namespace} -o yaml` and correct it; if the CRDs are of another version than the operator, update them with `kubectl apply -k manifests/base`",
            kind.to_lowercase()
        )
    }
}

impl std::error::Error for Malformed {}

/// For those that refer to it.
impl StepError for Malformed {
    fn reason(&self) -> &'static str {
        reasons::MALFORMED
    }

    fn class(&self) -> Class {
        Class::Blocked
    }

    fn condition(&self) -> Option<&'static str> {
        Some(RESOLVED_REFS)
    }
}

/// The object as our type, or which field does not fit.
pub fn fit<K>(raw: &DynamicObject) -> Result<K, Malformed>
where
    K: Resource<DynamicType = ()> + DeserializeOwned,
{
    let fitted = match serde_json::to_value(raw) {
        Ok(value) => serde_path_to_error::deserialize(value)
            .map_err(|error| (error.path().to_string(), error.inner().to_string())),
        Err(error) => Err((String::new(), error.to_string())),
    };
    fitted.map_err(|(path, error)| Malformed {
        // The object itself has no path.
        path: if path == "." { String::new() } else { path },
        ..Malformed::new::<K>(&raw.namespace().unwrap_or_default(), &raw.name_any(), &error)
    })
}

/// Reads an object of ours that somebody refers to; nothing where there is none.
pub async fn read<K>(
    context: &Context,
    namespace: &str,
    name: &str,
) -> Result<Option<Result<K, Malformed>>, ReadError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned,
{
    let resource = ApiResource::erase::<K>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), namespace, &resource);
    let found = api.get_opt(name).await;
    let found =
        found.map_err(|source| ReadError { what: format!("{} {namespace}/{name}", K::kind(&())), source })?;
    Ok(found.map(|raw| fit(&raw)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tidegate_crds::IoTPlatform;

    #[test]
    fn the_field_the_object_and_the_two_ways_out_are_named() {
        let raw = json!({
            "apiVersion": "tidegate.io/v1alpha1", "kind": "IoTPlatform",
            "metadata": {"name": "plant", "namespace": "iot"}, "spec": {"kafka": {"managed": {"brokers": "three"}}},
        });
        let raw: DynamicObject = serde_json::from_value(raw).unwrap();
        let said = fit::<IoTPlatform>(&raw).unwrap_err().to_string();
        for part in [
            "IoTPlatform plant does not fit this version of Tidegate at spec.kafka.managed.brokers: ",
            "kubectl get iotplatform plant -n iot -o yaml",
            "kubectl apply -k manifests/base",
        ] {
            assert!(said.contains(part), "{said}");
        }
    }
}
