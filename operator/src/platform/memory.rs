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

/// What is known about one platform.
#[derive(Clone)]
pub struct Known {
    /// The platform's uid: another one of the same name has nothing to do with it.
    pub uid: String,
    /// The data of its Secrets.
    pub secrets: Existing,
    /// Who its nodes are.
    pub identity: Identity,
    /// The uids of its volume claims, by node.
    pub claims: BTreeMap<i32, String>,
}

/// What is known about all platforms. It holds private keys, so it is never printed.
#[derive(Default)]
pub struct Memory(Mutex<HashMap<Key, Known>>);

impl Memory {
    fn all(&self) -> MutexGuard<'_, HashMap<Key, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known about this very platform.
    pub fn recall(&self, key: &Key, uid: &str) -> Option<Known> {
        self.all().get(key).filter(|known| known.uid == uid).cloned()
    }

    /// Remembers what was written, and forgets platforms that are not there any more.
    pub fn keep(&self, key: &Key, known: Known, is_there: impl Fn(&Key) -> bool) {
        let mut all = self.all();
        all.retain(|other, _| is_there(other));
        all.insert(key.clone(), known);
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("platforms", &self.all().len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::names::Names;

    fn known(uid: &str) -> Known {
        let identity =
            Identity::settle(&Names::new("iot", "plant"), 3, None, &BTreeMap::new(), None).unwrap();
        Known { uid: uid.to_owned(), secrets: Existing::new(), identity, claims: BTreeMap::new() }
    }

    #[test]
    fn another_platform_of_the_same_name_inherits_nothing_and_those_that_are_gone_are_forgotten() {
        let memory = Memory::default();
        let (plant, other) = (Key::new("iot", "plant"), Key::new("iot", "other"));
        memory.keep(&plant, known("first"), |_| true);
        assert!(memory.recall(&plant, "first").is_some());
        assert!(memory.recall(&plant, "second").is_none());
        memory.keep(&other, known("third"), |key| *key != plant);
        assert!(memory.recall(&plant, "first").is_none());
    }
}
