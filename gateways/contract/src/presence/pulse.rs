//! Which processes live, from the heartbeats that are heard.

use super::{BEAT, DEAD, Heartbeat, process};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The most that passes between two heartbeats, whoever sent them: while Kafka or the listener itself is away nobody is
/// heard, and nobody dies of that.
const STEP: Duration = Duration::from_millis(1_500);

/// Which processes live. Its time passes only while heartbeats come.
#[derive(Debug, Default)]
pub struct Pulse {
    /// The time that passed.
    time: Duration,
    /// When the last heartbeat came.
    last: Option<Instant>,
    processes: HashMap<Arc<str>, Life>,
    /// The process in each pod.
    pods: HashMap<Box<str>, Arc<str>>,
}

#[derive(Debug)]
struct Life {
    /// When it was heard of last, by a heartbeat or by a claim that names it.
    heard: Duration,
    /// Whether a heartbeat came.
    beats: bool,
    /// Since when it is known to be over.
    ended: Option<Duration>,
}

impl Pulse {
    /// Takes a heartbeat, or its tombstone: the process ended in order.
    pub fn take(&mut self, pod: &str, value: Option<&[u8]>, now: Instant) {
        if let Some(last) = self.last {
            self.time += now.saturating_duration_since(last).min(STEP);
        }
        self.last = Some(now);
        let Some(value) = value else {
            if let Some(process) = self.pods.remove(pod) {
                self.end(&process);
            }
            return;
        };
        // of a newer version: whoever wrote it lives, but nobody can tell who
        let Ok(beat) = serde_json::from_slice::<Heartbeat>(value) else { return };
        let name: Arc<str> = process(pod, &beat.incarnation).into();
        self.processes.insert(Arc::clone(&name), Life { heard: self.time, beats: true, ended: None });
        if let Some(before) = self.pods.insert(pod.into(), Arc::clone(&name))
            && before != name
        {
            // a container was started again
            self.end(&before);
        }
    }

    fn end(&mut self, process: &str) {
        if let Some(life) = self.processes.get_mut(process) {
            life.ended = Some(self.time);
        }
    }

    /// A claim names a process. One that was never heard has the usual time to say something.
    pub fn mention(&mut self, process: &Arc<str>) {
        let heard = self.time;
        self.processes.entry(Arc::clone(process)).or_insert(Life { heard, beats: false, ended: None });
    }

    /// How long a process is dead, if it is. One that nobody mentioned is not.
    pub fn dead_for(&self, process: &str) -> Option<Duration> {
        self.processes.get(process)?.dead_for(self.time)
    }

    /// Whether a process is dead.
    pub fn is_dead(&self, process: &str) -> bool {
        self.dead_for(process).is_some()
    }

    /// How many processes live.
    pub fn living(&self) -> usize {
        self.processes.values().filter(|life| life.beats && life.dead_for(self.time).is_none()).count()
    }

    /// Whether nobody was heard for so long that nobody can be told dead from living.
    pub fn is_silent(&self, now: Instant) -> bool {
        self.last.is_none_or(|last| now.saturating_duration_since(last) >= DEAD)
    }

    /// Whether it was listened for long enough to know who is dead.
    pub fn is_settled(&self) -> bool {
        self.time >= DEAD + BEAT
    }

    /// Forgets dead processes but those that are `named` by claims.
    pub fn forget(&mut self, named: impl Fn(&str) -> bool) {
        let time = self.time;
        self.processes.retain(|process, life| life.dead_for(time).is_none() || named(process));
        let processes = &self.processes;
        self.pods.retain(|_, process| processes.contains_key(process));
    }
}

impl Life {
    fn dead_for(&self, time: Duration) -> Option<Duration> {
        let silent = || time.saturating_sub(self.heard).checked_sub(DEAD);
        self.ended.map(|ended| time.saturating_sub(ended)).or_else(silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Listening {
        pulse: Pulse,
        now: Instant,
    }

    impl Listening {
        fn new() -> Self {
            Self { pulse: Pulse::default(), now: Instant::now() }
        }

        fn beat(&mut self, pod: &str, incarnation: &str) {
            let value = format!(r#"{{"incarnation":"{incarnation}","gateway":"mqtt"}}"#);
            self.pulse.take(pod, Some(value.as_bytes()), self.now);
        }

        /// Seconds in which `pods` are heard.
        fn pass(&mut self, seconds: u32, pods: &[&str]) {
            for _ in 0..seconds {
                self.now += Duration::from_secs(1);
                for pod in pods {
                    self.beat(pod, "1");
                }
            }
        }
    }

    #[test]
    fn a_process_is_dead_five_seconds_after_its_last_heartbeat() {
        let mut here = Listening::new();
        here.beat("a", "1");
        here.beat("b", "1");
        here.pass(4, &["a"]);
        assert!(!here.pulse.is_dead("b/1") && here.pulse.living() == 2);
        here.pass(1, &["a"]);
        assert!(here.pulse.is_dead("b/1") && !here.pulse.is_dead("a/1"));
        assert_eq!((here.pulse.living(), here.pulse.dead_for("b/1")), (1, Some(Duration::ZERO)));
        here.beat("b", "1");
        assert!(!here.pulse.is_dead("b/1"), "it was only slow");
    }

    #[test]
    fn nobody_dies_while_nobody_is_heard() {
        let mut here = Listening::new();
        here.beat("a", "1");
        here.beat("b", "1");
        here.now += Duration::from_secs(600);
        assert!(here.pulse.is_silent(here.now));
        here.beat("a", "1");
        assert!(!here.pulse.is_silent(here.now) && !here.pulse.is_dead("b/1"));
        here.pass(3, &["a"]);
        assert!(!here.pulse.is_dead("b/1"));
        here.pass(2, &["a"]);
        assert!(here.pulse.is_dead("b/1"));
    }

    #[test]
    fn another_process_in_the_same_pod_and_an_orderly_end_are_known_at_once() {
        let mut here = Listening::new();
        here.beat("a", "1");
        here.beat("a", "2");
        assert!(here.pulse.is_dead("a/1") && !here.pulse.is_dead("a/2"));
        here.pulse.take("a", None, here.now);
        assert!(here.pulse.is_dead("a/2"));
    }

    #[test]
    fn one_that_only_claims_name_has_the_usual_time() {
        let mut here = Listening::new();
        let never: Arc<str> = "b/1".into();
        here.pass(10, &["a"]);
        assert!(here.pulse.is_settled());
        here.pulse.mention(&never);
        here.pass(4, &["a"]);
        here.pulse.mention(&never);
        assert!(!here.pulse.is_dead("b/1") && here.pulse.living() == 1);
        here.pass(1, &["a"]);
        assert!(here.pulse.is_dead("b/1"));
        here.pulse.forget(|process| process == "b/1");
        assert!(here.pulse.is_dead("b/1"), "claims name it");
        here.pulse.forget(|_| false);
        assert!(!here.pulse.is_dead("b/1") && !here.pulse.is_dead("a/1"));
        assert_eq!(here.pulse.processes.len(), 1);
    }
}
