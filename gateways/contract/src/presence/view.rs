//! The claims of `tg-presence` as they are read.

use super::{Claim, Key, process};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// All claims that stand, as far as they were read. Keeps little of each: there may be hundreds of thousands.
#[derive(Debug, Default)]
pub struct View {
    partitions: BTreeMap<i32, Partition>,
    /// Each process's name is kept once.
    processes: HashSet<Arc<str>>,
}

#[derive(Debug, Default)]
struct Partition {
    claims: HashMap<Box<str>, Held>,
    seen: Option<i64>,
}

/// A claim that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The process that has the connection: see [`process`].
    pub process: Arc<str>,
    /// The claim's epoch.
    pub epoch: i64,
}

/// What a record was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// A claim that stands now.
    Claim(Held),
    /// The end of a claim.
    End,
    /// None that this version understands; it is passed over.
    Unreadable,
}

impl View {
    /// Whether a record of this offset was read before: then the topic was made anew, and what was known of the partition
    /// is to be cleared.
    pub fn begins_again(&self, partition: i32, offset: i64) -> bool {
        self.partitions.get(&partition).and_then(|known| known.seen).is_some_and(|seen| offset <= seen)
    }

    /// Forgets a partition.
    pub fn clear(&mut self, partition: i32) {
        self.partitions.remove(&partition);
    }

    /// Takes a record; no value is a tombstone.
    pub fn take(&mut self, partition: i32, offset: i64, key: &Key, value: Option<&[u8]>) -> Taken {
        let known = self.partitions.entry(partition).or_default();
        known.seen = Some(offset);
        let Some(value) = value else {
            known.claims.remove(key.as_str());
            return Taken::End;
        };
        let Ok(claim) = serde_json::from_slice::<Claim>(value) else { return Taken::Unreadable };
        let name = process(&claim.pod, &claim.incarnation);
        let process = self.processes.get(name.as_str()).cloned().unwrap_or_else(|| {
            let name: Arc<str> = name.into();
            self.processes.insert(Arc::clone(&name));
            name
        });
        // nobody's past is before the log's own; a later one would own names for ever
        let epoch = claim.epoch.map_or(offset, |epoch| epoch.min(offset));
        let held = Held { process, epoch };
        known.claims.insert(key.as_str().into(), held.clone());
        Taken::Claim(held)
    }

    /// A claim that stands.
    pub fn get(&self, partition: i32, key: &str) -> Option<&Held> {
        self.partitions.get(&partition)?.claims.get(key)
    }

    /// The claims of a partition.
    pub fn of(&self, partition: i32) -> impl Iterator<Item = (&str, &Held)> {
        let claims = self.partitions.get(&partition).into_iter().flat_map(|known| &known.claims);
        claims.map(|(key, held)| (&**key, held))
    }

    /// All claims.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Held)> {
        let claims = self.partitions.values().flat_map(|known| &known.claims);
        claims.map(|(key, held)| (&**key, held))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.partitions.values().map(|known| known.claims.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many claims each process has; those without any are forgotten.
    pub fn processes(&mut self) -> HashMap<Arc<str>, usize> {
        let mut counts = HashMap::new();
        for known in self.partitions.values() {
            for held in known.claims.values() {
                *counts.entry(Arc::clone(&held.process)).or_default() += 1;
            }
        }
        self.processes.retain(|process| counts.contains_key(process));
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(client: &str, connection: &str) -> Key {
        Key::parse(&format!("meters/7/{client}/{connection}")).unwrap()
    }

    fn claim(pod: &str, epoch: Option<i64>) -> Vec<u8> {
        let claim = Claim {
            pod: pod.to_owned(),
            incarnation: "1".to_owned(),
            protocol: "mqtt".to_owned(),
            since: 0,
            epoch,
        };
        serde_json::to_vec(&claim).unwrap()
    }

    #[test]
    fn a_claim_stands_until_its_own_tombstone_and_its_offset_is_its_epoch() {
        let mut view = View::default();
        let (first, second) = (key("c", "a-1"), key("c", "b-1"));
        view.take(0, 4, &first, Some(&claim("a", None)));
        let taken = view.take(0, 5, &second, Some(&claim("b", None)));
        assert_eq!(taken, Taken::Claim(Held { process: "b/1".into(), epoch: 5 }));
        assert_eq!(view.take(0, 6, &first, None), Taken::End);
        assert_eq!(view.get(0, second.as_str()).map(|held| held.epoch), Some(5));
        assert_eq!((view.len(), view.get(0, first.as_str())), (1, None));
        assert_eq!(view.processes(), [("b/1".into(), 1)].into());
    }

    #[test]
    fn a_claim_that_is_written_again_keeps_its_epoch_and_none_is_of_the_future() {
        let mut view = View::default();
        view.take(0, 9, &key("c", "a-1"), Some(&claim("a", Some(4))));
        view.take(0, 10, &key("d", "a-2"), Some(&claim("a", Some(i64::MAX))));
        assert_eq!(view.get(0, key("c", "a-1").as_str()).map(|held| held.epoch), Some(4));
        assert_eq!(view.get(0, key("d", "a-2").as_str()).map(|held| held.epoch), Some(10));
    }

    #[test]
    fn what_cannot_be_read_is_passed_over_and_a_topic_that_was_made_anew_is_noticed() {
        let mut view = View::default();
        assert_eq!(view.take(0, 7, &key("c", "a-1"), Some(b"{")), Taken::Unreadable);
        assert!(view.is_empty() && view.begins_again(0, 7) && view.begins_again(0, 0));
        assert!(!view.begins_again(0, 8) && !view.begins_again(1, 0));
        view.clear(0);
        assert!(!view.begins_again(0, 0));
    }
}
