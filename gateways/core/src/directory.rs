//! The view of `tg-directory`: what the operator tells every gateway without a restart. No IO: the thread in
//! [`kafka`](crate::kafka) feeds it.

use crate::roster::{Records, Roster};
use crate::telemetry::KafkaMetrics;
use arc_swap::ArcSwap;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tidegate_contract::Routes;
use tidegate_contract::directory::{Key, TopicEntry};
use tokio::sync::watch;

/// The directory as this process knows it. Cheap to clone.
#[derive(Clone)]
pub struct Directory {
    inner: Arc<Inner>,
}

struct Inner {
    routes: ArcSwap<Routes>,
    roster: Roster,
    /// Counts versions of `routes`; 0 until the committed end was reached once.
    version: watch::Sender<u64>,
}

impl Directory {
    /// A directory that knows nothing yet.
    pub fn empty() -> Self {
        let (routes, roster) = (ArcSwap::default(), Roster::default());
        Self { inner: Arc::new(Inner { routes, roster, version: watch::Sender::new(0) }) }
    }

    /// A directory that is ready and never changes by itself: for tests.
    pub fn fixed(routes: Routes) -> Self {
        let directory = Self::empty();
        directory.publish(routes);
        directory
    }

    /// The routes as known now. Take them once per publish: they may differ the next time.
    pub fn routes(&self) -> Arc<Routes> {
        self.inner.routes.load_full()
    }

    /// Fleets and devices, and who of them is connected. It changes by itself, without [`Directory::changed`].
    pub fn roster(&self) -> &Roster {
        &self.inner.roster
    }

    /// Replaces the routes and tells everybody; the directory is ready from then on.
    pub fn publish(&self, routes: Routes) {
        self.inner.routes.store(Arc::new(routes));
        self.inner.version.send_modify(|version| *version += 1);
    }

    /// A signal that changes with the routes; its value counts versions, 0 before the directory is ready.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.inner.version.subscribe()
    }

    /// Whether the committed end seen at start was reached.
    pub fn is_ready(&self) -> bool {
        *self.inner.version.borrow() > 0
    }

    /// Returns when the directory is ready.
    pub async fn ready(&self) {
        // the sender lives in `self`, so this cannot fail
        let _ = self.changed().wait_for(|version| *version > 0).await;
    }
}

/// The directory's entries while they are read.
///
/// A topic's takes effect at the committed end, with what was written together with it. A fleet's or a device's
/// takes effect at once; only when everything is read from the beginning they wait for the end, so that nobody is
/// turned away whose record comes last.
#[derive(Debug)]
pub(crate) struct View {
    topics: BTreeMap<String, TopicEntry>,
    roster: Roster,
    /// Fleets and devices that are read from the beginning.
    fresh: Option<Records>,
    /// The last offset seen of each partition.
    seen: HashMap<i32, i64>,
    changed: bool,
}

impl View {
    /// A view that read nothing yet and keeps `roster`.
    pub(crate) fn new(roster: Roster) -> Self {
        let fresh = Some(Records::default());
        Self { topics: BTreeMap::new(), roster, fresh, seen: HashMap::new(), changed: false }
    }

    /// Takes a record; no value removes its entry.
    pub(crate) fn apply(
        &mut self,
        partition: i32,
        offset: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        metrics: &KafkaMetrics,
    ) {
        if self.seen.insert(partition, offset).is_some_and(|seen| offset <= seen) {
            tracing::warn!(partition, offset, "the directory begins again: its topic was made anew");
            self.topics.clear();
            self.fresh = Some(Records::default());
        }
        let Some(text) = key.and_then(|bytes| std::str::from_utf8(bytes).ok()) else {
            return metrics.directory_rejected("", &"the key is no text");
        };
        match Key::parse(text) {
            Some(Key::Topic(name)) => match read::<TopicEntry>(value) {
                Ok(None) => drop(self.topics.remove(&name)),
                Ok(Some(entry)) => drop(self.topics.insert(name, entry)),
                // what was known stays: better an old route than none
                Err(error) => metrics.directory_rejected(text, &error),
            },
            // of these nothing stays that cannot be read: better closed than open to whom it should not be
            Some(Key::Fleet(name)) => {
                let entry = read(value).unwrap_or_else(|error| {
                    metrics.directory_rejected(text, &error);
                    None
                });
                match &mut self.fresh {
                    Some(fresh) => _ = fresh.put_fleet(&name, entry.as_ref()),
                    None => self.roster.put_fleet(&name, entry.as_ref()),
                }
            }
            Some(Key::Device(principal)) => {
                let entry = read(value).unwrap_or_else(|error| {
                    metrics.directory_rejected(text, &error);
                    None
                });
                let readable = match &mut self.fresh {
                    Some(fresh) => fresh.put_device(&principal, entry.as_ref()),
                    None => self.roster.put_device(&principal, entry.as_ref()),
                };
                if !readable {
                    metrics.directory_rejected(text, &"the credential is none that this version knows");
                }
            }
            // the operator's own, or of a newer one
            Some(Key::Made(_) | Key::Owner) | None => return,
        }
        self.changed = true;
    }

