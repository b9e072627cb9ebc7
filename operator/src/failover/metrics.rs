//! What failover counts. Pure.

use super::health::{Outcome, Round};
use super::model::State;
use super::report::View;
use crate::frame::metrics::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByState {
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByOutcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByKind {
    kind: &'static str,
}

/// What failover counts.
#[derive(Debug, Default)]
pub struct FailoverMetrics {
    nodes: Family<ByState, Gauge>,
    probes: Family<ByOutcome, Counter>,
    actions: Family<ByKind, Counter>,
    failures: Family<ByKind, Counter>,
    brake: Gauge,
    rounds: Counter,
    discarded: Counter,
}

impl FailoverMetrics {
    /// Adds them to the operator's metrics.
    pub fn register(metrics: &Metrics) -> Self {
        let own = Self::default();
        metrics.register(|registry| {
            registry.register("failover_nodes", "Nodes, by what they are taken for", own.nodes.clone());
            registry.register("failover_probes", "Probes, by outcome", own.probes.clone());
            registry.register("failover_actions", "What failover did", own.actions.clone());
            registry.register(
                "failover_action_failures",
                "What the API server did not let failover do",
                own.failures.clone(),
            );
            registry.register(
                "failover_brake",
                "1 while a node that does not answer is used all the same",
                own.brake.clone(),
            );
            registry.register("failover_rounds", "Rounds of probes", own.rounds.clone());
            registry.register(
                "failover_rounds_discarded",
                "Rounds whose silence was thrown away because the prober was late",
                own.discarded.clone(),
            );
        });
        own
    }

    /// Counts a round.
    pub fn round(&self, round: &Round, discarded: bool) {
        self.rounds.inc();
        self.discarded.inc_by(u64::from(discarded));
        for answer in &round.answers {
            let outcome = match answer.outcome {
                Outcome::Answered => "answered",
                Outcome::Refused => "refused",
                Outcome::TimedOut => "timed_out",
                Outcome::Failed => "failed",
            };
            self.probes.get_or_create(&ByOutcome { outcome }).inc();
        }
    }

    /// Counts an action.
    pub fn action(&self, kind: &'static str, done: bool) {
        let family = if done { &self.actions } else { &self.failures };
        family.get_or_create(&ByKind { kind }).inc();
    }

    /// Shows how nodes are.
    pub fn show(&self, view: &View) {
        let mut left = view.nodes;
        for (name, states) in [
            ("dead", &[State::Dead][..]),
            ("suspect", &[State::Suspect]),
            ("recovering", &[State::Well, State::Unknown]),
        ] {
            let count = view.ill.values().filter(|(ill, _)| states.contains(&ill.state)).count();
            left = left.saturating_sub(count);
            self.set(name, count);
        }
        self.set("well", left);
        self.brake.set(i64::from(!view.held.is_empty()));
    }

    fn set(&self, state: &'static str, count: usize) {
        self.nodes.get_or_create(&ByState { state }).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}
