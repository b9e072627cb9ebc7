//! The view of `tg-directory`: what the operator tells every gateway without a restart. No IO: the thread in
//! [`kafka`](crate::kafka) feeds it.

use crate::telemetry::KafkaMetrics;
use arc_swap::ArcSwap;
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
    /// Counts versions of `routes`; 0 until the committed end was reached once.
    version: watch::Sender<u64>,
}

impl Directory {
    /// A directory that knows nothing yet.
    pub fn empty() -> Self {
        Self { inner: Arc::new(Inner { routes: ArcSwap::default(), version: watch::Sender::new(0) }) }
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
#[derive(Debug, Default)]
pub(crate) struct View {
    topics: BTreeMap<String, TopicEntry>,
    /// The last offset seen of each partition.
    seen: HashMap<i32, i64>,
    changed: bool,
}

impl View {
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
        }
        let Some(text) = key.and_then(|bytes| std::str::from_utf8(bytes).ok()) else {
            return metrics.directory_rejected("", &"the key is no text");
        };
        // another kind: of a newer operator
        let Some(Key::Topic(name)) = Key::parse(text) else { return };
        self.changed = true;
        match value.map(serde_json::from_slice::<TopicEntry>) {
            None => drop(self.topics.remove(&name)),
            Some(Ok(entry)) => drop(self.topics.insert(name, entry)),
            // what was known stays: better an old route than none
            Some(Err(error)) => metrics.directory_rejected(text, &error),
        }
    }

    /// The routes, if they changed since they were last asked for, or `always`.
    pub(crate) fn routes(&mut self, always: bool) -> Option<Routes> {
        (std::mem::take(&mut self.changed) || always).then(|| Routes::new(self.topics.values()))
    }
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
        view.routes(true).unwrap().all().map(|route| route.topic.clone()).collect()
    }

    #[test]
    fn the_newest_value_of_a_key_counts_and_a_tombstone_removes_it() {
        let metrics = KafkaMetrics::default();
        let mut view = View::default();
        view.apply(0, 0, Some(b"topic/a"), Some(value("a").as_bytes()), &metrics);
        view.apply(0, 1, Some(b"topic/b"), Some(value("b").as_bytes()), &metrics);
        assert_eq!(names(&mut view), ["a", "b"]);
        assert!(view.routes(false).is_none());
        view.apply(0, 5, Some(b"topic/a"), None, &metrics);
        assert!(view.routes(false).is_some());
        assert_eq!(names(&mut view), ["b"]);
    }

    #[test]
    fn what_cannot_be_read_is_passed_over_and_what_was_known_stays() {
        let metrics = KafkaMetrics::default();
        let mut view = View::default();
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
        let mut view = View::default();
        view.apply(0, 7, Some(b"topic/a"), Some(value("a").as_bytes()), &metrics);
        view.apply(0, 0, Some(b"topic/b"), Some(value("b").as_bytes()), &metrics);
        assert_eq!(names(&mut view), ["b"]);
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
