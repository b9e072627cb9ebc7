//! What each child was when it was last applied. Pure.
//!
//! A pass applies all children, and most passes change none. An object that still has the `resourceVersion` it had
//! after we applied the very same intent is, field by field, what we left; applying it again would change nothing and
//! cost the API server a merge. This remembers two numbers per object and no content, so nothing is taken from a stale
//! copy: the object itself is read in each pass.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::DynamicObject;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Beyond this everything is forgotten: objects that are gone leave their entry behind.
const ENTRIES: usize = 50_000;

/// An intent in few bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intent(u64);

impl Intent {
    /// Of what is about to be applied.
    pub fn of(object: &DynamicObject) -> Self {
        let mut hasher = DefaultHasher::new();
        // Maps are sorted, so equal objects have equal texts.
        serde_json::to_vec(object).unwrap_or_default().hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// What was applied last, by the objects' uids.
#[derive(Debug, Default)]
pub struct LastApplied(Mutex<HashMap<String, (String, Intent)>>);

impl LastApplied {
    fn all(&self) -> MutexGuard<'_, HashMap<String, (String, Intent)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this very object was left so by this very intent.
    pub fn holds(&self, there: &ObjectMeta, intent: Intent) -> bool {
        let Some((uid, version)) = there.uid.as_ref().zip(there.resource_version.as_ref()) else {
            return false;
        };
        self.all().get(uid).is_some_and(|last| last.0 == *version && last.1 == intent)
    }

    /// Notes what an intent made of an object.
    pub fn note(&self, object: &ObjectMeta, intent: Intent) {
        let Some((uid, version)) = object.uid.clone().zip(object.resource_version.clone()) else { return };
        let mut all = self.all();
        if all.len() >= ENTRIES {
            all.clear();
        }
        all.insert(uid, (version, intent));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn meta(uid: &str, version: &str) -> ObjectMeta {
        ObjectMeta {
            uid: Some(uid.to_owned()),
            resource_version: Some(version.to_owned()),
            ..ObjectMeta::default()
        }
    }

    fn intent(port: i32) -> Intent {
        let object = json!({"metadata": {"name": "a"}, "spec": {"port": port}});
        Intent::of(&serde_json::from_value(object).unwrap())
    }

    #[test]
    fn an_object_is_as_it_was_left_only_with_the_same_version_uid_and_intent() {
        let last = LastApplied::default();
        assert!(!last.holds(&meta("a", "1"), intent(1)));
        last.note(&meta("a", "1"), intent(1));
        assert!(last.holds(&meta("a", "1"), intent(1)));
        assert!(!last.holds(&meta("a", "2"), intent(1)), "somebody changed it");
        assert!(!last.holds(&meta("b", "1"), intent(1)), "it was made anew");
        assert!(!last.holds(&meta("a", "1"), intent(2)), "something else is wanted");
        assert!(!last.holds(&ObjectMeta::default(), intent(1)));
    }
}
