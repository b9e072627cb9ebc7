//! The subscriptions of one client, and what they make of a record.

use super::types::Inbound;
use crate::codec::{Qos, RetainHandling};
use std::collections::HashMap;
use tidegate_contract::{Filter, FilterTree};

/// The options of a subscription (MQTT 5 §3.8.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Options {
    /// What was granted: 0 or 1.
    pub(super) qos: Qos,
    pub(super) no_local: bool,
    pub(super) retain_as_published: bool,
    pub(super) retain_handling: RetainHandling,
    pub(super) identifier: Option<u32>,
}

impl Options {
    /// Whether the subscription is answered with what is retained.
    pub(super) fn wants_retained(&self, is_new: bool) -> bool {
        match self.retain_handling {
            RetainHandling::Always => true,
            RetainHandling::IfNew => is_new,
            RetainHandling::Never => false,
        }
    }
}

/// How a record goes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dispatch {
    /// The highest QoS of the subscriptions that match (MQTT-3.3.5-1), but no higher than the writer's
    /// (MQTT-3.8.4-8).
    pub(super) qos: Qos,
    pub(super) retain: bool,
    /// The identifiers of all subscriptions that match (MQTT-3.3.4-4).
    pub(super) identifiers: Vec<u32>,
}

/// All subscriptions.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    options: HashMap<Filter, Options>,
    tree: FilterTree<Filter>,
}

impl Subscriptions {
    pub(super) fn get(&self, filter: &Filter) -> Option<&Options> {
        self.options.get(filter)
    }

    pub(super) fn len(&self) -> usize {
        self.options.len()
    }

    /// Adds a subscription, or replaces the one with the same filter (MQTT-3.8.4-3).
    pub(super) fn insert(&mut self, filter: &Filter, options: Options) {
        if self.options.insert(filter.clone(), options).is_none() {
            self.tree.insert(filter, filter.clone());
        }
    }

    /// Removes a subscription. Answers whether there was one.
    pub(super) fn remove(&mut self, filter: &Filter) -> bool {
        let existed = self.options.remove(filter).is_some();
        if existed {
            self.tree.remove(filter, |_| true);
        }
        existed
    }

    /// How a record goes out: once, however many subscriptions match; nothing if none does. `own` says whether
    /// this very client wrote it (MQTT-3.8.3-3).
    pub(super) fn dispatch(&self, record: &Inbound<'_>, own: bool) -> Option<Dispatch> {
        let mut found: Option<Dispatch> = None;
        self.tree.matches(record.address, |filter| {
            let Some(options) = self.options.get(filter) else { return };
            if own && options.no_local {
                return;
            }
            let retain = record.retained || (options.retain_as_published && record.retain);
            let dispatch =
                found.get_or_insert(Dispatch { qos: options.qos, retain, identifiers: Vec::new() });
            dispatch.qos = dispatch.qos.max(options.qos);
            dispatch.retain |= retain;
            dispatch.identifiers.extend(options.identifier);
        });
        if let Some(dispatch) = &mut found {
            dispatch.qos = dispatch.qos.min(record.qos);
        }
        found
    }
}
