//! The metrics of MQTT. Every label's values are a small closed set. No IO.

use crate::codec::Version;
use crate::session::{Close, Counts};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VersionLabel {
    version: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QosLabel {
    qos: &'static str,
}

/// All metrics of this crate. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    open: Gauge,
    connected: Family<VersionLabel, Counter>,
    refused_connections: Family<ReasonLabel, Counter>,
    closed: Family<ReasonLabel, Counter>,
    received: Family<QosLabel, Counter>,
    acknowledged: Counter,
    refused: Family<ReasonLabel, Counter>,
    delivered: Family<QosLabel, Counter>,
    undelivered: Family<ReasonLabel, Counter>,
    gaps: Counter,
    wills: Family<ReasonLabel, Counter>,
}

impl Metrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            open: Gauge::default(),
            connected: Family::default(),
            refused_connections: Family::default(),
            closed: Family::default(),
            received: Family::default(),
            acknowledged: Counter::default(),
            refused: Family::default(),
            delivered: Family::default(),
            undelivered: Family::default(),
            gaps: Counter::default(),
            wills: Family::default(),
        };
        let registry = registry.sub_registry_with_prefix("mqtt");
        registry.register("connections", "Open connections", metrics.open.clone());
        registry.register("connects", "Clients that were admitted", metrics.connected.clone());
        let help = "Connections refused before MQTT was spoken";
        registry.register("connections_refused", help, metrics.refused_connections.clone());
        registry.register("connections_closed", "Connections that ended, by why", metrics.closed.clone());
        registry.register("publishes_received", "PUBLISH packets taken", metrics.received.clone());
        let help = "QoS 1 publishes acknowledged, each after Kafka held it";
        registry.register("publishes_acknowledged", help, metrics.acknowledged.clone());
        registry.register("publishes_refused", "Publishes refused for good", metrics.refused.clone());
        registry.register("deliveries", "PUBLISH packets sent to subscribers", metrics.delivered.clone());
        let help = "Records that a subscriber was not given, by why";
        registry.register("deliveries_dropped", help, metrics.undelivered.clone());
        let help = "Times that records left Kafka's retention before a subscriber read them";
        registry.register("subscription_gaps", help, metrics.gaps.clone());
        registry.register("wills", "Wills published, by what became of them", metrics.wills.clone());
        metrics
    }

    pub(super) fn opened(&self) {
        self.open.inc();
    }

    pub(super) fn admitted(&self, version: Version) {
        self.connected.get_or_create(&VersionLabel { version: version.name() }).inc();
    }

    pub(super) fn turned_down(&self, reason: &'static str) {
        self.refused_connections.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub(super) fn closed(&self, close: Close) {
        self.open.dec();
        self.closed.get_or_create(&ReasonLabel { reason: close.reason() }).inc();
    }

    pub(super) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub(super) fn dropped(&self, reason: &'static str) {
        self.undelivered.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub(super) fn gap(&self) {
        self.gaps.inc();
    }

    pub(super) fn will(&self, reason: &'static str) {
        self.wills.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Adds what a session counted.
    pub(super) fn add(&self, counts: &Counts) {
        let both =
            [("0", counts.received[0], counts.delivered[0]), ("1", counts.received[1], counts.delivered[1])];
        for (qos, received, delivered) in both {
            if received > 0 {
                self.received.get_or_create(&QosLabel { qos }).inc_by(received);
            }
            if delivered > 0 {
                self.delivered.get_or_create(&QosLabel { qos }).inc_by(delivered);
            }
        }
        self.acknowledged.inc_by(counts.acknowledged);
        for (reason, count) in [("Expired", counts.expired), ("PacketTooLarge", counts.too_large)] {
            if count > 0 {
                self.undelivered.get_or_create(&ReasonLabel { reason }).inc_by(count);
            }
        }
    }
}
