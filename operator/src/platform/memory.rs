//! What this process itself made sure of: each platform's certificates and identity. Pure.
//!
//! Keys and identities are made once and cannot be derived again, so what somebody overwrites or deletes in the API
//! server could not be put back from there. The leader remembers what it wrote last, and that wins. After a restart the
//! stored objects are all there is, and what contradicts itself then is told and touched by nobody.

use super::secrets::Existing;
use crate::kafka::hub::Key;
use crate::kafka::identity::Identity;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is known about one platform with a Kafka of ours.
#[derive(Clone)]
pub struct Known {
    /// The data of its Secrets.
    pub secrets: Existing,
    /// Who its nodes are.
    pub identity: Identity,
    /// Whether its brokers refuse whoever has no right.
    pub closed: bool,
    /// The uids of its volume claims, by node.
    pub claims: BTreeMap<i32, String>,
}

/// The data of the one Secret of a platform with somebody else's Kafka: the devices' authority.
pub type Authority = BTreeMap<String, String>;

/// What is known about all platforms, with the uid of each: another one of the same name has nothing to do with it. It
/// holds private keys, so it is never printed.
pub struct Memory<T>(Mutex<HashMap<Key, (String, T)>>);

impl<T> Default for Memory<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Memory<T> {
    fn all(&self) -> MutexGuard<'_, HashMap<Key, (String, T)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known about this very platform.
    pub fn recall(&self, key: &Key, uid: &str) -> Option<T> {
        self.all().get(key).filter(|(known, _)| known == uid).map(|(_, known)| known.clone())
    }

    /// Remembers what was written, and forgets platforms that are not there any more.
    pub fn keep(&self, key: &Key, uid: &str, known: T, is_there: impl Fn(&Key) -> bool) {
        let mut all = self.all();
        all.retain(|other, _| is_there(other));
        all.insert(key.clone(), (uid.to_owned(), known));
    }

    /// Forgets what is gone.
    pub fn forget(&self, key: &Key) {
        self.all().remove(key);
    }
}

impl<T: Clone> fmt::Debug for Memory<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("platforms", &self.all().len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_platform_of_the_same_name_inherits_nothing_and_those_that_are_gone_are_forgotten() {
        let memory = Memory::<Authority>::default();
        let (plant, other) = (Key::new("iot", "plant"), Key::new("iot", "other"));
        memory.keep(&plant, "first", Authority::new(), |_| true);
        assert!(memory.recall(&plant, "first").is_some());
        assert!(memory.recall(&plant, "second").is_none());
        memory.keep(&other, "third", Authority::new(), |key| *key != plant);
        assert!(memory.recall(&plant, "first").is_none());
        memory.forget(&other);
        assert!(memory.recall(&other, "third").is_none());
    }
}
