//! What the platforms' controller says about failover, and which platforms it concerns anew. No IO.

use super::report::View;
use crate::frame::Cycle;
use crate::frame::backbone::address_pool;
use crate::kafka::bell::Bell;
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tidegate_crds::IoTPlatform;
use tidegate_crds::conditions::FAILOVER_LIMITED;
use tokio::sync::Notify;

/// Where failover and the rest of the operator meet.
#[derive(Default)]
pub struct Board {
    view: ArcSwap<View>,
    bell: Bell<IoTPlatform>,
    leads: AtomicBool,
    pub(super) changed: Notify,
}

impl Board {
    /// Says that this replica leads from now on.
    pub fn lead(&self) {
        self.leads.store(true, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// Whether this replica leads.
    pub fn leads(&self) -> bool {
        self.leads.load(Ordering::Relaxed)
    }

    /// Rings for platforms whose words about failover are not true any more.
    pub const fn bell(&self) -> &Bell<IoTPlatform> {
        &self.bell
    }

    /// What is known now.
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Puts up what is known now, and rings for these platforms if it is something else than before.
    pub fn show<'a>(&self, view: View, platforms: impl Iterator<Item = &'a (String, String)>) {
        if *self.view.load_full() == view {
            return;
        }
        self.view.store(Arc::new(view));
        for (namespace, name) in platforms {
            self.bell.ring(namespace, name);
        }
    }

    /// Writes a platform's condition and its nodes.
    pub fn say(&self, cycle: &mut Cycle<IoTPlatform>) {
        let (view, enabled) = (self.view(), cycle.subject.spec.failover.enabled);
        let pool = address_pool(&cycle.subject);
        let (state, reason, message) = view.condition(enabled, pool.as_deref());
        cycle.set(FAILOVER_LIMITED, state, reason, message);
        cycle.status.nodes = view.nodes(enabled);
    }
}

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Board").field("view", &self.view.load()).finish_non_exhaustive()
    }
}
