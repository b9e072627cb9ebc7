//! When to come back to an object. Pure but for the dice.

use rand::Rng as _;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The first wait after a failure.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait after a failure.
const LONGEST: Duration = Duration::from_mins(5);

/// How often each object has failed, or was found as it was, in a row.
#[derive(Debug)]
pub struct Backoff<K>(Mutex<HashMap<K, u32>>);

impl<K> Default for Backoff<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Backoff<K> {
    /// Notes one more failure of an object and says how long to wait: 1 s, doubled each time up to 5 min, with jitter.
    pub fn failed(&self, key: K) -> Duration {
        self.again(key, FIRST)
    }

    /// Notes once more that there is a reason to come back, and says when: after `first`, doubled each time up to 5 min,
    /// with jitter.
    pub fn again(&self, key: K, first: Duration) -> Duration {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let times = all.entry(key).or_default();
        let wait = first.saturating_mul(1 << (*times).min(16)).min(LONGEST);
        *times = times.saturating_add(1);
        jitter(wait)
    }

    /// Forgets an object's failures.
    pub fn reset(&self, key: &K) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

/// Up to a fifth more or less, so that objects do not come back in step.
pub fn jitter(wait: Duration) -> Duration {
    wait.mul_f64(rand::rng().random_range(0.8..1.2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(wait: Duration, seconds: u64) -> bool {
        let goal = Duration::from_secs(seconds);
        wait >= goal.mul_f64(0.8) && wait <= goal.mul_f64(1.2)
    }

    #[test]
    fn waits_double_from_a_second_to_five_minutes_for_each_object_alone() {
        let backoff = Backoff::default();
        for seconds in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            let wait = backoff.failed("a");
            assert!(about(wait, seconds), "{wait:?} is not about {seconds} s");
        }
        assert!(about(backoff.failed("b"), 1));
        backoff.reset(&"a");
        assert!(about(backoff.failed("a"), 1));
    }
}
