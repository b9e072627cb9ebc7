//! A memory of fixed size: each key has one place by a hash that nobody outside can compute, and whoever comes later
//! takes the place. What is forgotten so costs a little work or gives a little grace, never more. No IO.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Values by key, at most one for each place.
pub(super) struct Table<V> {
    hasher: RandomState,
    places: Mutex<Box<[(u64, V)]>>,
}

impl<V: Clone + Default> Table<V> {
    /// A table with so many places.
    pub(super) fn new(places: usize) -> Self {
        let places = vec![(0, V::default()); places.max(1)].into_boxed_slice();
        Self { hasher: RandomState::new(), places: Mutex::new(places) }
    }

    /// The value of a key; the default where nothing is remembered. To ask takes nobody's place.
    pub(super) fn get(&self, key: impl Hash) -> V {
        let (tag, places) = (self.hasher.hash_one(key), self.lock());
        let found = places.get(place(tag, places.len())).filter(|(have, _)| *have == tag);
        found.map_or_else(V::default, |(_, value)| value.clone())
    }

    /// Changes the value of a key.
    pub(super) fn change(&self, key: impl Hash, change: impl FnOnce(&mut V)) {
        let (tag, mut places) = (self.hasher.hash_one(key), self.lock());
        let place = place(tag, places.len());
        let Some((have, value)) = places.get_mut(place) else { return };
        if *have != tag {
            (*have, *value) = (tag, V::default());
        }
        change(value);
    }

    fn lock(&self) -> MutexGuard<'_, Box<[(u64, V)]>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn place(tag: u64, places: usize) -> usize {
    // less than the number of places
    usize::try_from(tag % places as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_remembers_within_its_places_and_forgets_beyond() {
        let table = Table::<u32>::new(64);
        table.change("a", |value| *value = 7);
        for number in 0..10_000 {
            assert_eq!(table.get(number), 0);
        }
        assert_eq!((table.get("a"), table.get("b")), (7, 0));
        for number in 0..10_000 {
            table.change(number, |value| *value = 1);
        }
        assert_eq!(table.get("a"), 0);
        assert_eq!(table.lock().len(), 64);
    }
}