    /// The committed end was reached. The routes, if anything changed since the last time, or `always`.
    pub(crate) fn settle(&mut self, always: bool) -> Option<Routes> {
        if let Some(records) = self.fresh.take() {
            self.roster.replace(records);
        }
        (std::mem::take(&mut self.changed) || always).then(|| Routes::new(self.topics.values()))
    }
}

/// Reads a value; nothing for a tombstone.
fn read<T: DeserializeOwned>(value: Option<&[u8]>) -> serde_json::Result<Option<T>> {
    value.map(serde_json::from_slice).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(name: &str) -> String {
        format!(
            r#"{{"name":"{name}","kafkaName":"{name}","filters":["{name}/#"],"partitions":3,"maxMessageBytes":1000}}"#
        )
    }

    fn names(view: &mut View) -> Vec<String> {
        view.settle(true).unwrap().all().map(|route| route.topic.clone()).collect()
    }

    #[test]
    fn the_newest_value_of_a_key_counts_and_a_tombstone_removes_it() {
        let metrics = KafkaMetrics::default();
        let mut view = View::new(Roster::default());
        view.apply(0, 0, Some(b"topic/a"), Some(value("a").as_bytes()), &metrics);
        view.apply(0, 1, Some(b"topic/b"), Some(value("b").as_bytes()), &metrics);
        assert_eq!(names(&mut view), ["a", "b"]);
        assert!(view.settle(false).is_none());
        view.apply(0, 5, Some(b"topic/a"), None, &metrics);
        assert!(view.settle(false).is_some());
        assert_eq!(names(&mut view), ["b"]);
    }

    #[test]
    fn what_cannot_be_read_is_passed_over_and_what_was_known_stays() {
        let metrics = KafkaMetrics::default();
        let mut view = View::new(Roster::default());
        view.apply(0, 0, Some(b"topic/a"), Some(value("a").as_bytes()), &metrics);
        view.apply(0, 1, Some(b"topic/a"), Some(b"{"), &metrics);
        view.apply(0, 2, Some(b"\xff"), Some(b"{}"), &metrics);
        view.apply(0, 3, None, None, &metrics);
        view.apply(0, 4, Some(b"later/kind"), Some(b"x"), &metrics);
        assert_eq!(names(&mut view), ["a"]);
    }

    #[test]
    fn a_directory_topic_made_anew_starts_an_empty_view() {
        let metrics = KafkaMetrics::default();
        let mut view = View::new(Roster::default());
        view.apply(0, 7, Some(b"topic/a"), Some(value("a").as_bytes()), &metrics);
        view.apply(0, 0, Some(b"topic/b"), Some(value("b").as_bytes()), &metrics);
        assert_eq!(names(&mut view), ["b"]);
    }

    const FLEET: &[u8] = br#"{"authentication":{"anonymous":"guest"}}"#;

    fn anonymous(roster: &Roster) -> Option<String> {
        roster.anonymous().map(|principal| principal.to_string())
    }

    #[test]
    fn fleets_count_from_the_committed_end_and_then_at_once() {
        let (metrics, roster) = (KafkaMetrics::default(), Roster::default());
        let mut view = View::new(roster.clone());
        view.apply(0, 0, Some(b"device/meters/1"), Some(b"{}"), &metrics);
        view.apply(0, 1, Some(b"fleet/meters"), Some(FLEET), &metrics);
        assert_eq!((roster.count(), anonymous(&roster)), ((0, 0), None));
        assert!(view.settle(false).is_some());
        assert_eq!(roster.count(), (1, 1));
        assert_eq!(anonymous(&roster).unwrap(), "meters/guest");
        view.apply(0, 2, Some(b"device/meters/1"), None, &metrics);
        assert_eq!(roster.count(), (1, 0));
        view.apply(0, 3, Some(b"fleet/meters"), None, &metrics);
        assert_eq!((roster.count(), anonymous(&roster)), ((0, 0), None));
    }

    #[test]
    fn of_fleets_and_devices_nothing_stays_that_cannot_be_read() {
        let (metrics, roster) = (KafkaMetrics::default(), Roster::default());
        let mut view = View::new(roster.clone());
        view.apply(0, 0, Some(b"fleet/meters"), Some(FLEET), &metrics);
        view.apply(0, 1, Some(b"device/meters/1"), Some(b"{}"), &metrics);
        assert!(view.settle(false).is_some());
        view.apply(0, 2, Some(b"device/meters/1"), Some(br#"{"disabled":"later"}"#), &metrics);
        assert_eq!(roster.count(), (1, 0));
        view.apply(0, 3, Some(b"fleet/meters"), Some(b"{"), &metrics);
        assert_eq!(roster.count(), (0, 0));
    }

    #[test]
    fn a_directory_topic_made_anew_turns_nobody_away_before_its_end_was_reached() {
        let (metrics, roster) = (KafkaMetrics::default(), Roster::default());
        let mut view = View::new(roster.clone());
        view.apply(0, 7, Some(b"fleet/meters"), Some(FLEET), &metrics);
        assert!(view.settle(false).is_some());
        view.apply(0, 0, Some(b"fleet/others"), Some(FLEET), &metrics);
        assert_eq!(anonymous(&roster).unwrap(), "meters/guest");
        assert!(view.settle(false).is_some());
        assert_eq!(anonymous(&roster).unwrap(), "others/guest");
    }

    /// `cargo test -p tidegate-core --release -- --ignored --nocapture memory_of`
    #[test]
    #[ignore = "a measurement: run it alone, in the release profile"]
    fn memory_of_100_000_devices_and_the_time_to_read_them() {
        fn resident() -> usize {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
        }
        let (metrics, roster) = (KafkaMetrics::default(), Roster::default());
        let mut view = View::new(roster.clone());
        let password = "0123456789abcdef0123456789abcdef";
        let credential =
            tidegate_contract::credential::Credential::new(password.as_bytes(), [7; 16]).unwrap();
        let device = format!(
            r#"{{"credential":"{credential}","source":"9f4e7f6c-0000-4000-8000-000000000000/123456"}}"#
        );
        let (before, begun) = (resident(), std::time::Instant::now());
        for fleet in 0..400 {
            let key = format!("fleet/fleet-{fleet}");
            let value =
                r#"{"authentication":{"password":true},"permissions":{"publish":["sites/+/{device}/#"]}}"#;
            view.apply(0, i64::from(fleet) * 251, Some(key.as_bytes()), Some(value.as_bytes()), &metrics);
            for number in 0..250 {
                let key = format!("device/fleet-{fleet}/meter-{number:06}");
                let offset = i64::from(fleet) * 251 + number + 1;
                view.apply(0, offset, Some(key.as_bytes()), Some(device.as_bytes()), &metrics);
            }
        }
        assert!(view.settle(true).is_some());
        let (took, bytes) = (begun.elapsed(), resident() - before);
        assert_eq!(roster.count(), (400, 100_000));
        println!(
            "{} bytes a device, {} ms for all, {} bytes of JSON each",
            bytes / 100_000,
            took.as_millis(),
            device.len()
        );
    }

    #[tokio::test]
    async fn ready_waits_for_the_first_routes() {
        let directory = Directory::empty();
        assert!(!directory.is_ready());
        let waiting = tokio::spawn({
            let directory = directory.clone();
            async move { directory.ready().await }
        });
        directory.publish(Routes::default());
        waiting.await.unwrap();
        assert!(directory.is_ready());
    }
}
