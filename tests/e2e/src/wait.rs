//! Waiting on conditions, with a bound and a word on what was seen last.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// How long a look at the cluster waits before the next one.
const PAUSE: Duration = Duration::from_millis(100);

/// Asks `look` until it returns something, at most for `limit`. `look` returns `Err` with what it saw instead.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(seen) if started.elapsed() > limit => {
                bail!("waited {:.0} s for {what}; last seen: {seen:#}", limit.as_secs_f64())
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_last_is_told() {
        let error = until::<()>("the moon", Duration::ZERO, || bail!("clouds")).unwrap_err();
        assert_eq!(error.to_string(), "waited 0 s for the moon; last seen: clouds");
    }
}
