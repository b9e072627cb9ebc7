//! How often a status is written, for kinds whose status may change at any time. Pure: the caller brings the clock.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a change that is still being carried out is kept back: what follows within this time is written at once.
const GATHER: Duration = Duration::from_secs(1);

/// When each object's status may be written.
pub struct Pace<K> {
    /// The shortest time between two writes.
    rest: Duration,
    objects: Mutex<HashMap<K, Times>>,
}

#[derive(Clone, Copy, Default)]
struct Times {
    written: Option<Instant>,
    /// Since when there is something to say.
    news: Option<Instant>,
}

impl<K: Eq + Hash + Clone> Pace<K> {
    /// At most one write in `rest`; zero: every write at once.
    pub fn new(rest: Duration) -> Self {
        Self { rest, objects: Mutex::default() }
    }

    /// Whether something new may be written now, else how long to wait. `settled`: nothing more follows by itself.
    pub fn ask(&self, key: &K, now: Instant, settled: bool) -> Result<(), Duration> {
        if self.rest.is_zero() {
            return Ok(());
        }
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let times = objects.entry(key.clone()).or_default();
        let news = *times.news.get_or_insert(now);
        let gathered = if settled { now } else { news + GATHER };
        let rested = times.written.map_or(now, |written| written + self.rest);
        let wait = rested.max(gathered).saturating_duration_since(now);
        if !wait.is_zero() {
            return Err(wait);
        }
        *times = Times { written: Some(now), news: None };
        Ok(())
    }

    /// There is nothing to say any more.
    pub fn quiet(&self, key: &K) {
        if let Some(times) = self.objects.lock().unwrap_or_else(PoisonError::into_inner).get_mut(key) {
            times.news = None;
        }
    }

    /// The object is gone.
    pub fn forget(&self, key: &K) {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_settled_is_written_at_once_and_then_at_most_once_in_a_while() {
        let (pace, start) = (Pace::new(5 * SECOND), Instant::now());
        assert_eq!(pace.ask(&"a", start, true), Ok(()));
        assert_eq!(pace.ask(&"a", start + 2 * SECOND, true), Err(3 * SECOND));
        assert_eq!(pace.ask(&"b", start + 2 * SECOND, true), Ok(()), "another object");
        assert_eq!(pace.ask(&"a", start + 5 * SECOND, true), Ok(()));
        pace.forget(&"a");
        assert_eq!(pace.ask(&"a", start + 6 * SECOND, true), Ok(()), "it was made anew");
    }

    #[test]
    fn what_is_on_its_way_waits_for_its_end_but_not_long() {
        let (pace, start) = (Pace::new(5 * SECOND), Instant::now());
        assert_eq!(pace.ask(&"a", start, false), Err(SECOND));
        assert_eq!(pace.ask(&"a", start + SECOND / 2, true), Ok(()), "its end");
        assert_eq!(pace.ask(&"a", start + 7 * SECOND, false), Err(SECOND));
        pace.quiet(&"a");
        assert_eq!(pace.ask(&"a", start + 9 * SECOND, false), Err(SECOND), "other news");
        assert_eq!(pace.ask(&"a", start + 10 * SECOND, false), Ok(()));
    }

    #[test]
    fn without_a_rest_nothing_waits() {
        let pace = Pace::new(Duration::ZERO);
        assert_eq!(pace.ask(&"a", Instant::now(), false), Ok(()));
        assert_eq!(pace.ask(&"a", Instant::now(), false), Ok(()));
    }
}
