//! The view of `tg-directory`: what the operator tells every gateway without a restart. IO: a Kafka consumer on
//! a thread of its own.

use arc_swap::ArcSwap;
use std::sync::Arc;
use tidegate_contract::Routes;
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
