//! Tells a waiting person what happens and for how long already. Does IO (standard error).

use std::fmt::Display;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// A step that runs longer than this says again that it runs.
const REMINDER: Duration = Duration::from_secs(30);
/// A step that took less than this is not worth its seconds.
const INSTANT: Duration = Duration::from_millis(500);

/// A clock that all steps of one command share. Steps may run in several threads at once.
#[derive(Clone, Debug)]
pub struct Progress {
    started: Instant,
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress {
    /// A clock that starts now.
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }

    /// Seconds since the clock started.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Prints one line with the time since the clock started.
    pub fn say(&self, line: impl Display) {
        eprintln!("[{:>8}] {line}", seconds(self.elapsed()));
    }

    /// Does `work`, and says so when it begins, every half minute, and when it ends. An error names the step.
    ///
    /// # Errors
    /// What `work` returned.
    pub fn step<T>(&self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let began = Instant::now();
        self.say(format_args!("{name} …"));
        let result = std::thread::scope(|scope| {
            let (done, wait) = sync_channel::<()>(0);
            scope.spawn(move || {
                while wait.recv_timeout(REMINDER) == Err(RecvTimeoutError::Timeout) {
                    self.say(format_args!("{name} … still at it after {}", seconds(began.elapsed())));
                }
            });
            let result = work();
            drop(done);
            result
        });
        match result {
            Ok(value) => {
                if began.elapsed() >= INSTANT {
                    self.say(format_args!("{name}: done in {}", seconds(began.elapsed())));
                }
                Ok(value)
            }
            Err(error) => Err(error).with_context(|| format!("failed at: {name}")),
        }
    }
}

/// `4 min 20 s`, `12 s`, `0.8 s`.
pub fn seconds(time: Duration) -> String {
    match time.as_secs() {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        whole @ 10..60 => format!("{whole} s"),
        whole => format!("{} min {} s", whole / 60, whole % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_like_a_person_says_them() {
        assert_eq!(seconds(Duration::from_millis(840)), "0.8 s");
        assert_eq!(seconds(Duration::from_secs(42)), "42 s");
        assert_eq!(seconds(Duration::from_secs(260)), "4 min 20 s");
    }

    #[test]
    fn a_failed_step_is_named_in_the_error() {
        let error =
            Progress::new().step("weaving", || -> Result<()> { anyhow::bail!("no thread") }).unwrap_err();
        assert_eq!(format!("{error:#}"), "failed at: weaving: no thread");
    }
}
